"""What an exact mean costs beside a plain copy of the same bytes.

    python benchmarks/averaging.py [--repeat 20] [--json]

Takes a ResNet-18 of 100 classes (45 MB) and prints milliseconds and how many plain copies that is.
Both work in pieces of the same size. The steps take turns, and the best of each counts: what else
the machine does can only add.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from aggregator.averaging import ExactMean
from schemas.tensors import CHUNK, WIRES, Tensors, check, decoded, model_sha256, specs

WIDTHS = (64, 128, 256, 512)


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=20, help="repetitions; the best counts")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()

    milliseconds = measure(resnet18(classes=100), arguments.repeat)
    if arguments.json:
        print(json.dumps({"schema": 1, "milliseconds": milliseconds}))
        return
    copy = milliseconds["plain copy"]
    for what, spent in milliseconds.items():
        print(f"{what:<28}{spent:9.1f} ms {spent / copy:7.1f} copies")


def measure(model: Tensors, repeat: int) -> dict[str, float]:
    """Milliseconds, best of `repeat`, of each step on one model."""
    expected = specs(model)
    room = 1000 * (repeat + 2)
    mean, weighted = ExactMean(expected, room), ExactMean(expected, room)
    target = {name: np.empty_like(tensor) for name, tensor in model.items()}
    steps: Mapping[str, Callable[[], object]] = {
        "plain copy": lambda: copy(model, target),
        "check": lambda: check(model, expected, room),
        "add (with its check)": lambda: mean.add(model),
        "add with weight 1000": lambda: weighted.add(model, 1000),
        "mean": mean.mean,
        "model_sha256": lambda: model_sha256(model),
    } | {f"wire {wire} and back": partial(decoded, model, wire) for wire in WIRES}
    spent = {what: seconds(step) for what, step in steps.items()}  # also warms up
    for _ in range(repeat):
        spent = {what: min(spent[what], seconds(step)) for what, step in steps.items()}
    return {what: 1000 * best for what, best in spent.items()}


def copy(model: Tensors, target: Tensors) -> None:
    """Copy every tensor in pieces, as the sums are made."""
    for name, tensor in model.items():
        source, goal = tensor.reshape(-1), target[name].reshape(-1)
        for start in range(0, source.size, CHUNK):
            goal[start : start + CHUNK] = source[start : start + CHUNK]


def seconds(step: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def resnet18(classes: int) -> Tensors:
    """Random weights in the shapes of a ResNet-18 for small images (docs/method.md 2.1)."""
    rng = np.random.default_rng(0)
    model: Tensors = {}
    for name, shape in shapes(classes):
        if name.endswith("num_batches_tracked"):
            model[name] = np.array(160, np.int64)
        else:
            model[name] = np.abs(rng.normal(0, 0.05, shape)).astype(np.float32)
    return model


def shapes(classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, layer by layer."""
    yield from convolution("stem", 3, WIDTHS[0], 3)
    before = WIDTHS[0]
    for layer, width in enumerate(WIDTHS, start=1):
        for block in range(2):
            at = f"layer{layer}.{block}"
            yield from convolution(f"{at}.first", before, width, 3)
            yield from convolution(f"{at}.second", width, width, 3)
            if before != width:
                yield from convolution(f"{at}.shortcut", before, width, 1)
            before = width
    yield "head.weight", (classes, before)
    yield "head.bias", (classes,)


def convolution(
    at: str, inputs: int, outputs: int, size: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A convolution without bias and its BatchNorm."""
    yield f"{at}.conv.weight", (outputs, inputs, size, size)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{at}.norm.{part}", (outputs,)
    yield f"{at}.norm.num_batches_tracked", ()


if __name__ == "__main__":
    main()
