"""What counts in the lines of a live run, and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from schemas.codec import pack
from schemas.errors import Refused
from schemas.line import NotYet, RoundsLine
from schemas.messages import (
    Asked,
    Before,
    Decision,
    EntityJoined,
    EntityLeft,
    HeadGrown,
    Look,
    Member,
    ModelName,
    Participant,
    Paused,
    RolledBack,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    StageOpened,
    Standing,
    Taken,
    WindowJudged,
)
from schemas.schedule import Schedule
from schemas.verdicts import VerdictLine
from tests.schemas.specimens import NORTH, SOUTH, facts, model, opened, recipe

FIRST = RunOpened(
    run="",
    number=0,
    configuration=recipe(live=True, lr_schedule="constant", quorum=2),
    data=facts(),
    schedule=Schedule(stages=()),
    sites=("local", "north", "south"),
    model=model(0),
)
RUN = pack(FIRST).hash
BOTH = (NORTH, SOUTH)


def begins(
    number: int, stage: int = 0, found: Sequence[tuple[str, int]] = ((NORTH, 0),)
) -> Decision:
    """A stage begins with what these found."""
    return StageOpened(run=RUN, number=number, stage=stage, found=tuple(found))


def grows(number: int, stage: int = 0, version: int = 1, first: int = 0) -> Decision:
    """Two classes get rows."""
    rows = {str(first): first, str(first + 1): first + 1}
    return HeadGrown(
        run=RUN, number=number, stage=stage, rows=rows, prototypes=(), model=model(version)
    )


def opens(number: int, stage: int, round: int, version: int, who: Sequence[str] = BOTH) -> Decision:
    """These are asked."""
    return RoundOpened(
        run=RUN, number=number, stage=stage, round=round, base=model(version), teacher=None,
        learning_rate=0.5,
        participants=tuple(Participant(entity=each, weight=1, position=4) for each in who),
    )  # fmt: skip


def closes(number: int, stage: int, round: int, version: int, **changes: Any) -> Decision:
    """Both have answered."""
    fields: dict[str, Any] = {
        "opened": number - 1,
        "stage": stage,
        "round": round,
        "counted": tuple((each, "c" * 64) for each in BOTH),
        "withheld": (),
        "model": model(version),
    }
    return RoundClosed(run=RUN, number=number, **(fields | changes))


def ends(number: int, stage: int, version: int) -> Decision:
    """The stage's last model is its only candidate."""
    last = model(version)
    return StageClosed(run=RUN, number=number, stage=stage, candidates=(last,), last=last)


def rests(number: int, entity: str | None = None, rests: bool = True) -> Decision:
    """An operator's word."""
    return Paused(run=RUN, number=number, entity=entity, rests=rests)


def line(*decisions: Decision) -> RoundsLine:
    """A line of these, all of which count."""
    read = RoundsLine()
    read.hear(FIRST, RUN)
    for decision in decisions:
        assert read.hear(decision, "")
    return read


STAGE = (begins(1), grows(2), opens(3, 0, 0, 1), closes(4, 0, 0, 2))


def test_a_stage_has_as_many_rounds_as_it_takes_and_the_run_does_not_end() -> None:
    """Five rounds where a recipe would have two; another stage follows, and another might."""
    more = [each for i in range(1, 5) for each in (opens(3 + 2 * i, 0, i, 1 + i),
                                                   closes(4 + 2 * i, 0, i, 2 + i))]  # fmt: skip
    read = line(*STAGE, *more, ends(13, 0, 6), begins(14, 1, [(SOUTH, 3)]))

    assert len(read.stages[0].rounds) == 5
    assert not read.over
    assert read.total_stages == 3
    assert (read.marked(0), read.marked(1), read.marked(2)) == ((NORTH,), (SOUTH,), ())
    assert (read.moment(SOUTH, 1), read.moment(SOUTH, 0)) == (3, None)


