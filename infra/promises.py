"""What a role may ask for and how it is told: the one language between roles and the loop.

A role folds facts (`hear`) and says what follows from them (`answers`). It opens no connection and
reads no clock, file or environment. Everything it wants from the outside world is one of the values
below, and the loop in serve.py carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from schemas.errors import Refused
from schemas.line import NotYet
from schemas.messages import Groups, Message, ModelName, RunOpened, Standing, Tensors

__all__ = [
    "Answer", "Arrived", "Author", "Begins", "Deciding", "Do", "Forget", "Keep", "Library",
    "Models", "NotYet", "Place", "Result", "Retell", "Role", "Say", "Score", "Seek", "SetAside",
    "Start", "Task", "Telling", "Timed", "Trim", "Workers",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies: a topic and the offsets of its pieces."""

    topic: str
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came: complete, its hash checked."""

    place: Place
    hash: str
    message: Message
    size: int = 0
    """Of the message, in bytes."""


@dataclass(frozen=True, slots=True)
class Start:
    """From where a live run's line is read by who does not read all of it."""

    opened: RunOpened
    run: str
    """Hash of that, which names the run."""
    standing: Standing
    hash: str
    """Of that."""
    place: Place
    """Where it lies."""


@dataclass(frozen=True, slots=True)
class Task:
    """Work for a worker process: the name of a function, plain values and tensors."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a task gave back."""

    values: dict[str, Any]
    groups: Groups
    seconds: float = 0.0
    """Measured by the worker; for reports only."""


class Library(Protocol):
    """What the loop can fetch while it prepares a task."""

    def model(self, name: ModelName) -> Tensors:
        """A global model's values. Raises LookupError when it is nowhere."""

    def groups(self, name: ModelName) -> Groups:
        """All tensor groups of a global model: `model`, and what a strategy declares besides."""

    def old_model(self, name: ModelName) -> Tensors:
        """A global model from the store of old ones; what the store lacks comes from the log."""

    def message(self, place: Place) -> Message:
        """A message read before. Raises LookupError when it has been trimmed or forgotten."""


class Models(Protocol):
    """The global models in the log, by name."""

    def groups(self, name: ModelName) -> Groups:
        """All tensor groups of a model. Raises LookupError when no sound copy is in the log."""

    def has(self, name: ModelName) -> bool:
        """Whether a sound copy is in the log."""

    def at_hand(self, name: ModelName) -> bool:
        """The same, of what can be read without asking the log where it ends: a copy that was
        written just now may be missed."""

    def names(self, *, at_hand: bool = False) -> dict[ModelName, int]:
        """Every model that the log claims to hold, or of those at hand, and of how many pieces."""

    def drop(self, name: ModelName) -> None:
        """The model was let go."""


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Append a message to a topic.

    It is durable before another kind of message or of answer, or one for another topic, follows.
    """

    topic: str
    message: Message
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Let a message's records go: `key/0`, `key/1`, … for each of its pieces."""

    topic: str
    key: str
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Trim:
    """Let everything before this offset go."""

    topic: str
    before: int


@dataclass(frozen=True, slots=True)
class Seek:
    """Go on reading a topic from here, unless the reader is further already.

    Who owns a topic of samples has to say so when what it would read next has been trimmed.
    """

    topic: str
    offset: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Put a global model into the store of old models, or let all but these go."""

    model: ModelName | None = None
    stage: int = 0
    round: int = -1
    """The one that the model closed, where that is known; for people who look at the store."""
    only: frozenset[ModelName] | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Write beside an old model what it scored at a stage; for people who look at the store.

    What is decided by it is said in a decision, and nobody reads it from there.
    """

    model: ModelName
    stage: int
    score: float


@dataclass(frozen=True, slots=True)
class Do:
    """Work that takes long.

    `prepare` is called when a worker is free, so inputs are loaded late. It raises LookupError when
    they were let go meanwhile: then nobody needs the work any more, and it is passed over.
    `wanted` is asked just before: whether nobody else has given meanwhile what would come of it.
    """

    id: tuple[str | int, ...]
    prepare: Callable[[Library], Task]
    urgent: bool = True
    """False for what nobody waits for, such as the observer's evaluation."""
    wanted: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Retell:
    """Say again, in other words, what was read before: at once, and without a worker.

    `say` raises LookupError when that was let go meanwhile: then nobody needs it any more, and it
    is passed over.
    """

    say: Callable[[Library], Iterable[Say]]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message turned out not to be valid after it had to wait."""

    arrived: Arrived
    refused: Refused


Answer = Say | Forget | Trim | Seek | Keep | Score | Do | Retell | SetAside


class Role(Protocol):
    """A fold into sets, and what follows from them."""

    name: str

    @property
    def lines(self) -> Sequence[str]:
        """Topics that are read to their end before the role answers anything."""

    @property
    def topics(self) -> Sequence[str]:
        """All topics that it reads, `lines` first; more may come as it hears of entities."""

    @property
    def owns(self) -> Sequence[str]:
        """Topics whose dead letters it writes."""

    @property
    def over(self) -> bool:
        """Nothing more will come of this role."""

    def hear(self, arrived: Arrived) -> None:
        """Fold one message. Raises Refused when it is not valid, NotYet when it must wait."""

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterable[Answer]:
        """What follows from a finished task."""

    def answers(self) -> Iterator[Answer]:
        """What is to be done now, each thing once."""

    def waits(self) -> Sequence[str]:
        """What it waits for, in words."""


@runtime_checkable
class Begins(Protocol):
    """A role that need not read all decisions of a live run."""

    def begin(self, start: Start) -> None:
        """Before it hears anything: this is how the run stands."""


@runtime_checkable
class Timed(Protocol):
    """A role for which time passes: what it decides on a tick is written down, not the tick."""

    def tick(self, at: float) -> None:
        """It is so late, in seconds since any moment."""


@runtime_checkable
class Author(Protocol):
    """A role that knows what it wrote, and need not read all of it again."""

    def wrote(self, message: Message) -> Callable[[], None] | None:
        """It has written a message of its own, and it is durable.

        What to do in place of hearing it, if anything, when all that stands before it was read.
        """


@runtime_checkable
class Deciding(Protocol):
    """A role whose decisions stand in one line: where two of them live, one may stand by."""

    @property
    def decided(self) -> int:
        """Number of the newest decision in its line; -1 before the first."""

    @property
    def can_decide(self) -> bool:
        """Whether nothing is missing on which the next one rests."""


@runtime_checkable
class Telling(Protocol):
    """A role that counts something for people who look; nobody's answer hangs on it."""

    def tells(self) -> Iterable[tuple[str, int]]:
        """What it counts, and how many: `buffered <entity>`."""


class Workers(Protocol):
    """Carries out tasks, several at a time, in any order."""

    @property
    def free(self) -> int:
        """How many more tasks it can take now."""

    def submit(self, id: object, task: Task) -> None:
        """Begin a task."""

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        """What has ended since; waits up to `wait` seconds for the first.

        Raises RunFailed when a task failed in a way that no retry mends.
        """

    def close(self) -> None:
        """End the workers; unfinished work is dropped."""
