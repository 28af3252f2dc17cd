"""SCAFFOLD: fine-tuning whose every gradient is corrected by how far the twin drifts from the rest.

g + c - c_l in each of K steps of rate eta; then option II, c_l+ = c_l - c + (base - theta) / (K
eta), and the aggregator's c+ = c + |S| / N * mean(c_l+ - c_l) with its own rate at 1 (Karimireddy
et al. 2020, algorithm 1). A twin sends the group `control`, c_l+ - c_l, and keeps c_l+, which
counts once its update is counted. Where N has grown c is scaled to it first. In rows that have
grown since, a control variate is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from learning.shapes import Weights
from learning.strategies.fedavg import FEDAVG
from learning.strategies.paddings import padded, parameters, plus
from learning.strategies.strategy import MODEL, Correction, Groups, RoundMean, Sent

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson

CONTROL, MEMBERS = "control", "members"


def shift(lesson: Lesson) -> Correction:
    """Adds c - c_l to every gradient."""
    from learning.nets import on_device

    shifts = on_device(plus(*_controls(lesson), -1.0), lesson.device)

    def correct(gradients: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            gradient += shifts[name]

    return correct


def controls(lesson: Lesson, weights: Weights, steps: int) -> Sent:
    """c_l+ - c_l for the aggregator, and c_l+ to keep; both stay as they are without a step."""
    theirs, ours = _controls(lesson)
    after = ours
    if steps:
        way = plus(padded(lesson.base, weights), weights, -1.0)
        after = plus(plus(ours, theirs, -1.0), way, 1.0 / (steps * lesson.learning_rate))
    return Sent(send={CONTROL: plus(after, ours, -1.0)}, keep={CONTROL: after})


def settle(closed: RoundMean) -> Groups:
    """The mean model, and c+: the mean of c_l over all members, who have just joined included."""
    change = closed.mean[CONTROL]
    before = padded(closed.before.get(CONTROL), change)
    count = np.array([closed.members], np.float32)
    earlier = closed.before.get(MEMBERS, {}).get(MEMBERS, count)[0] / count[0]
    scaled = {name: earlier * tensor for name, tensor in before.items()}
    control = plus(scaled, change, closed.counted / closed.members)
    return {MODEL: closed.mean[MODEL], CONTROL: control, MEMBERS: {MEMBERS: count}}


def _controls(lesson: Lesson) -> tuple[Weights, Weights]:
    received, kept = lesson.received.get(CONTROL), lesson.kept.get(CONTROL)
    return padded(received, lesson.base), padded(kept, lesson.base)


SCAFFOLD = replace(
    FEDAVG,
    name="scaffold",
    paper="Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, "
    "ICML",
    year=2020,
    correction=shift,
    groups=controls,
    group_shapes=lambda model: {CONTROL: parameters(model)},
    settle=settle,
)
