"""What a run will take: said before it begins, and refused where the disk is too small."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from aggregator.aggregator import Opening
from experiments.numbers import size
from experiments.pooling import bursts, images_per_class, trained_on
from learning.shapes import model_shapes
from producers.images import Dataset
from schemas.configuration import Configuration
from schemas.errors import DiskFull

SECONDS_PER_STEP = 0.03
"""Of a training step however narrow the net: dispatch, on a server's core of 2023."""
MACS_PER_SECOND = 25e9
"""Multiply-adds of a training on such a core at width 16: 150 images of 32x32 a second."""
WIDER_IS_QUICKER = 0.25
"""Their rate grows with this power of the width."""
SECONDS_TO_START = 5.0
"""Until worker processes have imported torch."""
BESIDE_TRAINING = 1.3
"""All work, of that of training: judging, prototypes, the log."""
MAIN_BYTES, WORKER_BYTES = 110_000_000, 450_000_000
"""Resident memory before anything is loaded, as measured."""
LOOKED_AT = 256
"""Images of a forward pass where nothing is learned; eight maps of them are held at a time."""
SPARE = 1.25


@dataclass(frozen=True)
class Estimate:
    """About what a run takes."""

    steps: int
    """Training steps of all twins in all rounds."""
    images: int
    """Images trained on, counted each time."""
    training_seconds: float
    """On one core."""
    disk_bytes: int
    main_bytes: int
    """Memory of the process that hosts the roles."""
    worker_bytes: int
    """Memory of each worker process."""

    def seconds(self, workers: int) -> float:
        """From start to end with so many workers, each on a core of its own."""
        return SECONDS_TO_START + BESIDE_TRAINING * self.training_seconds / workers

    def memory(self, workers: int, programs: int = 1) -> int:
        """Bytes of memory with so many workers in all, and so many programs that host roles."""
        return programs * self.main_bytes + workers * self.worker_bytes


def estimated(configuration: Configuration, opening: Opening, dataset: Dataset) -> Estimate:
    """From the schedule: what streams, what trains, what is kept."""
    counts = images_per_class(configuration, dataset)
    schedule = opening.schedule
    samples = sum(sum(bursts(schedule, each, counts).values()) for each in schedule.stages)
    images = sum(
        sum(stage.image_steps) or configuration.local_epochs * sum(rounds)
        for stage, rounds in zip(
            schedule.stages, trained_on(configuration, schedule, counts), strict=True
        )
    )
    steps = math.ceil(images / configuration.batch_size)
    training = 4 * images * _macs(configuration, opening)  # forward, twice back, and a teacher
    model = 4 * _numbers(configuration, opening)
    height, width = dataset.train.images.shape[2:]
    parts = (dataset.train, dataset.validation, dataset.test)
    return Estimate(
        steps=steps,
        images=images,
        training_seconds=steps * SECONDS_PER_STEP + training / _rate(configuration.width),
        disk_bytes=samples * dataset.train.images[0].nbytes + model * _kept_models(configuration),
        main_bytes=MAIN_BYTES + sum(part.images.nbytes for part in parts) + 4 * model,
        worker_bytes=WORKER_BYTES
        + 8 * 4 * LOOKED_AT * configuration.width * height * width
        + 4 * model,
    )


def check_disk(folder: Path, estimate: Estimate, freed: int = 0) -> None:
    """Raises DiskFull when the log will not fit, also after `freed` bytes were let go."""
    free = shutil.disk_usage(folder).free + freed
    need = int(estimate.disk_bytes * SPARE)
    if free < need:
        raise DiskFull(
            f"the run needs about {size(need)} in {folder}, {size(free)} are free:"
            " make room, or take another --run-dir"
        )


def _rate(width: int) -> float:
    """Multiply-adds a second of one core."""
    return MACS_PER_SECOND * (width / 16) ** WIDER_IS_QUICKER


def _kept_models(configuration: Configuration) -> int:
    """Versions in the log and the store, and updates that a round leaves."""
    rounds, each = configuration.rounds_per_stage, configuration.clients_per_round
    keep = configuration.keep_rounds
    kept = rounds * configuration.stages if keep == "all" else keep + 1
    return 2 * (rounds + 1) + 4 * configuration.stages + kept * each


def _numbers(configuration: Configuration, opening: Opening) -> int:
    shapes = model_shapes(opening.data.channels, configuration.width, len(opening.schedule.classes))
    return sum(math.prod(shape) for shape in shapes.values())


def _macs(configuration: Configuration, opening: Opening) -> float:
    """Forward multiply-adds of an image: 0.5554e9 at width 64 and 32x32 (docs/method.md 2.1)."""
    area = opening.data.height * opening.data.width / 1024
    return 0.5554e9 * area * (configuration.width / 64) ** 2