@pytest.mark.parametrize(
    ("before", "decision", "why"),
    [
        (STAGE, begins(5, 1), "another stage is not closed"),
        ((*STAGE, ends(5, 0, 2)), begins(6, 2), "another stage is not closed"),
        ((), begins(1, 0, [(NORTH, 0), (NORTH, 1)]), "an entity is named twice"),
        ((), begins(1, 0, [("elsewhere/north", 0)]), "an entity is not known"),
        ((*STAGE, ends(5, 0, 2)), begins(6, 1), "a moment is taken up twice"),
        ((), grows(1), "another stage is not closed"),
        (STAGE[:2], grows(3, 0, 2, 2), "another stage is not closed"),
        (STAGE, grows(5, 0, 3, 2), "another stage is not closed"),
        ((), opens(1, 0, 0, 0), "not the stage at hand"),
        (STAGE[:2], opens(3, 0, 0, 1, [NORTH]), "fewer than the quorum"),
        (STAGE[:2], opens(3, 0, 0, 1, [NORTH, "elsewhere/south"]), "an entity is not known"),
        (STAGE[:3], closes(4, 0, 0, 2, missing=(SOUTH,)), "not the round's participants"),
        (
            STAGE[:3],
            closes(4, 0, 0, 2, counted=((NORTH, "c" * 64),), missing=(SOUTH,)),
            "counts fewer than the quorum",
        ),
        (STAGE, rests(5, rests=False), "changes nothing"),
        (STAGE, rests(5, NORTH, rests=False), "changes nothing"),
        (STAGE, rests(5, "elsewhere/north"), "elsewhere/north is not known"),
        (
            STAGE,
            StageAdded(run=RUN, number=5, looks=(Look(entity=NORTH, source="x", count=1),)),
            "StageAdded cannot stand here",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    before: Sequence[Decision], decision: Decision, why: str
) -> None:
    """The reason tells which rule it breaks, and the line stands as it was."""
    read = line(*before)
    with pytest.raises(Refused, match=why):
        read.hear(decision, "")
    assert read.number == len(before)


def test_a_round_that_missed_somebody_and_one_that_counts_nobody() -> None:
    """Three are asked and two answer; then one answers, and the model stays as it is."""
    third = "local/west"
    read = line(
        *STAGE[:2],
        opens(3, 0, 0, 1, [*BOTH, third]),
        closes(4, 0, 0, 2, missing=(third,)),
        opens(5, 0, 1, 2),
        closes(6, 0, 1, 2, counted=(), withheld=((NORTH, "fewer"),), missing=(SOUTH,)),
    )

    assert read.model == model(2)
    assert read.away(third, 3)
    assert not read.away(third, 4)
    assert read.away(SOUTH, 4)
    assert not read.away(NORTH, 0)


def test_a_stage_that_no_round_opened_may_close() -> None:
    """Its twins are gone; what others have found meanwhile may grow."""
    read = line(begins(1), grows(2), ends(3, 0, 1), begins(4, 1, [(SOUTH, 0)]))
    assert len(read.stages) == 2


def test_only_a_live_run_has_such_decisions() -> None:
    """A recipe's schedule says when its stages begin, and it waits for everyone."""
    first = opened()
    read = RoundsLine()
    read.hear(first, pack(first).hash)
    for decision in (begins(1), rests(1)):
        with pytest.raises(Refused, match="cannot stand here"):
            read.hear(decision.model_copy(update={"run": pack(first).hash}), "")


def test_a_live_run_names_its_sites_and_has_no_schedule() -> None:
    """And the other way round."""
    told = FIRST.model_dump() | {"configuration": FIRST.configuration, "data": FIRST.data}
    with pytest.raises(ValueError, match="names its sites"):
        RunOpened.model_validate(
            told | {"sites": (), "schedule": FIRST.schedule, "model": model(0)}
        )
    with pytest.raises(ValueError, match="names sites"):
        RunOpened.model_validate({**_fields(opened()), "sites": ("local",)})
    with pytest.raises(ValueError, match="schedule of 2 stages"):
        RunOpened.model_validate({**_fields(FIRST), "schedule": opened().schedule})
    assert FIRST.all_sites == ["local", "north", "south"]
    assert opened().all_sites == ["local"]


def _fields(decision: RunOpened) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in RunOpened.model_fields}


# --- an entity's line -----------------------------------------------------------------------------


def judged(
    number: int, moment: int, after: int | None, version: int, **changes: Any
) -> WindowJudged:
    """A verdict of a live twin: nothing new unless told otherwise."""
    fields: dict[str, Any] = {
        "position": 10 * (moment + 1),
        "images": {"0": 10},
        "trainable": 10,
        "entropy": None,
        "reference": None,
        "threshold": 0.5,
        "first_contact": False,
        "reason": "none was taken",
        "verdict": "known",
        "classes": (),
    }
    return WindowJudged(
        run=RUN, number=number, entity=NORTH, stage=moment, after=after, model=model(version),
        **(fields | changes),
    )  # fmt: skip


NEW: dict[str, Any] = {"verdict": "new", "classes": ("0", "1")}
JOINED = EntityJoined(run=RUN, number=0, entity=NORTH)


def entity(rounds: RoundsLine, *decisions: Decision) -> VerdictLine:
    """The line of the north, all of which counts."""
    own = VerdictLine(NORTH, rounds)
    for decision in decisions:
        own.take(decision)
    return own


def test_a_twin_is_judged_as_often_as_there_is_reason_and_may_leave_and_come_back() -> None:
    """Moments count up, leaving or not."""
    own = entity(
        line(*STAGE),
        JOINED,
        judged(1, 0, 0, 0, **NEW),
        EntityLeft(run=RUN, number=2, entity=NORTH),
    )
    assert not own.here
    with pytest.raises(Refused, match="has not joined"):
        own.take(judged(3, 1, 4, 2))
    own.take(EntityJoined(run=RUN, number=3, entity=NORTH))
    own.take(judged(4, 1, 4, 2))
    assert own.here
    assert own.known == ("0", "1")
    assert own.pending is None


def test_as_many_classes_as_there_are_rows_can_be_announced_and_grow() -> None:
    """Four that were agreed on, and four others; a fifth one is no growth that a reader takes."""
    more = {"2": 2, "3": 3, **{uid: 4 + i for i, uid in enumerate("abcd")}}
    own = entity(line(*STAGE), JOINED, judged(1, 0, 0, 0, **NEW))
    own.take(judged(2, 1, 4, 2, verdict="new", classes=tuple(more)))
    assert own.known == tuple("0123abcd")

    grown = HeadGrown(run=RUN, number=7, stage=1, rows=more, prototypes=(), model=model(3))
    read = line(*STAGE, ends(5, 0, 2), begins(6, 1, [(NORTH, 1)]))
    fifth = grown.model_copy(
        update={"rows": {"2": 2, **{uid: 3 + i for i, uid in enumerate("abcde")}}}
    )
    with pytest.raises(Refused, match="6 classes where 5 have room: there are rows for 8"):
        read.hear(fifth, "")
    assert read.hear(grown, "")
    assert len(read.rows) == 8


def test_what_it_found_is_pending_until_a_stage_takes_it_up() -> None:
    """And it is armed again by the first round that closes behind that."""
    own = entity(line(), JOINED, judged(1, 0, 0, 0, **NEW))
    assert own.pending == 0
    assert not own.armed(0)

    own = entity(line(*STAGE), JOINED, judged(1, 0, 0, 0, **NEW))
    assert own.pending is None
    assert not own.armed(3)
    assert own.armed(4)


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (judged(2, 1, None, 2), "names no decision"),
        (judged(2, 2, 4, 2), "moment 2, 1 is next"),
        (judged(2, 1, 3, 1), "while what it found before has no row"),
        (judged(2, 1, 4, 1), "judged by version 1"),
        (judged(2, 1, 4, 2, position=9), "looks less far than before"),
        (judged(2, 1, 4, 2, **NEW), "a class is announced twice"),
        (
            judged(2, 1, 4, 2, verdict="new", classes=tuple("23abcde")),
            "out-of-range: announces 7 classes beside 2, where 6 have room: there are rows for 8"
            " classes, 4 of them for other than the 4 that were agreed on",
        ),
        (
            judged(2, 1, 4, 2, images={f"label-{i}": 1 for i in range(4097)}),
            "out-of-range: counts images of 4097 classes, of 4096 at most",
        ),
    ],
)
def test_a_moment_that_does_not_fit_is_refused(verdict: WindowJudged, why: str) -> None:
    """By its own line, and by the decisions that it names."""
    own = entity(line(*STAGE), JOINED, judged(1, 0, 0, 0, **NEW))
    with pytest.raises(Refused, match=why):
        own.take(verdict)


