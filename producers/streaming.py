"""Images into an entity's stream while it runs, behind what is there already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.transport.base import Transport, Trimmed
from producers.entity import batches, image_batch
from schemas.codec import piece, records, unpack
from schemas.errors import Refused
from schemas.limits import LEAST_BYTES
from schemas.messages import ImageBatch, Message, StreamEnded, StreamMarked
from schemas.topics import Names

READ_BYTES = 4 * 1024 * 1024


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

    def count(self, entity: str, source: str) -> int:
        """How many images of a source an entity's topic has been given."""
        topic = self._names.of_entity("samples", entity)
        self._read_on(topic)
        return self._counts.get(topic, {}).get(source, 0)

    def stream(
        self, entity: str, source: str, images: NDArray[np.uint8], uids: Sequence[str]
    ) -> int:
        """Add images (N, C, H, W) with their class uids to a source, and mark their end.

        Gives how many images the source has then. Each call adds: one that broke off is not known.
        """
        first = self.count(entity, source)
        for start, stop in batches(images):
            batch = image_batch(self._run, source, first + start, images[start:stop],
                                uids[start:stop])  # fmt: skip
            self._say(entity, batch)
        self._say(entity, StreamMarked(run=self._run, source=source, count=first + len(images),
                                       stage=None))  # fmt: skip
        return first + len(images)

    def end(self, entity: str) -> None:
        """The entity leaves behind what every source has sent it."""
        topic = self._names.of_entity("samples", entity)
        self._read_on(topic)
        for source, count in sorted(self._counts.get(topic, {}).items()):
            self._say(entity, StreamEnded(run=self._run, source=source, count=count))

    def _say(self, entity: str, message: Message) -> None:
        topic = self._names.of_entity("samples", entity)
        self._transport.append(topic, records(message, source="producers")[1])

    def _read_on(self, topic: str) -> None:
        counts = self._counts.setdefault(topic, {})
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
                if isinstance(said, ImageBatch) and said.run == self._run:
                    behind = said.first + len(said.classes)
                    counts[said.source] = max(behind, counts.get(said.source, 0))
