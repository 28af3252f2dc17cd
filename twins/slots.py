"""What a twin's signal is taken from, where two slots teach (docs/method.md 3.2, 9).

A round's entropy is compared with that of the round before. Which round that is, and which models
are needed for it, follows from the decisions; the signal itself is taken where the twin trains.
"""

from __future__ import annotations

from infra.promises import Library
from schemas.line import RoundsLine
from schemas.messages import Groups, ModelName, RoundOpened, TwinState
from twins.shared import Shared

RoundBegan = tuple[tuple[int, int], ModelName]
"""Stage and round, and the model that it began with."""


def last_base(line: RoundsLine, stage: int) -> RoundBegan:
    """How the last round of a stage began."""
    return _began(line.stages[stage].rounds[-1].opened)


def compared(shared: Shared, opened: RoundOpened, state: TwinState) -> dict[str, object]:
    """With what, and how, a round's entropy is compared."""
    rows, before = shared.line.rows, _round_before(shared.line, opened, state)
    return {
        "threshold": shared.rise(opened.stage),
        "current": [rows[uid] for uid in state.current if uid in rows],
        "entropy": state.entropy,
        "when": before[0] if before else None,
    }


def slots(shared: Shared, opened: RoundOpened, state: TwinState, library: Library) -> Groups:
    """The models that the signal compares, and those that it picks from. Raises LookupError."""
    named = {f"slot/{i}": model for i, model in enumerate(opened.slots or ()) if model}
    if before := _round_before(shared.line, opened, state):
        named["before"] = before[1]
    return {name: library.model(model) for name, model in named.items()}


def _round_before(line: RoundsLine, opened: RoundOpened, state: TwinState) -> RoundBegan | None:
    """The round whose entropy is compared with; None if the state remembers that entropy.

    In the first round after a change the current data are others than in the round before.
    """
    if opened.round:
        return _began(line.stages[opened.stage].rounds[opened.round - 1].opened)
    return None if state.stage == opened.stage else last_base(line, opened.stage - 1)


def _began(opened: RoundOpened) -> RoundBegan:
    return (opened.stage, opened.round), opened.base
