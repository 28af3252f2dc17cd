"""Fold a run's log again, and see whether it comes to the same bytes.

Decisions are made anew from what they rest on, always; sums are added again where the updates that
they counted were kept (`keep_rounds`); with `retrain` the whole run is made anew from its samples,
where those were kept (`keep_samples`). Each version of the model is compared by its hash. What was
let go meanwhile cannot be redone: of such a version only the copy in the log is read and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from aggregator.aggregator import Aggregator, Opening
from experiments.folder import Listener
from experiments.system import embedded
from infra.pieces import fetched
from infra.promises import Answer, Arrived, Place, Say, Workers
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.store.sqlite import SqliteStore
from infra.telemetry import Stopwatch
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.workers import Inline
from schemas.codec import records
from schemas.errors import DataError, Diverged, Refused
from schemas.limits import LEAST_BYTES, largest_message
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    GlobalModel,
    Groups,
    HeadGrown,
    ModelName,
    ModelUpdate,
    RolledBack,
    RoundClosed,
    RunOpened,
    StageAdded,
    TeacherChosen,
    TwinDecision,
)
from schemas.tensors import Tensors, unpacked
from schemas.topics import Names

COPY_BYTES = 16 * 1024 * 1024
NOTHING: tuple[Decision | None, str] = (None, "")


@dataclass
class Replayed:
    """What a replay found."""

    run: str
    versions: int = 0
    """Models that the run's decisions name."""
    grown: int = 0
    """Of them, drawn or grown anew."""
    summed: int = 0
    """Averaged anew from every answer of their round."""
    rolled_back: int = 0
    """Made anew of an earlier one, to which an operator went back."""
    read: int = 0
    """Only read: their updates were let go, and the copy in the log is what its hash says."""
    gone: int = 0
    """Let go themselves: no copy is left to look at."""
    decisions: int = 0
    """Decisions of the aggregator that were made anew, to the same bytes."""
    beaten: int = 0
    """Decisions that came behind another of their number, as a standby's may. Who is not sure that
    a record was written says it again; that is counted nowhere."""
    refused: int = 0
    """Decisions that do not fit the line, so that no reader takes them."""
    trained: int = 0
    """Trainings that were repeated."""
    model_sha256: str = ""
    different: list[str] = field(default_factory=list)
    """What came out otherwise, in words."""


class _Anew:
    """The models that were made anew, or read where that could not be.

    The last two are held, and those that are asked for again later.
    """

    def __init__(self, shelf: Shelf, later: Collection[ModelName]) -> None:
        self._shelf = shelf
        self._later = later
        self._made: dict[ModelName, Groups] = {}

    def take(self, name: ModelName, groups: Groups) -> None:
        """Go on from this one."""
        last = list(self._made)[-1:]
        held = {each: made for each, made in self._made.items() if each in [*last, *self._later]}
        self._made = {**held, name: groups}

    def groups(self, name: ModelName) -> Groups:
        """Raises LookupError for another one, of which the log holds no copy either."""
        return self._made[name] if name in self._made else self._shelf.groups(name)

    def has(self, name: ModelName) -> bool:
        """Only what was made: what is to be made now must not be found."""
        return name in self._made

    def at_hand(self, name: ModelName) -> bool:
        """The same."""
        return self.has(name)

    def names(self, *, at_hand: bool = False) -> dict[ModelName, int]:
        """Nothing is let go by a replay."""
        return {}

    def drop(self, name: ModelName) -> None:
        """Likewise."""


