"""Decision lines: what counts in `rounds`, in `teachers` and in each entity's part of `classes`.

A line takes decision n+1 next and passes over everything else, so two authors who both decide
number n leave one decision, the same for every reader. A decision is judged by its own line first.
What it says of other lines is content, except that it may have to wait for what comes without it.

Of a live run a Standing says what all that has come to. Behind one, only what it tells is needed of
what stands before the Standing before it, and nobody may name any other (docs/decisions/0024).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from schemas.errors import Refused
from schemas.limits import MOST_ADDED, rows_in_words, with_room
from schemas.messages import (
    Before,
    Decision,
    HeadGrown,
    Look,
    Member,
    ModelName,
    Paused,
    RolledBack,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    StageOpened,
    Standing,
    Taken,
)
from schemas.parts import Parts
from schemas.stages import Round, Stage
from schemas.topics import parted

NO_END = 2**53 - 1
"""Decisions and stages of a live run; the largest number that travels."""
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


class RoundsLine:
    """The line `rounds`: everything that was decided about stages, rounds and models.

    Who does not want it whole holds of a live run only what decisions to come may rest on. What is
    valid is the same for both.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.whole = whole
        self.opened: RunOpened | None = None
        self.run = ""
        self.number = -1
        self.stages: list[Stage] = []
        self.rows: dict[str, int] = {}
        self.stage_of_row: tuple[int, ...] = ()
        """Never changed in place: a task that waits for a worker holds it as it was."""
        self.model: ModelName | None = None
        self.added: list[dict[str, Look]] = []
        """Stages behind the scheduled ones: entity → how far to look."""
        self.decisions: dict[int, Decision] = {}
        self.resting: set[str] = set()
        """Entities of a live run that are paused."""
        self.all_rest = False
        """Whether the whole live run is paused."""
        self._entities: tuple[str, ...] = ()
        self._additions = 0
        self.parts = Parts()
        """What a live run has decided of each entity."""
        self._models: list[tuple[int, ModelName]] = []
        """Number of a decision that named a new model, and that model."""
        self.lasts: list[ModelName] = []
        """With which each closed stage ended."""
        self.closed_rounds = 0
        """How many have closed."""
        self.standing: Standing | None = None
        """The last one."""
        self.floor = 0
        """Number of the Standing before that. No message that comes later may name a decision from
        before it."""
        self.held = 0
        """Number of the first decision that is held, or of the Standing with which it began."""
        self._hash = ""
        """Of the last Standing."""
        self._seen: dict[int, int] = {}
        """Number of a decision before those → rounds of the newest stage that had begun by then."""

    # --- what was decided ------------------------------------------------------------------

    @property
    def total_stages(self) -> int:
        """Scheduled stages and added ones; 0 before the run is opened. A live run has one more."""
        if self.live:
            return len(self.stages) + 1
        return self.opened.configuration.stages + len(self.added) if self.opened else 0

    @property
    def live(self) -> bool:
        """Whether this run does not end."""
        return self.opened is not None and self.opened.configuration.live

    @property
    def stage(self) -> Stage | None:
        """The newest stage."""
        return self.stages[-1] if self.stages else None

    @property
    def open_round(self) -> RoundOpened | None:
        """The round that waits for updates."""
        newest = self.stage.rounds[-1] if self.stage and self.stage.rounds else None
        if newest is None or newest.closed or newest.dropped:
            return None
        return newest.opened

    @property
    def over(self) -> bool:
        """Every scheduled and added stage is closed."""
        return (
            not self.live
            and len(self.stages) == self.total_stages > 0
            and self.stages[-1].closed is not None
        )

    def closed(self, stage: int) -> StageClosed | None:
        """The decision that closed a stage, if it was read."""
        return self.stages[stage].closed if 0 <= stage < len(self.stages) else None

    def judges(self, stage: int) -> ModelName | None:
        """The model under which a stage's images are judged: the last of the stage before."""
        if stage == 0:
            return self.opened.model if self.opened else None
        return self.lasts[stage - 1] if stage <= len(self.lasts) else None

    def marked(self, stage: int) -> tuple[str, ...]:
        """The entities that a stage waits for; of a live run those that found something new."""
        if self.live:
            begun = self.stages[stage].opened if stage < len(self.stages) else None
            return tuple(entity for entity, _ in begun.found) if begun else ()
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

    def knows(self, entity: str) -> bool:
        """Whether an entity may take part: by RunOpened alone."""
        if self.opened is not None and self.live:
            return parted(entity)[0] in self.opened.sites
        return entity in self._entities

    def moment(self, entity: str, stage: int) -> int | None:
        """Which verdict of an entity a stage rests on: that of the stage or, in a live run, of the
        moment that StageOpened names; None if it names none."""
        if not self.live:
            return stage
        taken = self.parts.of(entity).taken.get(stage)
        return taken.moment if taken else None

    def taken_up(self, entity: str) -> Mapping[int, Taken]:
        """Of a live run: the stages that began with what an entity found, by their index."""
        return self.parts.of(entity).taken

    def model_after(self, number: int) -> ModelName:
        """The newest model when this decision had been taken; it has to be read already."""
        at = bisect_right(self._models, number, key=lambda named: named[0])
        return self._models[at - 1][1]

    def named(self, version: int) -> ModelName | None:
        """The model of a version, as a decision named it."""
        at = bisect_left(self._models, version, key=lambda named: named[1].version)
        found = self._models[at][1] if at < len(self._models) else None
        if found and found.version == version:
            return found
        kept = self.standing.kept if self.standing else ()
        return next((model for model in kept if model.version == version), None)

    @property
    def earlier(self) -> set[ModelName]:
        """The models that a live run can go back to: those that the last Standing keeps, and those
        behind it."""
        since = {model for number, model in self._models if number > self.stood or not self.stood}
        return (since | {*(self.standing.kept if self.standing else ())}) - {self.model}

    def newest_models(self) -> Iterator[ModelName]:
        """Every model that a decision named, the newest first."""
        return (model for _, model in reversed(self._models))

    def rearmed(self, entity: str, moment: int, after: int) -> bool:
        """Whether a live twin that found new classes may judge again: a round that closed up to
        this decision has a model with their rows (docs/method.md 3.4)."""
        part = self.parts.of(entity)
        begun = next((s for s, each in part.taken.items() if each.moment == moment), -1)
        return part.armed.get(begun, NO_END) <= after

    def away(self, entity: str, after: int) -> bool:
        """Whether a live twin was missed by a round that closed behind this decision."""
        missed = self.parts.of(entity).missed
        return missed is not None and missed > after

    def rounds_behind(self, number: int) -> int:
        """How many rounds of the newest stage began behind a decision."""
        stage = self.stage
        if stage is None or (stage.opened and stage.opened.number > number):
            return stage.size if stage else 0
        if number < self.held:
            return stage.size - self._seen.get(number, 0)
        return sum(each.opened.number > number for each in stage.rounds)

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

        Raises NotYet before it was read, and Refused for a number that this run cannot come to, and
        for one that is not held any more.
        """
        self.reached(number)
        if number not in self.decisions:
            raise Refused("out-of-line", f"decision {number}: what is held begins at {self.held}")
        return self.decisions[number]

    def reached(self, number: int) -> None:
        """Raises NotYet and Refused likewise, but for what is not held any more."""
        if number > self.last_number:
            raise Refused("out-of-line", f"decision {number}: the last can be {self.last_number}")
        if number > self.number:
            raise NotYet(lambda: self.number >= number, f"decision {number}")

    def recalled(self, number: int) -> None:
        """Of a live run: whether a verdict that no Standing tells of may rest on a decision.

        Raises Refused for one from before the last Standing but one, and NotYet for one that was
        not read yet, or that lies before where this line began.
        """
        self.reached(number)
        if number < self.floor:
            raise Refused("out-of-line", f"decision {number} lies before Standing {self.floor}")
        if number < self.held:
            raise NotYet(lambda: self.floor >= self.held, "another Standing")

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
        return NO_END if self.live else self.opened.configuration.stages + MOST_ADDED

    @property
    def last_number(self) -> int:
        """The largest number that a decision of this run can have.

        Behind RunOpened stand at most so many StageAdded, and of each stage HeadGrown, StageClosed
        and two for each round.
        """
        assert self.opened is not None
        if self.live:
            return NO_END
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
        before = self.model
        self._fit(decision, hash)
        self.number = decision.number
        self.decisions[decision.number] = decision
        if self.model is not None and self.model != before:
            self._models.append((decision.number, self.model))
        return True

    def _fit(self, decision: Decision, hash: str) -> None:
        match decision:
            case RunOpened() if self.opened is None:
                self.opened, self.run, self.model = decision, hash, decision.model
                self._entities = decision.schedule.entities
            case _ if self.opened is None:
                raise Refused("out-of-line", "the first decision is not RunOpened")
            case StageOpened() if self.live:
                self._begin(decision)
            case Paused() if self.live:
                self._pause(decision)
            case RolledBack() if self.live:
                self._roll_back(decision)
            case Standing() if self.live:
                self._stand(decision, hash)
            case HeadGrown():
                self._grow(decision)
            case RoundOpened():
                self._open(decision)
            case RoundClosed():
                self._close(decision)
            case StageClosed():
                self._end(decision)
            case StageAdded() if not self.live:
                self._add(decision)
            case _:
                raise Refused("out-of-line", f"{decision.kind()} cannot stand here")

    def _begin(self, begun: StageOpened) -> None:
        entities = [entity for entity, _ in begun.found]
        self._must(self._may_begin(begun.stage), begun, "another stage is not closed")
        self._must(len(set(entities)) == len(entities), begun, "an entity is named twice")
        self._must(all(map(self.knows, entities)), begun, "an entity is not known")
        newest = {entity: self.parts.of(entity).newest for entity in entities}
        later = all(not (last := newest[e]) or m > last.moment for e, m in begun.found)
        self._must(later, begun, "a moment is taken up twice")
        self.stages.append(Stage(begun.stage, opened=begun))
        self.parts.begin(begun)

    def _pause(self, paused: Paused) -> None:
        if paused.entity is None:
            self._must(paused.rests != self.all_rest, paused, "changes nothing")
            self.all_rest = paused.rests
            return
        self._must(self.knows(paused.entity), paused, f"{paused.entity} is not known")
        self._must(paused.rests != (paused.entity in self.resting), paused, "changes nothing")
        self.resting ^= {paused.entity}

    # --- how it stands -----------------------------------------------------------------------

    @property
    def stood(self) -> int:
        """Number of the last Standing; 0 before the first."""
        return self.standing.number if self.standing else 0

    def told(self) -> dict[str, Any]:
        """What this line says of how a live run stands, as a Standing tells it."""
        before = Before(number=self.stood, hash=self._hash) if self.standing else None
        return {
            "before": before,
            "stages": len(self.stages),
            "newest": tuple(stage.told() for stage in self.stages[-2:]),
            "lasts": tuple(self.lasts),
            "rounds": self.closed_rounds,
            "rows": self.rows,
            "stage_of_row": self.stage_of_row,
            "everybody_rests": self.all_rest,
            "resting": tuple(sorted(self.resting)),
            "model": self.model,
        }

    def begin(self, opened: RunOpened, run: str, told: Standing, hash: str) -> None:
        """Begin with a live run's first decision and a Standing that counted, and their hashes.

        As it came to be is not looked at: who may write decisions is believed.
        """
        self.opened, self.run = opened, run
        self.number = self.held = told.number
        self._models = [(told.number, told.model)]
        self._go_on(told, hash)

    def _stand(self, told: Standing, hash: str) -> None:
        self._must(self.open_round is None, told, "a round is open")
        says = self.told()
        wrong = [name for name, value in says.items() if getattr(told, name) != value]
        self._must(not {"everybody_rests", "resting"} & {*wrong}, told, "not who rests")
        self._must(not wrong, told, f"not how the line stands: {', '.join(wrong)}")
        members = {each.entity: each for each in told.members}
        self._must(list(members) == sorted(members), told, "its members are not in order")
        self._must(len(members) == len(told.members), told, "tells twice of an entity")
        otherwise = self.parts.fit(members)
        self._must(not otherwise, told, otherwise)
        self._go_on(told, hash)

    def _go_on(self, told: Standing, hash: str) -> None:
        """From here on what lies before the Standing before is needed as this one tells it."""
        self.standing, self._hash = told, hash
        self.floor = told.before.number if told.before else 0
        self.parts.go_on(told.members, whole=self.whole)
        if not self.whole:
            self.held = max(self.held, self.floor)
            self._drop(told)

    def _drop(self, told: Standing) -> None:
        held = [each for each in self.decisions.values() if each.number >= self.held]
        self.decisions = {each.number: each for each in held}
        at = bisect_right(self._models, self.held, key=lambda named: named[0])
        if at > 0:
            self._models[:at] = [(self.held, self._models[at - 1][1])]
        rounds = [each.rounds for each in self.stages]
        self.stages = [Stage(index) for index in range(told.stages)]
        for index, each in enumerate(told.newest, start=told.stages - len(told.newest)):
            before = rounds[index] if index < len(rounds) else []
            own = [round for round in before if round.opened.number >= self.held]
            self.stages[index] = Stage.of(index, each, own)
        self.lasts, self.closed_rounds = list(told.lasts), told.rounds
        self.rows, self.stage_of_row, self.model = told.rows, told.stage_of_row, told.model
        self.all_rest, self.resting = told.everybody_rests, {*told.resting}
        self._seen = dict(map(_seen, told.members))

    def _roll_back(self, rolled: RolledBack) -> None:
        opened = self.open_round
        self._must(rolled.to in self.earlier, rolled, "goes back to no earlier model")
        fits = rolled.closes == (opened.number if opened else None)
        self._must(fits, rolled, "not the round that is open")
        self._must(self._follows(rolled.model), rolled, "not the next version")
        if opened is not None:
            self.stages[-1].rounds[-1].dropped = rolled
        if self.stages and self.stages[-1].closed is None:
            self.stages[-1].models.append(rolled.model)
        self.model = rolled.model

    def _grow(self, grown: HeadGrown) -> None:
        rows = dict(self.rows) | grown.rows
        self._must(self._may_grow(grown.stage), grown, "another stage is not closed")
        self._must(bool(grown.rows), grown, "no class grows")
        fresh = sorted(grown.rows.values()) == list(range(len(self.rows), len(rows)))
        self._must(fresh and not set(grown.rows) & set(self.rows), grown, "rows are not the next")
        assert self.opened is not None
        room = len(with_room(self.opened, self.rows, grown.rows))
        beyond = f"{len(grown.rows)} classes where {room} have room: {rows_in_words(self.opened)}"
        self._must(room == len(grown.rows), grown, beyond)
        self._must(self._follows(grown.model), grown, "not the next version")
        self._must(self._may_expect(grown), grown, "prototypes of others than this stage's classes")
        self.rows = rows
        self.stage_of_row = (*self.stage_of_row, *(grown.stage for _ in grown.rows))
        self.model = grown.model
        if self.live:
            self.stages[-1].grown = grown
        else:
            self.stages.append(Stage(grown.stage, grown))

    def _open(self, opened: RoundOpened) -> None:
        assert self.opened is not None
        entities = [participant.entity for participant in opened.participants]
        self._must(self.open_round is None, opened, "a round is open")
        self._must(len(set(entities)) == len(entities), opened, "an entity takes part twice")
        self._must(all(map(self.knows, entities)), opened, "an entity is not known")
        self._must(opened.base == self.model, opened, "not on the newest model")
        if not self.live and self._may_begin(opened.stage):
            self._must(opened.round == 0, opened, "a stage begins with round 0")
            self.stages.append(Stage(opened.stage))
        stage = self.stages[-1] if self.stages else None
        fits = stage and stage.closed is None and stage.index == opened.stage
        self._must(bool(fits), opened, "not the stage at hand")
        rounds = self.stages[-1].rounds
        configuration = self.opened.configuration
        most = NO_END if self.live else configuration.rounds_per_stage
        self._must(opened.round == self.stages[-1].size < most, opened, "not the next round")
        if self.live:
            self._must(len(entities) >= configuration.quorum, opened, "fewer than the quorum")
        rounds.append(Round(opened))
        self.stages[-1].base = self.stages[-1].base or opened.base
        if self.live:
            self.parts.open(opened)

    def _close(self, closed: RoundClosed) -> None:
        opened = self.open_round
        if opened is None or opened.number != closed.opened:
            raise Refused("out-of-line", f"{closed.identity}: closes no open round")
        answered = [entity for entity, _ in (*closed.counted, *closed.withheld)]
        self._must(self.live or not closed.missing, closed, "a recipe waits for everyone")
        answered += closed.missing
        everyone = sorted(participant.entity for participant in opened.participants)
        self._must(sorted(answered) == everyone, closed, "not the round's participants")
        same = (closed.stage, closed.round) == (opened.stage, opened.round)
        self._must(same, closed, "another stage or round")
        if self.live and self.opened is not None:
            enough = not closed.counted or len(closed.counted) >= self.opened.configuration.quorum
            self._must(enough, closed, "counts fewer than the quorum")
        follows = self._follows(closed.model) if closed.counted else closed.model == self.model
        self._must(follows, closed, "not the next version")
        stage = self.stages[-1]
        stage.rounds[-1].closed = closed
        stage.first = stage.first or closed
        stage.models.append(closed.model)
        self.closed_rounds += 1
        if self.live:
            self.parts.close(closed)
        self.model = closed.model

    def _end(self, end: StageClosed) -> None:
        assert self.opened is not None
        stage = self.stage
        rounds = stage.rounds if stage else []
        complete = self.live or len(rounds) == self.opened.configuration.rounds_per_stage
        fits = stage and stage.closed is None and stage.index == end.stage and complete
        self._must(bool(fits) and self.open_round is None, end, "its rounds are not over")
        own = stage.models if stage else []
        if self.live and not own:
            own = [end.last]
        self._must(
            end.last == self.model and set(end.candidates) <= set(own), end, "not its models"
        )
        self.stages[-1].closed = end
        self.lasts.append(end.last)

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

    def _may_grow(self, stage: int) -> bool:
        if not self.live:
            return self._may_begin(stage)
        newest = self.stages[-1] if self.stages else None
        fits = newest is not None and newest.index == stage
        return fits and newest.grown is None and not newest.rounds  # type: ignore[union-attr]

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


def _seen(member: Member) -> tuple[int, int]:
    """Behind which decision an entity has judged images last, and how many rounds there were."""
    judged = next((each for each in reversed(member.verdicts) if each.images), None)
    return (judged.after or 0 if judged else -1), member.seen or 0
