"""The lines in `classes.<site>`, one for each entity: it joined, and what its twin judged.

A recipe's twin judges each stage that waits for it once; a live one whenever enough has come, and
counts the moments (docs/method.md 3.4). Behind a Standing each line stands as that tells, whatever
was read of it before.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.errors import Refused
from schemas.limits import MOST_COUNTED, rows_in_words, with_room
from schemas.line import NotYet, Rejected, RoundsLine
from schemas.messages import (
    Decision,
    EntityJoined,
    EntityLeft,
    Member,
    NotUnderstood,
    Standing,
    TwinDecision,
    WindowJudged,
)
from schemas.schedule import sorted_uids
from schemas.topics import parted
from schemas.turns import Turns


class VerdictLine:
    """An entity's part of `classes.<site>`: it joined, and what was judged at each marked stage."""

    def __init__(self, entity: str, rounds: RoundsLine) -> None:
        self.entity = entity
        self._rounds = rounds
        self.number = -1
        self.here = False
        """Whether it has joined, and not left since."""
        self.verdicts: dict[int, WindowJudged] = {}
        """By stage; in a live run by moment, and where the line is not whole those that count."""
        self.known: tuple[str, ...] = ()
        """Classes that the twin's own verdicts have named, in their order."""
        self.told = -1
        """Number up to which a Standing tells of it."""
        self._past: list[tuple[bool, int]] = []
        """Behind each of its decisions, of a line that is whole: whether it was here, and how many
        moments it had."""
        self.stopped: NotUnderstood | None = None
        """The next decision, if a later program wrote it: to pass over it would fork the line."""

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
                self.known = (*self.known, *decision.classes)
            case EntityJoined():
                if self.here or (self.number >= 0 and not self._rounds.live):
                    raise Refused("out-of-line", f"{self.entity} joins twice")
                self.here = True
            case EntityLeft():
                if not (self.here and self._rounds.live):
                    raise Refused("out-of-line", f"{self.entity} cannot leave")
                self.here = False
        self.number += 1
        if self._rounds.whole:
            self._past.append((self.here, self.judged + 1))

    def stood(self, number: int) -> dict[str, object]:
        """How it stood behind one of its decisions, as a Standing tells it.

        Raises LookupError for another than the last, of a line that is not whole.
        """
        here, moments = self._past[number] if self._rounds.whole else (self.here, self.judged + 1)
        if number > self.number or (number < self.number and not self._rounds.whole):
            raise LookupError(f"{self.entity} stands at {self.number}, not at {number}")
        own = {key: verdict for key, verdict in self.verdicts.items() if key < moments}
        known = {uid for verdict in own.values() for uid in verdict.classes}
        part, last = self._rounds.parts.of(self.entity), _on_images(own.values())
        needed = {moments - 2, moments - 1, last.stage if last else -1}
        if part.newest:
            needed |= {part.newest.moment - 1, part.newest.moment}
        stage, spoke = self._rounds.stage, own[moments - 1].after if moments else None
        return {
            "number": number,
            "here": here,
            "moments": moments,
            "classes": sorted_uids(known if self._rounds.whole else {*self.known}),
            "verdicts": tuple(own[key] for key in sorted(needed & own.keys())),
            "seen": stage.size - self._rounds.rounds_behind(last.after or 0)
            if last and stage
            else None,
            **part.told(spoke or 0),
        }

    def stand(self, told: Member | None) -> bool:
        """Stand as a Standing tells; says whether what was read beyond has to be read again.

        What it has not read counts if that says so. What is read beyond stays, but for what rests
        on decisions from before the Standing before.
        """
        self.told = told.number if told else -1
        ahead = [
            each for key, each in self.verdicts.items() if key >= (told.moments if told else 0)
        ]
        back = self.number > self.told and any(
            (each.after or 0) < self._rounds.floor for each in ahead
        )
        if self._rounds.whole:
            if back:
                self._take_back()
            return back
        if told is None:
            if back:
                self.number, self.here, self.verdicts, self.known = -1, False, {}, ()
            return back
        kept = {each.stage: each for each in told.verdicts}
        if self.stopped and self.number < self.told:
            self.stopped, back = None, True
        if back or self.number <= self.told:
            self.number, self.here, self.verdicts = told.number, told.here, kept
            self.known = told.classes
        else:
            self.verdicts = kept | {each.stage: each for each in ahead}
        return back

    def _take_back(self) -> None:
        """Of a whole line everything beyond what a Standing tells of."""
        self.number = self.told
        self._past = self._past[: self.number + 1]
        self.here, moments = self._past[-1] if self._past else (False, 0)
        self.verdicts = {key: each for key, each in self.verdicts.items() if key < moments}
        self.known = tuple(uid for each in self.verdicts.values() for uid in each.classes)

    @property
    def news(self) -> int:
        """Of a live run: the decision behind which it judged images last; -1 where it never has."""
        last = _on_images(self.verdicts.values())
        return (last.after or 0) if last else -1

    @property
    def pending(self) -> int | None:
        """Of a live run: the moment of its newest verdict, if that found something new which no
        stage has taken up."""
        newest = self.verdicts.get(self.judged)
        taken = self._rounds.parts.of(self.entity).newest
        is_taken = taken is not None and taken.moment >= self.judged
        return self.judged if newest and newest.classes and not is_taken else None

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
        self._fit_room(verdict)

    def _fit_room(self, verdict: WindowJudged) -> None:
        """No more classes than there can be rows for, whatever others announce."""
        opened = self._rounds.opened
        assert opened is not None
        room = len(with_room(opened, self.known, verdict.classes))
        if room < len(verdict.classes):
            raise Refused(
                "out-of-range",
                f"announces {len(verdict.classes)} classes beside {len(self.known)}, where"
                f" {room} have room: {rows_in_words(opened)}",
            )
        if len(verdict.images) > MOST_COUNTED:
            raise Refused(
                "out-of-range",
                f"counts images of {len(verdict.images)} classes, of {MOST_COUNTED} at most",
            )

    def _fit_moment(self, verdict: WindowJudged) -> None:
        """In a live run: the next moment, under the newest model of the decisions that it names."""
        if verdict.after is None:
            raise Refused("out-of-line", "a live verdict that names no decision")
        if self.number >= self.told:
            self._rounds.recalled(verdict.after)
        self._rounds.reached(verdict.after)
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
        self._heard: dict[str, list[tuple[Decision, object]]] = {}
        """Of a live run: what was read of an entity beyond what the last Standing tells."""
        self._standing: Standing | None = None
        """The one that all stands by."""

    def hear(self, site: str, decision: TwinDecision, where: object = None) -> None:
        """Take the decision in its turn. Raises Refused if the site cannot speak for the entity."""
        entity = decision.entity
        if parted(entity)[0] != site:
            raise Refused("unknown-entity", f"{entity} does not belong to site {site}")
        if self._rounds.opened is not None and not self._rounds.knows(entity):
            raise Refused("unknown-entity", f"{entity} takes no part in this run")
        self._catch_up()
        line = self._made(entity)
        if self._rounds.opened is None or (self._rounds.live and decision.number > line.told):
            self._heard.setdefault(entity, []).append((decision, where))
        self._turns[entity].add(decision, where, self.refused)

    def _made(self, entity: str) -> VerdictLine:
        if entity not in self._turns:
            self.of[entity] = VerdictLine(entity, self._rounds)
            self._turns[entity] = Turns(self.of[entity].take)
        return self.of[entity]

    def _catch_up(self) -> None:
        if self._rounds.standing is not self._standing and self._rounds.standing:
            self._stand(self._rounds.standing)

    def _stand(self, standing: Standing) -> None:
        """Stand as this tells, everyone."""
        self._standing = standing
        members = {each.entity: each for each in standing.members}
        for entity in sorted({*self.of, *members}):
            back = self._made(entity).stand(members.get(entity))
            heard = self._heard.pop(entity, [])
            beyond = [each for each in heard if each[0].number > self.of[entity].told]
            if beyond:
                self._heard[entity] = beyond
            if back:
                self._turns[entity].anew(beyond)

    def again(self) -> None:
        """Look once more at what had to wait, after `rounds` went on."""
        self._catch_up()
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


def _on_images(verdicts: Iterable[WindowJudged]) -> WindowJudged | None:
    """The newest that judged any image."""
    return max((each for each in verdicts if each.images), key=lambda v: v.stage, default=None)
