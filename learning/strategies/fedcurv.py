"""FedCurv: fine-tuning that moves least where the other twins' data are most sensitive.

mean D_CE + lambda * sum over the others j of (theta - theta_j)' diag(F_j) (theta - theta_j) (Shoham
et al. 2019, equation 3). Opened, it needs two sums only, of F_j and of F_j theta_j. A twin sends by
how much its own two have changed; the aggregator adds that up, and each twin takes its own away, so
that the sums are those of all others who ever trained. F is the mean squared gradient of the log
likelihood over at most 128 images, batch normalisation at rest. Under `reduction=mean` the penalty
is divided by the C rows, as D_CE is. lambda is 1, and was searched by nobody here.

Where F is large plain steps on the penalty would overshoot and grow without end. So each step is
taken implicitly in the penalty, which is stable for every rate: theta+ = (theta - eta g + 2 eta k
F theta_j) / (1 + 2 eta k F), k the factor of the penalty. That is the plain step with all its
gradients divided by 1 + 2 eta k F.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from learning.shapes import Shapes, Weights
from learning.strategies.fedavg import FEDAVG
from learning.strategies.paddings import padded, parameters, plus
from learning.strategies.strategy import MODEL, Correction, Groups, LossTerm, RoundMean, Sent

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

LAMBDA, MOST = 1.0, 128
FISHER, PULL = "fisher", "fisher_theta"


def curvature(lesson: Lesson) -> LossTerm:
    """lambda * (sum F theta^2 - 2 sum F_theta theta) over the others, and no constant."""
    from learning.fisher import of_others

    fisher, pull = of_others(lesson, FISHER, PULL)
    factor = _factor(lesson)

    def term(step: Step) -> Tensor:
        parts = [
            (fisher[name] * p.square() - 2 * pull[name] * p).sum()
            for name, p in step.student.named_parameters()
        ]
        return factor * sum(parts[1:], parts[0])

    return term


def damping(lesson: Lesson) -> Correction:
    """Divides every gradient by 1 + 2 eta k sum F, parameter by parameter."""
    from learning.fisher import of_others

    fisher, _ = of_others(lesson, FISHER, PULL)
    twice = 2 * lesson.learning_rate * _factor(lesson)
    divisors = {name: 1 + twice * each for name, each in fisher.items()}

    def correct(gradients: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            gradient /= divisors[name]

    return correct


def _factor(lesson: Lesson) -> float:
    averaged = lesson.strategy.objective.reduction == "mean"
    return LAMBDA / (len(lesson.stage_of_row) if averaged else 1)


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
    correction=damping,
    groups=sensitivities,
    group_shapes=group_shapes,
    settle=settle,
)
