"""How unsure a model is of images: the entropy that tells new classes from known ones.

Legend: N images, C rows of the head.
"""

import numpy as np
from numpy.typing import NDArray

GUARD = 1e-5  # inside the logarithm, as in GLFC's and LGA's released code


def entropies(logits_NC: NDArray[np.floating], virtual_rows: int = 0) -> NDArray[np.float64]:
    """The entropy of each image's soft-max output, -sum p ln(p + 1e-5), in nats.

    `virtual_rows` zero logits are appended first: they stand for rows that the head has not grown
    yet, and take the mass of an image that no old row wants (docs/method.md 3.1, 3.3). It is the
    soft-max entropy in the sigmoid family, too.

    Raises ValueError if there is neither a row nor a virtual one.
    """
    images, rows = logits_NC.shape
    if virtual_rows < 0 or rows + virtual_rows == 0:
        raise ValueError(f"no entropy over {rows} rows and {virtual_rows} virtual ones")
    logits_NC = np.hstack([logits_NC.astype(np.float64), np.zeros((images, virtual_rows))])
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    chances_NC = odds_NC / odds_NC.sum(axis=1, keepdims=True)
    return -(chances_NC * np.log(chances_NC + GUARD)).sum(axis=1)


def mean_entropy(logits_NC: NDArray[np.floating], virtual_rows: int = 0) -> float:
    """The mean of `entropies` over all images, in nats.

    Raises ValueError if there is no image, besides what `entropies` raises.
    """
    if not len(logits_NC):
        raise ValueError("no mean entropy of 0 images")
    return float(entropies(logits_NC, virtual_rows).mean())
