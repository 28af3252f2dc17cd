"""Dead letters: what was set aside, by reference, and how it is put into its topic once more."""

from __future__ import annotations

from infra.serve import READ_BYTES
from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import Record, piece
from schemas.errors import DataError, Refused
from schemas.messages import DeadLetter


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
    return transport.append(letter.topic, original(transport, letter, max_bytes))


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
