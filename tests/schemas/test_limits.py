"""The largest message that a run may have, from its configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.recipes import recipe
from experiments.system import opening_of
from learning.shapes import model_shapes
from producers.datasets import load
from schemas.limits import LEAST_BYTES, largest_message, model_numbers


@pytest.mark.parametrize(("channels", "width", "classes"), [(3, 64, 100), (1, 8, 10), (4, 6, 0)])
def test_a_models_numbers_are_counted_without_making_one(
    channels: int, width: int, classes: int
) -> None:
    """As many as its shapes say: 11,220,132 parameters, 9,600 statistics and 20 counters."""
    shapes = model_shapes(channels, width, classes).values()

    assert model_numbers(channels, width, classes) == sum(math.prod(shape) for shape in shapes)


def test_the_papers_model_is_counted_as_the_method_says() -> None:
    """docs/method.md 2.1: 11,220,132 parameters at 100 classes, and 9,620 numbers beside them."""
    assert model_numbers(3, 64, 100) == 11_220_132 + 9_620


def test_a_message_may_be_four_models_and_is_never_held_below_a_floor(tmp_path: Path) -> None:
    """A net of width 8 has 0.18 M numbers, so 32 MiB hold; width 64 takes 4 * 4 * 11.2 M bytes."""
    digits = load("digits", tmp_path, image_size=16)
    narrow = opening_of(recipe("smoke"), digits)
    wide = opening_of(recipe("smoke", overrides={"width": 64}), digits)

    assert largest_message(narrow.configuration, narrow.data) == LEAST_BYTES
    assert largest_message(wide.configuration, wide.data) == 16 * model_numbers(1, 64, 10)
