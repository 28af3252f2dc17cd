"""Rounds and stages as decided so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.messages import (
    HeadGrown,
    ModelName,
    RolledBack,
    RoundClosed,
    RoundOpened,
    StageClosed,
    StageOpened,
    StageTold,
)

NEWEST = 50
"""Models of a live stage that are kept and may teach: it may have rounds for months."""


@dataclass
class Round:
    """One round as decided so far."""

    opened: RoundOpened
    closed: RoundClosed | None = None
    dropped: RolledBack | None = None
    """In place of `closed`: it ended uncounted, for an operator went back to an earlier model."""


@dataclass
class Stage:
    """One stage as decided so far."""

    index: int
    grown: HeadGrown | None = None
    opened: StageOpened | None = None
    """In a live run: the decision that began it."""
    rounds: list[Round] = field(default_factory=list)
    """Those that are held: all, or the newest of a live run."""
    past: int = 0
    """Rounds that began before those."""
    base: ModelName | None = None
    """Of its first round."""
    first: RoundClosed | None = None
    """Its first round that closed."""
    models: list[ModelName] = field(default_factory=list)
    """Those with which its rounds closed and those of rollbacks, in the order of decisions; where
    not all rounds are held, the first and the newest."""
    closed: StageClosed | None = None

    @property
    def size(self) -> int:
        """How many rounds have begun."""
        return self.past + len(self.rounds)

    @property
    def newest(self) -> list[ModelName]:
        """The newest of its models, of a live run."""
        return self.models[-NEWEST:]

    def told(self) -> StageTold:
        """As a Standing tells it, of a live run."""
        assert self.opened is not None
        return StageTold(
            opened=self.opened,
            grown=self.grown,
            closed=self.closed,
            rounds=self.size,
            base=self.base,
            first=self.first,
            models=tuple(_ends(self.models)),
        )

    @classmethod
    def of(cls, index: int, told: StageTold, rounds: list[Round]) -> Stage:
        """As it was told, with the newest rounds."""
        past, models = told.rounds - len(rounds), list(told.models)
        return cls(
            index, told.grown, told.opened, rounds, past, told.base, told.first, models, told.closed
        )


def _ends(models: list[ModelName]) -> list[ModelName]:
    """The first of a stage's models, and the newest."""
    return models if len(models) <= NEWEST + 1 else [models[0], *models[-NEWEST:]]
