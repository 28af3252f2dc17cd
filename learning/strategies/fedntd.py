"""FedNTD: fine-tuning that keeps the round's model's opinion of all classes but the true one.

mean D_CE + beta * tau^2 * KL(base || student), both soft-max over the rows that are not true (Lee
et al. 2022, equations 3 and 4); tau 1 and beta 1 are the paper's. Under `reduction=mean` the
divergence is divided by the C - 1 rows that it compares (docs/method.md 5.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from learning.strategies.fedavg import FEDAVG
from learning.strategies.strategy import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

TAU, BETA = 1.0, 1.0


def not_true(lesson: Lesson) -> LossTerm:
    """The divergence among the rows that are not true, in nats; of a single row there is none."""
    import torch
    from torch.nn.functional import kl_div

    from learning.nets import frozen

    base, averaged = (
        frozen(lesson.base, lesson.device),
        lesson.strategy.objective.reduction == "mean",
    )

    def term(step: Step) -> Tensor:
        images, rows = step.logits_BC.shape
        if rows == 1:
            return torch.zeros(())
        with torch.no_grad():
            theirs_BC = base(step.images_BcHW)
        others_BC = torch.ones_like(theirs_BC, dtype=torch.bool).scatter(1, step.rows_B[:, None], 0)
        ours, theirs = (
            (logits_BC[others_BC].view(images, rows - 1) / TAU).log_softmax(1)
            for logits_BC in (step.logits_BC, theirs_BC)
        )
        loss = kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return BETA * TAU**2 * (loss / (rows - 1) if averaged else loss)

    return term


FEDNTD = replace(
    FEDAVG,
    name="fedntd",
    paper="Lee et al., Preservation of the Global Knowledge by Not-True Distillation in Federated "
    "Learning, NeurIPS",
    year=2022,
    term=not_true,
)
