"""What a run with two slots decides otherwise: its configuration, its lists and its choices."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigurationError
from schemas.line import RoundsLine
from schemas.messages import (
    HeadGrown,
    ModelName,
    Participant,
    RoundClosed,
    RoundOpened,
    StageClosed,
    TeacherChosen,
)
from schemas.teachers import TeachersLine
from tests.schemas.specimens import NORTH, RUN, SOUTH, model, opened, recipe

LINEAGE = {
    "detector": "lineage",
    "entropy_head": "post_growth",
    "teacher": "slots",
    "proto_model": "local",
    "proto_upload": "sampled_only",
}


@pytest.mark.parametrize("left", LINEAGE)
def test_the_lineage_s_parts_come_together_or_not_at_all(left: str) -> None:
    """Four of the five are refused in one line, which names what is missing."""
    parts = {key: value for key, value in LINEAGE.items() if key != left}

    with pytest.raises(ConfigurationError, match=f"needs {left}={LINEAGE[left]}"):
        recipe(**parts)


def test_who_trains_may_be_asked_alone_under_any_teacher() -> None:
    """`proto_upload: sampled_only` by itself only narrows who is asked."""
    assert not recipe(proto_upload="sampled_only").slotted
    assert recipe(**LINEAGE).slotted


def test_slots_are_scored_on_the_newest_prototypes_only() -> None:
    """`proxy_eval: all` would be passed over, so it is refused."""
    with pytest.raises(ConfigurationError, match="proxy_eval"):
        recipe(**LINEAGE, proxy_eval="all")


class Story:
    """The lines of a run of two stages and two rounds, both entities in each."""

    def __init__(self, **overrides: object) -> None:
        self.rounds = RoundsLine()
        self.rounds.hear(opened(**{**LINEAGE, **overrides}), RUN)
        self.teachers = TeachersLine(self.rounds)

    def grow(self, *prototypes: tuple[str, tuple[str, ...]]) -> None:
        """Stage 0 begins with classes 0 and 1."""
        rows = {"0": 0, "1": 1}
        self.rounds.hear(
            HeadGrown(run=RUN, number=1, stage=0, rows=rows, prototypes=prototypes, model=model(1)),
            "",
        )

    def round(self, stage: int, round: int) -> None:
        """A round is opened and closed; its model is one version on."""
        base, number = self.rounds.model, self.rounds.number + 1
        assert base is not None
        part = Participant(entity=NORTH, weight=1, position=3)
        self.rounds.hear(
            RoundOpened(
                run=RUN,
                number=number,
                stage=stage,
                round=round,
                base=base,
                teacher=None,
                learning_rate=0.5,
                participants=(part,),
            ),
            "",
        )
        self.rounds.hear(
            RoundClosed(
                run=RUN,
                number=number + 1,
                opened=number,
                stage=stage,
                round=round,
                counted=((NORTH, "c" * 64),),
                withheld=(),
                model=model(base.version + 1),
            ),
            "",
        )
        self.teachers.again()

    def close_stage(self, stage: int) -> None:
        """The stage's rounds are over."""
        last = self.rounds.model
        assert last is not None
        number = self.rounds.number + 1
        self.rounds.hear(
            StageClosed(run=RUN, number=number, stage=stage, candidates=(last,), last=last), ""
        )
        self.teachers.again()

    def choose(self, stage: int, round: int, *slots: ModelName | None) -> None:
        """The proxy chooses slots for a round."""
        first, second = slots
        teacher = second or first or model(9)
        self.teachers.hear(
            TeacherChosen(
                run=RUN,
                number=len(self.teachers.chosen),
                stage=stage,
                round=round,
                teacher=teacher,
                slots=(first, second),
                scores=(),
                used=(),
                withheld=(),
            )
        )


def begun() -> Story:
    """Stage 0 is closed with models 2 and 3."""
    story = Story()
    story.grow()
    story.round(0, 0)
    story.round(0, 1)
    story.close_stage(0)
    return story


def test_a_list_names_each_class_once_for_each_round_of_its_twin() -> None:
    """Both train in both rounds: (0, 1, 0, 1) is two classes in round 0 and again in round 1."""
    story = Story()
    story.grow((NORTH, ("0", "1", "0", "1")), (SOUTH, ("1", "1")))

    assert story.rounds.expected_in(0, 0) == ((NORTH, 0, "0"), (NORTH, 1, "1"), (SOUTH, 0, "1"))
    assert story.rounds.expected_in(0, 1) == ((NORTH, 2, "0"), (NORTH, 3, "1"), (SOUTH, 1, "1"))
    assert len(story.rounds.expected(0)) == 6


@pytest.mark.parametrize("uids", [("0", "1"), ("0", "0", "1", "1"), ("0", "1", "0"), ("0",) * 3])
def test_a_list_that_does_not_fit_the_rounds_is_no_list(uids: tuple[str, ...]) -> None:
    """Once, class by class, too short, too long: a place would stand for no round."""
    with pytest.raises(Exception, match="prototypes"):
        Story().grow((NORTH, uids))


def test_there_is_a_choice_for_every_round_from_stage_1_on() -> None:
    """That for round 0 counts behind stage 0; that for round 1 waits until round 0 is closed."""
    story = begun()
    story.choose(1, 0, None, model(3))
    story.choose(1, 1, model(3), model(4))

    assert [story.teachers.place(number) for number in range(2)] == [(1, 0), (1, 1)]
    assert story.teachers.at(1, 0) == story.teachers.of(1) == story.teachers.chosen[0]
    assert story.teachers.at(1, 1) is None

    story.round(1, 0)

    chosen = story.teachers.at(1, 1)
    assert chosen is not None
    assert chosen.slots == (model(3), model(4))
    assert not story.teachers.refused


@pytest.mark.parametrize(
    ("stage", "round", "slots"),
    [
        (1, 1, (None, model(3))),  # not the next round
        (1, 0, (None, model(4))),  # a model that no round before has made
        (1, 0, (None, model(3, "b"))),
        (1, 0, (model(9), model(3))),
        (1, 0, (None, None)),  # names nobody, and a teacher that is in no slot
    ],
)
def test_a_choice_that_does_not_fit_is_not_valid(
    stage: int, round: int, slots: tuple[ModelName | None, ModelName | None]
) -> None:
    """It is set aside, and the next one still counts."""
    story = begun()
    if round:
        story.round(1, 0)
    story.choose(stage, round, *slots)
    story.choose(1, 0, model(2), model(3))

    assert [refused.reason for _, refused in story.teachers.refused] == ["out-of-line"]
    assert len(story.teachers.chosen) == 1
