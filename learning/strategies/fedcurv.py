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

from dataclasses import replace
from typing import TYPE_CHECKING

from learning.shapes import Weights
from learning.strategies.fedavg import FEDAVG
from learning.strategies.paddings import padded, parameters, plus
from learning.strategies.strategy import MODEL, Correction, Groups, LossTerm, RoundMean, Sent

if TYPE_CHECKING:
    from learning.lesson import Lesson

LAMBDA, MOST = 1.0, 128
FISHER, PULL = "fisher", "fisher_theta"


def curvature(lesson: Lesson) -> LossTerm:
    """lambda * (sum F theta^2 - 2 sum F_theta theta) over the others, and no constant."""
    from learning.fisher import of_others, pulling

    fisher, pull = of_others(lesson, FISHER, PULL)
    return pulling(fisher, pull, LAMBDA / lesson.divisor)


def damping(lesson: Lesson) -> Correction:
    """Divides every gradient by 1 + 2 eta k sum F, parameter by parameter."""
    from learning.fisher import damped, of_others

    fisher, _ = of_others(lesson, FISHER, PULL)
    return damped(fisher, 2 * lesson.learning_rate * (LAMBDA / lesson.divisor))


def sensitivities(lesson: Lesson, weights: Weights, steps: int) -> Sent:
    """By how much this twin's F and F theta have changed, and both to keep."""
    from learning.fisher import diagonal

    fisher = diagonal(lesson, weights, MOST)
    own = {FISHER: fisher, PULL: {name: f * weights[name] for name, f in fisher.items()}}
    change = {n: plus(each, padded(lesson.kept.get(n), weights), -1.0) for n, each in own.items()}
    return Sent(send=change, keep=own)


def settle(closed: RoundMean) -> Groups:
    """The mean model, and both sums over everybody."""
    groups: Groups = {MODEL: closed.mean[MODEL]}
    for name in (FISHER, PULL):
        change = closed.mean[name]
        groups[name] = plus(padded(closed.before.get(name), change), change, closed.counted)
    return groups


FEDCURV = replace(
    FEDAVG,
    name="fedcurv",
    paper="Shoham et al., Overcoming Forgetting in Federated Learning on Non-IID Data, NeurIPS "
    "Workshop on Federated Learning",
    year=2019,
    term=curvature,
    correction=damping,
    groups=sensitivities,
    group_shapes=lambda model: dict.fromkeys((FISHER, PULL), parameters(model)),
    settle=settle,
)
