"""Decisions that may have to wait for what comes without them, one behind the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from schemas.errors import Refused
from schemas.line import NotYet, Rejected
from schemas.messages import Decision


class Turns:
    """Decisions judged strictly in the order of their topic. One that waits holds up the rest."""

    def __init__(self, judge: Callable[[Decision], object]) -> None:
        self._judge = judge
        self._queue: deque[tuple[Decision, object]] = deque()
        self._until: Callable[[], bool] = lambda: True

    def add(self, decision: Decision, where: object, refused: Rejected) -> None:
        """Queue a decision, and judge what can be judged; `refused` takes what is not valid."""
        self._queue.append((decision, where))
        self.settle(refused)

    def anew(self, decisions: Iterable[tuple[Decision, object]]) -> None:
        """Queue these in place of those that wait."""
        self._queue, self._until = deque(decisions), lambda: True

    def settle(self, refused: Rejected) -> None:
        """Judge what can be judged by now."""
        while self._queue and self._until():
            decision, where = self._queue[0]
            self._until = lambda: True
            try:
                self._judge(decision)
            except NotYet as wait:
                self._until = wait.until
                return
            except Refused as reason:
                refused.append((where, reason))
            self._queue.popleft()
