"""The decisions of a whole run, as honest authors write them.

The run has two entities, two stages of two classes, and two rounds a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.codec import pack
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    EntityJoined,
    HeadGrown,
    Look,
    Participant,
    RoundClosed,
    RoundOpened,
    StageAdded,
    StageClosed,
    TeacherChosen,
    WindowJudged,
)
from tests.schemas.specimens import NORTH, SOUTH, model, opened

FIRST = opened()
RUN = pack(FIRST).hash
OTHER_RUN = "9" * 64


def growth(number: int, stage: int, version: int, **changes: Any) -> HeadGrown:
    """Two classes get rows; the north answers for both of them."""
    rows = {str(2 * stage): 2 * stage, str(2 * stage + 1): 2 * stage + 1}
    prototypes = ((NORTH, tuple(rows)),) if stage == 0 else ()
    fields: dict[str, Any] = {
        "stage": stage,
        "rows": rows,
        "prototypes": prototypes,
        "model": model(version),
    }
    return HeadGrown(run=RUN, number=number, **(fields | changes))


def opening(number: int, stage: int, round: int, version: int, **changes: Any) -> RoundOpened:
    """Both entities are asked."""
    part = tuple(Participant(entity=each, weight=1, position=4) for each in (NORTH, SOUTH))
    fields: dict[str, Any] = {
        "stage": stage,
        "round": round,
        "base": model(version),
        "teacher": None,
    }
    fields |= {"learning_rate": 0.5, "participants": part}
    return RoundOpened(run=RUN, number=number, **(fields | changes))


def closing(number: int, stage: int, round: int, version: int, **changes: Any) -> RoundClosed:
    """Both answers were counted."""
    fields: dict[str, Any] = {
        "opened": number - 1,
        "stage": stage,
        "round": round,
        "model": model(version),
    }
    fields |= {"counted": ((NORTH, "a" * 64), (SOUTH, "b" * 64)), "withheld": ()}
    return RoundClosed(run=RUN, number=number, **(fields | changes))


def end(number: int, stage: int, *versions: int, **changes: Any) -> StageClosed:
    """The rounds' models are candidates."""
    models = tuple(map(model, versions))
    fields: dict[str, Any] = {"stage": stage, "candidates": models, "last": models[-1]}
    return StageClosed(run=RUN, number=number, **(fields | changes))


def addition(number: int, *looks: tuple[str, int]) -> StageAdded:
    """Look at so many images of a burst, too."""
    return StageAdded(
        run=RUN,
        number=number,
        looks=tuple(Look(entity=each, source="burst", count=count) for each, count in looks),
    )


HONEST: tuple[Decision, ...] = (
    FIRST,
    growth(1, 0, 1),
    opening(2, 0, 0, 1),
    closing(3, 0, 0, 2),
    opening(4, 0, 1, 2),
    closing(5, 0, 1, 3),
    end(6, 0, 2, 3),
    growth(7, 1, 4),
    opening(8, 1, 0, 4, teacher=model(2)),
    closing(9, 1, 0, 5),
    opening(10, 1, 1, 5, teacher=model(2)),
    closing(11, 1, 1, 6),
    end(12, 1, 5, 6),
)
"""A whole run."""
LAST = len(HONEST) - 1


def chosen(number: int = 0, version: int = 2, **changes: Any) -> TeacherChosen:
    """A teacher for the stage behind `number`."""
    fields: dict[str, Any] = {
        "stage": number + 1,
        "teacher": model(version),
        "scores": ((2, 0.5), (3, 0.25)),
    }
    fields |= {"run": RUN, "number": number, "used": (), "withheld": ()}
    return TeacherChosen(**(fields | changes))


def joined(entity: str = NORTH, **changes: Any) -> EntityJoined:
    """An entity's line begins."""
    fields: dict[str, Any] = {"run": RUN, "number": 0, "entity": entity}
    return EntityJoined(**(fields | changes))


def verdict(
    number: int, stage: int, version: int, entity: str = NORTH, **changes: Any
) -> WindowJudged:
    """Both classes of the stage are new to the entity."""
    uids = (str(2 * stage), str(2 * stage + 1))
    fields: dict[str, Any] = {
        "stage": stage,
        "position": 4,
        "model": model(version),
        "images": dict.fromkeys(uids, 2),
    }
    fields |= {"trainable": 4, "entropy": 1.0, "reference": None, "threshold": 1.2, "reason": None}
    fields |= {"first_contact": stage == 0, "verdict": "new", "classes": uids}
    return WindowJudged(run=RUN, number=number, entity=entity, **(fields | changes))


def read(decisions: Sequence[Decision], line: RoundsLine | None = None) -> RoundsLine:
    """A reader of `rounds`, to whom all of these are decisions that count."""
    line = line or RoundsLine()
    for decision in decisions:
        assert line.hear(decision, pack(decision).hash)
    return line
