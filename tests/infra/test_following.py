"""What two feeds keep together, with consumers that give what a story has for them."""

from __future__ import annotations

import gc
import tracemalloc
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from infra.memory import give_back
from infra.transport import following
from infra.transport.following import HEAD_BYTES, LEAST_KEPT, Feed, Kept
from schemas.codec import PIECE_BYTES, Record, records
from schemas.messages import Heartbeat

MEBIBYTE = 2**20
RECORD = 1000 + HEAD_BYTES


class Broker:
    """A consumer that gives what lies ready, all at once."""

    def __init__(self) -> None:
        self._ready: dict[TopicPartition, list[Any]] = defaultdict(list)
        self.asked_ahead = 0

    def ask_ahead(self) -> None:
        """Counted."""
        self.asked_ahead += 1

    def has(self, topic: str, count: int, *, size: int = 1000, pieces: int = 1) -> None:
        """So many records lie in a topic, from offset 0 on, each of so many bytes and of a message
        of so many pieces."""
        headers = [("fedtwin_pieces", str(pieces).encode())]
        self._ready[TopicPartition(topic, 0)] = [
            SimpleNamespace(
                offset=offset, key=b"", value=bytes(size), headers=headers, timestamp=-1
            )
            for offset in range(count)
        ]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Everything that lies ready."""
        ready, self._ready = self._ready, defaultdict(list)
        return ready

    def assign(self, *told: object) -> None:
        """It gives what it has, whatever it is told."""

    pause = resume = seek = assign


def read(feed: Feed, broker: Broker, topic: str, count: int) -> None:
    """So many records come, and somebody takes them."""
    window = feed.open(topic, 0)
    broker.has(topic, count)
    feed.poll(0)
    assert len(feed.take(window, 0, count * 1000)) == count


def test_a_message_as_large_as_what_is_kept_can_be_read_again_whoever_brought_it() -> None:
    """Of two feeds one has all the room that the other does not use."""
    kept = Kept(20 * RECORD)
    brokers = Broker(), Broker()
    followed, _ = (Feed(broker, kept) for broker in brokers)

    read(followed, brokers[0], "updates", 20)
    followed.poll(0)

    assert len(followed.take(followed.windows["updates"], 0, 20_000)) == 20


def test_what_was_not_asked_for_the_longest_goes_first_whichever_feed_has_it() -> None:
    """Room for twenty: eight old ones, eight newer ones, eight that come; four old ones go."""
    kept = Kept(20 * RECORD)
    brokers = Broker(), Broker()
    followed, visited = (Feed(broker, kept) for broker in brokers)
    read(visited, brokers[1], "old", 8)
    read(followed, brokers[0], "newer", 8)

    read(visited, brokers[1], "newest", 8)

    assert visited.windows["old"].start == 4
    assert (followed.windows["newer"].start, visited.windows["newest"].start) == (0, 0)


@pytest.mark.parametrize(
    ("size", "pieces", "room"),
    [
        (MEBIBYTE // 8, 1, LEAST_KEPT),
        (MEBIBYTE, 1, 4 * MEBIBYTE),
        (MEBIBYTE, 6, 24 * PIECE_BYTES),
        (MEBIBYTE, 50, 64e6),
    ],
)
def test_how_much_is_kept_goes_by_the_largest_message(size: int, pieces: int, room: float) -> None:
    """Of 64 MB at most: four messages of one piece, of six, or of fifty as much as there is room
    for; small ones fill two mebibytes and no more, however long they come."""
    kept, broker = Kept(64_000_000), Broker()
    followed = Feed(broker, kept)

    for number in range(10):
        window = followed.open(f"topic-{number}", 0)
        broker.has(f"topic-{number}", 10, size=size, pieces=pieces)
        followed.poll(0)
        followed.take(window, 0, 10 * MEBIBYTE)
    followed.poll(0)
    broker.has("another", 1)
    followed.open("another", 0)
    followed.poll(0)

    held = sum(window.size for window in followed.windows.values())
    assert room - 1.1 * MEBIBYTE < held <= room + RECORD


@pytest.mark.parametrize(
    ("ahead", "mebibytes", "asked"), [(True, 4, 1), (True, 3, 0), (True, 17, 0), (False, 4, 0)]
)
def test_behind_much_more_is_asked_for_at_once(ahead: bool, mebibytes: int, asked: int) -> None:
    """By who follows: behind little it is not worth it, and a topic that is left has to rest."""
    broker = Broker()
    feed = Feed(broker, Kept(64_000_000), ahead=ahead)
    feed.open("updates", 0)
    broker.has("updates", mebibytes, size=MEBIBYTE)

    feed.poll(0)

    assert broker.asked_ahead == asked
    assert ("updates" in feed.windows) == (mebibytes < 17)


def test_what_a_record_costs_beside_its_value_is_what_is_counted() -> None:
    """A thousand heartbeats with their headers: within a tenth of what `HEAD_BYTES` says."""
    beat = Heartbeat(run="", process="a", role="twins", at=1.0, in_work=(), waits=(), up=1.0)
    record = records(beat, source="twins")[1][0]
    feed = Feed(Spoken(record), Kept(64_000_000))
    feed.open("metrics", 0)
    gc.collect()
    tracemalloc.start()

    feed.poll(0)

    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / 1000 - len(record.value)
    tracemalloc.stop()
    assert each == pytest.approx(HEAD_BYTES, rel=0.1)


class Spoken(Broker):
    """Gives a record a thousand times, each time made of bytes of its own, as the client does."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """All of them."""
        return {TopicPartition("metrics", 0): [self._copy(offset) for offset in range(1000)]}

    def _copy(self, offset: int) -> Any:
        headers = [
            (name.encode().decode(), text.encode()) for name, text in self._record.headers.items()
        ]
        return SimpleNamespace(
            offset=1000 + offset,
            key=self._record.key.encode(),
            value=bytes(bytearray(self._record.value)),
            headers=headers,
            timestamp=1_700_000_000_000 + offset,
        )


@pytest.mark.parametrize(("least", "times"), [(0, 6), (161, 5), (320, 3), (961, 0)])
def test_free_memory_is_given_back_each_time_that_four_times_what_is_kept_was_let_go(
    monkeypatch: pytest.MonkeyPatch, least: int, times: int
) -> None:
    """Room for forty: of a thousand that come five at a time 960 go, so it happens six times, at
    each 160; of small ones each time that it is worth it."""
    given: list[None] = []
    monkeypatch.setattr(following, "give_back", lambda: given.append(None))
    monkeypatch.setattr(following, "LEAST_GIVEN", least * RECORD)
    kept = Kept(40 * RECORD)
    broker = Broker()
    followed = Feed(broker, kept)

    for number in range(200):
        read(followed, broker, f"topic-{number}", 5)

    assert len(given) == times


def test_giving_memory_back_changes_nothing() -> None:
    """What is held is held, wherever this runs."""
    held = [bytes([number]) * 2**20 for number in range(8)]

    del held[::2]
    give_back()

    assert [each[-1] for each in held] == [1, 3, 5, 7]
