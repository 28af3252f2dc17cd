"""Where a run's seconds went. Only the loop and the runner measure; roles know no time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds and calls by phase; a phase inside another counts for itself only."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds since any moment."""
        self._clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._inner = [0.0]

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self._clock()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = self._clock() - start
            self.seconds[phase] += spent - self._inner.pop()
            self.calls[phase] += 1
            self._inner[-1] += spent

    def add(self, phase: str, seconds: float) -> None:
        """Seconds that another process measured."""
        self.seconds[phase] += seconds
        self.calls[phase] += 1
