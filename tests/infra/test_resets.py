"""The client's look for topics goes on whatever it meets; resets themselves: test_guarded."""

from __future__ import annotations

import time

import pytest
from kafka.cluster import ClusterMetadata

from infra.kafka import KafkaSettings
from infra.topics import make_topics
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.topics import Names
from tests.services import have, kafka_address, new_run, swept

PATIENCE = 10.0


@pytest.mark.kafka
def test_a_reader_whose_look_for_topics_failed_finds_new_ones_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each client's loop meets, once it runs, something that no client of Kafka expects."""
    settings, names = KafkaSettings(have(kafka_address)), Names(new_run())
    make_topics(settings, names, "federation", ["local"], [])
    true, failed = ClusterMetadata.ttl, set[int]()

    def ttl(self: ClusterMetadata) -> float:
        if id(self) in failed:
            return float(true(self))
        failed.add(id(self))
        raise RuntimeError("unheard of")

    monkeypatch.setattr(ClusterMetadata, "ttl", ttl)
    log = Kafka(settings)
    topic = names.federation("rounds")
    log.append(topic, [Record("a", b"1")])
    until = time.monotonic() + PATIENCE
    while not (found := log.read(topic, 0, 1 << 20)) and time.monotonic() < until:
        log.wait(0.05)
    log.close()
    swept(settings, names)

    assert [each.record.key for each in found] == ["a"]
    assert len(failed) >= 4
