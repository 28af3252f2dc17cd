"""Decision lines: races, junk under honest ids, and messages that come before what they rest on.

The run of these stories has two entities, two stages of two classes, and two rounds a stage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import line as line_of
from schemas.codec import pack
from schemas.errors import Refused
from schemas.limits import MOST_ADDED
from schemas.line import NotYet, RoundsLine
from schemas.messages import (
    Decision,
    EntityJoined,
    Look,
    NotUnderstood,
    Participant,
    TeacherChosen,
    WindowJudged,
)
from schemas.teachers import TeachersLine
from schemas.verdicts import VerdictLine, VerdictLines
from tests.schemas.decisions import (
    FIRST,
    HONEST,
    LAST,
    OTHER_RUN,
    RUN,
    addition,
    chosen,
    closing,
    end,
    growth,
    joined,
    opening,
    read,
    verdict,
)
from tests.schemas.specimens import NORTH, SOUTH, model, opened


def refusal(line: RoundsLine, decision: Decision) -> str:
    """Why a decision with the next number does not fit; the line is as it was."""
    before, stages = dict(line.decisions), repr(line.stages)
    with pytest.raises(Refused) as caught:
        line.hear(decision, pack(decision).hash)
    assert (line.decisions, repr(line.stages), line.number) == (before, stages, len(before) - 1)
    return str(caught.value)


# --- rounds: what it says -------------------------------------------------------------------------


def test_a_line_tells_where_the_run_stands() -> None:
    """Before the run, with a round open, between two stages, and at its end."""
    line = RoundsLine()
    assert (line.number, line.total_stages, line.stage, line.over) == (-1, 0, None, False)
    assert (line.judges(0), line.open_round, line.entities) == (None, None, ())

    read(HONEST[:3], line)
    assert line.run == RUN
    assert line.open_round == HONEST[2]
    assert line.judges(0) == model(0)
    assert line.judges(1) is None
    assert line.expected(0) == ((NORTH, 0, "0"), (NORTH, 1, "1"))
    assert line.expected(1) == ()

    read(HONEST[3:7], line)
    assert line.open_round is None
    assert not line.over
    assert line.judges(1) == model(3)
    assert line.closed(0) == HONEST[6]
    before = line.stage_of_row
    assert (line.rows, before) == ({"0": 0, "1": 1}, (0, 0))

    read(HONEST[7:], line)
    assert line.over
    assert line.model == model(6)
    assert (line.entities, line.marked(1)) == ((NORTH, SOUTH), (NORTH, SOUTH))
    assert line.stage_of_row == (0, 0, 1, 1)
    assert before == (0, 0)  # what waits for a worker was told of the rows of its own model


def test_a_stage_in_which_nobody_found_anything_new_opens_without_growth() -> None:
    """Its first round begins it, and it expects no prototypes."""
    line = read((FIRST, opening(1, 0, 0, 0)))

    assert line.stage is not None
    assert (line.stage.index, line.stage.grown) == (0, None)
    assert line.expected(0) == ()


def test_a_round_that_nobody_could_answer_keeps_the_model() -> None:
    """Then no version is used up; a model of the next version would be nobody's."""
    nobody = {"counted": (), "withheld": ((NORTH, "diverged"), (SOUTH, "diverged"))}

    assert "not the next version" in refusal(read(HONEST[:3]), closing(3, 0, 0, 2, **nobody))
    assert read((*HONEST[:3], closing(3, 0, 0, 1, **nobody))).model == model(1)


# --- rounds: races and junk -----------------------------------------------------------------------


def test_of_two_who_decide_number_n_the_first_counts_for_everyone() -> None:
    """The second author reads on, finds its number taken, and decides anew."""
    ours, theirs = opening(2, 0, 0, 1), opening(2, 0, 0, 1, learning_rate=0.25)

    line = read(HONEST[:2])
    assert line.hear(ours, pack(ours).hash)
    assert not line.hear(theirs, pack(theirs).hash)
    assert line.open_round == ours
    assert line.number == 2

    line = read(HONEST[:2])
    assert line.hear(theirs, pack(theirs).hash)
    assert not line.hear(ours, pack(ours).hash)
    assert line.open_round == theirs


def test_a_repeat_is_passed_over_in_silence() -> None:
    """A sender whose connection broke sends everything again from there."""
    line = read(HONEST[:5])

    assert not any(line.hear(each, pack(each).hash) for each in HONEST[:5])
    assert line.number == 4


