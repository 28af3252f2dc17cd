"""What a Standing makes of the lines of entities and of `teachers`, for whoever reads them when."""

from __future__ import annotations

import pytest

from aggregator.standing import reached, standing
from schemas.errors import Refused
from schemas.line import RoundsLine
from schemas.messages import Decision, Standing, TeacherChosen, TwinDecision, WindowJudged
from schemas.teachers import TeachersLine
from schemas.verdicts import VerdictLines
from tests.schemas.specimens import NORTH, SOUTH, model
from tests.schemas.test_live_line import (
    FIRST,
    JOINED,
    NEW,
    RUN,
    STAGE,
    begins,
    closes,
    ends,
    goes_back,
    judged,
    opens,
    rests,
)  # fmt: skip


class Reader:
    """Somebody who reads the lines of a run."""

    def __init__(self, *read: Decision, whole: bool = False) -> None:
        self.line = RoundsLine(whole=whole)
        self.verdicts, self.teachers = VerdictLines(self.line), TeachersLine(self.line)
        self.hear(FIRST, *read)

    def hear(self, *read: Decision) -> None:
        """Take these in this order."""
        for each in read:
            match each:
                case TwinDecision():
                    self.verdicts.hear("local", each, each)
                case TeacherChosen():
                    self.teachers.hear(each, each)
                case _:
                    assert self.line.hear(each, RUN if each is FIRST else f"{each.number:064x}")
                    self.verdicts.again()
                    self.teachers.again()

    def stands(self) -> Standing:
        """How it would tell that the run stands."""
        chosen = self.teachers.chosen
        return standing(self.line, self.verdicts, chosen, reached(self.verdicts))


OTHER = JOINED.model_copy(update={"entity": SOUTH})
FOUND = judged(1, 0, 0, 0, **NEW)
BEGUN = (JOINED, OTHER, FOUND, *STAGE, ends(5, 0, 2))
AUTHOR = Reader(*BEGUN)
SIXTH = AUTHOR.stands()
AUTHOR.hear(SIXTH, rests(7))
EIGHTH = AUTHOR.stands()
AUTHOR.hear(EIGHTH, rests(9, rests=False))
TENTH = AUTHOR.stands()
SLEPT = judged(2, 1, 5, 2)
"""It rests on decision 5, and comes when the author has told of decision 8."""
AWAKE = judged(2, 1, 9, 2)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("when", [0, 1, 2, 3, 4])
def test_a_twin_that_slept_for_too_long_judges_anew_whenever_it_is_heard(
    when: int, whole: bool
) -> None:
    """Its verdict rests on what lies before Standing 6. Who had taken it before it read Standing 8,
    which tells nothing of it, takes it back; who comes later refuses it; the next one counts."""
    read: list[Decision] = [SIXTH, rests(7), EIGHTH, rests(9, rests=False)]
    read.insert(when, SLEPT)
    reader = Reader(*BEGUN, *read, whole=whole)
    own = reader.verdicts.line(NORTH)

    assert own.number == 1
    assert [each for each, _ in reader.verdicts.refused] == [SLEPT]
    reader.hear(AWAKE)
    assert (own.number, own.judged, own.verdicts[1]) == (2, 1, AWAKE)


def test_what_a_standing_tells_counts_though_it_was_not_read() -> None:
    """Somebody has read decisions alone; verdicts that come at last are passed over, for they are
    told already, and the next one counts."""
    reader = Reader(*STAGE, ends(5, 0, 2), SIXTH, rests(7), EIGHTH, rests(9, rests=False))
    own = reader.verdicts.line(NORTH)
    assert (own.number, own.known, own.verdicts) == (1, ("0", "1"), {0: FOUND})
    assert own.here

    reader.hear(JOINED, FOUND, AWAKE)
    assert (own.number, own.verdicts[1]) == (2, AWAKE)
    assert reader.verdicts.refused == []


@pytest.mark.parametrize("whole", [False, True])
def test_a_teacher_is_known_from_a_standing_too(whole: bool) -> None:
    """Of two stages the second is taught by the first one's last model. Who did not hear of the
    choice knows it from the Standing; a Standing that tells of none takes nothing back."""
    teacher = TeacherChosen(
        run=RUN, number=0, stage=1, teacher=model(2), scores=((2, 0.5),), used=(), withheld=()
    )
    author = Reader(*BEGUN, teacher)
    told = author.stands()
    reader = Reader(*BEGUN, told, whole=whole)
    late = Reader(*BEGUN, SIXTH, teacher, whole=whole)
    reader.hear(teacher)

    for each in (reader, late):
        chosen = each.teachers.of(1)
        assert chosen is not None
        assert chosen.teacher == model(2)
        assert each.teachers.refused == []
    assert late.teachers.chosen[0].scores == ((2, 0.5),)


@pytest.mark.parametrize("whole", [False, True])
def test_one_goes_back_to_what_is_kept_or_to_a_later_model(whole: bool) -> None:
    """Version 1 is not kept by this Standing: nobody goes back to it, who holds it neither."""
    told = SIXTH.model_copy(update={"kept": (model(0), model(2))})
    reader = Reader(*BEGUN, told, whole=whole)
    with pytest.raises(Refused, match="no earlier model"):
        reader.line.hear(goes_back(7, 1, 3), "")

    reader.hear(goes_back(7, 0, 3))
    assert reader.line.model == model(3)
    reader.hear(goes_back(8, 2, 4))
    reader.hear(goes_back(9, 3, 5))


def test_of_a_line_that_is_not_whole_two_standings_worth_is_held() -> None:
    """Decisions, rounds and verdicts before are gone; how many there were is not."""
    more = [each for i in range(5) for each in (opens(11 + 2 * i, 1, i, 2 + i),
                                                closes(12 + 2 * i, 1, i, 3 + i))]  # fmt: skip
    news = judged(2, 1, 9, 2, verdict="new", classes=("2",))
    reader = Reader(
        *BEGUN, SIXTH, rests(7), rests(8, rests=False), rests(9), news, begins(10, 1, [(NORTH, 1)])
    )
    reader.hear(*more)
    reader.hear(reader.stands())
    line = reader.line
    assert (line.held, line.floor, min(line.decisions)) == (6, 6, 6)
    reader.hear(rests(22, rests=False), opens(23, 1, 5, 7), closes(24, 1, 5, 8))
    reader.hear(reader.stands())

    assert (line.held, line.number, sorted(line.decisions)) == (21, 25, [*range(21, 26)])
    stage = line.stages[1]
    assert (stage.size, stage.past, len(stage.rounds)) == (6, 5, 1)
    assert [each.version for each in stage.models] == [*range(3, 9)]
    assert (stage.first, line.closed_rounds) == (more[1], 7)
    assert [line.rounds_behind(number) for number in (9, 22, 23)] == [6, 1, 0]
    assert isinstance(reader.verdicts.line(NORTH).verdicts[0], WindowJudged)
    assert reader.verdicts.line(NORTH).stood(2)["seen"] == 0
