"""The adaptive weight w = d^p / mean of d^p over its group (docs/method.md 5.4)."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learning.losses import (
    adaptive_weights,
    classification,
    difficulty_exponent,
    gaps,
    membership,
)
from learning.strategies.strategy import Exponent, Family, Weighting

# Eight samples of three stages: d, and the stage of each sample's class. With p = 2/3, d^p is
# 1/4, 4/9, 1/4 | 1/4, 1/9 | 1/4, 4/9, 1/9.
GAPS = torch.tensor([1 / 8, 8 / 27, 1 / 8, 1 / 8, 1 / 27, 1 / 8, 8 / 27, 1 / 27]).double()
STAGES = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


def weigh(
    weight: Weighting, exponent: float, clamp: tuple[float, float] | None = None
) -> list[float]:
    members = membership([0, 1, 2], 2, weight).double()[STAGES]
    weights: list[float] = adaptive_weights(
        GAPS, members, exponent, clamp=clamp, product=weight == "product"
    ).tolist()
    return weights


def test_a_sample_weighs_its_gap_over_its_stages_mean() -> None:
    """Means of d^(2/3): 17/54, 13/72 and 29/108.

    Stage 0: (1/4)(54/17) = 27/34, (4/9)(54/17) = 24/17, 27/34. Stage 1: 18/13, 8/13.
    Stage 2: 27/29, 48/29, 12/29.
    """
    expected = [27 / 34, 24 / 17, 27 / 34, 18 / 13, 8 / 13, 27 / 29, 48 / 29, 12 / 29]

    assert weigh("stage", 2 / 3) == pytest.approx(expected)


def test_weights_are_clamped() -> None:
    """Only 12/29 is outside [0.5, 1.5] at the low end; 48/29 is at the high end."""
    expected = [27 / 34, 24 / 17, 27 / 34, 18 / 13, 8 / 13, 27 / 29, 1.5, 0.5]

    assert weigh("stage", 2 / 3, clamp=(0.5, 1.5)) == pytest.approx(expected)


def test_glfc_compares_old_with_old_and_new_with_new() -> None:
    """p = 1. Old: mean (3/8 + 8/27 + 1/27) / 5 = 17/120. New: mean (1/8 + 1/3) / 3 = 11/72.

    (1/8)(120/17) = 15/17, (8/27)(120/17) = 320/153, (1/27)(120/17) = 40/153;
    (1/8)(72/11) = 9/11, (8/27)(72/11) = 64/33, (1/27)(72/11) = 8/33.
    """
    old = [15 / 17, 320 / 153, 15 / 17, 15 / 17, 40 / 153]

    assert weigh("old_new", 1.0) == pytest.approx([*old, 9 / 11, 64 / 33, 8 / 33])


def test_the_cumulative_reading_favours_the_oldest_stage() -> None:
    """Stage 0 counts in two groups: itself, mean 17/54; stages 0 and 1, mean (47/36)/5 = 47/180.

    1/4 (54/17 + 180/47) = 27/34 + 45/47; 4/9 of the same: 24/17 + 80/47.
    Stage 1 is in the second alone: 45/47 and 20/47. Stage 2 is as ever.
    """
    oldest = [27 / 34 + 45 / 47, 24 / 17 + 80 / 47, 27 / 34 + 45 / 47]

    weights = weigh("cumulative", 2 / 3)

    assert weights == pytest.approx([*oldest, 45 / 47, 20 / 47, 27 / 29, 48 / 29, 12 / 29])
    assert weights[:5] != pytest.approx(weigh("stage", 2 / 3)[:5])


def test_the_printed_factors_in_a_row_fade_with_the_loss() -> None:
    """d^(2/3) times its stage's mean: 17/54, 13/72 and 29/108; 1/4, 4/9, 1/4 | 1/4, 1/9 and so on.

    Stage 0: 17/216, 34/243, 17/216. Stage 1: 13/288, 13/648. Stage 2: 29/432, 29/243, 29/972.
    """
    expected = [17 / 216, 34 / 243, 17 / 216, 13 / 288, 13 / 648, 29 / 432, 29 / 243, 29 / 972]

    assert weigh("product", 2 / 3) == pytest.approx(expected)


def test_one_group_for_all_compares_all() -> None:
    """p = 1: the mean is (17/24 + 11/24) / 8 = 7/48, so that d = 1/8 weighs 6/7."""
    assert weigh("none", 1.0)[0] == pytest.approx(6 / 7)


@pytest.mark.parametrize("weight", ["stage", "old_new", "none"])
def test_without_difficulty_all_samples_weigh_the_same(weight: Weighting) -> None:
    """p = 0: d^0 is 1, also for d = 0, and so is its mean."""
    assert weigh(weight, 0.0) == pytest.approx([1.0] * 8)


def test_a_stage_with_one_sample_gives_it_weight_one() -> None:
    """Its own mean is its own d^p."""
    members = membership([0, 1], 1, "stage").double()[torch.tensor([0, 1, 1])]

    weights = adaptive_weights(torch.tensor([0.01, 0.2, 0.6]).double(), members, 0.5)

    assert weights[0].item() == pytest.approx(1.0)


def test_a_stage_that_is_fully_learned_weighs_one() -> None:
    """d = 0 throughout a stage would be 0 / 0; the other stage keeps its weights."""
    members = membership([0, 1], 1, "stage")[torch.tensor([0, 0, 1, 1])]

    weights = adaptive_weights(torch.tensor([0.0, 0.0, 0.1, 0.3]), members, 1.0)

    assert weights.tolist() == pytest.approx([1.0, 1.0, 0.5, 1.5])


# Two samples of row 0, logits (0, 0) and (ln 3, 0): P is 1/2 and 3/4 in either family, d is 1/2
# and 1/4. The loss -ln P has the slope -d at the logit of row 0. With p = 1 the weights are
# d / (3/8), 4/3 and 2/3. Were w no constant, mean(w l) = (d0 l0 + d1 l1) / (d0 + d1) would have the
# slopes d1 (l0 - l1) / (3/4)^2 and d0 (l1 - l0) / (3/4)^2 at the gaps besides, l0 - l1 = ln(3/2),
# and a gap has the slope -d (1 - d) at its logit: -1/4 and -3/16. So -ln(3/2)/9 and ln(3/2)/6 more.
TWO_LOGITS = [[0.0, 0.0], [log(3), 0.0]]
BOTH_OF_ROW_0 = torch.tensor([0, 0])
IN_ONE_STAGE = membership([0], 0, "stage").double()[BOTH_OF_ROW_0]


def two_logits() -> Tensor:
    return torch.tensor(TWO_LOGITS, dtype=torch.float64, requires_grad=True)


def slopes(weights: Tensor, logits: Tensor, family: Family = "bce") -> list[float]:
    """Of the weighted loss, at the logits of row 0."""
    losses = classification(logits, BOTH_OF_ROW_0, family=family, reduction="sum")
    (slope,) = torch.autograd.grad((weights * losses).mean(), logits)
    found: list[float] = slope[:, 0].tolist()
    return found


@pytest.mark.parametrize("family", ["bce", "softmax"])
def test_no_gradient_flows_through_a_gap(family: Family) -> None:
    """Weighed by its own gap a sample's slope is -d * d / 2: -1/8 and -1/32.

    A gap that remembered its logit would add the loss times -d (1 - d) / 2: -ln 2 / 8 to the first.
    """
    logits = two_logits()

    gap = gaps(logits, BOTH_OF_ROW_0, family=family)

    assert slopes(gap, logits, family) == pytest.approx([-1 / 8, -1 / 32])


def test_no_gradient_flows_through_a_weight() -> None:
    """Also where gaps remember their logits: -(4/3)(1/2)/2 = -1/3 and -(2/3)(1/4)/2 = -1/12, the
    slopes under the constants 4/3 and 2/3. A weight that remembered too would have others.
    """
    logits = two_logits()
    remembering = (-logits[:, 0]).sigmoid()

    weights = adaptive_weights(remembering, IN_ONE_STAGE, 1.0, clamp=None)

    assert slopes(weights, logits) == pytest.approx([-1 / 3, -1 / 12])
    assert slopes(torch.tensor([4 / 3, 2 / 3]).double(), logits) == pytest.approx([-1 / 3, -1 / 12])
    quotient = remembering / remembering.mean()
    assert slopes(quotient, logits) == pytest.approx(
        [-1 / 3 - log(3 / 2) / 9, -1 / 12 + log(3 / 2) / 6]
    )


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(1e-6, 1.0)), min_size=1, max_size=32),
    st.floats(0.0, 1.0),
)
def test_over_each_stage_in_a_batch_the_mean_weight_is_one(
    samples: list[tuple[int, float]], exponent: float
) -> None:
    """Weight moves inside a stage, never between stages, for any gaps and any p in [0, 1]."""
    stages = torch.tensor([stage for stage, _ in samples])
    gap = torch.tensor([gap for _, gap in samples], dtype=torch.float64)

    members = membership([0, 1, 2, 3], 3, "stage").double()[stages]
    weights = adaptive_weights(gap, members, exponent, clamp=None)

    for stage in set(stages.tolist()):
        assert weights[stages == stage].mean().item() == pytest.approx(1.0, abs=1e-5)


def test_the_exponent_is_the_share_of_old_classes() -> None:
    """6 learned, 2 new: 6/8 for the client; stage 3: 3/4 for everybody; GLFC takes 1."""
    assert difficulty_exponent("client", learned=6, new=2, stage=1) == 6 / 8
    assert difficulty_exponent("stage", learned=6, new=2, stage=3) == 3 / 4
    assert difficulty_exponent("one", learned=6, new=2, stage=1) == 1


def test_a_client_that_met_no_new_class_takes_the_full_gap() -> None:
    """C_n = 0: p = 1."""
    assert difficulty_exponent("client", learned=6, new=0, stage=2) == 1


@pytest.mark.parametrize("exponent", ["client", "stage", "one"])
def test_a_client_that_learned_no_class_yet_does_not_weigh(exponent: Exponent) -> None:
    """A newcomer in stage 3 has p = 0 in every reading."""
    assert difficulty_exponent(exponent, learned=0, new=4, stage=3) == 0


def test_numbers_below_zero_are_refused() -> None:
    """Minus one class learned is a caller's mistake."""
    with pytest.raises(ValueError, match="-1 classes learned"):
        difficulty_exponent("client", learned=-1, new=1, stage=0)


def test_a_row_of_a_later_stage_is_refused() -> None:
    """In stage 1 no row can be of stage 2."""
    with pytest.raises(ValueError, match="in stage 1 no row"):
        membership([0, 2], 1, "stage")
