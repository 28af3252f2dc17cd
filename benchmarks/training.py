"""What the local update costs beside a bare PyTorch loop, and distillation beside none.

    python benchmarks/training.py [--repeat 7] [--images 512] [--epochs 2] [--width W] [--json]

One thread. Three trainings of the same net, images, batches, precision and memory layout take
turns: a bare loop (its net is built and its images normalised beforehand), the local update of
`fedavg`, and that of `fedka` with a teacher (both from arrays to arrays). Prints the medians of the
repetitions' ratios: images per second of the local update over the bare loop's (to be at least
0.90), and seconds of `fedka` over `fedavg`'s (to be at most 1.45). Beside other work both waver by
a tenth. It ends with 1 where one of them is missed.

A fourth is `fedka` with `precision=bf16`, where the processor has the instructions: its gain is how
many times as many images per second it learns as in full precision. Nothing is promised of it; it
grows with the net, so try `--width 64 --images 64 --repeat 3`, the paper's net.

`--methods` asks all methods instead, each with what it has in a later stage: the teacher, images of
old classes where it remembers them, and what it received and kept behind a round of the stage
before (control variates, Fisher sums, its own old model). They take turns; images per second of
each, and the median of its ratios to plain training, which is `fedavg`. What is done once a lesson
counts too, and weighs less the longer the lesson. No bound. `--repeat 3` is enough for that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from experiments.folder import has_bf16
from learning.augmentation import Transform
from learning.lesson import Lesson
from learning.nets import from_weights
from learning.shapes import first_model, grown
from learning.strategies import STRATEGIES
from learning.strategies.strategy import MODEL, Groups, RoundMean
from learning.training import learn

BATCH, RATE, DECAY = 32, 0.01, 1e-5
OLD, NEW = 5, 5
PLAIN = "fedavg"
EARLIER = 128
"""Images from which two twins learn in the stage before."""
LEAST_SPEED, MOST_SECONDS = 0.90, 1.45


class Setting(NamedTuple):
    """A net and the images it sees."""

    width: int
    channels: int
    side: int

    def __str__(self) -> str:
        return f"width {self.width}, {self.channels}x{self.side}x{self.side}"


SETTINGS = (Setting(16, 3, 32), Setting(8, 1, 16))


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=7, help="repetitions; the median counts")
    parser.add_argument("--images", type=int, default=512, help="images of an epoch")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of a lesson")
    parser.add_argument("--width", type=int, help="another net instead, on 3x32x32 images")
    parser.add_argument("--methods", action="store_true", help="every method beside plain training")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    settings = (Setting(arguments.width, 3, 32),) if arguments.width else SETTINGS
    if arguments.methods:
        told = [
            {"setting": str(each)}
            | of_methods(each, arguments.repeat, arguments.images, arguments.epochs)
            for each in settings
        ]
        print(json.dumps({"schema": 1, "settings": told}) if arguments.json else _grid(told))
        return
    rows = [
        {"setting": str(setting)}
        | measure(setting, arguments.repeat, arguments.images, arguments.epochs)
        for setting in settings
    ]
    if arguments.json:
        print(json.dumps({"schema": 1, "settings": rows}))
        sys.exit(over(rows))
    print(f"{'':<22}{'bare':>10}{'fedavg':>10}{'fedka':>10}{'speed':>9}{'seconds':>9}{'bf16':>9}")
    units = f"{'images/s':>10}" * 3
    print(f"{'':<22}{units}{'/ bare':>9}{'/ fedavg':>9}{'gain':>9}")
    for row in rows:
        rates = "".join(f"{row[name]:10.0f}" for name in ("bare", "fedavg", "fedka"))
        gain = "not here" if row["gain"] is None else f"{row['gain']:.2f}"
        print(f"{row['setting']:<22}{rates}{row['speed']:9.2f}{row['distillation']:9.2f}{gain:>9}")
    print(f"to be{'':<47}{'>=':>5}{LEAST_SPEED:5.2f}{'<=':>4}{MOST_SECONDS:5.2f}")
    sys.exit(over(rows))


def over(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What is over a bound, in words; None when nothing is."""
    slow = [
        f"{row['setting']}: {row['speed']:.2f} of the bare loop, at least {LEAST_SPEED}"
        for row in rows
        if row["speed"] < LEAST_SPEED
    ]
    costly = [
        f"{row['setting']}: distillation {row['distillation']:.2f} times, at most {MOST_SECONDS}"
        for row in rows
        if row["distillation"] > MOST_SECONDS
    ]
    return "; ".join([*slow, *costly]) or None


def measure(setting: Setting, repeat: int, images: int, epochs: int) -> dict[str, float | None]:
    """Images per second of each training, and the medians of the ratios; None where there is no
    bf16 to gain from.
    """
    trainings = _trainings(setting, images, epochs)
    seconds = _in_turn(trainings, repeat)

    def ratio(one: str, other: str) -> float:
        return _ratio(seconds[one], seconds[other])

    return {
        **{name: images * epochs / median(spent) for name, spent in seconds.items()},
        "speed": ratio("bare", "fedavg"),
        "distillation": ratio("fedka", "fedavg"),
        "gain": ratio("fedka", "bf16") if "bf16" in trainings else None,
    }


