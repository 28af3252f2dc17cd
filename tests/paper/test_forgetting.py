"""The measures of a run (docs/method.md 8)."""

import numpy as np
import pytest

from learning.scoring import (
    accuracy,
    average_accuracy,
    backward_transfer,
    forgetting,
    macro_f1,
    new_accuracy,
    new_bias,
    old_accuracy,
    stage_accuracies,
)

# Rows 0 and 1 are of stage 0, row 2 of stage 1. True row down, predicted row across.
COUNTS = np.array([[6, 2, 2], [0, 5, 5], [1, 0, 9]])
STAGES = [0, 0, 1]

# a[t][j]; what lies above the diagonal is never looked at.
A = np.array([[0.9, np.nan, np.nan], [0.95, 0.8, np.nan], [0.6, 0.7, 0.85]])


def test_accuracy_is_the_share_on_the_diagonal() -> None:
    """6 + 5 + 9 of 30."""
    assert accuracy(COUNTS) == pytest.approx(20 / 30)


def test_macro_f1_is_the_mean_over_classes() -> None:
    """2 TP / (row sum + column sum): 12/17, 10/17, 18/26."""
    assert macro_f1(COUNTS) == pytest.approx((12 / 17 + 10 / 17 + 18 / 26) / 3)


def test_a_class_without_images_and_predictions_has_no_f1() -> None:
    """It counts as 0: (1 + 0) / 2."""
    assert macro_f1(np.array([[4, 0], [0, 0]])) == 0.5


def test_each_stage_is_scored_among_all_rows() -> None:
    """11 of the 20 images of stage 0, 9 of the 10 of stage 1; stage 2 has none yet."""
    scores = stage_accuracies(COUNTS, STAGES, 3)

    assert scores[:2].tolist() == pytest.approx([11 / 20, 9 / 10])
    assert np.isnan(scores[2])


def test_old_classes_are_those_of_earlier_stages() -> None:
    """In stage 1: 11 of 20 right, and 7 of 20 taken for the new class."""
    assert old_accuracy(COUNTS, STAGES, 1) == pytest.approx(11 / 20)
    assert new_bias(COUNTS, STAGES, 1) == pytest.approx(7 / 20)


def test_in_the_first_stage_nothing_is_old() -> None:
    """No image to ask about: no number."""
    assert np.isnan(old_accuracy(COUNTS, STAGES, 0))
    assert np.isnan(new_bias(COUNTS, STAGES, 0))


def test_forgetting_is_the_fall_from_the_best() -> None:
    """((0.95 - 0.6) + (0.8 - 0.7)) / 2."""
    assert forgetting(A) == pytest.approx((0.35 + 0.1) / 2)


def test_backward_transfer_is_the_change_since_a_class_was_new() -> None:
    """((0.6 - 0.9) + (0.7 - 0.8)) / 2."""
    assert backward_transfer(A) == pytest.approx(-0.2)


def test_plasticity_is_the_diagonals_mean() -> None:
    """(0.9 + 0.8 + 0.85) / 3."""
    assert new_accuracy(A) == pytest.approx(0.85)


def test_one_stage_forgets_nothing() -> None:
    """There is no later stage."""
    assert forgetting(A[:1, :1]) == 0
    assert backward_transfer(A[:1, :1]) == 0


def test_a_stage_that_grew_nothing_is_passed_over() -> None:
    """Stage 1 without a class: only stage 0 can be forgotten, 0.9 - 0.6."""
    a = np.array([[0.9, np.nan, np.nan], [0.8, np.nan, np.nan], [0.6, np.nan, 0.7]])

    assert forgetting(a) == pytest.approx(0.3)
    assert backward_transfer(a) == pytest.approx(-0.3)
    assert new_accuracy(a) == pytest.approx(0.8)


def test_the_average_includes_the_first_stage() -> None:
    """(0.9 + 0.8 + 0.7) / 3."""
    assert average_accuracy([0.9, 0.8, 0.7]) == pytest.approx(0.8)
