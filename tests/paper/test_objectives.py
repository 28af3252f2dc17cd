"""Whole objectives on one batch of eight samples and three stages, by hand (docs/method.md 7).

Five rows: 0 and 1 are of stage 0, 2 and 3 of stage 1, row 4 of stage 2, the current one. The
student gives every sample the logit ln((1-d)/d) at its true row and 0 elsewhere, so that its gap is
d; the teacher gives (ln 3, 0, 0, 0), sigmoids (3/4, 1/2, 1/2, 1/2), to all.

    sample            0     1     2     3     4     5     6     7
    row               0     1     0     2     3     4     4     4
    d                1/8  8/27   1/8   1/8  1/27   1/8  8/27  1/27
    d^(2/3)          1/4   4/9   1/4   1/4   1/9   1/4   4/9   1/9

The client learned 4 classes and meets 2 new ones in stage 2, so p = 4/6 = 2/3 = t/(t+1) in both
readings. Weights are worked out in test_adaptive_weights.py. With sigmoids the true row costs
-ln(1-d) and each other row ln 2.

In the softmax family a logit of ln(4(1-d)/d) at the true row gives the same gaps, and so the same
weights: 4(1-d)/d against four rows of 1 is a share of 1-d, and each other row has d/4.
"""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.recipes import recipe
from learning.augmentation import Transform
from learning.lesson import Lesson
from learning.nets import ResNet18
from learning.objective import LocalObjective
from learning.shapes import first_model, grown
from learning.strategies import STRATEGIES
from learning.strategies.choice import chosen
from learning.strategies.fedavg import FEDAVG
from learning.strategies.fedka import FEDKA
from learning.strategies.glfc import GLFC
from learning.strategies.icarl import ICARL
from learning.strategies.lga import LGA
from learning.strategies.lwm import LWM
from learning.strategies.strategy import Strategy

LN2, LN3 = log(2), log(3)
ROWS = [0, 1, 0, 2, 3, 4, 4, 4]
D = [1 / 8, 8 / 27, 1 / 8, 1 / 8, 1 / 27, 1 / 8, 8 / 27, 1 / 27]
# LGA's and FedKA's weights; 12/29 is clamped to 1/2.
W = [27 / 34, 24 / 17, 27 / 34, 18 / 13, 8 / 13, 27 / 29, 48 / 29, 1 / 2]
# With the cumulative groups: 20/47 is clamped as well.
OLDEST = 27 / 34 + 45 / 47
W_CUMULATIVE = [OLDEST, 24 / 17 + 80 / 47, OLDEST, 45 / 47, 1 / 2, 27 / 29, 48 / 29, 1 / 2]
W_GLFC = [15 / 17, 320 / 153, 15 / 17, 15 / 17, 40 / 153, 9 / 11, 64 / 33, 8 / 33]

# Binary cross-entropy with the label: (4 ln 2 - ln(1 - d)) / 5.
LABEL = [(4 * LN2 - log(1 - d)) / 5 for d in D]
# With the teacher's sigmoids for old rows and the label for the new one: a true row with target s
# costs ln(1 + e^z) - s z = -ln d - s ln((1 - d)/d).
TARGET = {0: 3 / 4, 1: 1 / 2, 2: 1 / 2, 3: 1 / 2, 4: 1.0}
SOFT = [(4 * LN2 - log(d) - TARGET[y] * log((1 - d) / d)) / 5 for y, d in zip(ROWS, D, strict=True)]
# KL(teacher || student) in the blocks {0, 1} and {2, 3}, by the 4 old rows. An undecided student
# pays 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2 in the first block.
UNDECIDED = 3 / 4 * LN3 - LN2
BLOCKS = [
    (3 / 4 * log(6 / 7) + 1 / 4 * log(2)) / 4,  # (3/4, 1/4) against (7/8, 1/8)
    (3 / 4 * log(81 / 32) + 1 / 4 * log(27 / 76)) / 4,  # against (8/27, 19/27)
    (3 / 4 * log(6 / 7) + 1 / 4 * log(2)) / 4,
    (UNDECIDED + 1 / 2 * log(4 / 7) + 1 / 2 * log(4)) / 4,  # (1/2, 1/2) against (7/8, 1/8)
    (UNDECIDED + 1 / 2 * log(27 / 52) + 1 / 2 * log(27 / 2)) / 4,  # against (26/27, 1/27)
    UNDECIDED / 4,
    UNDECIDED / 4,
    UNDECIDED / 4,
]
# KL(teacher || student) among all four old rows, by 4: (3, 1, 1, 1)/6 against (7, 1, 1, 1)/10, ...
UNSHAPEN = 1 / 2 * log(4 / 3)  # against 1/4 each: 1/2 ln 2 + 1/2 ln(2/3)
JOINT = [
    (1 / 2 * log(5 / 7) + 1 / 2 * log(5 / 3)) / 4,
    (1 / 2 * log(43 / 16) + 1 / 6 * log(43 / 114) + 1 / 3 * log(43 / 48)) / 4,  # (8, 19, 8, 8)/43
    (1 / 2 * log(5 / 7) + 1 / 2 * log(5 / 3)) / 4,
    (1 / 2 * log(5) + 1 / 6 * log(5 / 21) + 1 / 3 * log(5 / 3)) / 4,  # (1, 1, 7, 1)/10
    (1 / 2 * log(29 / 2) + 1 / 6 * log(29 / 156) + 1 / 3 * log(29 / 6)) / 4,  # (1, 1, 1, 26)/29
    UNSHAPEN / 4,
    UNSHAPEN / 4,
    UNSHAPEN / 4,
]
# Student maps point to (.6, .8), the teacher's to (.8, .6): (0.2 + 0.2) / 2 cells. The last
# sample's teacher looks nowhere.
MAPS = [0.2] * 7 + [0.0]


