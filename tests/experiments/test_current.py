"""The model of a run that goes on, from its log: the newest, or another that is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.current import current, model_at, model_of
from experiments.prediction import KEYS, read_model
from infra.transport.base import Transport
from schemas.errors import ConfigurationError, DataError
from tests.experiments.hands import ran
from tests.experiments.test_feeding import look
from tests.flows.alive import EAST, NORTH, SOUTH, WEST, Alive


@pytest.fixture(scope="module")
def grown() -> Alive:
    """A federation whose head has grown twice: by three classes, and by one."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(10)
    run.stream(EAST, "7", 24)
    run.after(10)
    return run


def test_the_newest_model_is_that_of_the_last_decision(grown: Alive) -> None:
    """With all that whoever uses it has to know."""
    model = current(look(grown.log))

    assert grown.line.model is not None
    assert model.registry["version"] == str(grown.line.model.version)
    assert set(KEYS) <= model.registry.keys()
    assert model.classes == ["0", "1", "2", "7"]
    assert model.virtual_rows == 3
    assert len(model.predictions(np.zeros((2, *model_shape(grown.log)), np.uint8))) == 2


def model_shape(log: Transport) -> tuple[int, int, int]:
    """Channels, height and width of a federation's images."""
    data = look(log).opened.data
    return data.channels, data.height, data.width


def test_an_older_version_has_the_classes_that_it_knew(grown: Alive) -> None:
    """Version 1 is the grown head of the first stage."""
    assert current(look(grown.log), 1).classes == ["0", "1", "2"]


def test_a_model_that_was_never_trained_says_so() -> None:
    """Nobody has found a class yet."""
    run = Alive()
    run.settle()

    with pytest.raises(ConfigurationError, match="no classes yet"):
        current(look(run.log)).predictions(np.zeros((1, *model_shape(run.log)), np.uint8))


def test_a_version_that_is_not_there_is_told_from_one_that_was_let_go(grown: Alive) -> None:
    """The newest is named for the one, and those that are kept for the other."""
    outside = look(grown.log)
    assert outside.standing.line.model is not None
    newest = outside.standing.line.model.version
    with pytest.raises(DataError, match=f"spring has come to version {newest}, not to 99"):
        current(outside, 99)

    with pytest.raises(DataError, match=r"version 0 of spring is no longer kept; kept are 1, 2, 3"):
        current(outside, 0)


@pytest.mark.usefixtures("blank_figures_here")
def test_a_run_folder_gives_what_its_log_still_holds(tmp_path: Path) -> None:
    """Without a version the file that the run ended with; with one, its log; of a file alone there
    is one version."""
    folder = ran(tmp_path / "run")
    manifest = json.loads(folder.manifest.read_text())
    newest = manifest["model_version"]

    assert model_of(folder.path).registry["sha256"] == manifest["model_sha256"]
    assert model_of(folder.path, newest).registry["sha256"] == manifest["model_sha256"]
    with model_at(folder.path, newest) as file:
        assert read_model(file).registry["sha256"] == manifest["model_sha256"]
    assert not file.exists()
    with model_at(folder.path) as file:
        assert file == folder.model
    with pytest.raises(ConfigurationError, match="holds one version"):
        model_of(folder.model, 1)
