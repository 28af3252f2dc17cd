"""The largest message that a run may have, from its configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.recipes import recipe
from experiments.system import opening_of
from learning.shapes import model_shapes
from producers.datasets import load
from schemas.limits import (
    LEAST_BYTES,
    largest_message,
    model_numbers,
    most_classes,
    rows_in_words,
    with_room,
)
from schemas.messages import RunOpened
from tests.schemas.specimens import opened


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


def alive(**overrides: object) -> RunOpened:
    """A live run's first decision, as far as its limits ask."""
    usual = opened(**overrides)
    live = usual.configuration.model_copy(update={"live": True})
    return usual.model_copy(update={"configuration": live})


@pytest.mark.parametrize(
    ("having", "more", "found"),
    [
        ("", "3210", "0123"),
        ("", "0abc", "0ab"),
        ("0ab", "0abc1", "01ab"),
        ("012ab", "3c", "3"),
        ("0123ab", "cab0", "0ab"),
    ],
)
def test_what_was_agreed_on_keeps_its_rows(having: str, more: str, found: str) -> None:
    """Six rows, four of them for the classes 0 to 3: of all others two get one, the first by uid,
    and what has a row needs none."""
    run = alive(encoder_classes=6)

    assert with_room(run, having, more) == tuple(found)
    assert rows_in_words(run) == (
        "there are rows for 6 classes, 2 of them for other than the 4 that were agreed on"
    )


def test_an_encoder_with_fewer_rows_than_classes_are_agreed_on_bounds_no_head() -> None:
    """An encoder of three rows, which a method without prototypes does not need: four classes were
    agreed on, so there are four rows, none for any other."""
    run = alive(encoder_classes=3)

    assert most_classes(run.configuration, run.data) == 3
    assert with_room(run, "", "a0123") == ("0", "1", "2", "3")
    assert with_room(run, "12", "0a3") == ("0", "3")


def test_where_a_schedule_names_classes_there_is_room_for_all() -> None:
    """An injection may bring classes of other data behind those of a recipe."""
    assert with_room(opened(encoder_classes=3), "012", "ba3") == ("3", "a", "b")
