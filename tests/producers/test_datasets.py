"""Data sets by name, as a file or as a folder: what a run gets, and what it is told instead."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from producers import datasets
from producers.datasets import DATASETS, fetch, holding, holdings, load, moved, placed
from producers.images import Part, digest, held_out, resized
from schemas.datasets import ORGANS
from schemas.errors import ConfigurationError, DataError


def some_organs(per_class: int = 2) -> dict[str, NDArray[Any]]:
    """A file of OrganMNIST's form, 11 classes of gray 28x28; labels (N, 1) as MedMNIST has them."""
    labels = np.repeat(np.arange(11, dtype=np.uint8), per_class)[:, np.newaxis]
    noise = np.random.default_rng(0)
    return {
        f"{part}_{what}": labels
        if what == "labels"
        else noise.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for part in ("train", "val", "test")
        for what in ("images", "labels")
    }


@pytest.fixture
def organs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with an organamnist.npz that counts as version 3."""
    file = tmp_path / "organamnist.npz"
    np.savez_compressed(file, allow_pickle=False, **some_organs())
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(datasets.ORGAN_MD5, "organamnist", {"0" * 32: 2, md5: 3})
    return tmp_path


def real(file: str) -> Path:
    """The data folder, if the environment names one that has this file."""
    folder = os.environ.get("FEDTWIN_DATA_DIR", "")
    if not folder or not (Path(folder) / file).exists():
        pytest.skip(f"FEDTWIN_DATA_DIR names no folder with {file}")
    return Path(folder)


# --- digits ---------------------------------------------------------------------------------------


def test_digits_need_no_data_folder(tmp_path: Path) -> None:
    """1,797 images of 16x16 in ten classes; 30 % of each class, rounded, are for the test."""
    digits = load("digits", tmp_path / "nowhere")

    counts = np.bincount(digits.train.labels) + np.bincount(digits.test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits.test.labels).tolist() == [53, 55, 53, 55, 54, 55, 54, 54, 52, 54]
    assert digits.train.images.shape[1:] == (1, 16, 16)
    assert len(digits.validation) == 0
    assert digits.class_uids == tuple("0123456789")
    assert (digits.transforms.mean, digits.transforms.std) == ((0.3,), (0.35,))
    assert digits.transforms.crop_padding == 0
    assert not (tmp_path / "nowhere").exists()


def test_digits_are_enlarged_bilinearly() -> None:
    """One pixel of 16 in a corner: each axis gives 4, 3, 1, 0 quarters.

    Per axis the weights of source row 0 for the new rows 0 to 3 are (3+1)/4, 3/4, 1/4, 0. At (0, 0)
    that is 16/16 of 255 = 255, at (0, 1) 12/16 = 191.25, at (1, 1) 9/16 = 143.4, at (1, 2) 3/16 =
    47.8, at (2, 2) 1/16 = 15.9, each rounded.
    """
    corner = np.zeros((1, 8, 8), dtype=np.uint8)
    corner[0, 0, 0] = 16

    enlarged = datasets._enlarged(corner)

    assert enlarged.shape == (1, 1, 16, 16)
    assert enlarged[0, 0, :4, :4].tolist() == [
        [255, 191, 64, 0],
        [191, 143, 48, 0],
        [64, 48, 16, 0],
        [0, 0, 0, 0],
    ]
    assert enlarged.sum() == enlarged[0, 0, :3, :3].sum()


def test_other_digits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were scikit-learn to change its digits, a run would say so."""
    monkeypatch.setattr(datasets, "DIGITS_SHA256", "0" * 64)

    with pytest.raises(DataError, match=r"does not hold the official images .*reinstall scikit"):
        load("digits", tmp_path)


# --- organs ---------------------------------------------------------------------------------------


def test_organs_are_eleven_classes_that_are_never_mirrored(organs: Path) -> None:
    """Left and right are classes, so no flip; crop 28 with padding 2, mean and std 0.5 (1.5)."""
    organa = load("organamnist", organs)

    assert organa.class_uids == tuple(map(str, range(11)))
    assert organa.class_names == ORGANS
    assert organa.encoder_classes == 11
    assert organa.train.images.shape == (22, 1, 28, 28)
    assert len(organa.validation) == 22
    assert not organa.transforms.horizontal_flip
    assert organa.transforms.crop_padding == 2
    assert organa.transforms.mean == organa.transforms.std == (0.5,)
    assert organa.transforms.brightness == pytest.approx(0.247, abs=1e-3)
    assert "version 3" in organa.version


