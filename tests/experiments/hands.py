"""Runs to lay hands on: a folder as a runner leaves it, made in a second by a learner that learns
nothing; and the command line as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from experiments import runner
from experiments.cli.app import app
from experiments.folder import RunFolder
from experiments.runner import Local
from infra.workers import Forked
from schemas.configuration import Configuration
from tests.flows.federation import small
from tests.flows.learner import FAKES


def fedtwin(*words: str | Path) -> Result:
    """What a command answers."""
    return CliRunner().invoke(app, [str(word) for word in words])


def told(*words: str | Path) -> dict[str, Any]:
    """What a command answers with --json; it must be all that it prints, and on one line."""
    answered = fedtwin(*words, "--json")
    assert answered.exit_code == 0, answered.output
    (line,) = answered.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def two_stages(**overrides: object) -> Configuration:
    """Digits of 8x8 pixels, two stages of three classes, a few images of each."""
    values: dict[str, object] = {
        "dataset": "digits",
        "image_size": 8,
        "stages": 2,
        "images_per_class": 12,
        "encoder_classes": None,
    }
    return small(**values | overrides)


def local(folder: Path) -> Local:
    """A machine whose workers learn nothing."""
    return Local(folder, workers=1, start_worker=Forked(FAKES))


def ran(folder: Path, **overrides: object) -> RunFolder:
    """A run that is done."""
    runner.start(two_stages(**overrides), folder, local(folder))
    return RunFolder(folder)


def goes_on(folder: Path) -> RunFolder:
    """The run again, after whatever happened to it."""
    runner.resume(folder, local(folder))
    return RunFolder(folder)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, at a moment of our choice."""


def interrupted_after(rounds: int) -> runner.Watch:
    """A watch that interrupts a run once so many rounds are closed."""

    def watch(run: Any) -> None:
        closed = [
            each for stage in run.observer.line.stages for each in stage.rounds if each.closed
        ]
        if len(closed) >= rounds:
            raise Interrupted

    return watch
