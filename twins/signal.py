"""The lineage's signal, which picks a twin's teacher and lets its prototypes go. Needs torch.

GLFC's and LGA's released code compares the entropy of a twin's current data under each round's
model with the entropy that it had a round before (docs/method.md 3.2). It is a function of models,
images and seeds, so it is taken where the twin trains, and nobody has to remember it. Legend:
N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learning.augmentation import Transform
from learning.nets import from_weights, frozen_statistics
from learning.novelty import mean_entropy

BATCH = 256  # images in one forward pass; fixed, for floats depend on the batch
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Signal:
    """What a twin knows of its round before it trains."""

    entropy: float | None
    """Of its current data under the round's model, in nats; None where it has none."""
    before: float
    """A round before, in nats; 0 where there was nothing to compare with."""
    threshold: float
    """The rise that counts, in nats."""

    @property
    def given(self) -> bool:
        """Whether the entropy rose by more than the threshold."""
        return self.entropy is not None and self.entropy - self.before > self.threshold

    @property
    def measured(self) -> dict[str, float]:
        """The same for the report."""
        found = {"signal": float(self.given), "entropy_before": self.before}
        return found if self.entropy is None else {**found, "entropy": self.entropy}


def augmented_entropy(
    weights: Weights,
    images_NCHW: NDArray[np.uint8],
    transform: Transform,
    chance: np.random.Generator,
) -> float | None:
    """The mean entropy of images as training would see them, in nats; None without an image.

    In eval mode, so that the order of the images changes no statistics.
    """
    if not len(images_NCHW):
        return None
    net, logits = from_weights(weights), []
    with frozen_statistics(net), torch.inference_mode():
        for start in range(0, len(images_NCHW), BATCH):
            x_BCHW = transform.augment(images_NCHW[start : start + BATCH], chance)
            logits.append(net.head(net.features(x_BCHW)).numpy())
    return mean_entropy(np.concatenate(logits))


def taught_by(before: Weights | None, best: Weights | None, signal: bool) -> Weights | None:
    """Which of the slots B1 and B2 teaches a twin in this round, if one does.

    With a signal it is B2: the current stage is new, and the best model knows those before. Without
    one it is B1. While B2 is empty only a signal asks for a teacher, and B1 is the one.
    """
    if best is None:
        return before if signal else None
    return best if signal else before
