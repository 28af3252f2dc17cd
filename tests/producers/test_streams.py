"""Images that come alone, for a stream or a prediction: read as they are, brought to a size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producers.folders import read_by_class as of_folder
from producers.folders import read_images
from producers.images import fitted
from producers.npz import read_by_class as of_npz
from producers.npz import read_images as read_npz_images
from schemas.errors import DataError


def picture(file: Path, gray: int, size: tuple[int, int] = (6, 5)) -> Path:
    """An image file of one gray."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, gray).save(file)
    return file


def test_a_stream_needs_no_test_images_and_one_class_is_enough(tmp_path: Path) -> None:
    """A folder with a single class of two images: both are taken, none is held out."""
    picture(tmp_path / "cat" / "a.png", 10)
    picture(tmp_path / "cat" / "b.png", 20, size=(9, 9))

    found, uids = of_folder(tmp_path, 3, 4, 8)

    assert found.images.shape == (2, 3, 4, 8)
    assert uids == ("cat", "cat")
    assert [int(image.max()) for image in found.images] == [10, 20]


def test_of_a_divided_folder_the_training_part_is_streamed(tmp_path: Path) -> None:
    """Test images stay test images."""
    picture(tmp_path / "train" / "10" / "a.png", 1)
    picture(tmp_path / "train" / "9" / "a.png", 2)
    picture(tmp_path / "test" / "9" / "a.png", 3)

    found, uids = of_folder(tmp_path, 1, 5, 6)

    assert uids == ("9", "10")
    assert found.images[:, 0, 0, 0].tolist() == [2, 1]


@pytest.mark.parametrize("empty", ["nowhere", "empty"])
def test_a_folder_without_images_is_named(tmp_path: Path, empty: str) -> None:
    """There is nothing to stream."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match=empty):
        of_folder(tmp_path / empty, 1, 4, 4)


def test_image_files_are_read_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    """As many as there are, also none."""
    files = [picture(tmp_path / f"{gray}.png", gray) for gray in (30, 10, 20)]

    assert read_images(files, 1, 5, 6).images[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert read_images([], 1, 5, 6).images.shape == (0, 1, 5, 6)


def test_whose_size_or_colour_was_changed_is_known(tmp_path: Path) -> None:
    """A gray image that fits, a larger one, one in colour: nothing is brought in silence."""
    small, large, red = (tmp_path / f"{name}.png" for name in ("small", "large", "red"))
    Image.new("L", (6, 5)).save(small)
    Image.new("L", (60, 50)).save(large)
    Image.new("RGB", (6, 5), "red").save(red)

    read = read_images([small, large, red], 1, 5, 6)

    assert read.resized.tolist() == [False, True, False]
    assert read.recoloured.tolist() == [False, False, True]
    assert read.only([1]).resized.tolist() == [True]


def test_a_file_streams_its_training_images(tmp_path: Path) -> None:
    """Labels become uids; there need be no test images, and labels may have gaps."""
    np.savez(
        tmp_path / "cells.npz",
        train_images=np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4),
        train_labels=np.array([[7], [0], [7]]),
    )

    images, uids = of_npz(tmp_path / "cells.npz")

    assert images.shape == (3, 1, 4, 4)
    assert uids == ("7", "0", "7")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train_images": np.zeros((2, 4, 4), np.uint8)}, "no train_labels"),
        (
            {"train_images": np.zeros((2, 4, 4), np.uint8), "train_labels": np.zeros(3, int)},
            "2 images, train_labels 3 labels",
        ),
        (
            {"train_images": np.zeros((0, 4, 4), np.uint8), "train_labels": np.zeros(0, int)},
            "at least one",
        ),
        (
            {"train_images": np.zeros((2, 4, 4), np.uint16), "train_labels": np.zeros(2, int)},
            "8 bits",
        ),
    ],
)
def test_a_file_that_cannot_be_streamed_is_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    """What is missing or does not fit, in one line."""
    file = tmp_path / "cells.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]

    with pytest.raises(DataError, match=said):
        of_npz(file)


def test_images_to_be_predicted_need_no_labels(tmp_path: Path) -> None:
    """`images` before `test_images`; a file with neither is refused."""
    few, many = np.zeros((1, 4, 4), np.uint8), np.zeros((5, 4, 4), np.uint8)
    np.savez(tmp_path / "both.npz", images=few, test_images=many)
    np.savez(tmp_path / "tests.npz", test_images=many)
    np.savez(tmp_path / "others.npz", others=few)

    assert len(read_npz_images(tmp_path / "both.npz")) == 1
    assert len(read_npz_images(tmp_path / "tests.npz")) == 5
    with pytest.raises(DataError, match="none of images, test_images"):
        read_npz_images(tmp_path / "others.npz")


def test_images_are_fitted_in_size_and_colour() -> None:
    """Gray becomes three equal channels; red becomes its luminance, 76 of 255; sides differ."""
    gray = np.full((2, 1, 4, 4), 9, np.uint8)
    red = np.zeros((1, 3, 4, 4), np.uint8)
    red[:, 0] = 255

    coloured, darkened = fitted(gray, 3, 8, 6).images, fitted(red, 1, 4, 4).images

    assert coloured.shape == (2, 3, 8, 6)
    assert (coloured == 9).all()
    assert (darkened == 76).all()


def test_images_that_fit_are_left_alone() -> None:
    """Not one byte is touched."""
    images = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (3, 3, 5, 7), np.uint8)

    found = fitted(images, 3, 5, 7)

    assert found.images is images
    assert not found.resized.any()
    assert not found.recoloured.any()
