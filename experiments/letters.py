"""Dead letters: what was set aside, by reference, and how it is put into its topic once more."""

from __future__ import annotations

from experiments.folder import Listener
from infra.promises import Arrived
from infra.serve import READ_BYTES, Surroundings, System
from infra.shelf import Shelf
from infra.transport.base import Stored, Transport, Trimmed
from infra.workers import Inline
from schemas.codec import Record, piece
from schemas.errors import DataError, Refused
from schemas.limits import LEAST_BYTES
from schemas.messages import DeadLetter
from schemas.topics import Names


def letters(transport: Transport, names: Names) -> list[DeadLetter]:
    """Every letter of a run, in order of what it is about; said twice it is one."""
    found: dict[tuple[str, int], DeadLetter] = {}

    def heard(arrived: Arrived) -> None:
        if isinstance(arrived.message, DeadLetter):
            found.setdefault((arrived.message.topic, arrived.message.offset), arrived.message)

    own = names.federation("dead-letters")
    topics = [each for each in transport.topics() if each == own or each.startswith(f"{own}.")]
    shelf = Shelf(transport, names.federation("models"), LEAST_BYTES)
    around = Surroundings(transport, shelf, LEAST_BYTES)
    reader = System([Listener(heard, topics)], around, Inline({}))
    while any(session.behind for session in reader.sessions):
        reader.step()
    return [found[key] for key in sorted(found)]


def original(transport: Transport, letter: DeadLetter, max_bytes: int) -> list[Record]:
    """The records that a letter is about, in order of their pieces.

    One that nobody could read is given as it lies there. Raises DataError when it was trimmed or
    forgotten.
    """
    found: dict[int, Record] = {}
    place, count = letter.offset, 1
    while len(found) < count:
        for stored in _next(transport, letter, place):
            place = stored.offset + 1
            try:
                part = piece(stored.record.value, max_bytes)
            except Refused:
                if stored.offset == letter.offset:
                    return [stored.record]
                continue
            if part.message == letter.hash or stored.offset == letter.offset:
                count = part.count
                found.setdefault(part.index, stored.record)
            if len(found) == count:
                break
    return [found[index] for index in sorted(found)]


def requeue(transport: Transport, letter: DeadLetter, max_bytes: int) -> int:
    """Append what a letter is about to its topic again; gives the offset of its first record.

    Who reads it judges it anew: by what it knows now. Raises DataError as `original` does.
    """
    return transport.append(letter.topic, original(transport, letter, max_bytes))[0]


def _next(transport: Transport, letter: DeadLetter, place: int) -> list[Stored]:
    try:
        while not (found := transport.read(letter.topic, place, READ_BYTES)):
            if transport.end(letter.topic) <= place:
                raise DataError(_gone(letter, "a piece of it is not there any more"))
    except Trimmed as trimmed:
        raise DataError(_gone(letter, f"the topic begins at {trimmed.first} now")) from None
    if place == letter.offset and found[0].offset != place:
        raise DataError(_gone(letter, "it was forgotten"))
    return found


def _gone(letter: DeadLetter, why: str) -> str:
    return f"what {letter.topic} held at {letter.offset} cannot be read again: {why}"
