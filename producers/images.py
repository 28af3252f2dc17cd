"""What a loaded data set is: labelled images of 8 bits, and the facts that a run needs of them.

Shape letters: N images, C channels, H height, W width (pixels). Numbers in brackets are sections of
docs/method.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import DataError
from schemas.messages import DataFacts, Transforms

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

SIDES = range(4, 1025)
"""Heights and widths, in pixels, that a net can be given."""
LONGEST_UID = 200
"""Characters of a class uid that a message can carry."""


@dataclass(frozen=True, eq=False)
class Part:
    """Labelled images, in the data set's own order: what is learned from, or tested on.

    Raises ValueError if the images are not uint8 NCHW, or there is not one label for each.
    """

    images: Pixels
    """Pixels from 0 to 255, shape (N, C, H, W)."""
    labels: Labels
    """Per image the place of its class in `Dataset.class_uids`, shape (N,)."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images are {self.images.dtype} of shape {self.images.shape}")
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"{len(self.images)} images have labels of shape {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def within_class(self, start: int, stop: int) -> Part:
        """The images whose index within their own class is in [start, stop), in their order."""
        index = self._index_within_class()
        return self.only((index >= start) & (index < stop))

    def only(self, chosen: NDArray[np.bool_]) -> Part:
        """The chosen images, in their order; `chosen` has shape (N,)."""
        return Part(self.images[chosen], self.labels[chosen])

    def _index_within_class(self) -> Labels:
        index = np.empty(len(self), dtype=np.int64)
        for label in np.unique(self.labels):
            of_class = np.flatnonzero(self.labels == label)
            index[of_class] = np.arange(len(of_class))
        return index


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, checked: whatever reads one of these needs no doubts about it."""

    name: str
    train: Part
    validation: Part
    """For choices, never for results; without images where the data set has no such part."""
    test: Part
    class_uids: tuple[str, ...]
    """What a class is called in messages, in natural order."""
    class_names: tuple[str, ...]
    """What people call the classes, in the order of `class_uids`."""
    transforms: Transforms
    encoder_classes: int
    """Rows of the prototype encoder: how many classes the data set can have (6.1)."""
    licence: str
    citation: str
    version: str
    """Which version of the data this is, and what it was recognised by."""
    sha256: str
    """`digest` of all images and labels at their size here, also of those held out."""
    public: bool
    """Whether anybody may see its images, and so what is rebuilt from prototypes (6.7)."""

    def facts(self, order: Iterable[str] | None = None) -> DataFacts:
        """What a run may know of this data set, its classes in the run's order.

        Raises ValueError if `order` is not the data set's classes in some order.
        """
        classes = self.class_uids if order is None else tuple(order)
        if sorted(classes) != sorted(self.class_uids):
            raise ValueError(f"the order has {classes}, the data set has {self.class_uids}")
        _, channels, height, width = self.train.images.shape
        return DataFacts(
            name=self.name,
            sha256=self.sha256,
            channels=channels,
            height=height,
            width=width,
            classes=classes,
            transforms=self.transforms,
            encoder_classes=self.encoder_classes,
            public=self.public,
        )


def digest(parts: Mapping[str, Part], class_uids: Iterable[str]) -> str:
    """SHA-256, in hex, of the arrays in name order and of the class uids.

    Each array goes in as its name, dtype and shape (each closed by NUL) and its bytes,
    little-endian, so that the file that held the data, and its compression, leave no trace.
    """
    seen = hashlib.sha256("\0".join(class_uids).encode())
    for name, part in sorted(parts.items()):
        for what, array in (("images", part.images), ("labels", part.labels.astype("<i8"))):
            shape = ",".join(map(str, array.shape))
            seen.update(f"\0{name}_{what}\0{array.dtype.str}\0{shape}\0".encode())
            seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()


def held_out(labels: Labels, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Draw 30 % of the images of every class, rounded, at least one of each (1.5).

    Returns shape (N,), true for an image that is held out. The draw sorts raw 64-bit numbers,
    because numpy keeps a bit generator's stream equal between versions and nothing above it. Raises
    ValueError if a class has fewer than two images.
    """
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < 2:
            raise ValueError(f"class {label} has {len(of_class)} image, a split takes 2")
        dice = generator.bit_generator.random_raw(len(of_class))
        share = max(1, (3 * len(of_class) + 5) // 10)
        drawn[of_class[np.argsort(dice, kind="stable")[:share]]] = True
    return drawn


def resized(part: Part, side: int) -> Part:
    """The images brought to side x side pixels, bilinearly (and smoothed where they shrink)."""
    _, channels, height, width = part.images.shape
    if (height, width) == (side, side):
        return part
    images = np.empty((len(part), channels, side, side), dtype=np.uint8)
    for place, image in enumerate(part.images):
        for channel in range(channels):
            small = Image.fromarray(image[channel]).resize((side, side), Image.Resampling.BILINEAR)
            images[place, channel] = np.asarray(small)
    return Part(images, part.labels)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Images as a net takes them, and which of them had to be changed for that."""

    images: Pixels
    """Shape (N, C, H, W)."""
    resized: NDArray[np.bool_]
    """Per image whether it had another height or width, shape (N,)."""
    recoloured: NDArray[np.bool_]
    """Per image whether it was in colour and is gray, or the other way round, shape (N,)."""

    def only(self, rows: Sequence[int]) -> Fitted:
        """These images, in this order."""
        chosen = np.array(rows, np.int64)
        return Fitted(self.images[chosen], self.resized[chosen], self.recoloured[chosen])


def fitted(images: Pixels, channels: int, height: int, width: int) -> Fitted:
    """Images (N, 1 or 3, H, W) brought to this size, bilinearly, and to 1 (gray) or 3 channels."""
    resized = np.full(len(images), images.shape[2:] != (height, width))
    recoloured = np.full(len(images), images.shape[1] != channels)
    return Fitted(_fit(images, channels, height, width), resized, recoloured)


def _fit(images: Pixels, channels: int, height: int, width: int) -> Pixels:
    if images.shape[1:] == (channels, height, width):
        return images
    mode = "RGB" if channels == 3 else "L"
    fit = np.empty((len(images), channels, height, width), dtype=np.uint8)
    for place, image_CHW in enumerate(images):
        gray = image_CHW.shape[0] == 1
        image = Image.fromarray(image_CHW[0] if gray else image_CHW.transpose(1, 2, 0))
        image = image.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
        fit[place] = np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
    return fit


def sized(where: str, part: Part, side: int | None) -> Part:
    """The images at side x side pixels, or at their own size if `side` is None.

    Raises DataError, naming `where`, if they keep a size that no net takes.
    """
    if side is not None:
        return resized(part, side)
    height, width = part.images.shape[2:]
    if height in SIDES and width in SIDES:
        return part
    raise DataError(
        f"{where} has images of {height}x{width} pixels (height x width); a side has"
        f" {SIDES.start} to {SIDES.stop - 1}: set image_size to have them resized"
    )


def check(where: str, parts: Mapping[str, Part], class_uids: tuple[str, ...]) -> None:
    """Raise DataError, naming `where`, unless the parts fit each other and every class is there.

    Every class needs an image to learn from and one to be tested on; all images have one shape.
    """
    if len(class_uids) < 2:
        raise DataError(f"{where} has {len(class_uids)} class; learning needs at least 2")
    shape = parts["train"].images.shape[1:]
    for name, part in parts.items():
        if len(part) and part.images.shape[1:] != shape:
            raise DataError(
                f"{where}: {name} images have (channels, height, width) {part.images.shape[1:]},"
                f" train images {shape}; store all of them in one shape"
            )
    for name in ("train", "test"):
        missing = np.setdiff1d(np.arange(len(class_uids)), parts[name].labels)
        if len(missing):
            raise DataError(
                f"{where}: class {class_uids[missing[0]]!r} has no {name} image"
                f" ({len(missing)} of {len(class_uids)} classes have none); complete the"
                f" {name} images or leave the class out"
            )
