"""What rebuilding 24 prototypes costs beside the one-by-one solver of GLFC's released code.

    python benchmarks/reconstruction.py [--data digits] [--alone 24] [--steps 3000] [--json]

One thread. Each solver runs until its worst image has MSE 5e-3 (images in [0, 1]): the batched one
from mid-grey and from the layers' equations, and torch's L-BFGS, one image after another, from
noise. The latter's time is that of the first `--alone` images, scaled to all of them; an image that
it gives up on (250 calls) counts with the time it took. Prints seconds and what part of the
one-by-one time that is; on digits at 16x16 either start is to need at most a tenth.

The images are training images of each class in turn, not perturbed, which changes nothing here.
`--data npz:FILE` takes other ones, `--data-dir` says where the named data sets lie.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from learning.augmentation import WHITE
from learning.encoder import Gradient, encoder_weights
from learning.prototypes import gradient_of
from producers.datasets import load
from producers.images import Dataset
from proxy.layerwise import solved_layerwise
from proxy.matching import Mismatch
from proxy.reconstruction import GREY, descend, descend_alone

PROTOTYPES = 24
ENOUGH = 5e-3
CALLS = 250
MOST = 0.10


class Setting(NamedTuple):
    """Images, and everything that the proxy has of them."""

    images_BcHW: Tensor
    encoder: Gradient
    gradients: Sequence[Gradient]
    rows: Sequence[int]


class Result(NamedTuple):
    """What a solver came to."""

    seconds: float
    worst: float
    """The largest MSE."""
    median: float


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`; exit with 1 if too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default="digits", help="a data set's name, or npz:FILE")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--alone", type=int, default=PROTOTYPES, help="images rebuilt one by one")
    parser.add_argument("--steps", type=int, default=3000, help="steps before grey is given up")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    setting = prepared(load(arguments.data, arguments.data_dir))
    results = {
        "one by one, from noise": alone(setting, arguments.alone),
        "batched, from grey": batched(setting, "grey", arguments.steps),
        "batched, layer by layer": batched(setting, "layerwise", arguments.steps),
    }
    peer = results["one by one, from noise"].seconds
    parts = {what: result.seconds / peer for what, result in results.items()}
    kept = all(
        results[what].worst <= ENOUGH and part <= MOST
        for what, part in parts.items()
        if what.startswith("batched")
    )
    if arguments.json:
        rows = {what: result._asdict() for what, result in results.items()}
        print(json.dumps({"schema": 1, "results": rows, "parts": parts, "kept": kept}))
    else:
        for what, result in results.items():
            print(
                f"{what:<24}{result.seconds:9.2f} s {parts[what]:8.4f} of the first, "
                f"MSE {result.worst:.1e} at worst, {result.median:.1e} in the middle"
            )
    if not kept and arguments.data == "digits":
        sys.exit(f"a batched start took more than {MOST} of the time, or did not arrive")


def prepared(dataset: Dataset) -> Setting:
    """Take the first images of the classes in turn, an encoder, and every image's gradient."""
    images, labels = dataset.train.images, dataset.train.labels
    classes = len(dataset.class_uids)
    rows = [number % classes for number in range(PROTOTYPES)]
    chosen = [np.flatnonzero(labels == row)[n // classes] for n, row in enumerate(rows)]
    images_BcHW = torch.tensor(images[chosen]) / WHITE
    _, channels, height, width = images.shape
    generator = np.random.default_rng(2021)
    encoder = encoder_weights(channels, height, width, dataset.encoder_classes, generator)
    pairs = zip(images_BcHW, rows, strict=True)
    gradients = [gradient_of(encoder, image, row) for image, row in pairs]
    return Setting(images_BcHW, encoder, gradients, rows)


def batched(setting: Setting, start: Literal["grey", "layerwise"], steps: int) -> Result:
    """All images in lock-step, until the worst is good enough or `steps` were taken."""
    began = time.perf_counter()
    images_BcHW, encoder, gradients, rows = setting
    _, _, height, width = images_BcHW.shape
    mismatch = Mismatch(encoder, gradients, rows, height=height, width=width)
    start_BD = torch.full_like(images_BcHW, GREY).flatten(1)
    if start == "layerwise":
        solved = [
            solved_layerwise(encoder, gradient, row, height=height, width=width)
            for gradient, row in zip(gradients, rows, strict=True)
        ]
        start_BD = torch.stack(solved).float().flatten(1)
    for found_BD, _ in islice(descend(mismatch, start_BD), steps + 1):
        errors_B = mse(found_BD.view_as(images_BcHW), images_BcHW)
        if float(errors_B.max()) <= ENOUGH:
            break
    return Result(time.perf_counter() - began, float(errors_B.max()), float(errors_B.median()))


def alone(setting: Setting, count: int) -> Result:
    """The first `count` images one after another, scaled to the time of all."""
    generator = np.random.default_rng(7)
    encoder, errors = setting.encoder, []
    grey_cHW = torch.full_like(setting.images_BcHW[0], GREY)
    # The first optimiser of a process makes torch import its compiler, for seconds: not our peer's.
    next(descend_alone(encoder, setting.gradients[0], setting.rows[0], grey_cHW))
    began = time.perf_counter()
    for n in range(count):
        wanted_cHW = setting.images_BcHW[n]
        start = torch.from_numpy(generator.standard_normal(wanted_cHW.shape)).float()
        path = descend_alone(encoder, setting.gradients[n], setting.rows[n], start)
        for found_cHW in islice(path, CALLS):
            error = float(mse(found_cHW[None], wanted_cHW[None]))
            if error <= ENOUGH:
                break
        errors.append(error)
    seconds = (time.perf_counter() - began) * len(setting.rows) / count
    return Result(seconds, max(errors), float(np.median(errors)))


def mse(images_BcHW: Tensor, wanted_BcHW: Tensor) -> Tensor:
    """Mean squared error of each image, after clamping (B)."""
    return (images_BcHW.clamp(0, 1) - wanted_BcHW).square().mean((1, 2, 3))


if __name__ == "__main__":
    main()