def test_who_was_missed_may_say_that_it_is_there_whatever_else_waits() -> None:
    """A moment without images judges nothing, so nothing has to be armed for it."""
    own = entity(line(*STAGE[:2]), JOINED, judged(1, 0, 0, 0, **NEW))
    own.take(judged(2, 1, 2, 1, images={}, position=10))
    assert own.judged == 1


def test_a_verdict_waits_for_the_decision_that_it_names() -> None:
    """Its author had read further than we have."""
    own = entity(line(), JOINED)
    with pytest.raises(NotYet, match="decision 4"):
        own.take(judged(1, 0, 4, 2, **NEW))


def test_a_recipes_verdict_names_no_decision() -> None:
    """It is about a stage."""
    first = opened()
    read = RoundsLine()
    read.hear(first, pack(first).hash)
    run = {"run": pack(first).hash}
    own = entity(read, JOINED.model_copy(update=run))
    with pytest.raises(Refused, match="a recipe's verdict"):
        own.take(judged(1, 0, 0, 0, **NEW).model_copy(update=run))
    with pytest.raises(Refused, match="cannot leave"):
        own.take(EntityLeft(**run, number=1, entity=NORTH))


# --- going back -----------------------------------------------------------------------------------


def goes_back(number: int, to: int, version: int, closes: int | None = None) -> Decision:
    """An operator's word: that version's values again."""
    return RolledBack(run=RUN, number=number, to=model(to), closes=closes, model=model(version))


