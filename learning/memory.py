"""What a twin remembers of classes whose images are gone: a few exemplars each.

Herding as in iCaRL (Rebuffi et al., CVPR 2017), with numpy alone. Which images these are is
decided here; where their pixels lie is the twin's affair. Legend: N images, K features.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Class = TypeVar("Class")
Image = TypeVar("Image")

_TINY = 1e-12


def budget(memory: int, classes: int) -> int:
    """Exemplars for each of the distinct `classes` learned, of `memory` images in all.

    Raises ValueError if `memory` is negative or no class is learned.
    """
    if memory < 0 or classes < 1:
        raise ValueError(f"a memory of {memory} images cannot be shared by {classes} classes")
    return memory // classes


def truncated(
    exemplars: Mapping[Class, Sequence[Image]], count: int
) -> dict[Class, tuple[Image, ...]]:
    """Keep the first `count` exemplars of each class: herding puts the best ones first.

    Raises ValueError if `count` is negative.
    """
    if count < 0:
        raise ValueError(f"cannot keep {count} exemplars of a class")
    return {label: tuple(images[:count]) for label, images in exemplars.items()}


def herded(
    features_NK: NDArray[np.floating], count: int, *, with_replacement: bool = False
) -> NDArray[np.int64]:
    """Choose up to `count` images of one class whose mean stays nearest to the class's mean.

    Features need not be normalised; they are here, to length 1. The j-th choice (from 1) is
        argmin over x of || mu - (phi(x) + sum of the phi chosen before) / j ||,
    mu the mean of all phi, among images not chosen yet; ties go to the earlier image. A class with
    fewer images keeps all of them. Returns positions, best first, so that a shorter memory is a
    prefix of a longer one.

    `with_replacement` lets an image be chosen again, as the released code of GLFC and LGA does
    (docs/method.md 9): the memory then holds duplicates.

    A model that has diverged may make features that are not finite. There is no mean to follow
    then, and the first `count` images are taken, in their order.

    Raises ValueError if `count` is negative.
    """
    if count < 0:
        raise ValueError(f"cannot choose {count} exemplars")
    if not np.isfinite(features_NK).all():
        return np.arange(min(count, len(features_NK)), dtype=np.int64)
    phi_NK = _normalised(features_NK)
    squares_N = np.einsum("nk,nk->n", phi_NK, phi_NK)
    mean_K = phi_NK.sum(axis=0) / max(len(phi_NK), 1)
    chosen: list[int] = []
    sum_K = np.zeros_like(mean_K)
    for j in range(1, min(count, len(phi_NK)) + 1):
        # The squared distance times j*j, less what is equal for all x. einsum and not @:
        # the sums of a BLAS depend on its threads.
        cost_N = squares_N + 2 * np.einsum("nk,k->n", phi_NK, sum_K - j * mean_K)
        if not with_replacement:
            cost_N[chosen] = np.inf
        chosen.append(int(cost_N.argmin()))
        sum_K += phi_NK[chosen[-1]]
    return np.array(chosen, dtype=np.int64)


def _normalised(features_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    features_NK = features_NK.astype(np.float64)
    lengths_N1 = np.sqrt(np.einsum("nk,nk->n", features_NK, features_NK))[:, None]
    return features_NK / np.maximum(lengths_N1, _TINY)
