"""FLwF-2T: fine-tuning taught by two, the twin's own model of an earlier stage and the round's.

mean D_CE + KD(own, student) + KD(base, student), each over the rows that the teacher knows, at
temperature 2 (Usmanova et al. 2021, section 3). The paper weighs its three terms for sums of
another size; here each has coefficient 1, which is ours (docs/method.md 7). In the first stage
nobody teaches, as there is nothing to keep. A twin keeps the last model that it trained in this
stage and the one of the last stage before; they count once its update is counted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from learning.shapes import Weights
from learning.strategies.fedavg import FEDAVG
from learning.strategies.strategy import LossTerm, Sent

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

TEMPERATURE = 2.0
NEWEST, EARLIER, WHEN = "newest", "earlier", "when"


def earlier_model(lesson: Lesson) -> Weights | None:
    """The twin's own last model of the last stage in which it trained; None before there is one."""
    kept = lesson.kept
    if WHEN in kept and int(kept[WHEN]["stage"][0]) < lesson.stage:
        return kept[NEWEST]
    return kept.get(EARLIER)


def two_teachers(lesson: Lesson) -> LossTerm:
    """The sum of both distillations, in nats; in the first stage 0."""
    import torch

    from learning.losses import semantic_distillation
    from learning.nets import frozen

    own = earlier_model(lesson)
    known = [weights for weights in (lesson.base, own) if weights is not None]
    teachers = [frozen(weights, lesson.device) for weights in known if lesson.stage > 0]
    reduction = lesson.strategy.objective.reduction
    distance = partial(
        semantic_distillation, mode="joint", temperature=TEMPERATURE, reduction=reduction
    )

    def term(step: Step) -> Tensor:
        with torch.no_grad():
            theirs = [teacher(step.images_BcHW) for teacher in teachers]
        distances = [distance(step.logits_BC, each_BO, step.rows_B).mean() for each_BO in theirs]
        return torch.stack(distances).sum() if distances else step.logits_BC.new_zeros(())

    return term


def own_models(lesson: Lesson, weights: Weights, steps: int) -> Sent:
    """Nothing to send; the model just trained, with its stage, and that of an earlier stage."""
    earlier = earlier_model(lesson)
    stage = {"stage": np.array([lesson.stage], np.float32)}
    kept = {NEWEST: weights, WHEN: stage} | ({EARLIER: earlier} if earlier is not None else {})
    return Sent(send={}, keep=kept)


FLWF2T = replace(
    FEDAVG,
    name="flwf2t",
    paper="Usmanova et al., A Distillation-Based Approach Integrating Continual Learning and "
    "Federated Learning for Pervasive Services, arXiv 2109.04197",
    year=2021,
    term=two_teachers,
    groups=own_models,
    group_shapes=lambda model: {},
)
