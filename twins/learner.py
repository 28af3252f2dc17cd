"""What twins do in worker processes: judge, remember, learn, and make prototypes. Needs torch.

Each function takes a task and gives its result; nothing else reaches or leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.promises import Result, Task
from learning.augmentation import Transform
from learning.devices import missing
from learning.encoder import encoder_weights, fault
from learning.lesson import Device, Lesson
from learning.memory import herded
from learning.nets import ResNet18, features_and_logits, first_overflow, from_weights
from learning.novelty import mean_entropy
from learning.prototypes import Perturbation, make_prototype
from learning.scoring import confusion
from learning.shapes import HEAD_BIAS
from learning.strategies.choice import chosen, sent_tensors
from learning.training import learn
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.limits import most_classes
from schemas.messages import DataFacts, Groups, Transforms
from schemas.seeds import generator
from schemas.tensors import encoded, update_of
from schemas.updates import checked_update, expected_of
from twins.signal import Signal, augmented_entropy, taught_by

Answered = tuple[float | None, str | None]
"""Of a place: between chosen and altered image, in dB; or why there is no gradient."""
_NO_IMAGES = {"images": np.zeros((0, 1, 1, 1), np.uint8)}


def judge(task: Task) -> Result:
    """Mean entropies of a window and of known data under one model, in nats (method.md 3.1)."""
    net = _net(task)
    transform = transform_of(_data(task))
    virtual = task.values["virtual"]
    entropy, reference = (
        _entropy(net, task.groups[name]["images"], transform, virtual)
        for name in ("window", "reference")
    )
    if entropy is None or not math.isfinite(entropy) or not math.isfinite(reference or 0.0):
        reason = "the model's entropy is not finite"
        return Result({"entropy": None, "reference": None, "reason": reason}, {})
    return Result({"entropy": entropy, "reference": reference, "reason": None}, {})


def _entropy(net: Any, images: NDArray[Any], transform: Transform, virtual: int) -> float | None:
    if not len(images) or net.fc.out_features + virtual == 0:
        return None
    _, logits = features_and_logits(net, images, transform)
    return mean_entropy(logits, virtual)


def herd(task: Task) -> Result:
    """The exemplars of each class that becomes old, best first, with their pixels (4).

    What is kept apart comes back as it is, to be written down beside them.
    """
    groups = {name: tensors for name, tensors in task.groups.items() if name == "apart"}
    classes = {name: t["images"] for name, t in task.groups.items() if name.startswith("class/")}
    net = _net(task) if classes else None
    transform = transform_of(_data(task))
    for name, images in classes.items():
        assert net is not None
        features, _ = features_and_logits(net, images, transform)
        picked = herded(features, task.values["most"], with_replacement=task.values["replace"])
        groups[name] = {"chosen": picked, "images": images[picked]}
    return Result({"entropy": _entropy_before(task)}, groups)


def _entropy_before(task: Task) -> float | None:
    """Of all that becomes old, under the base of the round before; for the signal of 3.2."""
    if "before" not in task.groups:
        return None
    classes = [t["images"] for name, t in task.groups.items() if name.startswith("class/")]
    entropy = _augmented(task, "before", np.concatenate(classes), task.values["before"])
    return entropy if entropy is not None and math.isfinite(entropy) else None


def _augmented(task: Task, model: str, images: NDArray[Any], when: tuple[int, int]) -> float | None:
    """The augmented entropy of images under a group's model, as in that stage and round."""
    chance = generator(_configuration(task).seed, "detect/2", task.values["entity"], *when)
    return augmented_entropy(task.groups[model], images, transform_of(_data(task)), chance)


def held_out(task: Task) -> Result:
    """Confusion counts (true row by predicted row) of one model on each twin's images (8)."""
    net, transform = _net(task), transform_of(_data(task))
    groups: Groups = {}
    for i, rows in enumerate(task.values["rows"]):
        images, true = task.groups[f"images/{i}"]["images"], np.array(rows, np.int64)
        predicted = np.zeros(0, np.int64)
        if len(images):
            _, logits = features_and_logits(net, images, transform)
            predicted = logits.argmax(axis=1)
        groups[f"counts/{i}"] = {"counts": confusion(true, predicted, net.fc.out_features)}
    return Result({}, groups)


