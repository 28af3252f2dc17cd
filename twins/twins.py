"""Many twins in one process: they share the decision lines, and each hears what concerns it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from infra.promises import Answer, Arrived, Models, NotYet, Result, Start
from learning.strategies.choice import sent_tensors
from schemas.errors import Refused
from schemas.line import Rejected
from schemas.messages import (
    Decision,
    ExemplarImage,
    Forgotten,
    ImageBatch,
    Message,
    ModelUpdate,
    RoundClosed,
    RoundOpened,
    RunOpened,
    Standing,
    StrategyKept,
    StreamEnded,
    StreamImage,
    StreamMarked,
    StreamMoved,
    TeacherChosen,
    TwinDecision,
    TwinState,
    WindowJudged,
)
from schemas.topics import Names, parted
from schemas.updates import checked_update, expected_of
from twins.scoring import Scoring
from twins.shared import Shared
from twins.twin import OfItsOwn, Twin


class Twins:
    """The role that hosts the twins of a site, or some of them."""

    name = "twins"

    def __init__(
        self, names: Names, site: str, models: Models, entities: Sequence[str] | None = None
    ) -> None:
        """`entities` are the twins that live here, by full name; None takes all of the site."""
        self._names = names
        self._site = site
        self._models = models
        self._wanted: Collection[str] | None = entities
        self._shared = Shared(names)
        self._scoring = Scoring(self._shared)
        self._twins: dict[str, Twin] = {}
        self._by_topic: dict[str, Twin] = {}
        self._stirred: set[str] = set()
        self._fetched = -1
        """Number of the last RoundClosed whose model was fetched, or need not be."""
        self._updates = names.of_site("updates", site)
        self._classes = names.of_site("classes", site)
        self._rounds = names.federation("rounds")
        self._lines = [self._rounds, names.federation("teachers"), self._classes]

    @property
    def lines(self) -> Sequence[str]:
        """Decision lines, each twin's own state, and the site's answers.

        What is in the log by then is not computed again.
        """
        return [*self._lines, *(twin.own for twin in self._twins.values()), self._updates]

    @property
    def topics(self) -> Sequence[str]:
        """Also the streams."""
        return [*self.lines, *(twin.samples for twin in self._twins.values())]

    @property
    def owns(self) -> Sequence[str]:
        """It writes the dead letters of the streams, and of what its twins should have written."""
        return list(self._by_topic)

    @property
    def over(self) -> bool:
        """The last stage is closed."""
        return self._shared.line.over

    @property
    def ahead(self) -> dict[str, int]:
        """Entity → the latest decision that its live twin's own state names, of those that were not
        read: it was read before the state was written, so it is in the log, or was lost."""
        found = ((entity, twin.ahead) for entity, twin in self._twins.items())
        return {entity: number for entity, number in found if number is not None}

    @property
    def number(self) -> int:
        """The decision that was read last; -1 before the first."""
        return self._shared.line.number

    @property
    def standing(self) -> Standing | None:
        """How a live run stood last."""
        return self._shared.line.standing

    # --- hearing -----------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        self._shared.begin(start)
        self._move_in(start.opened)
        self._shared.verdicts.again()
        self._shared.teachers.again()

    def hear(self, arrived: Arrived) -> None:
        match arrived.message:
            case ImageBatch() | StreamMarked() | StreamEnded() as sample:
                self._of_this_run(sample.run)
                twin = self._by_topic[arrived.place.topic]
                twin.hear_sample(arrived, sample)
                self._stirred.add(twin.entity)
            case TwinState() | ExemplarImage() | StrategyKept() | Forgotten() as own:
                self._hear_own(arrived, own)
            case StreamImage() | StreamMoved() as own:
                self._hear_own(arrived, own)
            case TwinDecision() as verdict:
                self._shared.verdicts.hear(self._site, verdict, arrived)
                self._stirred.add(verdict.entity)
            case TeacherChosen() as choice:
                self._shared.teachers.hear(choice, arrived)
                self._stirred |= self._twins.keys()
            case ModelUpdate() as update:
                self._note(update)
            case Decision() as decision:
                if self._shared.line.hear(decision, arrived.hash):
                    self._went_on(decision)

    def _hear_own(self, arrived: Arrived, own: OfItsOwn) -> None:
        self._of_this_run(own.run)
        twin = self._by_topic[arrived.place.topic]
        twin.hear_own(arrived, own)
        self._stirred.add(twin.entity)

    def _of_this_run(self, run: str) -> None:
        line = self._shared.line
        if line.opened is None:
            raise NotYet(lambda: line.opened is not None, "RunOpened")
        if run != line.run:
            raise Refused("out-of-line", "a message of another run")

    def _went_on(self, decision: Decision) -> None:
        self._shared.went_on(decision)
        if isinstance(decision, RunOpened):
            self._move_in(decision)
        self._shared.verdicts.again()
        self._shared.teachers.again()
        self._stirred |= self._twins.keys()

    def host(self, entities: Collection[str]) -> list[str]:
        """From now on these twins live here and no others: others have gone to live elsewhere.

        Gives the topics that are read no longer. What a twin had in work is finished, and left to
        whoever hosts it now.
        """
        self._wanted = entities
        gone = [self._twins.pop(entity) for entity in self._twins.keys() - set(entities)]
        left = [topic for twin in gone for topic in (twin.own, twin.samples)]
        for topic in left:
            del self._by_topic[topic]
        if self._shared.line.opened:
            self._move_in(self._shared.line.opened)
        return left

    def _move_in(self, opened: RunOpened) -> None:
        known = self._wanted or () if opened.configuration.live else opened.schedule.entities
        here = [e for e in known if parted(e)[0] == self._site]
        for entity in here:
            if entity not in self._twins and (self._wanted is None or entity in self._wanted):
                twin = Twin(entity, self._shared)
                self._twins[entity] = twin
                self._by_topic |= {twin.own: twin, twin.samples: twin}
                self._stirred.add(entity)

    def _note(self, update: ModelUpdate) -> None:
        """Remember that a twin's valid answer is in the log, whoever of its copies wrote it."""
        line = self._shared.line
        self._of_this_run(update.run)
        if update.opened < line.held:
            return
        opened = line.decided(update.opened)
        if opened != line.open_round or not isinstance(opened, RoundOpened):
            return
        if update.base == opened.base and self._sound(update, opened):
            self._shared.answered.add(update.entity)

    def _sound(self, update: ModelUpdate, opened: RoundOpened) -> bool:
        """Whether the aggregator will take it; what is not sound silences nobody."""
        if update.reason is not None:
            return not update.groups
        if not self._models.has(opened.base):
            return False  # it was let go: the round is closed, and we have not read that yet
        base = self._models.groups(opened.base)["model"]
        expected = expected_of(sent_tensors(self._shared.strategy, base))
        wire = self._shared.configuration.wire
        try:
            checked_update(update.groups, base, expected, opened.total_weight, wire)
        except Refused:
            return False
        return True

    # --- answering -----------------------------------------------------------------------------

    def wrote(self, message: Message) -> Callable[[], None] | None:
        """An answer need not be decoded and judged again: its worker has done so (`_sound`)."""
        if not isinstance(message, ModelUpdate):
            return None
        return partial(self._read_back, message.opened, message.entity)

    def _read_back(self, opened: int, entity: str) -> None:
        line = self._shared.line
        if line.open_round is not None and line.open_round.number == opened:
            self._shared.answered.add(entity)

    def answers(self) -> Iterator[Answer]:
        for refused in (self._shared.verdicts.refused, self._shared.teachers.refused):
            self._judge_again(refused)
            refused.clear()  # their topics' owners set them aside
        stirred, self._stirred = self._stirred, set()
        for entity in self._twins:
            if entity in stirred:
                yield from self._twins[entity].answers()
        if stirred and self._shared.line.live:
            yield from self._scoring.answers(
                twin.knows for entity, twin in self._twins.items() if entity in stirred
            )
        if stirred:
            self._fetch_ahead()

    def _fetch_ahead(self) -> None:
        """The next round begins from the model that closed the last one, as far as is known: who
        took part in that fetches it while the aggregator reads it back."""
        shared, line = self._shared, self._shared.line
        newest = line.decisions.get(line.number)
        if not isinstance(newest, RoundClosed) or newest.number <= self._fetched:
            return
        self._fetched = newest.number
        if not shared.participants.keys().isdisjoint(self._twins):
            self._models.has(newest.model)

    def _judge_again(self, refused: Rejected) -> None:
        for arrived, _ in refused:
            message = arrived.message if isinstance(arrived, Arrived) else None
            if isinstance(message, WindowJudged) and message.entity in self._twins:
                self._twins[message.entity].refused(message)

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        if id[0] == "held-out":
            yield from self._scoring.done(int(id[2]), result)
            return
        entity = str(id[1])
        if entity in self._twins:  # else it has gone to live elsewhere meanwhile
            self._stirred.add(entity)
            yield from self._twins[entity].done(id, result)

    def tells(self) -> Iterator[tuple[str, int]]:
        """How many images each twin that lives here holds of its stream."""
        return ((f"buffered {each.entity}", each.buffered) for each in self._twins.values())

    def waits(self) -> list[str]:
        if self._shared.line.opened is None:
            return ["RunOpened"]
        return [what for twin in self._twins.values() for what in twin.waits()]
