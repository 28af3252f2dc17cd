"""What was let go of a topic, gone from the disk as well: hurried, looked at, or promised.

A broker frees whole segments only, never the one it is writing to, and cleans a compacted topic
when it thinks fit. So a segment is begun before its time, the cleaner is told to hurry, and where a
broker's folder can be seen from here its files are looked at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from infra.kafka import KafkaSettings, connected
from infra.topics import PATIENCE, complain_of, configs_of, in_words
from schemas.topics import table_row

SETTLES = 0.5  # seconds in which every broker has heard of a config
ROLLS = {"segment.ms": "1"}
"""The next record begins a segment."""
CLEANS = ROLLS | {"max.compaction.lag.ms": "1", "min.cleanable.dirty.ratio": "0.0"}
"""And what stands before it is compacted at the cleaner's next look."""
CHECKED = "log.retention.check.interval.ms"
USUAL = {CHECKED: 300_000, "file.delete.delay.ms": 60_000}
"""Milliseconds, where a broker is not told otherwise."""
SEGMENT = re.compile(r"(\d{20})\.(?:log|index|timeindex)(\.\w+)?")


class Disk:
    """The disks of one cluster, as far as they can be reached from here."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect. Raises ServiceError when the cluster cannot be reached."""
        self._settings = settings
        self._admin = connected(
            settings, KafkaAdminClient, request_timeout_ms=round(1000 * PATIENCE)
        )

    @contextmanager
    def rolling(self, topic: str) -> Iterator[None]:
        """Inside this context each record begins a segment.

        Raises Forbidden where we may not say how a topic is kept.
        """
        with self._otherwise(topic, ROLLS):
            yield

    @contextmanager
    def hurrying(self, topic: str) -> Iterator[None]:
        """Inside this context each record begins a segment, and those before it are cleaned."""
        with self._otherwise(topic, CLEANS):
            yield

    def begins(self, topic: str, offset: int) -> bool | None:
        """Whether a segment begins at an offset; None where no folder can be seen from here."""
        folders = self._folders(topic)
        found = [(folder / f"{offset:020}.log").exists() for folder in folders]
        return all(found) if found else None

    def gone(self, topic: str, before: int) -> bool | None:
        """Whether no file is there of segments before an offset, nor one that is to be deleted.

        None where no folder can be seen from here.
        """
        folders = self._folders(topic)
        return not any(_left(folder, before) for folder in folders) if folders else None

    def promised(self, topic: str) -> float:
        """Seconds in which a broker lets a segment go, by its settings or else by Kafka's own."""
        found = dict(USUAL)
        for kind, name in ((ConfigResourceType.BROKER, None), (ConfigResourceType.TOPIC, topic)):
            found |= self._milliseconds(kind, name)
        return sum(found.values()) / 1000

    def close(self) -> None:
        """End the connection."""
        self._admin.close()

    @contextmanager
    def _otherwise(self, topic: str, configs: Mapping[str, str]) -> Iterator[None]:
        """A topic is kept otherwise for a while, and then as the table says."""
        usual = configs_of(table_row(topic), self._settings)
        self._set(topic, configs)
        time.sleep(SETTLES)
        try:
            yield
        finally:
            self._set(topic, {name: usual[name] for name in configs})

    def _set(self, topic: str, configs: Mapping[str, str]) -> None:
        with in_words(f"say how {topic} is kept"):
            told = self._admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(configs))],
                raise_on_unknown=False,
            )
            complain_of(told.get("topic", {}))

    def _folders(self, topic: str) -> list[Path]:
        """Where all brokers keep a topic, if every copy can be seen from here; else none."""
        try:
            copies = len(self._admin.describe_topics([topic])[0]["partitions"][0]["replica_nodes"])
            logs = [each["log_dir"] for broker in self._admin.describe_log_dirs()
                    for each in broker["log_dirs"]]  # fmt: skip
        except (errors.KafkaError, LookupError):
            return []  # we have no right to ask, or the topic is not there
        found = [Path(log) / f"{topic}-0" for log in dict.fromkeys(logs)]
        seen = [folder for folder in found if folder.is_dir()]
        return seen if len(seen) == copies else []

    def _milliseconds(self, kind: ConfigResourceType, name: str | None) -> dict[str, int]:
        """The longest that any of these is told to wait, as far as we may ask."""
        try:
            brokers = self._admin.describe_cluster()["brokers"] if name is None else ()
            names = [str(each["broker_id"]) for each in brokers] if name is None else [name]
            asked = [ConfigResource(kind, each) for each in names]
            told = self._admin.describe_configs(asked, config_filter="all")
        except errors.KafkaError:
            return {}  # we have no right to ask
        every = [each for of in told.values() for each in of.values()]
        return {
            name: max(int(each[name]["value"]) for each in every if name in each)
            for name in USUAL
            if any(name in each for each in every)
        }


def _left(folder: Path, before: int) -> Iterable[Path]:
    """Files of a topic's folder that may still hold what was let go."""
    found = ((file, SEGMENT.fullmatch(file.name)) for file in folder.iterdir())
    return [file for file, named in found if named and (int(named[1]) < before or named[2])]
