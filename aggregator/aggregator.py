"""The aggregator: opens and closes rounds, averages what twins learned, and grows the head.

It acts only on what it has read back. What it would write is a function of the decisions and of the
verdicts, teachers and updates that they wait for, so a second aggregator beside it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from aggregator.averaging import numbers_of
from aggregator.beside import beside
from aggregator.live import (
    ClosesRound,
    ClosesStage,
    Grows,
    Live,
    OpensRound,
    OpensStage,
    Stands,
    Step,
    Waits,
)
from aggregator.rollback import rolled_back
from aggregator.rounds import RoundSums, members_of, participants_of, prototypes_of, rate_of
from aggregator.standing import is_due, kept_models, newest_models, reached, standing
from infra.promises import (
    Answer,
    Arrived,
    Forget,
    Models,
    NotYet,
    Place,
    Result,
    Say,
    SetAside,
    Start,
    Trim,
)
from learning.shapes import first_model, grown
from learning.strategies.choice import chosen
from learning.strategies.strategy import Strategy
from schemas.codec import pack
from schemas.configuration import Configuration
from schemas.errors import Diverged, Refused, RunFailed
from schemas.limits import rows_in_words, with_room
from schemas.line import RoundsLine
from schemas.messages import (
    DataFacts,
    Decision,
    GlobalModel,
    Groups,
    HeadGrown,
    ModelName,
    ModelUpdate,
    Participant,
    RolledBack,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageClosed,
    StageOpened,
    Standing,
    TeacherChosen,
    TwinDecision,
)
from schemas.schedule import Schedule, sorted_uids
from schemas.seeds import generator
from schemas.stages import Stage
from schemas.teachers import TeachersLine
from schemas.tensors import decoded, encoded, groups_sha256, specs
from schemas.topics import Names, parted
from schemas.updates import NOTHING_TO_TRAIN_ON
from schemas.verdicts import VerdictLines


@dataclass(frozen=True)
class Opening:
    """What a run is opened with."""

    configuration: Configuration
    data: DataFacts
    schedule: Schedule
    sites: tuple[str, ...] = ()
    """Of a live run."""

    @property
    def all_sites(self) -> list[str]:
        """Every site whose entities may take part."""
        return sorted(self.sites or {parted(each)[0] for each in self.schedule.entities})


class Aggregator:
    """The role that decides in `rounds` (docs/method.md 1.4, 2.2, 3.5)."""

    name = "aggregator"

    def __init__(
        self,
        names: Names,
        sites: Sequence[str],
        opening: Opening | None,
        models: Models,
        *,
        whole: bool = False,
    ):
        """`opening` is None where the run was opened before and only goes on.

        With `whole` nothing of a live run's decisions is let go, so that each can be made `anew`.
        """
        self._names = names
        self._opening = opening
        self._models = models
        self.line = RoundsLine(whole=whole)
        self._teachers = TeachersLine(self.line)
        self._verdicts = VerdictLines(self.line)
        self._live = Live(self.line, self._verdicts)
        self._sums: RoundSums | None = None
        self._stirred = True
        """Whether anything came since it last answered."""
        self._said = -1
        self._tidied = -1
        self._closed: list[int] = []
        """Numbers of the RoundOpened whose rounds are closed."""
        self._first_update: dict[str, dict[int, int]] = {}
        """Topic → number of a RoundOpened → where its answers begin."""
        self._rounds = names.federation("rounds")
        self._models_topic = names.federation("models")
        self._classes = {names.of_site("classes", site): site for site in sites}
        self._updates = {names.of_site("updates", site): site for site in sites}
        self.lines = (self._rounds, names.federation("teachers"), *self._classes)
        self.topics = (*self.lines, *self._updates)
        self.owns = (self._rounds, *self._classes, *self._updates)

    @property
    def over(self) -> bool:
        """The last stage is closed."""
        return self.line.over

    @property
    def decided(self) -> int:
        """Number of the newest decision in `rounds`."""
        return self.line.number

    @property
    def can_decide(self) -> bool:
        """Whether nobody has to say anything before the next decision."""
        return not self._wait_for_others()

    # --- hearing ----------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        self.line.begin(start.opened, start.run, start.standing, start.hash)
        self._verdicts.again()
        self._teachers.again()

    def hear(self, arrived: Arrived) -> None:
        self._stirred = True
        match arrived.message:
            case ModelUpdate() as update:
                self._count(arrived, update)
            case TeacherChosen() as choice:
                self._teachers.hear(choice, arrived)
            case TwinDecision() as verdict:
                self._verdicts.hear(self._classes[arrived.place.topic], verdict, arrived)
            case Decision() as decision:
                if self.line.hear(decision, arrived.hash):
                    self._went_on(decision)

    def _went_on(self, decision: Decision) -> None:
        self._verdicts.again()
        self._teachers.again()
        if isinstance(decision, RoundClosed):
            self._end(decision.opened)
            if not self.line.live:
                self._must_learn()
        if isinstance(decision, RolledBack) and decision.closes is not None:
            self._end(decision.closes)

    def _end(self, opened: int) -> None:
        """A round is over."""
        self._sums = None
        kept = self._configuration.keep_rounds
        if kept != "all":
            self._closed = [*self._closed, opened][-kept:]

    def _count(self, arrived: Arrived, update: ModelUpdate) -> None:
        """Take an update into the open round's sums, if it answers that."""
        line = self.line
        site = self._updates[arrived.place.topic]
        if parted(update.entity)[0] != site:
            raise Refused("unknown-entity", f"{update.entity} does not belong to site {site}")
        if line.opened is None:
            raise NotYet(lambda: line.opened is not None, "RunOpened")
        if update.run != line.run:
            raise Refused("out-of-line", f"{update.identity} is of another run")
        if update.opened < line.held:
            self._note_place(arrived.place, update.opened)
            return  # whether it counted is not held any more
        opened = line.decided(update.opened)
        if not isinstance(opened, RoundOpened):
            raise Refused("closed-round", f"decision {update.opened} opens no round")
        self._note_place(arrived.place, update.opened)
        if opened != line.open_round:
            self._late(update, arrived.hash, opened)
        elif self._models.has(opened.base):
            self._open_sums(opened).add(update, arrived.hash)
        else:  # it was let go: the round is closed, and we have not read that yet
            raise NotYet(
                lambda: line.open_round != opened or self._models.has(opened.base),
                f"the end of decision {opened.number}, or its base",
            )

    def _note_place(self, place: Place, opened: int) -> None:
        """Where a round's updates begin. What had to wait is heard behind what lies behind it."""
        if self._configuration.keep_rounds == "all":
            return
        first = self._first_update.setdefault(place.topic, {})
        first[opened] = min(first.get(opened, place.offsets[0]), *place.offsets)

    def _late(self, update: ModelUpdate, hash: str, opened: RoundOpened) -> None:
        """An answer that was counted comes again in silence; any other is too late."""
        for stage in self.line.stages:
            for each in stage.rounds:
                if each.opened.number != opened.number:
                    continue
                if each.dropped and update.entity in {part.entity for part in opened.participants}:
                    return  # it may have come in time: an operator has ended the round
                if each.closed is not None:
                    answered = {*each.closed.counted}
                    withheld = {entity for entity, _ in each.closed.withheld}
                    if (update.entity, hash) in answered or update.entity in withheld:
                        return
        raise Refused("closed-round", f"round {opened.stage}.{opened.round} is closed")

    def _open_sums(self, opened: RoundOpened) -> RoundSums:
        if self._sums is None or self._sums.opened != opened:
            self._sums = RoundSums(
                opened, self._models.groups(opened.base), self._strategy, self._configuration.wire
            )
        return self._sums

    def _must_learn(self) -> None:
        """Two rounds in a row in which every answer came without content end a recipe."""
        closed = [each.closed for stage in self.line.stages for each in stage.rounds if each.closed]
        if len(closed) < 2 or any(each.counted for each in closed[-2:]):
            return
        withheld = [each for round in reversed(closed[-2:]) for each in round.withheld]
        tried = [(entity, why) for entity, why in withheld if why != NOTHING_TO_TRAIN_ON]
        where = f"stage {closed[-1].stage}, round {closed[-1].round}"
        if not tried:
            raise RunFailed(self._nothing_to_train_on(where))
        opened = self.line.decisions[closed[-1].opened]
        assert isinstance(opened, RoundOpened)
        raise Diverged(
            f"diverged: {where}, learning rate {opened.learning_rate:g}: nobody's update could be"
            f" counted, twice in a row ({tried[0][0]}: {tried[0][1]}). Take a smaller learning_rate"
        )

    def _nothing_to_train_on(self, where: str) -> str:
        """Another cause than a rate that is too large, and another remedy."""
        configuration = self._configuration
        most = configuration.images_per_class or "not limited"
        return (
            f"nothing to train on: {where}: {NOTHING_TO_TRAIN_ON} for any participant, twice in a"
            f" row. {len(self.line.rows)} classes were announced; a twin announces one of which it"
            f" has seen n_lab ({configuration.n_lab}) images, and images_per_class is {most}."
            " Take a smaller n_lab, more images_per_class, or more clients_per_round"
        )

    def tick(self, at: float) -> None:
        """It is so late: in a live run a deadline may have passed."""
        if self.line.live:
            self._live.tick(at)
            self._stirred = True

    # --- answering -----------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        if not self._stirred:
            return
        self._stirred = self._lacks_model  # it may come without being heard
        yield from self._set_aside()
        if self._said <= self.line.number and not self._wait_for_others():
            decided = self.decide()
            if decided is not None:
                content, decision = decided
                self._said = decision.number
                yield from content
                yield Say(self._rounds, decision)
        yield from self._trim_updates()
        yield from self._tidy_models()

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """It gives no tasks."""
        yield from ()

    def tells(self) -> Iterator[tuple[str, int]]:
        """Who has answered which RoundOpened, of the round that is open."""
        if self._sums is not None and self._sums.opened == self.line.open_round:
            number = self._sums.opened.number
            yield from ((f"answered {entity}", number) for entity in self._sums.answered)

    def waits(self) -> list[str]:
        return [what for what in [self._wait_for_others(), self._without_row()] if what]

    def _wait_for_others(self) -> str:
        """What others have to say before the next decision, in words; empty when it can be made."""
        line, stage = self.line, self.line.stage
        if line.opened is None:
            return "" if self._opening else "RunOpened"
        if line.over:
            return "an injection"
        if line.model and self._lacks_model:
            return f"version {line.model.version} of the model, which is not in the log"
        if line.live:
            step = self._step()
            return step.what if isinstance(step, Waits) else ""
        if opened := line.open_round:
            missing = self._open_sums(opened).missing
            return f"updates of round {opened.stage}.{opened.round} by {_names(missing)}" * bool(
                missing
            )
        begun = stage is not None and stage.closed is None
        return self._wait_for_stage(len(line.stages) - begun)

    @property
    def _lacks_model(self) -> bool:
        return self.line.model is not None and not self._models.has(self.line.model)

    def _wait_for_stage(self, t: int) -> str:
        """What a stage's rounds rest on; also of one that another aggregator has begun."""
        silent = self._silent(t)
        if silent:
            return f"verdicts of stage {t} by {_names(self._with_reasons(silent))}"
        return self._wait_for_teacher(t)

    def _wait_for_found(self, t: int) -> str:
        """The verdicts with which a live stage began, in words; empty when they were read."""
        begun = self.line.stages[t].opened if t < len(self.line.stages) else None
        silent = (
            [e for e, moment in begun.found if self._verdicts.judged(e) < moment] if begun else []
        )
        return f"what {_names(silent)} found for stage {t}" if silent else ""

    def _wait_to_stand(self) -> str:
        """The verdicts with which stages began, that a Standing is to tell of, in words."""
        parts, judged = self.line.parts, self._verdicts.judged
        found = {entity: parts.of(entity).newest for entity in parts.members}
        silent = [e for e, taken in found.items() if taken and judged(e) < taken.moment]
        return f"verdicts of {_names(silent)}, with which stages began" if silent else ""

    def _with_reasons(self, silent: Sequence[str]) -> list[str]:
        """The entities; first those whose line a later program's decision has stopped, and why."""
        stopped = [(entity, self._verdicts.line(entity).stopped) for entity in silent]
        why = [f"{entity} (its line stops at {by.detail})" for entity, by in stopped if by]
        return [*why, *(entity for entity, by in stopped if not by)]

    def _wait_for_teacher(self, t: int) -> str:
        """What the next round of a stage is taught by, if it has one to come."""
        begun = self.line.stages[t].size if t < len(self.line.stages) else 0
        round = min(begun, self._configuration.rounds_per_stage - 1)
        if t == 0 or self._teachers.at(t, round):
            return ""
        slotted = self._configuration.slotted
        return f"the slots of round {t}.{round}" if slotted else f"the teacher of stage {t}"

    def _silent(self, t: int) -> list[str]:
        """The entities whose verdict on this stage, or on one before, has not been read."""
        marked = ((stage, e) for stage in range(t + 1) for e in self.line.marked(stage))
        return list(dict.fromkeys(e for stage, e in marked if self._verdicts.judged(e) < stage))

    def decide(self) -> tuple[list[Answer], Decision] | None:
        """The next decision, behind the content that it names; what it rests on has to be there."""
        line, stage = self.line, self.line.stage
        if line.opened is None:
            return self._open_run()
        if line.live:
            return self._go_on(self._step())
        if line.open_round:
            return self._close_round()
        if stage is None or stage.closed is not None:
            return self._begin_stage(len(line.stages))
        if len(stage.rounds) < self._configuration.rounds_per_stage:
            t, round = stage.index, len(stage.rounds)
            return [], self._round(t, round, participants_of(line, self._verdicts, t, round))
        return [], self._close_stage(stage)

    def anew(self, decision: Decision) -> tuple[list[Answer], Decision] | None:
        """The decision that was taken next, made once more from what it rests on.

        Raises LookupError for a rollback to a model that was let go since, and for a Standing that
        tells of more than there is.

        What time or people have chosen in a live run is taken from it, and the rest follows.
        """
        stage = self.line.stage
        if isinstance(decision, RolledBack):
            groups, rolled = rolled_back(self.line, decision.to, self._models.groups(decision.to))
            return self._publish(groups, rolled.model), rolled
        if isinstance(decision, Standing):
            chosen = self._teachers.chosen[: len(decision.teachers)]
            upto = {each.entity: each.number for each in decision.members}
            return [], standing(self.line, self._verdicts, chosen, upto)
        if not self.line.live or stage is None:
            return (
                self.decide() if self.line.opened is None or not self.line.live else ([], decision)
            )
        match decision:
            case HeadGrown():
                return self._grow(stage.index, self._fresh(stage.index))
            case RoundOpened(participants=participants):
                return [], self._round(stage.index, stage.size, participants)
            case RoundClosed(counted=counted, missing=missing) if counted:
                return self._close_round(missing)
            case StageClosed():
                return [], self._close_stage(stage)
        return [], decision

    def _step(self) -> Step:
        """What comes next in a live run."""
        line, stage = self.line, self.line.stage
        if opened := line.open_round:
            return self._live.closes(self._open_sums(opened).missing)
        if is_due(line):
            what = self._wait_to_stand()
            return Waits(what) if what else Stands()
        if line.all_rest:
            return Waits("somebody to end the pause")
        begun = stage is not None and stage.closed is None
        t = len(line.stages) - begun
        if what := self._wait_for_found(t) or self._wait_for_teacher(t):
            return Waits(what)  # also of a stage that another aggregator has begun
        if stage is None or not begun:
            return self._live.begins()
        if not stage.size and stage.grown is None and self._fresh(stage.index):
            return Grows()
        return self._live.opens(stage)

    def _go_on(self, step: Step) -> tuple[list[Answer], Decision] | None:
        """Decide that."""
        line, stage = self.line, self.line.stage
        match step:
            case OpensStage(found):
                number, t = line.number + 1, len(line.stages)
                return [], StageOpened(run=line.run, number=number, stage=t, found=found)
            case Grows() if stage:
                return self._grow(stage.index, self._fresh(stage.index))
            case OpensRound(participants) if stage:
                return [], self._round(stage.index, stage.size, participants)
            case ClosesRound(missing):
                return self._close_round(missing)
            case ClosesStage() if stage:
                return [], self._close_stage(stage)
            case Stands():
                upto, chosen = reached(self._verdicts), self._teachers.chosen
                return [], standing(line, self._verdicts, chosen, upto)
        return None

    def _open_run(self) -> tuple[list[Answer], Decision]:
        assert self._opening is not None
        configuration, data = self._opening.configuration, self._opening.data
        drawn = first_model(
            data.channels, configuration.width, generator(configuration.seed, "init_model")
        )
        groups = {"model": decoded(drawn, configuration.wire)}
        opened = RunOpened(
            run="",
            number=0,
            configuration=configuration,
            data=data,
            schedule=self._opening.schedule,
            sites=self._opening.sites,
            model=_named(0, groups),
        )
        return self._publish(groups, opened.model, run=pack(opened).hash), opened

    def _begin_stage(self, t: int) -> tuple[list[Answer], Decision]:
        fresh = self._fresh(t)
        if fresh:
            return self._grow(t, fresh)
        return [], self._round(t, 0, participants_of(self.line, self._verdicts, t, 0))

    def _fresh(self, t: int) -> tuple[str, ...]:
        """Classes that were found for a stage and have no row yet: as many as there is room for."""
        assert self.line.opened is not None
        found = self._found(t)
        return tuple(
            uid
            for uid in with_room(self.line.opened, self.line.rows, found)
            if uid not in self.line.rows
        )

    def _found(self, t: int) -> set[str]:
        """Classes that were found for a stage."""
        verdicts = (self._verdicts.verdict(entity, t) for entity in self.line.marked(t))
        return {uid for verdict in verdicts if verdict for uid in verdict.classes}

    def _without_row(self) -> str:
        """Classes of the newest stage for which there was no room, in words; empty for none."""
        opened, stage = self.line.opened, self.line.stage
        if opened is None or stage is None:
            return ""
        found = self._found(stage.index)
        left = sorted_uids(found - {*with_room(opened, self.line.rows, found)})
        return f"room for {_names(left)}: {rows_in_words(opened)}" if left else ""

    def _grow(self, t: int, fresh: Sequence[str]) -> tuple[list[Answer], Decision]:
        assert self.line.model is not None
        configuration = self._configuration
        before = self._models.groups(self.line.model)
        chance = generator(configuration.seed, "init_rows", stage=t)
        weights = grown(before["model"], len(fresh), chance, configuration.head_init)
        groups = {**before, "model": decoded(weights, configuration.wire)}
        rows = {uid: len(self.line.rows) + i for i, uid in enumerate(fresh)}
        decision = HeadGrown(
            run=self.line.run,
            number=self.line.number + 1,
            stage=t,
            rows=rows,
            prototypes=prototypes_of(self.line, self._verdicts, rows, t, self._strategy),
            model=_named(self.line.model.version + 1, groups),
        )
        return self._publish(groups, decision.model), decision

    def _round(self, t: int, round: int, participants: tuple[Participant, ...]) -> RoundOpened:
        assert self.line.model is not None
        configuration = self._configuration
        choice = self._teachers.at(t, round) if self._strategy.teacher != "none" else None
        return RoundOpened(
            run=self.line.run,
            number=self.line.number + 1,
            stage=t,
            round=round,
            base=self.line.model,
            teacher=choice.teacher if choice and choice.slots is None else None,
            slots=choice.slots if choice else None,
            learning_rate=rate_of(configuration, round),
            participants=participants,
        )

    def _close_round(self, missing: tuple[str, ...] = ()) -> tuple[list[Answer], Decision]:
        opened = self.line.open_round
        assert opened is not None
        sums = self._open_sums(opened)
        counted, withheld = sums.counted, sums.withheld
        if self.line.live and len(counted) < self._configuration.quorum:
            few = f"fewer than the quorum of {self._configuration.quorum} answered"
            counted, withheld = {}, {**withheld, **dict.fromkeys(counted, few)}
        before = self._models.groups(opened.base)
        members = len(members_of(self.line, opened.stage))
        groups = sums.next_groups(before, members) if counted else {}
        sent = beside(partial(self._sent, groups), numbers_of(specs(groups.get("model", {}))))
        model = _named(opened.base.version + 1, groups) if groups else opened.base
        closed = RoundClosed(
            run=self.line.run,
            number=self.line.number + 1,
            opened=opened.number,
            stage=opened.stage,
            round=opened.round,
            counted=tuple(sorted(counted.items())),
            withheld=tuple(sorted(withheld.items())),
            missing=missing,
            model=model,
        )
        return (self._publish(sent.result(), model) if groups else []), closed

    def _sent(self, groups: Groups) -> Groups:
        """The groups of a model as they will travel: encoded while their hash is taken."""
        if not groups:
            return groups
        return {**groups, "model": encoded(groups["model"], self._configuration.wire)}

    def _close_stage(self, stage: Stage) -> StageClosed:
        assert self.line.model is not None
        models = newest_models(self.line, stage)
        if not models:  # of a live run: nobody could train, and what was found since must grow
            models = [self.line.model]
        scored = models[self._configuration.warm_up_of(len(models)) :]
        return StageClosed(
            run=self.line.run,
            number=self.line.number + 1,
            stage=stage.index,
            candidates=tuple(dict.fromkeys(scored)),
            last=self.line.model,
        )

    def _publish(self, groups: Groups, name: ModelName, run: str = "") -> list[Answer]:
        """The content that a decision names, unless a sound copy is in the log already."""
        if self._models.at_hand(name):
            return []
        message = GlobalModel(run=run or self.line.run, version=name.version, groups=groups)
        return [Say(self._models_topic, message, name.key)]

    # --- forgetting ----------------------------------------------------------------------------

    def _set_aside(self) -> Iterator[Answer]:
        for refused in (self._verdicts.refused, self._teachers.refused):
            while refused:
                arrived, reason = refused.pop(0)
                assert isinstance(arrived, Arrived)
                yield SetAside(arrived, reason)

    def _tidy_models(self) -> Iterator[Answer]:
        """Once each round was opened: let go the models that no decision needs any more."""
        opened = self.line.open_round
        if opened is None or opened.number <= self._tidied:
            return
        if opened.stage and not self._teachers.of(opened.stage):
            return  # another aggregator was quicker; which models taught is still to be read
        self._tidied = opened.number
        kept = kept_models(self.line, self._teachers.chosen)
        for name, pieces in self._models.names(at_hand=True).items():
            if name not in kept and name.version <= opened.base.version:
                self._models.drop(name)
                yield Forget(self._models_topic, name.key, pieces)

    def _trim_updates(self) -> Iterator[Answer]:
        """Of closed rounds only the newest `keep_rounds` stay, beside the open one.

        A topic goes below the first answer to the oldest of them: that round was closed before
        anybody said a piece of an answer to the open one. Who answered none of them keeps what is
        there, for nothing tells where the open round begins.
        """
        if not self._closed or self._configuration.keep_rounds == "all":
            return
        kept = self._closed[-self._configuration.keep_rounds :]
        for topic, first in self._first_update.items():
            places = [first[number] for number in kept if number in first]
            gone = [place for number, place in first.items() if number < kept[0]]
            if places and gone:
                self._first_update[topic] = {n: at for n, at in first.items() if n >= kept[0]}
                if min(gone) < min(places):
                    yield Trim(topic, min(places))

    @property
    def _configuration(self) -> Configuration:
        assert self.line.opened is not None
        return self.line.opened.configuration

    @property
    def _strategy(self) -> Strategy:
        configuration = self._configuration
        return chosen(configuration.strategy, configuration.switches, configuration.teacher)


def _named(version: int, groups: Groups) -> ModelName:
    return ModelName(version=version, sha256=groups_sha256(groups))


def _names(entities: Sequence[str]) -> str:
    shown = ", ".join(entities[:3])
    return shown + (f" and {len(entities) - 3} more" if len(entities) > 3 else "")
