"""A federation over a real broker: the same model, byte for byte, whatever the broker suffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from infra.kafka import KafkaSettings
from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, stop
from infra.points import no_hook
from infra.topics import Administration, plan
from infra.transport.kafka import Kafka
from schemas.topics import Names
from tests.flows.federation import (
    EAST,
    NORTH,
    RUN,
    SOUTH,
    WEST,
    Outcome,
    Told,
    outcome,
    put_together,
    small,
)
from tests.services import (
    InRun,
    asleep,
    at_times,
    have,
    jars,
    kafka_address,
    killed,
    new_run,
    swept,
)

pytestmark = pytest.mark.kafka
NEWCOMER = "local/entity-004"


def over_kafka(
    settings: KafkaSettings, told: Told | None = None, hook: Callable[[str], None] = no_hook
) -> Outcome:
    """See a run through whose log is on a broker, all roles in this process."""
    administration, names = have(lambda: Administration(settings)), Names(new_run())
    entities = [NORTH, EAST, SOUTH, WEST, NEWCOMER]
    administration.apply(plan(names, "federation", ["local"], entities, settings))
    administration.apply(plan(names, "site", ["local"], entities, settings))
    log = Kafka(settings, hook=hook)
    try:
        run = put_together(small(), InRun(log, names.run, called=RUN), told)
        while not run.system.over:
            if not run.system.step():
                log.wait(0.2)
        return outcome(run)
    finally:
        log.close()
        administration.close()
        swept(settings, names)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of our own, to be killed and put to sleep."""
    own = Broker(tmp_path_factory.mktemp("broker") / "kafka", have(jars), *free_ports(2))
    have(own.start)
    yield own
    stop(own.folder)


@pytest.mark.parametrize("copies", [1, 2])
def test_over_kafka_as_in_memory(quiet: Outcome, copies: int) -> None:
    """Every role once, and every role twice: the same decisions in the same order."""
    settings = KafkaSettings(have(kafka_address))

    assert over_kafka(settings, Told(copies=copies)) == quiet


def test_a_broker_that_is_killed_changes_nothing(quiet: Outcome, broker: Broker) -> None:
    """Killed twice with records on their way, and started again on what it has on its disk."""
    settings = KafkaSettings(f"{HOST}:{broker.port}", request_timeout=2, delivery_timeout=3)

    hook = at_times("append:written", (40, 90), lambda: killed(broker))

    assert over_kafka(settings, hook=hook) == quiet


def test_a_broker_that_sleeps_changes_nothing(quiet: Outcome, broker: Broker) -> None:
    """Longer than a producer waits for it: what it had taken comes twice."""
    settings = KafkaSettings(f"{HOST}:{broker.port}", request_timeout=1, delivery_timeout=1)

    hook = at_times("append:written", (60,), lambda: asleep(broker, 8))

    assert over_kafka(settings, hook=hook) == quiet