class Recited(ResNet18):
    """A net that recites given maps and logits; its map of class c is channel c."""

    def __init__(self, maps_BCQ: Tensor, logits_BC: Tensor) -> None:
        images, classes, cells = maps_BCQ.shape
        super().__init__(1, 1, classes)
        self.fc.weight.data = torch.eye(classes, 8)
        self._a_BKHW = torch.zeros(images, 8, 1, cells)
        self._a_BKHW[:, :classes, 0] = maps_BCQ
        self._logits_BC = logits_BC

    def maps_and_logits(self, x_BcHW: Tensor) -> tuple[Tensor, Tensor]:
        return self._a_BKHW, self._logits_BC


LOOKS = [[3.0, 4.0]] * 5
TEACHER_LOOKS = [[4.0, 3.0]] * 4
"""Where student and teacher look for each of their classes, in every sample but the last."""


def told(
    strategy: Strategy,
    *,
    learned: int = 4,
    taught: bool = True,
    others: int = 1,
    sharper: int = 1,
    looks: list[list[float]] = LOOKS,
    teacher_looks: list[list[float]] = TEACHER_LOOKS,
) -> dict[str, float]:
    """What the objective says of the batch.

    A true row has `others` times the odds of the table, and all logits are `sharper` times as high.
    """
    chance = np.random.default_rng(0)
    lesson = Lesson(
        strategy=strategy,
        base=grown(first_model(1, 1, chance), 5, chance),
        teacher=grown(first_model(1, 1, chance), 4, chance) if taught else None,
        images=np.zeros((8, 1, 4, 4), np.uint8),
        rows=np.array(ROWS),
        stage_of_row=(0, 0, 1, 1, 2),
        stage=2,
        learned=learned,
        new=2,
        transform=Transform((0.5,), (0.5,)),
        generator=lambda purpose, epoch: chance,
        learning_rate=0.1,
    )
    logits_BC, gaps_B = torch.zeros(8, 5), torch.tensor(D)
    logits_BC[range(8), ROWS] = sharper * (others * (1 - gaps_B) / gaps_B).log()
    student = Recited(torch.tensor([looks] * 8), logits_BC)
    teacher_maps_BCQ = torch.tensor([teacher_looks] * 8)
    teacher_maps_BCQ[7] = 0
    teacher = Recited(teacher_maps_BCQ, torch.tensor([[sharper * LN3, 0.0, 0.0, 0.0]] * 8))
    objective = LocalObjective(lesson, student, teacher if taught else None)
    seen = objective(torch.zeros(8, 1, 4, 4), torch.tensor(ROWS))
    return {name: value.item() for name, value in seen.items()}


def mean(weights: list[float], losses: list[float]) -> float:
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / 8


ONES = [1.0] * 8


