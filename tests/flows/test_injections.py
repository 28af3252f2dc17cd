"""Bursts that a command adds to a run folder, while its runner is at work or after it has ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.injection import Injection, inject
from experiments.recipes import recipe
from experiments.runner import Local, Outcome, resume, start
from experiments.system import Embedded
from infra.workers import Forked
from tests.flows.digits import digits
from tests.flows.federation import EAST, NORTH
from tests.flows.learner import FAKES

ONE_STAGE = recipe("tiny", overrides={"stages": 1, "width": 1, "images_per_class": 20})


def local(folder: Path) -> Local:
    """Workers that learn nothing, quickly."""
    return Local(data_dir=folder, start_worker=Forked(FAKES))


def burst(folder: Path, entity: str, uid: str, count: int = 12) -> Injection:
    """Digits of one class come to an entity of a run folder."""
    train = digits().train
    images = train.images[np.flatnonzero(train.labels == int(uid))[:count]]
    return inject(folder, entity, images, [uid] * count)


@pytest.mark.slow
def test_what_is_added_after_the_end_is_learned_by_resume(folder: Path) -> None:
    """Two bursts are one stage; the same burst again adds nothing; then there is one model more."""
    path = folder / "run"
    first = start(ONE_STAGE, path, local(folder))
    added = [burst(path, NORTH, "7"), burst(path, EAST, "9"), burst(path, NORTH, "7")]
    second = resume(path, local(folder))

    assert [(each.stage, each.added) for each in added] == [(1, True), (1, True), (1, False)]
    assert first.model_version == 3
    assert second.model_version == 6
    assert resume(path, local(folder)).model_sha256 == second.model_sha256


@pytest.mark.slow
def test_what_is_added_while_a_runner_is_at_work_comes_to_the_same(folder: Path) -> None:
    """From beside it, with a connection of its own, in the middle of the first round."""
    behind, beside = folder / "behind", folder / "beside"
    start(ONE_STAGE, behind, local(folder))
    burst(behind, NORTH, "7")
    expected = resume(behind, local(folder))
    done: list[Injection] = []

    def watch(run: Embedded) -> None:
        if run.observer.line.open_round and not done:
            done.append(burst(beside, NORTH, "7"))

    at_once: Outcome = start(ONE_STAGE, beside, local(folder), watch=watch)

    assert done[0].added
    assert at_once.model_sha256 == expected.model_sha256
