"""The encoder that everybody knows: its tensors, how they are drawn, and what its gradient tells.

A LeNet of three convolutions and one linear layer with fixed random weights (docs/method.md 6.1).
This file needs numpy alone, so that who only judges a gradient starts without torch.
Legend: c image channels, C rows.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]
Arrays = Mapping[str, NDArray[np.floating]]
Gradient = dict[str, NDArray[np.float32]]
Fault = Literal["not-finite", "label-rules-disagree"]

MAPS = 12
KERNEL, PADDING = 5, 2
STRIDES = (2, 2, 1)
CONVOLUTIONS = ("conv1", "conv2", "conv3")
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"


def encoder_shapes(channels: int, height: int, width: int, classes: int) -> Shapes:
    """Every tensor's name and shape; a gradient has the same ones.

    Raises ValueError if a number is below 1.
    """
    if min(channels, height, width, classes) < 1:
        raise ValueError(
            f"no encoder takes {channels} channels of {height}x{width} pixels to {classes} classes"
        )
    shapes: Shapes = {}
    for name, before in zip(CONVOLUTIONS, (channels, MAPS, MAPS), strict=True):
        shapes |= {f"{name}.weight": (MAPS, before, KERNEL, KERNEL), f"{name}.bias": (MAPS,)}
    rows, columns = map_sizes(height, width)[-1]
    return shapes | {HEAD_WEIGHT: (classes, MAPS * rows * columns), HEAD_BIAS: (classes,)}


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of what each convolution gives, the first one first."""
    sizes = []
    for stride in STRIDES:
        height, width = -(-height // stride), -(-width // stride)
        sizes.append((height, width))
    return sizes


def encoder_weights(
    channels: int, height: int, width: int, classes: int, generator: np.random.Generator
) -> Gradient:
    """Draw the encoder: every weight and bias from U(-0.5, 0.5), float32; never trained.

    `classes` is the upper bound on rows that the run may ever have. Raises ValueError as
    `encoder_shapes` does.
    """
    shapes = encoder_shapes(channels, height, width, classes)
    # Multiples of 2^-24, less a half: nothing is rounded, so every processor gets these bytes.
    return {
        name: generator.random(shape, dtype=np.float32) - np.float32(0.5)
        for name, shape in shapes.items()
    }


def noised(gradient: Gradient, sigma: float, generator: np.random.Generator) -> Gradient:
    """Add N(0, sigma²) to every number. The rules of `recovered_label` need not hold then.

    Raises ValueError if `sigma` is not above 0.
    """
    if not sigma > 0:
        raise ValueError(f"noise has a deviation above 0, not {sigma}")
    return {
        name: (array + sigma * generator.standard_normal(array.shape)).astype(np.float32)
        for name, array in gradient.items()
    }


def recovered_label(gradient: Arrays) -> int | None:
    """Read the row of the image's class from its gradient; None if the two rules disagree.

    With logits V h + b and probabilities p: dL/db_c = p_c - [c = y] and dL/dV_c = dL/db_c h. As
    h > 0 (a sigmoid), only row y is negative. So y = argmin_c sum_j dL/dV_cj, and
    y = argmin_c dL/db_c (docs/method.md 6.4). If nothing is negative, nothing tells the class.
    """
    by_weights_C = gradient[HEAD_WEIGHT].sum(axis=1, dtype=np.float64)
    by_bias_C = gradient[HEAD_BIAS]
    row = int(by_bias_C.argmin())
    agree = row == int(by_weights_C.argmin())
    return row if agree and by_weights_C[row] < 0 and by_bias_C[row] < 0 else None


def fault(gradient: Arrays, row: int, *, with_noise: bool = False) -> Fault | None:
    """Say why this gradient cannot count as one of class `row`; None if it can.

    Its sender and its reader ask the same. With noise in the gradient (`dp_noise_sigma`) the label
    rules are not asked.
    """
    if not all(np.isfinite(array).all() for array in gradient.values()):
        return "not-finite"
    if not with_noise and recovered_label(gradient) != row:
        return "label-rules-disagree"
    return None
