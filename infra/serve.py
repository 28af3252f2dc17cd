"""The one loop: reads, lets roles answer, appends what they say, and gives their tasks to workers.

Everything that a role is not allowed to know happens here: topics and pieces, places, repeats, what
has to wait, dead letters, worker processes, seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from infra.points import Hook, no_hook
from infra.promises import (
    Answer,
    Arrived,
    Do,
    Forget,
    Keep,
    NotYet,
    Place,
    Result,
    Role,
    Say,
    Seek,
    SetAside,
    Task,
    Trim,
    Workers,
)
from infra.shelf import Shelf, fetched
from infra.store.base import ModelStore
from infra.telemetry import Stopwatch
from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import Assembler, Whole, records, unpack
from schemas.errors import ConfigurationError, Refused, Stalled
from schemas.messages import DeadLetter, Groups, Message, ModelName, Tensors
from schemas.topics import table_row

READ_BYTES = 4 * 1024 * 1024
WAIT = 0.05  # seconds, for workers, when no role can take a step
TaskId = tuple[str | int, ...]


@dataclass
class Surroundings:
    """What all roles of one process share."""

    transport: Transport
    shelf: Shelf
    max_bytes: int
    dead_letters: str
    """Topic for what a role sets aside."""
    wire: Callable[[Message], str] = lambda message: "fp32"
    store: ModelStore | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    hook: Hook = no_hook


class Session:
    """One role, as it reads and writes the log."""

    def __init__(self, role: Role, around: Surroundings, queue: deque[tuple[Session, Do]]) -> None:
        self.role = role
        self._around = around
        self._queue = queue
        self._places: dict[str, int] = {}
        self._assemblers: dict[str, Assembler] = {}
        self._targets: dict[str, int] = {}
        self._later: list[tuple[Place, NotYet]] = []
        self._caught_up = False

    def step(self) -> bool:
        """Read a little, and answer; says whether anything happened."""
        topics = self.role.topics if self.caught_up else self.role.lines
        moved = [self._read(topic) for topic in list(topics)]
        moved.append(self._look_again())
        if self.caught_up:
            moved.append(self._carry_out(self.role.answers()))
        return any(moved)

    @property
    def caught_up(self) -> bool:
        """Whether the decision lines have been read to where they ended when the role began."""
        if not self._caught_up:
            for topic in self.role.lines:
                self._targets.setdefault(topic, self._around.transport.end(topic))
            self._caught_up = all(
                self._places.get(topic, 0) >= target for topic, target in self._targets.items()
            )
        return self._caught_up

    @property
    def behind(self) -> bool:
        """Whether there is something that it has not read yet."""
        end = self._around.transport.end
        return any(self._places.get(topic, 0) < end(topic) for topic in self.role.topics)

    def finish(self, id: TaskId, result: Result) -> None:
        """Tell the role what a task gave back."""
        self._around.stopwatch.add(str(id[0]), result.seconds)
        self._around.hook("task:done")
        with self._around.stopwatch(self.role.name):
            answers = list(self.role.done(id, result))
        self._carry_out(answers)

    def prepare(self, do: Do) -> Task:
        """Load what a task needs, just before it begins."""
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
        """A global model from the store of old ones; what the store lacks is put back from the log."""
        if self._around.store is None:
            return self.model(name)
        try:
            return self._around.store.get(name)
        except LookupError:
            self._around.store.put(name, self.model(name), -1)
            return self.model(name)

    def message(self, place: Place) -> Message:
        """A message that was read before."""
        return fetched(self._around.transport, place, self._around.max_bytes)

    # --- reading ----------------------------------------------------------------------------

    def _read(self, topic: str) -> bool:
        place = self._places.get(topic, 0)
        with self._around.stopwatch("log"):
            try:
                found = self._around.transport.read(topic, place, READ_BYTES)
            except Trimmed as trimmed:
                return self._after_trim(topic, trimmed.first)
        for stored in found:
            if self._places.get(topic, 0) > stored.offset:
                continue  # the role asked meanwhile to go on further behind
            self._places[topic] = stored.offset + 1
            self._piece(topic, stored)
        return bool(found)

    def _after_trim(self, topic: str, first: int) -> bool:
        """What was trimmed is not needed; only in samples the twin's state has to say where to go on."""
        if table_row(topic).name == "samples":
            return False
        self._places[topic] = first
        return True

    def _piece(self, topic: str, stored: Stored) -> None:
        assembler = self._assemblers.setdefault(topic, Assembler(self._around.max_bytes))
        try:
            with self._around.stopwatch("codec"):
                whole = assembler.add(stored.offset, stored.record.value)
        except Refused as refused:
            self._set_aside(Place(topic, (stored.offset,)), stored.record.value, "", refused)
            return
        if whole is not None:
            self._whole(topic, whole)

    def _whole(self, topic: str, whole: Whole) -> None:
        place = Place(topic, whole.offsets)
        try:
            with self._around.stopwatch("codec"):
                message = unpack(whole.payload, self._around.max_bytes)
        except Refused as refused:
            if refused.reason in {"newer-schema", "unknown-kind"} and _ends_program(topic):
                raise ConfigurationError(
                    f"{topic} at {place.offsets[0]}: {refused.detail}. To pass over it would fork"
                    " the run: use the program that wrote it"
                ) from None
            self._set_aside(place, whole.payload, whole.hash, refused)
            return
        if message.kind() not in table_row(topic).carries:
            foreign = Refused("unknown-kind", f"{message.kind()} does not belong into {topic}")
            self._set_aside(place, whole.payload, whole.hash, foreign)
            return
        self._hear(Arrived(place, whole.hash, message))

    def _hear(self, arrived: Arrived) -> None:
        try:
            with self._around.stopwatch(self.role.name):
                self.role.hear(arrived)
        except NotYet as wait:
            self._later.append((arrived.place, wait))
        except Refused as refused:
            self._set_aside(arrived.place, b"", arrived.hash, refused, arrived.message.identity)
        self._around.hook("heard")

    def _look_again(self) -> bool:
        ready = [place for place, wait in self._later if wait.until()]
        if not ready:
            return False
        self._later = [(place, wait) for place, wait in self._later if place not in ready]
        for place in ready:
            self._again(place)
        return True

    def _again(self, place: Place) -> None:
        assembler = Assembler(self._around.max_bytes)
        try:
            for offset in place.offsets:
                found = self._around.transport.read(place.topic, offset, 1)
                if not found or found[0].offset != offset:
                    return  # trimmed meanwhile: nobody needs it any more
                if whole := assembler.add(offset, found[0].record.value):
                    self._whole(place.topic, whole)
        except Trimmed:
            return

    # --- answering ---------------------------------------------------------------------------

    def _carry_out(self, answers: Iterable[Answer]) -> bool:
        moved = False
        for answer in answers:
            moved = True
            match answer:
                case Say():
                    self._say(answer)
                case Do():
                    self._queue.append((self, answer))
                case Forget():
                    self._forget(answer)
                case Trim():
                    with self._around.stopwatch("log"):
                        self._around.transport.trim(answer.topic, answer.before)
                case Seek():
                    self._seek(answer)
                case Keep():
                    self._keep(answer)
                case SetAside(arrived, refused):
                    about = arrived.message.identity
                    self._set_aside(arrived.place, b"", arrived.hash, refused, about)
        return moved

    def _say(self, say: Say) -> None:
        with self._around.stopwatch("codec"):
            wire = self._around.wire(say.message)
            _, made = records(say.message, source=self.role.name, key=say.key, wire=wire)
        with self._around.stopwatch("log"):
            self._around.transport.append(say.topic, made)
        self._around.hook("said")

    def _forget(self, forget: Forget) -> None:
        with self._around.stopwatch("log"):
            for index in range(forget.pieces):
                self._around.transport.forget(forget.topic, f"{forget.key}/{index}")
        self._around.hook("forgotten")

    def _seek(self, seek: Seek) -> None:
        if seek.offset > self._places.get(seek.topic, 0):
            self._places[seek.topic] = seek.offset
            self._assemblers.pop(seek.topic, None)

    def _keep(self, keep: Keep) -> None:
        store = self._around.store
        if store is None:
            return
        with self._around.stopwatch("log"):
            if keep.model is not None:
                store.put(keep.model, self._around.shelf.model(keep.model), keep.stage)
                self._around.hook("store:put")
            if keep.only is not None:
                for name in store.list():
                    if name not in keep.only:
                        store.forget(name)

    def _set_aside(
        self, place: Place, value: bytes, hash: str, refused: Refused, about: str = "?"
    ) -> None:
        """Write a dead letter: a reference and a reason, never what the message held."""
        if place.topic not in self.role.owns or not self._caught_up:
            return
        letter = DeadLetter(
            run="",
            topic=place.topic,
            offset=place.offsets[0],
            about=about,
            hash=hash,
            size=len(value),
            reason=refused.reason,
            detail=refused.detail[:400],
        )
        self._say(Say(self._around.dead_letters, letter))


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
        """`order` says in which order the roles take their steps; any order gives the same model."""
        self._queue: deque[tuple[Session, Do]] = deque()
        self.sessions = [
            Session(role, surroundings(role) if surroundings else around, self._queue)
            for role in roles
        ]
        self._around = around
        self._workers = workers
        self._order = order
        self._in_work: dict[object, tuple[Session, TaskId]] = {}

    @property
    def over(self) -> bool:
        """Every role has said all that it has to say, and nothing is in work."""
        done = all(session.role.over and not session.behind for session in self.sessions)
        return done and not self._in_work and not self._queue

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Go on until all roles are over.

        Raises Stalled when no role can take a step, nothing is in work and something is missing.
        """
        while not self.over:
            moved = self.step()
            watch()
            if not moved and not self._in_work and not any(s.behind for s in self.sessions):
                raise Stalled(self._missing())

    def step(self) -> bool:
        """One step of each role and what the workers have finished; says whether anything happened."""
        moved = any([session.step() for session in self._order(self.sessions)])
        self._dispatch()
        finished = self._workers.finished(0 if moved else WAIT) if self._in_work else []
        for key, result in finished:
            session, id = self._in_work.pop(key)
            session.finish(id, result)
        self._dispatch()
        return moved or bool(finished)

    @property
    def in_work(self) -> list[TaskId]:
        """What the workers do now."""
        return [id for _, id in self._in_work.values()]

    def _dispatch(self) -> None:
        while self._queue and self._workers.free:
            index = next((i for i, (_, do) in enumerate(self._queue) if do.urgent), 0)
            session, do = self._queue[index]
            del self._queue[index]
            key = (id(session), do.id)
            self._in_work[key] = (session, do.id)
            self._workers.submit(key, session.prepare(do))

    def _missing(self) -> str:
        waits = [
            f"{session.role.name} waits for {what}"
            for session in self.sessions
            for what in session.role.waits()
        ]
        return (
            "nothing is in work and no role can take a step: "
            + ("; ".join(waits) or "nobody says what is missing")
            + ". Resume goes on when it is there"
        )


def _ends_program(topic: str) -> bool:
    return table_row(topic).name in {"rounds", "teachers"}
