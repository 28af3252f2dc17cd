"""The test mode of a transport: as unkind as a real broker may be, and never dishonest.

Reads give what is there piecemeal or not yet, so topics merge at random. Appends are sometimes
repeated from a failed record on, as a sender does whose connection broke: a part of the records was
written, in an order with holes, and then all of them again from the first missing one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from infra.transport.base import Stored, Transport
from schemas.codec import Record


class Unkind:
    """Wraps any transport."""

    def __init__(self, inner: Transport, chance: random.Random, trouble: float = 0.3) -> None:
        self._inner = inner
        self._chance = chance
        self._trouble = trouble

    def append(self, topic: str, records: Sequence[Record]) -> int:
        if self._chance.random() >= self._trouble:
            return self._inner.append(topic, records)
        written = [each for each in records if self._chance.random() < 0.5]
        start = self._inner.append(topic, written) if written else self._inner.end(topic)
        missing = next((i for i, each in enumerate(records) if each not in written), 0)
        self._inner.append(topic, records[missing:])
        return start

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        found = self._inner.read(topic, place, max_bytes)
        if found and self._chance.random() < self._trouble:
            return []
        return found[: self._chance.randint(1, len(found))] if found else found

    def first(self, topic: str) -> int:
        return self._inner.first(topic)

    def end(self, topic: str) -> int:
        return self._inner.end(topic)

    def topics(self) -> list[str]:
        return self._inner.topics()

    def forget(self, topic: str, key: str) -> None:
        self._inner.forget(topic, key)

    def trim(self, topic: str, before: int) -> None:
        self._inner.trim(topic, before)

    def close(self) -> None:
        self._inner.close()
