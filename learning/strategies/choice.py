"""A strategy by name, with what a recipe changes in it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learning.shapes import dtype_of
from learning.strategies import STRATEGIES
from learning.strategies.strategy import MODEL, Strategy, Teacher


def chosen(name: str, switches: Mapping[str, object], teacher: Teacher | None = None) -> Strategy:
    """The method of that name under a recipe's switches.

    Raises ValueError for a name that is not in the list, naming the nearest, and for a switch's
    value that the method does not take.
    """
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no strategy is called {name!r}; the nearest is {near!r}, and `fedtwin methods` lists"
            " them"
        )
    return STRATEGIES[name].under(teacher=teacher, **switches)


def sent_tensors(
    strategy: Strategy, model: Mapping[str, NDArray[np.generic]]
) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Group → tensor → dtype and shape of a valid update; groups beside the model are float32."""
    shapes = {name: tensor.shape for name, tensor in model.items()}
    return {
        group: {
            name: (dtype_of(name).str if group == MODEL else "<f4", shape)
            for name, shape in tensors.items()
        }
        for group, tensors in strategy.sent_shapes(shapes).items()
    }
