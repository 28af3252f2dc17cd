"""How sensitive a net's loss is to each of its parameters: the diagonal of the Fisher matrix."""

from __future__ import annotations

import numpy as np
import torch

from learning.lesson import Lesson
from learning.losses import classification
from learning.nets import from_weights
from learning.shapes import Weights
from learning.strategies.paddings import padded, plus


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


def of_others(lesson: Lesson, fisher: str, pull: str) -> list[dict[str, torch.Tensor]]:
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
        {n: torch.as_tensor(each * known[n], device=lesson.device) for n, each in tensors.items()}
        for tensors in sums
    ]
