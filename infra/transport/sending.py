"""Writing to Kafka: sent until all of it is acknowledged, by as many producers as that takes.

A producer that failed says nothing about the log: the record may be there or not, and those behind
it may be there before it. So it is given up, another one is made, and everything from the first
record on that failed is sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import KafkaProducer, errors

from infra.kafka import REFUSALS, KafkaSettings, Outage, connected, refusal
from infra.points import Hook
from infra.transport.offsets import Offsets
from schemas.errors import Forbidden, ServiceError

GRACE = 5.0  # seconds beyond the client's own deadline, which it does not always keep
SLICE = 0.25  # seconds between two looks at whether we are told to stop
AHEAD_BYTES = 8 * 1024 * 1024  # on their way at a time: enough to keep a broker busy
BATCH_BYTES = 1_000_000  # of a topic's records in one request; by itself a broker takes 1,048,588
BLOCK = 3.0  # seconds in which a topic must be found, and a producer connected again


class Outgoing(NamedTuple):
    """A record on its way; one without a value is a tombstone."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


class _UnderWay:
    """Records that are sent together."""

    def __init__(self, more: Iterator[Outgoing]) -> None:
        self.offsets: list[int] = []
        """Where those stand that were acknowledged."""
        self.size = 0
        """Bytes of those that were taken, and were not."""
        self._taken: deque[Outgoing] = deque()
        self._more = more

    def left(self) -> Iterator[Outgoing]:
        """All that is not acknowledged: what was taken before, then more."""
        yield from tuple(self._taken)
        for each in self._more:
            self._taken.append(each)
            self.size += len(each.value or b"")
            yield each

    def stands(self, offset: int) -> None:
        """The first of them is acknowledged."""
        self.offsets.append(offset)
        self.size -= len(self._taken.popleft().value or b"")


class Producer(KafkaProducer):  # type: ignore[misc]
    """A producer that may be given up.

    The client closes each producer when it is collected and when the program ends: it waits for
    what is unsent, and complains. From one that was given up nobody wants that.
    """

    given_up = False

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._learned: set[str] = set()

    def learn(self, topic: str, others: Collection[str]) -> None:
        """Ask for the leader of a topic, and of others with it: one by one each costs 0.1 s."""
        if topic not in self._learned:
            self._learned |= {topic, *others}
            for each in self._learned:
                self._sender.add_topic(each)  # the client has no public word for several
            self.partitions_for(topic)

    def send_all(self, topic: str, burst: Iterable[Outgoing]) -> list[Any]:
        """Send records of a topic that was learned, and wake the client's other thread once.

        The client wakes it where a request begins, and again where it is full: it then takes the
        processor from who is about to give it more.
        """
        self._sender.wakeup = lambda: None
        try:
            return [self.send(topic, partition=0, **each._asdict()) for each in burst]
        finally:
            del self._sender.wakeup
            self._sender.wakeup()

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        if not self.given_up:
            super().close(timeout, null_logger)

    def give_up(self) -> None:
        """Cut its connection, so that nothing of it arrives behind what is sent anew."""
        self.given_up = True
        self._sender.force_close()  # the client has no public word for "at once"


