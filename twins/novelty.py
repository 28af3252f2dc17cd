"""Is there a new class? Labels decide, the entropy jump is recorded beside them (method.md 3)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import RunOpened
from schemas.schedule import sorted_uids

Verdict = Literal["new", "known", "suspected"]
REFERENCES = 512  # images of known data that the entropy of a window is compared with
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Judgement:
    """What a window says."""

    verdict: Verdict
    classes: tuple[str, ...]
    """The new classes, in order of uid; none unless the verdict is `new`."""
    jump: bool
    """Whether the entropy rule fired."""


def threshold(configuration: Configuration, old_rows: int, virtual_rows: int) -> float:
    """The rise that counts as a jump, in nats: r_h, or rho * ln(C_old + v) (docs/method.md 3.4).

    Where there is no row at all no entropy can rise, and none need to: 0.
    """
    if configuration.threshold_mode == "absolute":
        return configuration.entropy_threshold
    return configuration.rho * math.log(max(1, old_rows + virtual_rows))


def virtual_rows(opened: RunOpened, stage: int) -> int:
    """How many zero logits stand for classes that have no row yet (docs/method.md 3.3)."""
    configuration, stages = opened.configuration, opened.schedule.stages
    if configuration.live:
        sizes = configuration.classes_per_stage
        return sizes if isinstance(sizes, int) else sizes[0]
    pre_growth = configuration.entropy_head == "pre_growth" and stage > 0
    return 0 if pre_growth else len(stages[min(stage, len(stages) - 1)].classes)


def rise(line: RoundsLine, stage: int, configuration: Configuration) -> float:
    """The rise of entropy that counts as a jump in a stage, in nats (docs/method.md 3.4).

    In a live run every row there is counts as old.
    """
    assert line.opened is not None
    old_rows = sum(row < stage or line.live for row in line.stage_of_row)
    return threshold(configuration, old_rows, virtual_rows(line.opened, stage))


def judged(
    images: Mapping[str, int],
    known: Collection[str],
    entropy: float | None,
    reference: float | None,
    r_h: float,
    configuration: Configuration,
) -> Judgement:
    """The verdict on a window: images per class, and mean entropies in nats (docs/method.md 3.4).

    `entropy` is None when it could not be taken; labels then decide alone. `reference` is None at
    first contact, when the bootstrap rule fires unconditionally.
    """
    unseen = sorted_uids(uid for uid in images if uid not in known)
    enough = tuple(uid for uid in unseen if images[uid] >= configuration.n_lab)
    jump = entropy is not None and (reference is None or entropy - reference > r_h)
    if configuration.detector == "entropy" and entropy is not None:
        return Judgement("new" if jump and unseen else "known", unseen if jump else (), jump)
    if enough:
        return Judgement("new", enough, jump)
    suspects = jump and reference is not None and configuration.detector == "hybrid"
    return Judgement("suspected" if suspects else "known", (), jump)


def drawn(images: Sequence[Drawn], most: int, chance: np.random.Generator) -> Sequence[Drawn]:
    """At most so many of the images, by a draw, in their order."""
    if len(images) <= most:
        return images
    return [images[i] for i in sorted(chance.choice(len(images), most, replace=False))]
