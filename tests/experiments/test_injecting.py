"""What is injected comes behind what the schedule streams, and is judged in its own stage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from experiments import runner
from experiments.folder import RunFolder
from experiments.injection import Injection, inject, rest
from experiments.system import Embedded
from producers.datasets import load
from schemas.errors import ConfigurationError
from schemas.messages import StageAdded
from tests.experiments.hands import (
    Interrupted,
    fedtwin,
    goes_on,
    local,
    ran,
    two_stages,
)

pytestmark = pytest.mark.usefixtures("blank_figures")

EAST = "local/entity-001"
"""Of this schedule it gets images in both stages."""


def sevens(folder: Path, pause: Callable[[int], None] = rest) -> Injection:
    """Images of a class that the schedule has for nobody."""
    train = load("digits", folder, image_size=8).train
    images = train.images[np.flatnonzero(train.labels == 7)[:12]]
    return inject(folder, EAST, images, ["7"] * 12, pause=pause)


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
        if run.observer.line.open_round:
            raise Interrupted

    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=watch)

    assert sevens(folder).stage == 2
    goes_on(folder)
    assert judged(folder) == {0: ("0", "2"), 1: ("3", "4"), 2: ("7",)}
