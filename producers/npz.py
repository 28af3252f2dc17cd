"""Reads npz files of MedMNIST's form (train_images, train_labels, val_…, test_…) from anywhere.

Nothing in a file is believed before it is checked: what an array's header promises is compared with
what the archive says it holds before any memory is taken, and Python objects are never read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producers.images import Labels, Part, Pixels, check
from schemas.errors import DataError

PARTS = {"train": "train", "validation": "val", "test": "test"}
"""Our name of a part, and MedMNIST's."""
IMAGES = ("images", "test_images", "val_images", "train_images")
"""Where images are sought whose labels nobody asks for."""
LARGEST = 4 << 30  # bytes of one array: OrganAMNIST at 224x224 takes 2.9e9 in all
SINGLE, COLOUR = 1, 3  # channels of a gray and of a colour image


def read_npz(path: Path, classes: int | None = None) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Read the parts of a data set and its class uids: the label values, written as numbers.

    `classes` says how many classes there must be (labels 0 to classes - 1); None takes those that
    the training labels have. Images are gray (N, H, W) or colour (N, H, W, 3), labels (N,) or
    (N, 1). Raises DataError for a file that is missing, damaged or not of this form.
    """
    arrays = _arrays(path)
    values = _label_values(path, arrays, classes)
    parts = {ours: _part(path, arrays, theirs, values) for ours, theirs in PARTS.items()}
    class_uids = tuple(str(value) for value in values)
    check(str(path), parts, class_uids)
    return parts, class_uids


def read_by_class(path: Path) -> tuple[Pixels, tuple[str, ...]]:
    """Read a file's training images (N, C, H, W) and the class uid of each.

    Unlike `read_npz` it asks for no test images: this is for a stream, not for a data set. Raises
    DataError as `read_npz`.
    """
    keys = ("train_images", "train_labels")
    with _opened(path) as archive:
        if missing := [key for key in keys if f"{key}.npy" not in archive.namelist()]:
            raise DataError(f"{path} has no {missing[0]}; a stream needs {' and '.join(keys)}")
        arrays = {key: _array(path, archive, key) for key in keys}
    images, labels = _pixels(path, arrays, keys[0]), _labels(path, arrays, keys[1])
    if not len(images) or len(images) != len(labels):
        raise DataError(
            f"{path}: {keys[0]} has {len(images)} images, {keys[1]} {len(labels)} labels; a stream"
            " has at least one, and a label for each"
        )
    return images, tuple(str(label) for label in labels.tolist())


def read_images(path: Path) -> Pixels:
    """Read a file's images (N, C, H, W), those under the first key of `IMAGES` that it has.

    Raises DataError as `read_npz`.
    """
    with _opened(path) as archive:
        found = [key for key in IMAGES if f"{key}.npy" in archive.namelist()]
        if not found:
            raise DataError(f"{path} has none of {', '.join(IMAGES)}; store the images as one")
        arrays = {found[0]: _array(path, archive, found[0])}
    return _pixels(path, arrays, found[0])


def class_names(path: Path) -> tuple[str, ...]:
    """The names that a file gives its classes under the key `class_names`, or none.

    Raises DataError for a file that cannot be read or names that are not texts.
    """
    with _opened(path) as archive:
        if "class_names.npy" not in archive.namelist():
            return ()
        names = _array(path, archive, "class_names")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: class_names holds {names.dtype}, not a row of texts")
    return tuple(names.tolist())


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    wanted = {f"{part}_{what}" for part in PARTS.values() for what in ("images", "labels")}
    with _opened(path) as archive:
        present = {name.removesuffix(".npy") for name in archive.namelist()}
        optional = set() if {"val_images", "val_labels"} & present else {"val_images", "val_labels"}
        missing = sorted(wanted - optional - present)
        if missing:
            raise DataError(
                f"{path} has no {missing[0]}; an npz of MedMNIST's form has train_images,"
                " train_labels, test_images, test_labels and may have val_images, val_labels"
            )
        return {key: _array(path, archive, key) for key in sorted(wanted - optional)}


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what goes wrong while it is read becomes one line that names the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}); check the path") from None
    except (
        OSError,
        EOFError,
        KeyError,  # a member whose name is damaged in one of the two places where it stands
        ValueError,  # an array's header that is none
        RuntimeError,  # an encrypted member
        NotImplementedError,  # an unknown compression
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f"{path} cannot be read as npz ({error}); it is truncated, damaged or something else:"
            " copy or download it again"
        ) from None


def _array(path: Path, archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        promised, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {key} holds Python objects, which are never read (they can run code); store"
            " it as an array of numbers"
        )
    if promised != held:
        raise DataError(
            f"{path}: {key} says it has {promised} bytes (shape {shape}, {dtype}), the file holds"
            f" {held}; copy or download it again"
        )
    if promised > LARGEST:
        raise DataError(
            f"{path}: {key} would take {promised} bytes of memory, the limit is {LARGEST}; store"
            " smaller images"
        )
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that an npy file's first bytes promise."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version {version[0]}.{version[1]}")
    return shape, dtype


def _label_values(path: Path, arrays: dict[str, NDArray[Any]], classes: int | None) -> Labels:
    """The label values that are classes, ascending."""
    if classes is not None:
        return np.arange(classes, dtype=np.int64)
    return np.unique(_labels(path, arrays, "train_labels"))


def _part(path: Path, arrays: dict[str, NDArray[Any]], name: str, values: Labels) -> Part:
    if f"{name}_images" not in arrays:
        return _empty(path, arrays)
    images = _pixels(path, arrays, f"{name}_images")
    labels = _labels(path, arrays, f"{name}_labels")
    if len(images) != len(labels):
        raise DataError(
            f"{path}: {name}_images has {len(images)} images, {name}_labels {len(labels)} labels"
        )
    strange = np.setdiff1d(labels, values)
    if len(strange):
        raise DataError(
            f"{path}: {name}_labels holds the label {strange[0]}, the classes are"
            f" {_in_words(values)}; correct the labels"
        )
    return Part(images, np.searchsorted(values, labels).astype(np.int64))


def _empty(path: Path, arrays: dict[str, NDArray[Any]]) -> Part:
    shape = _pixels(path, arrays, "train_images").shape[1:]
    return Part(np.empty((0, *shape), dtype=np.uint8), np.empty(0, dtype=np.int64))


def _pixels(path: Path, arrays: dict[str, NDArray[Any]], key: str) -> Pixels:
    """Images as NCHW."""
    images = arrays[key]
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} holds {images.dtype}, images have 8 bits; scale them to 0..255 (for CT"
            " and MR: choose a window) and store them as uint8"
        )
    if images.ndim == 3:
        return images[:, np.newaxis]
    if images.ndim == 4 and images.shape[3] in (SINGLE, COLOUR):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise DataError(
        f"{path}: {key} has shape {images.shape}; images are gray (N, height, width) or colour"
        " (N, height, width, 3)"
    )


def _labels(path: Path, arrays: dict[str, NDArray[Any]], key: str) -> Labels:
    """Labels as one row of numbers."""
    labels = arrays[key]
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {key} holds {labels.dtype}; labels are whole numbers")
    if not (labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)):
        raise DataError(
            f"{path}: {key} has shape {labels.shape}; each image has one label: (N,) or (N, 1)"
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < 2**63:
        raise DataError(f"{path}: {key} holds {labels.min()}; labels count from 0")
    return labels.reshape(-1).astype(np.int64)


def _in_words(values: Iterable[int]) -> str:
    known = list(values)
    if known == list(range(len(known))):
        return f"0 to {len(known) - 1}"
    return ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
