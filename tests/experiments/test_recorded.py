"""What is read of decisions and measurements lies in the run's folder as well."""

from __future__ import annotations

from contextlib import closing

from experiments.recorded import Recorded
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record
from schemas.topics import Names

ROUNDS, UPDATES = Names("spring").federation("rounds"), Names("spring").of_site("updates", "local")


def values(log: Log, topic: str) -> list[bytes]:
    """What a topic holds."""
    return [each.record.value for each in log.read(topic, 0, 2**20)]


def test_decisions_are_copied_once_and_updates_never() -> None:
    """However often they are read, and by whoever goes on after us."""
    with closing(Log()) as theirs, closing(Log()) as ours:
        theirs.append(ROUNDS, [Record("a", b"1"), Record("b", b"2")])
        theirs.append(UPDATES, [Record("c", b"large")])
        first = Recorded(theirs, ours)
        for topic in (ROUNDS, ROUNDS, UPDATES):
            first.read(topic, 0, 2**20)
        theirs.append(ROUNDS, [Record("d", b"3")])
        second = Recorded(theirs, ours)

        assert [each.record.value for each in second.read(ROUNDS, 0, 2**20)] == [b"1", b"2", b"3"]
        assert values(ours, ROUNDS) == [b"1", b"2", b"3"]
        assert values(ours, UPDATES) == []
