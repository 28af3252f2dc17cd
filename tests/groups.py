"""What a broker knows of a consumer group: who has what, and how often it was dealt."""

from __future__ import annotations

import struct
from contextlib import closing

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from infra.kafka import KafkaSettings, connected

DIARY = "__consumer_offsets"
OF_A_GROUP = 2
"""The version of a key that is about a whole group; others are about its offsets."""


def shares(settings: KafkaSettings, group: str) -> dict[str, list[str]]:
    """Member → the topics that were dealt to it; nothing while the group is dealing."""
    with closing(connected(settings, KafkaAdminClient)) as admin:
        told = admin.describe_groups([group])[group]
    if told["group_state"] != "Stable":
        return {}
    return {
        member["group_instance_id"]: [
            each["topic"] for each in member["member_assignment"]["assigned_partitions"]
        ]
        for member in told["members"]
    }


def generations(settings: KafkaSettings, group: str) -> list[int]:
    """The number of each dealing of a group, in order, read from the broker's own diary of groups;
    every rebalance is one more."""
    found: list[int] = []
    reader = connected(settings, KafkaConsumer, auto_offset_reset="none", enable_auto_commit=False)
    with closing(reader):
        places = [TopicPartition(DIARY, each) for each in reader.partitions_for_topic(DIARY)]
        reader.assign(places)
        reader.seek_to_beginning(*places)
        ends = reader.end_offsets(places)
        while any(reader.position(place) < end for place, end in ends.items()):
            for records in reader.poll(timeout_ms=200).values():
                found += [
                    _generation(each.value)
                    for each in records
                    if each.value is not None and _group(each.key) == group
                ]
    return [each for index, each in enumerate(found) if each not in found[:index]]


def _group(key: bytes) -> str:
    """The group that a record is about as a whole; none for its offsets."""
    version, length = struct.unpack_from(">hh", key)
    return key[4 : 4 + length].decode() if version == OF_A_GROUP else ""


def _generation(value: bytes) -> int:
    """Behind a version and the protocol's name."""
    _, length = struct.unpack_from(">hh", value)
    return int(struct.unpack_from(">i", value, 4 + length)[0])
