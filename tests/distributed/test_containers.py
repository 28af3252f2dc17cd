"""A broker and a Redis server in containers: a whole run through them, undisturbed and not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from infra.transport.group import SESSION
from tests.containers import Contained, broker, server
from tests.distributed.conftest import Found
from tests.distributed.faults import in_the_middle, went_on_as_undisturbed
from tests.engine import local_images, some_engine
from tests.services import have

pytestmark = [pytest.mark.docker, pytest.mark.slow]
AWAY = SESSION + 2
"""Seconds without the broker: longer than a twin's session lasts."""
Services = tuple[Contained, Contained]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A broker and a server that nobody else uses, so that they may be treated badly."""
    with some_engine(tmp_path_factory.mktemp("engine")):
        images = have(local_images)
        kafka = have(lambda: broker(images.get("FEDTWIN_KAFKA_IMAGE", "")))
        redis = have(lambda: server(images.get("FEDTWIN_REDIS_IMAGE", "")))
        yield kafka, redis
        for each in (kafka, redis):
            each.stop()


def test_a_run_through_containers_ends_as_in_one_process(found: Found, services: Services) -> None:
    """The roles are on this machine, their services in containers: not one byte is another."""
    kafka, redis = services
    run = found(kafka=kafka.address, redis=redis.address)

    run.start_all()
    run.finish()

    went_on_as_undisturbed(run)


def test_a_broker_whose_container_is_paused_is_waited_for(found: Found, services: Services) -> None:
    """In the middle of the rounds; nobody is told, and requests expire."""
    kafka, redis = services
    run = found(kafka=kafka.address, redis=redis.address)
    run.start_all()
    in_the_middle(run)

    with kafka.paused():
        time.sleep(AWAY)
    run.finish()

    went_on_as_undisturbed(run)


def test_a_broker_that_is_cut_off_is_waited_for(found: Found, services: Services) -> None:
    """Its container leaves the network in the middle of the rounds, and comes back to it."""
    kafka, redis = services
    run = found(kafka=kafka.address, redis=redis.address)
    run.start_all()
    in_the_middle(run)

    with kafka.cut_off():
        time.sleep(AWAY)
    run.finish()

    went_on_as_undisturbed(run)
