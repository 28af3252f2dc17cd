"""What a local update is told and what it answers (docs/method.md 5.9); torch-free.

A `Lesson` is everything that a client's training in one round depends on. Legend: N images,
c channels, H height, W width, C rows of the student's head, O rows of the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from learning.augmentation import Transform
from learning.rates import check_rate
from learning.shapes import Weights, sizes_of
from learning.strategies.strategy import Groups, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from learning.nets import ResNet18

Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda", "mps"]
Purpose = Literal["shuffle", "augment"]
Generators = Callable[[Purpose, int], np.random.Generator]

SMALLEST_BATCH = 2
"""Batch normalisation cannot normalise one sample: a last batch of one is left out."""


@dataclass(frozen=True)
class Lesson:
    """One client's local update in one round, complete. Raises ValueError if it makes no sense."""

    strategy: Strategy
    base: Mapping[str, NDArray[Any]]
    """The round's global model; its head has C rows."""
    teacher: Mapping[str, NDArray[Any]] | None
    """An old model whose head has the first O of the C rows; None where there is none."""
    images: NDArray[np.uint8]
    """(N, c, H, W): current images and exemplars."""
    rows: NDArray[np.int64]
    """(N,): the head's row of each image's class."""
    stage_of_row: tuple[int, ...]
    """(C,): the stage that introduced each row; never falls from row to row."""
    stage: int
    """The current stage t, from 0."""
    learned: int
    """C_o: distinct classes that this client held before the stage."""
    new: int
    """C_n: classes that this client met in the stage."""
    transform: Transform
    generator: Generators
    """Chance, by purpose and local epoch; asked at most once for each."""
    learning_rate: float
    """Of this round, the schedule's multiplier included."""
    batch_size: int = 32
    epochs: int = 5
    image_steps: int | None = None
    """Takes the place of `epochs`, if given: epochs go on until so many images were passed."""
    weight_decay: float = 1e-5
    clip_norm: float | None = None
    """The largest norm of a step's gradient; None: any."""
    precision: Precision = "fp32"
    """`bf16`: forward passes under autocast; parameters, losses and steps stay float32."""
    device: Device = "cpu"
    """Where it is computed. Equal lessons give equal bytes on `cpu`; elsewhere nothing is promised.
    """
    received: Mapping[str, Weights] = field(default_factory=dict)
    """Groups that the round was opened with, besides the model."""
    kept: Mapping[str, Weights] = field(default_factory=dict)
    """Groups that this twin kept when an update of it was last counted."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_rows()
        self._check_images()

    @property
    def taught(self) -> bool:
        """Whether there is a teacher and the strategy listens to one."""
        return self.teacher is not None and self.strategy.teacher != "none"

    @property
    def divisor(self) -> int:
        """Of a penalty over all parameters: under `reduction=mean` the C rows, as D_CE's."""
        return len(self.stage_of_row) if self.strategy.objective.reduction == "mean" else 1

    def _check_numbers(self) -> None:
        check_rate(self.learning_rate, self.strategy.objective.reduction)
        if self.batch_size < SMALLEST_BATCH or self.epochs < 1:
            raise ValueError(
                f"a batch holds at least {SMALLEST_BATCH} images and a lesson 1 epoch, "
                f"not {self.batch_size} and {self.epochs}"
            )
        if self.weight_decay < 0 or (self.clip_norm is not None and self.clip_norm <= 0):
            raise ValueError(
                f"weight decay is not negative and clip_norm positive, "
                f"not {self.weight_decay} and {self.clip_norm}"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is fp32 or bf16, not {self.precision}")
        if self.device not in get_args(Device):
            raise ValueError(f"device is cpu, cuda or mps, not {self.device}")

    def _check_rows(self) -> None:
        classes = sizes_of(self.base).classes
        if len(self.stage_of_row) != classes or not classes:
            raise ValueError(
                f"the head has {classes} rows, and stages are told of {len(self.stage_of_row)}"
            )
        if list(self.stage_of_row) != sorted(self.stage_of_row):
            raise ValueError(f"rows are registered stage by stage, not as {self.stage_of_row}")
        if not 0 <= self.stage_of_row[0] <= self.stage_of_row[-1] <= self.stage:
            raise ValueError(f"in stage {self.stage} no row is of the stages {self.stage_of_row}")
        if (
            self.teacher is not None
            and not 1 <= (known := sizes_of(self.teacher).classes) <= classes
        ):
            raise ValueError(f"the teacher knows {known} classes, the student only {classes}")

    def _check_images(self) -> None:
        if self.rows.shape != self.images.shape[:1] or not len(self.rows):
            raise ValueError(
                f"each of at least 1 image has a row: {self.images.shape} and {self.rows.shape}"
            )
        channels = sizes_of(self.base).channels
        if self.images.ndim != 4 or self.images.shape[1] != channels:
            raise ValueError(f"images {self.images.shape}, but the model sees {channels} channels")
        classes, (least, most) = len(self.stage_of_row), (self.rows.min(), self.rows.max())
        if not 0 <= least <= most < classes:
            raise ValueError(f"images of the rows {least} to {most}, but the head has {classes}")


@dataclass(frozen=True)
class Step:
    """What one step shows a strategy's own loss term. B images in the batch."""

    student: ResNet18
    """In train mode; its parameters are those of this step."""
    images_BcHW: Tensor
    """Augmented and normalised."""
    rows_B: Tensor
    logits_BC: Tensor


@dataclass(frozen=True)
class Learned:
    """What a local update ends in."""

    weights: Weights
    send: Groups
    """Groups for the aggregator besides the model."""
    keep: Groups
    """Groups for the twin, which count once this update is counted."""
    metrics: dict[str, float]
    """`steps` and `samples` (images of one epoch); and means over the steps: `loss`, its terms
    `classification`, `semantic`, `attention` and `term` (the strategy's own) as far as they took
    part, adaptive weights included and coefficients not; `empty_maps` and `empty_teacher_maps`
    (shares of the samples); `gradient_norm` (before clipping, every eighth step). No step, no
    means."""
