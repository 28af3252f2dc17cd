"""Decision lines: what counts in `rounds`, in `teachers` and in each entity's part of `classes`.

A line takes decision n+1 next and passes over everything else, so two authors who both decide
number n leave one decision, the same for every reader. A decision is judged by its own line first.
What it says of other lines is content, except that it may have to wait for what comes without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import Refused
from schemas.limits import MOST_ADDED
from schemas.messages import (
    Decision,
    HeadGrown,
    Look,
    ModelName,
    NotUnderstood,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    TeacherChosen,
    TwinDecision,
    WindowJudged,
)
from schemas.schedule import sorted_uids
from schemas.topics import parted

Rejected = list[tuple[object, Refused]]
"""What was not valid: where it lies, and why."""


class NotYet(Exception):
    """A message names something that has not been read; `until` says when to look again.

    `what` names it, and nothing else goes by that name for the same reader: of all that wait for it
    one is asked.
    """

    def __init__(self, until: Callable[[], bool], what: str) -> None:
        super().__init__(what)
        self.until = until


@dataclass
class Round:
    """One round as decided so far."""

    opened: RoundOpened
    closed: RoundClosed | None = None


@dataclass
class Stage:
    """One stage as decided so far."""

    index: int
    grown: HeadGrown | None = None
    rounds: list[Round] = field(default_factory=list)
    closed: StageClosed | None = None


class RoundsLine:
    """The line `rounds`: everything that was decided about stages, rounds and models."""

    def __init__(self) -> None:
        self.opened: RunOpened | None = None
        self.run = ""
        self.number = -1
        self.stages: list[Stage] = []
        self.rows: dict[str, int] = {}
        self.stage_of_row: list[int] = []
        self.model: ModelName | None = None
        self.added: list[dict[str, Look]] = []
        """Stages behind the scheduled ones: entity → how far to look."""
        self.decisions: dict[int, Decision] = {}
        self._entities: tuple[str, ...] = ()
        self._additions = 0

    # --- what was decided ------------------------------------------------------------------

    @property
    def total_stages(self) -> int:
        """Scheduled stages and added ones; 0 before the run is opened."""
        return self.opened.configuration.stages + len(self.added) if self.opened else 0

    @property
    def stage(self) -> Stage | None:
        """The newest stage."""
        return self.stages[-1] if self.stages else None

    @property
    def open_round(self) -> RoundOpened | None:
        """The round that waits for updates."""
        if self.stage and self.stage.rounds and self.stage.rounds[-1].closed is None:
            return self.stage.rounds[-1].opened
        return None

    @property
    def over(self) -> bool:
        """Every scheduled and added stage is closed."""
        return len(self.stages) == self.total_stages > 0 and self.stages[-1].closed is not None

    def closed(self, stage: int) -> StageClosed | None:
        """The decision that closed a stage, if it was read."""
        return self.stages[stage].closed if 0 <= stage < len(self.stages) else None

    def judges(self, stage: int) -> ModelName | None:
        """The model under which a stage's images are judged: the last of the stage before."""
        if stage == 0:
            return self.opened.model if self.opened else None
        before = self.closed(stage - 1)
        return before.last if before else None

    def marked(self, stage: int) -> tuple[str, ...]:
        """The entities that a stage waits for."""
        if self.opened and stage < self.opened.configuration.stages:
            return tuple(self.opened.schedule.stages[stage].marked)
        index = stage - (self.total_stages - len(self.added))
        return tuple(sorted(self.added[index])) if 0 <= index < len(self.added) else ()

    def next_marked(self, entity: str, after: int) -> int | None:
        """The first stage behind `after` that waits for this entity, as far as is known."""
        stages = range(after + 1, self.total_stages)
        return next((stage for stage in stages if entity in self.marked(stage)), None)

    @property
    def entities(self) -> tuple[str, ...]:
        """Every entity of the schedule, in the order in which they joined."""
        return self._entities

    def expected(self, stage: int) -> tuple[tuple[str, int, str], ...]:
        """The prototypes that a stage waits for: entity, place, class, in the order of the list."""
        grown = self.stages[stage].grown if stage < len(self.stages) else None
        return tuple(
            (entity, place, uid)
            for entity, uids in (grown.prototypes if grown else ())
            for place, uid in enumerate(uids)
        )

    def expected_in(self, stage: int, round: int) -> tuple[tuple[str, int, str], ...]:
        """Of those, what is expected of one round: a list names its classes once for each round
        that samples the entity (with two slots only; docs/method.md 9)."""
        found = []
        grown = self.stages[stage].grown if stage < len(self.stages) else None
        for entity, uids in grown.prototypes if grown else ():
            rounds, size = self._sampled_rounds(entity, stage), len(set(uids))
            if round in rounds:
                first = size * rounds.index(round)
                found += [(entity, i, uids[i]) for i in range(first, first + size)]
        return tuple(found)

    def _sampled_rounds(self, entity: str, stage: int) -> list[int]:
        """The rounds of a scheduled stage in which an entity trains."""
        assert self.opened is not None
        sampled = self.opened.schedule.stages[stage].sampled
        return [round for round, entities in enumerate(sampled) if entity in entities]

    def closed_round(self, stage: int, round: int) -> RoundClosed | None:
        """The decision that closed a round, if it was read."""
        rounds = self.stages[stage].rounds if stage < len(self.stages) else []
        return rounds[round].closed if round < len(rounds) else None

    # --- what a message names ----------------------------------------------------------------

    def decided(self, number: int) -> Decision:
        """The decision that a message names.

        Raises NotYet before it was read, and Refused for a number that this run cannot come to.
        """
        if number > self.last_number:
            raise Refused("out-of-line", f"decision {number}: the last can be {self.last_number}")
        if number > self.number:
            raise NotYet(lambda: self.number >= number, f"decision {number}")
        return self.decisions[number]

    def begun(self, stage: int) -> Stage:
        """The stage that a message names.

        Raises NotYet before it began, and Refused for one that this run cannot come to.
        """
        if stage >= self.most_stages:
            raise Refused("out-of-line", f"stage {stage}: there are at most {self.most_stages}")
        if stage >= len(self.stages):
            raise NotYet(lambda: len(self.stages) > stage, f"stage {stage}")
        return self.stages[stage]

    @property
    def most_stages(self) -> int:
        """How many stages this run can come to: by RunOpened alone, whatever else was read."""
        assert self.opened is not None
        return self.opened.configuration.stages + MOST_ADDED

    @property
    def last_number(self) -> int:
        """The largest number that a decision of this run can have.

        Behind RunOpened stand at most so many StageAdded, and of each stage HeadGrown, StageClosed
        and two for each round.
        """
        assert self.opened is not None
        each = 2 + 2 * self.opened.configuration.rounds_per_stage
        return MOST_ADDED + each * self.most_stages

    # --- hearing ---------------------------------------------------------------------------

    def hear(self, decision: Decision, hash: str) -> bool:
        """Take the decision if it is the next one; say whether it counted.

        Raises Refused when it has the next number and does not fit the line.
        """
        if decision.number != self.number + 1:
            return False
        if self.opened is not None and decision.run != self.run:
            raise Refused("out-of-line", f"{decision.identity} is of another run")
        self._fit(decision, hash)
        self.number = decision.number
        self.decisions[decision.number] = decision
        return True

    def _fit(self, decision: Decision, hash: str) -> None:
        match decision:
            case RunOpened() if self.opened is None:
                self.opened, self.run, self.model = decision, hash, decision.model
                self._entities = decision.schedule.entities
            case _ if self.opened is None:
                raise Refused("out-of-line", "the first decision is not RunOpened")
            case HeadGrown():
                self._grow(decision)
            case RoundOpened():
                self._open(decision)
            case RoundClosed():
                self._close(decision)
            case StageClosed():
                self._end(decision)
            case StageAdded():
                self._add(decision)
            case _:
                raise Refused("out-of-line", f"{decision.kind()} cannot stand here")

    def _grow(self, grown: HeadGrown) -> None:
        rows = dict(self.rows) | grown.rows
        self._must(self._may_begin(grown.stage), grown, "another stage is not closed")
        self._must(bool(grown.rows), grown, "no class grows")
        fresh = sorted(grown.rows.values()) == list(range(len(self.rows), len(rows)))
        self._must(fresh and not set(grown.rows) & set(self.rows), grown, "rows are not the next")
        self._must(self._follows(grown.model), grown, "not the next version")
        self._must(self._may_expect(grown), grown, "prototypes of others than this stage's classes")
        self.rows = rows
        self.stage_of_row += [grown.stage] * len(grown.rows)
        self.model = grown.model
        self.stages.append(Stage(grown.stage, grown))

    def _open(self, opened: RoundOpened) -> None:
        assert self.opened is not None
        entities = [participant.entity for participant in opened.participants]
        self._must(self.open_round is None, opened, "a round is open")
        self._must(len(set(entities)) == len(entities), opened, "an entity takes part twice")
        self._must(set(entities) <= set(self.entities), opened, "an entity is not known")
        self._must(opened.base == self.model, opened, "not on the newest model")
        if self._may_begin(opened.stage):
            self._must(opened.round == 0, opened, "a stage begins with round 0")
            self.stages.append(Stage(opened.stage))
        stage = self.stages[-1] if self.stages else None
        fits = stage and stage.closed is None and stage.index == opened.stage
        self._must(bool(fits), opened, "not the stage at hand")
        rounds = self.stages[-1].rounds
        most = self.opened.configuration.rounds_per_stage
        self._must(opened.round == len(rounds) < most, opened, "not the next round")
        rounds.append(Round(opened))

    def _close(self, closed: RoundClosed) -> None:
        opened = self.open_round
        if opened is None or opened.number != closed.opened:
            raise Refused("out-of-line", f"{closed.identity}: closes no open round")
        answered = [entity for entity, _ in (*closed.counted, *closed.withheld)]
        everyone = sorted(participant.entity for participant in opened.participants)
        self._must(sorted(answered) == everyone, closed, "not the round's participants")
        same = (closed.stage, closed.round) == (opened.stage, opened.round)
        self._must(same, closed, "another stage or round")
        follows = self._follows(closed.model) if closed.counted else closed.model == self.model
        self._must(follows, closed, "not the next version")
        self.stages[-1].rounds[-1].closed = closed
        self.model = closed.model

    def _end(self, end: StageClosed) -> None:
        assert self.opened is not None
        stage = self.stage
        rounds = stage.rounds if stage else []
        complete = len(rounds) == self.opened.configuration.rounds_per_stage
        fits = stage and stage.closed is None and stage.index == end.stage and complete
        self._must(bool(fits) and self.open_round is None, end, "its rounds are not over")
        own = [each.closed.model for each in rounds if each.closed]
        self._must(
            end.last == self.model and set(end.candidates) <= set(own), end, "not its models"
        )
        self.stages[-1].closed = end

    def _add(self, added: StageAdded) -> None:
        known, named = set(self.entities), {look.entity for look in added.looks}
        self._must(len(named) == len(added.looks), added, "an entity is named twice")
        self._must(self._additions < MOST_ADDED, added, f"the {MOST_ADDED + 1}th addition")
        for look in added.looks:
            self._must(look.entity in known, added, f"{look.entity} is not known")
        for look in added.looks:
            self._pending(look.entity)[look.entity] = look
        self._additions += 1

    def _pending(self, entity: str) -> dict[str, Look]:
        """The first added stage that has not begun and does not name the entity yet."""
        first = len(self.stages) - (self.total_stages - len(self.added))
        for looks in self.added[max(first, 0) :]:
            if entity not in looks:
                return looks
        self.added.append({})
        return self.added[-1]

    def _may_begin(self, stage: int) -> bool:
        settled = not self.stages or self.stages[-1].closed is not None
        return settled and stage == len(self.stages) < self.total_stages

    def _may_expect(self, grown: HeadGrown) -> bool:
        """Whether prototypes are expected once each, of entities and classes of this stage.

        With two slots: once for each round that samples the entity, in the schedule's stages.
        """
        entities = [entity for entity, _ in grown.prototypes]
        if len(set(entities)) < len(entities) or not set(entities) <= set(self.marked(grown.stage)):
            return False
        return all(
            set(uids) <= set(grown.rows) and self._complete(entity, uids, grown.stage)
            for entity, uids in grown.prototypes
        )

    def _complete(self, entity: str, uids: tuple[str, ...], stage: int) -> bool:
        """Whether a list names each of its classes as often as it must."""
        assert self.opened is not None
        if not self.opened.configuration.slotted:
            return len(set(uids)) == len(uids)
        if stage >= self.opened.configuration.stages:
            return False
        return uids == uids[: len(set(uids))] * len(self._sampled_rounds(entity, stage))

    def _follows(self, model: ModelName) -> bool:
        return self.model is not None and model.version == self.model.version + 1

    @staticmethod
    def _must(holds: bool, decision: Decision, what: str) -> None:
        if not holds:
            raise Refused("out-of-line", f"{decision.identity}: {what}")


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


