"""Who looks at a federation: reads its topics beside it, and goes on when a broker was away.

A thread of its own reads each cluster, so that whoever looks is answered also while a broker is
not. It reads decisions from the beginning, and of `metrics` the newest part first: heartbeats of
yesterday tell nothing, but what was measured then still counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from experiments.view import OURSELVES, Outage, View, view
from experiments.watching import Heard, Watching
from infra.pieces import Pieces, gathered, may_be_passed_over
from infra.promises import Place
from infra.pulse import BEAT
from infra.settings import Settings
from infra.transport.base import Remote, Stored, Transport, Trimmed
from infra.transport.clusters import kafka_settings
from infra.transport.kafka import Kafka
from schemas.codec import NotKnown, Whole, piece, unpack
from schemas.errors import ConfigurationError, FedtwinError, Refused, RunFailed, ServiceError
from schemas.limits import LEAST_BYTES
from schemas.topics import Names, table_row

READ_BYTES = 4 * 1024 * 1024
TAIL = 4000  # records of `metrics` that are read first: minutes of heartbeats
REST = 0.2  # seconds between two looks when nothing comes
START = 3.0  # seconds in which a broker must answer that we have not reached yet
AGAIN = 1.0  # seconds between two tries to reach it
STUCK = 4.0  # seconds that a turn may take before a broker counts as away
SETTLED = BEAT + 1.0  # seconds in which each program that lives has been heard
UNDECIDED = 8.0  # seconds after which nobody is waited for who could have been
Connect = Callable[[], Transport]


class Reader:
    """Reads some topics of one cluster into the fold, in a thread of its own."""

    def __init__(
        self,
        service: str,
        connect: Connect,
        topics: Callable[[Watching], list[str]],
        around: Looking,
    ) -> None:
        self.service = service
        self.caught_up = False
        self.exists: bool | None = None
        """Whether the log holds anything of the run."""
        self.others: list[str] = []
        """Other runs that it holds."""
        self.unread: dict[str, str] = {}
        self.failure: Exception | None = None
        self._connect = connect
        self._topics = topics
        self._around = around
        self._transport: Transport | None = None
        self._turned = time.monotonic()
        self._unreachable: tuple[str, float] | None = None
        self._was_away = False
        self._asked = 0.0
        self._begin_anew()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"reads {service}")
        self._thread.start()

    def _begin_anew(self) -> None:
        self._places: dict[str, int] = {}
        self._pieces: dict[str, Pieces] = {}
        self._until: dict[str, int] = {}
        """Topic → where it ended when we began: what lies before is old."""
        self._older: dict[str, tuple[int, int]] = {}
        """Topic → from where to where its older part has still to be read."""

    @property
    def away(self) -> Outage | None:
        """The service, if it cannot be reached."""
        transport = self._transport
        told = self._unreachable
        if isinstance(transport, Remote) and (away := transport.away):
            told = (away.why, away.since)
        now = time.monotonic()
        if told is None and now - self._turned > STUCK:
            told = ("it does not answer", self._turned)
        if told is None:
            return None
        self._was_away = True
        return Outage(self.service, OURSELVES, told[0], now - told[1])

    def join(self) -> None:
        """Wait until it has noticed that nobody looks any more."""
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._around.over.is_set():
            try:
                self._read()
            except ServiceError as error:
                self._lost(str(error))
            except RunFailed:  # the run was made anew under its name
                self._around.anew()
                self._begin_anew()
            except Exception as error:
                self.failure = error
                return
            finally:
                self._let_go()
            self._around.over.wait(AGAIN)

    def _lost(self, why: str) -> None:
        if self._unreachable is None:
            self._unreachable = (why, time.monotonic())
        self._was_away = True
        self._turned = time.monotonic()

    def _let_go(self) -> None:
        if self._transport is not None:
            with suppress(FedtwinError):
                self._transport.close()
            self._transport = None

    def _read(self) -> None:
        self._turned = time.monotonic()
        transport = self._connect()
        self._transport = transport
        while not self._around.over.is_set():
            came = self._turn(transport)
            if came:
                self.exists = True
            if self._was_away:
                self._around.hears_again()
            self._was_away, self._unreachable = False, None
            self._turned = time.monotonic()
            if not came:
                self._look_for_the_run(transport)
                self._ask_whether_it_is_there(transport)
                self.caught_up = True
                transport.wait(REST)
                if not isinstance(transport, Remote):
                    self._around.over.wait(REST)

    def _look_for_the_run(self, transport: Transport) -> None:
        """Whether there is such a run; asked again until there is."""
        if self.exists:
            return
        own = self._around.watching.names
        runs = {name.split(".")[1] for name in transport.topics() if name.count(".") >= 2}
        self.exists = own.run in runs
        self.others = sorted(runs - {own.run})

    def _ask_whether_it_is_there(self, transport: Transport) -> None:
        """Who only waits for what comes does not notice that a broker has gone."""
        if time.monotonic() >= self._asked + AGAIN:
            transport.end(self._around.watching.names.federation("metrics"))
            self._asked = time.monotonic()

    def _turn(self, transport: Transport) -> bool:
        came = False
        for topic in self._topics(self._around.watching):
            if topic in self.unread:
                continue
            try:
                came |= self._read_on(transport, topic)
            except ConfigurationError as error:
                self.unread[topic] = str(error)
        return came

    def _read_on(self, transport: Transport, topic: str) -> bool:
        if topic not in self._places:
            self._begin(transport, topic)
        found = _there(transport, topic, self._places[topic])
        if isinstance(found, int):
            self._places[topic] = found
            return True
        for stored in found:
            self._places[topic] = stored.offset + 1
            self._take(transport, topic, stored)
        return self._read_older(transport, topic) or bool(found)

    def _begin(self, transport: Transport, topic: str) -> None:
        end = transport.end(topic)
        self._until[topic], self._places[topic] = end, 0
        if table_row(topic).name == "metrics" and (first := transport.first(topic)) < end - TAIL:
            self._places[topic] = end - TAIL
            self._older[topic] = (first, end - TAIL)

    def _read_older(self, transport: Transport, topic: str) -> bool:
        """A piece of what was passed over; of heartbeats nothing."""
        if topic not in self._older:
            return False
        place, until = self._older[topic]
        found = _there(transport, topic, place)
        if isinstance(found, int):
            self._older[topic] = (found, until)
        else:
            for stored in found:
                if stored.offset < until and not _is_beat(stored):
                    self._take(transport, topic, stored)
            self._older[topic] = (found[-1].offset + 1 if found else until, until)
        if self._older[topic][0] >= until:
            del self._older[topic]
        return True

    def _take(self, transport: Transport, topic: str, stored: Stored) -> None:
        try:
            part = piece(stored.record.value, LEAST_BYTES)
            offsets = self._pieces.setdefault(topic, Pieces()).add(part, stored.offset)
            if offsets is None:
                return
            whole = Whole(part.message, part.content, offsets)
            if part.count > 1:
                whole = gathered(transport, Place(topic, offsets), LEAST_BYTES)
            message = unpack(whole.payload, LEAST_BYTES)
        except NotKnown as later:
            may_be_passed_over(later, topic, stored.offset)
            return
        except (Refused, LookupError):
            return  # its owner sets it aside, or it was let go meanwhile
        if message.kind() in table_row(topic).carries:
            fresh = stored.offset >= self._until[topic]
            now = time.time()
            heard = Heard(topic, stored.offset, message, part.message, now, stored.at, fresh)
            self._around.hear(heard)


class Source(NamedTuple):
    """A cluster, or what stands for it."""

    service: str
    """What it is called."""
    connect: Connect
    federation: bool = True
    """Whether the federation's topics lie there."""
    site: bool = True
    """And the site's."""


