"""Fetching: what is kept, what happens without a network, and CIFAR-100's conversion."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from numpy.typing import NDArray

from producers import datasets, fetching
from producers.datasets import fetch, holding, load
from producers.images import Part, digest
from schemas.errors import ConfigurationError, DataError


def a_small_cifar100(root: Path | None = None) -> dict[str, NDArray[Any]]:
    """100 classes of colour 4x4 images, 5 to learn from and 1 to test; image i holds i % 256."""
    return {
        "train_images": np.arange(500, dtype=np.uint8)[:, None, None, None]
        .repeat(4, 1)
        .repeat(4, 2)
        * np.ones(3, dtype=np.uint8),
        "train_labels": np.tile(np.arange(100, dtype=np.uint8), 5),
        "test_images": np.ones((100, 4, 4, 3), dtype=np.uint8),
        "test_labels": np.arange(100, dtype=np.uint8),
        "class_names": np.array([f"thing-{number}" for number in range(100)]),
    }


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with an official folder of small images, which nobody unpickles."""
    folder = tmp_path / fetching.CIFAR100_FOLDER
    folder.mkdir()
    for name in fetching.CIFAR100_FILES:
        (folder / name).write_text(name)
        md5 = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(fetching.CIFAR100_FILES, name, md5)
    arrays = a_small_cifar100()
    parts = {
        part: Part(
            arrays[f"{part}_images"].transpose(0, 3, 1, 2),
            arrays[f"{part}_labels"].astype(np.int64),
        )
        for part in ("train", "test")
    }
    parts["validation"] = parts["train"].within_class(0, 0)
    monkeypatch.setattr(
        datasets, "CIFAR100_SHA256", digest(parts, tuple(str(label) for label in range(100)))
    )
    monkeypatch.setattr(fetching, "_official_cifar100", a_small_cifar100)
    return tmp_path