def test_fedka_is_twice_the_balance_plus_both_distillations() -> None:
    """2 L_CB + L_SD + L_AD, all three weighted."""
    seen = told(FEDKA)

    assert seen["classification"] == pytest.approx(mean(W, LABEL))
    assert seen["semantic"] == pytest.approx(mean(W, BLOCKS), rel=1e-5)
    assert seen["attention"] == pytest.approx(mean(W, MAPS))
    assert seen["loss"] == pytest.approx(
        2 * mean(W, LABEL) + mean(W, BLOCKS) + mean(W, MAPS), rel=1e-5
    )
    assert seen["empty_maps"] == 0
    assert seen["empty_teacher_maps"] == 1 / 8


def test_fedka_in_the_softmax_family_weighs_shares() -> None:
    """2 L_CB + L_SD + L_AD with P a soft-max: at four times the odds gaps and weights are the same.

    D_CE is -ln(1-d) / 5. In the true row's block its odds are 28, 19/2 or 104 against 1.
    """
    label = [-log(1 - d) / 5 for d in D]
    twenty_eight = (3 / 4 * log(87 / 112) + 1 / 4 * log(29 / 4)) / 4  # (3/4, 1/4) to (28, 1)/29
    blocks = [
        twenty_eight,
        (3 / 4 * log(63 / 8) + 1 / 4 * log(21 / 76)) / 4,  # to (2, 19)/21
        twenty_eight,
        (UNDECIDED + 1 / 2 * log(29 / 56) + 1 / 2 * log(29 / 2)) / 4,  # (1/2, 1/2) to (28, 1)/29
        (UNDECIDED + 1 / 2 * log(105 / 208) + 1 / 2 * log(105 / 2)) / 4,  # to (1, 104)/105
        *[UNDECIDED / 4] * 3,
    ]

    seen = told(FEDKA.under(family="softmax"), others=4)

    assert seen["classification"] == pytest.approx(mean(W, label), rel=1e-5)
    assert seen["semantic"] == pytest.approx(mean(W, blocks), rel=1e-5)
    assert seen["loss"] == pytest.approx(
        2 * mean(W, label) + mean(W, blocks) + mean(W, MAPS), rel=1e-5
    )


def test_the_literal_preset_sums_slices_and_the_label_and_clamps_nothing() -> None:
    """2 L_CB + L_SD + L_AD; no term is divided by its outputs, and 12/29 stays as it is.

    D_CE is -ln(1-d). L_SD takes (3, 1, 1, 1)/6 to the student's shares among all five rows, 1-d at
    the true row and d/4 elsewhere; a new sample pays -ln(1-d) besides. Maps differ by 0.2 + 0.2.
    """
    preset = recipe("smoke", "literal")
    weights = [*W[:7], 12 / 29]
    label = [-log(1 - d) for d in D]
    first = 1 / 2 * log(4 / 7) + 1 / 2 * log(16 / 3)  # shares (7/8, 1/32, 1/32, 1/32)
    slices = [
        first,
        1 / 2 * log(27 / 4) + 1 / 6 * log(9 / 38) + 1 / 3 * log(9 / 4),  # (2, 19, 2, 2)/27
        first,
        1 / 2 * log(16) + 1 / 6 * log(4 / 21) + 1 / 3 * log(16 / 3),  # (1, 1, 28, 1)/32
        1 / 2 * log(54) + 1 / 6 * log(9 / 52) + 1 / 3 * log(18),  # (1, 1, 1, 104)/108
        1 / 2 * log(16) + 1 / 2 * log(16 / 3) + log(8 / 7),  # (1, 1, 1, 1)/32, and 7/8
        1 / 2 * log(27 / 4) + 1 / 2 * log(9 / 4) + log(27 / 19),  # (2, 2, 2, 2)/27, and 19/27
        1 / 2 * log(54) + 1 / 2 * log(18) + log(27 / 26),  # (1, 1, 1, 1)/108, and 26/27
    ]
    maps = [0.4] * 7 + [0.0]

    seen = told(chosen("fedka", preset.switches), others=4)

    assert seen["classification"] == pytest.approx(mean(weights, label), rel=1e-5)
    assert seen["semantic"] == pytest.approx(mean(weights, slices), rel=1e-5)
    assert seen["attention"] == pytest.approx(mean(weights, maps), rel=1e-5)
    assert seen["loss"] == pytest.approx(
        2 * mean(weights, label) + mean(weights, slices) + mean(weights, maps), rel=1e-5
    )