class TeachersLine:
    """The line `teachers`: one choice for each stage from the second on, or for each round."""

    def __init__(self, rounds: RoundsLine) -> None:
        self._rounds = rounds
        self._turns = Turns(self._take)
        self.chosen: list[TeacherChosen] = []
        self.refused: Rejected = []

    def of(self, stage: int) -> TeacherChosen | None:
        """The choice for a stage, or for its first round, if it was read."""
        return self.at(stage, 0)

    def at(self, stage: int, round: int) -> TeacherChosen | None:
        """The choice that counts in a round, if it was read."""
        number = (stage - 1) * self._each + round % self._each
        return self.chosen[number] if stage >= 1 and number < len(self.chosen) else None

    def place(self, number: int) -> tuple[int, int]:
        """Stage and round that a choice of this number is for."""
        return 1 + number // self._each, number % self._each

    @property
    def _each(self) -> int:
        """Choices for each stage."""
        opened = self._rounds.opened
        slotted = opened is not None and opened.configuration.slotted
        return opened.configuration.rounds_per_stage if opened and slotted else 1

    def hear(self, chosen: TeacherChosen, where: object = None) -> None:
        """Take the choice in its turn. What is not valid is found in `refused`."""
        self._turns.add(chosen, where, self.refused)

    def again(self) -> None:
        """Look once more at what had to wait, after `rounds` went on."""
        self._turns.settle(self.refused)

    def _take(self, decision: Decision) -> None:
        if not isinstance(decision, TeacherChosen):
            raise Refused("out-of-line", f"{decision.kind()} cannot stand here")
        if self._rounds.opened is None:
            raise NotYet(lambda: self._rounds.opened is not None, "RunOpened")
        if decision.number != len(self.chosen):
            return
        stage, round = decision.stage, decision.round
        other = (stage, round) != self.place(decision.number)
        if other or decision.run != self._rounds.run:
            raise Refused("out-of-line", f"{decision.identity} is for stage {stage}, round {round}")
        if round:
            self._after(lambda: self._rounds.closed_round(stage, round - 1), f"round {round - 1}")
        else:
            self._after(lambda: self._rounds.closed(stage - 1), f"StageClosed({stage - 1})")
        if self._rounds.opened.configuration.slotted:
            self._fit_slots(decision)
        else:
            self._fit(decision)
        self.chosen.append(decision)

    @staticmethod
    def _after(read: Callable[[], Decision | None], what: str) -> None:
        if read() is None:
            raise NotYet(lambda: read() is not None, what)

    def _fit(self, decision: TeacherChosen) -> None:
        before = self._rounds.closed(decision.stage - 1)
        if before is None or decision.teacher not in (*before.candidates, before.last):
            raise Refused("out-of-line", f"{decision.identity} names no model of the stage before")
        if decision.slots is not None:
            raise Refused("out-of-line", f"{decision.identity} names slots, and the run has none")

    def _fit_slots(self, decision: TeacherChosen) -> None:
        """Both slots are models that closed a round before this one."""
        end = (decision.stage, decision.round)
        known = {
            each.closed.model
            for stage in self._rounds.stages
            for each in stage.rounds
            if each.closed and (each.closed.stage, each.closed.round) < end
        }
        first, second = decision.slots or (None, None)
        if not {first, second} <= known | {None} or decision.teacher != (second or first):
            raise Refused("out-of-line", f"{decision.identity} names no models of rounds before")


