"""How well a candidate knows the classes of the rebuilt prototypes.

Every candidate is asked about the same views, all of them, in eval mode and in batches of fixed
size: a score depends on model and views alone. Legend: N images, c channels, H height, W width.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.prototypes import BATCH, Classifier

Augment = Callable[[NDArray[np.uint8], np.random.Generator], Tensor]

COPIES = 20  # augmentations of each image, where there are any (docs/method.md 6.5)


def views(
    images_NcHW: NDArray[np.uint8],
    augment: Augment,
    generators: Sequence[np.random.Generator],
    *,
    copies: int = COPIES,
) -> Tensor:
    """Each image `copies` times, augmented and normalised: (N copies, c, H, W), image by image.

    Each image draws from its own generator, so its views do not depend on which others are here.
    Where a recipe has no augmentation, one copy says it all.

    Raises ValueError if `copies` is below 1, or generators and images are not equally many or none.
    """
    if copies < 1:
        raise ValueError(f"{copies} copies of an image show nothing")
    if not generators or len(generators) != len(images_NcHW):
        raise ValueError(f"{len(generators)} generators for {len(images_NcHW)} images")
    repeated = (np.repeat(image[None], copies, axis=0) for image in images_NcHW)
    pairs = zip(repeated, generators, strict=True)
    return torch.cat([augment(images, generator) for images, generator in pairs])


@torch.no_grad()
def score(
    net: Classifier, views_NcHW: Tensor, rows: Sequence[int], *, class_balanced: bool = False
) -> float:
    """The share, in [0, 1], of views whose highest logit is in their class's row.

    `rows` has the row of each view; a row that `net` does not have counts as missed.
    `class_balanced` takes the mean of the classes' shares: the score then says how well each class
    is retained, however many prototypes it has.

    Raises ValueError if there is no view, if rows and views are not equally many, or if `net` is in
    training mode.
    """
    if not rows or len(rows) != len(views_NcHW):
        raise ValueError(f"{len(rows)} rows for {len(views_NcHW)} views")
    if net.training:
        raise ValueError("the model is in training mode: its answers depend on the batch")
    batches = (views_NcHW[first : first + BATCH] for first in range(0, len(rows), BATCH))
    guesses = torch.cat([net.head(net.features(batch)).argmax(1) for batch in batches]).tolist()
    hits: dict[int, list[bool]] = {}
    for row, guess in zip(rows, guesses, strict=True):
        hits.setdefault(row if class_balanced else 0, []).append(guess == row)
    # As a fraction: equal shares are equal scores, whatever the order of the classes.
    shares = [Fraction(sum(right), len(right)) for right in hits.values()]
    return float(sum(shares, Fraction()) / len(shares))
