"""Exact means: any order, any grouping, the same bytes (docs/method.md 1.4)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aggregator.averaging import ExactMean
from schemas.tensors import CHUNK, Spec, Tensors, Unfit, model_sha256, specs

VAR = "norm.running_var"
COUNT = "norm.num_batches_tracked"
NAMES = ("w", VAR, COUNT)
EXPECTED = {"w": Spec("<f4", (3,)), VAR: Spec("<f4", (2,)), COUNT: Spec("<i8", ())}
W = 64  # room for five models of weight ten

PARAMETERS = hnp.arrays(np.float32, 3, elements=st.floats(-(2.0**20), 2.0**20, width=32))
STATISTICS = hnp.arrays(
    np.float32, 2, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)
COUNTS = st.integers(0, 2**63 - 1).map(lambda count: np.array(count, np.int64))
MODELS = st.tuples(PARAMETERS, STATISTICS, COUNTS).map(
    lambda tensors: dict(zip(NAMES, tensors, strict=True))
)
ROUNDS = st.lists(st.tuples(MODELS, st.integers(1, 10)), min_size=1, max_size=5)
Round = Sequence[tuple[Tensors, int]]


def summed(answers: Round, total_weight: int = W) -> ExactMean:
    """The sum of a round's answers, in this order."""
    total = ExactMean(EXPECTED, total_weight)
    for tensors, weight in answers:
        total.add(tensors, weight)
    return total


def mean_of(*values: Any, name: str = "w", weights: Sequence[int] | None = None) -> Any:
    """The mean of single float32 numbers under one name."""
    total_weight = sum(weights) if weights else len(values)
    total = ExactMean({name: Spec("<f4", (1,))}, total_weight)
    for value, weight in zip(values, weights or [1] * len(values), strict=True):
        total.add({name: np.array([value], np.float32)}, weight)
    return total.mean()[name].item()


# --- numbers worked by hand -----------------------------------------------------------------------


def test_a_round_averages_what_the_twins_learned() -> None:
    """Two twins learned 1 from 30 images and 5 from 10: (30 + 50) / 40 = 2."""
    assert mean_of(1.0, 5.0, weights=[30, 10]) == 2.0
    assert mean_of(1.0, 5.0) == 3.0


def test_one_of_three_who_knows_the_others_puts_the_mean_anywhere() -> None:
    """Two learned 1 and 2; the third wants 100 and says 3 · 100 - 3 = 297: a mean is no defence."""
    assert mean_of(1.0, 2.0, 297.0) == 100.0


def test_parameters_are_rounded_to_units_of_2_to_the_minus_30_half_to_even() -> None:
    """0.5 units -> 0, 1.5 -> 2, 2.5 -> 2; -0.5 -> 0, -1.5 -> -2; 0.75 -> 1."""
    unit = 2.0**-30

    rounded = [mean_of(units * unit) / unit for units in (0.5, 1.5, 2.5, -0.5, -1.5, 0.75)]

    assert rounded == [0, 2, 2, 0, -2, 1]


def test_a_mean_is_rounded_once_to_float32() -> None:
    """(1 + 1 + 0) / 3 = 0.666... in float64, then 0x3f2aaaab in float32."""
    assert np.float32(mean_of(1.0, 1.0, 0.0)).view(np.uint32) == 0x3F2AAAAB


def test_float_sums_would_depend_on_their_order_and_these_do_not() -> None:
    """2^24 + 1 - 2^24 = 0 or 1 in float32; exactly it is 1, and a third of that the mean."""
    big, one = np.float32(2**24), np.float32(1)

    assert (big + one) - big != (big - big) + one
    assert mean_of(2**24, 1, -(2**24)) == mean_of(2**24, -(2**24), 1) == np.float32(1 / 3)


