"""A net whose numbers can be worked out by hand: all that it sees of an image is how bright it is.

Each convolution hands its first channel on and each normalisation changes nothing, so that the
first feature is the brightness: 1 for a white image and 0 for a black one, when pixels are prepared
with mean 1/2 and deviation 1/2. Of an image of 4x4 pixels it sees the corner alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learning.shapes import HEAD_BIAS, HEAD_WEIGHT, LAYERS, Weights, dtype_of, model_shapes

VARIANCE = 1 - 1e-5
"""With what a normalisation adds to it, 1."""


def lamp(slopes: Sequence[float], biases: Sequence[float]) -> Weights:
    """A narrow model: at brightness b the logit of row c is `slopes[c] * b + biases[c]`."""
    weights = {name: np.zeros(shape, dtype_of(name))
               for name, shape in model_shapes(1, 1, len(slopes)).items()}  # fmt: skip
    for name, tensor in weights.items():
        if name.endswith("running_var"):
            tensor[:] = VARIANCE
        elif tensor.ndim == 1 and name.endswith(".weight"):
            tensor[:] = 1
    weights["conv1.weight"][0, 0, 1, 1] = 1
    for layer in LAYERS[1:]:
        weights[f"{layer}.0.downsample.0.weight"][0, 0, 0, 0] = 1
    weights[HEAD_WEIGHT][:, 0] = slopes
    weights[HEAD_BIAS][:] = biases
    return weights


def shades(brightness: Sequence[float], side: int = 4) -> np.ndarray:
    """An image of one grey for each brightness from 0 to 1: uint8 (N, 1, side, side)."""
    pixels = (255 * np.array(brightness)).astype(np.uint8)
    return np.tile(pixels[:, None, None, None], (1, 1, side, side))
