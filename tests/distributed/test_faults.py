"""Services die, are emptied and sleep; programs are paused and cut off. The run ends the same."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.processes import PATIENCE as LEFT_TO_STOP
from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, stop
from infra.transport.group import SESSION
from tests.distributed.conftest import Found
from tests.distributed.faults import (
    Own,
    aggregator_paused,
    in_the_middle,
    long_training,
    redis,
    twins_paused,
    went_on_as_undisturbed,
)
from tests.distributed.federation import ROLES, Federation, ended_as_undisturbed
from tests.experiments.hands import fedtwin, told
from tests.services import Server, have, jars, signalled

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
GIVEN_UP = 30.0
"""Seconds after which a record that is not acknowledged is sent by another producer."""
WITHIN = 10.0
"""Seconds in which whoever looks is told what has failed."""


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Behind the relay, and before it."""
    first, second = free_ports(2)
    return first, second


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Broker]:
    """A broker of our own, to be killed, put to sleep and cut off."""
    folder = tmp_path_factory.mktemp("broker") / "kafka"
    port, controller_port = free_ports(2)
    own = Broker(folder, have(jars), port, controller_port, door=ports)
    have(own.start)
    yield own
    stop(own.folder)


@pytest.fixture
def own(found: Found, broker: Broker, ports: tuple[int, int]) -> Own:
    """Runs on that broker."""
    return Own(found, broker, ports)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of our own."""
    (port,) = free_ports(1)
    own = Server(tmp_path / "redis", port)
    have(own.start)
    yield own
    own.end()


def test_a_broker_is_killed_in_the_middle(own: Own) -> None:
    """It comes back on what it has on its disk, and nobody has to be told."""
    went_on_as_undisturbed(own.killed())


def test_a_broker_sleeps_longer_than_a_producer_waits(own: Own) -> None:
    """Every producer was given up meanwhile; each record that it left is sent by another."""
    went_on_as_undisturbed(own.paused(GIVEN_UP + 6))


@pytest.mark.parametrize("how", ["killed", "gone", "emptied"])
def test_redis_is_only_a_view(found: Found, server: Server, how: str) -> None:
    """Killed and started again, killed and gone, emptied: the proxy chooses what it would have."""
    went_on_as_undisturbed(redis(found, server, how))


def test_twins_that_sleep_past_their_session_wake_to_others_in_their_place(found: Found) -> None:
    """Stopped in the middle of their trainings; the second process takes over and goes on; then
    the first is woken, and both believe to host them."""
    went_on_as_undisturbed(twins_paused(found))


def test_an_aggregator_sleeps_until_its_standby_has_closed_the_round(found: Found) -> None:
    """It wakes with a decision of its own on its lips, which comes second and changes nothing."""
    went_on_as_undisturbed(aggregator_paused(found))


def test_a_wire_is_cut_between_twins_and_broker(own: Own) -> None:
    """For eight seconds nothing passes, longer than their session lasts; then it does again."""
    went_on_as_undisturbed(own.cut(SESSION + 2))


def test_a_training_outlasts_the_time_in_which_a_program_must_look_at_its_group(
    found: Found,
) -> None:
    """Six times, a minute against ten seconds: nobody is dealt anew, and nothing is trained twice.

    The group's own test shows that whoever does not look in time is dealt anew.
    """
    went_on_as_undisturbed(long_training(found, polled=10.0))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_whoever_is_told_to_stop_while_the_broker_is_away_ends_and_goes_on_later(
    own: Own, how: signal.Signals
) -> None:
    """Each of the four says how to go on before its runner would kill it. Started again, the run
    ends as ever."""
    took = own.stopped(how, streaming=True)

    assert len(took) == len(ROLES)
    assert max(took.values()) < LEFT_TO_STOP


def test_whoever_looks_sees_what_has_failed_and_why(
    found: Found, broker: Broker, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins are killed, Redis dies, a program is refused, the broker sleeps: each is named with its
    cause within ten seconds, to people and in the metrics of who tells of it. When all are back
    nothing has failed, and the run ends the same."""
    run = found(kafka=f"{HOST}:{broker.port}", redis=f"{HOST}:{server.port}")
    run.environment["FEDTWIN_METRICS_PORT"] = "0"
    for name, value in run.environment.items():
        monkeypatch.setenv(name, value)
    run.start_all()
    in_the_middle(run)

    since = time.monotonic()
    run.signal("twins-1", signal.SIGKILL)
    assert "no heartbeat since" in named("twins-1")
    lost = measured(
        run, "aggregator-1", "fedtwin_program_lost_seconds{", 'process="twins-1"', since
    )
    assert 'state="silent"' in lost
    since = time.monotonic()
    server.signal(signal.SIGKILL)
    assert "says proxy-1: Redis at" in named("redis")
    assert "Redis at" in measured(run, "proxy-1", "fedtwin_failed{", 'part="redis"', since)
    run.start("proxy", "--standby", name="proxy-2")
    assert "ended: Redis at" in named("proxy-2")
    since = time.monotonic()
    signalled(broker, signal.SIGSTOP)
    assert "away since" in named(f"kafka at {run.kafka}", code=3)
    assert measured(run, "aggregator-1", "fedtwin_broker_away_seconds", "", since)
    signalled(broker, signal.SIGCONT)

    server.start()
    run.look()
    run.again("twins-1")
    run.until(lambda: run.programs["proxy-2"].code == 3)
    del run.programs["proxy-2"]
    run.finish()
    ended_as_undisturbed(run)
    seen = told("watch", "--once")
    assert (seen["status"], seen["failed"]) == ("over", [])
    assert {each["state"] for each in seen["programs"] if each["role"] == "twins"} == {"ended"}


def named(part: str, *, code: int = 1) -> str:
    """The cause that is told of a part within ten seconds."""
    began, cause = time.monotonic(), None
    while cause is None:
        look = fedtwin("watch", "--once", "--json")
        seen = json.loads(look.stdout)
        cause = next((each["cause"] for each in seen["failed"] if each["part"] == part), None)
        assert time.monotonic() < began + WITHIN, seen
    assert look.exit_code == code
    return str(cause)


def measured(run: Federation, name: str, metric: str, label: str, since: float) -> str:
    """The line of a program's metrics that has a label, and within ten seconds more than 0."""
    address = next(words.split()[-1] for words in run.words(name) if words.endswith("/metrics"))
    while True:
        with urllib.request.urlopen(address, timeout=WITHIN) as answer:
            lines = answer.read().decode().splitlines()
        told = (each for each in lines if each.startswith(metric) and label in each)
        if found := [each for each in told if not each.endswith(" 0.0")]:
            assert time.monotonic() < since + WITHIN
            return str(found[0])
        assert time.monotonic() < since + WITHIN, lines
