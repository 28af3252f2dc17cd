"""Learning rates over the rounds of a stage (docs/method.md 5.8)."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.rates import RateSchedule, check_rate, multiplier, warm_up


def over(schedule: RateSchedule, rounds: int) -> list[float]:
    return [multiplier(schedule, round, rounds) for round in range(rounds)]


def test_ten_rounds_have_the_lineages_ten_rates() -> None:
    """A drop in round 5 that is undone, and an annealed last round."""
    assert over("lineage", 10) == [1, 1, 1, 1, 1, 0.2, 1, 1, 1, 0.008]


def test_shorter_stages_keep_the_annealed_end() -> None:
    """R = 1: [1]. R = 2: rounds 0 and 1 read L[4] and L[9]. R = 4: L[2], L[4], L[7], L[9].

    R = 6: L[9 - floor(50/6)] = L[1], then L[3], L[4], L[6], L[8], L[9].
    """
    assert over("lineage", 1) == [1]
    assert over("lineage", 2) == [1, 0.008]
    assert over("lineage", 4) == [1, 1, 1, 0.008]
    assert over("lineage", 6) == [1, 1, 1, 1, 1, 0.008]


def test_longer_stages_stretch_the_table() -> None:
    """R = 20: round r reads L[9 - floor((19 - r)/2)], every entry twice."""
    assert over("lineage", 20)[9:13] == [1, 0.2, 0.2, 1]
    assert over("lineage", 20)[-2:] == [0.008, 0.008]


def test_steps_fall_by_ten_and_again_by_ten() -> None:
    """Seven rounds of 1, two of 0.1, one of 0.01."""
    assert over("step", 10) == [1] * 7 + [0.1] * 2 + [0.01]


def test_a_live_run_keeps_its_rate() -> None:
    """It does not know its last round."""
    assert over("constant", 3) == [1, 1, 1]


def test_a_cosine_falls_from_one_along_half_a_wave() -> None:
    """R = 4: (1 + cos(k pi / 4)) / 2 for k = 0..3: 1, 0.8536, 0.5, 0.1464."""
    expected = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]

    assert over("cosine", 4) == pytest.approx(expected)


@given(st.sampled_from(["lineage", "step", "constant", "cosine"]), st.integers(1, 60))
def test_a_rate_never_rises_above_one_or_falls_to_zero(schedule: RateSchedule, rounds: int) -> None:
    """Every multiplier of every stage is in (0, 1], and a stage begins with 1."""
    rates = over(schedule, rounds)

    assert rates[0] == 1
    assert all(0 < rate <= 1 for rate in rates)


def test_the_first_six_tenths_of_a_stage_cannot_become_a_teacher() -> None:
    """floor(0.6 R): 6 of 10, 2 of 4, 3 of 6, 1 of 2, none of 1."""
    assert [warm_up(rounds) for rounds in (10, 4, 6, 2, 1)] == [6, 2, 3, 1, 0]


def test_an_unknown_round_or_schedule_is_refused() -> None:
    """Rounds count from 0."""
    unknown: Any = "linear"
    with pytest.raises(ValueError, match="a stage of 4 rounds has no round 4"):
        multiplier("lineage", 4, 4)
    with pytest.raises(ValueError, match="not linear"):
        multiplier(unknown, 0, 4)


def test_sums_do_not_bear_the_rate_of_means() -> None:
    """`reduction: sum` with 2.0 collapses, so it is refused; 0.2 and the means' 2.0 are not."""
    with pytest.raises(ValueError, match=r"at most 0\.2, not 2\.0"):
        check_rate(2.0, "sum")

    check_rate(0.2, "sum")
    check_rate(2.0, "mean")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_positive_and_finite(rate: float) -> None:
    """Zero would learn nothing, infinity everything at once."""
    with pytest.raises(ValueError, match="positive and finite"):
        check_rate(rate, "mean")