def test_what_is_ahead_of_the_line_is_passed_over() -> None:
    """Its author had read what others have not: it will be there again, or it was never decided."""
    line = read(HONEST[:2])

    assert not line.hear(HONEST[3], "")
    assert line.number == 1


@pytest.mark.parametrize(
    ("upto", "junk", "why"),
    [
        (0, growth(0, 0, 1), "the first decision is not RunOpened"),
        (1, opened().model_copy(update={"run": RUN, "number": 1}), "RunOpened cannot stand here"),
        (1, chosen(1), "TeacherChosen cannot stand here"),
        (1, growth(1, 0, 1).model_copy(update={"run": OTHER_RUN}), "is of another run"),
        (1, growth(1, 1, 1), "another stage is not closed"),
        (2, growth(2, 0, 2), "another stage is not closed"),
        (1, growth(1, 0, 1, rows={}, prototypes=()), "no class grows"),
        (1, growth(1, 0, 1, rows={"0": 1, "1": 2}), "rows are not the next"),
        (1, growth(1, 0, 1, rows={"0": 0, "1": 0}), "rows are not the next"),
        (7, growth(7, 1, 4, rows={"0": 2, "3": 3}), "rows are not the next"),
        (1, growth(1, 0, 2), "not the next version"),
        (1, growth(1, 0, 1, prototypes=((NORTH, ("2",)),)), "prototypes of others"),
        (1, growth(1, 0, 1, prototypes=((NORTH, ("0", "0")),)), "prototypes of others"),
        (1, growth(1, 0, 1, prototypes=((NORTH, ("0",)), (NORTH, ("1",)))), "prototypes of others"),
        (1, growth(1, 0, 1, prototypes=(("local/west", ("0",)),)), "prototypes of others"),
        (2, opening(2, 0, 0, 0), "not on the newest model"),
        (2, opening(2, 0, 1, 1), "not the next round"),
        (1, opening(1, 0, 1, 0), "a stage begins with round 0"),
        (2, opening(2, 1, 0, 1), "not the stage at hand"),
        (1, opening(1, 1, 0, 0), "not the stage at hand"),
        (13, opening(13, 2, 0, 6), "not the stage at hand"),
        (7, opening(7, 0, 2, 3), "not the stage at hand"),
        (6, opening(6, 0, 2, 3), "not the next round"),
        (3, opening(3, 0, 1, 1), "a round is open"),
        (
            2,
            opening(
                2, 0, 0, 1, participants=(Participant(entity="local/west", weight=1, position=0),)
            ),
            "an entity is not known",
        ),
        (
            2,
            opening(
                2, 0, 0, 1, participants=(Participant(entity=NORTH, weight=1, position=0),) * 2
            ),
            "an entity takes part twice",
        ),
        (2, closing(2, 0, 0, 2), "closes no open round"),
        (3, closing(3, 0, 0, 2, opened=1), "closes no open round"),
        (3, closing(3, 0, 1, 2), "another stage or round"),
        (3, closing(3, 1, 0, 2), "another stage or round"),
        (3, closing(3, 0, 0, 3), "not the next version"),
        (3, closing(3, 0, 0, 2, counted=((NORTH, "a" * 64),)), "not the round's participants"),
        (3, closing(3, 0, 0, 2, withheld=((SOUTH, "also"),)), "not the round's participants"),
        (1, end(1, 0, 0), "its rounds are not over"),
        (4, end(4, 0, 2), "its rounds are not over"),
        (5, end(5, 0, 2), "its rounds are not over"),
        (6, end(6, 1, 2, 3), "its rounds are not over"),
        (7, end(7, 0, 2, 3), "its rounds are not over"),
        (6, end(6, 0, 1, 3), "not its models"),
        (6, end(6, 0, 3, 2), "not its models"),
        (6, addition(6, ("local/west", 4)), "local/west is not known"),
    ],
)
def test_junk_under_an_honest_number_is_refused_and_takes_no_number(
    upto: int, junk: Decision, why: str
) -> None:
    """The decision that fits is still to come, and counts when it does."""
    line = read(HONEST[:upto])

    assert refusal(line, junk).startswith("out-of-line: ")
    assert why in refusal(line, junk)
    read(HONEST[upto:], line)
    assert line.over


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, LAST), st.integers(0, 14)), max_size=60)
)
def test_no_noise_diverts_a_reader(noise: list[tuple[int, int, int]]) -> None:
    """Copies of any decision under any number, anywhere between the honest ones."""
    topic = list(HONEST)
    for place, what, number in noise:
        copy = HONEST[what].model_copy(update={"number": number})
        topic.insert(min(place, len(topic)), copy)

    line = RoundsLine()
    for decision in topic:
        with suppress(Refused):
            line.hear(decision, RUN if decision.number == 0 else "")

    assert tuple(line.decisions.values()) == HONEST
    assert line.over


