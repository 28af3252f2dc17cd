"""The test mode of a transport: as unkind as a real broker may be, and never dishonest.

Reads give what is there piecemeal or not yet, so topics merge at random. Appends are sometimes
repeated from a failed record on, as a sender does whose connection broke: some of the records were
written, with holes, and then all of them again from the first missing one.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from infra.transport.base import Stored, Transport
from schemas.codec import Record


class Unkind:
    """Wraps any transport; `trouble` is the probability of each unkindness, below 1."""

    def __init__(self, inner: Transport, chance: random.Random, trouble: float = 0.3) -> None:
        if not 0.0 <= trouble < 1.0:
            raise ValueError(f"trouble {trouble}: at least 0, and below 1 or nothing is ever read")
        self._inner = inner
        self._chance = chance
        self._trouble = trouble

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        records = list(records)
        if not records or self._chance.random() >= self._trouble:
            return self._inner.append(topic, records)
        arrived = [self._chance.random() < 0.5 for _ in records]
        missing = arrived.index(False) if False in arrived else 0
        written = [each for each, there in zip(records, arrived, strict=True) if there]
        first = self._inner.append(topic, written) if written else []
        return first[:missing] + self._inner.append(topic, records[missing:])

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        found = self._inner.read(topic, place, max_bytes)
        if not found or self._chance.random() < self._trouble:
            return []
        return found[: self._chance.randint(1, len(found))]

    def first(self, topic: str) -> int:
        return self._inner.first(topic)

    def end(self, topic: str) -> int:
        return self._inner.end(topic)

    def topics(self) -> list[str]:
        return self._inner.topics()

    def forget(self, topic: str, *keys: str) -> None:
        self._inner.forget(topic, *keys)

    def trim(self, topic: str, before: int) -> None:
        self._inner.trim(topic, before)

    def wait(self, seconds: float) -> None:
        self._inner.wait(seconds)

    def close(self) -> None:
        self._inner.close()
