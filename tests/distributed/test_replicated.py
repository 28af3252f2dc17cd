"""A federation on three brokers of which one dies: nobody notices, and the bytes are the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from infra.kafka import KafkaSettings
from infra.native.kafka import Broker
from infra.native.programs import running, stop
from infra.topics import Administration
from schemas.messages import RoundClosed
from tests.distributed.conftest import Found
from tests.distributed.federation import ended_as_undisturbed
from tests.services import addresses, have, signalled, three_brokers, whole

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def brokers() -> Iterator[list[Broker]]:
    """The cluster of all tests; `found` takes the topics away before it is whole again."""
    cluster = have(three_brokers)
    yield cluster
    whole(cluster)


def test_one_of_three_brokers_is_killed_for_good(brokers: list[Broker], found: Found) -> None:
    """In the middle of the run, and nobody starts it again: topics have three copies, and no
    program ends or is told of anything."""
    run = found(kafka=addresses(brokers))
    run.start_all()
    run.until(
        lambda: any(isinstance(each, RoundClosed) for each in run.decided().decisions.values())
    )

    with closing(Administration(KafkaSettings(run.kafka))) as administration:
        assert {each.copies for each in administration.ls(run.names)} == {3}
    victim = brokers[0]
    signalled(victim, signal.SIGKILL)
    stop(victim.folder)
    run.finish()

    assert running(victim.folder) is None
    ended_as_undisturbed(run)
    assert not any(program.ends for program in run.programs.values())
