"""The topics of a run: what the table says becomes what a broker does, twice as well as once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from infra.kafka import KafkaSettings
from infra.settings import COMPRESSIONS, Compression
from infra.topics import Administration, Planned, plan
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.errors import ConfigurationError
from schemas.topics import Names
from tests.services import have, kafka_address, new_run

SETTINGS = KafkaSettings("somewhere:9092", replication=3, min_insync=2)
NAMES = Names("trial")
SITES, ENTITIES = ["north", "south"], ["north/a", "north/b", "south/c"]


def planned(cluster: str) -> dict[str, Planned]:
    """The plan of one of the two clusters, by name without prefix and run."""
    assert cluster in ("federation", "site")
    found = plan(NAMES, "site" if cluster == "site" else "federation", SITES, ENTITIES, SETTINGS)
    return {each.name.removeprefix("fedtwin.trial."): each for each in found}


# --- the plan -------------------------------------------------------------------------------------


def test_images_and_exemplars_are_in_no_plan_of_the_federation() -> None:
    """What shows an image stays in the site's cluster; every other topic is in one of the two."""
    federation, site = planned("federation"), planned("site")

    assert not [name for name in federation if name.startswith(("samples", "twin-state"))]
    assert {"samples.north.a", "twin-state.south.c", "metrics.north"} <= site.keys()
    assert {"rounds", "classes.north", "updates.south", "dead-letters"} <= federation.keys()
    assert not federation.keys() & site.keys()
    assert len(federation) + len(site) == 5 + 3 * 2 + 2 * 3 + 2 * 2


def test_a_site_plans_its_own_topics_only() -> None:
    """Other sites' entities may be named: their topics are somebody else's to make."""
    found = plan(NAMES, "site", ["south"], ENTITIES, SETTINGS)

    assert [each.name for each in found if ".north" in each.name] == []
    assert "fedtwin.trial.samples.south.c" in [each.name for each in found]


def test_nothing_is_forgotten_by_age_and_only_numbers_by_size() -> None:
    """A federation that rested over a holiday finds its model again."""
    everything = planned("federation") | planned("site")

    assert {each.configs["retention.ms"] for each in everything.values()} == {"-1"}
    by_size = {name for name, each in everything.items() if each.configs["retention.bytes"] != "-1"}
    assert {name.split(".")[0] for name in by_size} == {"metrics", "dead-letters"}


def test_what_is_let_go_leaves_the_disk_soon() -> None:
    """Trimmed and compacted topics have small segments that end by themselves; lines do not."""
    everything = planned("federation") | planned("site")
    going = {name for name, each in everything.items() if "segment.ms" in each.configs}

    kinds = {name.split(".")[0] for name in going}
    assert kinds == {"samples", "twin-state", "updates", "models", "prototypes", "metrics"}
    assert everything["models"].configs["cleanup.policy"] == "compact,delete"
    assert everything["rounds"].configs["cleanup.policy"] == "delete"


def test_heartbeats_do_not_displace_scores() -> None:
    """They come every other second for months, under the same name: of those the last is kept."""
    found = planned("federation")

    assert found["metrics"].configs["cleanup.policy"] == "compact,delete"
    assert found["dead-letters"].configs["cleanup.policy"] == "delete"


def test_copies_are_those_of_the_settings() -> None:
    """Three copies of each topic, of which two must have a record before it counts."""
    found = planned("federation")["rounds"]

    assert (found.replication, found.configs["min.insync.replicas"]) == (3, "2")


def test_what_nobody_says_of_copies_is_left_to_the_cluster() -> None:
    """A plan without a word of it; all copies but one must have a record where they are known."""
    for settings, copies, insync in [
        (KafkaSettings("a:1"), None, None),
        (KafkaSettings("a:1", replication=3), 3, "2"),
        (KafkaSettings("a:1", replication=1), 1, "1"),
        (KafkaSettings("a:1", min_insync=2), None, "2"),
    ]:
        (first, *_) = plan(NAMES, "federation", SITES, ENTITIES, settings)

        assert (first.replication, first.configs.get("min.insync.replicas")) == (copies, insync)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"replication": 2, "min_insync": 3}, "3 copies must have a record .* there would be 2"),
        ({"replication": 0}, "numbers from 1 on"),
        ({"compression": "lz4"}, "compression is gzip or zstd, not 'lz4'"),
        ({"delivery_timeout": 5.0}, "given up after 5 s, .* no longer than .* 10 s"),
    ],
)
def test_what_would_wait_for_ever_is_refused_before_it_is_tried(
    changed: dict[str, Any], words: str
) -> None:
    """In words that name what may be said instead; that is exit code 2."""
    with pytest.raises(ConfigurationError, match=words):
        replace(KafkaSettings("a:1"), **changed)


# --- on a broker ----------------------------------------------------------------------------------


@pytest.fixture
def run() -> Names:
    """A run that nobody else has."""
    return Names(new_run())


@pytest.fixture
def settings() -> KafkaSettings:
    """Where the broker of all tests is."""
    return have(lambda: KafkaSettings(kafka_address()))


