"""FedCurv: fine-tuning that moves least where the other twins' data are most sensitive.

mean D_CE + lambda * sum over the others j of (theta - theta_j)' diag(F_j) (theta - theta_j) (Shoham
et al. 2019, equation 3). Opened, it needs two sums only, of F_j and of F_j theta_j. A twin sends by
how much its own two have changed; the aggregator adds that up, and each twin takes its own away, so
that the sums are those of all others who ever trained. F is the mean square of the gradient of D_CE
over at most 128 images, batch normalisation at rest. lambda is 1, and ours: the paper's belongs to
a loss that is not divided by its outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from learning.shapes import Shapes, Weights
from learning.strategies.fedavg import FEDAVG
from learning.strategies.paddings import padded, parameters, plus
from learning.strategies.strategy import MODEL, Groups, LossTerm, RoundMean, Sent

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

LAMBDA, MOST = 1.0, 128
FISHER, PULL = "fisher", "fisher_theta"


def curvature(lesson: Lesson) -> LossTerm:
    """lambda * (sum F theta^2 - 2 sum F_theta theta) over the others, and no constant."""
    import torch

    fisher, pull = (
        plus(
            padded(lesson.received.get(n), lesson.base),
            padded(lesson.kept.get(n), lesson.base),
            -1.0,
        )
        for n in (FISHER, PULL)
    )
    bent = {
        name: torch.as_tensor(tensor, device=lesson.device).clamp_min(0)
        for name, tensor in fisher.items()
    }
    drawn = {name: torch.as_tensor(tensor, device=lesson.device) for name, tensor in pull.items()}

    def term(step: Step) -> Tensor:
        parts = [
            (bent[name] * p.square() - 2 * drawn[name] * p).sum()
            for name, p in step.student.named_parameters()
        ]
        return LAMBDA * torch.stack(parts).sum()

    return term


def sensitivities(lesson: Lesson, weights: Weights, steps: int) -> Sent:
    """By how much this twin's F and F theta have changed, and both to keep."""
    from learning.fisher import diagonal

    fisher = diagonal(lesson, weights, MOST)
    own = {FISHER: fisher, PULL: {name: f * weights[name] for name, f in fisher.items()}}
    change = {n: plus(each, padded(lesson.kept.get(n), weights), -1.0) for n, each in own.items()}
    return Sent(send=change, keep=own)


def settle(closed: RoundMean) -> Groups:
    """The mean model, and both sums over everybody."""
    sums = {
        name: plus(
            padded(closed.before.get(name), closed.mean[name]), closed.mean[name], closed.counted
        )
        for name in (FISHER, PULL)
    }
    return {MODEL: closed.mean[MODEL], **sums}


def group_shapes(model: Shapes) -> dict[str, Shapes]:
    """Both have the shape of the parameters."""
    return {FISHER: parameters(model), PULL: parameters(model)}


FEDCURV = replace(
    FEDAVG,
    name="fedcurv",
    paper="Shoham et al., Overcoming Forgetting in Federated Learning on Non-IID Data, NeurIPS "
    "Workshop on Federated Learning",
    year=2019,
    term=curvature,
    groups=sensitivities,
    group_shapes=group_shapes,
    settle=settle,
)