class Sender:
    """Writes to topics of one cluster; the producer is made when it is needed."""

    def __init__(
        self, settings: KafkaSettings, outage: Outage, hook: Hook, offsets: Offsets
    ) -> None:
        self._settings = settings
        self._outage = outage
        self._hook = hook
        self._offsets = offsets
        self._producer: Producer | None = None

    def connect(self, **more: object) -> Producer:
        """The producer, or a new one. Raises ServiceError when Kafka cannot be reached."""
        if self._producer is None:
            self._producer = connected(self._settings, Producer, **self._arguments() | more)
        return self._producer

    def send(self, topic: str, outgoing: Iterable[Outgoing]) -> list[int]:
        """Where each record stands, last if it stands there twice, when all are durable.

        They are taken one by one while those before are on their way.

        Raises ConfigurationError for what a broker refuses, Forbidden where it gives no right, and
        ServiceError when told to stop.
        """
        under_way = _UnderWay(iter(outgoing))
        while True:
            error = self._attempt(topic, under_way)
            if error is None:
                self._outage.over()
                return under_way.offsets
            self._give_up()
            if isinstance(error, Forbidden):
                raise error
            if isinstance(error, REFUSALS):
                raise refusal(error, f"write to {topic}") from error
            self._outage.wait(error)
            self._offsets.reach()  # before a producer is made: one that fails leaves files open

    def last(self, topic: str, outgoing: Sequence[Outgoing], seconds: float) -> bool:
        """One try by a connection of its own; whether all of it was acknowledged in time."""
        self._give_up()
        limit, until = round(1000 * seconds), time.monotonic() + seconds
        short = {
            "bootstrap_timeout_ms": limit,
            "max_block_ms": limit,
            "request_timeout_ms": limit,
            "delivery_timeout_ms": limit,
        }
        try:
            self._producer = Producer(**self._settings.client() | self._arguments() | short)
            sent = [self._producer.send(topic, partition=0, **e._asdict()) for e in outgoing]
            for each in sent:
                each.get(timeout=max(0.0, until - time.monotonic()))
        except (errors.KafkaError, OSError):
            return False
        finally:
            self._give_up()
        return True

    def close(self) -> None:
        """End the connection; what was acknowledged stands, and nothing else is waited for."""
        if self._producer is not None:
            with suppress(errors.KafkaError):  # something was left, for we were interrupted
                self._producer.close(timeout=1)
            self._give_up()

    def _attempt(self, topic: str, under_way: _UnderWay) -> Exception | None:
        """Send what is not acknowledged yet, up to the first failure; gives that."""
        sent: deque[tuple[Any, float]] = deque()
        lasts = self._settings.delivery_timeout + GRACE
        try:
            producer = self.connect(bootstrap_timeout_ms=round(1000 * BLOCK))
            producer.learn(topic, self._offsets.known)
            for burst in _bursts(under_way.left()):
                for future in producer.send_all(topic, burst):
                    sent.append((future, time.monotonic() + lasts))
                while sent and under_way.size > AHEAD_BYTES:  # of what failed, not all is sent yet
                    under_way.stands(self._acknowledged(*sent.popleft()))
            self._hook("append:written")
            while sent:
                under_way.stands(self._acknowledged(*sent.popleft()))
        except (errors.KafkaError, ServiceError) as error:
            return error
        return None

    def _acknowledged(self, future: Any, deadline: float) -> int:
        """The offset of a record. Unresolved counts as failed."""
        while not future.is_done and time.monotonic() < deadline:
            self._outage.check()
            with suppress(errors.KafkaError):  # its failure, or only that it takes longer
                future.get(timeout=SLICE)
        return int(future.get(timeout=0).offset)

    def _give_up(self) -> None:
        if self._producer is not None:
            self._producer.give_up()
            self._producer = None

    def _arguments(self) -> dict[str, object]:
        return {
            "acks": "all",  # and so idempotent: the client's default
            "allow_auto_create_topics": False,
            "batch_size": BATCH_BYTES,
            "compression_type": self._settings.compression,
            "delivery_timeout_ms": round(1000 * self._settings.delivery_timeout),
            "max_block_ms": round(1000 * BLOCK),
            "metrics_enabled": False,
            "request_timeout_ms": round(1000 * self._settings.request_timeout),
        }


def _bursts(outgoing: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Records that fit into one request, made before the first of them is sent.

    The client sends what it has as soon as it can: of records that are given to it one by one, as
    each is made, each would be a request, and cost both sides some milliseconds. Those of a burst
    usually are one.
    """
    burst: list[Outgoing] = []
    size = 0
    for each in outgoing:
        burst.append(each)
        size += (last := len(each.value or b""))
        if size + last > BATCH_BYTES:  # one more like it would not fit
            yield burst
            burst, size = [], 0
    if burst:
        yield burst