def test_organs_are_mirrored_only_on_request(organs: Path) -> None:
    """organ_hflip mirrors; other data sets have no such option."""
    assert load("organamnist", organs, organ_hflip=True).transforms.horizontal_flip
    with pytest.raises(ConfigurationError, match=r"organ_hflip is for organamnist.* not digits"):
        load("digits", organs, organ_hflip=True)


def test_the_older_version_of_a_file_is_known_too(organs: Path) -> None:
    """The same file under version 2's MD5 is loaded as version 2."""
    file = organs / "organamnist.npz"
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    datasets.ORGAN_MD5["organamnist"] = {md5: 2, "0" * 32: 3}

    assert f"version 2, MD5 {md5}" in load("organamnist", organs).version


def test_the_md5s_of_both_versions_are_medmnists() -> None:
    """Three data sets, two versions each, six different files."""
    md5s = [md5 for versions in datasets.ORGAN_MD5.values() for md5 in versions]

    assert len(set(md5s)) == 6
    assert all(list(versions.values()) == [2, 3] for versions in datasets.ORGAN_MD5.values())
    assert all(len(md5) == 32 for md5 in md5s)


def test_an_unknown_organ_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Both known MD5s, how to fetch it again, and how to use it all the same."""
    file = tmp_path / "organcmnist.npz"
    np.savez(file, allow_pickle=False, **some_organs())

    with pytest.raises(DataError) as refused:
        load("organcmnist", tmp_path)

    for words in (*datasets.ORGAN_MD5["organcmnist"], "fedtwin data fetch", f"npz:{file}"):
        assert words in str(refused.value)
    assert len(load(f"npz:{file}", tmp_path).class_uids) == 11


# --- files and folders of one's own ---------------------------------------------------------------


def test_a_file_of_ones_own_is_private_and_plain(tmp_path: Path) -> None:
    """Nobody said that its images may be seen, or that left and right are alike."""
    np.savez(tmp_path / "scans.npz", allow_pickle=False, **some_organs())

    scans = load(f"npz:{tmp_path / 'scans.npz'}", tmp_path)

    assert scans.name == "npz:scans.npz"
    assert not scans.public
    assert not scans.transforms.horizontal_flip
    assert scans.encoder_classes == 11
    assert scans.class_names == scans.class_uids


def test_a_relative_path_is_sought_in_the_data_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the program runs there is no scans.npz, in the data folder there is."""
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "scans.npz", allow_pickle=False, **some_organs())
    monkeypatch.chdir(tmp_path)

    assert len(load("npz:scans.npz", tmp_path / "data").train) == 22
    with pytest.raises(DataError, match=r"other\.npz cannot be opened"):
        load("npz:other.npz", tmp_path / "data")


def test_a_folder_of_ones_own_may_get_more_classes(tmp_path: Path) -> None:
    """Two classes now, and an encoder with 256 rows for those that come (6.1)."""
    for place in range(8):
        file = tmp_path / "plants" / ("moss" if place % 2 else "fern") / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (place, 0, 0)).save(file)

    plants = load(f"folder:{tmp_path / 'plants'}", tmp_path, image_size=28)

    assert plants.name == "folder:plants"
    assert plants.class_uids == ("fern", "moss")
    assert plants.encoder_classes == 256
    assert plants.train.images.shape == (6, 3, 28, 28)
    assert plants.transforms.crop_padding == 2
    assert plants.transforms.mean == (0.5, 0.5, 0.5)
    assert not plants.public


# --- sizes, facts, hashes -------------------------------------------------------------------------


def test_images_and_padding_are_resized_together(organs: Path) -> None:
    """28 pixels with padding 2 become 56 with padding 4, under another hash."""
    own, large = load("organamnist", organs), load("organamnist", organs, image_size=56)

    assert large.train.images.shape == large.test.images.shape == (22, 1, 56, 56)
    assert large.transforms.crop_padding == 4
    assert large.sha256 != own.sha256
    assert load("organamnist", organs, image_size=28).sha256 == own.sha256


