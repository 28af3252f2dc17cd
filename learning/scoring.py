"""How well a model knows its classes, and how much it forgot (docs/method.md 8).

Everything follows from confusion matrices: counts, true row by predicted row. All shares are in
[0, 1]; what has no image to be asked about is NaN, and means pass over it. Only `evaluate` needs
torch, and imports it when called. Legend: N images, C rows of the head, S stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.augmentation import Transform

Counts = NDArray[np.int64]


def evaluate(
    weights: Mapping[str, NDArray[Any]],
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    transform: Transform,
) -> Counts:
    """The confusion matrix of a model on images (N, c, H, W), by its highest logit.

    In eval mode, without augmentation, in batches of a fixed size; ties go to the lower row.

    Raises ValueError as `confusion` does.
    """
    from learning.nets import features_and_logits, from_weights

    _, logits_NC = features_and_logits(from_weights(weights), images, transform)
    return confusion(rows, logits_NC.argmax(axis=1), logits_NC.shape[1])


def confusion(true_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int) -> Counts:
    """Count pairs of true and predicted row: (C, C).

    Raises ValueError if the two differ in length or a row is none of the C.
    """
    if true_N.shape != predicted_N.shape or true_N.ndim != 1:
        raise ValueError(f"{true_N.shape} true rows and {predicted_N.shape} predicted ones")
    both = np.concatenate([true_N, predicted_N])
    if len(both) and not 0 <= both.min() <= both.max() < classes:
        raise ValueError(f"rows {both.min()} to {both.max()} are not all among {classes}")
    pairs = np.bincount(true_N * classes + predicted_N, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def accuracy(counts_CC: Counts) -> float:
    """The share of images whose row was predicted."""
    return _share(counts_CC.trace(), counts_CC.sum())


def macro_f1(counts_CC: Counts) -> float:
    """The unweighted mean over rows of 2 TP / (2 TP + FP + FN); a row without any of them has 0."""
    hits_C = counts_CC.diagonal().astype(np.float64)
    either_C = counts_CC.sum(axis=0) + counts_CC.sum(axis=1)
    return float((2 * hits_C / np.maximum(either_C, 1)).mean()) if len(hits_C) else float("nan")


def stage_accuracies(
    counts_CC: Counts, stage_of_row: Sequence[int], stages: int
) -> NDArray[np.float64]:
    """a[t][j] for j < `stages`: accuracy on the images of stage j's classes, among all C rows.

    Raises ValueError if a row's stage is not told, or is none of the `stages`.
    """
    stage_C = _stages(counts_CC, stage_of_row)
    if len(stage_C) and not 0 <= stage_C.min() <= stage_C.max() < stages:
        raise ValueError(f"rows of the stages {sorted(set(stage_of_row))}, but {stages} stages")
    hits_C, images_C = counts_CC.diagonal(), counts_CC.sum(axis=1)
    shares = [
        _share(hits_C[stage_C == j].sum(), images_C[stage_C == j].sum()) for j in range(stages)
    ]
    return np.array(shares, dtype=np.float64)


def old_accuracy(counts_CC: Counts, stage_of_row: Sequence[int], stage: int) -> float:
    """Accuracy on the images of classes from before `stage`, among all rows."""
    old_C = _stages(counts_CC, stage_of_row) < stage
    return _share(counts_CC.diagonal()[old_C].sum(), counts_CC[old_C].sum())


def new_bias(counts_CC: Counts, stage_of_row: Sequence[int], stage: int) -> float:
    """The share of images of classes from before `stage` that were taken for classes of `stage`."""
    stage_C = _stages(counts_CC, stage_of_row)
    old_CC = counts_CC[stage_C < stage]
    return _share(old_CC[:, stage_C == stage].sum(), old_CC.sum())


def forgetting(a_SS: NDArray[np.float64]) -> float:
    """How much was once known and is not any more, of the S x S matrix a[t][j].

    The mean over j < S-1 of (max over t in j..S-2 of a[t][j]) - a[S-1][j]. After a single stage
    nothing can be forgotten: 0. Entries with j > t are not looked at.

    Raises ValueError if the matrix is not square.
    """
    last = _last(a_SS)
    losses = [_largest(a_SS[j:last, j]) - a_SS[last, j] for j in range(last)]
    return _mean(losses) if losses else 0.0


def backward_transfer(a_SS: NDArray[np.float64]) -> float:
    """What later stages did to a class's accuracy: the mean over j < S-1 of a[S-1][j] - a[j][j].

    Negative where they made it worse. After a single stage 0. Raises ValueError as `forgetting`.
    """
    last = _last(a_SS)
    gains = [a_SS[last, j] - a_SS[j, j] for j in range(last)]
    return _mean(gains) if gains else 0.0


def new_accuracy(a_SS: NDArray[np.float64]) -> float:
    """Plasticity: the mean of a[j][j], each stage's classes at its own end."""
    _last(a_SS)
    return _mean(list(a_SS.diagonal()))


def average_accuracy(accuracies: Sequence[float]) -> float:
    """The mean of the stages' accuracies, stage 0 included.

    Raises ValueError if there is none.
    """
    if not accuracies:
        raise ValueError("no average over 0 stages")
    return _mean(accuracies)


def _stages(counts_CC: Counts, stage_of_row: Sequence[int]) -> NDArray[np.int64]:
    if len(stage_of_row) != len(counts_CC):
        raise ValueError(f"stages of {len(stage_of_row)} rows, but {len(counts_CC)} rows")
    return np.array(stage_of_row, dtype=np.int64)


def _last(a_SS: NDArray[np.float64]) -> int:
    if a_SS.ndim != 2 or a_SS.shape[0] != a_SS.shape[1] or not a_SS.size:
        raise ValueError(f"a[t][j] is a square of at least one stage, not {a_SS.shape}")
    return len(a_SS) - 1


def _share(part: np.integer | int, whole: np.integer | int) -> float:
    return int(part) / int(whole) if whole else float("nan")


def _largest(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
