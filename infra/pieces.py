"""Messages in pieces: where the pieces of unfinished ones lie, and what lies at a place.

Only offsets are kept, never bytes: a piece that nobody ever completes costs its reader some hundred
bytes, whatever its size, and a message is complete whenever its last missing piece comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from infra.promises import Place
from infra.transport.base import Stored, Transport
from schemas.codec import PIECE_BYTES, NotKnown, Piece, Whole, piece, unpack
from schemas.errors import ConfigurationError
from schemas.messages import Message
from schemas.topics import table_row

AHEAD_BYTES = 4 * 1024 * 1024


class Unfinished(NamedTuple):
    """A message that lacks a piece."""

    hash: str
    pieces: int
    """How many it has."""
    offsets: tuple[int, ...]
    """Where those lie that came."""


class Pieces:
    """The unfinished messages of one topic, whoever writes their pieces and however often."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, dict[int, int]]] = {}
        """Hash → how many pieces, and where those lie that came."""
        self._quiet: dict[str, int] = {}
        """Hash of a message that was whole once, or lost pieces to a trim → one of its offsets."""

    def add(self, part: Piece, offset: int) -> tuple[int, ...] | None:
        """Where the message lies, piece by piece, when this was its last missing one.

        Of a piece that comes twice the later one counts: what stood before it may be trimmed first.
        """
        if part.count == 1:
            return (offset,)
        _, offsets = self._open.setdefault(part.message, (part.count, {}))
        offsets[part.index] = offset
        if len(offsets) < part.count:
            return None
        del self._open[part.message]
        self._quiet[part.message] = offset
        return tuple(offsets[index] for index in range(part.count))

    def whole(self, message: str, offset: int) -> None:
        """A message is in the topic, the last piece there: they need not be given here."""
        self._open.pop(message, None)
        self._quiet[message] = offset

    def trimmed(self, first: int) -> None:
        """Everything below an offset is gone, and can complete nothing."""
        for message, (count, offsets) in list(self._open.items()):
            left = {index: offset for index, offset in offsets.items() if offset >= first}
            if not left:
                del self._open[message]
            elif len(left) < len(offsets):
                self._open[message] = (count, left)
                self._quiet[message] = max(left.values())
        self._quiet = {each: last for each, last in self._quiet.items() if last >= first}

    def unfinished(self) -> Iterator[Unfinished]:
        """Messages that lack a piece which never came; not the rest of a copy of a whole one."""
        for message, (count, offsets) in self._open.items():
            if message not in self._quiet:
                yield Unfinished(message, count, tuple(sorted(offsets.values())))


def fetched(transport: Transport, place: Place, max_bytes: int) -> Message:
    """The message at a place.

    Raises LookupError when a piece of it is gone, and Refused as `unpack` does.
    """
    return unpack(gathered(transport, place, max_bytes).payload, max_bytes)


def may_be_passed_over(later: NotKnown, topic: str, offset: int) -> None:
    """Raises ConfigurationError where it may not: without a decision of all the run would fork."""
    if table_row(topic).name in {"rounds", "teachers"}:
        raise ConfigurationError(
            f"{topic} at {offset}: {later.detail}. To pass over it would fork the run: use the"
            " program that wrote it"
        ) from None


def gathered(transport: Transport, place: Place, max_bytes: int) -> Whole:
    """The bytes of the message at a place. Raises LookupError when a piece of it is gone.

    Each piece is copied once, to where it belongs: the records themselves are let go on the way.
    The only one of a message stays where it is.
    """
    if len(place.offsets) == 1:
        (stored,) = _records(transport, place)
        only = piece(stored.record.value, max_bytes)
        if only.count != 1:
            raise _of_another(place, stored)
        return Whole(only.message, only.content, place.offsets)
    room, size, hashes = np.empty(len(place.offsets) * PIECE_BYTES, np.uint8).data, 0, set[str]()
    for index, stored in enumerate(_records(transport, place)):
        part = piece(stored.record.value, max_bytes)
        hashes.add(part.message)
        if (part.index, part.count) != (index, len(place.offsets)) or len(hashes) > 1:
            raise _of_another(place, stored)
        room[size : size + len(part.content)] = part.content
        size += len(part.content)
    return Whole(hashes.pop(), room[:size].toreadonly(), place.offsets)


def _of_another(place: Place, stored: Stored) -> LookupError:
    return LookupError(f"{place.topic}: offset {stored.offset} is a piece of another message")


def _records(transport: Transport, place: Place) -> Iterator[Stored]:
    """The records at a place. Pieces mostly lie side by side, and are read together."""
    ahead: dict[int, Stored] = {}
    for i, offset in enumerate(place.offsets):
        if offset not in ahead:
            row = _in_a_row(place.offsets[i:])
            size = min(row * PIECE_BYTES, AHEAD_BYTES) if row > 1 else 1
            ahead = {each.offset: each for each in _there(transport, place.topic, offset, size)}
        yield ahead[offset]


def _in_a_row(offsets: Sequence[int]) -> int:
    """How many of the first offsets have nothing of others between them."""
    return next((n for n, each in enumerate(offsets) if each != offsets[0] + n), len(offsets))


def _there(transport: Transport, topic: str, offset: int, max_bytes: int) -> list[Stored]:
    """Records from an offset on. That nothing comes is no proof that nothing is there."""
    while not (found := transport.read(topic, offset, max_bytes)):
        if transport.end(topic) <= offset:
            break
    if not found or found[0].offset != offset:
        raise LookupError(f"{topic} no longer holds offset {offset}")
    return found
