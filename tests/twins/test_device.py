"""Where a twin's work is computed: on the device that the run names, or nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.promises import Task
from tests.lamp import lamp, shades
from tests.schemas.specimens import facts, recipe
from twins import learner
from twins.learner import held_out, herd, judge, local_update

LAMP = lamp([20, -20], [0, 0])
WHITE = {"images": shades([1.0] * 4)}


class Reached(Exception):
    """Somebody wanted a net on this device."""


def work(name: str, device: str) -> Task:
    """A task of a run that computes on a device."""
    values: dict[str, Any] = {
        "configuration": recipe().model_copy(update={"device": device}).model_dump(mode="json"),
        "data": facts().model_dump(mode="json"),
        "entity": "local/north",
        "stage": 0,
        "round": 0,
        "virtual": 2,
        "most": 2,
        "replace": False,
        "rows": [0, 1, 0, 1] if name == "learn" else [[0, 1, 0, 1]],
        "stage_of_row": [0, 0],
        "old_classes": 0,
        "new_classes": 2,
        "learning_rate": 0.1,
        "signal": None,
        "image_steps": None,
    }
    groups = dict.fromkeys(("window", "reference", "class/0", "images/0", "data"), WHITE)
    return Task(name, values, {"model": LAMP, **groups})


WORK = {"judge": judge, "herd": herd, "held-out": held_out, "learn": local_update}


@pytest.mark.parametrize("name", WORK)
def test_work_is_computed_where_the_run_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets are built there, and a lesson is to be learned there."""

    def built(weights: object, device: str = "cpu") -> None:
        raise Reached(device)

    def learned(lesson: Any) -> None:
        raise Reached(lesson.device)

    monkeypatch.setattr(learner, "missing", lambda device: None)
    monkeypatch.setattr(learner, "from_weights", built)
    monkeypatch.setattr(learner, "learn", learned)

    with pytest.raises(Reached, match="mps"):
        WORK[name](work(name, "mps"))


@pytest.mark.parametrize("name", WORK)
def test_work_that_cannot_be_done_here_fails_and_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twins program that was started by hand on a machine without the run's device."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(RuntimeError, match="device=cuda is not here"):
        WORK[name](work(name, "cuda"))


def test_the_processor_is_asked_for_nothing() -> None:
    """What a run takes unasked is always there."""
    assert judge(work("judge", "cpu")).values["reason"] is None
    assert np.isfinite(judge(work("judge", "cpu")).values["entropy"])
