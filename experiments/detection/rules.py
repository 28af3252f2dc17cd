"""The rules that are compared: those of a twin, and detectors of drift from the package `river`.

A twin's rules are the functions that twins judge by, on windows as a live twin takes them. River's
detectors are peers: they are told one entropy after another, and no label.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.configuration import Configuration
from schemas.seeds import generator
from twins.novelty import Judgement, drawn, judged, threshold

PEERS_NEED = ("river",)
"""Packages of the extra."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A stream as a rule hears it. N images."""

    uids: tuple[str, ...]
    """Per image its class; only labels tell it."""
    entropies_N: NDArray[np.float64]
    """Per image, in nats, under one model."""
    reference: float
    """Mean entropy of images that the twin has learned, under the same model, in nats."""
    known: frozenset[str]
    """The classes that the model and the twin have learned."""
    virtual_rows: int
    """Zero logits that stood for new classes."""
    seed: int


class Rule(Protocol):
    """Something that listens to a stream and speaks up."""

    def alarms(self, heard: Heard) -> list[int]:
        """The places of the last image that it had heard whenever it spoke."""
        ...


@dataclass(frozen=True)
class TwinRule:
    """What a live twin says: it judges whenever `n_min` images have come."""

    configuration: Configuration
    speaks: Callable[[Judgement], bool]
    """Which judgements count as an alarm."""
    labelled: bool = True
    """Whether it reads labels; then images of classes that it does not know wait for the next
    window, where they are judged again."""

    def alarms(self, heard: Heard) -> list[int]:
        """As `Rule` says."""
        step, waiting, found = self.configuration.n_min, list[int](), list[int]()
        r_h = threshold(self.configuration, len(heard.known), heard.virtual_rows)
        for moment, end in enumerate(range(step, len(heard.uids) + 1, step)):
            window = [*waiting, *range(end - step, end)]
            chance = generator(heard.seed, "detect/0", "stream", moment)
            seen = drawn(window, self.configuration.n_window, chance)
            judgement = judged(
                Counter(heard.uids[i] for i in window) if self.labelled else {},
                heard.known,
                float(heard.entropies_N[list(seen)].mean()),
                heard.reference,
                r_h,
                self.configuration,
            )
            if self.speaks(judgement):
                found.append(end - 1)
            if self.labelled:
                waiting = [i for i in window if heard.uids[i] not in heard.known]
        return found


class Detector(Protocol):
    """A detector of river's: told one number after another."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last number was the one that told."""
        ...

    def update(self, x: float) -> object:
        """Hear the next number."""
        ...


@dataclass(frozen=True)
class Peer:
    """A drift detector on the stream of entropies."""

    make: Callable[[], Detector]

    def alarms(self, heard: Heard) -> list[int]:
        """As `Rule` says. A detector begins anew after each alarm, as river's do by themselves."""
        detector, found = self.make(), []
        for place, entropy in enumerate(heard.entropies_N.tolist()):
            detector.update(entropy)
            if detector.drift_detected:
                found.append(place)
        return found


@dataclass(frozen=True)
class Family:
    """A rule with a number in it."""

    name: str
    setting: str
    """What the number is, and in which unit; empty where there is none."""
    usual: float
    """As it is where nobody chooses."""
    grid: tuple[float, ...]
    """Among which it is chosen."""
    make: Callable[[float], Rule]


ABSOLUTE = tuple(round(0.05 * i, 2) for i in range(1, 31))
RELATIVE = tuple(round(0.02 * i, 2) for i in range(1, 31))
DELTAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.002, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
SUMS = (2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0)


def families(configuration: Configuration) -> list[Family]:
    """The rules of a twin under a recipe, and river's where that is installed."""
    return [*of_a_twin(configuration), *(_of_river() if lacking() is None else ())]


def lacking() -> str | None:
    """What the peers take and is not installed, and how to get it; None where nothing is."""
    missing = [name for name in PEERS_NEED if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"its peers need {' and '.join(missing)}: pip install 'fedtwin[detection]'"


def of_a_twin(configuration: Configuration) -> Sequence[Family]:
    """What labels say, what the detectors of that name tell, and the jump alone."""

    def under(
        detector: Literal["hybrid", "entropy", "label"],
        mode: Literal["absolute", "relative"],
        speaks: Callable[[Judgement], bool],
        labelled: bool = True,
    ) -> Callable[[float], Rule]:
        key = "rho" if mode == "relative" else "entropy_threshold"
        return lambda number: TwinRule(
            configuration.model_copy(
                update={"detector": detector, "threshold_mode": mode, key: number}
            ),
            speaks,
            labelled,
        )

    rho, nats = configuration.rho, configuration.entropy_threshold
    return [
        Family("label", "", 0.0, (), under("label", "relative", _is_new)),
        Family("hybrid", "rho", rho, RELATIVE, under("hybrid", "relative", _is_told)),
        Family("entropy", "rho", rho, RELATIVE, under("entropy", "relative", _is_new)),
        Family(
            "jump, relative", "rho", rho, RELATIVE, under("hybrid", "relative", _jumps, False)
        ),
        Family(
            "jump, absolute", "nats", nats, ABSOLUTE, under("hybrid", "absolute", _jumps, False)
        ),
    ]  # fmt: skip


def _is_new(judgement: Judgement) -> bool:
    return judgement.verdict == "new"


def _is_told(judgement: Judgement) -> bool:
    """Something new, or the suspicion of it."""
    return judgement.verdict != "known"


def _jumps(judgement: Judgement) -> bool:
    return judgement.jump


def _of_river() -> Sequence[Family]:
    from river.drift import ADWIN, PageHinkley

    return [
        Family("river, ADWIN", "delta", 0.002, DELTAS, lambda delta: Peer(lambda: ADWIN(delta))),
        Family(
            "river, Page-Hinkley", "threshold", 50.0, SUMS,
            lambda limit: Peer(lambda: PageHinkley(threshold=limit, mode="up")),
        ),
    ]  # fmt: skip
