"""The lineage's signal at a twin, and which slot it picks (docs/method.md 3.2, 6.6)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learning.augmentation import Transform
from learning.shapes import Weights, first_model, grown
from twins.signal import Signal, augmented_entropy, taught_by

FIRST: Weights = {"which": np.array(1)}
SECOND: Weights = {"which": np.array(2)}
PLAIN = Transform(mean=(0.5,), std=(0.5,))


def chance(seed: int) -> np.random.Generator:
    """A generator of its own."""
    return np.random.Generator(np.random.PCG64(seed))


def model(rows: int) -> Weights:
    """A narrow untrained net."""
    return grown(first_model(1, 1, chance(1)), rows, chance(2), "default")


@pytest.mark.parametrize(
    ("entropy", "before", "given"),
    [
        (1.61, 0.0, True),  # an untrained model of five classes: ln 5, at first compared with 0
        (1.0986, 0.0, False),  # of three classes: ln 3 never reaches 1.2
        (1.5, 0.25, True),
        (1.5, 0.5, False),
        (1.2, 0.0, False),  # the rise must be above the threshold
        (None, 0.0, False),
        (math.nan, 0.0, False),
    ],
)
def test_a_rise_above_the_threshold_is_a_signal(
    entropy: float | None, before: float, given: bool
) -> None:
    """1.2 nats, as for CIFAR; a twin without current images, or without a number, has none."""
    signal = Signal(entropy, before, threshold=1.2)

    assert signal.given is given
    assert signal.measured["signal"] == given


@pytest.mark.parametrize(
    ("before", "best", "signal", "teacher"),
    [
        (None, None, True, None),
        (None, None, False, None),
        (None, SECOND, True, SECOND),
        (None, SECOND, False, None),
        (FIRST, SECOND, True, SECOND),
        (FIRST, SECOND, False, FIRST),
        (FIRST, None, True, FIRST),
        (FIRST, None, False, None),
    ],
)
def test_the_signal_picks_a_slot(
    before: Weights | None, best: Weights | None, signal: bool, teacher: Weights | None
) -> None:
    """B2 with a signal and B1 without; while B2 is empty B1 with a signal, else nobody."""
    assert taught_by(before, best, signal) is teacher


def test_an_untrained_head_is_as_unsure_as_it_can_be() -> None:
    """Five fresh rows: close to ln 5, never above it by more than the guard allows."""
    images = chance(3).integers(0, 256, (300, 1, 8, 8), np.uint8)

    entropy = augmented_entropy(model(5), images, PLAIN, chance(4))

    assert entropy == pytest.approx(math.log(5), abs=0.05)


def test_it_is_taken_through_the_augmentation() -> None:
    """The same seed gives the same number, another seed another; without augmentation all agree."""
    images = chance(3).integers(0, 256, (20, 1, 8, 8), np.uint8)
    varied = Transform(mean=(0.5,), std=(0.5,), crop_padding=2, brightness=0.25)

    once, again, other = (
        augmented_entropy(model(3), images, varied, chance(seed)) for seed in (4, 4, 5)
    )

    assert once == again != other
    assert augmented_entropy(model(3), images, PLAIN, chance(4)) == augmented_entropy(
        model(3), images, PLAIN, chance(5)
    )


def test_a_twin_without_current_images_has_no_entropy() -> None:
    """No image, no number."""
    assert augmented_entropy(model(3), np.zeros((0, 1, 8, 8), np.uint8), PLAIN, chance(4)) is None
