"""What a run over Kafka decides and measures, copied into its folder as it is read.

So `show`, `ls` and the report tell of such a run as of any other, also when no broker is there any
more. Large content stays where it is: the model that the run ended with is a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from infra.transport.base import Stored, Transport
from schemas.codec import Record
from schemas.topics import table_row

COPIED = frozenset({"rounds", "teachers", "classes", "metrics", "dead-letters"})
OFFSET = "fedtwin_offset"
"""Header of a copied record: where it lies in its own topic."""


class Recorded:
    """A transport whose reader keeps what it has read of decisions and measurements."""

    def __init__(self, inner: Transport, log: Transport) -> None:
        self._inner = inner
        self._log = log
        self._copied: dict[str, int] = {}
        """Topic → up to where it was copied, also by those before us."""
        self.append, self.first, self.end = inner.append, inner.first, inner.end
        self.topics, self.forget, self.trim = inner.topics, inner.forget, inner.trim
        self.wait, self.close = inner.wait, inner.close

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        found = self._inner.read(topic, place, max_bytes)
        if found and table_row(topic).name in COPIED:
            self._copy(topic, found)
        return found

    def _copy(self, topic: str, found: Sequence[Stored]) -> None:
        up_to = self._copied.setdefault(topic, self._last(topic) + 1)
        fresh = [each for each in found if each.offset >= up_to]
        if fresh:
            self._log.append(topic, [_with_offset(each) for each in fresh])
            self._copied[topic] = fresh[-1].offset + 1

    def _last(self, topic: str) -> int:
        """The last offset that the log holds a copy of; -1 for none."""
        end = self._log.end(topic)
        if end == self._log.first(topic):
            return -1
        (last,) = self._log.read(topic, end - 1, 1)
        return int(last.record.headers.get(OFFSET, -1))


def _with_offset(stored: Stored) -> Record:
    return replace(stored.record, headers={**stored.record.headers, OFFSET: str(stored.offset)})
