"""What a run still needs, and how a live one stands: the fold of its lines, in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.line import RoundsLine, Stage
from schemas.messages import Member, ModelName, Standing, TeacherChosen
from schemas.verdicts import VerdictLines

EVERY = 1000
"""Decisions behind the last Standing, after which another is due."""
NEWEST = 50
"""Models of a live stage that are kept and may teach: it may have rounds for months."""


def is_due(line: RoundsLine) -> bool:
    """Whether a live run's next decision tells how it stands: a stage is over, or much happened."""
    stage = line.stage
    if stage is None or line.open_round is not None:
        return False
    ended = stage.closed is not None and stage.closed.number > line.stood
    return ended or line.number - line.stood >= EVERY


def reached(verdicts: VerdictLines) -> dict[str, int]:
    """Entity → number reached in its line."""
    return {entity: line.number for entity, line in verdicts.of.items() if line.number >= 0}


def standing(
    line: RoundsLine,
    verdicts: VerdictLines,
    chosen: Sequence[TeacherChosen],
    upto: Mapping[str, int],
) -> Standing:
    """How a live run stands, its entities' lines read up to these numbers.

    Raises LookupError for a number that is not reached.
    """
    assert line.model is not None
    return Standing(
        run=line.run,
        number=line.number + 1,
        stages=len(line.stages),
        rows=line.rows,
        stage_of_row=line.stage_of_row,
        everybody_rests=line.all_rest,
        members=tuple(
            Member.model_validate({"entity": e, **verdicts.line(e).stood(number), **line.member(e)})
            for e, number in sorted(upto.items())
        ),
        teachers=len(chosen),
        model=line.model,
        kept=tuple(sorted(kept_models(line, chosen), key=lambda each: each.version)),
    )


def newest_models(line: RoundsLine, stage: Stage) -> list[ModelName]:
    """The models of a stage; of a live run the newest."""
    return stage.models[-NEWEST:] if line.live else stage.models


def kept_models(line: RoundsLine, chosen: Sequence[TeacherChosen]) -> set[ModelName]:
    """Versions of this stage and the one before, of every earlier one the best and the last.

    Of a live run's stage the newest, and the first, by whose features prototypes are chosen.

    The stage before is kept whole so that whoever reports on a run never comes too late.
    """
    assert line.opened is not None
    kept = {line.model} if line.model else set()
    for stage in line.stages:
        if stage.index >= len(line.stages) - 2:
            kept |= {stage.grown.model} if stage.grown else set()
            kept |= {*newest_models(line, stage), *stage.models[:1]}
            kept |= {each.opened.base for each in stage.rounds[-NEWEST if line.live else 0 :]}
        if stage.closed:
            kept.add(stage.closed.last)
    if line.opened.configuration.slotted:
        return kept | _kept_for_slots(line, chosen)
    return kept | {choice.teacher for choice in chosen}


def _kept_for_slots(line: RoundsLine, chosen: Sequence[TeacherChosen]) -> set[ModelName]:
    """What taught first in each stage; what the newest slots name; and each stage's last base,
    which the next one's signal of a twin that moves on late is compared with."""
    first = {choice.teacher for choice in chosen if choice.round == 0}
    named = chosen[-1].slots if chosen else None
    bases = {each.rounds[-1].opened.base for each in line.stages if each.rounds}
    return first | bases | {model for model in named or () if model}
