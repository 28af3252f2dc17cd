"""What the decisions have made of a twin, one change after the other.

A twin changes in three ways: a stage begins for which it found new classes, so that its current
classes become old ones; a round counts an update with which its strategy keeps something; and a
live round looks so far into its stream that the oldest images are let go.

What a live twin's own state says it has become is not read again: it goes on from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from schemas.line import NO_END
from schemas.messages import TwinState, WindowJudged
from schemas.schedule import sorted_uids
from schemas.stages import Stage
from twins.shared import Shared

_Event = tuple[int, WindowJudged] | int | str
"""A stage began with what it found; it is done with its stream before a position; or its update of
this hash was counted."""


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
    """The changes of one twin so far. Of a recipe each decision is read once."""

    __slots__ = ("_changes", "_entity", "_rounds", "_shared", "_stage", "_state")

    def __init__(self, entity: str, shared: Shared, state: Callable[[], TwinState | None]) -> None:
        """`state` gives the newest that was read back."""
        self._entity = entity
        self._shared = shared
        self._state = state
        self._changes: list[Change] = []
        """In the order of their numbers."""
        self._stage = -1
        """The stage that was read last, as far as it is decided."""
        self._rounds = 0
        """Its rounds that were read to their end."""

    def after(self, number: int) -> Change | None:
        """The first change that a decision behind this number made, as far as is known.

        Of a live twin none that its state is behind already.
        """
        if self._shared.line.live:
            return next((each for each in self._live() if each.number > number), None)
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
        """The rounds of a stage: what they count."""
        for each in stage.rounds[self._rounds :]:
            if each.closed is None:
                return
            self._rounds += 1
            if self._shared.strategy.groups is not None:
                self._count(each.closed.number)

    def _count(self, closed: int) -> None:
        """A round closed: what the strategy keeps is that of the update that it counted."""
        kept = self._shared.counted[closed].get(self._entity)
        if kept is not None:
            self._changes.append(self._changes[-1]._replace(number=closed, kept=kept))

    # --- of a live twin --------------------------------------------------------------------------

    def _live(self) -> Iterator[Change]:
        """What has become of its state since, decision by decision."""
        state = self._state()
        change = Change(-1, 0, (), (), None)
        if state is not None:
            change = Change(
                state.number, state.stage, state.current, state.learned, state.kept, state.since
            )
        for number, event in sorted(self._events(change.number), key=lambda each: each[0]):
            after = self._changed(change, number, event)
            if after is not None:
                change = after
                yield change

    def _events(self, after: int) -> Iterator[tuple[int, _Event]]:
        """Decisions behind a number that may have changed it, with what they say of it: up to a
        stage whose verdict is in the log and was not read yet."""
        line, entity = self._shared.line, self._entity
        unread, part = self._shared.unread(entity), line.parts.of(entity)
        taken = line.taken_up(entity)
        end = NO_END if unread is None else taken[unread].opened
        for stage, began in taken.items():
            verdict = self._shared.verdicts.verdict(entity, stage)
            if verdict and after < began.opened < end:
                yield began.opened, (stage, verdict)
        for asked in reversed(part.asked):
            if asked.opened <= after:
                break
            if asked.opened < end:
                yield asked.opened, self._shared.done_before(asked.position)
        if self._shared.strategy.groups is not None:
            for number, update in reversed(part.counted):
                if number <= after:
                    break
                if number < end:
                    yield number, update

    def _changed(self, before: Change, number: int, event: _Event) -> Change | None:
        """What such a decision makes of it, if anything."""
        match event:
            case str():
                return before._replace(number=number, kept=event) if before.number >= 0 else None
            case int():
                looks_on = before.number >= 0 and event > before.since
                return before._replace(number=number, since=event) if looks_on else None
            case stage, verdict:
                if not verdict.classes:
                    return None
                learned = (*before.learned, *before.current)
                current = self._current(before, verdict, learned)
                return Change(number, stage, current, learned, before.kept, before.since)

    def _current(
        self, before: Change, verdict: WindowJudged, learned: Collection[str]
    ) -> tuple[str, ...]:
        """The classes that begin with a verdict: its own.

        Of a twin whose state was restored from a copy that is older than a Standing, also those
        that it found in between: which stages these began is let go, and they become old with its.
        """
        if before.number >= self._shared.line.stood:
            return verdict.classes
        line = self._shared.verdicts.line(self._entity)
        later = {u for each in line.verdicts.values() if each.stage > verdict.stage
                 for u in each.classes}  # fmt: skip
        return sorted_uids({*line.known, *verdict.classes} - {*learned} - later)