def test_an_operator_goes_back_between_two_rounds() -> None:
    """The next round begins on that model, and the stage may end with it."""
    read = line(*STAGE, goes_back(5, 1, 3))

    assert read.model == model(3)
    assert read.stages[0].models == [model(2), model(3)]
    read.hear(opens(6, 0, 1, 3), "")
    read.hear(closes(7, 0, 1, 4), "")
    assert read.hear(ends(8, 0, 4), "")


def test_a_round_that_is_open_ends_uncounted() -> None:
    """Its number is closed, nobody is missed, and the same round is not opened again."""
    read = line(*STAGE, opens(5, 0, 1, 2), goes_back(6, 1, 3, closes=5))

    assert read.open_round is None
    assert read.stages[0].rounds[1].closed is None
    assert not read.away(NORTH, 0)
    with pytest.raises(Refused, match="closes no open round"):
        read.hear(closes(7, 0, 1, 4, opened=5), "")
    assert read.hear(opens(7, 0, 2, 3), "")


def test_a_stage_whose_only_round_was_dropped_may_close() -> None:
    """Its one candidate is the model that took the place."""
    read = line(*STAGE[:3], goes_back(4, 0, 2, closes=3))

    assert read.stages[0].models == [model(2)]
    assert read.hear(ends(5, 0, 2), "")


def test_it_is_known_which_model_judged_also_behind_a_rollback() -> None:
    """Version 3 from decision 5 on."""
    read = line(*STAGE, goes_back(5, 1, 3))

    assert [read.model_after(number).version for number in (3, 4, 5)] == [1, 2, 3]
    assert read.named(2) == model(2)
    assert read.named(9) is None


@pytest.mark.parametrize(
    ("before", "decision", "why"),
    [
        (STAGE, goes_back(5, 2, 3), "no earlier model"),
        (STAGE, goes_back(5, 7, 3), "no earlier model"),
        (
            STAGE,
            RolledBack(
                run=RUN, number=5, closes=None, model=model(3),
                to=ModelName(version=1, sha256="e" * 64),
            ),
            "no earlier model",
        ),
        (STAGE, goes_back(5, 1, 4), "not the next version"),
        (STAGE, goes_back(5, 1, 3, closes=3), "not the round that is open"),
        (STAGE[:3], goes_back(4, 0, 2), "not the round that is open"),
    ],
)  # fmt: skip
def test_a_rollback_that_does_not_fit_is_refused(
    before: Sequence[Decision], decision: Decision, why: str
) -> None:
    """It names a model that was, by hash, the next version, and the round that it ends."""
    read = line(*before)
    with pytest.raises(Refused, match=why):
        read.hear(decision, "")
    assert read.number == len(before)


