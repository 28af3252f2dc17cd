"""Which images a live twin keeps apart, to score models on and for nothing else (method.md 8).

An image's source and number decide it, and how many of its class came before: so it follows from
the stream alone, and a copy of the twin keeps the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from hashlib import sha256
from typing import Protocol, TypeVar

from schemas.heldout import APART

EVERY = 10
MOST = APART
"""Of a class, in one entity: the first ones. Later images of the class train like any other."""


class _Seen(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def tenth(self) -> bool: ...


Seen = TypeVar("Seen", bound=_Seen)


def is_tenth(source: str, number: int) -> bool:
    """Whether the SHA-256 of 'source/number', read as one number, is a multiple of ten."""
    digest = sha256(f"{source}/{number}".encode()).digest()
    return int.from_bytes(digest, "big") % EVERY == 0


def first_of_each(
    images: Iterable[Seen], kept: Mapping[str, Sized], kept_to: int
) -> Iterator[Seen]:
    """The images that are kept apart behind a position, beside those that are kept already.

    Of a class there are at most MOST, in order of position.
    """
    counts = Counter({uid: len(its) for uid, its in kept.items()})
    for image in images:
        if image.tenth and image.position >= kept_to and counts[image.label] < MOST:
            counts[image.label] += 1
            yield image
