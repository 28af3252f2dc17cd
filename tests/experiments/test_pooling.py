"""How many images a schedule's trainings pass, and one node in place of all twins."""

from __future__ import annotations

import pytest

from experiments.pooling import bursts, pooled, trained_on
from experiments.recipes import recipe
from schemas.schedule import Client, Schedule, Stage, entity_name

ONE, TWO = entity_name(0), entity_name(1)
COUNTS = {"a": 100, "b": 60, "c": 50}
PLANNED = Schedule(
    stages=(
        Stage(
            classes=("a", "b"),
            clients=(
                Client(entity=ONE, group="N", classes=("a", "b")),
                Client(entity=TWO, group="N", classes=("b",)),
            ),
            sampled=((ONE,), (ONE, TWO)),
        ),
        Stage(
            classes=("c",),
            clients=(
                Client(entity=ONE, group="B", classes=("c",)),
                Client(entity=TWO, group="O", classes=()),
            ),
            sampled=((ONE, TWO), (TWO,)),
        ),
    )
)
OWN = recipe("smoke", overrides={"memory": 40, "local_epochs": 3})


def test_a_twin_has_its_current_classes_and_exemplars_of_those_before() -> None:
    """160 and 60 images; then 50 and 2 * 20 exemplars, and who gets nothing keeps its 60."""
    assert list(trained_on(OWN, PLANNED, COUNTS)) == [[160, 220], [90 + 60, 60]]
    assert bursts(PLANNED, PLANNED.stages[0], COUNTS) == {ONE: 160, TWO: 60}


def test_one_node_passes_as_many_images_in_as_many_rounds() -> None:
    """It gets every class whole, trains in each round, three epochs' worth of all twins' images."""
    alone = pooled(OWN, PLANNED, COUNTS)

    assert alone.entities == (ONE,)
    assert [stage.classes for stage in alone.stages] == [("a", "b"), ("c",)]
    assert [stage.holders(uid) for stage in alone.stages for uid in stage.classes] == [(ONE,)] * 3
    assert [stage.sampled for stage in alone.stages] == [((ONE,), (ONE,))] * 2
    assert [stage.image_steps for stage in alone.stages] == [(480, 660), (450, 180)]


@pytest.mark.parametrize("steps", [(), (5, 6)])
def test_image_steps_travel_with_a_schedule(steps: tuple[int, ...]) -> None:
    """And where there are none, its bytes are those that they were before there were any."""
    stage = PLANNED.stages[0].model_copy(update={"image_steps": steps})
    text = stage.model_dump_json()

    assert Stage.model_validate_json(text) == stage
    assert ("image_steps" in text) == bool(steps)
