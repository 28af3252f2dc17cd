"""The log on a Kafka cluster: each topic a topic of one partition, made beforehand (infra/topics).

Two consumers read. One follows: every topic that was read to its end is in one long fetch, so a
thousand quiet topics cost a few requests a second; while what came is worked on, more of it comes.
The other visits what lies behind: it asks for one topic at a time, and never waits for something
new. Who reads on comes from the second to the first without noticing. What was read last is kept,
for the next reader of the same topic.

Nothing here is for several threads. After a fork a process makes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from kafka import KafkaAdminClient, TopicPartition

from infra.kafka import KafkaSettings, Outage, connected
from infra.points import Hook, no_hook
from infra.transport.base import Absence, Stored, Trimmed
from infra.transport.consumer import Consumer
from infra.transport.following import Feed, Kept, Window
from infra.transport.offsets import Offsets
from infra.transport.sending import Outgoing, Sender
from schemas.codec import Record
from schemas.errors import ConfigurationError, RunFailed
from schemas.topics import PREFIX

ANSWER = 3.0  # seconds for a question: less than a program may take to stop
FETCH = 0.2  # seconds in which a broker waits for something new, and a topic to be taken on
VISIT = 0.01  # seconds, where it need not, for what is asked for is there
SEEN = 0.25  # seconds that a read may take when something is known to be there
FETCH_BYTES = 8 * 1024 * 1024  # of a topic at a time: each time costs a turn of two threads
VISIT_BYTES = 4 * 1024 * 1024  # there often only one piece is wanted
PAUSE = 0.02  # seconds between two looks at what came, while there is something to do
GAP = 0.002  # seconds between two looks whether a topic is there
MADE = 5.0  # seconds in which a topic must be there that is written to


class Kafka:
    """The transport for many machines."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        stopped: Callable[[], bool] = lambda: False,
        hook: Hook = no_hook,
    ) -> None:
        """Connect; `stopped` says whether the program has been told to end.

        Raises ConfigurationError when a part of the client is missing, ServiceError when the
        cluster cannot be reached.
        """
        self._hook = hook
        self._outage = Outage(settings, stopped)
        self._admin = connected(settings, KafkaAdminClient, request_timeout_ms=round(1000 * ANSWER))
        self._offsets = Offsets(self._admin, self._outage)
        known = self._offsets.known
        kept = Kept(settings.keep_bytes)
        self._followed = Feed(_consumer(settings, FETCH, FETCH_BYTES), kept, known, ahead=True)
        self._visited = Feed(_consumer(settings, VISIT, VISIT_BYTES), kept, known)
        self._sender = Sender(settings, self._outage, hook, self._offsets)
        self._next_look = 0.0
        self._came = False
        """Whether something came while nobody waited."""

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        self._hook("append:before")
        self._must_be_there(topic)
        offsets = self._sender.send(topic, map(_outgoing, records))
        self._offsets.happened()
        self._hook("append:durable")
        return offsets

    def last(self, topic: str, records: Sequence[Record], seconds: float) -> bool:
        return self._sender.last(topic, [_outgoing(each) for each in records], seconds)

    @property
    def away(self) -> Absence | None:
        known = self._outage.known
        return None if known is None else Absence(f"kafka at {self._outage.servers}", *known)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        """What another process has trimmed or forgotten just now may still be given.

        Raises Forbidden for a topic that we have no right to read.
        """
        self._offsets.happened()
        if (window := self._window(topic, place)) is None:
            return []
        if place < window.start:
            return self._behind(window, place, max_bytes)
        found = self._followed.take(window, place, max_bytes)
        if not found:
            self._look(window)
            found = self._followed.take(window, place, max_bytes)
        if window.lost:
            self._check_place(topic, place)
        return found

    def first(self, topic: str) -> int:
        return self._offsets.first(topic)

    def end(self, topic: str) -> int:
        """As of the last time that anything was read, written or waited for, or later."""
        end = self._offsets.end(topic)
        window = self._followed.windows.get(topic)
        if window is None:
            return end
        if window.next < end:
            self._followed.look(window)
        return window.silent if window.next >= end else end

    def topics(self) -> list[str]:
        return self._offsets.written(f"{PREFIX}.")

    def forget(self, topic: str, *keys: str) -> None:
        """Tombstones: in a topic that is compacted the broker lets go in its own time."""
        if keys and self._offsets.end(topic):
            self._sender.send(topic, [Outgoing(key.encode(), None, []) for key in keys])
            self._offsets.happened()

    def trim(self, topic: str, before: int) -> None:
        window = self._followed.windows.get(topic)
        if window is None or window.next < before:  # else it was read so far
            before = min(before, self._offsets.end(topic))
        if before <= 0:
            return
        self._hook("trim")  # below where it begins the broker has nothing to do
        self._outage.insist(lambda: self._admin.delete_records({TopicPartition(topic, 0): before}))
        self._offsets.happened()
        for feed in (self._followed, self._visited):
            if window := feed.windows.get(topic):
                window.trimmed(before)

    def wait(self, seconds: float) -> None:
        self._offsets.happened()
        if not self._came:
            self._followed.poll(seconds)
            self._next_look = time.monotonic() + PAUSE
        self._came = False

    def close(self) -> None:
        for each in (self._sender, self._followed, self._visited, self._admin):
            each.close()

    # --- reading ----------------------------------------------------------------------------------

    def _window(self, topic: str, place: int) -> Window | None:
        """The window in which, or behind which, a place lies; None where the topic is not there."""
        window = self._followed.windows.get(topic)
        if window is not None and window.lost:
            self._check_place(topic, place)
            window = self._followed.open(topic, place)
        elif window is None:
            if not self._offsets.there(topic):
                return None
            window = self._followed.open(topic, self._offsets.end(topic))
        if place > window.next:
            window = self._followed.open(topic, place)
        return window

    def _look(self, window: Window) -> None:
        """See whether something came; where that is known, wait for it."""
        now = time.monotonic()
        if self._offsets.known.get(window.topic, 0) > window.next:
            before = window.next
            while window.next == before and not window.lost and time.monotonic() < now + SEEN:
                self._came |= self._polled(self._followed, window)
        elif now >= self._next_look:
            self._came |= self._followed.poll(0)
            self._next_look = time.monotonic() + PAUSE

    def _behind(self, window: Window, place: int, max_bytes: int) -> list[Stored]:
        """What lies before the window."""
        visited = self._visit(window.topic, place)
        until = time.monotonic() + SEEN
        while not (found := self._visited.take(visited, place, max_bytes)):
            if visited.lost:
                self._visited.leave(window.topic)
                self._check_place(window.topic, place)
                return []
            if visited.next >= window.start:
                window.widen(place)
                return self._followed.take(window, place, max_bytes)
            if time.monotonic() > until:
                break
            self._polled(self._visited, visited)
        return found

    def _polled(self, feed: Feed, window: Window) -> bool:
        """Let something come; where nothing does, see whether there is nothing to come."""
        came = feed.poll(SEEN)
        if not came:
            feed.look(window)
        return came

    def _visit(self, topic: str, place: int) -> Window:
        """The window of a topic that is visited; what was visited before is kept, but at rest."""
        window = self._visited.windows.get(topic)
        if window is None or window.lost or not window.start <= place <= window.next:
            window = self._visited.open(topic, place)
        self._visited.only(topic)
        return window

    def _check_place(self, topic: str, place: int) -> None:
        """Raises Trimmed where a topic begins later, RunFailed where it ends before a place."""
        first, end = self.first(topic), self._offsets.end(topic)
        if place < first:
            raise Trimmed(topic, place, first)
        if place > end:
            raise RunFailed(
                f"{topic} ends at {end} and was read to {place}: it was made anew, or its broker"
                " has lost what it had acknowledged"
            )

    # --- writing ----------------------------------------------------------------------------------

    def _must_be_there(self, topic: str) -> None:
        """Topics are made before a run begins, but not by whoever writes to one."""
        until = time.monotonic() + MADE
        while not self._offsets.there(topic):
            self._outage.check()
            if time.monotonic() > until:
                raise ConfigurationError(
                    f"the topic {topic} is not there: the topics of a run are made by"
                    " fedtwin topics apply"
                )
            time.sleep(GAP)


def _consumer(settings: KafkaSettings, seconds: float, most: int) -> Consumer:
    """A reader without a group, who waits so long for something new, and takes so many bytes."""
    return connected(
        settings,
        Consumer,
        allow_auto_create_topics=False,
        auto_offset_reset="none",  # a place that is gone is told, never skipped
        enable_auto_commit=False,
        fetch_max_wait_ms=round(1000 * seconds),
        max_partition_fetch_bytes=most,
        max_poll_records=10_000,
        metrics_enabled=False,
        request_timeout_ms=round(1000 * ANSWER),
    )


def _outgoing(record: Record) -> Outgoing:
    headers = [(name, text.encode()) for name, text in record.headers.items()]
    return Outgoing(record.key.encode(), record.value, headers)