# --- stages that are added ------------------------------------------------------------------------


def test_two_injections_that_are_pending_are_one_stage() -> None:
    """Into different entities; the run goes on with stage 2, which waits for both."""
    line = read((*HONEST, addition(13, (NORTH, 8)), addition(14, (SOUTH, 4))))

    assert not line.over
    assert line.total_stages == 3
    assert line.marked(2) == (NORTH, SOUTH)
    assert (line.next_marked(NORTH, 1), line.next_marked(NORTH, 2)) == (2, None)
    assert line.added[0][NORTH] == Look(entity=NORTH, source="burst", count=8)
    assert read((opening(15, 2, 0, 6),), line).open_round is not None


def test_a_second_injection_into_one_entity_is_the_stage_after() -> None:
    """Its twin may have judged the first already, and judges a stage once."""
    line = read((*HONEST, addition(13, (NORTH, 8)), addition(14, (NORTH, 12), (SOUTH, 4))))

    assert line.total_stages == 4
    assert line.marked(2) == (NORTH, SOUTH)
    assert line.marked(3) == (NORTH,)
    assert line.marked(4) == ()


def test_a_stage_that_has_begun_takes_no_more_in() -> None:
    """What is injected while it trains is the next one."""
    begun = (*HONEST, addition(13, (NORTH, 8)), opening(14, 2, 0, 6))

    line = read((*begun, addition(15, (SOUTH, 4)), closing(16, 2, 0, 7, opened=14)))

    assert line.marked(2) == (NORTH,)
    assert line.marked(3) == (SOUTH,)


def test_an_injection_during_the_schedule_waits_for_its_end() -> None:
    """It is the stage behind all scheduled ones, wherever it stands in the line."""
    line = read((*HONEST[:3], addition(3, (NORTH, 8))))

    assert line.total_stages == 3
    assert line.marked(1) == (NORTH, SOUTH)
    assert line.marked(2) == (NORTH,)
    assert line.open_round == HONEST[2]


def test_an_entity_is_named_once_in_an_addition() -> None:
    """So each adds at most one stage."""
    assert "named twice" in refusal(read(HONEST), addition(13, (NORTH, 8), (NORTH, 12)))


def test_stages_are_added_only_so_often() -> None:
    """The thousandth addition counts, one more does not; and none adds more than a stage."""
    line = read((*HONEST, *(addition(13 + i, (NORTH, i)) for i in range(MOST_ADDED))))

    assert line.total_stages == line.most_stages == 2 + MOST_ADDED
    assert "the 1001th addition" in refusal(line, addition(13 + MOST_ADDED, (NORTH, 1)))


# --- what a message may name ----------------------------------------------------------------------


def test_a_number_that_no_run_of_this_schedule_has_is_not_waited_for() -> None:
    """1 for RunOpened, 1000 additions, and 1002 stages of 6 decisions: numbers up to 7012."""
    line = read((FIRST,))

    assert line.last_number == 1000 + 6 * 1002 == 7012
    assert line.decided(0) == FIRST
    with pytest.raises(NotYet, match="decision 7012"):
        line.decided(7012)
    with pytest.raises(Refused, match="decision 7013: the last can be 7012"):
        line.decided(7013)
    with pytest.raises(NotYet, match="stage 1001"):
        line.begun(1001)
    with pytest.raises(Refused, match="stage 1002: there are at most 1002"):
        line.begun(1002)


def test_what_may_be_named_does_not_change_with_what_was_read() -> None:
    """The first reader knows of no addition, the second of ten: they refuse the same."""
    before, after = (
        read((FIRST,)),
        read((*HONEST, *(addition(13 + i, (NORTH, i)) for i in range(10)))),
    )

    assert (before.last_number, before.most_stages) == (after.last_number, after.most_stages)


