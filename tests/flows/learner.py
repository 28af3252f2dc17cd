"""A learner that learns nothing, quickly: eight tasks whose results hash all that they were given.

Whatever differs in what a task is given (one image, their order, a base model, a rate) shows in its
result and so in every later model. Two runs that end in one model have done equal work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from infra.promises import Result, Task
from infra.workers import Function
from learning.encoder import HEAD_BIAS, HEAD_WEIGHT, encoder_shapes
from learning.strategies.choice import chosen, sent_tensors
from learning.strategies.strategy import MODEL
from schemas.codec import plain
from schemas.configuration import Configuration
from schemas.messages import DataFacts, Groups, Tensors
from schemas.tensors import encoded, update_of


def chance_of(task: Task) -> np.random.Generator:
    """Chance that is seeded by everything the task was given."""
    digest = blake3(plain({"name": task.name, **task.values}, task.groups)).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def judge(task: Task) -> Result:
    """Entropies that mean nothing."""
    entropy, reference = (float(x) for x in chance_of(task).random(2))
    known = len(task.groups["reference"]["images"]) > 0
    return Result(
        {"entropy": entropy, "reference": reference if known else None, "reason": None}, {}
    )


def herd(task: Task) -> Result:
    """Of each class some images, in an order that means nothing."""
    chance, groups = chance_of(task), {}
    for name, tensors in task.groups.items():
        if name.startswith("class/"):
            images = tensors["images"]
            chosen = chance.permutation(len(images))[: task.values["most"]]
            groups[name] = {"chosen": chosen, "images": images[chosen]}
    if "apart" in task.groups:
        groups["apart"] = task.groups["apart"]
    return Result({}, groups)


def held_out(task: Task) -> Result:
    """Guesses that mean nothing."""
    chance, classes = chance_of(task), len(task.groups["model"]["fc.bias"])
    groups = {}
    for i, rows in enumerate(task.values["rows"]):
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (rows, chance.integers(classes, size=len(rows))), 1)
        groups[f"counts/{i}"] = {"counts": counts}
    return Result({}, groups)


def learn(task: Task) -> Result:
    """The base and a little noise; of a method with state, groups and a diary that mean nothing."""
    base, chance, configuration = task.groups["model"], chance_of(task), _configuration(task)
    noisy = {name: _noisy(tensor, chance) for name, tensor in base.items()}
    sent = update_of(noisy, base, configuration.wire)
    groups = {"send/model": encoded(sent, configuration.wire)}
    strategy = chosen(configuration.strategy, configuration.switches)
    for name, tensors in sent_tensors(strategy, base).items():
        if name != MODEL:
            drawn = {each: chance.random(shape, "<f4") for each, (_, shape) in tensors.items()}
            groups[f"send/{name}"] = drawn
    if strategy.groups is not None:
        groups["keep/diary"] = {"page": chance.random(2, dtype=np.float32)}
    samples = float(len(task.values["rows"]))
    return Result({"measured": {"samples": samples}}, groups)


def _noisy(tensor: NDArray[Any], chance: np.random.Generator) -> NDArray[Any]:
    if tensor.dtype.kind != "f":
        return tensor + tensor.dtype.type(1)
    noise = chance.standard_normal(tensor.shape, dtype=np.float32)
    return tensor + np.float32(0.01) * noise


def prototypes(task: Task) -> Result:
    """Gradients that tell their class, as real ones do, and nothing else."""
    chance, groups = chance_of(task), {}
    answers: list[tuple[float | None, str | None]] = []
    for place, row in enumerate(task.values["rows"]):
        if f"place/{place}" in task.groups:
            groups[f"place/{place}"] = gradient_of(_configuration(task), _data(task), row, chance)
            answers.append((30.0, None))
        else:
            answers.append((None, "no image of this class is left"))
    return Result({"places": answers}, groups)


def gradient_of(
    configuration: Configuration, data: DataFacts, row: int, chance: np.random.Generator
) -> Tensors:
    """A valid gradient of a class's row: only that row of the last layer is negative."""
    classes = configuration.encoder_classes or data.encoder_classes
    shapes = encoder_shapes(data.channels, data.height, data.width, classes)
    gradient = {name: chance.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        gradient[name][row] -= 2
    return gradient


def reconstruct(task: Task) -> Result:
    """Images that show nothing."""
    data = _data(task)
    shape = (len(task.values["rows"]), data.channels, data.height, data.width)
    return Result({}, {"rebuilt": {"images": chance_of(task).random(shape, dtype=np.float32)}})


def score(task: Task) -> Result:
    """A score that means nothing."""
    return Result({"score": float(chance_of(task).random())}, {})


def evaluate(task: Task) -> Result:
    """Guesses that mean nothing."""
    rows, classes = task.groups["test"]["rows"], len(task.groups["model"]["fc.bias"])
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (rows, chance_of(task).integers(classes, size=len(rows))), 1)
    return Result({}, {"confusion": {"confusion": confusion}})


def _configuration(task: Task) -> Configuration:
    return Configuration.model_validate(task.values["configuration"])


def _data(task: Task) -> DataFacts:
    return DataFacts.model_validate(task.values["data"], strict=False)


FAKES: Mapping[str, Function] = {
    "judge": judge,
    "herd": herd,
    "learn": learn,
    "prototypes": prototypes,
    "held-out": held_out,
    "reconstruct": reconstruct,
    "score": score,
    "evaluate": evaluate,
}


def silent(task: Task) -> Result:
    """A training that comes to nothing."""
    return Result({"reason": "not-finite: conv1.weight[0] is nan"}, {})


def named(prefix: str, groups: Groups) -> Groups:
    """The groups under a prefix, without it."""
    return {name[len(prefix) :]: g for name, g in groups.items() if name.startswith(prefix)}