class Replay:
    """The fold of one run's log."""

    def __init__(self, transport: Transport, names: Names) -> None:
        """Read all decisions. Raises DataError for a log in which no run was opened."""
        self._transport = transport
        self._names = names
        self._line = RoundsLine()
        self._decisions: list[tuple[Decision, str]] = []
        self._beaten = self._refused = 0
        self._taken: dict[int, str] = {}
        self._read([names.federation("rounds")], self._decided, LEAST_BYTES)
        if self._line.opened is None:
            raise DataError(
                f"the log holds no run {names.run}: it was not opened yet, or this is a broker from"
                " which its topics were taken away, or another one"
            )
        self.opened: RunOpened = self._line.opened
        self._most = largest_message(self.opened.configuration, self.opened.data)
        self._sites = self.opened.all_sites
        self._shelf = Shelf(transport, names.federation("models"), self._most)
        self._answers: dict[int, dict[str, list[tuple[str, Place, bool]]]] = {}
        """Number of a RoundOpened → entity → hash and place of each of its answers, and whether
        that came without content."""

    def fold(self) -> Replayed:
        """Make every decision anew, and compare."""
        found = Replayed(self._names.run, beaten=self._beaten, refused=self._refused)
        decided = [decision for decision, _ in self._decisions]
        models = _Anew(self._shelf, {each.to for each in decided if isinstance(each, RolledBack)})
        opened = self.opened
        opening = Opening(opened.configuration, opened.data, opened.schedule, opened.sites)
        aggregator = Aggregator(self._names, self._sites, opening, models, whole=True)
        self._listen(aggregator)
        rounds = Place(self._names.federation("rounds"), (0,))
        with suppress(Diverged):  # as the run did
            for decision, hash in self._decisions:
                self._again(aggregator, decision, models, found)
                aggregator.hear(Arrived(rounds, hash, decision))
        assert self._line.model is not None
        found.model_sha256 = self._line.model.sha256
        return found

    def retrain(self, workers: Workers, found: Replayed) -> None:
        """Make the run anew from its samples.

        Raises DataError where they were let go, and for a live run, in which time had its say.
        """
        if self.opened.configuration.live:
            raise DataError(f"{self._names.run} is a live run: its rounds cannot be trained again")
        opening = Opening(self.opened.configuration, self.opened.data, self.opened.schedule)
        with closing(Log()) as log, closing(SqliteStore()) as store:
            for entity in self.opened.schedule.entities:
                self._copy(self._names.of_entity("samples", entity), log)
            watch = Stopwatch()
            run = embedded(
                opening, None, log, store, workers, run=self._names.run,
                around=lambda same: replace(same, stopwatch=watch),
            )  # fmt: skip
            run.system.run()
            for added in [each for each, _ in self._decisions if isinstance(each, StageAdded)]:
                log.append(self._names.federation("rounds"), records(added, source="replay")[1])
                run.system.step()
                run.system.run()
            found.trained = watch.calls["learn"]
            anew = Replay(log, self._names)._decisions
        for (before, hash), (after, other) in zip_longest(self._decisions, anew, fillvalue=NOTHING):
            if hash != other:
                made = f"{after.kind()}" if after else "nothing"
                had = f"decision {before.number}: {before.kind()}" if before else "nothing more"
                found.different.append(f"trained again: {had} came out as {made}")

    def _copy(self, topic: str, log: Log) -> None:
        if self._transport.first(topic) > 0:
            raise DataError(
                f"{topic} was trimmed: only a run with keep_samples=true can be trained again"
            )
        place = 0
        while place < self._transport.end(topic):
            for stored in self._transport.read(topic, place, COPY_BYTES):
                log.append(topic, [stored.record])
                place = stored.offset + 1

    # --- one decision ---------------------------------------------------------------------------

    def _again(
        self, aggregator: Aggregator, decision: Decision, models: _Anew, found: Replayed
    ) -> None:
        if isinstance(decision, StageAdded):
            return  # an operator's
        if isinstance(decision, RoundClosed) and not self._fill(aggregator, decision):
            if not models.has(decision.model):
                found.versions += 1
                self._take_copy(decision.model, models, found)
            return
        try:
            made = aggregator.anew(decision)
        except LookupError:
            if isinstance(decision, RolledBack):  # to a model that was let go since
                found.versions += 1
                self._take_copy(_model_of(decision), models, found)
                return
            made = None
        except ValueError:  # what it rests on says something else than it did
            made = None
        if made is None or made[1] != decision:
            found.different.append(f"decision {decision.number}: {decision.kind()}")
            self._take_copy(_model_of(decision), models, found)
            return
        found.decisions += 1
        self._note_model(made[0], decision, models, found)

    def _note_model(
        self, content: Sequence[Answer], decision: Decision, models: _Anew, found: Replayed
    ) -> None:
        """The decision names a new model, which was made anew: go on from that."""
        for said in content:
            if isinstance(said, Say) and isinstance(said.message, GlobalModel):
                name = _model_of(decision)
                assert name is not None
                groups = said.message.groups  # as it would have travelled
                models.take(name, {group: _plain(tensors) for group, tensors in groups.items()})
                found.versions += 1
                found.grown += isinstance(decision, RunOpened | HeadGrown)
                found.summed += isinstance(decision, RoundClosed)
                found.rolled_back += isinstance(decision, RolledBack)

    def _take_copy(self, name: ModelName | None, models: _Anew, found: Replayed) -> None:
        """Go on from the copy in the log, if one is left."""
        if name is None or models.has(name):
            return
        try:
            models.take(name, self._shelf.groups(name))
            found.read += 1
        except LookupError:
            found.gone += 1

    def _fill(self, aggregator: Aggregator, closed: RoundClosed) -> bool:
        """Add every answer that a round counted; says whether they are all there."""
        answers = self._answers.get(closed.opened, {})
        places = [_place(answers.get(entity, []), hash) for entity, hash in closed.counted]
        if closed.counted or not self.opened.configuration.live:  # else nothing is summed
            places += [_silent(answers.get(entity, [])) for entity, _ in closed.withheld]
        there = [each for each in places if each is not None]
        if len(there) < len(places):
            return False
        try:
            for hash, place in there:
                update = fetched(self._transport, place, self._most)
                assert isinstance(update, ModelUpdate)
                aggregator.hear(Arrived(place, hash, update))
        except LookupError:
            return False
        return True

    # --- reading --------------------------------------------------------------------------------

    def _decided(self, arrived: Arrived) -> None:
        message = arrived.message
        if not isinstance(message, Decision):
            return
        try:
            counts = self._line.hear(message, arrived.hash)
        except Refused:
            self._refused += 1
            raise
        if counts:
            self._decisions.append((message, arrived.hash))
            self._taken[message.number] = arrived.hash
        elif message.number not in self._taken:
            self._refused += 1  # it leaves numbers out
        elif self._taken[message.number] != arrived.hash:
            self._beaten += 1

    def _listen(self, aggregator: Aggregator) -> None:
        """Everything that decisions rest on: verdicts, choices of teachers, and answers."""
        waiting: list[Arrived] = []

        def hear(arrived: Arrived) -> None:
            match arrived.message:
                case ModelUpdate() as update:
                    of_round = self._answers.setdefault(update.opened, {})
                    answer = arrived.hash, arrived.place, update.reason is not None
                    of_round.setdefault(update.entity, []).append(answer)
                case TwinDecision() | TeacherChosen():
                    waiting.append(arrived)

        names = self._names
        topics = [names.of_site("classes", site) for site in self._sites]
        topics += [names.of_site("updates", site) for site in self._sites]
        self._read([*topics, names.federation("teachers")], hear, self._most)
        for arrived in waiting:
            aggregator.hear(arrived)

    def _read(
        self, topics: Sequence[str], heard: Callable[[Arrived], None], max_bytes: int
    ) -> None:
        shelf = Shelf(self._transport, self._names.federation("models"), max_bytes)
        around = Surroundings(self._transport, shelf, max_bytes)
        reader = System([Listener(heard, topics)], around, Inline({}))
        while any(session.behind for session in reader.sessions):
            reader.step()


def _model_of(decision: Decision) -> ModelName | None:
    """The model that a decision brings, if it brings one."""
    kinds = RunOpened | HeadGrown | RoundClosed | RolledBack
    return decision.model if isinstance(decision, kinds) else None


def _place(answers: Sequence[tuple[str, Place, bool]], hash: str) -> tuple[str, Place] | None:
    """Where the answer of this hash lies."""
    return next(((told, place) for told, place, _ in answers if told == hash), None)


def _silent(answers: Sequence[tuple[str, Place, bool]]) -> tuple[str, Place] | None:
    """Where an answer without content lies."""
    return next(((told, place) for told, place, silent in answers if silent), None)


def _plain(tensors: Tensors) -> Tensors:
    return {name: unpacked(tensor) for name, tensor in tensors.items()}