def local_update(task: Task) -> Result:
    """One local training; what it comes to, checked as its reader will (docs/method.md 5.9).

    Values that may not be counted are answered by a reason instead. Where two slots teach, the
    signal (3.2) comes first, and the prototypes of the round's places are made at the end.
    """
    values, groups, configuration = task.values, task.groups, _configuration(task)
    strategy = chosen(configuration.strategy, configuration.switches, configuration.teacher)
    place = (values["entity"], values["stage"], values["round"])
    signal = _signal(task)
    learned = learn(
        Lesson(
            strategy=strategy,
            base=groups["model"],
            teacher=_teacher(task, signal),
            images=groups["data"]["images"],
            rows=np.array(values["rows"], np.int64),
            stage_of_row=tuple(values["stage_of_row"]),
            stage=values["stage"],
            learned=values["old_classes"],
            new=values["new_classes"],
            transform=transform_of(_data(task)),
            generator=lambda purpose, epoch: generator(configuration.seed, purpose, *place, epoch),
            learning_rate=values["learning_rate"],
            batch_size=configuration.batch_size,
            epochs=configuration.local_epochs,
            image_steps=values["image_steps"],
            weight_decay=configuration.weight_decay,
            clip_norm=configuration.clip_norm,
            precision=configuration.precision,
            device=_device(configuration),
            received=_named("received/", groups),
            kept=_named("kept/", groups),
        )
    )
    try:
        sent = {"model": update_of(learned.weights, groups["model"], configuration.wire)}
        sent |= learned.send
        expected = expected_of(sent_tensors(strategy, groups["model"]))
        checked_update(sent, groups["model"], expected, values["total_weight"], configuration.wire)
        _check_sight(task, learned.weights)
    except Refused as refused:
        reason = str(refused)[:400]
        return Result({"reason": reason, "places": _withheld(task, reason)}, {})
    measured = {name: float(value) for name, value in learned.metrics.items()}
    measured |= signal.measured if signal else {}
    answers, gradients = _own_prototypes(task, learned.weights, signal)
    finite = {name: value for name, value in measured.items() if math.isfinite(value)}
    return Result(
        {"measured": finite, "places": answers},
        {f"send/{name}": tensors for name, tensors in sent.items()}
        | {"send/model": encoded(sent["model"], configuration.wire)}
        | {f"keep/{name}": tensors for name, tensors in learned.keep.items()}
        | gradients,
    )