class Looking:
    """Looks at one run for as long as anybody wants."""

    def __init__(
        self,
        names: Names,
        sources: Sequence[Source],
        lives: Callable[[], bool] | None = None,
    ) -> None:
        """`lives` says whether anybody runs it, where no program of its own tells."""
        self._lives = lives
        self.over = threading.Event()
        self.watching = Watching(names, time.time())
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.readers = [
            Reader(
                each.service,
                each.connect,
                _topics(federation=each.federation, site=each.site),
                self,
            )
            for each in sources
        ]

    def hear(self, heard: Heard) -> None:
        """From a reader's thread."""
        with self._lock:
            self.watching.hear(heard)

    def hears_again(self) -> None:
        """A broker was away: whoever lives has to find back to it, too."""
        with self._lock:
            self.watching.hearing_since = time.time()

    def anew(self) -> None:
        """What was heard is of a run that was taken away."""
        with self._lock:
            self.watching = Watching(self.watching.names, time.time())

    def view(self) -> View:
        """How it stands now. Raises what a reader has failed with."""
        for each in self.readers:
            if each.failure is not None:
                raise each.failure
        away = tuple(each.away for each in self.readers)
        unread = {topic: why for each in self.readers for topic, why in each.unread.items()}
        with self._lock:
            outages = tuple(each for each in away if each is not None)
            seen = view(self.watching, time.time(), outages, unread)
        if seen.status == "running" and self._lives is not None and not self._lives():
            return replace(seen, status="ended")
        return seen

    @property
    def there(self) -> bool | None:
        """Whether there is such a run; None while that is not known."""
        return self.readers[0].exists

    @property
    def settled(self) -> bool:
        """Whether a first look is complete: all was read, and each program that lives was heard."""
        if any(each.away for each in self.readers):
            return True
        if not all(each.caught_up for each in self.readers):
            return False
        seconds, now = time.monotonic() - self._began, time.time()
        with self._lock:
            living = [e for e in self.watching.programs.values() if e.beat.ended is None]
            doubted = [e for e in living if e.heard is None and now - e.beat.at < UNDECIDED]
        if not living:
            return True
        return seconds > (UNDECIDED if doubted else SETTLED)

    def close(self) -> None:
        """Nobody looks any more."""
        self.over.set()
        for each in self.readers:
            each.join()


