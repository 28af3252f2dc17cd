"""Reads a folder of images by class: DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/*.

A class is called what its folder is called. Pillow decodes, and only the formats listed here: its
other decoders start programs (EPS) or have been attacked often.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from producers.images import LONGEST_UID, Fitted, Labels, Part, Pixels, check, held_out
from schemas.errors import DataError
from schemas.schedule import sorted_uids

PARTS = {"train": "train", "validation": "val", "test": "test"}
"""Our name of a part, and its folder's."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
GRAY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
STACKS = ("PNG", "TIFF", "WEBP")
"""Formats whose files may hold several images; a JPEG's further ones are only previews."""
LARGEST = 4 << 30  # bytes of all images of a part in memory
MOST_PIXELS = 1 << 26  # of one image before it is resized: about 8,000 x 8,000
SPLIT_SEED = 2021
"""Seeds the draw of the test images where a folder has none, the same for everybody."""
CLUTTER = frozenset({"thumbs.db", "desktop.ini"})
BITS_PER_SAMPLE = 258  # a TIFF tag

Files = dict[str, list[Path]]
"""Image files by class uid."""


class Damaged(DataError):
    """A file that is no image, or none yet: somebody may still be writing it."""


def read_folder(root: Path, side: int | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Read the parts of a data set and its class uids: the folders' names in natural order.

    Every image is brought to side x side pixels as a whole (its shape is not kept, for what lies at
    the border matters as much); None keeps the size, which must then be one for all. If one image
    is in colour, all are. A folder without train/ and test/ is split by `held_out`. Raises
    DataError for whatever is not an image of 8 bits, and for classes without images.
    """
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    if divided:
        files = {part: _files(root / name) for part, name in PARTS.items()}
    else:
        files = {"train": _files(_undivided(root))}
    class_uids = sorted_uids(files["train"])
    parts = _parts(root, files, class_uids, side)
    if not divided:
        parts = _split(root, parts["train"], class_uids)
    check(str(root), parts, class_uids)
    return parts, class_uids


def read_by_class(
    root: Path, channels: int, height: int, width: int
) -> tuple[Fitted, tuple[str, ...]]:
    """Read all images of a folder by class (of its train/ if it has one), and the uid of each.

    Unlike `read_folder` it asks for no test images: this is for a stream, not for a data set. Every
    image is brought to this size, and to 1 (gray) or 3 channels. Raises DataError as `read_folder`.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name one that holds a folder for each class")
    files = _files(root / "train" if (root / "train").is_dir() else root)
    labelled = [(uid, file) for uid in sorted_uids(files) for file in files[uid]]
    if not labelled:
        raise DataError(f"{root} holds no images; put each into its class's folder, {root}/CLASS/")
    images = read_images([file for _, file in labelled], channels, height, width)
    return images, tuple(uid for uid, _ in labelled)


def read_images(files: Sequence[Path], channels: int, height: int, width: int) -> Fitted:
    """Read image files as they are named, each brought to this size and colour.

    Raises DataError for whatever is not an image of 8 bits.
    """
    images: Pixels = np.empty((len(files), channels, height, width), dtype=np.uint8)
    resized, recoloured = np.zeros((2, len(files)), dtype=bool)
    for place, file in enumerate(files):
        with _opened(file) as opened:
            recoloured[place] = (opened.mode in COLOUR) != (channels == 3)
            image = _upright(opened, channels)
        resized[place] = image.size != (width, height)
        images[place] = _pixels(image, (width, height))
    return Fitted(images, resized, recoloured)


def _undivided(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name one that holds a folder for each class")
    for name, other in (("train", "test"), ("test", "train")):
        if (root / name).is_dir():
            raise DataError(
                f"{root} has {name}/ but no {other}/; add it, or put the classes' folders directly"
                f" into {root} to have 30 % of each drawn for the test"
            )
    return root


def _files(root: Path) -> Files:
    """The files in each class's folder, by name."""
    if not root.is_dir():
        return {}
    files: Files = {}
    for folder in _entries(root):
        if not folder.is_dir():
            raise DataError(f"{folder} lies beside the classes' folders; move it into its class")
        files[_uid(folder)] = _entries(folder)
    return files


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of the names' bytes; not what systems hide there."""
    try:
        entries = [Path(entry) for entry in os.scandir(folder)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its rights") from None
    shown = [e for e in entries if e.name[0] != "." and e.name.lower() not in CLUTTER]
    return sorted(shown, key=lambda entry: os.fsencode(entry.name))


def _uid(folder: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder)
        raise DataError(f"{shown!r} is not a name in UTF-8; rename the class's folder") from None
    if len(folder.name) > LONGEST_UID:
        raise DataError(
            f"{folder}: a class's name has at most {LONGEST_UID} characters, this one has"
            f" {len(folder.name)}; rename the folder"
        )
    return folder.name


def _split(root: Path, whole: Part, class_uids: tuple[str, ...]) -> dict[str, Part]:
    counts = np.bincount(whole.labels, minlength=len(class_uids))
    if counts.min() < 2:
        raise DataError(
            f"{root}: class {class_uids[int(counts.argmin())]!r} has too few images"
            f" ({counts.min()}); it takes one to learn from and one to be tested on"
        )
    drawn = held_out(whole.labels, np.random.Generator(np.random.PCG64(SPLIT_SEED)))
    none = np.zeros(len(whole), dtype=bool)
    return {"train": whole.only(~drawn), "validation": whole.only(none), "test": whole.only(drawn)}


def _parts(
    root: Path, files: dict[str, Files], class_uids: tuple[str, ...], side: int | None
) -> dict[str, Part]:
    """Look at every file first, so that nothing is decoded before all are known to be images."""
    every = [file for part in files.values() for of_class in part.values() for file in of_class]
    if not every:
        raise DataError(f"{root} holds no images; put each into its class's folder, {root}/CLASS/")
    channels = 3 if any(_mode(file) in COLOUR for file in every) else 1
    size = (side, side) if side is not None else _decoded(every[0], channels).size
    return {
        name: _part(of_part, class_uids, channels, size, resize=side is not None)
        for name, of_part in files.items()
    }


def _part(
    files: Files,
    class_uids: tuple[str, ...],
    channels: int,
    size: tuple[int, int],
    *,
    resize: bool,
) -> Part:
    """Decode the files of a part, class by class, into images of one size (width, height)."""
    labels = _labels(files, class_uids)
    shape = (len(labels), channels, size[1], size[0])
    if math.prod(shape) > LARGEST:
        raise DataError(
            f"{shape[0]} images of {size[0]}x{size[1]} pixels in {channels} channels take"
            f" {math.prod(shape)} bytes of memory, the limit is {LARGEST}; set a smaller image_size"
        )
    images: Pixels = np.empty(shape, dtype=np.uint8)
    every = [file for uid in class_uids for file in files.get(uid, [])]
    for place, file in enumerate(every):
        image = _decoded(file, channels)
        if image.size != size and not resize:
            raise DataError(
                f"{file} has {image.width}x{image.height} pixels, other images {size[0]}x{size[1]};"
                " set image_size to have all of them resized"
            )
        images[place] = _pixels(image, size)
    return Part(images, labels)


def _labels(files: Files, class_uids: tuple[str, ...]) -> Labels:
    unknown = sorted_uids(set(files) - set(class_uids))
    if unknown:
        where = files[unknown[0]][0].parent if files[unknown[0]] else unknown[0]
        raise DataError(f"{where}: class {unknown[0]!r} has no train image; add some or remove it")
    return np.repeat(
        np.arange(len(class_uids), dtype=np.int64), [len(files.get(uid, [])) for uid in class_uids]
    )


def _mode(file: Path) -> str:
    with _opened(file) as image:
        return image.mode


def _decoded(file: Path, channels: int) -> Image.Image:
    """One image, as `_upright` makes it."""
    with _opened(file) as image:
        return _upright(image, channels)


def _upright(image: Image.Image, channels: int) -> Image.Image:
    """An image as viewers show it, in gray or in colour."""
    return ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")


def _pixels(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """The image at this size (width, height), as (C, H, W)."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(size[1], size[0], -1).transpose(2, 0, 1)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """An image file of 8 bits; anything else becomes one line that names the file."""
    if file.is_dir():
        raise DataError(
            f"{file} is a folder inside a class; put the images directly into the class"
        )
    try:
        with Image.open(file, formats=FORMATS) as image:
            _suits(file, image)
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise _why(file, error) from None


def _suits(file: Path, image: Image.Image) -> None:
    """Raise DataError unless this is one image of 8 bits and of a size that can be decoded."""
    bits = _bits(file, image)
    if bits > 8 or image.mode not in GRAY + COLOUR:
        raise DataError(
            f"{file} has {bits} bits (mode {image.mode}), images have 8; export it with 8 bits"
            " (for CT and MR: choose a window)"
        )
    if image.format in STACKS and getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{file} holds several images; export each into a file of its own")
    if image.width * image.height > MOST_PIXELS:
        raise DataError(
            f"{file} has {image.width}x{image.height} pixels, at most {MOST_PIXELS} are decoded;"
            " export it smaller"
        )


def _bits(file: Path, image: Image.Image) -> int:
    """Bits per sample as the file has them: Pillow halves 16-bit colour without a word."""
    if image.format == "PNG":
        with file.open("rb") as head:
            return int(head.read(25)[24])
    if image.format == "TIFF":
        return int(np.max(image.getexif().get(BITS_PER_SAMPLE, 1)))  # one number or one a channel
    return 16 if "16" in image.mode else 8


def _why(file: Path, error: Exception) -> DataError:
    try:
        with file.open("rb") as head:
            dicom = head.read(132)[128:] == b"DICM" or file.suffix.lower() in (".dcm", ".dicom")
    except OSError as reason:
        return Damaged(f"{file} cannot be read ({reason.strerror}); check its rights")
    if dicom:
        return DataError(
            f"{file} is a DICOM file; export it as PNG with 8 bits, in the window you work with"
        )
    return Damaged(
        f"{file} cannot be read as an image ({error}); it is truncated, damaged or something else:"
        f" replace it by one of {', '.join(FORMATS)}, or remove it"
    )
