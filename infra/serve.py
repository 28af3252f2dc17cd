"""The one loop: reads, lets roles answer, appends what they say, and gives their tasks to workers.

Everything that a role is not allowed to know happens here: topics and pieces, places, repeats, what
has to wait, dead letters, worker processes, seconds.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

from infra.pieces import Pieces, fetched, gathered, may_be_passed_over
from infra.points import Hook, no_hook
from infra.promises import (
    Answer,
    Arrived,
    Author,
    Begins,
    Do,
    Forget,
    Keep,
    NotYet,
    Place,
    Result,
    Retell,
    Role,
    Say,
    Score,
    Seek,
    SetAside,
    Start,
    Task,
    Telling,
    Timed,
    Trim,
    Workers,
)
from infra.shelf import Shelf
from infra.store.base import ModelStore
from infra.telemetry import Stopwatch, Tally
from infra.transport.base import Stored, Transport, Trimmed
from infra.turn import Turn
from infra.waiting import Waiting
from schemas.codec import NotKnown, Record, Whole, piece, records, unpack
from schemas.errors import Refused, Stalled
from schemas.messages import Away, DeadLetter, Groups, Message, ModelName, Tensors
from schemas.topics import letters_of, table_row

READ_BYTES = 8 * 1024 * 1024  # of a topic at a time: with less a reader falls behind what comes
WAIT = 0.05  # seconds, for workers, when no role can take a step
TICK = 0.2  # seconds between two ticks
LOOK = 1.0  # seconds between two looks at what is waited for: asking thousands of twins takes time
REMEMBERED = 125_000  # dead letters of a topic: as many as the log of one process may hold
TaskId = tuple[str | int, ...]
T = TypeVar("T")


class Letters:
    """The dead letters in the log: each is written once, also by copies and by who begins anew."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._places: dict[str, int] = {}
        self._written: dict[tuple[str, str], set[int]] = {}
        """Topic of letters, and topic → offsets that somebody set aside."""
        self._there: dict[str, deque[tuple[str, int]]] = {}
        """Topic of letters → what each is about, the oldest first: those are forgotten."""

    def __len__(self) -> int:
        """How many it remembers."""
        return sum(map(len, self._there.values()))

    def tell_of(self, topic: str, offset: int) -> bool:
        """Whether there is a letter about what lies there."""
        letters = letters_of(topic)
        self._read_on(letters)
        return offset in self._written.get((letters, topic), ())

    def _read_on(self, letters: str) -> None:
        while self._places.get(letters, 0) < self._transport.end(letters):
            try:
                found = self._transport.read(letters, self._places.get(letters, 0), READ_BYTES)
            except Trimmed as trimmed:
                self._places[letters] = trimmed.first
                continue
            for stored in found:
                self._places[letters] = stored.offset + 1
                self._note(letters, stored.record.key.split("/"))
            self._forget(letters)

    def _note(self, letters: str, key: list[str]) -> None:
        match key:
            case ["DeadLetter", topic, offset, _] if offset.isdecimal():
                self._written.setdefault((letters, topic), set()).add(int(offset))
                self._there.setdefault(letters, deque()).append((topic, int(offset)))

    def _forget(self, letters: str) -> None:
        """The oldest of very many: who comes by what they are about will write another."""
        there = self._there.get(letters, deque())
        while len(there) > REMEMBERED:
            topic, offset = there.popleft()
            self._written[letters, topic].discard(offset)


@dataclass
class Surroundings:
    """What all roles of one process share."""

    transport: Transport
    shelf: Shelf
    max_bytes: int
    wire: Callable[[Message], str] = lambda message: "fp32"
    store: ModelStore | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    hook: Hook = no_hook
    clock: Callable[[], float] = time.monotonic
    """Seconds since any moment, for what is told of waiting; no role sees it."""
    standby_after: float = 0.0
    """A standby decides only what nobody else has, so many seconds after it could have been."""
    missed: Callable[[], tuple[Away, ...]] = lambda: ()
    """Services that this program misses, asked at each heartbeat."""
    tally: Tally = field(default_factory=Tally)
    overhear: Callable[[Arrived], None] = lambda arrived: None
    """Told of each message that a role took in."""
    letters: Letters = field(init=False)

    def __post_init__(self) -> None:
        self.letters = Letters(self.transport)


