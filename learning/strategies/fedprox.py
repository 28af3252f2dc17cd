"""FedProx: fine-tuning that is held near the round's model.

mean D_CE + mu / 2 * ||theta - base||^2 over all parameters (Li et al. 2020, equation 2). mu is
0.01, one of the values that the paper searches (0.001, 0.01, 0.1, 1). Under `reduction=mean` the
penalty is divided by the C rows, as D_CE is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from learning.strategies.fedavg import FEDAVG
from learning.strategies.strategy import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

MU = 0.01


def proximal(lesson: Lesson) -> LossTerm:
    """mu / 2 * the squared distance to the base; no unit."""
    import torch

    from learning.nets import on_device

    factor = MU / 2 / lesson.divisor
    base = on_device(lesson.base, lesson.device)

    def term(step: Step) -> Tensor:
        squares = [(p - base[name]).square().sum() for name, p in step.student.named_parameters()]
        return factor * torch.stack(squares).sum()

    return term


FEDPROX = replace(
    FEDAVG,
    name="fedprox",
    paper="Li et al., Federated Optimization in Heterogeneous Networks, MLSys",
    year=2020,
    term=proximal,
)
