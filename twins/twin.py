"""One entity's digital twin: it follows the stream, notices new classes, remembers and trains.

Everything that it does follows from sets: the decisions read so far, its own line, its stream and
its diary. So it may hear them in any order, and a second copy elsewhere comes to the same bytes.
Here is what it hears and when it answers; what it does is told in five stories, each in a file:
judging, memory, training, prototypes, and what becomes of a stream of which something is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from infra.promises import Answer, Arrived, Do, Library, NotYet, Result, Say, Task
from schemas.errors import Refused
from schemas.images import check_batch, check_images
from schemas.messages import (
    EntityJoined,
    EntityLeft,
    ExemplarImage,
    Forgotten,
    ImageBatch,
    StrategyKept,
    StreamEnded,
    StreamImage,
    StreamMarked,
    StreamMoved,
    TwinState,
    WindowJudged,
)
from twins.history import Change
from twins.judging import Judging
from twins.knowledge import Knowledge
from twins.memory import Memory
from twins.moving import Moving
from twins.prototypes import Prototypes
from twins.shared import Shared
from twins.training import Training

OfItsOwn = TwinState | ExemplarImage | StrategyKept | Forgotten | StreamImage | StreamMoved


class Twin:
    """The fold of one entity (docs/method.md 3 to 6)."""

    __slots__ = (
        "_begun", "_judging", "_lacked", "_lacks", "_memory", "_moving", "_named", "_passed_over",
        "_prototypes", "_told", "_training", "entity", "knows", "own", "samples",
    )  # fmt: skip

    def __init__(self, entity: str, shared: Shared) -> None:
        self.entity = entity
        self.knows = Knowledge(entity, shared)
        self.samples = self.knows.samples
        """The topic of its stream."""
        self.own = self.knows.diary.topic
        """The topic of its diary."""
        self._told = -1
        """Number of the last EntityJoined or EntityLeft that it said."""
        self._named = -1
        """Number of the latest decision that a state of its own names."""
        self._lacks: NotYet | None = None
        """What the last of them that had to wait rests on besides."""
        self._lacked = ""
        """The same in words. A wait bears its entity's name besides: nothing else goes by it."""
        self._begun: dict[tuple[str | int, ...], int] = {}
        """Work that was prepared, and how much had been forgotten by then."""
        self._passed_over: set[tuple[str | int, ...]] = set()
        """Work whose images were gone when it was prepared: a copy has moved them, perhaps."""
        self._moving = Moving(self.knows)
        self._judging = Judging(self.knows)
        self._memory = Memory(self.knows)
        self._training = Training(self.knows)
        self._prototypes = Prototypes(self.knows)

    # --- hearing ---------------------------------------------------------------------------------

    def hear_sample(
        self, arrived: Arrived, message: ImageBatch | StreamMarked | StreamEnded
    ) -> None:
        """Take images or a mark. Raises Refused for a batch that its reader cannot use."""
        offset, stream = arrived.place.offsets[0], self.knows.stream
        stream.read_to = max(stream.read_to, offset + 1)
        if isinstance(message, StreamMarked):
            stream.mark(message.source, message.count, message.stage, offset)
            return
        if isinstance(message, StreamEnded):
            stream.end(message.source, message.count, offset)
            return
        check_batch(message, len(arrived.place.offsets), self.knows.shared.data)
        stream.take(message, offset, live=self.knows.shared.line.live)

    def hear_own(self, arrived: Arrived, message: OfItsOwn) -> None:
        """Take what this twin, or a copy of it, wrote about itself, or what it is to forget.

        Raises Refused for what cannot be its own, and NotYet for a state that names a decision
        which was not read yet.
        """
        if message.entity != self.entity:
            raise Refused("unknown-entity", f"{message.entity} writes for {self.entity}")
        match message:
            case ExemplarImage():
                self.knows.diary.note_exemplar(message, arrived.place)
            case StrategyKept():
                self.knows.diary.note_kept(message, arrived.place)
            case TwinState():
                self._check(message)
                self._adopt(message, arrived)
            case Forgotten() | StreamImage() | StreamMoved():
                self._forget(message, arrived)

    def _forget(self, message: Forgotten | StreamImage | StreamMoved, arrived: Arrived) -> None:
        """Something is forgotten, and what is not lies elsewhere. Raises Refused in a recipe."""
        if not self.knows.shared.line.live:
            raise Refused("out-of-line", "a recipe's stages wait for every image of their schedule")
        match message:
            case Forgotten():
                self._moving.hear_request(message)
            case StreamImage():
                check_images(message.groups, 1, self.knows.shared.data)
                self._moving.hear_image(message, arrived)
            case StreamMoved():
                self._moving.hear_moved(message)
                passed_over, self._passed_over = self._passed_over, set()
                for id in passed_over:
                    self._again(id)

    def _check(self, state: TwinState) -> None:
        """Whether the decision that a state names made of this twin what the state says."""
        line, knows = self.knows.shared.line, self.knows
        if line.live:
            self._named = max(self._named, state.number)
        line.reached(state.number)
        if knows.unread:
            raise NotYet(lambda: not knows.unread, f"what {self.entity} has judged")
        if line.live:
            self._rest(state)
        unheld = bool(line.stood) and knows.diary.number < line.stood
        if line.live and (state.number <= knows.diary.number or unheld):
            return  # it is let go; or what was decided of it is not held, and it has said this
        says = Change(
            state.number, state.stage, state.current, state.learned, state.kept, state.since
        )
        if says != knows.history.after(state.number - 1):
            raise Refused("out-of-line", f"{state.identity} is not what that decision made of it")

    def _rest(self, state: TwinState) -> None:
        """Whether its line has the verdicts on which a state rests: what it found, how far it
        looked. Raises NotYet; after a restore the state may be of a later moment than the line."""
        knows = self.knows
        classes = {*state.learned, *state.current}
        looked = max(state.since, state.apart_to, *state.settled.values(), 0)

        def rests() -> bool:
            return classes <= {*knows.line.known} and looked <= knows.judged_to

        if not rests():
            verdicts = f"its verdicts up to image {looked - 1}"
            self._lacks = NotYet(rests, f"{verdicts} ({self.entity}, decision {state.number})")
            self._lacked = verdicts
            raise self._lacks

    @property
    def ahead(self) -> int | None:
        """The latest decision that its own state names, if that was not read: who wrote the state
        had read it."""
        return self._named if self._named > self.knows.shared.line.number else None

    def _adopt(self, state: TwinState, arrived: Arrived) -> None:
        """Go on from a state, if it is newer: also in the stream, as far as the state read it."""
        if self.knows.diary.adopt(state, arrived):
            self._judging.let_go()  # a copy that said the state may have trimmed what it looks at
            self.knows.stream.resume(state.offset, state.trimmed, state.sources)
            for stage, source, count in state.marks:
                self.knows.stream.mark(source, count, stage, 0)
            self._moving.settled()

    # --- answering -------------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        """What is to be done now; each thing is given once."""
        return (self._noting(each) if isinstance(each, Do) else each for each in self._answers())

    def _noting(self, do: Do) -> Do:
        """The same work, of which is noted what was forgotten when its images were loaded."""

        def prepare(library: Library) -> Task:
            try:
                task = do.prepare(library)
            except LookupError:
                self._passed_over.add(do.id)
                raise
            self._begun[do.id] = len(self.knows.forgotten)
            return task

        return replace(do, prepare=prepare)

    def _answers(self) -> Iterator[Answer]:
        knows = self.knows
        yield from knows.diary.chores()
        if knows.shared.line.opened is None:
            return
        yield from self._moving.answers()
        yield from self._join()
        if self._told > knows.line.number:
            return  # that has the next number, and whatever else it decides the one behind it
        if knows.line.stopped:
            return  # a later program judges here, and this one does not know what
        if knows.unread or knows.stream.position < knows.judged_to:
            return  # what was judged, by a copy perhaps, has to be read before anything rests on it
        change = self._memory.next_change()
        if change is not None:
            yield from self._memory.answers(change)
            return
        yield from self._judging.answers()
        yield from self._training.answers()
        yield from self._prototypes.answers()

    def _join(self) -> Iterator[Answer]:
        """Its line begins; in a live run it also ends with the stream, and goes on with it."""
        line, number = self.knows.line, self.knows.line.number + 1
        ended = self.knows.stream.ended
        if (
            number == self._told
            or line.here != ended
            or (number and not self.knows.shared.line.live)
        ):
            return
        if number and not line.here and not self.knows.stream.ends:
            return  # it has left, and this process has not read its stream as far as that
        self._told = number
        kind = EntityLeft if line.here else EntityJoined
        said = kind(run=self.knows.shared.line.run, number=number, entity=self.entity)
        yield Say(self.knows.topic("classes"), said)

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """What follows from a finished task, unless a copy of this twin was quicker.

        One that may have seen what is forgotten by now is dropped, and begun again without it.
        """
        if self._begun.pop(id, 0) < len(self.knows.forgotten):
            self._again(id)
            return
        match id[0]:
            case "judge":
                if self._told > self.knows.line.number:  # its line goes on with that first
                    self._judging.let_go()
                else:
                    yield from self._judging.done(int(id[2]), result)
            case "herd":
                yield from self._memory.done(int(id[2]), result)
            case "learn":
                yield from self._training.done(int(id[2]), result)
            case "prototypes":
                yield from self._prototypes.done(int(id[2]), result)

    def _again(self, id: tuple[str | int, ...]) -> None:
        """Work came to nothing, and is begun again if it is still to be done."""
        kind, key = id[0], int(id[2])
        match kind:
            case "judge":
                self._judging.again(key)
            case "herd":
                self._memory.again(key)
            case "learn":
                self._training.again(key)
            case "prototypes":
                self._prototypes.again(key)

    @property
    def buffered(self) -> int:
        """Images of its stream that it still holds, by reference: not judged, or not settled."""
        return self.knows.stream.buffered

    def refused(self, verdict: WindowJudged) -> None:
        """A verdict of its own came so late that nobody knows any more what it rests on."""
        if (verdict.after or 0) < self.knows.shared.line.floor:
            self._judging.again(verdict.stage)

    def waits(self) -> Iterator[str]:
        """What it waits for, in words: the first of all that it needs. Work is no waiting."""
        return (f"{self.entity}: {what}" for what in self._waits())

    def _waits(self) -> Iterator[str]:
        """In the order in which `answers` asks for it."""
        knows, line = self.knows, self.knows.line
        if self.ahead is not None:
            yield f"decision {self.ahead}, on which its own state rests"
        elif self._lacks and not self._lacks.until():
            yield f"{self._lacked}, on which its own state rests"
        yield from self._moving.waits()
        if line.stopped:
            yield f"a later program (its line stops at {line.stopped.detail})"
        elif line.number < 0:
            yield "its EntityJoined"
        elif knows.unread:
            yield f"its verdict on stage {knows.due}, on which others have gone on"
        elif knows.stream.position < knows.judged_to:
            yield f"image {knows.judged_to - 1} of its stream; {knows.stream.position} have come"
        elif change := self._memory.next_change():
            yield from self._memory.waits(change)
        else:
            yield from self._judging.waits()
            yield from self._training.waits()
