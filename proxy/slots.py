"""The lineage's two old models, and what each closed round makes of them (docs/method.md 9).

GLFC's and LGA's released code keeps B1, the best model before, and B2, the best so far. Pure, and
without torch: what the scores rest on is `proxy.scoring`'s affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.messages import ModelName, TeacherChosen


@dataclass(frozen=True)
class Worked:
    """A closed round, as far as it matters to the slots."""

    stage: int
    round: int
    model: ModelName
    """The model that came of it."""
    brought: bool
    """Whether one of its places was answered with a gradient."""
    score: float | None
    """Of its model, in [0, 1], on the newest prototypes; None while there are none, or no more."""
    ends: bool
    """Whether it is its stage's last."""
    listed: bool = True
    """False in the schedule's last stage and behind it, which ask for no prototypes."""


@dataclass(frozen=True)
class Slots:
    """What a run has before its first round; `after` tells the rest."""

    before: ModelName | None = None
    """B1."""
    best: ModelName | None = None
    """B2."""
    score: float = 0.0
    """B2's when it was taken, or 0 after the one reset at the start of stage 1, as in LGA."""

    @property
    def named(self) -> tuple[ModelName | None, ModelName | None]:
        """B1 and B2, as a choice names them."""
        return self.before, self.best

    def after(self, worked: Worked) -> Slots:
        """The slots when one more round was worked through.

        Gradients shift B2 into B1. Then the round's model becomes B2 if it scores at least as well
        as B2 did. A stage that ends with an empty B2 leaves its last model there, where the
        released code fails (row 7). A stage that lists nothing shifts after its first round, so
        that the best of the stages before teaches on, and keeps B2.
        """
        if not worked.listed:
            return self._shifted() if worked.round == 0 else self
        slots = self._shifted() if worked.brought else self
        if worked.score is not None and worked.score >= slots.score:
            slots = replace(slots, best=worked.model, score=worked.score)
        if worked.ends and slots.best is None:
            slots = replace(slots, best=worked.model)
        return replace(slots, score=0.0) if worked.ends and worked.stage == 0 else slots

    def _shifted(self) -> Slots:
        return replace(self, before=self.best)


def as_chosen(chosen: Sequence[TeacherChosen]) -> Slots:
    """The slots where the newest choice leaves them: a proxy that starts anew goes on from there.

    The score to beat is the highest since stage 1 began; the first choice tells of stage 0.
    """
    if not chosen:
        return Slots()
    before, best = chosen[-1].slots or (None, None)
    scores = [score for choice in chosen[1:] for _, score in choice.scores]
    return Slots(before, best, max(scores, default=0.0))
