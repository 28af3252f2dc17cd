"""Where a run's seconds went. Only the loop and the runner measure; roles know no time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field


class Stopwatch:
    """Seconds and calls by phase; a phase inside another counts for itself only.

    `with stopwatch("log"): ...` measures a phase.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds since any moment."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._clock = clock
        self._open: list[list[float]] = [[0.0, 0.0]]
        """Of each phase that is going on: when it began, and the seconds of phases inside it."""
        self._names: list[str] = []

    def __call__(self, phase: str) -> Stopwatch:
        """Name the phase that begins when this is entered."""
        self._names.append(phase)
        return self

    def __enter__(self) -> None:
        self._open.append([self._clock(), 0.0])

    def __exit__(self, *error: object) -> None:
        phase, (began, inside) = self._names.pop(), self._open.pop()
        spent = self._clock() - began
        self.seconds[phase] += spent - inside
        self.calls[phase] += 1
        self._open[-1][1] += spent

    def add(self, phase: str, seconds: float) -> None:
        """Seconds that another process measured."""
        self.seconds[phase] += seconds
        self.calls[phase] += 1


@dataclass
class Tally:
    """How often things have happened in a program, by few names; only the loop counts."""

    heard: Counter[str] = field(default_factory=Counter)
    """Kind of topic → messages that a role took in."""
    said: Counter[str] = field(default_factory=Counter)
    """Kind of topic → messages that were written."""
    letters: Counter[str] = field(default_factory=Counter)
    """Reason → messages that were set aside."""