def test_a_size_that_no_net_takes_is_refused(tmp_path: Path) -> None:
    """As an option it is a wrong configuration, in a file it is data to be resized."""
    arrays = {k: v[:, :3, :3] if "images" in k else v for k, v in some_organs().items()}
    np.savez(tmp_path / "tiny.npz", allow_pickle=False, **arrays)

    with pytest.raises(ConfigurationError, match="image_size is 2000 pixels; it can be 4 to 1024"):
        load("digits", tmp_path, image_size=2000)
    with pytest.raises(DataError, match=r"npz:tiny\.npz has images of 3x3 pixels.*set image_size"):
        load(f"npz:{tmp_path / 'tiny.npz'}", tmp_path)
    assert load("npz:tiny.npz", tmp_path, image_size=16).train.images.shape[2:] == (16, 16)


def test_resizing_keeps_a_plain_image_plain() -> None:
    """Bilinear means of equal pixels are those pixels, in every channel."""
    images = np.zeros((1, 3, 5, 7), dtype=np.uint8)
    images[0, :] = np.array([10, 20, 30], dtype=np.uint8)[:, np.newaxis, np.newaxis]

    small = resized(Part(images, np.zeros(1, dtype=np.int64)), 4)

    assert small.images.shape == (1, 3, 4, 4)
    assert [np.unique(channel).tolist() for channel in small.images[0]] == [[10], [20], [30]]


def test_the_facts_name_the_classes_in_the_runs_order(organs: Path) -> None:
    """A permuted order is kept; an order of other classes is a mistake."""
    organa = load("organamnist", organs)
    order = organa.class_uids[::-1]

    facts = organa.facts(order)

    assert facts.classes == order
    assert organa.facts().classes == organa.class_uids
    assert (facts.channels, facts.height, facts.width) == (1, 28, 28)
    assert facts.sha256 == organa.sha256
    assert facts.public
    with pytest.raises(ValueError, match="the order has"):
        organa.facts(order[1:])


def test_the_hash_sees_every_pixel_label_and_class() -> None:
    """Four changes of one thing each give four other hashes; the container is not seen."""
    images = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    labels = np.array([0, 1])
    brighter = images.copy()
    brighter[1, 0, 3, 3] = 1

    hashes = {
        digest({"train": Part(images, labels)}, ("0", "1")),
        digest({"train": Part(brighter, labels)}, ("0", "1")),
        digest({"train": Part(images, labels[::-1])}, ("0", "1")),
        digest({"train": Part(images.reshape(2, 4, 2, 2), labels)}, ("0", "1")),
        digest({"train": Part(images, labels)}, ("0", "2")),
    }

    assert len(hashes) == 5
    assert digest({"train": Part(images.copy("F"), labels)}, ("0", "1")) in hashes


def test_three_images_in_ten_are_held_out_by_class() -> None:
    """Of 2, 3, 5 and 10 images: 0.6, 0.9, 1.5 and 3 rounded are 1, 1, 2 and 3."""
    labels = np.repeat(np.arange(4), (2, 3, 5, 10))

    drawn = held_out(labels, np.random.Generator(np.random.PCG64(1)))
    again = held_out(labels, np.random.Generator(np.random.PCG64(1)))

    assert np.bincount(labels[drawn]).tolist() == [1, 1, 2, 3]
    assert np.array_equal(drawn, again)
    with pytest.raises(ValueError, match="class 0 has 1 image, a split takes 2"):
        held_out(np.array([0, 1, 1]), np.random.default_rng(1))


def test_images_can_be_chosen_by_their_index_within_the_class() -> None:
    """Labels 1, 0, 1, 1, 0: index within the class 0, 0, 1, 2, 1; from 1 on these are 2, 3, 4."""
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    part = Part(images, np.array([1, 0, 1, 1, 0]))

    later = part.within_class(1, 3)

    assert later.images.flatten().tolist() == [2, 3, 4]
    assert later.labels.tolist() == [1, 1, 0]


def test_images_and_labels_belong_together() -> None:
    """Two images with three labels, and floats instead of pixels, are the caller's mistakes."""
    images = np.zeros((2, 1, 4, 4), dtype=np.uint8)

    with pytest.raises(ValueError, match=r"2 images have labels of shape \(3,\)"):
        Part(images, np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="images are float64"):
        Part(images.astype(np.float64), np.zeros(2, dtype=np.int64))


