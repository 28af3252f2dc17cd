"""The command line over Kafka: one run from its first topic to its last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from experiments.system import SITE
from infra.kafka import KafkaSettings
from infra.topics import Administration
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.topics import Names
from tests.distributed.federation import tiny, undisturbed
from tests.experiments.hands import fedtwin, told
from tests.services import have, kafka_address, some_redis

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
SEED = "910"
NAMES = Names(f"tiny-fedka-{SEED}")
KEYS = ("-o", "keep_rounds=all", "-o", "standby_after=2.0")


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """The broker, which is tidy before and after."""
    settings = KafkaSettings(have(kafka_address))
    with closing(Administration(settings)) as administration:
        administration.rm(NAMES)
        yield settings
        administration.rm(NAMES)


@pytest.fixture(autouse=True)
def _named(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)


def test_a_run_over_kafka_from_its_first_topic_to_its_last(
    tmp_path: Path, kafka: KafkaSettings
) -> None:
    """Two processes share the twins; show, replay, topics; and who comes second to a name."""
    run = tmp_path / "run"
    many = ("--twins", "2", "--compression", "zstd", "--replication", "1")
    words = ("run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", run, *KEYS, *many)
    ended = told(*words)

    assert ended["model_sha256"] == undisturbed(tiny(seed=int(SEED)))
    assert ended["status"] == "done"
    assert [stage["stage"] for stage in ended["stages"]] == [0, 1]
    assert told("show", run)["model_sha256"] == ended["model_sha256"]

    replayed = told("replay", run)
    assert replayed["equal"]
    assert (replayed["versions"], replayed["grown"], replayed["summed"]) == (7, 3, 4)

    asked = json.loads((run / "manifest.json").read_text())["kafka"]
    assert asked == {"compression": "zstd", "replication": 1, "min_insync": None}

    topics = {each["name"] for each in told("topics", "ls", NAMES.run)["topics"]}
    assert NAMES.federation("rounds") in topics
    assert NAMES.of_entity("samples", f"{SITE}/entity-003") in topics

    again = fedtwin(*words)
    assert again.exit_code == 2
    assert "resume" in again.stderr

    other = fedtwin(
        "run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", tmp_path / "b"
    )
    assert other.exit_code == 2
    assert f"fedtwin topics rm {NAMES.run}" in other.stderr

    removed = told("topics", "rm", NAMES.run, "--yes")["removed"]
    assert set(removed) == topics


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--replication", "2", "--min-insync", "3"), "nothing could ever be written"),
        (("--compression", "lz4"), "compression is gzip or zstd, not 'lz4'"),
        (("--replication", "3"), "InvalidReplicationFactor"),
    ],
)
def test_what_cannot_be_asked_of_kafka_is_told_before_anything_begins(
    tmp_path: Path, asked: tuple[str, ...], words: str
) -> None:
    """Exit code 2, and no topic; also where only the cluster can know, which has one broker."""
    run = ("run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", tmp_path / "run")
    answered = fedtwin(*run, *asked)

    assert answered.exit_code == 2
    assert words in answered.stderr
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert fedtwin("topics", "ls", NAMES.run).exit_code == 4


def test_a_run_that_is_over_is_left_as_it_is(tmp_path: Path, kafka: KafkaSettings) -> None:
    """Resume says what it came to; what a foreign client then wrote stays for nobody to read."""
    run = tmp_path / "run"
    told("run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", run, *KEYS, "--fresh")
    with closing(Kafka(kafka)) as foreign:
        foreign.append(NAMES.federation("rounds"), [Record("junk", b"\x00junk")])
    before = json.dumps(told("show", run)["stages"])

    assert json.dumps(told("resume", run)["stages"]) == before


def test_an_embedded_run_takes_no_processes() -> None:
    """Nor asks it Kafka for anything; nor does a transport that nobody knows."""
    for words in (
        ("--twins", "2"),
        ("--compression", "zstd"),
        ("--transport", "carrier-pigeon"),
    ):
        answered = fedtwin("run", "tiny", *words)
        assert answered.exit_code == 2
        assert "--transport" in answered.stderr
