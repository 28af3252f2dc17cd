"""The local objective of a lesson on one batch: alpha * L_CB + beta * L_SD + gamma * L_AD.

Equations are in `learning.losses`; here the switches choose among them (docs/method.md 5.4 to 5.7).
Legend: B samples, c image channels, C rows of the student's head, O rows of the teacher's,
K feature channels, H height, W width, G groups of samples, Q cells of a map.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from learning.lesson import Lesson, Step
from learning.losses import (
    adaptive_weights,
    attended_rows,
    attention_distance,
    class_activation_map,
    classification,
    difficulty_exponent,
    gaps,
    grad_cam,
    is_empty,
    membership,
    semantic_distillation,
)
from learning.nets import ResNet18, frozen, frozen_statistics, pooled
from learning.shapes import HEAD_BIAS, LAYERS
from learning.strategies.strategy import AlphaGradient, Term

_LAST = LAYERS[-1]


class _Sight(NamedTuple):
    """What a net makes of a batch: maps by layer, and the logits of the pass that gave them."""

    maps: dict[str, Tensor]
    logits_BC: Tensor


def teacher_of(lesson: Lesson) -> ResNet18 | None:
    """The teacher, in eval mode and without gradients, if the objective asks what it sees."""
    switches = lesson.strategy.objective
    if lesson.teacher is None or not lesson.taught or not (switches.beta or switches.gamma):
        return None
    return frozen(lesson.teacher, lesson.device)


class LocalObjective:
    """Called with a batch, tells the loss, its terms and the shares of empty maps, by name.

    Keeps what stays the same from step to step. The student must be in train mode, and the teacher
    that of `teacher_of`.
    """

    def __init__(self, lesson: Lesson, student: ResNet18, teacher: ResNet18 | None) -> None:
        self._switches = lesson.strategy.objective
        self._student = student
        self._teacher = teacher
        self._coefficient = self._switches.alpha if lesson.taught else self._switches.alone
        self._term = lesson.strategy.term(lesson) if lesson.strategy.term else None
        self._device, self._bf16 = lesson.device, lesson.precision == "bf16"
        self._exponent = difficulty_exponent(
            self._switches.exponent, learned=lesson.learned, new=lesson.new, stage=lesson.stage
        )
        members_CG = membership(lesson.stage_of_row, lesson.stage, self._switches.weight)
        self._members_CG = members_CG.to(lesson.device)
        self._first_row = _first_row(lesson) if self._switches.cls_rows == "current" else 0
        self._block_sizes = _block_sizes(lesson)
        self._looks_deeper = set(self._switches.ad_layers) != {_LAST}

    def __call__(self, images_BcHW: Tensor, rows_B: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            a_BKHW, logits_BC = self._student.maps_and_logits(images_BcHW)
        step = Step(self._student, images_BcHW, rows_B, logits_BC.float())
        weights_B = self._weights(step)
        loss, seen = torch.zeros((), device=self._device), dict[str, Tensor]()
        for term, coefficient, loss_B in self._terms(step, a_BKHW, seen):
            if weights_B is not None and term in self._switches.weighted:
                loss_B = weights_B * loss_B
            seen[term] = loss_B.mean()
            loss = loss + coefficient * seen[term]
        if self._term:
            seen["term"] = self._term(step)
            loss = loss + seen["term"]
        return {"loss": loss, **seen}

    def _terms(
        self, step: Step, a_BKHW: Tensor, seen: dict[str, Tensor]
    ) -> Iterator[tuple[Term, float, Tensor]]:
        """The terms that take part, each with its coefficient and a loss for each sample."""
        switches = self._switches
        if self._coefficient:
            yield "classification", self._coefficient, self._classification(step)
        if self._teacher is None:
            return
        teacher = self._teacher_sight(self._teacher, step.images_BcHW)
        if switches.beta:
            yield "semantic", switches.beta, self._semantic(step, teacher.logits_BC)
        if switches.gamma:
            rows = attended_rows(switches.ad_class, step.logits_BC, teacher.logits_BC, step.rows_B)
            theirs = self._cams(self._teacher, teacher, rows[0], "detached")
            ours = self._cams(
                self._student, self._student_sight(step, a_BKHW), rows[1], switches.alpha_grad
            )
            seen |= {"empty_maps": _empty(ours), "empty_teacher_maps": _empty(theirs)}
            yield "attention", switches.gamma, self._attention(ours, theirs)

    def _weights(self, step: Step) -> Tensor | None:
        if self._switches.weight == "none" or not self._exponent:
            return None  # d^0 / mean d^0 is 1
        return adaptive_weights(
            gaps(step.logits_BC, step.rows_B, family=self._switches.family),
            self._members_CG[step.rows_B],
            self._exponent,
            clamp=self._switches.weight_clamp,
            product=self._switches.weight == "product",
        )

    def _classification(self, step: Step) -> Tensor:
        """Among the rows from `_first_row` on; a sample of an earlier row has no loss."""
        first, logits_BC, rows_B = self._first_row, step.logits_BC, step.rows_B
        if first:
            logits_BC, rows_B = logits_BC[:, first:], (rows_B - first).clamp_min(0)
        loss_B = classification(
            logits_BC,
            rows_B,
            family=self._switches.family,
            reduction=self._switches.reduction,
        )
        return loss_B * (step.rows_B >= first) if first else loss_B

    def _semantic(self, step: Step, teacher_logits_BO: Tensor) -> Tensor:
        return semantic_distillation(
            step.logits_BC,
            teacher_logits_BO,
            step.rows_B,
            mode=self._switches.sd_mode,
            block_sizes=self._block_sizes,
            temperature=self._switches.sd_temperature,
            reduction=self._switches.reduction,
        )

    def _attention(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """The mean over the layers; each layer's maps have their own number of cells."""
        norm, reduction = self._switches.ad_norm, self._switches.reduction
        distances = [
            attention_distance(map_BQ, teacher_map_BQ, norm=norm, reduction=reduction)
            for map_BQ, teacher_map_BQ in zip(ours, theirs, strict=True)
        ]
        return torch.stack(distances).mean(0)

    def _teacher_sight(self, teacher: ResNet18, images_BcHW: Tensor) -> _Sight:
        """One pass for logits and maps. Earlier maps are explained by gradients, so by autograd."""
        if not self._looks_deeper:
            with torch.no_grad(), self._autocast():
                a_BKHW, logits_BC = teacher.maps_and_logits(images_BcHW)
            return _Sight({_LAST: a_BKHW}, logits_BC.float())
        return self._deep_sight(teacher, images_BcHW.detach().requires_grad_())

    def _student_sight(self, step: Step, a_BKHW: Tensor) -> _Sight:
        """The last map is that of the training pass; earlier ones need frozen statistics."""
        if not self._looks_deeper:
            return _Sight({_LAST: a_BKHW}, step.logits_BC)
        with frozen_statistics(self._student):
            sight = self._deep_sight(self._student, step.images_BcHW)
        return _Sight({**sight.maps, _LAST: a_BKHW}, sight.logits_BC)

    def _deep_sight(self, net: ResNet18, images_BcHW: Tensor) -> _Sight:
        with self._autocast():
            maps = dict(net.maps(images_BcHW))
            logits_BC = net.head(pooled(maps[_LAST]))
        return _Sight(maps, logits_BC.float())

    def _cams(
        self, net: ResNet18, sight: _Sight, rows_B: Tensor, alpha_grad: AlphaGradient
    ) -> list[Tensor]:
        """Where a net sees the class of `rows_B` in each sample, one (B, Q) for each layer."""
        relu = self._switches.cam_relu
        scores_B = sight.logits_BC.gather(1, rows_B[:, None])
        return [
            class_activation_map(
                sight.maps[layer].float(), net.fc.weight, rows_B, relu=relu, alpha_grad=alpha_grad
            )
            if layer == _LAST
            else grad_cam(sight.maps[layer], scores_B, relu=relu, alpha_grad=alpha_grad).float()
            for layer in self._switches.ad_layers
        ]

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device, torch.bfloat16) if self._bf16 else nullcontext()


def _block_sizes(lesson: Lesson) -> list[int]:
    """How many of the rows that the teacher knows each stage introduced."""
    known = 0 if lesson.teacher is None else len(lesson.teacher[HEAD_BIAS])
    return [len(list(rows)) for _, rows in groupby(lesson.stage_of_row[:known])]


def _first_row(lesson: Lesson) -> int:
    """The first row of the current stage; of a stage that grew no row, the first of all."""
    return lesson.stage_of_row.index(lesson.stage) if lesson.stage in lesson.stage_of_row else 0


def _empty(maps: list[Tensor]) -> Tensor:
    """The share of maps that look nowhere, over samples and layers."""
    return torch.stack([is_empty(map_BQ) for map_BQ in maps]).float().mean()
