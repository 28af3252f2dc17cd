"""Images into an entity's stream while it runs, behind what is there already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from infra.transport.base import Transport, Trimmed
from producers.entity import batches, image_batch
from schemas.codec import piece, records, unpack
from schemas.errors import ConfigurationError, Refused
from schemas.limits import LEAST_BYTES
from schemas.messages import (
    ImageBatch,
    Message,
    StreamEnded,
    StreamMarked,
    StreamMoved,
    TwinState,
)
from schemas.topics import Names

READ_BYTES = 4 * 1024 * 1024
MARK = "#"
"""Between the name of a source and the hash of what it holds."""


def source_of(name: str, entity: str, images: NDArray[np.uint8], uids: Sequence[str]) -> str:
    """The source of these images: its name, and a hash of all that it is to hold.

    So other images under one name are another source, and the same ones are streamed on where
    somebody was broken off.
    """
    return f"{name}{MARK}{digest(entity, images, uids)}"


def digest(entity: str, images: NDArray[np.uint8], uids: Sequence[str]) -> str:
    """What names images of an entity: a hash of them and their classes."""
    seen = hashlib.sha256("\0".join((entity, *uids)).encode())
    seen.update(np.ascontiguousarray(images).data)
    return seen.hexdigest()[:16]


class Streaming:
    """One hand that writes into the streams of entities; there is one for each source."""

    def __init__(self, transport: Transport, names: Names, run: str) -> None:
        """`run` is the hash of RunOpened."""
        self._transport = transport
        self._names = names
        self._run = run
        self._places: dict[str, int] = {}
        self._counts: dict[str, dict[str, int]] = {}
        """Topic → source → images that are there."""
        self._settled: set[str] = set()
        """Topics whose beginning was trimmed, and whose twin was asked what that held."""

    def count(self, entity: str, source: str) -> int:
        """How many images of a source an entity's topic has been given, those that were trimmed
        included."""
        return self.counts(entity).get(source, 0)

    def counts(self, entity: str) -> dict[str, int]:
        """The same of every source."""
        topic = self._names.of_entity("samples", entity)
        self._read_on(topic)
        if self._transport.first(topic) and topic not in self._settled:
            self._settled.add(topic)
            with suppress(ConfigurationError):  # who may not ask the twin sends again, and that is
                self._read_on(self._names.of_entity("twin-state", entity), topic)  # no harm
        return self._counts.get(topic, {})

    def stream(
        self, entity: str, source: str, images: NDArray[np.uint8], uids: Sequence[str]
    ) -> int:
        """Add images (N, C, H, W) with their class uids to a source, and mark their end.

        Gives how many images the source has then. Each call adds: one that broke off is not known.
        """
        first = self.count(entity, source)
        self._send(entity, source, first, images, uids)
        self.mark(entity, source, first + len(images))
        return first + len(images)

    def complete(
        self,
        entity: str,
        source: str,
        images: NDArray[np.uint8],
        uids: Sequence[str],
        *,
        most: int | None = None,
        before: Callable[[int], None] = lambda count: None,
    ) -> int:
        """Have a source hold just these images, and mark their end; gives how many were new.

        What of it is there already is not sent again. A message has at most `most` images, and
        `before` is called with their number before each.
        """
        there = min(self.count(entity, source), len(images))
        step = most or max(1, len(images))
        for first in range(there, len(images), step):
            part = slice(first, first + step)
            before(len(uids[part]))
            self._send(entity, source, first, images[part], uids[part])
        self.mark(entity, source, len(images))
        return len(images) - there

    def mark(self, entity: str, source: str, count: int) -> None:
        """So many images of a source are to be judged, also where they are few."""
        said = StreamMarked(run=self._run, source=source, count=count, stage=None)
        self._say(entity, said)

    def end(self, entity: str) -> None:
        """The entity leaves behind what every source has sent it."""
        for source, count in sorted(self.counts(entity).items()):
            self._say(entity, StreamEnded(run=self._run, source=source, count=count))

    def _send(
        self,
        entity: str,
        source: str,
        first: int,
        images: NDArray[np.uint8],
        uids: Sequence[str],
    ) -> None:
        for start, stop in batches(images):
            batch = image_batch(self._run, source, first + start, images[start:stop],
                                uids[start:stop])  # fmt: skip
            self._say(entity, batch)

    def _say(self, entity: str, message: Message) -> None:
        topic = self._names.of_entity("samples", entity)
        self._transport.append(topic, records(message, source="producers")[1])

    def _read_on(self, topic: str, of: str = "") -> None:
        """Read a topic to its end, and note what it tells of a stream: itself, or `of`."""
        counts = self._counts.setdefault(of or topic, {})
        while (place := self._places.get(topic, 0)) < self._transport.end(topic):
            try:
                found = self._transport.read(topic, place, READ_BYTES)
            except Trimmed as trimmed:
                self._places[topic] = trimmed.first
                continue
            for stored in found:
                self._places[topic] = stored.offset + 1
                try:
                    said = unpack(piece(stored.record.value, LEAST_BYTES).content, LEAST_BYTES)
                except Refused:
                    continue
                if said.run == self._run:
                    _note(said, counts)


def _note(said: Message, counts: dict[str, int]) -> None:
    """How far sources are, by a batch, or by what a twin says of those that it let go."""
    match said:
        case ImageBatch(source=source, first=first, classes=classes):
            counts[source] = max(first + len(classes), counts.get(source, 0))
        case TwinState(sources=sources) | StreamMoved(sources=sources):
            for source, count in sources.items():
                counts[source] = max(count, counts.get(source, 0))
