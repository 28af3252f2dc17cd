"""What every transport promises. tests/contracts/test_transport.py asks each promise of each one.

 1. A topic is a log of one partition: records have rising offsets, gaps are allowed, and no offset
    is ever given twice.
 2. `append` is durable when it returns, and its records stand in their order, where it says. Where
    a connection broke on the way some stand there twice; then it is their last places that are in
    order, and that it says.
 3. `read` gives records from the first offset not below the place, in order, never half a record.
    It may give fewer than there are, or none yet: who has not reached `end` asks again.
 4. What was appended by anybody is seen by everybody, in one and the same order.
 5. `read` below the start of a trimmed topic raises Trimmed, which names the start.
 6. `trim` moves the start, never back; trimming twice changes nothing; what follows stays.
 7. `forget` lets the records of the keys go, at once or, where a broker does it, in its own time
    (then only in topics that are kept compacted). Nobody is given a mark of it, records of other
    keys stay where they are, and a key may be written again.
 8. A topic that nobody wrote to is empty, not an error.
 9. `end` is not before the last record's end, as of the last time that its asker read, wrote or
    waited, or a moment ago. Who reads until its place is not below `end` gets there, and has read
    all: `end` goes back, at the latest by reading, where only what was forgotten lies between.
10. A full disk of ours raises DiskFull; what was appended before stands, and when there is room
    again, so does what is appended then. A broker's full disk is a broker that is away: `append`
    waits.
11. `wait` returns when there may be something new to read, or when its seconds have passed.
12. A record says when it was written, by its writer's clock: for people, and roles are not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from schemas.codec import Record


@dataclass(frozen=True, slots=True)
class Stored:
    """A record where it lies."""

    offset: int
    record: Record
    at: float | None = field(default=None, compare=False)
    """When it was written, in seconds since 1970 by its writer's clock; to be shown, no more."""


class Trimmed(LookupError):
    """What was asked for has been trimmed; the topic begins at `first`."""

    def __init__(self, topic: str, place: int, first: int) -> None:
        super().__init__(f"{topic} begins at {first}, not at {place}")
        self.first = first


class Transport(Protocol):
    """The port: roles' messages go through it as records."""

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        """Write records; gives the offset of each. Promises 1, 2, 10.

        What they are made of may be made as they are written: those before may be there by then.
        """

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        """Records from `place` on, up to the one with which `max_bytes` are reached.

        Raises Trimmed. Promises 3, 4, 5.
        """

    def first(self, topic: str) -> int:
        """Where the topic begins."""

    def end(self, topic: str) -> int:
        """Behind the last record. Promise 9."""

    def topics(self) -> list[str]:
        """Every topic that was written to, in order of name."""

    def forget(self, topic: str, *keys: str) -> None:
        """Let the records of these keys go. Promise 7."""

    def trim(self, topic: str, before: int) -> None:
        """Let records before an offset go. Promise 6."""

    def wait(self, seconds: float) -> None:
        """Wait until there may be something new in a topic that was read. Promise 11."""

    def close(self) -> None:
        """Let the log go; what was appended stays."""


class Absence(NamedTuple):
    """A log that cannot be reached."""

    what: str
    why: str
    since: float
    """By `time.monotonic`."""


@runtime_checkable
class Remote(Protocol):
    """A transport whose log is elsewhere: it may be away, and its program about to end."""

    @property
    def away(self) -> Absence | None:
        """What cannot be reached, while it cannot. Any thread may ask."""

    def last(self, topic: str, records: Sequence[Record], seconds: float) -> bool:
        """Try once to write, also when told to stop and whatever was interrupted before.

        Takes at most about so many seconds; gives whether it was acknowledged.
        """
