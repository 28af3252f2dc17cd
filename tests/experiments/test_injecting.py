"""What is injected comes behind what the schedule streams, and is judged in its own stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from experiments import injection, runner
from experiments.folder import RunFolder
from experiments.injection import Injection, inject, rest
from experiments.summary import summary
from experiments.system import Embedded
from infra.transport.embedded import Embedded as Log
from producers import entity
from producers.datasets import load
from schemas.errors import ConfigurationError
from schemas.messages import Message, StageAdded
from tests.experiments.hands import (
    Interrupted,
    fedtwin,
    goes_on,
    local,
    ran,
    two_stages,
)

pytestmark = pytest.mark.usefixtures("blank_figures")

SENDER = "producers"
EAST = "local/entity-001"
"""Of this schedule it gets images in both stages."""


def sevens(folder: Path, pause: Callable[[int], None] = rest) -> Injection:
    """Images of a class that the schedule has for nobody."""
    train = load("digits", folder, image_size=8).train
    images = train.images[np.flatnonzero(train.labels == 7)[:12]]
    return inject(folder, EAST, images, ["7"] * 12, pause=pause)


def named(folder: Path, uid: str, most: int = 12) -> Injection:
    """Images of a class from a source that has a name."""
    train = load("digits", folder, image_size=8).train
    images = train.images[np.flatnonzero(train.labels == int(uid))[:most]]
    return inject(folder, EAST, images, [uid] * len(images), source="camera")


def judged(folder: Path) -> dict[int, tuple[str, ...]]:
    """Stage → the new classes that the entity's twin found in it."""
    verdicts = RunFolder(folder).observed().verdicts.of[EAST].verdicts
    return {stage: verdict.classes for stage, verdict in verdicts.items()}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was over when the images came: what every other order has to come to."""
    folder = tmp_path_factory.mktemp("behind") / "run"
    ran(folder)
    sevens(folder)
    return goes_on(folder).path


@pytest.mark.parametrize("step", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_images_that_come_while_producers_stream_wait_for_the_schedule(
    behind: Path, tmp_path: Path, step: int
) -> None:
    """Before the entity's first image, or between its stages: its last mark comes first.

    A twin judges a stage on all that stands before its mark; in front of it the class would be
    found new in a scheduled stage, and the added one would find nothing.
    """
    folder, turns, pauses = tmp_path / "run", count(1), count()
    added: list[Injection] = []

    def watch(run: Embedded) -> None:
        def pause(turn: int) -> None:
            next(pauses)
            run.system.step()

        if next(turns) == step:
            added.append(sevens(folder, pause))

    outcome = runner.start(two_stages(), folder, local(folder), watch=watch)

    assert next(pauses) > 0
    assert added[0].stage == 2
    assert judged(folder) == judged(behind) == {0: ("0", "2"), 1: ("3", "4"), 2: ("7",)}
    assert outcome.model_sha256 == RunFolder(behind).read_manifest()["model_sha256"]


def test_a_run_that_was_stopped_while_it_streamed_goes_on_first(tmp_path: Path) -> None:
    """Nobody would stream the rest meanwhile: exit code 2, the way out, and nothing is added."""
    folder, turns = tmp_path / "run", count(1)

    def watch(run: Embedded) -> None:
        if next(turns) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=watch)

    with pytest.raises(ConfigurationError, match="had streamed"):
        sevens(folder)
    told = fedtwin("inject", folder, "--entity", EAST, "--classes", "7")

    assert told.exit_code == 2
    assert f"fedtwin resume {folder}" in told.stderr
    decisions = RunFolder(folder).decided().decisions.values()
    assert not any(isinstance(each, StageAdded) for each in decisions)
    goes_on(folder)
    assert judged(folder) == {0: ("0", "2"), 1: ("3", "4")}


def test_a_stream_that_was_trimmed_is_known_by_its_twin(tmp_path: Path) -> None:
    """Stopped in stage 0, when all has streamed: the last stage's mark counts wherever it lies."""
    folder = tmp_path / "run"

    def watch(run: Embedded) -> None:
        streamed = all(each.role.over for each in run.system.sessions if each.role.name == SENDER)
        if run.observer.line.open_round and streamed:
            raise Interrupted

    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=watch)

    assert sevens(folder).stage == 2
    goes_on(folder)
    assert judged(folder) == {0: ("0", "2"), 1: ("3", "4"), 2: ("7",)}


# --- a source that has a name ---------------------------------------------------------------------


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A run that is done."""
    return ran(tmp_path / "run").path


def stages(folder: Path) -> int:
    """How many stages were added."""
    decisions = RunFolder(folder).decided().decisions.values()
    return sum(isinstance(each, StageAdded) for each in decisions)


@pytest.mark.parametrize("further", [lambda folder: None, goes_on], ids=["waiting", "learned"])
def test_other_images_under_one_name_are_refused(
    done: Path, further: Callable[[Path], object]
) -> None:
    """Of another class, or fewer: whoever gets exit code 0 must know that they are in the run."""
    first = named(done, "7")
    further(done)

    for uid, most in (("8", 12), ("7", 11)):
        with pytest.raises(ConfigurationError, match="other images from 'camera'"):
            named(done, uid, most)
    again = named(done, "7")

    assert (first.added, again.added) == (True, False)
    assert first.source == again.source == "camera"
    assert stages(done) == 1


def test_a_name_is_an_entitys_own(done: Path) -> None:
    """Two entities may each have a camera."""
    named(done, "7")

    other = inject(done, "entity-000", np.zeros((9, 1, 8, 8), np.uint8), ["7"] * 9, source="camera")

    assert other.added


def test_a_broken_injection_is_completed_with_its_own_images_only(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two messages: other images would stand behind the first of the old ones."""
    whole = done.with_name("whole")
    shutil.copytree(done, whole)
    named(whole, "7")
    monkeypatch.setattr(entity, "BATCH_BYTES", 4 * 64)
    append, turns = injection._append, count(1)

    def broken(log: Log, topic: str, message: Message) -> None:
        if next(turns) == 3:
            raise Interrupted
        append(log, topic, message)

    monkeypatch.setattr(injection, "_append", broken)
    with pytest.raises(Interrupted):
        named(done, "7")

    with pytest.raises(ConfigurationError, match="give those again"):
        named(done, "8")
    completed = named(done, "7")

    assert completed.added
    assert judged(goes_on(done).path)[2] == ("7",)
    assert summary(done)["model_sha256"] == summary(goes_on(whole).path)["model_sha256"]
