"""What a Kafka holds, by name: live federations, runs of recipes, and what nobody has opened."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from experiments import listing
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record
from schemas.errors import ServiceError
from tests.experiments.hands import fedtwin, told
from tests.experiments.test_operators import begun
from tests.flows.alive import NAMES, NORTH
from tests.flows.federation import Told, put_together, small


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A log that commands find where they look for Kafka: a federation in its first stage that one
    of four has left, a run that is over, and topics of a third that nobody has opened."""
    run = begun()
    run.leave(NORTH)
    run.after(1)
    put_together(small(), run.log, Told()).system.run()
    run.log.append("fedtwin.summer.rounds", [Record("x", b"junk")])
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(listing, "connect", lambda settings, **more: run.log)
    monkeypatch.setattr(listing, "closing", nullcontext)  # the log is ours
    return run.log


def test_ls_lists_what_the_kafka_at_hand_holds(broker: Log) -> None:
    """By the names that other commands take, with what was decided last."""
    found = {each["run"]: each for each in told("ls")["kafka"]["runs"]}

    assert {name: each["status"] for name, each in found.items()} == {
        NAMES.run: "live", "story": "over", "summer": "unopened",
    }  # fmt: skip
    spring = found[NAMES.run]
    assert (spring["entities"], spring["stages"], spring["rounds"]) == (3, 1, 3)
    assert spring["model_version"] == 4
    assert spring["last_decision"] == "round 0.2 counts 4: version 4"
    assert found["story"]["recipe"] == "tiny"


def test_ls_shows_it_beside_the_folders(
    broker: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line each, and the next step takes a name; who names a folder asks no Kafka."""
    monkeypatch.chdir(tmp_path)  # where no runs are
    lines = fedtwin("ls").stdout.splitlines()

    assert "Kafka at nobody.invalid:9092 holds" in lines
    (spring,) = (line for line in lines if line.startswith(NAMES.run))
    assert spring.split()[1:6] == ["live", "3", "1", "3", "4"]
    assert lines[-1] == "next: fedtwin show NAME"
    assert told("ls", ".")["kafka"] is None


def test_a_kafka_that_is_away_hides_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and the exit code is that of a list."""
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")

    def connect(settings: object, **more: object) -> None:
        raise ServiceError("nobody listens there")

    monkeypatch.setattr(listing, "connect", connect)

    assert told("ls")["kafka"]["away"] == "nobody listens there"
    assert "was not asked: nobody listens there" in fedtwin("ls").stdout
