"""Three brokers keep three copies, of which two must have a record: one may die and nobody waits;
while two are away everybody waits, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from threading import Timer

import pytest
from kafka import KafkaAdminClient, errors

from infra.native.kafka import Broker
from infra.native.programs import running, stop
from infra.topics import Found, plan
from schemas.topics import Names
from tests.infra.test_kafka import Place, everything, last_places, records
from tests.services import addresses, at_times, have, new_run, signalled, three_brokers, whole

pytestmark = pytest.mark.kafka

PATIENCE = 3.0  # seconds of a writer
AWAY = 5.0  # seconds after which one of those that were killed is started again; it takes 3 more


@pytest.fixture
def brokers() -> Iterator[list[Broker]]:
    """The cluster of all tests, whole again afterwards."""
    found = have(three_brokers)
    yield found
    whole(found)


@pytest.fixture
def place(brokers: list[Broker]) -> Iterator[Place]:
    """A topic there; the brokers are whole again before it is taken away."""
    found = Place(addresses(brokers))
    yield found
    whole(brokers)
    found.close()


def leader(place: Place, brokers: list[Broker]) -> Broker:
    """Whoever takes what is written to the place's topic."""
    with closing(KafkaAdminClient(**place.settings.client())) as admin:
        (topic,) = admin.describe_topics([place.topic])
    return next(each for each in brokers if each.node == topic["partitions"][0]["leader_id"])


def noticed(place: Place) -> bool:
    """Whether the cluster knows that a copy of the place's topic is away."""
    try:
        with closing(KafkaAdminClient(**place.settings.client())) as admin:
            (topic,) = admin.describe_topics([place.topic])
    except errors.KafkaError:
        return False  # it asked the one that is away
    return len(topic["partitions"][0]["isr_nodes"]) < 3


def listed(place: Place, count: int) -> list[Found]:
    """So many topics: each broker hears in its own time of those that are made."""
    until = time.monotonic() + 10
    while len(found := place.administration.ls(place.names)) < count and time.monotonic() < until:
        time.sleep(0.1)
    return found


def kill(broker: Broker) -> None:
    """Kill it; it stays dead."""
    signalled(broker, signal.SIGKILL)
    stop(broker.folder)


def test_topics_have_three_copies_unless_somebody_says_otherwise(place: Place) -> None:
    """Of every topic of a run, and two must have a record; who wants one copy says so."""
    wanted = plan(place.names, "federation", ["north"], ["north/a"], place.settings)
    place.administration.apply(wanted)
    found = listed(place, len(wanted))

    assert len(found) == len(wanted)
    assert {each.copies for each in found} == {3}
    assert {each.configs["min.insync.replicas"] for each in found} == {"2"}
    assert place.administration.apply(wanted).mended == []

    place.administration.rm(place.names)
    place.names = Names(new_run())
    one = replace(place.settings, replication=1)
    wanted = plan(place.names, "federation", [], [], one)
    place.administration.apply(wanted)
    assert {each.copies for each in listed(place, len(wanted))} == {1}


def test_one_of_three_is_killed_and_nobody_waits_for_it(
    place: Place, brokers: list[Broker]
) -> None:
    """The leader, with five records on their way: another leads, and all are there in order."""
    place.make()
    victim = leader(place, brokers)
    log = place.open(hook=at_times("append:written", (4,), lambda: kill(victim)))
    wanted = [f"{i}/{j}" for i in range(10) for j in range(5)]

    places = [log.append(place.topic, records(*wanted[i : i + 5]))[0] for i in range(0, 50, 5)]

    found = everything(place.open(), place.topic)
    assert running(victim.folder) is None
    assert last_places(found) == wanted
    at = {each.offset: each.record.key for each in found}
    assert [at[offset] for offset in places] == [f"{i}/0" for i in range(10)]


@pytest.mark.parametrize(("must_have", "killed"), [(3, 1), (2, 2)])
def test_too_few_copies_are_waited_for(
    place: Place,
    brokers: list[Broker],
    must_have: int,
    killed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So many must have a record, and so many are killed: it is written when one of them is back.

    That it is away is said once, and that it is back. Where two live, the leader says that they
    are too few; a single one has nobody to agree with.
    """
    place.settings = replace(place.settings, delivery_timeout=PATIENCE)
    place.make(**{"min.insync.replicas": str(must_have)})
    log = place.open()
    log.append(place.topic, records("before"))
    first = leader(place, brokers)
    victims = [each for each in brokers if each is not first][:killed]
    for each in victims:
        kill(each)
    until = time.monotonic() + 30
    while killed == 1 and not noticed(place):  # what was sent before would only wait
        assert time.monotonic() < until
        time.sleep(0.1)
    back = Timer(AWAY, victims[0].start)
    back.start()

    log.append(place.topic, records("a", "b"))

    there = running(victims[0].folder)
    back.join()
    assert there is not None
    assert last_places(everything(place.open(), place.topic)) == ["before", "a", "b"]
    away, back_again = [each for each in caplog.messages if each.startswith("Kafka at")]
    assert "is back" in back_again
    assert ("fewer copies are in reach" in away) == (killed == 1)
