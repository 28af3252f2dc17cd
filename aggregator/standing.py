"""What a run still needs, and how a live one stands: the fold of its lines, in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.line import RoundsLine
from schemas.messages import Member, ModelName, Standing, TeacherChosen
from schemas.stages import Stage
from schemas.verdicts import VerdictLines

EVERY = 1000
"""Decisions behind the last Standing, after which another is due."""


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
        **line.told(),
        members=tuple(
            Member.model_validate({"entity": e, **verdicts.line(e).stood(number)})
            for e, number in sorted(upto.items())
        ),
        teachers=tuple(choice.teacher for choice in chosen),
        kept=tuple(sorted(kept_models(line, chosen), key=lambda each: each.version)),
    )


def newest_models(line: RoundsLine, stage: Stage) -> list[ModelName]:
    """The models of a stage; of a live run the newest."""
    return stage.newest if line.live else stage.models


def kept_models(line: RoundsLine, chosen: Sequence[TeacherChosen]) -> set[ModelName]:
    """Versions of this stage and the one before, of every earlier one the best and the last.

    Of a live run's stage the newest, and the first, by whose features prototypes are chosen.

    The stage before is kept whole so that whoever reports on a run never comes too late.
    """
    assert line.opened is not None
    kept = {line.model} if line.model else set()
    for stage in line.stages[-2:]:
        kept |= {stage.grown.model} if stage.grown else set()
        kept |= {stage.base} if stage.base else set()
        kept |= _of_live(stage) if line.live else _of(stage)
    kept |= {*line.lasts}
    if line.opened.configuration.slotted:
        return kept | _kept_for_slots(line, chosen)
    return kept | {choice.teacher for choice in chosen}


def _of(stage: Stage) -> set[ModelName]:
    return {*stage.models, *(each.opened.base for each in stage.rounds)}


def _of_live(stage: Stage) -> set[ModelName]:
    return {*stage.models[:1], *stage.newest}


def _kept_for_slots(line: RoundsLine, chosen: Sequence[TeacherChosen]) -> set[ModelName]:
    """What taught first in each stage; what the newest slots name; and each stage's last base,
    which the next one's signal of a twin that moves on late is compared with."""
    first = {choice.teacher for choice in chosen if choice.round == 0}
    named = chosen[-1].slots if chosen else None
    bases = {each.rounds[-1].opened.base for each in line.stages if each.rounds}
    return first | bases | {model for model in named or () if model}
