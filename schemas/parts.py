"""What the line `rounds` of a live run says of each entity, and what of it is still needed.

A stage begins with what it found; a round asks it for the first time from further on in its stream,
misses it, or counts it. Of each the newest is kept, and what its twin may not have read yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.messages import Asked, Member, RoundClosed, RoundOpened, StageOpened, Taken


@dataclass
class Part:
    """Of one entity."""

    taken: dict[int, Taken] = field(default_factory=dict)
    """The stages that began with what it had found, by their index: all, or the newest."""
    armed: dict[int, int] = field(default_factory=dict)
    """Of those, number of the first RoundClosed behind: from there on it may find something new."""
    missed: int | None = None
    """Number of the last RoundClosed that missed it."""
    asked: list[Asked] = field(default_factory=list)
    """In the order of their numbers; each looks further than the one before."""
    counted: list[tuple[int, str]] = field(default_factory=list)
    """Number of each RoundClosed that counted it, and the hash of its update."""

    @property
    def newest(self) -> Taken | None:
        """The newest of those stages."""
        return next(reversed(self.taken.values()), None)

    @property
    def rearmed(self) -> int | None:
        """From which decision on it may find something new, if anybody has taken up what it had."""
        return self.armed.get(self.newest.stage) if self.newest else None

    def told(self, after: int) -> dict[str, Any]:
        """As a Standing tells it of a twin that last spoke behind a decision.

        A twin says nothing before its state has caught up with all that it has read.
        """
        known = sum(each.opened <= after for each in self.asked)
        return {
            "taken": self.newest,
            "armed": self.rearmed,
            "missed": self.missed,
            "asked": tuple(self.asked[max(known - 1, 0) :]),
            "counted": self.counted[-1] if self.counted else None,
        }

    def fits(self, told: Member) -> bool:
        """Whether that is what a Standing says; it may name fewer of the times it was asked."""
        names = told.asked
        same = (told.taken, told.armed, told.missed) == (self.newest, self.rearmed, self.missed)
        newest = self.counted[-1] if self.counted else None
        asked = tuple(self.asked[len(self.asked) - len(names) :]) == names
        return same and asked and bool(names) >= bool(self.asked) and told.counted == newest


class Parts:
    """Of all entities that a decision has named."""

    def __init__(self) -> None:
        self._of: dict[str, Part] = {}
        self._unarmed: set[tuple[str, int]] = set()
        """Entities with a stage behind which no round has closed yet."""

    def of(self, entity: str) -> Part:
        """Of this entity; nothing was said of one that no decision named."""
        return self._of.get(entity) or Part()

    def _made(self, entity: str) -> Part:
        return self._of.setdefault(entity, Part())

    @property
    def members(self) -> tuple[str, ...]:
        """Everyone with whose finds a stage has begun, in order of name."""
        return tuple(sorted(entity for entity, part in self._of.items() if part.taken))

    def begin(self, begun: StageOpened) -> None:
        """A stage begins with what these have found."""
        for entity, moment in begun.found:
            taken = Taken(stage=begun.stage, opened=begun.number, moment=moment)
            self._made(entity).taken[begun.stage] = taken
            self._unarmed.add((entity, begun.stage))

    def open(self, opened: RoundOpened) -> None:
        """A round asks these to train."""
        for each in opened.participants:
            asked = self._made(each.entity).asked
            if not asked or each.position > asked[-1].position:
                asked.append(
                    Asked(
                        opened=opened.number,
                        stage=opened.stage,
                        base=opened.base,
                        position=each.position,
                    )
                )

    def close(self, closed: RoundClosed) -> None:
        """A round ends."""
        for entity, stage in self._unarmed:
            self._made(entity).armed[stage] = closed.number
        self._unarmed.clear()
        for entity in closed.missing:
            self._made(entity).missed = closed.number
        for entity, hash in closed.counted:
            self._made(entity).counted.append((closed.number, hash))

    def go_on(self, members: Iterable[Member], *, whole: bool) -> None:
        """From what a Standing says of everyone; where this is whole, stages before stay."""
        before, self._of = self._of, {}
        for each in members:
            part = Part(missed=each.missed, asked=list(each.asked))
            part.counted += [each.counted] if each.counted else []
            if whole and each.entity in before:
                part.taken, part.armed = before[each.entity].taken, before[each.entity].armed
            elif each.taken is not None:
                part.taken[each.taken.stage] = each.taken
                if each.armed is not None:
                    part.armed[each.taken.stage] = each.armed
            self._of[each.entity] = part
        self._unarmed = {
            (entity, stage)
            for entity, part in self._of.items()
            for stage in part.taken.keys() - part.armed.keys()
        }

    def fit(self, members: Mapping[str, Member]) -> str:
        """What a Standing tells otherwise than it is, in words; empty where nothing."""
        if not self._of.keys() <= members.keys():
            return "lacks an entity"
        wrong = (e for e, told in members.items() if not self.of(e).fits(told))
        return next((f"not how {entity} stands" for entity in wrong), "")