def test_each_ablation_takes_one_thing_away() -> None:
    """No class balance: weight 1 in the first term, whose coefficient stays. No L_SD, no L_AD. No
    weight in L_AD.
    """
    balance, semantic, attention = 2 * mean(W, LABEL), mean(W, BLOCKS), mean(W, MAPS)
    expected = {
        "fedka-no-cbl": 2 * mean(ONES, LABEL) + semantic + attention,
        "fedka-no-sdl": balance + attention,
        "fedka-no-adl": balance + semantic,
        "fedka-no-wadl": balance + semantic + mean(ONES, MAPS),
    }

    for name, loss in expected.items():
        assert told(STRATEGIES[name])["loss"] == pytest.approx(loss, rel=1e-5)


def test_lga_weighs_both_of_its_terms() -> None:
    """mean(w BCE(z, y)) + mean(w BCE(z, [teacher | label])), coefficients 1."""
    assert told(LGA)["loss"] == pytest.approx(mean(W, LABEL) + mean(W, SOFT), rel=1e-5)


def test_lgas_groups_that_are_not_reset_change_the_result() -> None:
    """With `weight: cumulative` old samples weigh more, and the loss is another."""
    seen = told(LGA.under(weight="cumulative"))["loss"]

    assert seen == pytest.approx(mean(W_CUMULATIVE, LABEL) + mean(W_CUMULATIVE, SOFT), rel=1e-5)
    assert abs(seen - told(LGA)["loss"]) > 0.05


def test_glfc_weighs_the_first_of_two_halves() -> None:
    """0.5 mean(w BCE(z, y)) + 0.5 mean BCE(z, [teacher | label])."""
    expected = 0.5 * mean(W_GLFC, LABEL) + 0.5 * mean(ONES, SOFT)

    assert told(GLFC)["loss"] == pytest.approx(expected, rel=1e-5)


def test_glfc_without_learned_classes_is_half_of_each() -> None:
    """A newcomer weighs nothing: 0.5 BCE + 0.5 BCE with the teacher."""
    expected = 0.5 * mean(ONES, LABEL) + 0.5 * mean(ONES, SOFT)

    assert told(GLFC, learned=0)["loss"] == pytest.approx(expected, rel=1e-5)


def test_glfc_without_a_teacher_has_its_first_term_alone() -> None:
    """Its coefficient is then 1."""
    assert told(GLFC, taught=False)["loss"] == pytest.approx(mean(W_GLFC, LABEL), rel=1e-5)


def test_icarl_is_the_second_term_of_glfc() -> None:
    """With coefficient 1, and no other; without a teacher it is the plain mean."""
    assert told(ICARL)["loss"] == pytest.approx(mean(ONES, SOFT), rel=1e-5)
    assert "classification" not in told(ICARL)
    assert told(ICARL, taught=False)["loss"] == pytest.approx(mean(ONES, LABEL), rel=1e-5)


def test_icarl_in_the_softmax_family_distils_all_old_rows_at_temperature_two() -> None:
    """D_CE + KD. All logits are twice as high: temperature 2 makes them those of the table.

    The true rows' odds are then 7^2, (19/8)^2 and 26^2, against four rows of 1: -ln(49/53) / 5 and
    so on. KD is 2^2 times that of the table's logits: ln(4/3) / 2 for each new sample.
    """
    seen = told(ICARL.under(family="softmax"), sharper=2)
    eighth, most, least = log(53 / 49) / 5, log(617 / 361) / 5, log(170 / 169) / 5
    label = [eighth, most, eighth, eighth, least, eighth, most, least]

    assert seen["classification"] == pytest.approx(mean(ONES, label), rel=1e-5)
    assert seen["semantic"] == pytest.approx(4 * mean(ONES, JOINT), rel=1e-5)
    assert seen["loss"] == pytest.approx(mean(ONES, label) + 4 * mean(ONES, JOINT), rel=1e-5)


