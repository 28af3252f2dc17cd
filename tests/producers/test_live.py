"""What the entities of a live federation stream from data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from producers.datasets import load
from producers.live import drawn, first_day
from schemas.errors import ConfigurationError
from schemas.federation import Entity, Federation

WARD = Entity.model_validate(
    {"site": "north", "dataset": "digits", "classes": ["3", "5"], "as": {"5": "five"}}
)
DIGITS = load("digits", Path(), image_size=16)
DATA = Federation(recipe="smoke", keys={"image_size": 8}, entities={"ward": WARD}).data()


def test_a_first_day_is_all_images_of_its_classes_under_the_federations_names() -> None:
    """At the run's size, mixed, and the same whenever it is drawn."""
    images, uids = first_day("north/ward", WARD, DIGITS, DATA, 7)
    again = first_day("north/ward", WARD, DIGITS, DATA, 7)

    counts = np.bincount(DIGITS.train.labels)
    assert images.shape == (counts[3] + counts[5], 1, 8, 8)
    assert (uids.count("3"), uids.count("five")) == (counts[3], counts[5])
    assert uids[: counts[3]] != ["3"] * counts[3]
    assert (again[0] == images).all()
    assert again[1] == uids
    assert first_day("north/icu", WARD, DIGITS, DATA, 7)[1] != uids


def test_so_many_images_are_evenly_of_each_class() -> None:
    """Eleven of two classes: six of each are looked at, and one is left over."""
    _, labels = drawn(DIGITS, ["3", "5"], DATA, "north/ward", 7, time=1, most=11)

    assert sorted(map(labels.count, ("3", "5"))) == [5, 6]


def test_a_class_that_the_data_set_lacks_is_named() -> None:
    """With all that it has."""
    with pytest.raises(ConfigurationError, match=r"digits has no class 'ten'; it has 0, 1"):
        drawn(DIGITS, ["ten"], DATA, "north/ward", 7)