# --- names and lists ------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_known_one(tmp_path: Path) -> None:
    """organamnits is nearly organamnist; npz: without a path is no name either."""
    with pytest.raises(ConfigurationError, match=r"'organamnits' \(did you mean 'organamnist'"):
        load("organamnits", tmp_path)
    with pytest.raises(ConfigurationError, match="there is no data set 'npz:'"):
        load("npz:", tmp_path)


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    """By the command, or by hand into the data folder."""
    with pytest.raises(
        DataError, match=r"cifar100 is not in .*`fedtwin data fetch cifar100 --data-dir .*`, or"
    ):
        load("cifar100", tmp_path)
    with pytest.raises(DataError, match=r"put organsmnist\.npz \(MD5 e5c39.* or 9ab87.*\) into"):
        load("organsmnist", tmp_path)


def test_the_list_says_what_is_here(organs: Path) -> None:
    """Digits come with the installation, organamnist lies there, the others have a remedy."""
    here = {held.name: held for held in holdings(organs)}

    assert list(here) == list(DATASETS)
    assert here["digits"].present
    assert here["digits"].where is None
    assert here["organamnist"].present
    assert here["organamnist"].size == (organs / "organamnist.npz").stat().st_size
    assert here["organamnist"].remedy == ""
    assert not here["cifar100"].present
    assert "fedtwin data fetch cifar100" in here["cifar100"].remedy
    assert here["cifar100"].size == 0


def test_what_is_here_is_not_fetched_again(organs: Path) -> None:
    """Digits and a file in place need no network; fetching says where they are."""
    assert fetch("digits", organs).present
    assert fetch("organamnist", organs) == holding("organamnist", organs)


def test_data_sets_load_without_torch() -> None:
    """Importing the module and loading digits brings in neither torch nor scikit-learn."""
    program = (
        "import sys, pathlib; from producers.datasets import load;"
        "load('digits', pathlib.Path('nowhere'));"
        "print([m for m in ('torch', 'torchvision', 'medmnist', 'sklearn') if m in sys.modules])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "[]\n"


# --- real data, where it is -----------------------------------------------------------------------


def test_cifar100_is_the_official_one() -> None:
    """500 and 100 images of each of 100 classes; its hash is compared when it is read."""
    cifar = load("cifar100", real("cifar100.npz"))

    assert np.bincount(cifar.train.labels).tolist() == [500] * 100
    assert np.bincount(cifar.test.labels).tolist() == [100] * 100
    assert cifar.class_names[:3] == ("apple", "aquarium_fish", "baby")
    assert cifar.transforms.horizontal_flip
    assert cifar.transforms.crop_padding == 4
    means = cifar.train.images.mean(axis=(0, 2, 3)) / 255
    assert means.tolist() == pytest.approx(cifar.transforms.mean, abs=1e-3)


def test_blood_cells_are_read_as_a_file_of_ones_own() -> None:
    """17,092 images in 8 classes, of which 1,710 are for validation."""
    blood = load("npz:pbc_blood_28.npz", real("pbc_blood_28.npz"))

    sizes = [len(part) for part in (blood.train, blood.validation, blood.test)]
    assert sizes == [11963, 1710, 3419]
    assert blood.train.images.shape[1:] == (3, 28, 28)
    assert len(blood.class_uids) == 8


# --- places ---------------------------------------------------------------------------------------


def test_data_of_ones_own_are_placed_by_their_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `load` finds them: where the program runs, else in the data folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "data" / "scans").mkdir(parents=True)
    (tmp_path / "here" / "cells.npz").touch()
    monkeypatch.chdir(tmp_path / "here")
    data = tmp_path / "data"

    assert placed("npz:cells.npz", data) == f"npz:{tmp_path / 'here' / 'cells.npz'}"
    assert placed("folder:scans", data) == f"folder:{data / 'scans'}"
    assert placed("digits", data) == "digits"


def test_data_that_moved_are_found_in_their_new_folder(tmp_path: Path) -> None:
    """Under the path that was named, else by the last part of it; otherwise where they were."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "cells.npz").touch()
    was = "npz:/gone/sets/cells.npz"

    by_name = moved(was, "npz:sets/cells.npz", tmp_path)
    (tmp_path / "sets" / "cells.npz").touch()
    by_path = moved(was, "npz:sets/cells.npz", tmp_path)

    assert by_name == moved(was, "npz:/gone/sets/cells.npz", tmp_path)
    assert by_name == f"npz:{tmp_path / 'cells.npz'}"
    assert by_path == f"npz:{tmp_path / 'sets' / 'cells.npz'}"
    assert moved("npz:/gone/x.npz", "npz:x.npz", tmp_path) == "npz:/gone/x.npz"
    assert moved("digits", "digits", tmp_path) == "digits"