def _check_sight(task: Task, weights: Mapping[str, NDArray[Any]]) -> None:
    """Whether the trained model still says something of a batch of its own images.

    Raises Refused: finite weights can make numbers that are not (docs/method.md 5.9).
    """
    images = task.groups["data"]["images"]
    seen = images[:: -(-len(images) // _configuration(task).batch_size)]
    layer = first_overflow(from_weights(weights), seen, transform_of(_data(task)))
    if layer is not None:
        detail = f"what {layer} makes of {len(seen)} images, though every weight is finite"
        raise Refused("not-finite", detail)


def _signal(task: Task) -> Signal | None:
    """The signal of this round, where something depends on it."""
    values = task.values
    if values["signal"] is None:
        return None
    compared, data = values["signal"], task.groups["data"]["images"]
    current = data[np.isin(values["rows"], compared["current"])]
    entropy = _augmented(task, "model", current, (values["stage"], values["round"]))
    before = compared["entropy"]
    if "before" in task.groups:
        before = _augmented(task, "before", current, compared["when"])
    return Signal(entropy, before or 0.0, compared["threshold"])


def _teacher(task: Task, signal: Signal | None) -> Mapping[str, NDArray[Any]] | None:
    """The round's teacher, or the slot that the signal picks; none that knows no class at all."""
    if signal is None:
        teacher: Mapping[str, NDArray[Any]] | None = task.groups.get("teacher")
    else:
        teacher = taught_by(task.groups.get("slot/0"), task.groups.get("slot/1"), signal.given)
    return teacher if teacher is not None and len(teacher[HEAD_BIAS]) else None


def _withheld(task: Task, reason: str) -> list[Answered]:
    """The same reason for every place of the round."""
    return [(None, reason)] * len(task.values["places"])


def _own_prototypes(
    task: Task, weights: Mapping[str, NDArray[Any]], signal: Signal | None
) -> tuple[list[Answered], Groups]:
    """The prototypes of the round's places, by the model that was just trained (6.2, 9)."""
    values = task.values
    if signal is None or not signal.given:
        return _withheld(task, "no signal"), {}
    rows, data = np.array(values["rows"], np.int64), task.groups["data"]["images"]
    images = [data[rows == row] for row in values["places"]]
    return _made(task, from_weights(weights), values["places"], images, values["round"])


def prototypes(task: Task) -> Result:
    """The gradient of one perturbed image for each class asked for, or why there is none (6.2)."""
    rows = task.values["rows"]
    images = [task.groups.get(f"place/{i}", _NO_IMAGES)["images"] for i in range(len(rows))]
    answers, groups = _made(task, from_weights(task.groups["model"]), rows, images, "")
    return Result({"places": answers}, groups)


def _made(
    task: Task,
    net: ResNet18,
    rows: Sequence[int],
    images: Sequence[NDArray[np.uint8]],
    round: int | str,
) -> tuple[list[Answered], Groups]:
    """An answer for each place, and the gradients of those that have one."""
    configuration, data, values = _configuration(task), _data(task), task.values
    encoder, how = encoder_of(configuration, data), configuration.perturb
    perturbation = Perturbation(how.mode, how.steps, how.step, how.gamma)
    answers: list[Answered] = []
    groups: Groups = {}
    for place, row in enumerate(rows):
        if not len(images[place]):
            answers.append((None, "no image of this class is left"))
            continue
        made = make_prototype(
            net,
            images[place],
            row,
            encoder,
            transform=transform_of(data),
            perturbation=perturbation,
            generator=generator(
                configuration.seed, f"perturb/{row}", values["entity"], values["stage"], round
            ),
            dp_noise_sigma=configuration.dp_noise_sigma,
        )
        noisy = configuration.dp_noise_sigma is not None
        reason = fault(made.gradient, row, with_noise=noisy)
        answers.append((made.psnr, None) if reason is None else (None, reason))
        if reason is None:
            groups[f"place/{place}"] = made.gradient
    return answers, groups


def encoder_of(configuration: Configuration, data: DataFacts) -> dict[str, NDArray[np.float32]]:
    """The run's encoder, drawn from its seed (docs/method.md 6.1)."""
    seed = configuration.encoder_seed
    chance = generator(configuration.seed if seed is None else seed, "encoder")
    classes = most_classes(configuration, data)
    return encoder_weights(data.channels, data.height, data.width, classes, chance)


def net_of(configuration: Configuration, weights: Mapping[str, NDArray[Any]]) -> ResNet18:
    """A model on the run's device. Raises RuntimeError where that is not here."""
    return from_weights(weights, _device(configuration))


def _net(task: Task) -> ResNet18:
    return net_of(_configuration(task), task.groups["model"])


def _device(configuration: Configuration) -> Device:
    if reason := missing(configuration.device):
        raise RuntimeError(reason)
    return configuration.device


def transform_of(data: DataFacts) -> Transform:
    """How the run's images are prepared."""
    facts: Transforms = data.transforms
    return Transform(
        facts.mean, facts.std, facts.crop_padding, facts.horizontal_flip, facts.brightness
    )


def _configuration(task: Task) -> Configuration:
    return Configuration.model_validate(task.values["configuration"])


def _data(task: Task) -> DataFacts:
    return DataFacts.model_validate(task.values["data"], strict=False)


def _named(prefix: str, groups: Groups) -> Groups:
    return {name[len(prefix) :]: g for name, g in groups.items() if name.startswith(prefix)}
