"""What moving updates through our transport costs beside a bare Kafka client.

    python benchmarks/moving.py [--updates 8] [--megabytes 45] [--repeat 3] [--json]

The same records (pieces of 960 KiB) are written to a topic and read back, in turn by kafka-python
alone and by our transport, each in a topic of its own. The ratio of bytes per second, the median
over the repetitions, is to be at least 0.80. It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from infra.settings import read_settings
from infra.topics import Administration, Planned
from infra.transport.clusters import kafka_settings
from infra.transport.kafka import Kafka
from schemas.codec import PIECE_BYTES, Record
from schemas.topics import Names

LEAST = 0.80
READ_BYTES = 4 * 1024 * 1024
"""As the loop reads."""


def main() -> None:
    """Measure and print, or one JSON object with `--json`; ends with 1 below the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=45, help="of one update")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    settings = kafka_settings(read_settings().kafka)
    names = Names(f"bench-{uuid.uuid4().hex[:8]}")
    update = pieces(given.megabytes)
    total = given.updates * sum(len(each.value) for each in update)
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    ways: dict[str, Callable[[str, Sequence[Record], int], float]] = {
        "bare": lambda *words: bare(settings.servers, *words),
        "ours": lambda *words: ours(Kafka(settings), *words),
    }
    with closing(Administration(settings)) as administration:
        for number in range(given.repeat + 1):
            for way, move in ways.items():
                topic = f"{names.federation('models')}-{way}-{number}"
                administration.apply([Planned(topic, {})])
                seconds = move(topic, update, given.updates)
                if number:  # the first warms up client and broker
                    rates[way].append(total / seconds / 1e6)
        administration.rm(names)
    ratio = median(ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True))
    told = {name: round(median(found), 1) for name, found in rates.items()}
    if given.json:
        print(json.dumps({"schema": 1, "megabytes_per_second": told, "ratio": round(ratio, 3)}))
    else:
        for name, rate in told.items():
            print(f"{name:<6}{rate:8.1f} MB/s, written and read back")
        print(f"ratio {ratio:8.2f}; to be at least {LEAST:.2f}")
    sys.exit(ratio < LEAST)


def pieces(megabytes: int) -> list[Record]:
    """An update's records, of noise as models are."""
    chance = np.random.Generator(np.random.PCG64(1))
    left = megabytes * 1_000_000
    found: list[Record] = []
    while left > 0:
        size = min(PIECE_BYTES, left)
        found.append(Record(f"update/{len(found)}", chance.bytes(size), {"ce_id": "0" * 64}))
        left -= size
    return found


def bare(servers: str, topic: str, update: Sequence[Record], updates: int) -> float:
    """Seconds of kafka-python alone: an update is acknowledged before the next one is sent."""
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    consumer = KafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="none"
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    producer.partitions_for(topic)
    began = time.perf_counter()
    for _ in range(updates):
        futures = [
            producer.send(
                topic, each.value, key=each.key.encode(), partition=0,
                headers=[(name, text.encode()) for name, text in each.headers.items()],
            )
            for each in update
        ]  # fmt: skip
        for future in futures:
            future.get(60)
    left = updates * len(update)
    while left:
        left -= sum(map(len, consumer.poll(timeout_ms=1000).values()))
    seconds = time.perf_counter() - began
    producer.close()
    consumer.close()
    return seconds


def ours(log: Kafka, topic: str, update: Sequence[Record], updates: int) -> float:
    """Seconds of our transport, with the same order of things."""
    with closing(log):
        log.end(topic)
        began = time.perf_counter()
        for _ in range(updates):
            log.append(topic, update)
        place, left = 0, updates * len(update)
        while left:
            found = log.read(topic, place, READ_BYTES)
            left -= len(found)
            if found:
                place = found[-1].offset + 1
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
