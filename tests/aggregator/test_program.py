"""The aggregator's program of a live federation: what it makes, and what it makes not."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from aggregator import __main__ as program
from infra.transport.embedded import Embedded as Log
from schemas.codec import records
from schemas.topics import Names
from tests.schemas.test_live_line import FIRST

NAMES = Names("spring")
CONFIG = """
recipe: tiny
seed: 7
keys: {quorum: 2}
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
  icu: {site: south, dataset: digits, classes: ["1", "2"]}
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, log: Log) -> list[str]:
    """Sites for which topics were made, where the log stands in for Kafka."""
    found: list[str] = []
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(program, "connect", lambda settings, **more: log)
    monkeypatch.setattr(program, "closing", nullcontext)
    monkeypatch.setattr(
        program, "make_topics", lambda kafka, names, cluster, sites, entities: found.extend(sites)
    )
    return found


@pytest.fixture
def log() -> Log:
    """Of nobody yet."""
    return Log()


def begun(tmp_path: Path, *words: str) -> int:
    """The exit code of the program, given a file."""
    (tmp_path / "spring.yaml").write_text(CONFIG)
    return program.main(["--live", str(tmp_path / "spring.yaml"), "--run", NAMES.run, *words])


def test_a_name_that_is_taken_is_refused_before_anything_is_made(
    made: list[str], log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another federation goes by it: that is said, and no topic of ours is there."""
    log.append(NAMES.federation("rounds"), records(FIRST, source="aggregator")[1])

    assert begun(tmp_path) == 2
    assert "spring is open already, and not as" in capsys.readouterr().err
    assert made == []


def test_a_port_that_is_taken_is_refused_before_anything_is_made(
    made: list[str], log: Log, tmp_path: Path
) -> None:
    """Whatever else is wrong with the words: who mends them begins in an empty place."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        assert begun(tmp_path, "--metrics-port", port) == 2
    assert made == []


def test_who_is_not_refused_makes_the_topics_of_its_sites(
    made: list[str], log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it serves."""
    monkeypatch.setattr(program, "serve", lambda *given, **more: made.append("served"))

    assert begun(tmp_path) == 0
    assert made == ["north", "south", "north", "south", "served"]
