"""The doctor looks at the services of a run over Kafka: those that are named, and no others."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from experiments.check import Check
from experiments.examination import RECORD_BYTES, Cluster, Server, cluster, server
from experiments.numbers import size
from infra.settings import Service, read_settings
from infra.transport.clusters import kafka_settings
from schemas.errors import FedtwinError

ODD_CLOCK = 5.0
"""Seconds between two clocks that nobody would explain by the way between them."""
UP = "start one with `make up`, or set {} to its address"
COPIES = 3  # as infra/topics.py makes them, where there are so many brokers
LIMIT = "max.message.bytes"
FULL = 10**9
"""Bytes that should be left on a broker's disk: a run of the smaller recipes takes so much."""


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
        yield _no_clock()
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
        yield Check(
            name, service.address, False, False, str(error), _way_in(service), away=True
        )  # fmt: skip
        return
    many = f"{found.brokers} broker{'' if found.brokers == 1 else 's'}"
    yield Check(name, f"{service.address}: version {found.version}, {many}", True, False)
    yield _copies(name, found)
    yield _records(name, found)
    yield _disk(name, found)
    yield _topics(name, found)
    if found.topics and found.brokers > 1:
        yield _topics_copies(name, found)


def _way_in(service: Service) -> str:
    """What to do about a service that does not let us in."""
    secrets = ("_USER", "_PASSWORD_FILE", "_CA_FILE", "_CERT_FILE, _KEY_FILE")
    told = f"if it is there, see to {service.variable} with {', '.join(secrets)}"
    return f"{UP.format(service.variable)}; {told}"


def _copies(name: str, found: Cluster) -> Check:
    """Whether what was written survives the loss of a broker."""
    if found.brokers == 1:
        return Check(
            f"{name} copies", "one broker", False, False,
            "what is written is lost with this broker's disk",
            "good enough for a try; otherwise three brokers: a run's topics then have three copies",
        )  # fmt: skip
    told = f"replicated: min.insync.replicas {found.insync}, unclean election"
    told += " on" if found.unclean else " off"
    causes = []
    if found.insync < 2:
        causes.append("a record counts as written when one broker has it")
    if found.unclean:
        causes.append("a copy that lags behind may lead, and what it lacks is lost")
    return Check(
        f"{name} copies", told, not causes, False, "; ".join(causes),
        "min.insync.replicas=2 and unclean.leader.election.enable=false on the brokers"
        if causes else "",
    )  # fmt: skip


def _records(name: str, found: Cluster) -> Check:
    fine = found.record_bytes >= RECORD_BYTES
    return Check(
        f"{name} records", f"up to {found.record_bytes:,} bytes", fine, False,
        "" if fine else f"ours have up to {RECORD_BYTES:,}",
        "" if fine else f"message.max.bytes={RECORD_BYTES} or more on the broker",
    )  # fmt: skip


def _disk(name: str, found: Cluster) -> Check:
    """Whether a broker has room; a full one ends, and what it holds is away until there is."""
    if found.free is None:
        return Check(f"{name} disk", "its brokers do not say", True, False)
    fine = found.free >= FULL
    return Check(
        f"{name} disk", f"{size(found.free)} free where it is fullest", fine, False,
        "" if fine else f"a small run takes up to {size(FULL)}, and a broker without room ends",
        "" if fine else "make room there; fedtwin topics rm takes away runs that nobody needs",
    )  # fmt: skip