class VerdictLine:
    """An entity's part of `classes.<site>`: it joined, and what was judged at each marked stage."""

    def __init__(self, entity: str, rounds: RoundsLine) -> None:
        self.entity = entity
        self._rounds = rounds
        self.number = -1
        self.verdicts: dict[int, WindowJudged] = {}
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
        if self.entity not in self._rounds.entities:
            raise Refused("unknown-entity", f"{self.entity} is in no stage of the schedule")
        if decision.number != self.number + 1:
            return
        if isinstance(decision, NotUnderstood):
            self.stopped = decision
            raise NotYet(lambda: False, f"a program that reads {decision.detail}")
        if isinstance(decision, WindowJudged):
            self._fit(decision)
            self.verdicts[decision.stage] = decision
        elif self.number >= 0:
            raise Refused("out-of-line", f"{self.entity} joins twice")
        self.number += 1

    def _fit(self, verdict: WindowJudged) -> None:
        if self.number < 0:
            raise Refused("out-of-line", f"{self.entity} has not joined")
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
        if (verdict.verdict == "new") != bool(verdict.classes):
            raise Refused("out-of-line", f"{verdict.verdict} with {len(verdict.classes)} classes")
        if verdict.classes != sorted_uids(set(verdict.classes)):
            raise Refused("out-of-line", "its classes are not in the order of their uids")
        if set(verdict.classes) & set(self.known):
            raise Refused("out-of-line", "a class is announced twice")


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
        if self._rounds.opened is not None and entity not in self._rounds.entities:
            raise Refused("unknown-entity", f"{entity} is in no stage of the schedule")
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
        """What an entity's line says of a stage."""
        return self.line(entity).verdicts.get(stage)
