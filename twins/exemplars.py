"""Which images a twin remembers, and where their pixels lie: a hundred in a few kilobytes.

A process hosts many twins, most of them idle. Tuples and objects for each image would cost ten
times as much as the numbers in them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import NamedTuple, overload

Exemplar = tuple[str, int]
"""Source and number of an image."""


class Remembered(NamedTuple):
    """An exemplar with its class."""

    label: str
    image: Exemplar


class Images(Sequence[Exemplar]):
    """Images in their order, by reference."""

    __slots__ = ("_numbers", "_sources")

    def __init__(self, images: Iterable[Exemplar] = ()) -> None:
        listed = tuple(images)
        self._sources = tuple(sys.intern(source) for source, _ in listed)
        self._numbers = array("q", (number for _, number in listed))

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, image: object) -> bool:
        found = _row(self._sources, self._numbers, image) if isinstance(image, tuple) else None
        return found is not None

    @overload
    def __getitem__(self, at: int) -> Exemplar: ...
    @overload
    def __getitem__(self, at: slice) -> Images: ...
    def __getitem__(self, at: int | slice) -> Exemplar | Images:
        if isinstance(at, slice):
            return Images(zip(self._sources[at], self._numbers[at], strict=True))
        return self._sources[at], self._numbers[at]


class Album(MutableMapping[Exemplar, tuple[int, ...]]):
    """Images of one class → the offsets of the pieces in which their pixels lie."""

    __slots__ = ("_digests", "_more", "_numbers", "_offsets", "_sources")

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._numbers = array("q")
        self._offsets = array("q")
        self._digests = array("Q")
        """What tells an image's pixels from others."""
        self._more: dict[Exemplar, tuple[int, ...]] = {}
        """Further offsets of images that are larger than a piece."""

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Exemplar]:
        return iter(Images(zip(self._sources, self._numbers, strict=True)))

    def __getitem__(self, image: Exemplar) -> tuple[int, ...]:
        return (self._offsets[self._at(image)], *self._more.get(image, ()))

    def __setitem__(self, image: Exemplar, offsets: tuple[int, ...]) -> None:
        self.pop(image, None)
        self.note(image, offsets, 0)

    def note(self, image: Exemplar, offsets: tuple[int, ...], digest: int) -> None:
        """Pixels of an image were read: the first count, and lie at the latest place of the same.

        `digest` tells them from others, in 64 bits.
        """
        if image in self:
            if self._digests[self._at(image)] != digest:
                return
            del self[image]
        source, number = image
        first, *more = offsets
        self._sources.append(sys.intern(source))
        self._numbers.append(number)
        self._offsets.append(first)
        self._digests.append(digest)
        if more:
            self._more[image] = tuple(more)

    def __delitem__(self, image: Exemplar) -> None:
        at = self._at(image)
        for column in (self._sources, self._numbers, self._offsets, self._digests):
            del column[at]
        self._more.pop(image, None)

    def _at(self, image: Exemplar) -> int:
        """The row of an image. Raises KeyError."""
        at = _row(self._sources, self._numbers, image)
        if at is None:
            raise KeyError(image)
        return at


def _row(sources: Sequence[str], numbers: array[int], image: Exemplar) -> int | None:
    """Where an image stands, if it does; an array searches itself faster than a loop would."""
    source, number = image
    at = -1
    try:
        while True:
            at = numbers.index(number, at + 1)
            if sources[at] == source:
                return at
    except ValueError:
        return None
