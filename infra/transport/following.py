"""Reading Kafka: topics in windows of what was read last, filled by one consumer.

A window knows what lies between two offsets and where that is silent: offsets have gaps, and the
marks that forgetting writes (tombstones) are no records for anybody who reads.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable
from contextlib import suppress
from operator import attrgetter
from typing import Any

from kafka import KafkaConsumer, TopicPartition, errors

from infra.kafka import refusal
from infra.memory import give_back
from infra.transport.base import Stored
from schemas.codec import PIECE_BYTES, Record
from schemas.errors import RunFailed

HEAD_BYTES = 900  # of a record beside its value: what many small ones cost (measured)
LEAST_KEPT = 2 * 1024 * 1024  # heartbeats alone fill it, in minutes
MESSAGES = 4  # of the largest that came: so many are kept, if there is room
GIVEN_BACK = 4  # times what is kept is let go before free memory is given back;
LEAST_GIVEN = 32 * 1024 * 1024  # but for so many bytes: else each small message would ask for it
MUCH = 4 * 1024 * 1024  # bytes at once, behind which more usually stands: asking costs milliseconds
AHEAD_BYTES = 16 * 1024 * 1024  # unread, beyond which a topic is no longer followed


class Window:
    """What lies in a topic from `start` up to `next`, or the newer part of it that is kept."""

    def __init__(self, topic: str, place: int) -> None:
        self.topic = topic
        self.start = place
        self.next = place
        """Where the consumer goes on."""
        self.silent = place
        """Behind the last record: from here up to `next` there is none."""
        self.lost = False
        """Whether `next` lies where the topic has nothing, because it was trimmed."""
        self.size = 0
        """Bytes that are kept."""
        self.asked = 0
        """When it was last asked for, by `Kept`'s count."""
        self.largest = 0
        """Bytes of the largest message of which a piece came, as that says."""
        self._kept: list[Stored] = []
        self._given = place
        """Up to where somebody has been given it."""
        self._passed = 0
        """How many of the kept records lie below that, and their bytes."""
        self._passed_size = 0

    @property
    def unread(self) -> int:
        """Bytes that nobody has been given."""
        return self.size - self._passed_size

    def add(self, records: Iterable[Any]) -> None:
        """What the consumer has read next, tombstones among it."""
        for each in records:
            self.next = each.offset + 1
            if each.value is not None:
                self._kept.append(_stored(each))
                self.size += _size(self._kept[-1])
                self.largest = max(self.largest, _whole_size(self._kept[-1].record))
                self.silent = self.next

    def take(self, place: int, max_bytes: int) -> list[Stored]:
        """Records from a place in the window on, up to the one with which the bytes are reached."""
        index, size = bisect_left(self._kept, place, key=attrgetter("offset")), 0
        found: list[Stored] = []
        while index < len(self._kept) and size < max(max_bytes, 1):
            found.append(self._kept[index])
            size += len(self._kept[index].record.value)
            index += 1
        self._pass_over(found[-1].offset + 1 if found else place)
        return found

    def _pass_over(self, place: int) -> None:
        self._given = max(self._given, place)
        while self._passed < len(self._kept) and self._kept[self._passed].offset < self._given:
            self._passed_size += _size(self._kept[self._passed])
            self._passed += 1

    def drop(self, size: int) -> None:
        """Let at least so many bytes go of what was given, if there are so many: oldest first."""
        count, dropped = 0, 0
        while count < self._passed and dropped < size:
            dropped += _size(self._kept[count])
            count += 1
        if count:
            self.start = self._kept[count - 1].offset + 1
            del self._kept[:count]
            self.size -= dropped
            self._passed_size -= dropped
            self._passed -= count

    def trimmed(self, first: int) -> None:
        """The topic begins later now."""
        self._pass_over(first)
        while self._kept and self._kept[0].offset < first:
            self.drop(1)
        self.start = max(self.start, first)

    def widen(self, place: int) -> None:
        """There is nothing between a place and the start."""
        if self.silent == self.start:
            self.silent = place
        self.start = place


