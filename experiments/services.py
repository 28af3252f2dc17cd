"""The doctor looks at the services of a run over Kafka: those that are named, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from experiments.check import Check
from experiments.examination import RECORD_BYTES, Cluster, Server, cluster, server
from infra.settings import Service, read_settings
from infra.transport.clusters import kafka_settings
from schemas.errors import FedtwinError

ODD_CLOCK = 5.0
"""Seconds between two clocks that nobody would explain by the way between them."""
UP = "start one with `make up`, or set {} to its address"


def services() -> Iterator[Check]:
    """Each named service: whether it answers, and whether what it keeps is safe there."""
    try:
        settings = read_settings()
    except FedtwinError as error:
        yield Check("services", "unknown", False, False, str(error), "mend the environment")
        return
    kafka = settings.services.get("FEDTWIN_KAFKA")
    if kafka is None:
        yield _unnamed("kafka", "FEDTWIN_KAFKA")
    else:
        yield from _kafka("kafka", kafka)
        if settings.site_kafka != kafka:
            yield from _kafka("site kafka", settings.site_kafka)
    named = settings.services.get("FEDTWIN_REDIS")
    if named is None:
        yield _unnamed("redis", "FEDTWIN_REDIS")
    else:
        yield from _redis(named)


def _unnamed(name: str, variable: str) -> Check:
    cause = f"nobody names one: {variable} is not set, and there is no .services.json"
    return Check(name, "no address", False, False, cause, UP.format(variable))


# --- Kafka ----------------------------------------------------------------------------------------


def _kafka(name: str, service: Service) -> Iterator[Check]:
    try:
        found = cluster(kafka_settings(service))
    except FedtwinError as error:
        remedy = UP.format(service.variable)
        yield Check(name, service.address, False, False, str(error), remedy)
        return
    many = f"{found.brokers} broker{'' if found.brokers == 1 else 's'}"
    yield Check(name, f"{service.address}: version {found.version}, {many}", True, False)
    yield _copies(name, found)
    yield _records(name, found)
    yield _ages(name, found)


def _copies(name: str, found: Cluster) -> Check:
    """Whether what was written survives the loss of a broker."""
    if found.brokers == 1:
        return Check(
            f"{name} copies", "one broker", False, False,
            "what is written is lost with this broker's disk",
            "good enough for a try; otherwise three brokers, and `topics apply --replication 3"
            " --min-insync 2`",
        )  # fmt: skip
    told = f"{found.insync} in sync, unclean election {'on' if found.unclean else 'off'}"
    fine = found.insync > 1 and not found.unclean
    return Check(
        f"{name} copies", told, fine, False,
        "" if fine else "a broker that fails may take with it what was acknowledged",
        "" if fine else "min.insync.replicas=2 and unclean.leader.election.enable=false",
    )  # fmt: skip


def _records(name: str, found: Cluster) -> Check:
    fine = found.record_bytes >= RECORD_BYTES
    return Check(
        f"{name} records", f"up to {found.record_bytes:,} bytes", fine, False,
        "" if fine else f"ours have up to {RECORD_BYTES:,}",
        "" if fine else f"message.max.bytes={RECORD_BYTES} or more on the broker",
    )  # fmt: skip


def _ages(name: str, found: Cluster) -> Check:
    """Nothing of ours may be let go by its age."""
    if not found.forgets:
        return Check(f"{name} topics", f"{found.topics}, none forgets by age", True, False)
    return Check(
        f"{name} topics", f"{len(found.forgets)} of {found.topics} forget by age", False, False,
        f"{found.forgets[0]} lets go what is older than its retention.ms",
        "fedtwin topics apply RECIPE sets it to -1",
    )  # fmt: skip


# --- Redis ----------------------------------------------------------------------------------------


def _redis(service: Service) -> Iterator[Check]:
    try:
        found = server(service)
    except (TimeoutError, redis.RedisError, OSError) as error:
        cause = f"{type(error).__name__}: {error}"
        yield Check("redis", service.address, False, False, cause, UP.format(service.variable))
        return
    yield Check("redis", f"{service.address}: version {found.version}", True, False)
    yield _memory(found)
    yield Check(
        "redis persistence", "on" if found.persistent else "off", found.persistent, False,
        "" if found.persistent else "a restart empties it, and old models are read from the log",
        "" if found.persistent else "appendonly yes",
    )  # fmt: skip
    yield _clock(found)


def _memory(found: Server) -> Check:
    fine = found.policy == "noeviction"
    return Check(
        "redis memory", found.policy, fine, False,
        "" if fine else "without room it lets old models go, unasked",
        "" if fine else "maxmemory-policy noeviction",
    )  # fmt: skip


def _clock(found: Server) -> Check:
    fine = abs(found.skew) < ODD_CLOCK
    return Check(
        "clock", f"{found.skew:+.1f} s from this machine's", fine, False,
        "" if fine else "times in reports will not fit; no model depends on a clock",
        "" if fine else "let both machines ask one time server",
    )  # fmt: skip