def test_in_the_softmax_family_glfc_and_lga_distil_all_old_rows_at_once() -> None:
    """Each BCE becomes its softmax counterpart; LGA weighs the divergence, GLFC does not.

    At four times the odds gaps and weights are the table's; among old rows a true one then has
    28, 19/2 or 104 against 1 each of the others.
    """
    eighth = (1 / 2 * log(31 / 56) + 1 / 2 * log(31 / 6)) / 4  # (3, 1, 1, 1)/6 to (28, 1, 1, 1)/31
    joint = [
        eighth,
        (1 / 2 * log(25 / 4) + 1 / 6 * log(25 / 114) + 1 / 3 * log(25 / 12))
        / 4,  # (2, 19, 2, 2)/25
        eighth,
        (1 / 2 * log(31 / 2) + 1 / 6 * log(31 / 168) + 1 / 3 * log(31 / 6)) / 4,  # (1, 1, 28, 1)/31
        (1 / 2 * log(107 / 2) + 1 / 6 * log(107 / 624) + 1 / 3 * log(107 / 6)) / 4,
        *[UNSHAPEN / 4] * 3,
    ]
    for strategy, coefficient, weights in ((GLFC, 0.5, ONES), (LGA, 1.0, W)):
        seen = told(strategy.under(family="softmax"), others=4)

        assert seen["semantic"] == pytest.approx(mean(weights, joint), rel=1e-5)
        assert seen["loss"] == pytest.approx(
            coefficient * (seen["classification"] + seen["semantic"]), rel=1e-5
        )


def test_lwm_weighs_nothing() -> None:
    """D_CE + KD + LQ, all plain; the new samples pay KL((3, 1, 1, 1)/6 || 1/4) / 4."""
    seen = told(LWM)

    assert seen["classification"] == pytest.approx(mean(ONES, LABEL))
    assert seen["semantic"] == pytest.approx(mean(ONES, JOINT), rel=1e-5)
    assert seen["attention"] == pytest.approx(mean(ONES, MAPS))
    assert seen["loss"] == pytest.approx(
        mean(ONES, LABEL) + mean(ONES, JOINT) + mean(ONES, MAPS), rel=1e-5
    )


def test_lwm_may_classify_among_the_current_rows_alone() -> None:
    """Row 4 of its own: -ln(1 - d) for the last three samples, nothing for the others."""
    expected = sum(-log(1 - d) for d in D[5:]) / 8

    seen = told(LWM.under(cls_rows="current"))

    assert seen["classification"] == pytest.approx(expected)


def test_fine_tuning_is_the_plain_mean() -> None:
    """And does not ask the teacher."""
    seen = told(FEDAVG, taught=False)

    assert seen == {"loss": pytest.approx(mean(ONES, LABEL)), "classification": seen["loss"]}


def test_fedka_without_a_teacher_is_the_weighted_balance_twice() -> None:
    """Stage 0 has no teacher; a newcomer's weights are 1 besides."""
    assert told(FEDKA, taught=False)["loss"] == pytest.approx(2 * mean(W, LABEL))
    assert told(FEDKA, taught=False, learned=0)["loss"] == pytest.approx(2 * mean(ONES, LABEL))


def test_sums_are_means_times_their_outputs() -> None:
    """`reduction: sum`: L_CB five times (rows), L_SD four times (old rows), L_AD twice (cells)."""
    seen = told(FEDKA.under(reduction="sum"))

    assert seen["classification"] == pytest.approx(5 * mean(W, LABEL))
    assert seen["semantic"] == pytest.approx(4 * mean(W, BLOCKS), rel=1e-5)
    assert seen["attention"] == pytest.approx(2 * mean(W, MAPS))


def test_with_maps_of_its_own_each_model_explains_what_it_sees_itself() -> None:
    """`ad_class: own`: the teacher's map is that of row 0, which it always prefers, (4, 3)/5.

    The student prefers the true row of each sample, also the new one, and looks for the five at
    (3, 4)/5, (4, 3)/5, (0, 1), (1, 0), (24, 7)/25: 0.4, 0, 1.2, 0.8 and 0.16 + 0.32 by two cells.
    The teacher would look elsewhere for rows 1 to 3. The last sample's teacher looks nowhere.
    """
    own = [0.2, 0.0, 0.2, 0.6, 0.4, 0.24, 0.24, 0.0]

    seen = told(
        FEDKA.under(ad_class="own"),
        looks=[[3.0, 4.0], [4.0, 3.0], [0.0, 1.0], [1.0, 0.0], [24.0, 7.0]],
        teacher_looks=[[4.0, 3.0], *[[0.0, 1.0]] * 3],
    )

    assert seen["attention"] == pytest.approx(mean(W, own), rel=1e-5)
