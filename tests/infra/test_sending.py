"""Which records travel together to Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from logging import WARNING, LogRecord
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from infra.kafka import KafkaSettings, Outage, Overheard
from infra.points import no_hook
from infra.transport.sending import AHEAD_BYTES, Outgoing, Sender, _bursts
from schemas.codec import PIECE_BYTES

KB = 1000


def outgoing(size: int) -> Outgoing:
    """A record of so many bytes."""
    return Outgoing(b"key", bytes(size), [])


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ([], []),
        ([400 * KB] * 5, [2, 2, 1]),  # models of `tiny`: a third would not fit
        ([PIECE_BYTES] * 3, [1, 1, 1]),  # of a large one
        ([200, 900 * KB, 200], [2, 1]),
        ([300 * KB, 300 * KB, 300 * KB, 300 * KB], [3, 1]),
        ([400 * KB, 700 * KB], [2]),
        ([1] * 1000, [1000]),
    ],
)
def test_records_that_fit_into_one_request_travel_together(
    sizes: list[int], together: list[int]
) -> None:
    """All of them, in order; those that do not fit after all the client parts."""
    records = [outgoing(size) for size in sizes]

    bursts = list(_bursts(records))

    assert [len(burst) for burst in bursts] == together
    assert [each for burst in bursts for each in burst] == records


def test_a_record_is_sent_before_the_one_behind_it_is_made() -> None:
    """Of large ones: while a broker takes the first, the second is hashed."""
    made: list[int] = []

    def make() -> Iterator[Outgoing]:
        for number in range(3):
            made.append(number)
            yield outgoing(PIECE_BYTES)

    next(_bursts(make()))

    assert made == [0]


def test_a_tombstone_has_no_size() -> None:
    """A thousand of them are one request."""
    assert [len(each) for each in _bursts([Outgoing(b"key", None, [])] * 1000)] == [1000]


class Told:
    """What a producer gives for a record: at once, where it stands, or that it failed."""

    is_done = True

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def get(self, timeout: float) -> SimpleNamespace:
        """Its place. Raises KafkaTimeoutError where it has none."""
        if self._offset is None:
            raise errors.KafkaTimeoutError("lost")
        return SimpleNamespace(offset=self._offset)


class Log:
    """A producer of a log that loses one record, once; and all else that a sender needs."""

    def __init__(self, lost: int) -> None:
        self.values: list[bytes] = []
        self._lost: int | None = lost

    def send(self, topic: str, partition: int, key: bytes, value: bytes, headers: Any) -> Told:
        """One more record, or none."""
        if len(self.values) == self._lost:
            self._lost = None
            return Told(None)
        self.values.append(value)
        return Told(len(self.values) - 1)

    def send_all(self, topic: str, burst: Iterable[Outgoing]) -> list[Told]:
        """Some more."""
        return [self.send(topic, partition=0, **each._asdict()) for each in burst]

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **more: None


@pytest.mark.parametrize("lost", range(0, 28, 3))
def test_what_was_lost_is_sent_again_with_all_that_was_taken_behind_it(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fourteen models of two records each, together more than may be on its way."""
    log: Any = Log(lost)
    log.known = {}
    sender = Sender(KafkaSettings("nobody:1"), log, no_hook, log)
    monkeypatch.setattr(sender, "connect", lambda **more: log)
    records = [outgoing(size) for _ in range(14) for size in (PIECE_BYTES, 250 * KB)]
    assert sum(len(each.value or b"") for each in records) > AHEAD_BYTES

    offsets = sender.send("topic", records)

    assert [log.values[offset] for offset in offsets] == [each.value for each in records]


def test_a_request_has_room_for_what_is_sent_together() -> None:
    """The client's own is 16 kB; more would not fit a broker that nobody has told otherwise."""
    nobody: Any = None
    size = Sender(KafkaSettings("nobody:1"), nobody, no_hook, nobody)._arguments()["batch_size"]

    assert size == 1_000_000


@pytest.mark.parametrize("overheard", [False, True])
def test_that_copies_are_missing_is_told_whichever_way_a_record_was_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, overheard: bool
) -> None:
    """By the broker's last answer, or by the client's clock behind one that it has mentioned."""
    error: errors.KafkaError = errors.NotEnoughReplicasError()
    heard = Overheard()
    monkeypatch.setattr("infra.kafka.OVERHEARD", heard)
    if overheard:
        said = "Got error produce response on topic-partition %s, retrying (%s attempts left): %s"
        words = ("rounds-0", 2, type(error).__name__)
        heard.emit(LogRecord("kafka", WARNING, __file__, 1, said, words, None))
        error = errors.KafkaTimeoutError("3 seconds have passed")

    Outage(KafkaSettings("127.0.0.1:9"), lambda: False).wait(error)

    (line,) = [each for each in caplog.messages if each.startswith("Kafka at")]
    assert "fewer copies are in reach than must have a record (min.insync.replicas)" in line
