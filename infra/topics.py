"""The topics of a run on a Kafka cluster: planned from the table, made, mended, listed, removed.

Kafka's own defaults forget after seven days. Here nothing is forgotten by age: what may go is let
go by its owner (`trim`, `forget`), and then it should really go. A broker frees whole segments of a
log only, never the one it is writing to, so topics from which something is let go get small ones.

What was written should survive a broker: a topic has three copies, or as many as the cluster has
brokers when it is made, and a record counts as written when all of them but one have it.

Topics that are kept compacted are `compact,delete`: with `compact` alone a broker refuses to trim.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from infra.kafka import KafkaSettings, check_copies, connected, refusal
from schemas.errors import ConfigurationError, ServiceError
from schemas.topics import TOPICS, Kept, Names, Topic, table_row

Cluster = Literal["federation", "site"]
Configs = Mapping[str, str]
MINUTE = 60_000  # milliseconds
SEGMENT_BYTES = 64 * 1024 * 1024
COPIES = 3  # of each topic, where there are so many brokers
INSYNC = "min.insync.replicas"
SMALL_BYTES = 64 * 1024 * 1024  # of dead letters, each topic; of metrics four times as much
PATIENCE = 60.0  # seconds for a request: hundreds of topics may be made at once
ASKED_AGAIN = 10  # times, when a topic was just being taken away
REST = 0.2  # seconds before that
TOGETHER = 250  # topics in a request: a broker makes no more than 10,000 entries, ten a topic
GOES = {
    "segment.ms": str(10 * MINUTE),
    "segment.bytes": str(SEGMENT_BYTES),
    "file.delete.delay.ms": "1000",  # who reads a file just then goes on: it has it open
}
"""What is trimmed leaves the disk with its segment, at the next record after ten minutes."""
COMPACTED = {
    "cleanup.policy": "compact,delete",
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(10 * MINUTE),
    "delete.retention.ms": str(MINUTE),  # of tombstones, which nobody is given
}
BY_SIZE = {"retention.bytes": str(SMALL_BYTES), "segment.bytes": str(SMALL_BYTES // 8)}
BY_KEPT: dict[Kept, Configs] = {
    "all": {},
    "trimmed": GOES,
    "compacted": GOES | COMPACTED,
    "by size": BY_SIZE,
    "newest": {"retention.bytes": str(4 * SMALL_BYTES)} | GOES | COMPACTED,
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A topic as it should be."""

    name: str
    configs: Configs
    replication: int | None = None
    """Its copies; None: three, or as many as there are brokers."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is."""

    name: str
    partitions: int
    copies: int
    configs: Configs
    """Those that differ from the broker's own."""
    first: int
    end: int
    """Where the log begins and ends; tombstones count."""
    size: int
    """Bytes on the disk of the leader."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done to bring topics to where they should be."""

    made: Sequence[str] = ()
    mended: Sequence[str] = ()
    """Some configs were others."""
    kept: Sequence[str] = ()
    """They were as they should be."""


def plan(
    names: Names,
    cluster: Cluster,
    sites: Sequence[str],
    entities: Sequence[str],
    settings: KafkaSettings,
) -> list[Planned]:
    """The topics of a run in one of its two clusters; `entities` are full names `<site>/<entity>`.

    Where site and federation are one cluster, it holds both plans. Raises ConfigurationError for a
    name that may be none.
    """
    return [
        Planned(name, configs_of(row, settings), settings.replication)
        for row in TOPICS
        if row.cluster == cluster
        for name, _ in names.each(row, sites, entities)
    ]


def make_topics(
    settings: KafkaSettings,
    names: Names,
    cluster: Cluster,
    sites: Sequence[str],
    entities: Sequence[str],
) -> list[str]:
    """Make what one of the two clusters lacks; gives the names of what was made.

    What is there is left as it is, so a program that may make none gets along where somebody else
    has made them. Raises ServiceError, and ConfigurationError when the cluster refuses.
    """
    with closing(Administration(settings)) as administration:
        return administration.make(plan(names, cluster, sites, entities, settings))


def entities_there(settings: KafkaSettings, names: Names, site: str) -> list[str]:
    """Full names of the entities of a site that have a topic for their samples, as far as we see.

    Raises ServiceError, and ConfigurationError when the cluster refuses.
    """
    with closing(Administration(settings)) as administration:
        return administration.entities(names, site)


def configs_of(row: Topic, settings: KafkaSettings) -> Configs:
    """How a broker should keep the topics of a line of the table."""
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",  # a writer's clock may be years off
        "retention.ms": "-1",
        "retention.bytes": "-1",
        **_insync(settings.replication, settings.min_insync),
        **BY_KEPT[row.kept],
    }