def test_the_longest_run_comes_just_to_the_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one addition allowed: two stages, the added one, and every decision that can stand."""
    monkeypatch.setattr(line_of, "MOST_ADDED", 1)
    line = read((*HONEST, addition(13, (NORTH, 8))))
    grown = growth(14, 2, 7, rows={"4": 4})
    line = read((grown, opening(15, 2, 0, 7), closing(16, 2, 0, 8), opening(17, 2, 1, 8)), line)
    line = read((closing(18, 2, 1, 9), end(19, 2, 9)), line)

    assert line.over
    assert line.number == line.last_number == 19


def test_a_verdict_on_a_stage_that_no_run_has_holds_up_no_line() -> None:
    """At the end of the schedule a verdict may wait for a stage that is added; not for this."""
    line = VerdictLine(NORTH, read(HONEST))
    for decision in (joined(), verdict(1, 0, 0), verdict(2, 1, 3)):
        line.take(decision)

    with pytest.raises(NotYet, match="a stage for local/north"):
        line.take(verdict(3, 2, 6))
    with pytest.raises(Refused, match=f"judges stage {2**50}"):
        line.take(verdict(3, 2**50, 6))


# --- teachers -------------------------------------------------------------------------------------


def test_a_teacher_is_chosen_among_the_models_of_the_stage_before() -> None:
    """The choice for stage 1 waits until stage 0 is closed, whatever was read first."""
    rounds = RoundsLine()
    teachers = TeachersLine(rounds)
    teachers.hear(chosen())
    assert teachers.of(1) is None

    read(HONEST[:6], rounds)
    teachers.again()
    assert teachers.of(1) is None

    read(HONEST[6:7], rounds)
    teachers.again()
    assert teachers.of(1) == chosen()
    assert (teachers.of(0), teachers.of(2), teachers.refused) == (None, None, [])


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (chosen(version=5), "names no model of the stage before"),
        (chosen(teacher=model(2, "f")), "names no model of the stage before"),
        (chosen(stage=2), "is for stage 2"),
        (chosen(slots=(model(2), None)), "names slots, and the run has none"),
        (chosen(run=OTHER_RUN), "is for stage 1"),
        (growth(0, 0, 1), "HeadGrown cannot stand here"),
    ],
)
def test_a_choice_that_cannot_stand_is_set_aside_and_silences_nobody(
    junk: Decision, why: str
) -> None:
    """It lies before the honest one, and both lie there before stage 0 is closed."""
    rounds = RoundsLine()
    teachers = TeachersLine(rounds)
    teachers.hear(junk, "here")  # type: ignore[arg-type]
    teachers.hear(chosen(), "there")

    read(HONEST, rounds)
    teachers.again()

    ((where, refused),) = teachers.refused
    assert (where, refused.reason) == ("here", "out-of-line")
    assert why in refused.detail
    assert teachers.of(1) == chosen()


def test_of_two_choices_the_first_valid_one_counts() -> None:
    """A second proxy chose otherwise, and a repeat comes: nobody hears of it."""
    teachers = TeachersLine(read(HONEST))
    for each in (chosen(), chosen(version=3), chosen(), chosen(3)):
        teachers.hear(each)

    assert teachers.chosen == [chosen()]
    assert teachers.refused == []


# --- verdicts -------------------------------------------------------------------------------------


def test_an_entitys_line_follows_the_schedules_marks() -> None:
    """It joins, judges stage 0 by version 0, and stage 1 by the last version of stage 0."""
    lines = VerdictLines(read(HONEST))
    for decision in (joined(), verdict(1, 0, 0), verdict(2, 1, 3)):
        lines.hear("local", decision)

    line = lines.line(NORTH)
    assert line.known == ("0", "1", "2", "3")
    assert (line.judged, line.number) == (1, 2)
    assert lines.verdict(NORTH, 1) == verdict(2, 1, 3)
    assert (lines.verdict(SOUTH, 0), lines.line(SOUTH).judged) == (None, -1)
    assert lines.refused == []


@pytest.mark.parametrize(
    ("before", "junk", "why"),
    [
        ((), verdict(0, 0, 0), "out-of-line: local/north has not joined"),
        ((joined(),), joined(number=1), "out-of-line: local/north joins twice"),
        ((joined(),), verdict(1, 1, 3), "out-of-line: judges stage 1, stage 0 is next"),
        ((joined(),), verdict(1, 0, 1), "wrong-base: judged by version 1"),
        ((joined(),), verdict(1, 0, 0, model=model(0, "f")), "wrong-base: judged by version 0"),
        ((joined(),), verdict(1, 0, 0, classes=()), "out-of-line: new with 0 classes"),
        ((joined(),), verdict(1, 0, 0, verdict="known"), "out-of-line: known with 2 classes"),
        ((joined(),), verdict(1, 0, 0, verdict="suspected"), "out-of-line: suspected with 2"),
        ((joined(),), verdict(1, 0, 0, classes=("1", "0")), "out-of-line: its classes are not in"),
        ((joined(),), verdict(1, 0, 0, classes=("1", "1")), "out-of-line: its classes are not in"),
        ((joined(), verdict(1, 0, 0)), verdict(2, 1, 3, classes=("1", "2")), "announced twice"),
        ((joined(),), verdict(1, 0, 0).model_copy(update={"run": OTHER_RUN}), "of another run"),
    ],
)
def test_a_verdict_that_cannot_stand_is_set_aside_and_silences_nobody(
    before: tuple[EntityJoined | WindowJudged, ...], junk: EntityJoined | WindowJudged, why: str
) -> None:
    """The honest decisions behind it count, under the same number."""
    honest = (joined(), verdict(1, 0, 0), verdict(2, 1, 3))
    lines = VerdictLines(read(HONEST))
    for decision in (*before, junk, *honest[len(before) :]):
        lines.hear("local", decision, decision)

    ((where, refused),) = lines.refused
    assert where is junk
    assert why in str(refused)
    assert lines.line(NORTH).judged == 1


def test_a_site_speaks_for_its_own_entities_only() -> None:
    """And for those that the schedule knows; before RunOpened nobody can tell which they are."""
    rounds = RoundsLine()
    lines = VerdictLines(rounds)
    with pytest.raises(Refused, match="unknown-entity: local/north does not belong to site abroad"):
        lines.hear("abroad", joined())
    lines.hear("local", joined("local/west"), "early")

    read(HONEST, rounds)
    lines.again()

    ((where, refused),) = lines.refused
    assert (where, refused.reason) == ("early", "unknown-entity")
    with pytest.raises(Refused, match="local/west takes no part in this run"):
        lines.hear("local", joined("local/west"))


def test_a_verdict_waits_for_what_it_rests_on_and_holds_up_only_its_own_line() -> None:
    """The north is quick: its verdict on stage 1 is there before stage 0 is closed."""
    rounds = RoundsLine()
    lines = VerdictLines(rounds)
    for decision in (joined(), verdict(1, 0, 0), verdict(2, 1, 3), joined(SOUTH)):
        lines.hear("local", decision)
    assert lines.line(NORTH).judged == -1

    read(HONEST[:6], rounds)
    lines.again()
    assert (lines.line(NORTH).judged, lines.line(SOUTH).number) == (0, 0)

    read(HONEST[6:7], rounds)
    lines.again()
    assert lines.line(NORTH).judged == 1
    assert lines.refused == []


def later(number: int, **changes: Any) -> NotUnderstood:
    """In place of what a later program wrote of the north."""
    fields: dict[str, Any] = {"run": RUN, "number": number, "entity": NORTH, "detail": "schema 2"}
    return NotUnderstood(**(fields | changes))


def test_a_line_stops_at_a_decision_that_only_a_later_program_reads() -> None:
    """What stands behind it waits for that program; the other line goes on."""
    lines = VerdictLines(read(HONEST))
    for decision in (joined(), later(1), verdict(1, 0, 0), joined(SOUTH), verdict(1, 0, 0, SOUTH)):
        lines.hear("local", decision)
    lines.again()

    assert lines.line(NORTH).stopped == later(1)
    assert (lines.judged(NORTH), lines.judged(SOUTH)) == (-1, 0)
    assert lines.line(SOUTH).stopped is None
    assert lines.refused == []


@pytest.mark.parametrize("passed_over", [later(0), later(5), later(1, run=OTHER_RUN)])
def test_a_later_programs_decision_that_is_not_the_next_stops_nothing(
    passed_over: NotUnderstood,
) -> None:
    """It is of another number or run: that program would pass over it, too."""
    lines = VerdictLines(read(HONEST))
    for decision in (joined(), passed_over, verdict(1, 0, 0)):
        lines.hear("local", decision)

    assert lines.line(NORTH).stopped is None
    assert lines.judged(NORTH) == 0


def test_a_verdict_beyond_the_schedule_waits_for_the_stage_that_is_added() -> None:
    """A twin may have read StageAdded before this reader has."""
    rounds = read(HONEST)
    line = VerdictLine(NORTH, rounds)
    for decision in (joined(), verdict(1, 0, 0), verdict(2, 1, 3)):
        line.take(decision)
    with pytest.raises(NotYet, match="a stage for local/north") as caught:
        line.take(verdict(3, 2, 6))
    assert not caught.value.until()

    read((addition(13, (SOUTH, 4)),), rounds)
    assert caught.value.until()
    with pytest.raises(NotYet):
        line.take(verdict(3, 2, 6))

    read((addition(14, (NORTH, 4)),), rounds)
    line.take(verdict(3, 2, 6))
    assert line.judged == 2


# --- topics merge in any order --------------------------------------------------------------------

CLASSES: tuple[EntityJoined | WindowJudged, ...] = (
    verdict(0, 0, 0),
    joined(),
    joined(SOUTH),
    verdict(1, 1, 3),
    verdict(1, 0, 1, SOUTH),
    verdict(1, 0, 0, classes=()),
    verdict(1, 0, 0),
    joined(number=2),
    verdict(1, 0, 0, SOUTH, verdict="known", classes=()),
    verdict(2, 1, 3, classes=("0", "2")),
    verdict(2, 1, 4),
    verdict(2, 1, 3),
    verdict(2, 1, 3, classes=("2",)),
    verdict(2, 1, 3, SOUTH),
    verdict(3, 2, 6),
    verdict(3, 2, 6, trainable=9),
)
"""A site's topic with junk among it."""
TEACHERS = (
    chosen(version=6),
    chosen(stage=2),
    chosen(version=3),
    chosen(),
    chosen(1, 6),
    chosen(1, 5),
)
ROUNDS = (*HONEST, addition(13, (NORTH, 8)))


