"""Measures against the libraries that everybody uses."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from learning.augmentation import Transform
from learning.nets import from_weights
from learning.scoring import (
    accuracy,
    average_accuracy,
    confusion,
    evaluate,
    forgetting,
    macro_f1,
    new_accuracy,
    stage_accuracies,
)
from tests.learning.lessons import models

CLASSES = 4
PAIRS = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40
).map(lambda pairs: np.array(pairs).T)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(PAIRS)
def test_counts_and_scores_are_scikit_learns(pairs: NDArray[np.int64]) -> None:
    """Confusion matrix, accuracy and macro F1 over all rows, with absent classes as 0."""
    true, predicted = pairs
    counts = confusion(true, predicted, CLASSES)
    labels = list(range(CLASSES))

    assert np.array_equal(counts, confusion_matrix(true, predicted, labels=labels))
    assert accuracy(counts) == pytest.approx(accuracy_score(true, predicted))
    assert macro_f1(counts) == pytest.approx(
        f1_score(true, predicted, labels=labels, average="macro", zero_division=0)
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=20, derandomize=True)
@given(PAIRS)
def test_scores_are_torchmetrics(pairs: NDArray[np.int64]) -> None:
    """Where every class has an image; torchmetrics passes over classes without any."""
    # Here and not above: it imports torchvision and torch's compiler, for seconds.
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    pairs = np.hstack([pairs, np.tile(np.arange(CLASSES), (2, 1))])
    true, predicted = pairs
    counts = confusion(true, predicted, CLASSES)
    asked = torch.from_numpy(predicted), torch.from_numpy(true), CLASSES

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = multiclass_accuracy(*asked, average="micro"), multiclass_f1_score(*asked)
        by_class = multiclass_accuracy(*asked, average="none").numpy()

    assert accuracy(counts) == pytest.approx(theirs[0].item(), abs=1e-6)
    assert macro_f1(counts) == pytest.approx(theirs[1].item(), abs=1e-6)
    assert stage_accuracies(counts, range(CLASSES), CLASSES) == pytest.approx(by_class, abs=1e-6)


def test_a_model_is_scored_by_its_highest_logit() -> None:
    """300 images, more than one batch: the counts are those of an argmax over one forward pass."""
    _, base = models()
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    rows = chance.integers(0, 4, 300)
    transform = Transform((0.5,), (0.25,))

    counts = evaluate(base, images, rows, transform)

    with torch.no_grad():
        predicted = from_weights(base)(transform.normalise(images)).argmax(1).numpy()
    assert counts.sum() == 300
    assert np.array_equal(counts, confusion(rows, predicted, 4))


def test_no_images_give_no_accuracy() -> None:
    """Nothing asked: NaN, and so for the F1 of a head without rows; a mean of nothing is NaN."""
    nobody = np.empty(0, np.int64)
    counts = confusion(nobody, nobody, 3)

    assert counts.tolist() == [[0] * 3] * 3
    assert np.isnan(accuracy(counts))
    assert np.isnan(macro_f1(confusion(nobody, nobody, 0)))
    assert np.isnan(new_accuracy(np.full((2, 2), np.nan)))
    assert np.isnan(forgetting(np.full((2, 2), np.nan)))


def test_what_does_not_fit_is_refused() -> None:
    """Lengths, rows, stages, shapes."""
    with pytest.raises(ValueError, match=r"\(2,\) true rows and \(3,\)"):
        confusion(np.zeros(2, np.int64), np.zeros(3, np.int64), 3)
    with pytest.raises(ValueError, match="rows 0 to 3 are not all among 3"):
        confusion(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="stages of 2 rows, but 3 rows"):
        stage_accuracies(np.zeros((3, 3), np.int64), [0, 0], 1)
    with pytest.raises(ValueError, match="but 1 stages"):
        stage_accuracies(np.zeros((2, 2), np.int64), [0, 1], 1)
    with pytest.raises(ValueError, match="a square"):
        forgetting(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no average"):
        average_accuracy([])
