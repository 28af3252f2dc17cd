"""The lines in `classes.<site>`, one for each entity: it joined, and what its twin judged.

A recipe's twin judges each stage that waits for it once; a live one whenever enough has come, and
counts the moments (docs/method.md 3.4).
"""

from __future__ import annotations

from schemas.errors import Refused
from schemas.line import NotYet, Rejected, RoundsLine, Turns
from schemas.messages import (
    Decision,
    EntityJoined,
    EntityLeft,
    NotUnderstood,
    TwinDecision,
    WindowJudged,
)
from schemas.schedule import sorted_uids
from schemas.topics import parted


class VerdictLine:
    """An entity's part of `classes.<site>`: it joined, and what was judged at each marked stage."""

    def __init__(self, entity: str, rounds: RoundsLine) -> None:
        self.entity = entity
        self._rounds = rounds
        self.number = -1
        self.here = False
        """Whether it has joined, and not left since."""
        self.verdicts: dict[int, WindowJudged] = {}
        """By stage; in a live run by moment."""
        self._past: list[tuple[bool, int]] = []
        """Behind each of its decisions: whether it was here, and how many moments it had."""
        self.stopped: NotUnderstood | None = None
        """The next decision, if a later program wrote it: to pass over it would fork the line."""

    @property
    def known(self) -> tuple[str, ...]:
        """Classes that the twin's own verdicts have named, in their order."""
        return tuple(uid for verdict in self.verdicts.values() for uid in verdict.classes)

    @property
    def judged(self) -> int:
        """The last stage that was judged; -1 before the first."""
        return max(self.verdicts, default=-1)

    def take(self, decision: Decision) -> None:
        """Take the decision if it is the next one. Raises Refused, and NotYet when it must wait."""
        if self._rounds.opened is None:
            raise NotYet(lambda: self._rounds.opened is not None, "RunOpened")
        if decision.run != self._rounds.run:
            raise Refused("out-of-line", f"{decision.identity} is of another run")
        if not self._rounds.knows(self.entity):
            raise Refused("unknown-entity", f"{self.entity} takes no part in this run")
        if decision.number != self.number + 1:
            return
        if isinstance(decision, NotUnderstood):
            self.stopped = decision
            raise NotYet(lambda: False, f"a program that reads {decision.detail}")
        match decision:
            case WindowJudged():
                self._fit(decision)
                self.verdicts[decision.stage] = decision
            case EntityJoined():
                if self.here or (self.number >= 0 and not self._rounds.live):
                    raise Refused("out-of-line", f"{self.entity} joins twice")
                self.here = True
            case EntityLeft():
                if not (self.here and self._rounds.live):
                    raise Refused("out-of-line", f"{self.entity} cannot leave")
                self.here = False
        self.number += 1
        self._past.append((self.here, self.judged + 1))

    def stood(self, number: int) -> dict[str, object]:
        """How it stood behind one of its decisions, as a Standing tells it."""
        here, moments = self._past[number]
        known = (verdict.classes for key, verdict in self.verdicts.items() if key < moments)
        classes = sorted_uids({uid for uids in known for uid in uids})
        return {"number": number, "here": here, "moments": moments, "classes": classes}

    @property
    def pending(self) -> int | None:
        """Of a live run: the moment of its newest verdict, if that found something new which no
        stage has taken up."""
        newest = self.verdicts.get(self.judged)
        taken = self._rounds.taken_up(self.entity).values()
        return self.judged if newest and newest.classes and self.judged not in taken else None

    def armed(self, after: int) -> bool:
        """Of a live run: whether it may be judged, as far as is decided up to a number."""
        newest = self.verdicts.get(self.judged)
        if newest is None or not newest.classes:
            return True
        return self._rounds.rearmed(self.entity, self.judged, after)

    def _fit(self, verdict: WindowJudged) -> None:
        if not self.here:
            raise Refused("out-of-line", f"{self.entity} has not joined")
        if self._rounds.live:
            self._fit_moment(verdict)
        else:
            self._fit_stage(verdict)
        if (verdict.verdict == "new") != bool(verdict.classes):
            raise Refused("out-of-line", f"{verdict.verdict} with {len(verdict.classes)} classes")
        if verdict.classes != sorted_uids(set(verdict.classes)):
            raise Refused("out-of-line", "its classes are not in the order of their uids")
        if set(verdict.classes) & set(self.known):
            raise Refused("out-of-line", "a class is announced twice")

    def _fit_moment(self, verdict: WindowJudged) -> None:
        """In a live run: the next moment, under the newest model of the decisions that it names."""
        if verdict.after is None:
            raise Refused("out-of-line", "a live verdict that names no decision")
        self._rounds.decided(verdict.after)
        if verdict.stage != self.judged + 1:
            raise Refused("out-of-line", f"moment {verdict.stage}, {self.judged + 1} is next")
        if verdict.images and not self.armed(verdict.after):
            raise Refused("out-of-line", "judges while what it found before has no row")
        if verdict.model != self._rounds.model_after(verdict.after):
            raise Refused("wrong-base", f"judged by version {verdict.model.version}")
        newest = self.verdicts.get(self.judged)
        if newest and not newest.position <= verdict.position:
            raise Refused("out-of-line", "looks less far than before")

    def _fit_stage(self, verdict: WindowJudged) -> None:
        if verdict.after is not None:
            raise Refused("out-of-line", "a recipe's verdict that names a decision")
        if verdict.stage >= self._rounds.most_stages:
            raise Refused("out-of-line", f"judges stage {verdict.stage}, which no run has")
        marked = self._rounds.next_marked(self.entity, self.judged)
        if marked is None:
            known = self._rounds.total_stages
            raise NotYet(lambda: self._rounds.total_stages > known, f"a stage for {self.entity}")
        if verdict.stage != marked:
            raise Refused("out-of-line", f"judges stage {verdict.stage}, stage {marked} is next")
        model = self._rounds.judges(marked)
        if model is None:
            raise NotYet(
                lambda: self._rounds.judges(marked) is not None, f"StageClosed({marked - 1})"
            )
        if verdict.model != model:
            raise Refused("wrong-base", f"judged by version {verdict.model.version}")


