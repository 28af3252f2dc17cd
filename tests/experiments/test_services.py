"""The doctor looks at real services, whole ones and ones that somebody has set up badly."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from experiments.check import Check
from experiments.examination import Server as Looked
from experiments.services import _clock, services
from infra.kafka import KafkaSettings
from infra.native.kafka import Broker, cluster, start_all
from infra.native.programs import HOST, stop
from infra.topics import Administration, Planned, plan
from schemas.topics import Names
from tests.services import Server, addresses, have, jars, new_run, signalled, three_brokers, whole

NOTICED = 30.0  # seconds in which a cluster knows that a broker is gone; it takes 3


def seen(monkeypatch: pytest.MonkeyPatch, **named: object) -> dict[str, Check]:
    """What the doctor finds where these are named, by name."""
    for variable in ("KAFKA", "SITE_KAFKA", "REDIS"):
        monkeypatch.delenv(f"FEDTWIN_{variable}", raising=False)
        if variable in named:
            monkeypatch.setenv(f"FEDTWIN_{variable}", str(named[variable]))
    found = {check.name: check for check in services()}
    assert all(check.fine != bool(check.cause and check.remedy) for check in found.values())
    return found


# --- Kafka ----------------------------------------------------------------------------------------


class Place:
    """A run's topics on the cluster of all tests."""

    def __init__(self, brokers: list[Broker]) -> None:
        self.brokers = brokers
        self.settings = KafkaSettings(addresses(brokers))
        self.names = Names(new_run())
        self.topic = self.names.federation("rounds")
        with closing(Administration(self.settings)) as administration:
            administration.apply(plan(self.names, "federation", [], [], self.settings))
            # Any of the brokers is asked, and each hears of topics in its own time.
            while min(len(administration.ls(self.names)) for _ in range(6)) < 5:
                pass

    def close(self) -> None:
        """All brokers run, and the topics go."""
        whole(self.brokers)
        with closing(Administration(self.settings)) as administration:
            administration.rm(self.names)

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """Whoever may do what should not be done."""
        with closing(KafkaAdminClient(**self.settings.client())) as admin:
            yield admin

    def set(self, configs: Mapping[str, str]) -> None:
        """Keep the topic otherwise."""
        with self.admin() as admin:
            kind = ConfigResourceType.TOPIC
            wanted = [ConfigResource(kind, self.topic, configs=dict(configs))]
            admin.alter_configs(wanted, raise_on_unknown=False)


@pytest.fixture
def place() -> Iterator[Place]:
    """Kept as they should be, before a test comes."""
    found = Place(have(three_brokers))
    yield found
    found.close()


