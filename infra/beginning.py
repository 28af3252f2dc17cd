"""Where a program begins to read a live run's decisions: at a Standing, not at the first of all.

A Standing names the one before it by its hash, and whoever wrote it had read that back. So of the
last one in the log it need not be known whether it counts: the one that it names does, and so does
the one before that, at which the program begins. On its way to the end it passes the one between,
by which every reader lets go what lies before the place where this program began.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping

from infra.pieces import Pieces, gathered
from infra.program import First
from infra.promises import Place, Start
from infra.serve import READ_BYTES, Surroundings
from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import piece, unpack
from schemas.errors import Refused
from schemas.messages import Standing
from schemas.topics import Names

LOOK = 1024  # records that are looked through at first, from the end on; then twice as many
Found = dict[str, tuple[Standing, Place]]
"""Hash of each Standing → it, and where it lies; the last one in the log first."""


def newest_start(transport: Transport, names: Names, max_bytes: int) -> Start | None:
    """The newest Standing at which a program can begin; None where it has to read all."""
    first = First(transport, names)
    opened = first.look()
    if opened is None or not opened.configuration.live:
        return None
    backwards, found = _Backwards(transport, names.federation("rounds"), max_bytes), Found()
    while True:
        more = backwards.look()
        found |= {hash: each for hash, each in more if each[0].run == first.hash}
        start = _before(found, _before(found, next(iter(found), None)))
        if start is not None and start in found:
            told, place = found[start]
            return Start(opened, first.hash, told, start, place)
        if backwards.over or (found and start is None and _is_known(found)):
            return None


def start_of(
    given: Namespace, transport: Transport, names: Names, around: Surroundings
) -> Start | None:
    """The same for a program, unless its options say that it reads all."""
    return None if given.whole_line else newest_start(transport, names, around.max_bytes)


def _before(found: Mapping[str, tuple[Standing, Place]], hash: str | None) -> str | None:
    """Hash of the Standing before one; None where either is not known."""
    told = found[hash][0] if hash is not None and hash in found else None
    return told.before.hash if told is not None and told.before else None


def _is_known(found: Mapping[str, tuple[Standing, Place]]) -> bool:
    """Whether there are too few of them in the whole log: it is known that nothing is before."""
    told = next(iter(found.values()))[0]
    if told.before is None:
        return True
    return told.before.hash in found and found[told.before.hash][0].before is None


class _Backwards:
    """Reads a topic from its end on, in parts."""

    def __init__(self, transport: Transport, topic: str, max_bytes: int) -> None:
        self._transport = transport
        self._topic = topic
        self._max_bytes = max_bytes
        self._pieces = Pieces()
        self._first, self._end = transport.first(topic), transport.end(topic)
        self._size = LOOK

    @property
    def over(self) -> bool:
        """Whether it came to the topic's beginning."""
        return self._end <= self._first

    def look(self) -> list[tuple[str, tuple[Standing, Place]]]:
        """The Standings of the part before those that were looked at; the last one first."""
        begin = max(self._first, self._end - self._size)
        found = [each for stored in self._records(begin) for each in self._whole(stored)]
        self._end, self._size = begin, 2 * self._size
        return found[::-1]

    def _records(self, place: int) -> Iterator[Stored]:
        while place < self._end:
            try:
                found = self._transport.read(self._topic, place, READ_BYTES)
            except Trimmed as trimmed:
                place = trimmed.first
                continue
            for stored in found:
                place = stored.offset + 1
                if stored.offset < self._end:
                    yield stored

    def _whole(self, stored: Stored) -> Iterator[tuple[str, tuple[Standing, Place]]]:
        """The Standing that this record completes, if its header does not say that it is none."""
        if ".Standing." not in stored.record.headers.get("ce_type", ".Standing."):
            return
        try:
            part = piece(stored.record.value, self._max_bytes)
            offsets = self._pieces.add(part, stored.offset)
            if offsets is None:
                return
            place = Place(self._topic, offsets)
            whole = gathered(self._transport, place, self._max_bytes)
            message = unpack(whole.payload, self._max_bytes)
        except (Refused, LookupError):
            return
        if isinstance(message, Standing):
            yield whole.hash, (message, place)