class Wait(NamedTuple):
    """Something that a role waits for."""

    what: str
    """Who waits for what, in words."""
    seconds: float
    """How long it has been seen to."""

    def __str__(self) -> str:
        return f"{self.what} since {self.seconds:.0f} s"


class Said(NamedTuple):
    """A message that a role has said."""

    message: Message
    hash: str
    pieces: int


class Session:
    """One role, as it reads and writes the log."""

    def __init__(self, role: Role, around: Surroundings, queue: deque[tuple[Session, Do]]) -> None:
        self.role = role
        self._ticks = role if isinstance(role, Timed) else None
        self._author = role if isinstance(role, Author) else None
        self._around = around
        self._queue = queue
        self._places: dict[str, int] = {}
        self._pieces: dict[str, Pieces] = {}
        self._targets: dict[str, int] = {}
        self._own: dict[str, dict[str, Callable[[], None]]] = {}
        """Topic → hash of a message that its author wrote, and what to do when it is read back."""
        self._later = Waiting()
        self._lost: dict[str, int] = {}
        """Topic that was trimmed before us → where it begins: the role has to seek."""
        self._caught_up = False
        self._turn = Turn(role)
        self._ticked = -math.inf
        """When it was last told that time passes."""
        self._since: dict[str, float] = {}
        """What is waited for, in words → when that was first seen."""
        self._begun_late: set[str] = set()
        """Topics of which it has not read the beginning: a missing piece may lie there."""

    def begin(self, start: Start) -> None:
        """Before the first step: its role begins at a Standing, if it can."""
        if isinstance(self.role, Begins):
            self.role.begin(start)
            self._places[start.place.topic] = min(start.place.offsets)
            self._begun_late.add(start.place.topic)

    def step(self) -> bool:
        """Read a little, and answer; says whether anything happened."""
        topics = self.role.topics if self.caught_up else self.role.lines
        moved = [self._read_on(topic) for topic in list(topics)]
        moved.append(self._look_again())
        if any(moved):
            self._turn.heard(self._around.clock())
        self._tick()
        if self.caught_up and self._turn.has_come(self._around.clock(), self._around.standby_after):
            moved.append(self._carry_out(self.role.answers()))
            if self.role.over and not self.behind:
                self._tell_of_waiting(list(self._later))
                for topic in self._pieces:
                    self._tell_of_unfinished(topic)
        return any(moved)

    def _tick(self) -> None:
        """Tell a role that time passes, when it knows what was decided before it began."""
        now = self._around.clock()
        if self._ticks is not None and self.caught_up and now >= self._ticked + TICK:
            self._ticked = now
            self._ticks.tick(now)

    def leave(self, topics: Iterable[str]) -> None:
        """Its role reads these no longer, and perhaps others: those begin with their own past.

        Who reads one of them again later begins at its beginning.
        """
        gone = set(topics)
        for kept in (self._places, self._pieces, self._targets, self._lost, self._own):
            for topic in gone & kept.keys():
                del kept[topic]
        self._later.let_go(lambda place: place.topic in gone)
        self._begun_late -= gone
        self._caught_up = False

    @property
    def caught_up(self) -> bool:
        """Whether the decision lines have been read to where they ended when the role began."""
        if not self._caught_up:
            for topic in self.role.lines:
                if topic not in self._targets:
                    self._targets[topic] = self._around.transport.end(topic)
            self._caught_up = all(self._reached(*target) for target in self._targets.items())
            if self._caught_up:
                self._around.hook("caught-up")
        return self._caught_up

    def _reached(self, topic: str, target: int) -> bool:
        """Whether a topic was read to a place, or to its end where that was forgotten meanwhile."""
        place = self._places.get(topic, 0)
        return place >= target or place >= self._around.transport.end(topic)

    @property
    def behind(self) -> bool:
        """Whether there is something that it has not read yet, and can read."""
        return self._unread(topic for topic in self.role.topics if topic not in self._lost)

    def has_read(self, topic: str) -> bool:
        """Whether it has read a topic to where that ends now."""
        return not self._unread([topic])

    def _unread(self, topics: Iterable[str]) -> bool:
        end = self._around.transport.end
        return any(self._places.get(topic, 0) < end(topic) for topic in topics)

    def waits(self, now: float) -> list[Wait]:
        """What its role waits for, and since when as far as this was asked before.

        What is put in other words, because a part of it has come, is another wait.
        """
        self._since = {what: self._since.get(what, now) for what in self._waits()}
        return [Wait(what, now - since) for what, since in self._since.items()]

    def lag(self) -> Counter[str]:
        """Records that its role has not read, by the kind of topic; what was let go counts too."""
        unread = Counter[str]()
        for topic in self.role.topics:
            behind = self._around.transport.end(topic) - self._places.get(topic, 0)
            unread[table_row(topic).name] += max(0, behind)
        return +unread

    def counts(self) -> Iterator[tuple[str, int]]:
        """What its role counts for people who look."""
        if isinstance(self.role, Telling):
            yield from self.role.tells()

    def _waits(self) -> Iterator[str]:
        if not self.caught_up:
            return  # of what it has not read it knows nothing
        for what in self.role.waits():
            yield f"{self.role.name} waits for {what}"
        for topic, first in self._lost.items():
            place = self._places.get(topic, 0)
            yield (
                f"{self.role.name} waits to hear where to go on in {topic}: it begins at {first},"
                f" and was read to {place}"
            )

    def finish(self, results: Iterable[tuple[TaskId, Result]]) -> None:
        """Tell the role what tasks gave back."""
        self._carry_out(answer for each in results for answer in self._done(*each))

    def _done(self, id: TaskId, result: Result) -> Iterator[Answer]:
        self._around.stopwatch.add(str(id[0]), result.seconds)
        self._around.hook("task:done")
        yield from self.role.done(id, result)

    def prepare(self, do: Do) -> Task:
        """Load what a task needs, just before it begins. Raises LookupError when that is gone."""
        with self._around.stopwatch("loading"):
            task = do.prepare(self)
        self._around.hook("task:prepared")
        return task

    # --- the library that tasks are prepared from ---------------------------------------------

    def model(self, name: ModelName) -> Tensors:
        """A global model."""
        return self.groups(name)["model"]

    def groups(self, name: ModelName) -> Groups:
        """All tensor groups of a global model."""
        return self._around.shelf.groups(name)

    def old_model(self, name: ModelName) -> Tensors:
        """A global model from the store of old ones; what it lacks is put there from the log."""
        if self._around.store is None:
            return self.model(name)
        try:
            return self._around.store.get(name)["model"]
        except LookupError:
            self._around.store.put(name, self.groups(name), -1)
            return self.model(name)

    def message(self, place: Place) -> Message:
        """A message that was read before."""
        return fetched(self._around.transport, place, self._around.max_bytes)

    # --- reading ----------------------------------------------------------------------------

    def _read_on(self, topic: str) -> bool:
        """Read a topic, then hear what waited for that: before anything that stands behind it."""
        found = self._read(topic)
        if found:
            self._look_again()
        return found

    def _read(self, topic: str) -> bool:
        place = self._places.get(topic, 0)
        with self._around.stopwatch("log"):
            try:
                found = self._around.transport.read(topic, place, READ_BYTES)
            except Trimmed as trimmed:
                return self._after_trim(topic, trimmed.first)
        self._lost.pop(topic, None)
        for stored in found:
            self._places[topic] = stored.offset + 1
            self._piece(topic, stored)
        return bool(found)

    def _after_trim(self, topic: str, first: int) -> bool:
        """What was trimmed is not needed; but a twin's state says where its stream goes on."""
        if table_row(topic).name == "samples" and topic in self.role.owns:
            self._lost[topic] = first
            return False
        self._places[topic] = first
        self._begun_late.add(topic)
        self._own.pop(topic, None)
        self._gone_below(topic, first)
        return True

    def _gone_below(self, topic: str, first: int) -> None:
        """Neither pieces nor messages that had to wait will be looked for there any more."""
        if topic in self._pieces:
            self._pieces[topic].trimmed(first)
        self._later.let_go(lambda place: place.topic == topic and min(place.offsets) < first)

    def _piece(self, topic: str, stored: Stored) -> None:
        value, offset = stored.record.value, stored.offset
        try:
            with self._around.stopwatch("codec"):
                part = piece(value, self._around.max_bytes)
        except Refused as refused:
            self._set_aside(Place(topic, (offset,)), "", len(value), refused)
            return
        offsets: tuple[int, ...] = (offset,)
        if part.count > 1:
            offsets = self._pieces.setdefault(topic, Pieces()).add(part, offset) or ()
        own = self._own.get(topic, {}).pop(part.message, None) if offsets else None
        if own is not None:
            own()
        elif part.count == 1:
            self._whole(topic, Whole(part.message, part.content, offsets))
        elif offsets:
            self._take(Place(topic, offsets))

    def _take(self, place: Place) -> None:
        """Hear the message whose pieces lie there."""
        try:
            with self._around.stopwatch("log"):
                whole = gathered(self._around.transport, place, self._around.max_bytes)
        except LookupError:
            return  # trimmed or forgotten meanwhile: nobody needs it any more
        self._whole(place.topic, whole)

    def _whole(self, topic: str, whole: Whole) -> None:
        place, size = Place(topic, whole.offsets), len(whole.payload)
        try:
            with self._around.stopwatch("codec"):
                message = unpack(whole.payload, self._around.max_bytes)
        except NotKnown as later:
            self._not_known(place, whole.hash, size, later)
            return
        except Refused as refused:
            self._set_aside(place, whole.hash, size, refused)
            return
        if message.kind() not in table_row(topic).carries:
            foreign = Refused("unknown-kind", f"{message.kind()} does not belong into {topic}")
            self._set_aside(place, whole.hash, size, foreign, message.identity)
            return
        self._hear(Arrived(place, whole.hash, message, size))

    def _not_known(self, place: Place, hash: str, size: int, later: NotKnown) -> None:
        """A later program's message: to pass over a decision of it would fork the run.

        In `rounds` and `teachers` it ends the program. In `classes` it is told to the role, for it
        stops one entity's line.
        """
        may_be_passed_over(later, place.topic, place.offsets[0])
        self._set_aside(place, hash, size, later)
        if table_row(place.topic).name == "classes" and (decision := later.decision):
            self._hear(Arrived(place, hash, decision, size))

    def _hear(self, arrived: Arrived) -> None:
        try:
            with self._around.stopwatch(self.role.name):
                self.role.hear(arrived)
            self._turn.took_in(arrived.place)
            self._around.tally.heard[table_row(arrived.place.topic).name] += 1
            self._around.overhear(arrived)
        except NotYet as wait:
            self._later.add(arrived.place, wait)
        except Refused as refused:
            self._refuse(arrived, refused)
        self._around.hook("heard")

    def _look_again(self) -> bool:
        """Hear what had to wait and need not any more."""
        ready = self._later.ready()
        for place in ready:
            self._take(place)
        return bool(ready)

    def _tell_of_waiting(self, waiting: Iterable[tuple[Place, str]]) -> None:
        """Write letters about what waited in vain: at the end, or before it is let go unheard.

        Whoever is honest names a decision only after it was written, so it was read by now. But to
        wait is no judgement, and here is none either: nobody's answer hangs on a letter, and should
        the run go on, what is still there is heard in its turn (docs/decisions/0011).
        """
        for place, what in waiting:
            offset = place.offsets[0]
            if place.topic in self.role.owns and not self._around.letters.tell_of(
                place.topic, offset
            ):
                self._in_vain(place, what)

    def _in_vain(self, place: Place, what: str) -> None:
        try:
            whole = gathered(self._around.transport, place, self._around.max_bytes)
        except LookupError:
            return  # a copy has let it go, and has told of it
        about = unpack(whole.payload, self._around.max_bytes).identity
        vain = Refused("out-of-line", f"{about} waited in vain for {what}")
        self._set_aside(place, whole.hash, len(whole.payload), vain, about)

    def _tell_of_unfinished(self, topic: str, before: float = math.inf) -> None:
        """Write letters about messages that lie below an offset and lack a piece: it never comes.

        Where the topic's beginning was not read, or pieces are let go one by one, it may have been
        there.
        """
        if topic in self._begun_late or table_row(topic).kept == "compacted":
            return
        for hash, pieces, offsets in self._pieces[topic].unfinished():
            if offsets[-1] < before:
                lacks = Refused("unreadable", f"{len(offsets)} of {pieces} pieces came")
                self._set_aside(Place(topic, offsets), hash, 0, lacks)

    # --- answering ---------------------------------------------------------------------------

    def _carry_out(self, answers: Iterable[Answer]) -> bool:
        """Do what a role asks for; what it says to one topic in a row is written at once."""
        moved = False
        for (kind, topic, _), alike in groupby(self._timed(answers), key=_destination):
            moved = True
            if kind is Say:
                self._say(topic, _of(Say, alike))
            elif kind is Forget:
                self._forget(topic, _of(Forget, alike))
            else:
                for answer in alike:
                    self._do(answer)
        return moved

    def _timed(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers one by one; what it takes to make them is the role's own time."""
        each = iter(answers)
        while True:
            with self._around.stopwatch(self.role.name):
                answer = next(each, None)
            if answer is None:
                return
            yield answer

    def _do(self, answer: Answer) -> None:
        match answer:
            case Do():
                self._queue.append((self, answer))
            case Trim():
                self._trim(answer.topic, answer.before)
            case Seek():
                self._seek(answer)
            case Keep():
                self._keep(answer)
            case Score():
                self._score(answer)
            case Retell():
                self._retell(answer)
            case SetAside(arrived, refused):
                self._refuse(arrived, refused)

    def _say(self, topic: str, says: Iterable[Say]) -> None:
        said: list[Said] = []
        with self._around.stopwatch("log"):
            offsets = iter(self._around.transport.append(topic, self._made(topic, says, said)))
        self._around.hook("said")
        author, place = self._author, self._places.get(topic, 0)
        for each in said:
            own = list(islice(offsets, each.pieces))
            self._turn.wrote(each.message, topic, own)
            if author and (read_back := author.wrote(each.message)) is not None:
                self._wrote(topic, each, own, read_back)
        if author and self._places.get(topic, 0) > place:
            self._pass_over(topic)

    def _made(self, topic: str, says: Iterable[Say], said: list[Said]) -> Iterator[Record]:
        """The records of what is said, and notes it: one message is made while others are sent."""
        kind = table_row(topic).name
        for say in says:
            self._around.tally.said[kind] += 1
            with self._around.stopwatch("codec"):
                wire = self._around.wire(say.message)
                hash, parts = records(say.message, source=self.role.name, key=say.key, wire=wire)
            said.append(Said(say.message, hash, len(parts)))
            yield from parts

    def _wrote(
        self, topic: str, said: Said, offsets: Sequence[int], read_back: Callable[[], None]
    ) -> None:
        """What stands right behind all that was read need not be fetched: we know what it is."""
        place = self._places.get(topic, 0)
        if offsets != list(range(place, place + said.pieces)):
            self._own.setdefault(topic, {})[said.hash] = read_back
            return
        self._places[topic] = offsets[-1] + 1
        if topic in self._pieces:
            self._pieces[topic].whole(said.hash, offsets[-1])
        read_back()

    def _pass_over(self, topic: str) -> None:
        """Let the transport know where we go on before any topic is read: that might fetch it."""
        with suppress(Trimmed):  # the next look tells of it
            self._around.transport.read(topic, self._places[topic], 0)

    def _trim(self, topic: str, before: int) -> None:
        """Let a topic's beginning go, and tell of what waited there in vain.

        What waits may name a decision that stands in a line already and was not read yet: then it
        stays, and goes with a later trim if it was nothing.
        """
        waiting = [
            (place, what)
            for place, what in self._later
            if place.topic == topic and min(place.offsets) < before
        ]
        if waiting and self._unread(self.role.lines):
            before = min(min(place.offsets) for place, _ in waiting)
        else:
            self._tell_of_waiting(waiting)
        if topic in self._pieces:
            self._tell_of_unfinished(topic, before)
        with self._around.stopwatch("log"):
            self._around.transport.trim(topic, before)
        self._gone_below(topic, before)

    def _forget(self, topic: str, forgets: Iterable[Forget]) -> None:
        keys = [f"{each.key}/{index}" for each in forgets for index in range(each.pieces)]
        with self._around.stopwatch("log"):
            self._around.transport.forget(topic, *keys)
        self._around.hook("forgotten")

    def _seek(self, seek: Seek) -> None:
        if seek.offset > self._places.get(seek.topic, 0):
            self._places[seek.topic] = seek.offset
            self._begun_late.add(seek.topic)
            self._gone_below(seek.topic, seek.offset)

    def _keep(self, keep: Keep) -> None:
        store = self._around.store
        if store is None:
            return
        with self._around.stopwatch("log"):
            if keep.model is not None and self._around.shelf.has(keep.model):
                groups = self._around.shelf.groups(keep.model)
                store.put(keep.model, groups, keep.stage, keep.round)
                self._around.hook("store:put")
            if keep.only is not None:
                for name in store.list():
                    if name not in keep.only:
                        store.forget(name)

    def _retell(self, retell: Retell) -> None:
        try:
            said = list(retell.say(self))
        except LookupError:
            return
        self._carry_out(said)

    def _score(self, score: Score) -> None:
        if self._around.store is not None:
            with self._around.stopwatch("log"):
                self._around.store.score(score.model, score.stage, score.score)

    def _refuse(self, arrived: Arrived, refused: Refused) -> None:
        about = arrived.message.identity
        self._set_aside(arrived.place, arrived.hash, arrived.size, refused, about)

    def _set_aside(
        self, place: Place, hash: str, size: int, refused: Refused, about: str = "?"
    ) -> None:
        """Write a dead letter: a reference and a reason, never what the message held."""
        offset, letters = place.offsets[0], self._around.letters
        if place.topic not in self.role.owns or letters.tell_of(place.topic, offset):
            return
        self._around.tally.letters[refused.reason] += 1
        letter = DeadLetter(
            run="",
            topic=place.topic,
            offset=offset,
            about=about,
            hash=hash,
            size=size,
            reason=refused.reason,
            detail=refused.detail[:400],
        )
        topic = letters_of(place.topic)
        self._say(topic, [Say(topic, letter)])


class System:
    """Roles of one process and the workers that they share."""

    def __init__(
        self,
        roles: Sequence[Role],
        around: Surroundings,
        workers: Workers,
        *,
        order: Callable[[Sequence[Session]], Sequence[Session]] = lambda sessions: sessions,
        surroundings: Callable[[Role], Surroundings] | None = None,
    ) -> None:
        """`order` says in which order the roles take their steps: the model is always the same."""
        self._queue: deque[tuple[Session, Do]] = deque()
        self.sessions = [
            Session(role, surroundings(role) if surroundings else around, self._queue)
            for role in roles
        ]
        self._around = around
        self._workers = workers
        self._order = order
        self._in_work: dict[object, tuple[Session, TaskId]] = {}
        self._looked = -math.inf
        self._passed_over: dict[TaskId, str] = {}
        """Work whose inputs were let go before it began, and which."""

    @property
    def over(self) -> bool:
        """Every role has said all that it has to say, and nothing is in work."""
        done = all(session.role.over and not session.behind for session in self.sessions)
        return done and not self._in_work and not self._queue

    def begin(self, start: Start) -> None:
        """Before the first step: whoever can begins at a Standing."""
        for session in self.sessions:
            session.begin(start)

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Go on until all roles are over.

        Raises Stalled when no role can take a step, nothing is in work and something is missing.
        """
        while not self.over:
            moved = self.step()
            watch()
            if not (moved or self._in_work or self.over or any(s.behind for s in self.sessions)):
                raise Stalled(self.missing())

    def step(self) -> bool:
        """One step of each role, and what workers have finished; says whether anything happened."""
        moved = [session.step() for session in self._order(self.sessions)]
        self._dispatch()
        finished = self._workers.finished(0 if any(moved) else WAIT) if self._in_work else []
        results: dict[Session, list[tuple[TaskId, Result]]] = {}
        for key, result in finished:
            session, id = self._in_work.pop(key)
            results.setdefault(session, []).append((id, result))
        for session, each in results.items():
            session.finish(each)
        self._dispatch()
        if self._around.clock() >= self._looked + LOOK:
            self.waits()
        return any(moved) or bool(finished)

    def waits(self) -> list[Wait]:
        """What each role waits for, and since when, to about a second."""
        self._looked = self._around.clock()
        return [wait for session in self.sessions for wait in session.waits(self._looked)]

    def lag(self) -> Counter[str]:
        """Records that the roles have not read, by the kind of topic."""
        return sum((session.lag() for session in self.sessions), Counter[str]())

    def counts(self) -> dict[str, int]:
        """What the roles count for people who look."""
        return dict(each for session in self.sessions for each in session.counts())

    @property
    def in_work(self) -> list[TaskId]:
        """What the workers do now."""
        return [id for _, id in self._in_work.values()]

    @property
    def queued(self) -> int:
        """Tasks that wait for a worker."""
        return len(self._queue)

    @property
    def free(self) -> int:
        """How many more tasks the workers could do."""
        return self._workers.free

    def _dispatch(self) -> None:
        while self._queue and self._workers.free:
            index = next((i for i, (_, do) in enumerate(self._queue) if do.urgent), 0)
            session, do = self._queue[index]
            del self._queue[index]
            if do.wanted():
                self._begin(session, do)

    def _begin(self, session: Session, do: Do) -> None:
        key = (id(session), do.id)
        if key in self._in_work:
            return  # a twin that left and came back asks for what is in work already
        try:
            task = session.prepare(do)
        except LookupError as gone:  # what is let go is never needed again, so neither is the work
            self._passed_over[do.id] = f"{type(gone).__name__}: {gone}"
            return
        self._in_work[key] = (session, do.id)
        self._workers.submit(key, task)

    def missing(self) -> str:
        """What nobody can go on without, in words."""
        waits = [str(wait) for wait in self.waits()]
        waits += [
            f"{' '.join(map(str, id))} was passed over ({gone})"
            for id, gone in self._passed_over.items()
        ]
        return (
            "nothing is in work and no role can take a step: "
            + ("; ".join(waits) or "nobody says what is missing")
            + ". Resume goes on when it is there"
        )


def _destination(answer: Answer) -> tuple[type[Answer], str, str]:
    """What kind of answer it is and, if its like can be carried out together, what it is about.

    Messages of one kind are written together; another kind may name them, so it waits for them.
    """
    topic = answer.topic if isinstance(answer, Say | Forget) else ""
    return type(answer), topic, answer.message.kind() if isinstance(answer, Say) else ""


def _of(kind: type[T], answers: Iterable[Answer]) -> Iterator[T]:
    return (answer for answer in answers if isinstance(answer, kind))
