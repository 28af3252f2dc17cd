"""The one local update that every method runs (docs/method.md 5.9).

Equal lessons give equal bytes, on equal libraries, instruction set and threads: float sums depend
on how many threads share them, so give every training one. Legend: B images in a batch,
c channels, H height, W width.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from learning.album import Album
from learning.lesson import SMALLEST_BATCH, Device, Learned, Lesson
from learning.nets import from_weights, to_weights
from learning.objective import LocalObjective, teacher_of
from learning.strategies.strategy import Sent

MEASURED = 8
"""The gradient's norm is taken in every eighth step: it costs 3 % of a narrow net's step."""


def learn(lesson: Lesson) -> Learned:
    """Train the base model on the lesson's images, and tell how it went.

    Plain SGD without momentum. What comes out may not be finite: whoever sends it looks first. A
    lesson of one image makes no step and leaves the base as it is.
    """
    strategy = lesson.strategy
    student = from_weights(lesson.base, lesson.device).train()
    named = dict(student.named_parameters())
    objective = LocalObjective(lesson, student, teacher_of(lesson))
    correct = strategy.correction(lesson) if strategy.correction else None
    diary = _Diary(lesson.device)
    for images_BcHW, rows_B in _batches(lesson):
        student.zero_grad()
        seen = objective(images_BcHW, rows_B)
        torch.autograd.backward(seen["loss"])
        gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
        if correct:
            correct(gradients)
        if lesson.clip_norm or diary.steps % MEASURED == 0:
            diary.note_norm(_measure(gradients, named, lesson))
        _step(gradients, named, lesson)
        diary.note(seen)
    weights = to_weights(student)
    sent = strategy.groups(lesson, weights, diary.steps) if strategy.groups else Sent({}, {})
    counts = {"steps": float(diary.steps), "samples": float(len(lesson.rows))}
    return Learned(weights, sent.send, sent.keep, {**counts, **diary.means()})


@torch.no_grad()
def _step(
    gradients: Mapping[str, Tensor], named: Mapping[str, nn.Parameter], lesson: Lesson
) -> None:
    """One step of SGD on every parameter that has a gradient.

    The function and not the class `torch.optim.SGD`, whose first instance imports torch's compiler:
    seconds in every worker process.
    """
    sgd(
        [named[name] for name in gradients],
        list(gradients.values()),
        [None] * len(gradients),
        fused=True,
        weight_decay=lesson.weight_decay,
        momentum=0.0,
        lr=lesson.learning_rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


def _batches(lesson: Lesson) -> Iterator[tuple[Tensor, Tensor]]:
    album = Album(lesson.images, lesson.transform, lesson.device)
    left = lesson.image_steps or math.inf
    for epoch in range(lesson.epochs) if lesson.image_steps is None else count():
        for images_BcHW, rows_B in _epoch(lesson, album, epoch):
            yield images_BcHW, rows_B
            left -= len(rows_B)
            if left <= 0:
                return
        if left == lesson.image_steps:
            return  # there is no batch at all


def _epoch(lesson: Lesson, album: Album, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = lesson.generator("shuffle", epoch).permutation(len(lesson.rows))
    chance = lesson.generator("augment", epoch) if lesson.transform.augments else None
    for start in range(0, len(order), lesson.batch_size):
        chosen = order[start : start + lesson.batch_size]
        if len(chosen) < SMALLEST_BATCH:
            continue
        rows_B = torch.from_numpy(lesson.rows[chosen])
        yield album.batch(chosen, chance), rows_B.to(lesson.device)


def _measure(
    gradients: Mapping[str, Tensor], named: Mapping[str, nn.Parameter], lesson: Lesson
) -> Tensor:
    """The norm of the whole gradient, which is then shortened to `clip_norm` if it is longer."""
    foreach = True if lesson.device == "cpu" else None  # elsewhere torch knows whether it can
    norm = nn.utils.get_total_norm(gradients.values(), foreach=foreach)
    if lesson.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(named.values(), lesson.clip_norm, norm, foreach=foreach)
    return norm


class _Diary:
    """Sums what each step shows, and looks at no number before the end: looking costs time."""

    def __init__(self, device: Device) -> None:
        self.steps = 0
        self._names: list[str] = []
        dtype = torch.float32 if device == "mps" else torch.float64  # mps has no float64
        self._sums = torch.zeros((), dtype=dtype, device=device)
        self._norms: list[Tensor] = []

    def note(self, seen: Mapping[str, Tensor]) -> None:
        self.steps += 1
        self._names = list(seen)
        self._sums = self._sums + torch.stack([value.detach() for value in seen.values()])

    def note_norm(self, norm: Tensor) -> None:
        self._norms.append(norm)

    def means(self) -> dict[str, float]:
        if not self.steps:
            return {}
        norm = float(torch.stack(self._norms).cpu().double().mean())
        means = zip(self._names, (self._sums / self.steps).tolist(), strict=True)
        return {**dict(means), "gradient_norm": norm}