def test_an_official_folder_is_converted_once(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first load writes the npz; the second reads it although the folder is gone."""
    first = load("cifar100", official)
    shutil.rmtree(official / fetching.CIFAR100_FOLDER)
    second = load("cifar100", official)

    assert first.sha256 == second.sha256
    assert first.class_names[99] == "thing-99"
    assert first.train.images[7].flatten().tolist() == [7] * 48
    assert [file.name for file in official.iterdir()] == ["cifar100.npz"]


def test_an_official_folder_counts_as_being_here(official: Path) -> None:
    """It is named until it is converted, then the npz is; fetching converts without a network."""
    before = holding("cifar100", official)
    after = fetch("cifar100", official)

    assert before.present
    assert before.where == official / fetching.CIFAR100_FOLDER
    assert before.size == len("train" + "test" + "meta")
    assert after.where == official / "cifar100.npz"


def test_held_out_images_are_not_trained_on(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With index 4 of five held out, images 400 to 499 (the fifth of each class) are validation."""
    monkeypatch.setattr(datasets, "HELD_OUT_OF_CIFAR100", (4, 5))

    whole = load("cifar100", official)
    cifar = load("cifar100", official, hold_out=True)

    assert len(whole.validation) == 0
    assert np.array_equal(cifar.train.images, whole.train.images[:400])
    assert np.array_equal(cifar.validation.images, whole.train.images[400:])
    assert np.bincount(cifar.validation.labels).tolist() == [1] * 100
    assert cifar.sha256 == whole.sha256
    with pytest.raises(ConfigurationError, match="hold_out is for cifar100, not digits"):
        load("digits", official, hold_out=True)


def test_a_file_that_is_not_the_official_one_is_never_unpickled(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One changed byte in `meta`, and torchvision is not asked."""
    (official / fetching.CIFAR100_FOLDER / "meta").write_text("mete")
    asked: list[Path] = []
    monkeypatch.setattr(fetching, "_official_cifar100", asked.append)

    with pytest.raises(DataError, match=r"meta is missing or not the official file \(MD5 .*remove"):
        load("cifar100", official)
    assert asked == []
    assert not (official / "cifar100.npz").exists()


def test_another_cifar100_is_refused(official: Path) -> None:
    """An npz with a changed label has another hash."""
    arrays = a_small_cifar100()
    arrays["train_labels"][:2] = (1, 0)
    np.savez(official / "cifar100.npz", allow_pickle=False, **arrays)

    with pytest.raises(
        DataError, match=r"does not hold the official images .* delete it and fetch"
    ):
        load("cifar100", official)


def test_a_data_folder_that_cannot_be_written_says_so(tmp_path: Path, official: Path) -> None:
    """A file lies where the data folder should be."""
    (tmp_path / "taken").write_text("")

    with pytest.raises(DataError, match=r"could not be written .* name a data folder"):
        fetching.convert_cifar100(official, tmp_path / "taken" / "cifar100.npz")


def test_a_download_is_kept_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt breaks off after three bytes, the second comes through."""

    def broken(url: str, folder: Path, filename: str, md5: str, *, by_hand: str) -> None:
        (folder / filename).write_bytes(b"PK\x03")
        raise DataError(f"{url} could not be downloaded")

    def whole(url: str, folder: Path, filename: str, md5: str, *, by_hand: str) -> None:
        (folder / filename).write_bytes(md5.encode())

    monkeypatch.setattr(fetching, "_medmnist_link", lambda name: (f"https://x/{name}", "0" * 32))
    target = tmp_path / "data" / "organamnist.npz"

    monkeypatch.setattr(fetching, "_download", broken)
    with pytest.raises(DataError, match="https://x/organamnist could not be downloaded"):
        fetching.fetch_medmnist("organamnist", target)
    left = list(target.parent.iterdir())
    monkeypatch.setattr(fetching, "_download", whole)
    fetching.fetch_medmnist("organamnist", target)

    assert left == []
    assert [file.name for file in target.parent.iterdir()] == ["organamnist.npz"]
    assert target.read_bytes() == b"0" * 32


def test_an_md5_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    """MD5 of "abc" is 900150983cd24fb0d6963f7d28e17f72 (RFC 1321); a file not there is an error."""
    (tmp_path / "abc").write_bytes(b"abc")

    assert fetching.md5_of(tmp_path / "abc") == "900150983cd24fb0d6963f7d28e17f72"
    with pytest.raises(DataError, match="none cannot be read"):
        fetching.md5_of(tmp_path / "none")


@pytest.mark.slow
def test_without_a_network_the_file_can_be_brought_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the address, the reason, the MD5 and the folder to bring the file into."""
    from torchvision.datasets import utils

    def away(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(utils, "download_url", away)

    with pytest.raises(DataError) as told:
        fetch("organamnist", tmp_path)

    for words in ("https://zenodo.org", "no route to host", "organamnist.npz", str(tmp_path)):
        assert words in str(told.value)
    assert any(md5 in str(told.value) for md5 in datasets.ORGAN_MD5["organamnist"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cifar100_is_fetched_unpacked_and_converted(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive holds the official folder; only the npz is left in the data folder."""
    told: list[str] = []

    def archived(url: str, folder: Path, filename: str, md5: str, *, by_hand: str) -> None:
        told.append(by_hand)
        with tarfile.open(folder / filename, "w:gz") as archive:
            archive.add(official / fetching.CIFAR100_FOLDER, fetching.CIFAR100_FOLDER)

    monkeypatch.setattr(fetching, "_download", archived)

    fetched = fetch("cifar100", official / "data")

    assert fetched.where == official / "data" / "cifar100.npz"
    assert [file.name for file in (official / "data").iterdir()] == ["cifar100.npz"]
    assert told == [f"unpack it in {official / 'data'}"]


@pytest.mark.slow
def test_the_real_cifar100_is_converted(tmp_path: Path) -> None:
    """torchvision reads the official files this once; what is kept has the expected hash."""
    folder = Path(os.environ.get("FEDTWIN_DATA_DIR", "")) / fetching.CIFAR100_FOLDER
    if "FEDTWIN_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip(f"FEDTWIN_DATA_DIR names no folder with {fetching.CIFAR100_FOLDER}")
    (tmp_path / fetching.CIFAR100_FOLDER).symlink_to(folder.resolve())

    cifar = load("cifar100", tmp_path)

    assert cifar.sha256 == datasets.CIFAR100_SHA256
    assert (tmp_path / "cifar100.npz").is_file()