def test_statistics_of_batchnorm_are_exact_at_any_size() -> None:
    """(1e30 + 25,000 - 1e30) / 2: a float64 would lose the 25,000. The smallest counts."""
    tiny = 2.0**-149

    assert mean_of(1e30, 25_000.0, -1e30, name=VAR, weights=[1, 2, 1]) == 12_500.0
    assert mean_of(tiny, tiny, name=VAR) == tiny
    assert mean_of(3.4028235e38, 3.4028235e38, name=VAR) == np.float32(3.4028235e38)


ODD = st.builds(
    lambda sign, mantissa, power: sign * mantissa * 2.0**power,
    st.sampled_from([-1, 1]),
    st.integers(2**23, 2**24 - 1),
    st.integers(-93, 17),
)
"""Full significands of sizes between 2^-70 and 2^40."""
PAIRS = st.lists(
    st.tuples(ODD | st.just(0.0), ODD | st.floats(0, 4, width=32)), min_size=1, max_size=5
)


@settings(deadline=None)
@given(PAIRS, st.sampled_from([1, 100, 2**28, 2**30, 2**30 + 1, 2**49]), st.booleans())
def test_statistics_of_usual_size_and_others_share_a_sum(
    pairs: list[tuple[float, float]], weight: int, aside: bool
) -> None:
    """Common variances, tiny and huge ones, side by side, at weights beyond which 64 bits would not
    do; some of them summed aside, and the mean looked at on the way."""
    rows = [np.array(pair, np.float32) for pair in pairs]
    total, other = (ExactMean({VAR: Spec("<f4", (2,))}, weight * len(rows)) for _ in range(2))
    for number, row in enumerate(rows):
        (other if aside and number % 2 else total).add({VAR: row}, weight)
    total.mean()

    mean = total.merge(other).mean()[VAR]

    for place in range(2):
        exact = sum(Fraction(row[place].item()) for row in rows) / len(rows)
        assert mean[place] == np.float32(float(exact))


def test_a_weight_beyond_which_64_bits_would_not_do_loses_nothing() -> None:
    """2^51 times just below 2^-22, twice: each is 2^30 - 64 units of 2^-52, all of them 2^82."""
    value = np.float32(2**-22 * (1 - 2**-24))

    assert mean_of(value, value, name=VAR, weights=[2**51, 2**51]) == value


def test_of_integer_buffers_the_largest_counts() -> None:
    """Batches seen: 160, 480 and 320 give 480, whatever the weights; a lone -7 stays."""
    dtypes = {"i8": "<i8", "i4": "<i4", "u1": "|u1"}
    total = ExactMean({name: Spec(dtype, ()) for name, dtype in dtypes.items()}, 10)

    for count, weight in ((16, 1), (48, 2), (32, 5)):
        total.add({name: np.array(count, dtype) for name, dtype in dtypes.items()}, weight)

    assert {name: largest.item() for name, largest in total.mean().items()} == dict.fromkeys(
        dtypes, 48
    )
    below = ExactMean({"i": Spec("<i8", ())}, 1).add({"i": np.array(-7)}).mean()
    assert below["i"].item() == -7


def test_the_mean_divides_by_the_weights_that_were_counted() -> None:
    """Five may be counted, three were: (3 + 3 + 3) / 3."""
    total = ExactMean({"w": Spec("<f4", (1,))}, 5)

    for _ in range(3):
        total.add({"w": np.array([3.0], np.float32)})

    assert total.weight == 3
    assert total.mean()["w"].item() == 3.0


def test_the_largest_sum_fits() -> None:
    """Three models just below 2^32 / 3: each counts about 2^62 / 3 units, and none is lost."""
    value = np.nextafter(np.float32(2**32 / 3), np.float32(0))

    assert mean_of(value, value, value) == value
    assert mean_of(-value, weights=[3]) == -value


# --- any order, any grouping ----------------------------------------------------------------------