def test_of_two_operators_the_first_counts() -> None:
    """Both read up to decision 4; the second's word has a number that is taken."""
    read = line(*STAGE, goes_back(5, 1, 3))

    assert not read.hear(goes_back(5, 0, 3), "")
    assert read.decisions[5] == goes_back(5, 1, 3)


# --- how it stands --------------------------------------------------------------------------------


def stands(number: int, **changes: Any) -> Decision:
    """Behind the first stage, which began with what the north had found and asked both."""
    asked = Asked(opened=3, stage=0, base=model(1), position=4)
    south = Member(
        entity=SOUTH, number=0, here=True, moments=0, classes=(), verdicts=(), seen=None,
        taken=None, armed=None, missed=None, asked=(asked,), counted=(4, "c" * 64),
    )  # fmt: skip
    taken = Taken(stage=0, opened=1, moment=0)
    north = south.model_copy(
        update={"entity": NORTH, "number": 1, "moments": 1, "classes": ("0", "1"), "taken": taken,
                "armed": 4}
    )  # fmt: skip
    fields: dict[str, Any] = line(*STAGE, ends(5, 0, 2)).told() | {
        "members": (north, south),
        "teachers": (),
        "kept": (model(1), model(2)),
    }
    changed = {key: changes.pop(key) for key in Member.model_fields if key in changes}
    members = {"members": (north.model_copy(update=changed), south)} if changed else {}
    return Standing(run=RUN, number=number, **(fields | members | changes))


def test_how_it_stands_is_what_the_line_says() -> None:
    """Behind the stage's end; nothing changes but its number."""
    read = line(*STAGE, ends(5, 0, 2), stands(6))

    assert read.stood == 6
    assert read.model == model(2)
    assert read.hear(begins(7, 1, [(SOUTH, 0)]), "")


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (stands(6, stages=2), "not how the line stands"),
        (stands(6, rows={"0": 0}), "not how the line stands"),
        (stands(6, stage_of_row=(0, 1)), "not how the line stands"),
        (stands(6, model=model(1)), "not how the line stands"),
        (stands(6, newest=()), "not how the line stands: newest"),
        (stands(6, before=Before(number=3, hash=RUN)), "not how the line stands: before"),
        (stands(6, everybody_rests=True), "not who rests"),
        (stands(6, resting=(NORTH,)), "not who rests"),
        (stands(6, members=()), "lacks an entity"),
        (stands(6, missed=4), "not how local/north stands"),
        (stands(6, armed=None), "not how local/north stands"),
        (stands(6, taken=None), "not how local/north stands"),
        (stands(6, asked=()), "not how local/north stands"),
        (stands(6, counted=(4, "d" * 64)), "not how local/north stands"),
    ],
)
def test_what_is_told_otherwise_than_it_stands_is_refused(told: Decision, why: str) -> None:
    """As far as the line itself can say."""
    read = line(*STAGE, ends(5, 0, 2))
    with pytest.raises(Refused, match=why):
        read.hear(told, "")
    assert read.stood == 0


def test_it_is_not_told_while_a_round_is_open() -> None:
    """Sums that have begun are no part of it."""
    read = line(*STAGE[:3])
    with pytest.raises(Refused, match="a round is open"):
        read.hear(stands(4, model=model(1)), "")


def test_an_entity_is_told_of_as_it_stood_behind_each_of_its_decisions() -> None:
    """It joined, was judged, and left."""
    own = entity(
        line(*STAGE), JOINED, judged(1, 0, 0, 0, **NEW), EntityLeft(run=RUN, number=2, entity=NORTH)
    )

    def told(number: int) -> tuple[object, ...]:
        says = own.stood(number)
        return tuple(says[key] for key in ("number", "here", "moments", "classes", "verdicts"))

    verdict = own.verdicts[0]
    assert told(0) == (0, True, 0, (), ())
    assert told(1) == (1, True, 1, ("0", "1"), (verdict,))
    assert told(2) == (2, False, 1, ("0", "1"), (verdict,))
    with pytest.raises(LookupError):
        own.stood(3)
