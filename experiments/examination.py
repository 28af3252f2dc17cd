"""What a Kafka cluster and a Redis server say of themselves, as far as a run depends on it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from infra.kafka import KafkaSettings, connected
from infra.settings import Service
from infra.store.redis import client
from schemas.codec import PIECE_BYTES
from schemas.topics import PREFIX

RECORD_BYTES = PIECE_BYTES + 64 * 1024
"""A piece with its key, its hashes and its headers."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of Kafka."""

    version: str
    brokers: int
    insync: int
    """Copies of a record that must be there before it counts as written, by a broker's default."""
    unclean: bool
    """Whether a copy that lags behind may become the leader, and with it lose what was written."""
    record_bytes: int
    """The largest record that brokers take."""
    forgets: tuple[str, ...]
    """Topics of ours from which something goes by its age."""
    topics: int
    """Topics of ours."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of Redis."""

    version: str
    persistent: bool
    """Whether it writes what it holds to a disk."""
    policy: str
    """What it does without room."""
    skew: float
    """Seconds by which its clock is ahead of ours."""


def cluster(settings: KafkaSettings) -> Cluster:
    """Ask a cluster. Raises ServiceError and ConfigurationError, as `connected` does."""
    with closing(connected(settings, KafkaAdminClient)) as admin:
        brokers = admin.describe_cluster()["brokers"]
        id = brokers[0]["broker_id"]
        own = _configs(admin, ConfigResourceType.BROKER, [str(id)])[str(id)]
        ours = [name for name in admin.list_topics() if name.startswith(f"{PREFIX}.")]
        kept = _configs(admin, ConfigResourceType.TOPIC, ours) if ours else {}
        version = ".".join(map(str, admin.get_broker_version_data(id).broker_version))
    return Cluster(
        version=version,
        brokers=len(brokers),
        insync=int(own["min.insync.replicas"]),
        unclean=own["unclean.leader.election.enable"] == "true",
        record_bytes=int(own["message.max.bytes"]),
        forgets=tuple(name for name, of in sorted(kept.items()) if of["retention.ms"] != "-1"),
        topics=len(ours),
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
        saves = bool(stands["aof_enabled"]) or bool(asked.config_get("save").get("save"))
    return Server(
        version=version,
        persistent=saves,
        policy=str(held["maxmemory_policy"]),
        skew=seconds + micros / 1e6 - between,
    )


def _configs(admin: KafkaAdminClient, kind: Any, names: list[str]) -> dict[str, dict[str, str]]:
    told = admin.describe_configs(
        [ConfigResource(kind, name) for name in names], config_filter="all"
    )
    of_kind = told["broker" if kind is ConfigResourceType.BROKER else "topic"]
    return {
        name: {key: str(each["value"]) for key, each in configs.items()}
        for name, configs in of_kind.items()
    }
