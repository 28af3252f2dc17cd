"""What was let go of a topic is gone from a real broker's disk, and what stays is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from infra.erasing import Disk
from infra.kafka import KafkaSettings
from infra.topics import Administration, make_topics
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.topics import Names
from tests.services import have, kafka_address, new_run, swept

pytestmark = pytest.mark.kafka
LONG = b"nobody else writes such a thing: " * 8


@pytest.fixture
def names() -> Iterator[tuple[KafkaSettings, Names]]:
    """A run with an entity, whose topics end with the test."""
    settings, names = KafkaSettings(have(kafka_address)), Names(new_run())
    make_topics(settings, names, "site", ["north"], ["north/ward"])
    yield settings, names
    swept(settings, names)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    late = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < late
        time.sleep(0.2)


def on_disk(disk: Disk, topic: str, content: bytes) -> bool:
    """Whether some file of a topic holds it; skips the test where its folder cannot be seen."""
    folders = disk._folders(topic)
    if not folders:
        pytest.skip("the broker's disk cannot be looked at from here")
    return any(content in file.read_bytes() for each in folders for file in each.iterdir())


def test_what_was_trimmed_is_gone_when_its_segment_is(names: tuple[KafkaSettings, Names]) -> None:
    """Three records, of which the first is to go: a segment begins, what is before it is trimmed,
    and the file is deleted; the topic is kept as before."""
    settings, named = names
    topic = named.of_entity("samples", "north/ward")
    with closing(Kafka(settings)) as log, closing(Disk(settings)) as disk:
        log.append(topic, [Record("a", LONG), Record("b", b"2"), Record("c", b"3")])
        assert on_disk(disk, topic, LONG)
        with disk.rolling(topic):
            (before,) = log.append(topic, [Record("mark", b"4")])
        assert disk.begins(topic, before)
        assert not disk.gone(topic, before)
        log.trim(topic, before)
        until(lambda: bool(disk.gone(topic, before)))

        assert not on_disk(disk, topic, LONG)
        assert [each.offset for each in log.read(topic, before, 1 << 20)] == [before]
        assert 0 < disk.promised(topic) <= 361
    with closing(Administration(settings)) as administration:
        found = {each.name: each for each in administration.ls(named)}[topic]
    assert found.configs["segment.ms"] == "600000"


def test_what_was_forgotten_is_gone_when_its_topic_was_cleaned(
    names: tuple[KafkaSettings, Names],
) -> None:
    """Two keys, one of them with a tombstone: after a hurried cleaning the other alone is there."""
    settings, named = names
    topic, other = named.of_entity("twin-state", "north/ward"), LONG[::-1]
    with closing(Kafka(settings)) as log, closing(Disk(settings)) as disk:
        log.append(topic, [Record("image/1", LONG), Record("image/2", other)])
        log.forget(topic, "image/1")
        with disk.hurrying(topic):
            log.append(topic, [Record("forgotten/x", b"1")])
            until(lambda: not on_disk(disk, topic, LONG))
            until(lambda: bool(disk.gone(topic, 0)))

        assert on_disk(disk, topic, other)