@pytest.mark.kafka
def test_a_cluster_that_is_set_up_well_is_told_as_such(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version, that it is replicated and how, its disk; the topics, and copies of each."""
    found = seen(monkeypatch, KAFKA=place.settings.servers)

    kafka = [check for name, check in found.items() if name.startswith("kafka")]
    assert len(kafka) == 6
    assert all(check.fine for check in kafka)
    assert "version 4.3, 3 brokers" in found["kafka"].found
    assert found["kafka copies"].found == (
        "replicated: min.insync.replicas 2, unclean election off"
    )
    assert found["kafka topics"].found == "5, kept as they should be"
    assert found["kafka topics' copies"].found == "3 of each, all in sync"
    assert not found["redis"].fine


@pytest.mark.kafka
def test_a_cluster_that_may_lose_what_it_acknowledged_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody preferred being there to being right: one copy is enough, and any may lead."""
    rash = {"unclean.leader.election.enable": "true", "min.insync.replicas": 1}
    brokers = cluster(tmp_path, have(jars), 2, more=rash)
    try:
        found = seen(monkeypatch, KAFKA=start_all(brokers))["kafka copies"]
    finally:
        for broker in brokers:
            stop(broker.folder, patience=1)

    assert not found.fine
    assert found.found == "replicated: min.insync.replicas 1, unclean election on"
    assert "a record counts as written when one broker has it" in found.cause
    assert "a copy that lags behind may lead" in found.cause
    assert "min.insync.replicas=2 and unclean.leader.election.enable=false" in found.remedy


WRONG: dict[str, tuple[Mapping[str, str], str, str, str]] = {
    "a week's retention": (
        {"retention.ms": "604800000"},
        "kafka topics", "has retention.ms=604800000 instead of -1", "fedtwin topics apply",
    ),
    "compacted": (
        {"cleanup.policy": "compact"},
        "kafka topics", "has cleanup.policy=compact instead of delete", "fedtwin topics apply",
    ),
    "small records": (
        {"max.message.bytes": "100000"},
        "kafka topics", "takes records up to 100000 bytes", "max.message.bytes=1048",
    ),
    "one copy is enough": (
        {"min.insync.replicas": "1"},
        "kafka topics' copies", "when one broker has it", "--min-insync 2",
    ),
    "any may lead": (
        {"unclean.leader.election.enable": "true"},
        "kafka topics' copies", "may lead", "unclean.leader.election.enable=false",
    ),
}  # fmt: skip


@pytest.mark.kafka
@pytest.mark.parametrize("how", WRONG)
def test_a_topic_that_is_kept_badly_is_named_with_its_setting(
    place: Place, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One of five, as an administrator may have set it by hand."""
    configs, name, cause, remedy = WRONG[how]
    place.set(configs)

    found = seen(monkeypatch, KAFKA=place.settings.servers)

    bad = [check.name for check in found.values() if "kafka" in check.name and not check.fine]
    assert bad == [name]
    assert found[name].found.startswith("1 of 5 ")
    assert place.topic in found[name].cause
    assert cause in found[name].cause
    assert remedy in found[name].remedy


@pytest.mark.kafka
def test_topics_that_somebody_else_made_are_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one copy, though there are three brokers; then of two partitions."""
    extra = place.names.of_site("updates", "north")
    with closing(Administration(place.settings)) as administration:
        administration.apply([Planned(extra, {"retention.ms": "-1"}, replication=1)])
    few = seen(monkeypatch, KAFKA=place.settings.servers)["kafka topics' copies"]
    with place.admin() as admin:
        admin.create_partitions({extra: 2})
    several = seen(monkeypatch, KAFKA=place.settings.servers)["kafka topics"]

    assert few.cause == f"{extra} has fewer copies than there are brokers"
    assert "kafka-reassign-partitions" in few.remedy
    assert several.cause == f"{extra} has 2 partitions: its records no order"


@pytest.mark.kafka
def test_a_broker_that_is_away_is_seen_by_its_copies(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three is killed: what it had lags behind, and the others are found all the same."""
    signalled(place.brokers[0], signal.SIGKILL)
    stop(place.brokers[0].folder)
    until = time.monotonic() + NOTICED
    found = seen(monkeypatch, KAFKA=place.settings.servers)
    assert "2 brokers" in found["kafka"].found
    while found["kafka topics' copies"].fine and time.monotonic() < until:
        found = seen(monkeypatch, KAFKA=place.settings.servers)

    assert "lags behind, or its broker is away" in found["kafka topics' copies"].cause
    assert found["kafka topics"].fine


# --- Redis ----------------------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize(
    ("commands", "name", "told"),
    [
        ((), "redis persistence", "on"),
        (("CONFIG SET appendonly no", "CONFIG SET save 60"), "redis persistence", "off"),
        (("CONFIG SET maxmemory-policy allkeys-lru",), "redis memory", "allkeys-lru"),
        (("ACL SETUSER default -config", ), "redis persistence", "on"),
        (("CONFIG SET requirepass hush",), "redis", "127.0.0.1"),
    ],
)  # fmt: skip
def test_a_server_is_looked_at_as_it_is(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    commands: tuple[str, ...],
    name: str,
    told: str,
) -> None:
    """Without persistence, letting go of what it holds, saying little, and locked."""
    for each in commands:
        words: list[Any] = each.split()
        server.told(*(words if words[2] != "save" else [*words[:3], ""]))

    found = seen(monkeypatch, REDIS=f"{HOST}:{server.port}")

    assert found[name].found.startswith(told)
    assert found[name].fine == (told == "on")
    if name == "redis":
        assert "Authentication required" in found[name].cause
        assert "FEDTWIN_REDIS with _USER, _PASSWORD_FILE" in found[name].remedy


def test_a_clock_that_is_years_off_is_odd() -> None:
    """Nothing depends on it, and reports will look odd."""
    looked = Looked("7.0", True, "noeviction", skew=-1e8)

    assert not _clock(looked).fine
    assert "no model depends on a clock" in _clock(looked).cause


# --- nothing there --------------------------------------------------------------------------------


def test_what_nobody_named_has_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither of the two: what to set, and what starts one."""
    monkeypatch.chdir(tmp_path)
    found = seen(monkeypatch)

    for name, variable in (("kafka", "FEDTWIN_KAFKA"), ("redis", "FEDTWIN_REDIS")):
        assert not found[name].fine
        assert found[name].remedy == f"start one with `make up`, or set {variable} to its address"
