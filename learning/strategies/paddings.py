"""Groups shaped like the model, brought to the size of a head that has grown since."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.shapes import Shapes, Weights, is_parameter


def padded(
    group: Mapping[str, NDArray[Any]] | None, like: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """A group's tensors for every parameter of a model; what it does not know is 0.

    Rows are only ever appended to a head, so a group of an earlier stage lacks the last ones.
    """
    found = {}
    for name in filter(is_parameter, like):
        found[name] = np.zeros(like[name].shape, np.float32)
        if group and name in group:
            found[name][: len(group[name])] = group[name]
    return found


def parameters(model: Shapes) -> Shapes:
    """The shapes of what training moves along a gradient."""
    return {name: shape for name, shape in model.items() if is_parameter(name)}


def plus(one: Weights, other: Weights, times: float = 1.0) -> Weights:
    """one + times * other, tensor by tensor, in float32."""
    factor = np.float32(times)
    return {name: one[name] + factor * other[name] for name in one}
