"""Streams of images of known classes into which a new one comes, in three ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUIET, STRETCH = 512, 256
"""Samples of known classes alone, and of what then comes."""
SPREAD = 64
"""Up to so many more come before, so that nothing begins where a twin's window does."""
TRICKLE = 0.5
"""The share that a class which trickles in has reached at the stream's end."""

Places = NDArray[np.int64]
Pools = Mapping[str, Places]
"""Class uid → places of its images, in some array of images."""


@dataclass(frozen=True)
class Classes:
    """Whose images a stream is made of."""

    known: tuple[str, ...]
    """That the model has learned and that come all the time."""
    away: str
    """That the model has learned in its first stage, and that comes only where it comes back."""
    new: str


@dataclass(frozen=True, eq=False)
class Stream:
    """Images in the order in which a twin sees them. N images."""

    places_N: Places
    uids: tuple[str, ...]
    new: tuple[bool, ...]


Scenario = Callable[[Classes, Pools, np.random.Generator], Stream]


def all_at_once(classes: Classes, pools: Pools, chance: np.random.Generator) -> Stream:
    """Known classes, and from one sample to the next the new one alone."""
    uids = [*_quiet(classes, chance), *(classes.new,) * STRETCH]
    return _stream(uids, classes, pools, chance)


def trickling_in(classes: Classes, pools: Pools, chance: np.random.Generator) -> Stream:
    """A new class whose share rises evenly from nothing to a half."""
    stretch = 2 * STRETCH
    shares = TRICKLE * np.arange(1, stretch + 1) / stretch
    return _stream(
        [*_quiet(classes, chance), *_mixed(classes, classes.new, shares, chance)],
        classes,
        pools,
        chance,
    )


def coming_back(classes: Classes, pools: Pools, chance: np.random.Generator) -> Stream:
    """A class of long ago comes back, which is nothing new; later a new one comes.

    Either takes half of the samples.
    """
    half = np.full(STRETCH, 0.5)
    uids = [
        *_quiet(classes, chance),
        *_mixed(classes, classes.away, half, chance),
        *_mixed(classes, classes.new, half, chance),
    ]
    return _stream(uids, classes, pools, chance)


SCENARIOS: Mapping[str, Scenario] = {
    "all at once": all_at_once,
    "trickling in": trickling_in,
    "coming back": coming_back,
}


def _quiet(classes: Classes, chance: np.random.Generator) -> list[str]:
    return _among(classes.known, QUIET + int(chance.integers(0, SPREAD)), chance)


def _among(uids: Sequence[str], count: int, chance: np.random.Generator) -> list[str]:
    return [uids[i] for i in chance.integers(0, len(uids), count)]


def _mixed(
    classes: Classes, uid: str, shares: NDArray[np.float64], chance: np.random.Generator
) -> list[str]:
    """Samples that are of one class with a given chance each, and of a known one otherwise."""
    others = _among(classes.known, len(shares), chance)
    drawn = chance.random(len(shares)) < shares
    return [uid if is_it else other for is_it, other in zip(drawn, others, strict=True)]


def _stream(
    uids: Sequence[str], classes: Classes, pools: Pools, chance: np.random.Generator
) -> Stream:
    """An image for each sample, drawn from its class with replacement."""
    places = [pools[uid][chance.integers(0, len(pools[uid]))] for uid in uids]
    return Stream(
        np.array(places, np.int64), tuple(uids), tuple(uid == classes.new for uid in uids)
    )
