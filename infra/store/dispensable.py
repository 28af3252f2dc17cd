"""A store that a program can do without: while it is away, what it would give comes from the log.

Why this is right, and why it is not the store itself that does it: docs/decisions/0009.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from infra.store.base import About, ModelStore
from schemas.errors import DiskFull, ServiceError
from schemas.messages import Groups, ModelName

REST = 60.0  # s that a store which is away is left alone: each question costs its time-outs
T = TypeVar("T")


class Dispensable:
    """Another store, whose troubles are told and cost nobody anything but time.

    While it is away nothing is there: `get` raises LookupError, so whoever asks goes to the log;
    `list` is empty; what should be written is let go, and put back when somebody misses it.
    """

    def __init__(
        self,
        inner: ModelStore,
        tell: Callable[[str], None],
        *,
        rest: float = REST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` is given a line when the store goes, when it has no room, and when it is back."""
        self._inner = inner
        self._tell = tell
        self._rest = rest
        self._clock = clock
        self._away = ""
        """Why the store cannot be reached; empty while it can."""
        self._again = 0.0
        """When it is asked next, if it is away."""

    def put(self, model: ModelName, groups: Groups, stage: int, round: int = -1) -> None:
        self._try(lambda: self._inner.put(model, groups, stage, round), None)

    def get(self, model: ModelName) -> Groups:
        if (found := self._try(lambda: self._inner.get(model), None)) is None:
            raise LookupError(self._away)
        return found

    def list(self) -> list[ModelName]:
        return self._try(self._inner.list, [])

    def forget(self, model: ModelName) -> None:
        self._try(lambda: self._inner.forget(model), None)

    def score(self, model: ModelName, stage: int, score: float) -> None:
        self._try(lambda: self._inner.score(model, stage, score), None)

    def about(self, model: ModelName) -> About:
        if (found := self._try(lambda: self._inner.about(model), None)) is None:
            raise LookupError(self._away)
        return found

    def close(self) -> None:
        self._inner.close()

    def _try(self, question: Callable[[], T], without: T) -> T:
        """The store's answer, or what stands for it while the store is away."""
        if self._away and self._clock() < self._again:
            return without
        try:
            answer = question()
        except ServiceError as away:
            self._gone(str(away))
            return without
        except DiskFull as full:
            self._tell(f"{full}. Until then old models are read from the log")
            answer = without
        except LookupError:
            self._back()
            raise
        self._back()
        return answer

    def _gone(self, why: str) -> None:
        if not self._away:
            self._tell(f"{why}. Old models are read from the log until it is back")
        self._away, self._again = why, self._clock() + self._rest

    def _back(self) -> None:
        if self._away:
            self._away = ""
            self._tell("the store of old models is back")
