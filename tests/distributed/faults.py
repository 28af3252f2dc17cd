"""How services and programs fail in the middle of a run, and trainings that outlast everything.

Each is a story of one run, told to its end; whoever plays it says what must hold then. Programs are
started once. Nobody starts them again: they have to go on by themselves.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from experiments.system import SITE
from infra.kafka import KafkaSettings
from infra.native.kafka import Broker
from infra.native.programs import HOST, running
from infra.stopping import STOPPED
from infra.transport.group import SESSION
from schemas.messages import RoundClosed, RoundOpened
from tests.distributed.federation import (
    PATIENCE,
    ROLES,
    Federation,
    ended_as_undisturbed,
    of_kind,
    tiny,
)
from tests.distributed.relay import Relay
from tests.groups import generations, shares
from tests.services import Server, asleep, signalled

Found = Callable[..., Federation]
STREAMED = 5
"""How many times a producer has written before: the streams of `tiny` are a dozen times as many."""
MET = 1.0  # seconds in which everybody meets with a broker that is away
LONGER = 6
"""How many times longer a long training takes than its program may not look at its group."""


def went_on_as_undisturbed(run: Federation) -> None:
    """The undisturbed model, and no program had to be started again."""
    ended_as_undisturbed(run)
    assert not any(program.ends for program in run.programs.values())


def in_the_middle(run: Federation, rounds: int = 1) -> None:
    """Wait until so many rounds are closed, and another is open."""
    run.until(lambda: of_kind(run, RoundClosed) >= rounds and of_kind(run, RoundOpened) > rounds)


@dataclass(frozen=True)
class Own:
    """A broker that nobody else uses, so that it may be treated badly."""

    found: Found
    broker: Broker
    ports: tuple[int, int]
    """Of its second door: behind the relay, and before it."""

    def killed(self, away: float = 0.0) -> Federation:
        """It is killed, and so many seconds later begins anew on what its disk holds."""
        run = self._begun()
        signalled(self.broker, signal.SIGKILL)
        while running(self.broker.folder):
            time.sleep(0.01)
        Timer(away, self.broker.start).start()
        run.finish(seconds=PATIENCE + away)
        return run

    def paused(self, seconds: float) -> Federation:
        """It sleeps: requests expire, and what it had taken may come twice."""
        run = self._begun()
        asleep(self.broker, seconds)
        run.finish(seconds=PATIENCE + seconds)
        return run

    def cut(self, seconds: float) -> Federation:
        """Between twins and broker nothing passes, and no connection is told of it."""
        behind, before = self.ports
        relay = Relay(before, behind)
        run = self._found()
        run.start_all("twins")
        run.start("twins", environment={"FEDTWIN_KAFKA": f"{HOST}:{before}"})
        in_the_middle(run)
        relay.cut.set()
        time.sleep(seconds)
        assert not run.decided().over
        relay.cut.clear()
        run.finish(seconds=PATIENCE + seconds)
        relay.close()
        return run

    def stopped(self, how: signal.Signals, *, streaming: bool) -> dict[str, float]:
        """It is struck down, by a producer in the middle of its stream, or later in the middle of
        the rounds, when producers are over. Everybody is told to stop; then it is back, and they go
        on. Gives the seconds that each took.
        """
        program = running(self.broker.folder)
        assert program is not None
        if streaming:
            run = self._found()
            run.start_all("producers")
            run.start("producers", kill=("append:before", STREAMED, program.pid, how))
        else:
            run = self._begun()
            signalled(self.broker, how)
        run.until(lambda: not _works(program.pid))
        time.sleep(MET)
        try:
            took = _told_to_stop(run, len(ROLES) - (not streaming))
        finally:
            if how is signal.SIGKILL:
                self.broker.start()
            signalled(self.broker, signal.SIGCONT)
        for name in took:
            run.again(name)
        run.finish()
        ended_as_undisturbed(run)
        return took

    def _begun(self) -> Federation:
        run = self._found()
        run.start_all()
        in_the_middle(run)
        return run

    def _found(self) -> Federation:
        return self.found(kafka=f"{HOST}:{self.broker.port}")


def _told_to_stop(run: Federation, count: int) -> dict[str, float]:
    """So many programs still run; each says how to go on, and ends. Name → after how long."""
    run.look()
    told = [name for name, program in run.programs.items() if program.code is None]
    assert len(told) == count
    for name in told:
        run.signal(name, signal.SIGTERM)
    began, took = time.monotonic(), dict[str, float]()

    def ended() -> bool:
        for name in told:
            if run.programs[name].code is not None:
                took.setdefault(name, time.monotonic() - began)
        return len(took) == len(told)

    run.until(ended)
    assert {run.programs[name].code for name in told} == {STOPPED}
    assert run.said().count("Start it again to go on") == len(told)
    return took


def _works(pid: int) -> bool:
    """Whether a process is there, and not stopped by a signal."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "TZ"


def redis(found: Found, server: Server, how: str) -> Federation:
    """A server is `killed` and started again, killed and `gone`, or `emptied`."""
    run = found(redis=f"{HOST}:{server.port}")
    run.start_all()
    in_the_middle(run)
    if how == "emptied":
        server.told("FLUSHALL")
    else:
        server.signal(signal.SIGKILL)
    if how == "killed":
        server.start()
    run.finish()
    return run


def twins_paused(found: Found) -> Federation:
    """In the middle of their trainings, past their session: the second process takes over; then
    they are woken, and both believe to host them."""
    run = found()
    run.start_all()
    run.start("twins", name="twins-2")
    in_the_middle(run)
    run.signal("twins-1", signal.SIGSTOP)
    time.sleep(SESSION)
    run.until(lambda: of_kind(run, RoundClosed) >= 3 or run.decided().over)
    run.signal("twins-1", signal.SIGCONT)
    run.finish()
    return run


def aggregator_paused(found: Found) -> Federation:
    """Until its standby has closed the round; it wakes with a decision of its own on its lips."""
    run = found(tiny(standby_after=1.0))
    run.start_all()
    run.start("aggregator", "--standby", name="aggregator-2")
    in_the_middle(run)
    before = of_kind(run, RoundClosed)
    run.signal("aggregator-1", signal.SIGSTOP)
    run.until(lambda: of_kind(run, RoundClosed) > before)
    run.signal("aggregator-1", signal.SIGCONT)
    run.finish()
    return run


def long_training(found: Found, polled: float, longer: int = LONGER) -> Federation:
    """A training takes several times as long as a program may not look at its group: the group
    deals no twin anew, and each update stands in the log once.
    """
    run = found()
    run.start("aggregator")
    for name in ("twins-1", "twins-2"):
        words = ("--max-poll-interval", str(polled))
        run.start("twins", *words, name=name, slow=longer * polled)
    group = KafkaSettings(run.site_kafka), run.names.group(SITE)
    run.until(lambda: sorted(map(len, shares(*group).values())) == [2, 2])
    before = shares(*group), generations(*group)
    run.start_all("aggregator", "twins")
    run.until(lambda: of_kind(run, RoundOpened) == 1)
    began = time.monotonic()
    run.until(lambda: of_kind(run, RoundClosed) == 1, seconds=PATIENCE + longer * polled)
    assert time.monotonic() - began > (longer - 1) * polled
    assert (shares(*group), generations(*group)) == before
    run.finish()
    rounds = run.configuration.stages * run.configuration.rounds_per_stage
    with run.log() as log:
        updates = log.end(run.names.of_site("updates", SITE))
    assert updates == rounds * run.configuration.clients_per_round
    return run