def _insync(copies: int | None, asked: int | None) -> Configs:
    """How many copies must have a record; all but one, so that one of them may be away."""
    if asked is None and copies is None:
        return {}  # known when it is known how many there are
    return {INSYNC: str(asked or max(1, (copies or 1) - 1))}


class Administration:
    """Makes and removes the topics of one cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect. Raises ServiceError when the cluster cannot be reached."""
        self._admin = connected(
            settings, KafkaAdminClient, request_timeout_ms=round(1000 * PATIENCE)
        )

    def apply(self, planned: Sequence[Planned]) -> Applied:
        """Make what is missing, and mend configs that are others. Twice changes nothing.

        Raises ConfigurationError for a topic of several partitions or of other copies than were
        asked for, or when the cluster refuses.
        """
        with in_words("make topics"):
            there = self._described([each.name for each in planned])
            for each in planned:
                if each.name in there:
                    _check(each, *there[each.name])
            missing = [each for each in planned if each.name not in there]
            self._make(missing)
            mended = self._mend([each for each in planned if each.name in there])
        kept = there.keys() - set(mended)
        return Applied([each.name for each in missing], mended, sorted(kept))

    def make(self, planned: Sequence[Planned]) -> list[str]:
        """Make what is missing, and touch nothing else; gives the names of what was made.

        What we may not even see is somebody else's to make. Raises ConfigurationError when the
        cluster refuses.
        """
        with in_words("make topics"):
            names = [each.name for each in planned]
            told = self._admin.describe_topics(names) if names else []
            absent = errors.UnknownTopicOrPartitionError.errno
            gone = {each["name"] for each in told if each["error_code"] == absent}
            missing = [each for each in planned if each.name in gone]
            self._make(missing)
        return [each.name for each in missing]

    def entities(self, names: Names, site: str) -> list[str]:
        """Full names of a site's entities, by the topics of their samples."""
        with in_words("list topics"):
            parts = [topic.split(".") for topic in self._under(names)]
        return [f"{site}/{p[4]}" for p in parts if p[2:4] == ["samples", site] and len(p) == 5]

    def ls(self, names: Names) -> list[Found]:
        """The topics of a run, in order of name."""
        with in_words("list topics"):
            for _ in range(ASKED_AGAIN):
                with suppress(errors.UnknownTopicOrPartitionError):  # one was just being taken away
                    return self._found(self._under(names))
                time.sleep(REST)
            return self._found(self._under(names))

    def _found(self, there: Sequence[str]) -> list[Found]:
        if not there:
            return []
        described, configs, sizes = self._described(there), self._configs(there), self._sizes()
        first, end = self._offsets(there, "EARLIEST"), self._offsets(there, "LATEST")
        return [
            Found(
                name,
                *described[name],
                configs.get(name, {}),
                first[name],
                end[name],
                sizes.get(name, 0),
            )
            for name in there
            if name in described
        ]

    def rm(self, names: Names, cluster: Cluster | None = None) -> list[str]:
        """Take a run's topics away, and all that is in them; gives their names.

        Where site and federation are one cluster, `cluster` says whose alone.
        """
        with in_words("take topics away"):
            there = [each for each in self._under(names) if cluster in (None, whose(each))]
            for some in _portions(there):
                told = self._admin.delete_topics(list(some), raise_errors=False)["topics"]
                _complain(told, besides=errors.UnknownTopicOrPartitionError)
        return there

    def close(self) -> None:
        """End the connection."""
        self._admin.close()

    # --- asking -----------------------------------------------------------------------------------

    def _under(self, names: Names) -> list[str]:
        """The names of a run's topics. The dot at the end keeps run-1 apart from run-10."""
        prefix = f"{names.prefix}.{names.run}."
        return sorted(each for each in self._admin.list_topics() if each.startswith(prefix))

    def _described(self, topics: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Of the topics that are there, how many partitions they have, and copies of each."""
        told = self._admin.describe_topics(list(topics)) if topics else []
        _complain(told, besides=errors.UnknownTopicOrPartitionError)
        return {
            each["name"]: (
                len(each["partitions"]),
                min((len(part["replica_nodes"]) for part in each["partitions"]), default=0),
            )
            for each in told
            if not each["error_code"]
        }

    def _configs(
        self, topics: Iterable[str], which: Literal["all", "modified"] = "modified"
    ) -> dict[str, Configs]:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        told = self._admin.describe_configs(wanted, config_filter=which) if wanted else {}
        return {
            topic: {name: str(each["value"]) for name, each in sorted(configs.items())}
            for topic, configs in told.get("topic", {}).items()
        }

    def _offsets(self, topics: Sequence[str], which: str) -> dict[str, int]:
        specs = {TopicPartition(topic, 0): OffsetSpec[which] for topic in topics}
        found = self._admin.list_partition_offsets(specs)
        return {partition.topic: each.offset for partition, each in found.items()}

    def _sizes(self) -> dict[str, int]:
        """Bytes of each topic where it is largest, which is at its leader."""
        sizes: dict[str, int] = {}
        for broker in self._admin.describe_log_dirs():
            for topic, size in _sizes_at(broker):
                sizes[topic] = max(size, sizes.get(topic, 0))
        return sizes

    # --- changing ---------------------------------------------------------------------------------

    def _make(self, missing: Sequence[Planned]) -> None:
        if not missing:
            return
        brokers = len(self._admin.describe_cluster()["brokers"])
        wanted = {each.name: _wanted(each, min(COPIES, brokers)) for each in missing}
        for some in _portions(list(wanted)):
            asked = {name: wanted[name] for name in some}
            told = self._admin.create_topics(asked, raise_errors=False)["topics"]
            _complain(told, besides=errors.TopicAlreadyExistsError)  # somebody else was quicker
        self._admin.wait_for_topics(list(wanted), timeout_ms=round(1000 * PATIENCE))

    def _mend(self, planned: Sequence[Planned]) -> list[str]:
        """Set what differs; what a broker has by itself counts, too."""
        found = self._configs([each.name for each in planned], "all")
        differing = {
            each.name: other
            for each in planned
            if (other := dict(each.configs.items() - found.get(each.name, {}).items()))
        }
        for some in _portions(list(differing)):
            told = self._admin.alter_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, name, configs=differing[name])
                    for name in some
                ],
                raise_on_unknown=False,  # the client asks any broker, which may not know it yet
            )
            complain_of(told.get("topic", {}))
        return list(differing)


def _portions(topics: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many topics at a time as a cluster changes at once."""
    for start in range(0, len(topics), TOGETHER):
        yield topics[start : start + TOGETHER]


def _wanted(planned: Planned, usual: int) -> dict[str, Any]:
    """What the client is asked to make, where the usual number of copies is known."""
    copies = planned.replication or usual
    configs = {**_insync(copies, None), **planned.configs}
    check_copies(copies, int(configs[INSYNC]))
    return {"num_partitions": 1, "replication_factor": copies, "configs": configs}


def _check(planned: Planned, partitions: int, copies: int) -> None:
    """Raises ConfigurationError for what cannot be mended in a topic that is there."""
    if partitions != 1:
        raise ConfigurationError(
            f"{planned.name} has {partitions} partitions and must have one, or its records have no"
            " order: take it away first"
        )
    if planned.replication not in (None, copies):
        raise ConfigurationError(
            f"{planned.name} has {copies} copies, and {planned.replication} were asked for: Kafka's"
            " own kafka-reassign-partitions makes more of one that is there"
        )
    check_copies(copies, int(planned.configs.get(INSYNC, 1)))


@contextmanager
def in_words(doing: str) -> Iterator[None]:
    """Whatever the client complains of inside this context is told in our words."""
    try:
        yield
    except errors.RetriableError as error:
        reason = f"{type(error).__name__}: {error}"
        raise ServiceError(f"Kafka was away when it should {doing} ({reason})") from error
    except errors.KafkaError as error:
        raise refusal(error, doing) from error


def _complain(told: Iterable[Mapping[str, Any]], besides: type[errors.BrokerResponseError]) -> None:
    """Raise the first error that an answer holds, but for one kind."""
    for each in told:
        if each["error_code"] not in (0, besides.errno):
            reason = each.get("error_message") or ""
            raise errors.for_code(each["error_code"])(f"{each['name']}: {reason}")


def complain_of(told: Mapping[str, str]) -> None:
    """Raise the first error that the client gave instead of raising it: topic → `OK` or words."""
    for name, words in told.items():
        if words != "OK":
            denied = errors.TopicAuthorizationFailedError.__name__ in words
            kind = errors.TopicAuthorizationFailedError if denied else errors.InvalidConfigError
            raise kind(f"{name}: {words}")


def _sizes_at(broker: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for folder in broker["log_dirs"]:
        for topic in folder["topics"]:
            for partition in topic["partitions"]:
                yield topic["name"], int(partition["partition_size"])


def whose(topic: str) -> Cluster | None:
    """In which cluster a topic belongs; None for what is no topic of ours."""
    try:
        return table_row(topic).cluster
    except ValueError:
        return None
