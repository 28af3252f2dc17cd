"""How a global model is tested, also before anybody has announced a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.evaluation import evaluate
from experiments.measures import measure
from experiments.system import opening_of
from infra.promises import Task
from infra.transport.embedded import Embedded as Log
from learning.shapes import first_model, grown
from schemas.errors import Diverged, RunFailed
from schemas.messages import Tensors
from schemas.seeds import generator
from tests.flows.federation import DOTS, Told, put_together, small
from tests.flows.learner import FAKES
from tests.schemas.specimens import facts


def _tested(classes: int, images: int) -> list[list[int]]:
    """The confusion matrix of a model with so many rows on images of its last class."""
    chance = generator(1, "init_model")
    model = first_model(1, 1, chance)
    if classes:
        model = grown(model, classes, chance)
    test: Tensors = {
        "images": np.zeros((images, 1, 4, 4), np.uint8),
        "rows": np.full(images, classes - 1, np.int64),
    }
    values = {"data": facts().model_dump(mode="json"), "device": "cpu"}
    result = evaluate(Task("evaluate", values, {"model": model, "test": test}))
    return result.groups["confusion"]["confusion"].tolist()


@pytest.mark.parametrize(("classes", "images"), [(0, 0), (3, 0)])
def test_what_no_image_tests_has_a_matrix_of_nothing(classes: int, images: int) -> None:
    """Also a model without a row: nothing is the largest of no numbers."""
    assert _tested(classes, images) == [[0] * classes] * classes


def test_every_image_is_in_the_row_of_its_class() -> None:
    """Five images of class 2, whatever they are taken for."""
    assert [sum(row) for row in _tested(3, 5)] == [0, 0, 5]


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_stage_in_which_nobody_announces_a_class_comes_to_an_end(rounds: int) -> None:
    """A round alone ends with a model that knows nothing; a second one ends the run, by its cause.

    No recipe can begin so, but images that cannot be used may leave too few of every class.
    """
    configuration = small(stages=1, rounds_per_stage=rounds)
    opening = opening_of(configuration, DOTS)
    opening = replace(opening, configuration=configuration.model_copy(update={"n_lab": 13}))
    told = Told(functions={**FAKES, "evaluate": evaluate})
    run = put_together(opening.configuration, Log(), told, opening=opening)
    if rounds == 1:
        run.system.run()
        (stage,) = measure(run.observer, {}, 1.0, 0).stages
        assert (run.observer.line.rows, stage.classes) == ({}, ())
        return
    with pytest.raises(RunFailed, match=r"n_lab \(13\)") as end:
        run.system.run()

    assert not isinstance(end.value, Diverged)