def _topics(name: str, found: Cluster) -> Check:
    """Whether topics of ours are kept as we make them: above all, nothing goes by its age."""
    several = [each for each in found.topics if each.partitions != 1]
    odd = [(each, odd) for each in found.topics if (odd := each.odd)]
    small = [each for each in found.topics if int(each.configs[LIMIT]) < RECORD_BYTES]
    if several:
        cause = f"{several[0].name} has {several[0].partitions} partitions: its records no order"
        remedy = "fedtwin topics rm RUN, then fedtwin topics apply RECIPE makes them with one"
    elif odd:
        topic, (setting, value, wanted) = odd[0]
        cause = f"{topic.name} has {setting}={value} instead of {wanted}"
        remedy = "fedtwin topics apply RECIPE sets it right"
    elif small:
        cause = f"{small[0].name} takes records up to {small[0].configs[LIMIT]} bytes"
        remedy = f"{LIMIT}={RECORD_BYTES} or more on the topic"
    else:
        return Check(f"{name} topics", f"{len(found.topics)}, kept as they should be", True, False)
    wrong = {each.name for each in (*several, *(each for each, _ in odd), *small)}
    told = f"{len(wrong)} of {len(found.topics)} are not kept as they should be"
    return Check(f"{name} topics", told, False, False, cause, remedy)


def _topics_copies(name: str, found: Cluster) -> Check:
    """Whether topics of ours survive a broker, and whether they would right now."""
    could = min(COPIES, found.brokers)
    few = [each for each in found.topics if each.copies < could]
    soon = [each for each in found.topics if each.copies > 1 and each.insync < 2]
    stuck = [each for each in found.topics if each.insync > each.in_sync]
    unclean = [each for each in found.topics if each.unclean]
    lag = [each for each in found.topics if each.in_sync < each.copies]
    causes = [
        (stuck, "of {} fewer copies are in reach than must have a record: nobody can write there",
         "start the brokers that are away"),
        (few, "{} has fewer copies than there are brokers",
         "kafka-reassign-partitions; or rm and apply, where nobody needs what it holds"),
        (soon, "a record of {} counts as written when one broker has it",
         "fedtwin topics apply RECIPE --min-insync 2"),
        (unclean, "a copy of {} that lags behind may lead, and what it lacks is lost",
         "unclean.leader.election.enable=false"),
        (lag, "a copy of {} lags behind, or its broker is away", "see to the brokers"),
    ]  # fmt: skip
    for topics, cause, remedy in causes:
        if topics:
            told = f"{len(topics)} of {len(found.topics)} topics are not safe"
            return Check(
                f"{name} topics' copies", told, False, False, cause.format(topics[0].name), remedy
            )
    fewest = min(each.copies for each in found.topics)
    return Check(f"{name} topics' copies", f"{fewest} of each, all in sync", True, False)


# --- Redis ----------------------------------------------------------------------------------------


def _redis(service: Service) -> Iterator[Check]:
    try:
        found = server(service)
    except (TimeoutError, redis.RedisError, OSError) as error:
        cause = f"{type(error).__name__}: {error}"
        yield Check(
            "redis", service.address, False, False, cause, _way_in(service), away=True
        )  # fmt: skip
        yield _no_clock()
        return
    yield Check("redis", f"{service.address}: version {found.version}", True, False)
    yield _memory(found)
    yield _persistence(found)
    yield _clock(found)


def _persistence(found: Server) -> Check:
    if found.persistent is None:
        return Check("redis persistence", "it does not say", True, False)
    return Check(
        "redis persistence", "on" if found.persistent else "off", found.persistent, False,
        "" if found.persistent else "a restart empties it, and old models are read from the log",
        "" if found.persistent else "appendonly yes",
    )  # fmt: skip


def _memory(found: Server) -> Check:
    fine = found.policy == "noeviction"
    return Check(
        "redis memory", found.policy, fine, False,
        "" if fine else "without room it lets old models go, unasked",
        "" if fine else "maxmemory-policy noeviction",
    )  # fmt: skip


def _no_clock() -> Check:
    """A broker tells nobody its time; Redis does."""
    return Check("clock", "no Redis to compare it with", True, False)


def _clock(found: Server) -> Check:
    fine = abs(found.skew) < ODD_CLOCK
    return Check(
        "clock", f"{found.skew:+.1f} s from this machine's", fine, False,
        "" if fine else "times in reports will not fit; no model depends on a clock",
        "" if fine else "let both machines ask one time server",
    )  # fmt: skip
