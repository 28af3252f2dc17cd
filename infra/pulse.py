"""How a program tells that it lives: every other second what it does, and at last why it ends.

It goes into the federation's `metrics`, so whoever waits can tell work from silence, and whoever
looks sees who has failed and why. Nothing rests on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.memory import held
from infra.serve import READ_BYTES, Surroundings, System
from infra.stopping import STOPPED
from infra.transport.base import Remote, Stored, Transport, Trimmed
from infra.vitals import Vitals
from schemas.codec import piece, records, unpack
from schemas.errors import FedtwinError, Refused
from schemas.limits import LEAST_BYTES
from schemas.messages import Away, Ended, Heartbeat, Measured
from schemas.topics import Names

BEAT = 2.0  # seconds between two heartbeats
LIVES = 10.0  # seconds after which a program that was not heard of does no work for us
MOST_WAITS = 8  # told at once: a process may host hundreds of twins
MANY = 64  # topics, of which a broker is asked where they end only at every fifth heartbeat
SELDOM = 5
ALL = 30  # heartbeats after which every count is told anew, for whoever has begun to look
TAIL = 4000  # records of `metrics` that are read again for what was measured
LAST = 1.0  # seconds for the last words: a program that is told to stop has five
OVER = "the run is over"


class Stopped(BaseException):
    """The program was told to stop. No Exception, so that nobody takes it for a failure."""


class Pulse:
    """Says every other second that a program lives, and hears which others do."""

    def __init__(
        self,
        system: System,
        around: Surroundings,
        names: Names,
        *,
        role: str,
        process: str,
        vitals: Vitals | None = None,
    ) -> None:
        """`vitals` are told of each heartbeat, and of what others have measured."""
        self._system = system
        self._transport = around.transport
        self._missed = around.missed
        self._clock = around.clock
        self._hook = around.hook
        self._topic = names.federation("metrics")
        self._role, self._process = role, process
        self._vitals = vitals
        self._place: int | None = None
        self._old = 0
        """Where `metrics` ended when we began: when anything before was said we do not know."""
        self._due = 0.0
        self._began = around.clock()
        self._beats = 0
        self._told: dict[str, int] = {}
        """The counts as they were told last."""
        self._unread: dict[str, int] = {}
        self._worked: dict[str, float] = {}
        """Another process → when it was last heard to work, by our clock."""

    def beat(self, now: float) -> None:
        """Say it if it is time to, and hear the others."""
        if now < self._due:
            return
        self._due = now + BEAT
        self._listen(now)
        waits = self._system.waits()
        beat = Heartbeat(
            run="",
            process=self._process,
            role=self._role,
            at=time.time(),
            in_work=tuple(" ".join(map(str, id)) for id in self._system.in_work),
            waits=tuple((wait.what, wait.seconds) for wait in waits[:MOST_WAITS]),
            queued=self._system.queued,
            up=now - self._began,
            memory=held(),
            lag=self._lag(),
            counts=self._counts(),
            away=self._missed(),
        )
        self._transport.append(self._topic, records(beat, source=self._role)[1])
        if self._vitals is not None:
            seconds = {wait.what: wait.seconds for wait in waits}
            self._vitals.tell(beat, self._told, seconds, self._system.free)
        self._hook("beat")

    def somebody_works(self, now: float) -> bool:
        """Whether another program has said of late that it works."""
        return any(now < worked + LIVES for worked in self._worked.values())

    def _lag(self) -> dict[str, int]:
        """What was not read. Of a thousand topics it takes 46 ms of a core to ask."""
        topics = sum(len(session.role.topics) for session in self._system.sessions)
        if topics <= MANY or self._beats % SELDOM == 0:
            self._unread = dict(self._system.lag())
        return self._unread

    def _counts(self) -> tuple[tuple[str, int], ...]:
        """Those that have changed since the last beat, and at times all: hundreds cost little."""
        before = self._told if self._beats % ALL else {}
        self._beats += 1
        self._told = self._system.counts()
        return tuple(each for each in self._told.items() if before.get(each[0]) != each[1])

    def _listen(self, now: float) -> None:
        if self._vitals is not None:
            self._vitals.others.listens(now)
        if self._place is None:
            self._old = self._place = self._transport.end(self._topic)
            if self._vitals is not None:
                first = self._transport.first(self._topic)
                self._place = max(first, self._old - TAIL)
        while found := self._read():
            for stored in found:
                self._place = stored.offset + 1
                try:
                    said = unpack(piece(stored.record.value, LEAST_BYTES).content, LEAST_BYTES)
                except Refused:
                    continue  # of several pieces, or no message at all: no heartbeat
                if isinstance(said, Measured) and self._vitals is not None:
                    self._vitals.measured(said, stored.offset)
                if isinstance(said, Heartbeat) and stored.offset >= self._old:
                    self._hear(said, now)
        if self._vitals is not None:
            self._vitals.others.heard()

    def _hear(self, beat: Heartbeat, now: float) -> None:
        """What another says while we listen."""
        if beat.in_work and beat.process != self._process:
            self._worked[beat.process] = now
        if self._vitals is not None:
            self._vitals.others.hear(beat, now)

    def _read(self) -> list[Stored]:
        assert self._place is not None
        try:
            return self._transport.read(self._topic, self._place, READ_BYTES)
        except Trimmed as trimmed:  # it is kept by size
            self._place = trimmed.first
            return self._transport.read(self._topic, self._place, READ_BYTES)


class Probe:
    """Asks now and then whether a service answers, and remembers since when it does not."""

    def __init__(
        self, service: str, ask: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ask` raises a FedtwinError when there is no answer, and takes no longer than a beat."""
        self._service = service
        self._ask = ask
        self._clock = clock
        self._since: float | None = None

    def __call__(self) -> tuple[Away, ...]:
        """The service, if it is away."""
        try:
            self._ask()
        except FedtwinError as error:
            now = self._clock()
            self._since = now if self._since is None else self._since
            why = str(error)[:500]
            return (Away(service=self._service, why=why, seconds=now - self._since),)
        self._since = None
        return ()


@contextmanager
def last_words(transport: Transport, names: Names, *, role: str, process: str) -> Iterator[None]:
    """What a program does inside ends with a last heartbeat that says why, as far as it can."""
    began = time.monotonic()

    def say(code: int, why: str) -> None:
        beat = Heartbeat(
            run="",
            process=process,
            role=role,
            at=time.time(),
            in_work=(),
            waits=(),
            up=time.monotonic() - began,
            ended=Ended(code=code, why=why[:500] or "it does not say why"),
        )
        if isinstance(transport, Remote):
            made = records(beat, source=role)[1]
            transport.last(names.federation("metrics"), made, LAST)

    try:
        yield
    except (Stopped, KeyboardInterrupt):
        say(STOPPED, "told to stop")
        raise
    except FedtwinError as error:
        say(error.exit_code, str(error))
        raise
    except Exception as error:
        say(1, f"unexpected {type(error).__name__}: {error}")
        raise
    say(0, OVER)