@settings(deadline=None)
@given(ROUNDS, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bytes(answers: Round, random: Any) -> None:
    """Updates come as the network likes."""
    shuffled = list(answers)
    random.shuffle(shuffled)

    assert model_sha256(summed(shuffled).mean()) == model_sha256(summed(answers).mean())


@settings(deadline=None)
@given(ROUNDS, st.lists(st.integers(0, 2), min_size=5, max_size=5), st.permutations(range(3)))
def test_partial_sums_of_sites_add_up(
    answers: Round, sites: list[int], order: Sequence[int]
) -> None:
    """Each site sums its own, some have nothing; joined in any order they are the whole sum."""
    parts = [
        summed([answer for answer, at in zip(answers, sites, strict=False) if at == site])
        for site in range(3)
    ]

    joined = ExactMean(EXPECTED, W)
    for site in order:
        joined.merge(parts[site])

    assert joined.weight == sum(weight for _, weight in answers)
    assert model_sha256(joined.mean()) == model_sha256(summed(answers).mean())


@settings(deadline=None)
@given(MODELS, st.integers(1, 10))
def test_a_weight_is_as_many_models(tensors: Tensors, weight: int) -> None:
    """Counting once with weight n is counting n times."""
    once, often = summed([(tensors, weight)]), summed([(tensors, 1)] * weight)

    assert model_sha256(once.mean()) == model_sha256(often.mean())


@settings(deadline=None)
@given(MODELS, st.lists(st.integers(1, 10), min_size=1, max_size=5))
def test_the_mean_of_equal_models_is_that_model(tensors: Tensors, weights: list[int]) -> None:
    """But for what lies below 2^-31 in a parameter."""
    mean = summed([(tensors, weight) for weight in weights]).mean()

    units = np.rint(tensors["w"].astype(np.float64) * 2**30)
    assert mean["w"].tolist() == (units / 2**30).astype(np.float32).tolist()
    assert mean[VAR].tolist() == tensors[VAR].tolist()
    assert mean[COUNT] == tensors[COUNT]


# --- exactness ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ROUNDS)
def test_means_are_those_of_fractions(answers: Round) -> None:
    """The exact fraction, then one float64 and one float32; parameters in units of 2^-30 before.

    Values up to 2^20 and weights up to 50 give sums of up to 56 bits; beyond 53 bits the
    conversion of the sum to float64 rounds as well, there and here.
    """
    mean, counted = summed(answers).mean(), sum(weight for _, weight in answers)

    for place in range(3):
        units = sum(round(Fraction(t["w"][place].item()) * 2**30) * n for t, n in answers)
        assert mean["w"][place] == np.float32(float(units) / float(counted * 2**30))
    for place in range(2):
        exact = sum(Fraction(t[VAR][place].item()) * n for t, n in answers) / counted
        assert mean[VAR][place] == np.float32(float(exact))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2**52), st.data())
def test_nothing_overflows_at_any_w(total_weight: int, data: st.DataObject) -> None:
    """The largest value that is in range, counted W times, comes back to within its last bit."""
    limit = 2**32 / total_weight
    value = np.nextafter(np.float32(limit * data.draw(st.floats(-0.99, 0.99))), np.float32(0))

    mean = mean_of(value, weights=[total_weight])

    assert abs(mean - float(value)) <= 2.0**-31 + abs(float(value)) * 2.0**-23