class Kept:
    """What the feeds of a process keep together: at most so many bytes of what was given.

    A message in pieces is read a second time when its last piece is there, whichever feed brought
    them. So neither has a share of its own that would be too small for a large one. Where messages
    are small much room would serve nobody, and only be filled over hours: it goes by the largest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = min(most, LEAST_KEPT)
        self._feeds: list[Feed] = []
        self._count = 0
        self._gone = 0
        """Bytes that were let go since free memory was given back."""

    def share(self, feed: Feed) -> None:
        """From now on what this feed keeps counts, too."""
        self._feeds.append(feed)

    def asked(self, window: Window) -> None:
        """Somebody wants what is in a window: it is let go last."""
        self._count += 1
        window.asked = self._count

    def make_room(self) -> None:
        """Let go of what was given, where it was not asked for the longest."""
        windows = [each for feed in self._feeds for each in feed.windows.values() if each.size]
        wanted = MESSAGES * max((each.largest for each in windows), default=0)
        self._room = max(self._room, min(self._most, wanted))
        over = sum(each.size for each in windows) - self._room
        if over <= 0:
            return
        for window in sorted(windows, key=attrgetter("asked")):
            before = window.size
            window.drop(over)
            over -= before - window.size
            self._gone += before - window.size
            if over <= 0:
                break
        if self._gone >= max(self._room * GIVEN_BACK, LEAST_GIVEN):
            self._gone = 0
            give_back()


class Feed:
    """A consumer, and the windows that it fills. Not for several threads at once."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        kept: Kept,
        known: Collection[str] = (),
        *,
        ahead: bool = False,
    ) -> None:
        """`known` are topics that are there: a new one costs the client 0.1 s, all at once too.

        With `ahead` more is asked for as soon as much came.
        """
        self.windows: dict[str, Window] = {}
        """By topic."""
        self._consumer = consumer
        self._kept = kept
        kept.share(self)
        self._known = known
        self._ahead = ahead
        self._assigned: set[str] = set()
        self._opened: dict[str, int] = {}
        """Topics of which the consumer has to be told where they go on."""
        self._called: set[str] = set()
        self._left: set[str] = set()
        """Topics of which it has to be told that they go on where they were, or do not."""
        self._only: str | None = None

    def open(self, topic: str, place: int) -> Window:
        """Follow a topic from a place on, whatever was known of it."""
        self.windows[topic] = Window(topic, place)
        self._opened[topic] = place
        self._left.discard(topic)
        return self.windows[topic]

    def leave(self, topic: str) -> None:
        """Follow it no longer. Who reads it next visits what it has missed."""
        del self.windows[topic]
        self._opened.pop(topic, None)
        self._called.discard(topic)
        self._left.add(topic)

    def only(self, topic: str) -> None:
        """Of all these, read on in one for now; the others keep their places."""
        if self._only != topic:
            self._left |= self.windows.keys() & {self._only}
            self._left.discard(topic)
            self._called.add(topic)
            self._only = topic

    def take(self, window: Window, place: int, max_bytes: int) -> list[Stored]:
        """What a window holds from a place on."""
        self._kept.asked(window)
        return window.take(place, max_bytes)

    def poll(self, seconds: float) -> bool:
        """Fill the windows; waits so long for something to come, and says whether it did.

        Raises Forbidden for a topic that we have no right to read.
        """
        self._tell()
        if not self.windows:
            time.sleep(seconds)
            return False
        found = self._polled(round(1000 * seconds))
        size = 0
        for partition, records in found.items():
            size += sum(len(each.value or b"") for each in records)
            if window := self.windows.get(partition.topic):
                window.add(records)
                if window.unread > AHEAD_BYTES:
                    self.leave(partition.topic)
        if found:
            if self._ahead and size >= MUCH and not self._left:  # else some are to rest first
                with suppress(errors.RetriableError):  # the next poll meets it again
                    self._consumer.ask_ahead()
            self._kept.make_room()
        return bool(found)

    def look(self, window: Window) -> None:
        """Note how far a topic was read where no record tells: what is gone leaves gaps behind."""
        told = self.windows.get(window.topic) is window and window.topic not in self._opened
        if told and not window.lost:
            place = self._consumer.position(TopicPartition(window.topic, 0), timeout_ms=100)
            window.next = max(window.next, place or 0)

    def close(self) -> None:
        """Within half a second, whatever the broker does."""
        self._consumer.close(autocommit=False, timeout_ms=500)

    def _tell(self) -> None:
        """Tell the consumer whom to follow. Others keep their places."""
        if not self._opened.keys() <= self._assigned:
            self._assign(self._opened.keys() | set(self._known))
        for topic, place in self._opened.items():
            self._consumer.seek(TopicPartition(topic, 0), place)
        self._consumer.resume(*_partitions(self._opened.keys() | self._called))
        self._consumer.pause(*_partitions(self._left & self._assigned))
        for told in (self._opened, self._called, self._left):
            told.clear()

    def _assign(self, topics: set[str]) -> None:
        """Take more topics on, at rest. None is given back: the client would forget its leader."""
        new = _partitions(topics - self._assigned)
        self._assigned |= topics
        self._consumer.assign(_partitions(self._assigned))
        self._consumer.pause(*new)
        for partition in new:
            self._consumer.seek(partition, 0)

    def _polled(self, milliseconds: int) -> dict[Any, list[Any]]:
        try:
            return dict(self._consumer.poll(timeout_ms=milliseconds))
        except errors.OffsetOutOfRangeError as error:
            for partition in error.args[0]:
                self.windows[partition.topic].lost = True
                self._consumer.pause(partition)  # or it would complain again each time
        except (errors.AuthorizationError, errors.SaslAuthenticationFailedError) as error:
            raise refusal(error, f"read {error}") from error
        except errors.RetriableError:
            pass  # the consumer finds back to its broker by itself
        except errors.KafkaError as error:
            raise RunFailed(f"Kafka's log cannot be read ({type(error).__name__}: {error})") from (
                error
            )
        return {}


def _partitions(topics: Iterable[str]) -> list[TopicPartition]:
    return [TopicPartition(topic, 0) for topic in topics]


def _stored(each: Any) -> Stored:
    """A consumer's record in our form. Anybody may write: what is no text is shown as such."""
    key = _text(each.key or b"")
    headers = {sys.intern(name): _text(value or b"") for name, value in each.headers}
    at = each.timestamp / 1000 if each.timestamp > 0 else None
    return Stored(each.offset, Record(key, each.value, headers), at)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _size(stored: Stored) -> int:
    return len(stored.record.value) + HEAD_BYTES


def _whole_size(record: Record) -> int:
    """Bytes of the message that it is a piece of. Only a hint: who lies gets more kept."""
    pieces = record.headers.get("fedtwin_pieces", "")
    if not pieces.isdecimal() or len(pieces) > 6:
        return 0
    return int(pieces) * PIECE_BYTES if pieces != "1" else len(record.value)
