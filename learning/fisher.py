"""How sensitive a net's loss is to each of its parameters: the diagonal of the Fisher matrix.

And how a net is held where others are sensitive, by sums of F and of F theta over them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from learning.lesson import Lesson, Step
from learning.losses import classification
from learning.nets import from_weights, on_device
from learning.shapes import Weights
from learning.strategies.paddings import padded, plus
from learning.strategies.strategy import Correction, LossTerm


def diagonal(lesson: Lesson, weights: Weights, most: int) -> Weights:
    """The mean squared gradient of the log likelihood of the true label, for every parameter.

    Over at most so many of a lesson's images, evenly spaced and as they are, one by one, with batch
    normalisation at rest: in train mode it couples samples.
    """
    net, switches = from_weights(weights), lesson.strategy.objective
    named = dict(net.named_parameters())
    squares = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    count = min(most, len(lesson.rows))
    for i in np.arange(count) * len(lesson.rows) // count:
        logits_1C = net(lesson.transform.normalise(lesson.images[i : i + 1]))
        loss_1 = classification(
            logits_1C,
            torch.from_numpy(lesson.rows[i : i + 1]),
            family=switches.family,
            reduction="sum",
        )
        slopes = torch.autograd.grad(loss_1.sum(), list(named.values()))
        for name, slope in zip(named, slopes, strict=True):
            squares[name] += slope.square()
    return {name: (total / count).contiguous().numpy() for name, total in squares.items()}


def of_others(lesson: Lesson, fisher: str, pull: str) -> list[dict[str, Tensor]]:
    """Two groups, sums of F and of F theta over all twins, less what this one keeps as its own.

    Behind a rollback F may come to less than 0: there both are 0.
    """
    sums = []
    for name in (fisher, pull):
        everybody, own = (
            padded(groups.get(name), lesson.base) for groups in (lesson.received, lesson.kept)
        )
        sums.append(plus(everybody, own, -1.0))
    known = {name: each > 0 for name, each in sums[0].items()}
    return [
        on_device({name: each * known[name] for name, each in tensors.items()}, lesson.device)
        for tensors in sums
    ]


def pulling(fisher: Mapping[str, Tensor], pull: Mapping[str, Tensor], strength: float) -> LossTerm:
    """strength * (sum F theta^2 - 2 sum F_theta theta), for sums F and F_theta by parameter."""

    def term(step: Step) -> Tensor:
        parts = [
            (fisher[name] * p.square() - 2 * pull[name] * p).sum()
            for name, p in step.student.named_parameters()
        ]
        return strength * sum(parts[1:], parts[0])

    return term


def damped(fisher: Mapping[str, Tensor], twice: float) -> Correction:
    """Every gradient divided by 1 + twice * F: a step that is implicit in the pull."""
    divisors = {name: 1 + twice * each for name, each in fisher.items()}

    def correct(gradients: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            gradient /= divisors[name]

    return correct
