"""The exemplar memory: budget, herding, truncation (docs/method.md 4)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learning.memory import budget, herded, truncated

# Six directions in the plane, in degrees.
DEGREES = np.radians([0.0, 30.0, 40.0, 90.0, -60.0, 110.0])
CLASS = np.stack([np.cos(DEGREES), np.sin(DEGREES)], axis=1)


def test_the_budget_is_shared_by_the_distinct_classes_learned() -> None:
    """2000 images: 333 for each of 6 classes, 37 for each of 54."""
    assert budget(2000, 6) == 333
    assert budget(2000, 54) == 37


def test_herding_follows_the_mean_step_by_step() -> None:
    """Means of (1, 0), (0, 1) and (0.6, 0.8): mu = (0.5333, 0.6).

    First: distances to mu are 0.76, 0.67, 0.21: image 2. Then (phi + phi_2)/2 is (0.8, 0.4) at
    0.33, or (0.3, 0.9) at 0.38: image 0. Last: image 1.
    """
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])

    assert herded(features, 3).tolist() == [2, 0, 1]


def test_features_are_brought_to_length_one_first() -> None:
    """A ten times longer feature is the same image to herding."""
    scaled = CLASS * np.array([[10.0], [0.1], [3.0], [1.0], [7.0], [0.5]])

    assert herded(scaled, 6).tolist() == herded(CLASS, 6).tolist()


def test_the_released_codes_herding_takes_an_image_twice() -> None:
    """Image 1 lies at the mean of (1,0), (1,1)/sqrt 2, (0,1): it is best again and again."""
    features = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])

    assert herded(features, 3, with_replacement=True).tolist() == [1, 1, 1]
    assert sorted(herded(features, 3).tolist()) == [0, 1, 2]


def test_images_that_look_alike_are_taken_in_their_order() -> None:
    """Three equal images tie at every step: the earlier one first."""
    assert herded(np.ones((3, 2)), 3).tolist() == [0, 1, 2]


def test_a_class_with_too_few_images_keeps_all() -> None:
    """Three images under a budget of 40; none of an empty class."""
    assert len(herded(CLASS[:3], 40)) == 3
    assert herded(np.empty((0, 2)), 40).tolist() == []


IMAGES = st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(IMAGES.map(np.array), st.integers(0, 14), st.integers(0, 14))
def test_a_shorter_memory_is_the_beginning_of_a_longer_one(
    features: NDArray[np.float64], one: int, other: int
) -> None:
    """No duplicates, never more than the budget, and truncation equals a new choice."""
    short, long = sorted((one, other))

    chosen = herded(features, long).tolist()

    assert len(chosen) == len(set(chosen)) == min(long, len(features))
    assert herded(features, short).tolist() == list(truncated({"class": chosen}, short)["class"])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(IMAGES.map(np.array), st.integers(1, 12))
def test_each_choice_is_the_nearest_that_was_left(
    features: NDArray[np.float64], count: int
) -> None:
    """Against the definition, distance by distance, up to rounding."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    phi = features / np.maximum(lengths, 1e-12)
    mean, before = phi.mean(axis=0), np.zeros(3)
    chosen = herded(features, count).tolist()

    for place, image in enumerate(chosen, start=1):
        distances = np.linalg.norm(mean - (phi + before) / place, axis=1)
        left = [i for i in range(len(phi)) if i not in chosen[: place - 1]]

        assert distances[image] <= distances[left].min() + 1e-7

        before += phi[image]


def test_nonsense_is_refused() -> None:
    """No classes, no negative counts."""
    with pytest.raises(ValueError, match="cannot be shared by 0 classes"):
        budget(2000, 0)
    with pytest.raises(ValueError, match="cannot choose -1"):
        herded(CLASS, -1)
    with pytest.raises(ValueError, match="cannot keep -1"):
        truncated({}, -1)


def test_features_that_are_no_numbers_leave_the_order_of_the_images() -> None:
    """A diverged model has no mean to follow, and the twin must remember all the same."""
    assert herded(np.array([[np.nan, 1.0], [1.0, 0.0], [0.0, 1.0]]), 2).tolist() == [0, 1]
    assert herded(np.array([[np.inf, 1.0]]), 2).tolist() == [0]