def on_kafka(settings: Settings, names: Names) -> Looking:
    """Look at a run over Kafka, whether or not its brokers answer. Raises ServiceError where nobody
    names one."""
    over: list[Looking] = []

    def stopped() -> bool:
        return bool(over) and over[0].over.is_set()

    def to(service: object) -> Connect:
        reach = kafka_settings(service, start_timeout=START)  # type: ignore[arg-type]
        return lambda: Kafka(reach, stopped=stopped)

    kafka, site = settings.kafka, settings.site_kafka
    sources = [Source(f"kafka at {kafka}", to(kafka), site=kafka == site)]
    if kafka != site:
        sources.append(Source(f"site kafka at {site}", to(site), federation=False))
    looking = Looking(names, sources)
    over.append(looking)
    return looking


def _topics(*, federation: bool, site: bool) -> Callable[[Watching], list[str]]:
    """What lies in a cluster that we read, of the sites that are known by now."""

    def known(watching: Watching) -> list[str]:
        return list(_of(watching.names, watching.sites, federation=federation, site=site))

    return known


def _of(names: Names, sites: Sequence[str], *, federation: bool, site: bool) -> Iterator[str]:
    if federation:
        yield from (names.federation(each) for each in ("metrics", "rounds", "dead-letters"))
        yield from (names.of_site("classes", each) for each in sites)
    if site:
        yield from (names.of_site("dead-letters", each) for each in sites)


def _there(transport: Transport, topic: str, place: int) -> list[Stored] | int:
    """What lies there next, or where the topic begins if that is further on."""
    try:
        return transport.read(topic, place, READ_BYTES)
    except Trimmed as trimmed:
        return trimmed.first


def _is_beat(stored: Stored) -> bool:
    """By a header: that only saves reading."""
    return stored.record.headers.get("ce_type", "").startswith("fedtwin.Heartbeat.")
