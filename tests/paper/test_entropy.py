"""The entropy by which new classes are noticed (docs/method.md 3.1, 3.3)."""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.novelty import GUARD, entropies, mean_entropy


def test_an_undecided_model_has_the_entropy_of_its_rows() -> None:
    """Ten equal logits: -10 * 0.1 * ln(0.1 + 1e-5) = ln 10 less 1e-4."""
    assert mean_entropy(np.zeros((3, 10))) == pytest.approx(log(10) - 1e-4, abs=1e-8)


def test_the_entropy_of_a_decided_model_is_near_zero() -> None:
    """p = (1, 0): -ln(1 + 1e-5) = -1e-5, the guard's only trace."""
    assert mean_entropy(np.array([[50.0, -50.0]])) == pytest.approx(-1e-5, abs=1e-9)


def test_entropy_is_averaged_over_images() -> None:
    """p = (3/4, 1/4) has 2 ln 2 - 3/4 ln 3 nats, p = (1/2, 1/2) has ln 2."""
    logits = np.array([[log(3), 0.0], [0.0, 0.0]])

    expected = [2 * log(2) - 0.75 * log(3), log(2)]

    assert entropies(logits).tolist() == pytest.approx(expected, abs=1e-4)
    assert mean_entropy(logits) == pytest.approx(sum(expected) / 2, abs=1e-4)


def test_virtual_rows_take_the_mass_of_what_no_row_wants() -> None:
    """Both old logits at -ln 3 beside two virtual zeros: p = (1, 1, 3, 3)/8, 1.2555 nats.

    2 * 1/8 ln 8 + 2 * 3/8 ln(8/3) = 3/4 ln 2 + 3/4 (3 ln 2 - ln 3). Without them it is ln 2.
    """
    logits = np.full((1, 2), -log(3))

    assert mean_entropy(logits) == pytest.approx(log(2), abs=1e-4)
    assert mean_entropy(logits, 2) == pytest.approx(3 * log(2) - 0.75 * log(3), abs=1e-4)


def test_a_head_without_rows_is_undecided_among_virtual_ones() -> None:
    """The first model has no row: five virtual ones give ln 5."""
    assert mean_entropy(np.zeros((4, 0)), 5) == pytest.approx(log(5), abs=1e-4)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.floats(-300, 300), min_size=1, max_size=8), st.integers(0, 5))
def test_no_entropy_exceeds_that_of_all_rows(logits: list[float], virtual: int) -> None:
    """Between 0 and ln(C + v), less what the guard takes; never NaN, however large the logits."""
    entropy = entropies(np.array([logits]), virtual)[0]

    assert -2 * GUARD <= entropy <= log(len(logits) + virtual) + 1e-9


def test_nothing_has_no_entropy() -> None:
    """No row at all, or no image at all."""
    with pytest.raises(ValueError, match="over 0 rows and 0 virtual ones"):
        entropies(np.zeros((2, 0)))
    with pytest.raises(ValueError, match="no mean entropy of 0 images"):
        mean_entropy(np.zeros((0, 3)))