@pytest.fixture
def topics(settings: KafkaSettings, run: Names) -> Iterator[Administration]:
    """Its administration; what the test made is taken away."""
    found = have(lambda: Administration(settings))
    yield found
    found.rm(run)
    found.close()


@pytest.mark.kafka
def test_applying_twice_changes_nothing(
    topics: Administration, run: Names, settings: KafkaSettings
) -> None:
    """The first time all are made, the second time all are as they should be."""
    wanted = plan(run, "federation", ["north"], ["north/a"], settings)
    made = topics.apply(wanted)

    again = topics.apply(wanted)

    assert list(made.made) == [each.name for each in wanted]
    assert (made.mended, made.kept) == ([], [])
    assert (again.made, again.mended) == ([], [])
    assert list(again.kept) == sorted(each.name for each in wanted)


@pytest.mark.kafka
def test_more_topics_than_a_broker_changes_at_once_are_changed_in_portions(
    topics: Administration, run: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five topics, two in a request: all are made, all are mended, and all are taken away."""
    monkeypatch.setattr("infra.topics.TOGETHER", 2)
    names = [run.of_entity("samples", f"north/{letter}") for letter in "abcde"]

    made = topics.apply([Planned(name, {"retention.ms": "604800000"}) for name in names])
    mended = topics.apply([Planned(name, {"retention.ms": "-1"}) for name in names])
    gone = topics.rm(run)

    assert list(made.made) == names
    assert list(mended.mended) == names
    assert gone == names
    assert topics.ls(run) == []


@pytest.mark.kafka
def test_a_topic_that_would_forget_is_mended(topics: Administration, run: Names) -> None:
    """Somebody made it with a week's retention: applying sets it right, and what it holds stays."""
    name = run.federation("rounds")
    topics.apply([Planned(name, {"retention.ms": "604800000"})])

    applied = topics.apply([Planned(name, {"retention.ms": "-1", "cleanup.policy": "delete"})])

    assert list(applied.mended) == [name]
    assert topics.ls(run)[0].configs["retention.ms"] == "-1"


@pytest.mark.kafka
def test_the_list_tells_what_is_there(
    topics: Administration, run: Names, settings: KafkaSettings
) -> None:
    """Three records, of which one is trimmed: offsets and bytes of each topic, in order of name."""
    topics.apply(plan(run, "federation", [], [], settings))
    log = Kafka(settings)
    log.append(run.federation("rounds"), [Record("a", bytes(1000))] * 3)
    log.trim(run.federation("rounds"), 1)
    log.close()

    found = topics.ls(run)

    rounds = next(each for each in found if each.name.endswith(".rounds"))
    assert [each.name for each in found] == sorted(each.name for each in found)
    assert (rounds.partitions, rounds.copies, rounds.first, rounds.end) == (1, 1, 1, 3)
    assert rounds.size > 3000
    assert {each.end for each in found if each is not rounds} == {0}


@pytest.mark.kafka
def test_taking_a_run_away_leaves_the_others(topics: Administration, run: Names) -> None:
    """A run whose name begins alike is another one; taking away what is gone is no error."""
    other = replace(run, run=f"{run.run}0")
    for names in (run, other):
        topics.apply([Planned(names.federation("rounds"), {})])

    gone = topics.rm(run)

    assert gone == [run.federation("rounds")]
    assert (topics.rm(run), topics.ls(run)) == ([], [])
    assert topics.rm(other) == [other.federation("rounds")]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"replication": 3}, "has 1 copies, and 3 were asked for"),
        ({"configs": {"min.insync.replicas": "2"}}, "2 copies must have .* there would be 1"),
    ],
)
def test_copies_of_a_topic_that_is_there_are_not_made_by_the_way(
    topics: Administration, run: Names, asked: dict[str, Any], words: str
) -> None:
    """It has one; asked for more, or to wait for more, applying says so and leaves it as it is."""
    wanted = Planned(run.federation("rounds"), {})
    topics.apply([wanted])

    with pytest.raises(ConfigurationError, match=words):
        topics.apply([replace(wanted, **asked)])

    (found,) = topics.ls(run)
    assert (found.copies, found.configs) == (1, {"min.insync.replicas": "1"})


@pytest.mark.kafka
@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
def test_what_is_written_may_be_compressed(
    topics: Administration, run: Names, settings: KafkaSettings, compression: Compression | None
) -> None:
    """A hundred thousand zeros take a hundred times less, and come back as they went."""
    zeros, name = Record("a", bytes(100_000)), run.federation("rounds")
    topics.apply([Planned(name, {})])
    with closing(Kafka(replace(settings, compression=compression))) as log:
        log.append(name, [zeros])
        found = log.read(name, 0, 1 << 20)

    (held,) = topics.ls(run)
    assert [each.record for each in found] == [zeros]
    assert held.size > 100_000 if compression is None else held.size < 1000


@pytest.mark.kafka
def test_what_a_cluster_refuses_is_told(topics: Administration, run: Names) -> None:
    """Three copies on a single broker: its own words, and no traceback."""
    with pytest.raises(ConfigurationError, match=r"refuses to make topics \(InvalidReplication"):
        topics.apply([Planned(run.federation("rounds"), {}, replication=3)])