def test_large_tensors_are_summed_piece_by_piece() -> None:
    """More numbers than a piece holds, in several dimensions, to the last one."""
    rng = np.random.default_rng(0)
    models = [rng.normal(size=(3, CHUNK // 2 + 1)).astype(np.float32) for _ in range(3)]
    total = ExactMean({"w": Spec("<f4", models[0].shape)}, 6)

    for number, values in enumerate(models, start=1):
        total.add({"w": values}, number)

    units = sum(np.rint(v * 2.0**30).astype(np.int64) * n for n, v in enumerate(models, start=1))
    expected = (units / np.float64(6 * 2**30)).astype(np.float32)
    assert total.mean()["w"].tobytes() == expected.tobytes()


def test_memory_does_not_grow_with_the_number_of_models() -> None:
    """After the first of 200 models no more is held; a list would hold 200 times as much."""
    values = {"w": np.ones(50_000, np.float32), VAR: np.ones(100, np.float32)}
    total = ExactMean(specs(values), 200)
    total.add(values)

    tracemalloc.start()
    for _ in range(199):
        total.add(values)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < values["w"].nbytes


def test_a_mean_can_be_taken_on_the_way() -> None:
    """Looking changes nothing: what is counted later counts as if nobody had looked."""
    first = {"w": np.array([1.0], np.float32), "n": np.array([1])}
    second = {"w": np.array([2.0], np.float32), "n": np.array([2])}
    total = ExactMean(specs(first), 2).add(first)

    early = total.mean()
    total.add(second)

    assert (early["w"].item(), early["n"].item()) == (1.0, 1)
    assert (total.mean()["w"].item(), total.mean()["n"].item()) == (1.5, 2)


def test_a_head_without_rows_has_a_mean() -> None:
    """No number to average, and still the shape."""
    empty = {"head.weight": np.zeros((0, 512), np.float32)}

    assert ExactMean(specs(empty), 1).add(empty).mean()["head.weight"].shape == (0, 512)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        ("w", np.array([1, np.nan, 1], np.float32), "not-finite"),
        ("w", np.array([1, 2**32 / W, 1], np.float32), "out-of-range"),
        (VAR, np.array([np.inf, 1], np.float32), "not-finite"),
        (COUNT, np.array([1, 2]), "wrong-shape"),
        (COUNT, np.array(1, np.int32), "wrong-dtype"),
    ],
)
def test_a_model_that_is_refused_leaves_the_sums_as_they_were(
    name: str, bad: Any, reason: str
) -> None:
    """Also when the tensors before the bad one were good."""
    good = {"w": np.ones(3, np.float32), VAR: np.ones(2, np.float32), COUNT: np.array(4)}
    total = ExactMean(EXPECTED, W).add(good, 7)
    before = model_sha256(total.mean())

    with pytest.raises(Unfit) as caught:
        total.add(good | {name: bad}, 7)

    assert caught.value.reason == reason
    assert total.weight == 7
    assert model_sha256(total.mean()) == before


def test_the_mean_of_nothing_is_refused() -> None:
    """A round that counts nobody keeps its model; that is for the round to decide."""
    with pytest.raises(ValueError, match=r"the mean of 0 models \(weights 0 of 64\)"):
        ExactMean(EXPECTED, W).mean()


@pytest.mark.parametrize(
    ("weight", "reason"), [(0, "cannot count 0 times"), (-1, "-1 times"), (4, r"2 \+ 4 exceed 5")]
)
def test_weights_stay_within_what_the_range_was_chosen_for(weight: int, reason: str) -> None:
    """More than W could overflow the sums."""
    one = {"w": np.ones(1, np.float32)}
    total = ExactMean(specs(one), 5).add(one, 2)

    with pytest.raises(ValueError, match=reason):
        total.add(one, weight)
    with pytest.raises(ValueError, match=r"2 \+ 5 exceed 5"):
        total.merge(ExactMean(specs(one), 5).add(one, 5))


@pytest.mark.parametrize(
    "other", [ExactMean(EXPECTED, W + 1), ExactMean({"w": Spec("<f4", (3,))}, W)]
)
def test_only_sums_of_one_round_merge(other: ExactMean) -> None:
    """Another W means another range, other tensors another model."""
    with pytest.raises(ValueError, match=r"is not like one for 3 and 64"):
        ExactMean(EXPECTED, W).merge(other)


@pytest.mark.parametrize(
    ("spec", "total_weight", "reason"),
    [(Spec("<f8", (1,)), 1, "w is <f8"), (Spec("<f4", (1,)), 0, "weights sum to 0")],
)
def test_what_cannot_be_summed_is_refused_at_once(
    spec: Spec, total_weight: int, reason: str
) -> None:
    """Doubles, which units of 2^-30 would cut, and a mean of nobody."""
    with pytest.raises(ValueError, match=reason):
        ExactMean({"w": spec}, total_weight)