class Reader:
    """Hears the three topics in any order and remembers what counted."""

    def __init__(self) -> None:
        self.rounds = RoundsLine()
        self.teachers = TeachersLine(self.rounds)
        self.verdicts = VerdictLines(self.rounds)

    def hear(self, decision: Decision) -> None:
        match decision:
            case TeacherChosen():
                self.teachers.hear(decision, TEACHERS.index(decision))
            case EntityJoined() | WindowJudged():
                self.verdicts.hear("local", decision, CLASSES.index(decision))
            case _:
                self.rounds.hear(decision, pack(decision).hash)
                self.verdicts.again()
                self.teachers.again()

    def outcome(self) -> tuple[object, ...]:
        """All that counted, and all that did not, each with its reason."""
        aside = [(where, str(why)) for where, why in self.verdicts.refused]
        return (
            self.rounds.decisions,
            self.teachers.chosen,
            [(where, str(why)) for where, why in self.teachers.refused],
            {entity: line.verdicts for entity, line in self.verdicts.of.items()},
            sorted(aside, key=lambda each: str(each)),
        )


def merged(*topics: Sequence[Decision], pick: Callable[[int], int]) -> list[Decision]:
    """The topics, each in its own order, in one order."""
    rest = [list(topic) for topic in topics]
    found = []
    while waiting := [topic for topic in rest if topic]:
        found.append(waiting[pick(len(waiting))].pop(0))
    return found


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_reader_comes_to_the_same_in_whatever_order_topics_merge(
    chance: random.Random,
) -> None:
    """The first valid decision counts, junk is set aside, and only once: always the same ones."""
    first, reader = Reader(), Reader()
    for decision in (*ROUNDS, *TEACHERS, *CLASSES):
        first.hear(decision)
    for decision in merged(ROUNDS, TEACHERS, CLASSES, pick=chance.randrange):
        reader.hear(decision)

    assert reader.outcome() == first.outcome()
    assert reader.teachers.of(1) == chosen(version=3)
    assert reader.verdicts.verdict(NORTH, 2) == verdict(3, 2, 6)
    assert reader.verdicts.verdict(SOUTH, 1) == verdict(2, 1, 3, SOUTH)
    assert len(reader.verdicts.refused) == 7
    assert len(reader.teachers.refused) == 2