class VerdictLines:
    """All entities' lines as one reader sees them; what must wait holds up its own line only."""

    def __init__(self, rounds: RoundsLine) -> None:
        self._rounds = rounds
        self._turns: dict[str, Turns] = {}
        self.of: dict[str, VerdictLine] = {}
        self.refused: Rejected = []

    def hear(self, site: str, decision: TwinDecision, where: object = None) -> None:
        """Take the decision in its turn. Raises Refused if the site cannot speak for the entity."""
        entity = decision.entity
        if parted(entity)[0] != site:
            raise Refused("unknown-entity", f"{entity} does not belong to site {site}")
        if self._rounds.opened is not None and not self._rounds.knows(entity):
            raise Refused("unknown-entity", f"{entity} takes no part in this run")
        if entity not in self._turns:
            self.of[entity] = VerdictLine(entity, self._rounds)
            self._turns[entity] = Turns(self.of[entity].take)
        self._turns[entity].add(decision, where, self.refused)

    def again(self) -> None:
        """Look once more at what had to wait, after `rounds` went on."""
        for turns in self._turns.values():
            turns.settle(self.refused)

    def line(self, entity: str) -> VerdictLine:
        """An entity's line, empty before it was heard of."""
        return self.of.get(entity) or VerdictLine(entity, self._rounds)

    def judged(self, entity: str) -> int:
        """The last stage that an entity's line has judged; -1 before the first."""
        return self.of[entity].judged if entity in self.of else -1

    def verdict(self, entity: str, stage: int) -> WindowJudged | None:
        """What an entity's line says that a stage rests on."""
        moment = self._rounds.moment(entity, stage)
        return None if moment is None else self.line(entity).verdicts.get(moment)