def of_methods(setting: Setting, repeat: int, images: int, epochs: int) -> dict[str, Any]:
    """Method → images per second, and their median ratio to plain training's; bare loop first."""
    lessons = {name: later(setting, name, images, epochs) for name in STRATEGIES}
    plain = lessons[PLAIN]
    bare = _bare_loop(plain.base, plain.transform.normalise(plain.images), plain.rows, epochs)
    seconds = _in_turn(
        {"bare": bare, **{name: partial(learn, lesson) for name, lesson in lessons.items()}}, repeat
    )
    return {
        "images_per_second": {n: images * epochs / median(spent) for n, spent in seconds.items()},
        "to_plain": {name: _ratio(seconds[PLAIN], spent) for name, spent in seconds.items()},
    }


def _grid(told: Sequence[Mapping[str, Any]]) -> str:
    """A line for each method, two columns for each setting."""
    over = f"{'':<16}" + "".join(f"{row['setting']:>26}" for row in told)
    head = f"{'':<16}" + f"{'images/s':>14}{'/ ' + PLAIN:>12}" * len(told)
    lines = [
        f"{name:<16}"
        + "".join(f"{r['images_per_second'][name]:14.0f}{r['to_plain'][name]:12.2f}" for r in told)
        for name in told[0]["to_plain"]
    ]
    return "\n".join([over, head, *lines])


def _in_turn(trainings: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each, taking turns."""
    for training in trainings.values():
        training()  # the first run pays for memory and choices of kernels
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(repeat):
        for name, training in trainings.items():
            seconds[name].append(_timed(training))
    return seconds


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return median(first / second for first, second in zip(one, other, strict=True))


def _timed(training: Callable[[], object]) -> float:
    start = time.perf_counter()
    training()
    return time.perf_counter() - start


def _trainings(setting: Setting, images: int, epochs: int) -> dict[str, Callable[[], object]]:
    plain, fedka = (_lesson(setting, name, images, epochs) for name in (PLAIN, "fedka"))
    inputs = plain.transform.normalise(plain.images)
    trainings: dict[str, Callable[[], object]] = {
        "bare": _bare_loop(plain.base, inputs, plain.rows, epochs),
        PLAIN: partial(learn, plain),
        "fedka": partial(learn, fedka),
    }
    if has_bf16():
        trainings["bf16"] = partial(learn, replace(fedka, precision="bf16"))
    return trainings


def later(setting: Setting, name: str, images: int, epochs: int) -> Lesson:
    """A method's lesson in the second stage, with all that it has there."""
    lesson = _lesson(setting, name, images, epochs)
    received, kept = _state(lesson)
    remembers = lesson.strategy.memory != "none"
    rows = lesson.rows if remembers else OLD + lesson.rows % NEW
    return replace(lesson, rows=rows, received=received, kept=kept)


def _state(lesson: Lesson) -> tuple[Groups, Groups]:
    """What a twin receives and has kept, when it and another one learned in the stage before."""
    strategy, old = lesson.strategy, lesson.teacher
    if strategy.groups is None or old is None:
        return {}, {}
    whole = replace(
        lesson, base=old, teacher=None, rows=lesson.rows % OLD, stage_of_row=(0,) * OLD,
        stage=0, learned=0, new=OLD, epochs=1,
    )  # fmt: skip
    own, other = (
        learn(replace(whole, images=whole.images[i:EARLIER:2], rows=whole.rows[i:EARLIER:2]))
        for i in (0, 1)
    )
    mean = {
        group: {name: (tensor + other.send[group][name]) / 2 for name, tensor in tensors.items()}
        for group, tensors in own.send.items()
    }
    closed = RoundMean({MODEL: dict(old)}, {MODEL: own.weights, **mean}, counted=2, members=2)
    groups = strategy.settled(closed)
    return {group: tensors for group, tensors in groups.items() if group != MODEL}, own.keep


def _lesson(setting: Setting, name: str, images: int, epochs: int) -> Lesson:
    chance = np.random.default_rng(0)
    teacher = grown(first_model(setting.channels, setting.width, chance), OLD, chance)
    shape = (images, setting.channels, setting.side, setting.side)
    return Lesson(
        strategy=STRATEGIES[name],
        base=grown(teacher, NEW, chance),
        teacher=teacher,
        images=chance.integers(0, 256, shape, dtype=np.uint8),
        rows=chance.integers(0, OLD + NEW, images),
        stage_of_row=(0,) * OLD + (1,) * NEW,
        stage=1,
        learned=OLD,
        new=NEW,
        transform=Transform((0.5,) * setting.channels, (0.25,) * setting.channels),
        generator=lambda purpose, epoch: np.random.default_rng(epoch),
        learning_rate=RATE,
        batch_size=BATCH,
        epochs=epochs,
        weight_decay=DECAY,
    )


def _bare_loop(
    base: Mapping[str, NDArray[Any]], inputs: torch.Tensor, rows: NDArray[np.int64], epochs: int
) -> Callable[[], object]:
    net = from_weights(base).train()
    targets = F.one_hot(torch.from_numpy(rows), OLD + NEW).float()

    def train() -> None:
        optimiser = torch.optim.SGD(net.parameters(), RATE, weight_decay=DECAY, fused=True)
        for epoch in range(epochs):
            order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(rows)))
            for chosen in order.split_with_sizes([BATCH] * (len(rows) // BATCH)):
                x = inputs[chosen].contiguous(memory_format=torch.channels_last)
                loss = F.binary_cross_entropy_with_logits(net(x), targets[chosen])
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()

    return train


if __name__ == "__main__":
    main()
