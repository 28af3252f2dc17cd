"""What a Kafka cluster and a Redis server say of themselves, as far as a run depends on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import redis
from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from infra.kafka import KafkaSettings, connected
from infra.settings import Service
from infra.store.redis import client
from infra.topics import configs_of, in_words
from schemas.codec import PIECE_BYTES
from schemas.errors import ConfigurationError, Forbidden, ServiceError
from schemas.topics import PREFIX, table_row

ANSWER = 5.0  # seconds for a question, and for brokers to agree who is there
AGAIN = 0.2  # seconds between two looks
RECORD_BYTES = PIECE_BYTES + 64 * 1024
"""A piece with its key, its hashes and its headers."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of Kafka."""

    version: str
    brokers: int
    """That answer. What follows is the least that any of them does."""
    insync: int
    """Copies of a record that must be there before it counts as written, by a broker's default."""
    unclean: bool
    """Whether a copy that lags behind may become the leader, and with it lose what was written."""
    record_bytes: int
    """The largest record that brokers take."""
    free: int | None
    """Bytes left on the fullest disk of a broker; None where it does not say."""
    topics: tuple[Kept, ...]
    """Those of ours, in order of name."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A topic of ours, and how it is kept."""

    name: str
    partitions: int
    copies: int
    in_sync: int
    """Copies that have all of it."""
    configs: Mapping[str, str]
    """All of them, whoever has set them."""

    @property
    def insync(self) -> int:
        """Copies that must have a record before it counts as written."""
        return int(self.configs["min.insync.replicas"])

    @property
    def unclean(self) -> bool:
        """Whether a copy that lags behind may become its leader."""
        return self.configs["unclean.leader.election.enable"] == "true"

    @property
    def odd(self) -> tuple[str, str, str] | None:
        """The first setting that is other than ours: its name, what it is, what it should be."""
        try:
            wanted = {**configs_of(table_row(self.name), KafkaSettings(""))}
        except ValueError:
            return None  # somebody else's, under our prefix
        for name, value in sorted(wanted.items()):
            if self.configs[name] != value:
                return name, self.configs[name], value
        return None


@dataclass(frozen=True, slots=True)
class Server:
    """A server of Redis."""

    version: str
    persistent: bool | None
    """Whether it writes what it holds to a disk; None where it does not say."""
    policy: str
    """What it does without room."""
    skew: float
    """Seconds by which its clock is ahead of ours."""


def cluster(settings: KafkaSettings) -> Cluster:
    """Ask a cluster.

    Raises ServiceError and ConfigurationError, as `connected` does, also where it does not let us
    look at it.
    """
    limit = {"request_timeout_ms": round(1000 * ANSWER)}
    until = time.monotonic() + ANSWER
    with closing(connected(settings, KafkaAdminClient, **limit)) as admin:
        while True:
            try:
                with in_words("look at it"):
                    return _looked(admin)
            except Forbidden:
                raise
            except ServiceError:  # it asked a broker that has just gone; the next time another one
                if time.monotonic() > until:
                    raise
            time.sleep(AGAIN)


def _looked(admin: KafkaAdminClient) -> Cluster:
    known = [each["broker_id"] for each in admin.describe_cluster()["brokers"]]
    own = {id: configs for id in known if (configs := _own(admin, id)) is not None}
    if not own:
        raise ServiceError(f"none of {len(known)} brokers answers")
    if not all(own.values()):
        raise ConfigurationError(
            "it answers, and this account may not ask how it is set up (DESCRIBE_CONFIGS of the"
            " cluster): let one look that may make topics"
        )
    ours = sorted(name for name in admin.list_topics() if name.startswith(f"{PREFIX}."))
    return Cluster(
        version=".".join(map(str, admin.get_broker_version_data(min(own)).broker_version)),
        brokers=len(own),
        insync=min(int(each["min.insync.replicas"]) for each in own.values()),
        unclean=any(each["unclean.leader.election.enable"] == "true" for each in own.values()),
        record_bytes=min(int(each["message.max.bytes"]) for each in own.values()),
        free=_free(admin, sorted(own)),
        topics=tuple(_kept(admin, ours)) if ours else (),
    )


def _own(admin: KafkaAdminClient, id: int) -> dict[str, str] | None:
    """The settings of a broker; None of one that has gone and is not missed yet.

    Empty where we may not ask: the client keeps a refusal to itself.
    """
    try:
        return _configs(admin, ConfigResourceType.BROKER, [str(id)])[str(id)]
    except errors.KafkaError:
        return None


def _free(admin: KafkaAdminClient, brokers: list[int]) -> int | None:
    """Bytes left on the fullest disk, as far as brokers say."""
    try:
        told = admin.describe_log_dirs(brokers=brokers)
    except errors.KafkaError:
        return None
    folders = [each for broker in told for each in broker["log_dirs"]]
    return min((each["usable_bytes"] for each in folders if _tells(each)), default=None)


def _tells(folder: Mapping[str, Any]) -> bool:
    """Whether a broker says how full the disk of one of its folders is."""
    return int(folder.get("usable_bytes", -1)) >= 0


def _kept(admin: KafkaAdminClient, names: list[str]) -> Iterator[Kept]:
    configs = _configs(admin, ConfigResourceType.TOPIC, names)
    for each in admin.describe_topics(names):
        parts = each["partitions"]
        if parts and configs.get(each["name"]):  # else it is just made, or taken away
            yield Kept(
                each["name"],
                len(parts),
                min(len(part["replica_nodes"]) for part in parts),
                min(len(part["isr_nodes"]) for part in parts),
                configs[each["name"]],
            )


def server(service: Service) -> Server:
    """Ask a server of Redis. Raises redis.RedisError."""
    with client(service) as asked:
        before = time.time()
        seconds, micros = asked.time()
        between = (before + time.time()) / 2
        stands: dict[str, Any] = asked.info("persistence")
        held: dict[str, Any] = asked.info("memory")
        version = str(asked.info("server")["redis_version"])
        saves = bool(stands["aof_enabled"]) or _saves(asked)
    return Server(
        version=version,
        persistent=saves,
        policy=str(held["maxmemory_policy"]),
        skew=seconds + micros / 1e6 - between,
    )


def _saves(asked: Any) -> bool | None:
    """Whether it writes a snapshot now and then; None where CONFIG is forbidden, as by hosts."""
    try:
        return bool(asked.config_get("save").get("save"))
    except redis.ResponseError:
        return None


def _configs(admin: KafkaAdminClient, kind: Any, names: list[str]) -> dict[str, dict[str, str]]:
    told = admin.describe_configs(
        [ConfigResource(kind, name) for name in names], config_filter="all"
    )
    of_kind = told["broker" if kind is ConfigResourceType.BROKER else "topic"]
    return {
        name: {key: str(each["value"]) for key, each in configs.items()}
        for name, configs in of_kind.items()
    }
