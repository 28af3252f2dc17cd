"""A strategy by name, with what a recipe changes in it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points

import numpy as np
from numpy.typing import NDArray

from learning.shapes import dtype_of
from learning.strategies import STRATEGIES
from learning.strategies.strategy import MODEL, Strategy, Teacher

GROUP = "fedtwin.strategies"
"""The entry points under which another package names its strategies, each a `Strategy`."""


def installed() -> dict[str, Strategy]:
    """Every method by name: those written out here, then those of other packages.

    Raises ValueError for an entry point that is no strategy of its own name, or that takes a name
    of ours.
    """
    found = dict(STRATEGIES)
    for point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        strategy = point.load()
        if not isinstance(strategy, Strategy) or strategy.name != point.name:
            raise ValueError(f"{point.value} is no Strategy of the name {point.name!r}")
        if found.setdefault(point.name, strategy) is not strategy:
            raise ValueError(f"{point.value} takes the name of another strategy, {point.name!r}")
    return found


def chosen(name: str, switches: Mapping[str, object], teacher: Teacher | None = None) -> Strategy:
    """The method of that name under a recipe's switches.

    Raises ValueError for a name that is not in the list, naming the nearest, and for a switch's
    value that the method does not take.
    """
    strategy = STRATEGIES.get(name) or installed().get(name)
    if strategy is None:
        near = difflib.get_close_matches(name, installed(), n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no strategy is called {name!r}; the nearest is {near!r}, and `fedtwin methods` lists"
            " them"
        )
    return strategy.under(teacher=teacher, **switches)


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
