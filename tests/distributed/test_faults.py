"""Services die, are emptied and sleep; programs are paused and cut off. The run ends the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, stop
from schemas.messages import RoundClosed, RoundOpened
from tests.distributed.conftest import Found
from tests.distributed.federation import Federation, ended_as_undisturbed, of_kind, tiny
from tests.distributed.relay import Relay
from tests.services import Server, asleep, have, jars, killed

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
SESSION = 6.0
"""Seconds of silence after which a group gives a process's twins to others."""


@pytest.fixture(scope="module")
def relay_ports() -> tuple[int, int]:
    """Behind the relay, and before it."""
    first, second = free_ports(2)
    return first, second


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, relay_ports: tuple[int, int]
) -> Iterator[Broker]:
    """A broker of our own, to be killed, put to sleep and cut off."""
    folder = tmp_path_factory.mktemp("broker") / "kafka"
    port, controller_port = free_ports(2)
    own = Broker(folder, have(jars), port, controller_port, door=relay_ports)
    have(own.start)
    yield own
    stop(own.folder)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of our own."""
    (port,) = free_ports(1)
    own = Server(tmp_path / "redis", port)
    have(own.start)
    yield own
    own.end()


def in_the_middle(run: Federation, rounds: int = 2) -> None:
    """Wait until so many rounds are closed, and another is open."""
    run.until(lambda: of_kind(run, RoundClosed) >= rounds and of_kind(run, RoundOpened) > rounds)


def test_a_broker_is_killed_in_the_middle(found: Found, broker: Broker) -> None:
    """It comes back on what it has on its disk, and nobody has to be told."""
    run = found(kafka=f"{HOST}:{broker.port}")
    run.start_all()
    in_the_middle(run, 1)
    killed(broker)
    run.finish()

    ended_as_undisturbed(run)
    assert not any(program.ends for program in run.programs.values())


def test_a_broker_sleeps(found: Found, broker: Broker) -> None:
    """For ten seconds: requests expire, and what it had taken may come twice."""
    run = found(kafka=f"{HOST}:{broker.port}")
    run.start_all()
    in_the_middle(run, 1)
    asleep(broker, 10)
    run.finish()

    ended_as_undisturbed(run)
    assert not any(program.ends for program in run.programs.values())


@pytest.mark.parametrize("how", ["killed", "killed for good", "emptied"])
def test_redis_is_only_a_view(found: Found, server: Server, how: str) -> None:
    """Killed and started again, killed and gone, emptied: the proxy chooses what it would have."""
    run = found(redis=f"{HOST}:{server.port}")
    run.start_all()
    in_the_middle(run, 1)
    if how == "emptied":
        server.told("FLUSHALL")
    else:
        server.signal(signal.SIGKILL)
    if how == "killed":
        server.start()
    run.finish()

    ended_as_undisturbed(run)


def test_twins_that_sleep_past_their_session_wake_to_others_in_their_place(found: Found) -> None:
    """Stopped in the middle of their trainings; the second process takes over and goes on; then
    the first is woken, and both believe to host them."""
    run = found()
    run.start_all()
    run.start("twins", name="twins-2")
    in_the_middle(run, 1)
    run.signal("twins-1", signal.SIGSTOP)
    run.until(lambda: of_kind(run, RoundClosed) >= 3 or run.decided().over, seconds=60)
    run.signal("twins-1", signal.SIGCONT)
    run.finish()

    ended_as_undisturbed(run)


def test_an_aggregator_sleeps_until_its_standby_has_closed_the_round(found: Found) -> None:
    """It wakes with a decision of its own on its lips, which comes second and changes nothing."""
    run = found(tiny(standby_after=1.0))
    run.start_all()
    run.start("aggregator", "--standby", name="aggregator-2")
    in_the_middle(run, 1)
    before = of_kind(run, RoundClosed)
    run.signal("aggregator-1", signal.SIGSTOP)
    run.until(lambda: of_kind(run, RoundClosed) > before)
    run.signal("aggregator-1", signal.SIGCONT)
    run.finish()

    ended_as_undisturbed(run)


def test_a_wire_is_cut_between_twins_and_broker(
    found: Found, broker: Broker, relay_ports: tuple[int, int]
) -> None:
    """For eight seconds nothing passes, longer than their session lasts; then it does again."""
    behind, before = relay_ports
    relay = Relay(before, behind)
    run = found(kafka=f"{HOST}:{broker.port}")
    run.start_all("twins")
    run.start("twins", environment={"FEDTWIN_KAFKA": f"{HOST}:{before}"})
    in_the_middle(run, 1)
    relay.cut.set()
    with pytest.raises(AssertionError, match="not within"):
        run.until(lambda: run.decided().over, seconds=SESSION + 2)
    relay.cut.clear()
    run.finish()
    relay.close()

    ended_as_undisturbed(run)
