"""Files of MedMNIST's form: what is read, and what is refused in one line that says what to do."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from producers import npz
from producers.npz import class_names, read_npz
from schemas.errors import DataError

Arrays = dict[str, NDArray[Any]]


def a_gray_file(classes: tuple[int, ...] = (0, 1, 2), per_class: int = 2) -> Arrays:
    """Gray 4x4 images; image i of a part is filled with i."""
    labels = np.repeat(np.array(classes, dtype=np.uint8), per_class)[:, np.newaxis]
    images = np.arange(len(labels), dtype=np.uint8).repeat(16).reshape(-1, 4, 4)
    parts = ("train", "val", "test")
    return {f"{part}_images": images for part in parts} | {f"{p}_labels": labels for p in parts}


def written(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, allow_pickle=True, **arrays)
    return path


def test_a_gray_file_becomes_images_with_one_channel(tmp_path: Path) -> None:
    """(6, 4, 4) images and (6, 1) labels become (6, 1, 4, 4) and (6,), in the file's order."""
    parts, class_uids = read_npz(written(tmp_path / "a.npz", a_gray_file()))

    assert class_uids == ("0", "1", "2")
    assert list(parts) == ["train", "validation", "test"]
    assert all(part.images.shape == (6, 1, 4, 4) for part in parts.values())
    assert parts["test"].images[:, 0, 3, 3].tolist() == [0, 1, 2, 3, 4, 5]
    assert parts["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_colours_come_to_the_front(tmp_path: Path) -> None:
    """A pixel (7, 8, 9) at row 1, column 2 is 7, 8 and 9 in the three channels at that place."""
    arrays = a_gray_file()
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.zeros((6, 4, 5, 3), dtype=np.uint8)
    arrays["train_images"][0, 1, 2] = (7, 8, 9)

    parts, _ = read_npz(written(tmp_path / "a.npz", arrays))

    assert parts["train"].images.shape == (6, 3, 4, 5)
    assert parts["train"].images[0, :, 1, 2].tolist() == [7, 8, 9]


def test_labels_need_not_be_consecutive(tmp_path: Path) -> None:
    """Labels 10, 2 and 300 are the classes "2", "10" and "300": in the order of their values."""
    arrays = a_gray_file()
    for part in ("train", "val", "test"):
        arrays[f"{part}_labels"] = np.array([10, 10, 2, 2, 300, 300])

    parts, class_uids = read_npz(written(tmp_path / "a.npz", arrays))

    assert class_uids == ("2", "10", "300")
    assert parts["train"].labels.tolist() == [1, 1, 0, 0, 2, 2]


def test_a_file_may_have_no_validation_images(tmp_path: Path) -> None:
    """Without val_images and val_labels that part is empty, in the shape of the others."""
    arrays = {key: array for key, array in a_gray_file().items() if not key.startswith("val")}

    parts, _ = read_npz(written(tmp_path / "a.npz", arrays))

    assert parts["validation"].images.shape == (0, 1, 4, 4)


def test_a_file_may_name_its_classes(tmp_path: Path) -> None:
    """The key class_names gives them; a file without it gives none."""
    named = a_gray_file() | {"class_names": np.array(["liver", "spleen", "heart"])}

    names = class_names(written(tmp_path / "named.npz", named))

    assert names == ("liver", "spleen", "heart")
    assert class_names(written(tmp_path / "plain.npz", a_gray_file())) == ()


def changed(key: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    arrays = a_gray_file()
    return arrays | {key: change(arrays[key])}


def with_nan(images: NDArray[Any]) -> NDArray[Any]:
    return np.full(images.shape, np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (changed("train_images", lambda a: a.astype(np.uint16)), "train_images holds uint16"),
        (changed("test_images", with_nan), "test_images holds float32"),
        (changed("test_images", lambda a: a.astype(object)), "test_images holds Python objects"),
        (changed("train_images", lambda a: a[:5]), "5 images, train_labels 6 labels"),
        (changed("train_images", lambda a: a[:, 0]), r"train_images has shape \(6, 4\)"),
        (changed("train_images", lambda a: np.stack([a] * 2, -1)), r"has shape \(6, 4, 4, 2\)"),
        (changed("val_images", lambda a: a[:, :3]), r"validation images have .* \(1, 3, 4\)"),
        (changed("train_labels", lambda a: np.hstack([a, a])), r"shape \(6, 2\); each image has"),
        (changed("train_labels", lambda a: a / 2), "train_labels holds float64; labels are whole"),
        (changed("train_labels", lambda a: a.astype(np.int8) - 1), "holds -1; labels count from 0"),
        (changed("test_labels", lambda a: a + 5), "test_labels holds the label 5, the classes are"),
        (changed("test_labels", lambda a: a * 0), "class '1' has no test image .2 of 3 classes"),
        (
            changed("train_labels", lambda a: a * 0),
            "val_labels holds the label 1, the classes are 0",
        ),
        (a_gray_file(classes=(4,)), "has 1 class; learning needs at least 2"),
        ({"x": np.zeros(3)}, "has no test_images; an npz of MedMNIST's form has"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: Arrays, words: str) -> None:
    """One line that names the file and what is wrong in it."""
    path = written(tmp_path / "scans.npz", arrays)

    with pytest.raises(DataError, match=words) as refused:
        read_npz(path)

    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_named_data_set_has_all_its_classes(tmp_path: Path) -> None:
    """Of four classes, class 3 is missing; of two, label 2 is one too many."""
    path = written(tmp_path / "a.npz", a_gray_file())

    with pytest.raises(DataError, match=r"class '3' has no train image \(1 of 4 classes have none"):
        read_npz(path, classes=4)
    with pytest.raises(DataError, match="holds the label 2, the classes are 0 to 1"):
        read_npz(path, classes=2)


def test_a_missing_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    """Nothing there, a folder there, text there, half a file there."""
    whole = written(tmp_path / "whole.npz", a_gray_file())
    (tmp_path / "text.npz").write_text("label,pixel\n")
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    with pytest.raises(DataError, match=r"none\.npz cannot be opened \(No such file"):
        read_npz(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"cannot be opened \(Is a directory"):
        read_npz(tmp_path)
    with pytest.raises(DataError, match=r"text\.npz cannot be read as npz"):
        read_npz(tmp_path / "text.npz")
    with pytest.raises(DataError, match=r"half\.npz cannot be read as npz"):
        read_npz(tmp_path / "half.npz")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
@example(place=997, value=0)  # in the name of a member
def test_a_changed_byte_is_refused_or_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    """Whatever byte is replaced, it is a DataError or the same images (padding, dates)."""
    folder = tmp_path_factory.mktemp("changed")
    content = bytearray(written(folder / "whole.npz", a_gray_file()).read_bytes())
    intended, _ = read_npz(folder / "whole.npz")
    content[place % len(content)] = value
    (folder / "changed.npz").write_bytes(content)

    try:
        parts, _ = read_npz(folder / "changed.npz")
    except DataError as refused:
        assert "changed.npz" in str(refused)  # noqa: PT017 - either outcome is right
    else:
        assert all(
            np.array_equal(parts[name].images, intended[name].images)
            and np.array_equal(parts[name].labels, intended[name].labels)
            for name in intended
        )


def npy(shape: tuple[int, ...], content: bytes) -> bytes:
    """An npy file whose header promises uint8 of any shape, whatever it holds."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    """A header of 2^50 bytes over 16 bytes is refused before anything is allocated."""
    path = written(
        tmp_path / "bomb.npz", {k: v for k, v in a_gray_file().items() if "l_im" not in k}
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("val_images.npy", npy((1 << 50, 1, 1), bytes(16)))

    with pytest.raises(DataError, match=rf"says it has {1 << 50} bytes .* the file holds 16"):
        read_npz(path)


def test_an_array_above_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """96 bytes of images against a limit of 95, honestly stored and well compressed."""
    monkeypatch.setattr(npz, "LARGEST", 95)

    with pytest.raises(DataError, match="would take 96 bytes of memory, the limit is 95"):
        read_npz(written(tmp_path / "large.npz", a_gray_file()))


def test_an_encrypted_or_unknown_archive_is_refused(tmp_path: Path) -> None:
    """Bit 0 of a member's flags says it is encrypted; compression 99 does not exist."""
    path = written(tmp_path / "a.npz", a_gray_file())
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")  # the first entry of the archive's directory
    encrypted = bytearray(whole)
    encrypted[entry + 8 : entry + 10] = struct.pack("<H", 1)
    unknown = bytearray(whole)
    unknown[entry + 10 : entry + 12] = struct.pack("<H", 99)

    for content in (encrypted, unknown):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz cannot be read as npz"):
            read_npz(path)
