"""The lineage's two slots, round by round, worked by hand (docs/method.md 6.6, 9)."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.slots import Slots, Worked, as_chosen
from schemas.messages import ModelName, TeacherChosen

Pair = tuple[int | None, int | None]
Told = tuple[int, int, bool, float | None]
"""Stage, round, whether it brought gradients, and its model's score on the newest of them."""


def name(version: int) -> ModelName:
    """A model of this version."""
    return ModelName(version=version, sha256=f"{version:064x}")


def worked(version: int, told: Told, rounds: int, stages: int) -> Worked:
    """A closed round whose model has this version."""
    stage, round, brought, score = told
    ends, listed = round == rounds - 1, stage < stages - 1
    return Worked(stage, round, name(version), brought, score, ends, listed)


def fold(*told: Told, rounds: int, stages: int) -> list[Slots]:
    """The slots behind each round; the first round's model is version 1."""
    each = [worked(version, one, rounds, stages) for version, one in enumerate(told, start=1)]
    return list(accumulate(each, Slots.after, initial=Slots()))[1:]


def versions(slots: Slots) -> Pair:
    """B1 and B2."""
    before, best = (model.version if model else None for model in slots.named)
    return before, best


STORY: list[tuple[Told, Pair, str]] = [
    ((0, 0, True, 0.75), (None, 1), "the first gradients; 0.75 beats 0"),
    ((0, 1, False, 0.5), (None, 1), "no gradients: scored on those of round 0, and worse"),
    ((0, 2, False, 0.75), (None, 3), "as good is good enough; then the score to beat is reset"),
    ((1, 0, True, 0.25), (3, 4), "stage 0's best moves to B1; 0.25 beats 0: a model of stage 1"),
    ((1, 1, False, 1.0), (3, 5), "the best so far, on round 0's few prototypes"),
    ((1, 2, True, 0.875), (5, 5), "a second shift: both slots are of the current stage"),
    ((2, 0, True, 0.875), (5, 5), "1.0 is never reached again: B2 is stale"),
    ((2, 1, False, 0.75), (5, 5), "and stays"),
    ((2, 2, False, None), (5, 5), "a round without a score changes nothing"),
    ((3, 0, False, None), (5, 5), "the last stage lists nothing: B1 <- B2 once"),
    ((3, 1, False, None), (5, 5), "and B2 stays"),
    ((3, 2, False, None), (5, 5), "to the end"),
]


@pytest.mark.parametrize("index", range(len(STORY)), ids=[why for _, _, why in STORY])
def test_a_run_of_four_stages_leaves_these_models_in_the_slots(index: int) -> None:
    """Three rounds a stage; with the double shift and the stale B2 of the released code."""
    slots = fold(*(each for each, _, _ in STORY[: index + 1]), rounds=3, stages=4)[-1]

    assert versions(slots) == STORY[index][1]


def test_the_intended_course_is_taught_by_the_best_of_the_stage_before() -> None:
    """Signals in first rounds only. In stage 1 twins signal once: B2 is 2, the best of stage 0.

    Then none does, and B1 is the same model 2, whatever B2 becomes. In stage 2 the signal gives
    B2 = 4, the best of stage 1.
    """
    slots = fold(
        (0, 0, True, 0.5), (0, 1, False, 0.75), (1, 0, True, 0.5), (1, 1, False, 0.5),
        (2, 0, False, None), (2, 1, False, None), rounds=2, stages=3,
    )  # fmt: skip

    assert [versions(each) for each in slots[1:4]] == [(None, 2), (2, 3), (2, 4)]
    assert [versions(each) for each in slots[4:]] == [(4, 4), (4, 4)]


def test_a_stage_without_any_gradient_leaves_its_last_model() -> None:
    """Row 7: there the released code stops with an error. Here model 2 is B2, and 0 is to beat."""
    slots = fold((0, 0, False, None), (0, 1, False, None), rounds=2, stages=3)

    assert versions(slots[0]) == (None, None)
    assert versions(slots[1]) == (None, 2)
    assert slots[1].score == 0


def test_a_score_of_nothing_is_enough_for_an_empty_slot() -> None:
    """0.0 is not below 0: the model is taken."""
    (slots,) = fold((0, 0, True, 0.0), rounds=2, stages=3)

    assert versions(slots) == (None, 1)


ROUNDS = st.lists(
    st.tuples(st.booleans(), st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
    min_size=8,
    max_size=8,
)


def choices(told: list[Told], slots: list[Slots]) -> list[TeacherChosen]:
    """What a proxy writes down: one choice behind stage 0, then one behind each round."""
    written = []
    for number, behind in enumerate(range(1, len(told))):
        window = range(2) if number == 0 else [behind]
        teacher = slots[behind].best
        assert teacher is not None
        written.append(
            TeacherChosen(
                run="f" * 64,
                number=number,
                stage=1 + number // 2,
                round=number % 2,
                teacher=teacher,
                slots=slots[behind].named,
                scores=tuple((i + 1, s) for i in window if (s := told[i][3]) is not None),
                used=(),
                withheld=(),
            )
        )
    return written


@given(ROUNDS)
def test_a_proxy_that_starts_anew_goes_on_from_the_newest_choice(
    drawn: list[tuple[bool, float | None]],
) -> None:
    """Four stages of two rounds: the choices written down tell all that the next round needs."""
    told: list[Told] = [
        (*divmod(i, 2), brought, score if i < 6 else None)
        for i, (brought, score) in enumerate(drawn)
    ]
    slots = fold(*told, rounds=2, stages=4)
    written = choices(told, slots)

    assert as_chosen([]) == Slots()
    for number in range(1, len(written)):
        assert as_chosen(written[:number]) == slots[number]
