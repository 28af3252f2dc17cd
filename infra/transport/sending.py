"""Writing to Kafka: sent until all of it is acknowledged, by as many producers as that takes.

A producer that failed says nothing about the log: the record may be there or not, and those behind
it may be there before it. So it is given up, another one is made, and everything from the first
record on that failed is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import KafkaProducer, errors

from infra.kafka import REFUSALS, KafkaSettings, Outage, connected, refusal
from infra.points import Hook
from infra.transport.offsets import Offsets
from schemas.errors import Forbidden, ServiceError

GRACE = 5.0  # seconds beyond the client's own deadline, which it does not always keep
SLICE = 0.25  # seconds between two looks at whether we are told to stop
BLOCK = 3.0  # seconds in which a topic must be found, and a producer connected again


class Outgoing(NamedTuple):
    """A record on its way; one without a value is a tombstone."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


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

    def send(self, topic: str, outgoing: Sequence[Outgoing]) -> int:
        """Where the first record stands, last if it stands there twice, when all are durable.

        Raises ConfigurationError for what a broker refuses, Forbidden where it gives no right, and
        ServiceError when told to stop.
        """
        first = -1
        left = list(outgoing)
        while True:
            offsets, error = self._attempt(topic, left)
            if offsets and len(left) == len(outgoing):
                first = offsets[0]
            left = left[len(offsets) :]
            if error is None:
                self._outage.over()
                return first
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

    def _attempt(
        self, topic: str, outgoing: Sequence[Outgoing]
    ) -> tuple[list[int], Exception | None]:
        """Offsets of those that were acknowledged before the first failure, and the failure."""
        offsets: list[int] = []
        try:
            producer = self.connect(bootstrap_timeout_ms=round(1000 * BLOCK))
            producer.learn(topic, self._offsets.known)
            futures = [producer.send(topic, partition=0, **each._asdict()) for each in outgoing]
            self._hook("append:written")
            deadline = time.monotonic() + self._settings.delivery_timeout + GRACE
            for future in futures:
                offsets.append(self._acknowledged(future, deadline))
        except (errors.KafkaError, ServiceError) as error:
            return offsets, error
        return offsets, None

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
            "compression_type": self._settings.compression,
            "delivery_timeout_ms": round(1000 * self._settings.delivery_timeout),
            "max_block_ms": round(1000 * BLOCK),
            "metrics_enabled": False,
            "request_timeout_ms": round(1000 * self._settings.request_timeout),
        }
