"""Secrets are where they were put, and nowhere else: in no log, report, manifest, topic or answer.

A whole run over Kafka and Redis, both with a password through TLS, whose passwords and whose key
can be told from everything else; then whatever it has left behind and printed is searched for them,
and whatever a command and a program print that are refused with them; so is what `live` and its
programs print. Live programs with an account each, and an operator's commands, are searched in
test_securing.py.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
)

from infra.kafka import connected
from infra.transport.kafka import Kafka
from schemas.topics import Names
from tests.distributed.federation import tiny, undisturbed
from tests.experiments.hands import fedtwin
from tests.guarded import BOSS, Guarded, telling
from tests.infra.test_redis import encrypted
from tests.papers import Authority
from tests.services import Server

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
SEED = "911"
NAMES = Names(f"tiny-fedka-{SEED}")
LIVE = """
recipe: tiny
seed: 7
minutes: 5
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
"""
KEYS = ("-o", "keep_rounds=all", "-o", "standby_after=2.0")


@dataclass(frozen=True)
class Marked:
    """The secrets of one test, and whether somebody has told one of them."""

    kafka: str
    redis: str
    wrong: str
    key: str
    """A line of a private key."""

    def told(self, what: bytes | str) -> list[str]:
        """Those that stand in it, as they are or in base64."""
        known = {"kafka": self.kafka, "redis": self.redis, "wrong": self.wrong, "key": self.key}
        return telling(known, what)


@pytest.fixture
def marked(
    guarded: Guarded, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Marked]:
    """An environment with them, and services that know them."""
    papers = Authority(tmp_path / "redis-papers").papers("redis")
    kafka, redis, wrong = (f"{name}-{uuid.uuid4().hex}" for name in ("tulip", "lily", "daisy"))
    found = Marked(kafka, redis, wrong, papers.key.read_text().splitlines()[1])
    guarded.exchange(BOSS, found.kafka)
    guarded.hand_out(BOSS, found.kafka)
    _everything(guarded)
    service = encrypted(server, papers)
    server.told("CONFIG", "SET", "requirepass", found.redis)
    secret, other = tmp_path / "redis-secret", tmp_path / "wrong"
    secret.write_text(found.redis)
    other.write_text(found.wrong)
    for name, value in {
        **guarded.environment(BOSS),
        "FEDTWIN_REDIS": service.address,
        "FEDTWIN_REDIS_PASSWORD_FILE": str(secret),
        "FEDTWIN_REDIS_CA_FILE": str(papers.ca),
        "FEDTWIN_REDIS_CERT_FILE": str(papers.cert),
        "FEDTWIN_REDIS_KEY_FILE": str(papers.key),
        "FEDTWIN_RUN": NAMES.run,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield found
    fedtwin("topics", "rm", NAMES.run, "--yes")


def _everything(guarded: Guarded) -> None:
    """One user may do everything, as whoever tries things out on one machine."""
    names = (
        (ResourceType.TOPIC, "*"), (ResourceType.GROUP, "*"),
        (ResourceType.CLUSTER, "kafka-cluster"),
    )  # fmt: skip
    allow = ACLPermissionType.ALLOW
    with closing(KafkaAdminClient(**guarded.keeper.client())) as admin:
        admin.create_acls(
            [
                ACL(f"User:{BOSS}", "*", ACLOperation.ALL, allow, ResourcePattern(kind, name))
                for kind, name in names
            ]
        )


def test_no_secret_is_told_by_anything_that_a_run_leaves_behind(
    marked: Marked, guarded: Guarded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs of all programs, manifest, metrics, database, report, topics, answers to commands."""
    run = tmp_path / "run"
    with caplog.at_level(logging.DEBUG):
        words = ("run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", run, *KEYS)
        ended = fedtwin(*words, "--json")
        answers = [
            fedtwin(*each)
            for each in (
                ("show", run), ("show", run, "--json"), ("doctor",), ("doctor", "--json"),
                ("topics", "ls", NAMES.run, "--json"), ("replay", run), ("resume", run),
                ("dlq", "ls", run), ("--debug", *words),
            )
        ]  # fmt: skip
        listed = [
            fedtwin(*each, "--json")
            for each in (
                ("ls",), ("dlq", "ls", run), ("history", run), ("topics", "plan", "tiny"),
            )
        ]  # fmt: skip

    assert ended.exit_code == 0, ended.output
    assert undisturbed(tiny(seed=int(SEED))) in ended.output
    assert len(caplog.text) > 10_000
    assert not marked.told(caplog.text)
    assert [each.exit_code for each in listed] == [0, 0, 0, 0]
    for each in (ended, *answers, *listed):
        assert not marked.told(each.output)
    left = [each for each in run.rglob("*") if each.is_file()]
    names = {each.name for each in left}
    assert {"manifest.json", "run.sqlite", "report.html", "twins-1.log", "proxy-1.log"} <= names
    assert not {each.name: marked.told(each.read_bytes()) for each in left if marked.told(
        each.read_bytes()
    )}  # fmt: skip
    flowed = b""
    with closing(Kafka(guarded.keeper)) as log:
        for topic in [each for each in log.topics() if f".{NAMES.run}." in each]:
            flowed += b"".join(_all(log, topic))
    assert len(flowed) > 1_000_000
    assert not marked.told(flowed)
    assert not marked.told(guarded.said())


