"""What the decisions have made of a twin, one change after the other.

A twin changes in three ways: a stage begins for which it found new classes, so that its current
classes become old ones; a round counts an update with which its strategy keeps something; and a
live round looks so far into its stream that the oldest images are let go.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from schemas.line import Stage
from twins.shared import Shared


class Change(NamedTuple):
    """What a decision in `rounds` made of a twin."""

    number: int
    """Of the decision with which its classes began (StageOpened, HeadGrown or RoundOpened), of a
    RoundClosed, or of the RoundOpened of a live run that looks far enough."""
    stage: int
    """The stage that it stands in since."""
    current: tuple[str, ...]
    """Classes that it found new for that stage."""
    learned: tuple[str, ...]
    """Classes that became old, in the order in which they did."""
    kept: str | None
    """Hash of the counted update whose StrategyKept the strategy goes on from."""
    since: int = 0
    """Images before this position of its stream are done with."""


class History:
    """The changes of one twin so far. Each decision is read once."""

    __slots__ = ("_changes", "_entity", "_opened", "_rounds", "_shared", "_stage")

    def __init__(self, entity: str, shared: Shared) -> None:
        self._entity = entity
        self._shared = shared
        self._changes: list[Change] = []
        """In the order of their numbers."""
        self._stage = -1
        """The stage that was read last, as far as it is decided."""
        self._rounds = 0
        """Its rounds that were read to their end."""
        self._opened = -1
        """Number of the RoundOpened that was read last."""

    def after(self, number: int) -> Change | None:
        """The first change that a decision behind this number made, as far as is known."""
        self._read_on()
        at = bisect_right(self._changes, number, key=lambda change: change.number)
        return self._changes[at] if at < len(self._changes) else None

    def _read_on(self) -> None:
        """Read up to now, or to a stage whose verdict is in the log and was not read yet."""
        unread = self._shared.unread(self._entity)
        for stage in self._shared.line.stages[max(self._stage, 0) : unread]:
            if stage.index > self._stage:
                self._stage, self._rounds = stage.index, 0
                self._begin(stage)
            if self._changes:
                self._read_rounds(stage)

    def _begin(self, stage: Stage) -> None:
        """A stage began: what the twin found new for it is current, what was current is old."""
        verdict = self._shared.verdicts.verdict(self._entity, stage.index)
        if verdict and verdict.classes:
            began = stage.opened or stage.grown or stage.rounds[0].opened
            before = self._changes[-1] if self._changes else Change(-1, 0, (), (), None)
            learned = (*before.learned, *before.current)
            self._changes.append(
                before._replace(
                    number=began.number,
                    stage=stage.index,
                    current=verdict.classes,
                    learned=learned,
                )
            )

    def _read_rounds(self, stage: Stage) -> None:
        """The rounds of a stage: how far they look, and what they count."""
        for each in stage.rounds[self._rounds :]:
            if each.opened.number > self._opened:
                self._opened = each.opened.number
                self._let_go(self._opened)
            if each.closed is None and each.dropped is None:
                return
            self._rounds += 1
            if each.closed is not None and self._shared.strategy.groups is not None:
                self._count(each.closed.number)

    def _let_go(self, opened: int) -> None:
        """A live round opened: of images far behind what it looks at only a few are needed."""
        since = self._shared.since.get(self._entity, {}).get(opened, 0)
        if since > self._changes[-1].since:
            self._changes.append(self._changes[-1]._replace(number=opened, since=since))

    def _count(self, closed: int) -> None:
        """A round closed: what the strategy keeps is that of the update that it counted."""
        kept = self._shared.counted[closed].get(self._entity)
        if kept is not None:
            self._changes.append(self._changes[-1]._replace(number=closed, kept=kept))