def test_no_secret_is_told_by_a_live_federation(
    marked: Marked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What `live` answers and its programs have said, what is asked of it by its name, and a site
    that is asked to forget when nobody of it is there any more."""
    monkeypatch.setenv("FEDTWIN_RUN", "short")
    (tmp_path / "short.yaml").write_text(LIVE)
    by_name = ("show", "history", "replay", "dlq ls", "topics ls")
    with caplog.at_level(logging.DEBUG):
        lived = fedtwin("live", "short.yaml", "--minutes", "0.2", "--json", "--data-dir", tmp_path)
        asked = [fedtwin(*each.split(), "--json") for each in by_name]
        forgets = fedtwin("forget", "--entity", "north/ward", "--wait", "1", "--json")
        fedtwin("topics", "rm", "short", "--yes")

    assert lived.exit_code == 0, lived.output
    assert [each.exit_code for each in (*asked, forgets)] == [0, 0, 0, 0, 0, 1]
    for each in (lived, *asked, forgets):
        assert not marked.told(each.output)
    logs = {each.name: each.read_bytes() for each in (tmp_path / "runs").rglob("*.log")}
    assert {"aggregator-1.log", "proxy-1.log", "twins-north.log"} <= logs.keys()
    assert all(logs.values())
    assert not marked.told(b"".join(logs.values()))
    assert len(caplog.text) > 10_000
    assert not marked.told(caplog.text)


def _all(log: Kafka, topic: str) -> Iterator[bytes]:
    place = log.first(topic)
    while place < log.end(topic):
        for stored in log.read(topic, place, 1 << 22):
            place = stored.offset + 1
            yield stored.record.value + repr(stored.record.headers).encode()
        log.wait(0)


def test_no_secret_is_told_by_what_fails(
    marked: Marked,
    guarded: Guarded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wrong password for either service, a secret in an address or in place of its file's name.

    Every role, and commands that show where an error came from.
    """
    wrong = str(tmp_path / "wrong")
    blunders = (
        {"FEDTWIN_KAFKA_PASSWORD_FILE": wrong},
        {"FEDTWIN_REDIS_PASSWORD_FILE": wrong},
        {"FEDTWIN_KAFKA": f"me:{marked.wrong}@{guarded.door}"},
        {"FEDTWIN_KAFKA_CA_FILE": os.environ["FEDTWIN_REDIS_KEY_FILE"]},
    )
    codes: list[list[int]] = []
    for blunder in blunders:
        with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
            for name, value in blunder.items():
                patch.setenv(name, value)
            looks = [("doctor", "--json"), ("watch", NAMES.run, "--once")]
            for command in (
                ("run", "tiny", "--transport", "kafka", "--seed", SEED, "--run-dir", "a"),
                *([] if codes else looks),
            ):
                answered = fedtwin("--debug", *command)
                assert not marked.told(answered.output), command
            codes.append([
                importlib.import_module(f"{role}.__main__").main([])
                for role in ("proxy", "aggregator", "producers", "twins")
                if "REDIS" not in "".join(blunder) or role == "proxy"
            ])  # fmt: skip
            left = b"".join(each.read_bytes() for each in Path("a").rglob("*") if each.is_file())
            assert not marked.told(left)
            shutil.rmtree("a", ignore_errors=True)

    assert codes == [[3, 3, 3, 3], [3], [2, 2, 2, 2], [3, 3, 3, 3]]
    printed = capfd.readouterr()
    assert "does not let us in" in printed.err
    assert not marked.told(printed.out + printed.err)
    assert not marked.told(caplog.text)


def test_the_clients_own_log_shows_where_a_password_lies(
    marked: Marked, guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """It prints its settings when it is told to: a file's name stands there instead."""
    with caplog.at_level(logging.DEBUG, "kafka"):
        connected(guarded.settings(BOSS), KafkaAdminClient).close()

    assert not marked.told(caplog.text)
    assert not marked.told(repr(guarded.settings(BOSS).client()))
