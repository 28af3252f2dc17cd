"""What the methods of related work add to fine-tuning, worked by hand (docs/method.md 7).

A net of which all convolutions are 0 sees nothing, and says its head's biases of every image.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learning.fisher import diagonal
from learning.lesson import Lesson, Step
from learning.nets import from_weights
from learning.shapes import HEAD_BIAS, Weights, first_model, grown, is_parameter
from learning.strategies.fedavg import FEDAVG
from learning.strategies.fedcurv import FEDCURV, FISHER, PULL
from learning.strategies.fedka import FEDKA
from learning.strategies.fedntd import FEDNTD
from learning.strategies.fedprox import FEDPROX
from learning.strategies.flwf2t import FLWF2T, earlier_model
from learning.strategies.joint import JOINT, ORACLE
from learning.strategies.paddings import padded
from learning.strategies.scaffold import SCAFFOLD
from learning.strategies.strategy import MODEL, RoundMean, Strategy
from learning.training import learn
from tests.learning.lessons import first_stage, lesson, same
from tests.paper.test_objectives import JOINT as KL_OF_OLD_ROWS
from tests.paper.test_objectives import ROWS, D

LN2, LN3 = log(2), log(3)


def blind(biases: list[float]) -> Weights:
    """A net that says these logits of every image."""
    chance = np.random.default_rng(0)
    net = grown(first_model(1, 1, chance), len(biases), chance)
    zeros = {name: np.zeros_like(t) for name, t in net.items() if is_parameter(name)}
    return {**net, **zeros, HEAD_BIAS: np.array(biases, np.float32)}


def told(strategy: Strategy, base: Weights, **changes: Any) -> Lesson:
    """A lesson of eight images in a third stage."""
    values: dict[str, Any] = {
        "base": base,
        "images": np.zeros((8, 1, 4, 4), np.uint8),
        "rows": np.array(ROWS),
        "stage_of_row": (0, 0, 1, 1, 2),
        "stage": 2,
    }
    return first_stage(strategy, **(values | changes))


def step(student: Weights, logits_BC: Tensor) -> Step:
    return Step(from_weights(student), torch.zeros(8, 1, 4, 4), torch.tensor(ROWS), logits_BC)


def of_the_table(sharper: int = 1) -> Tensor:
    """Logits whose true row has the gap of the table, and 0 elsewhere."""
    gaps_B, logits_BC = torch.tensor(D), torch.zeros(8, 5)
    logits_BC[range(8), ROWS] = sharper * ((1 - gaps_B) / gaps_B).log()
    return logits_BC


def term(strategy: Strategy, lesson: Lesson, shown: Step) -> float:
    assert strategy.term is not None
    return strategy.term(lesson)(shown).item()


def of_a_single_row(strategy: Strategy) -> float:
    """A term in the first stage, where there is one class."""
    base = blind([1.0])
    one = {"rows": np.zeros(8, np.int64), "stage_of_row": (0,), "stage": 0}
    shown = Step(
        from_weights(base), torch.zeros(8, 1, 4, 4), torch.zeros(8).long(), torch.ones(8, 1)
    )

    return term(strategy, told(strategy, base, **one), shown)


# --- FedProx --------------------------------------------------------------------------------------


def test_fedprox_pays_half_mu_for_the_squared_way_from_the_base() -> None:
    """Five biases have moved by 2: 0.01 / 2 * 20, and by five rows, as D_CE."""
    base = blind([1.0] * 5)
    moved = blind([3.0] * 5)
    summed = FEDPROX.under(reduction="sum")

    assert term(FEDPROX, told(FEDPROX, base), step(moved, of_the_table())) == pytest.approx(0.02)
    assert term(summed, told(summed, base), step(moved, of_the_table())) == pytest.approx(0.1)


# --- FedNTD ---------------------------------------------------------------------------------------


def test_fedntd_keeps_the_bases_opinion_of_the_rows_that_are_not_true() -> None:
    """The base says (ln 3, ln 2, 0, 0, 0), so shares (3, 2, 1, 1, 1); the student 1/4 each of four.

    Where row 0 is true (twice) (2, 1, 1, 1)/5 remain, where row 1 is (once) (3, 1, 1, 1)/6, else
    (3, 2, 1, 1)/7. By four rows and eight samples.
    """
    base = blind([LN3, LN2, 0.0, 0.0, 0.0])
    first = 2 / 5 * log(8 / 5) + 3 / 5 * log(4 / 5)
    second = 1 / 2 * log(2) + 1 / 2 * log(2 / 3)
    others = 3 / 7 * log(12 / 7) + 2 / 7 * log(8 / 7) + 2 / 7 * log(4 / 7)
    expected = (2 * first + second + 5 * others) / 8

    def seen(strategy: Strategy) -> float:
        return term(strategy, told(strategy, base), step(base, of_the_table()))

    assert seen(FEDNTD) == pytest.approx(expected / 4, rel=1e-5)
    assert seen(FEDNTD.under(reduction="sum")) == pytest.approx(expected, rel=1e-5)


def test_fedntd_does_not_look_at_the_true_row() -> None:
    """However sure the student is of the truth, the term is the same, and has no gradient there."""
    base = blind([LN3, LN2, 0.0, 0.0, 0.0])
    logits_BC = of_the_table(sharper=3).requires_grad_()
    assert FEDNTD.term is not None
    loss = FEDNTD.term(told(FEDNTD, base))(step(base, logits_BC))
    torch.autograd.backward(loss)

    assert loss.item() == pytest.approx(
        term(FEDNTD, told(FEDNTD, base), step(base, of_the_table())), rel=1e-5
    )
    assert logits_BC.grad is not None
    assert not logits_BC.grad[range(8), ROWS].any()
    assert logits_BC.grad.any()


def test_of_a_single_row_fedntd_has_no_opinion() -> None:
    """There is no other."""
    assert of_a_single_row(FEDNTD) == 0.0


# --- FLwF-2T --------------------------------------------------------------------------------------


def kept(newest: Weights, when: int, earlier: Weights | None = None) -> dict[str, Weights]:
    found = {"newest": newest, "when": {"stage": np.array([when], np.float32)}}
    return found | ({"earlier": earlier} if earlier is not None else {})


UNIFORM = {
    1 / 8: log(11 / 5) - log(7) / 5,
    8 / 27: log(51 / 40) - log(19 / 8) / 5,
    1 / 27: log(6) - log(26) / 5,
}
"""KL of 1/5 each to shares of odds (1-d)/d at one row and 1 at four: ln(sum / 5) - ln(odds) / 5."""


def test_flwf2t_is_taught_by_the_base_and_by_the_twins_own_model() -> None:
    """At temperature 2 the doubled logits are the table's, and each divergence counts fourfold.

    The base says nothing: 1/5 each. The own model knows four rows and says twice (ln 3, 0, 0, 0).
    """
    base, own = blind([0.0] * 5), blind([2 * LN3, 0.0, 0.0, 0.0])
    of_base = 4 * sum(UNIFORM[d] for d in D) / 8 / 5
    of_own = 4 * sum(KL_OF_OLD_ROWS) / 8
    shown = step(base, of_the_table(sharper=2))

    alone = told(FLWF2T, base)
    both = told(FLWF2T, base, kept=kept(own, when=1))

    assert term(FLWF2T, alone, shown) == pytest.approx(of_base, rel=1e-5)
    assert term(FLWF2T, both, shown) == pytest.approx(of_base + of_own, rel=1e-5)


def test_in_the_first_stage_nobody_teaches() -> None:
    """The base is untrained there, and there is nothing to keep."""
    assert of_a_single_row(FLWF2T) == 0.0


def test_the_own_teacher_is_of_an_earlier_stage() -> None:
    """What was trained in this stage teaches in the next one; until then the one before does."""
    base, first, second = blind([0.0] * 5), blind([1.0] * 2), blind([2.0] * 5)

    assert earlier_model(told(FLWF2T, base)) is None
    assert earlier_model(told(FLWF2T, base, kept=kept(second, when=2))) is None
    assert earlier_model(told(FLWF2T, base, kept=kept(second, when=2, earlier=first))) is first
    assert earlier_model(told(FLWF2T, base, kept=kept(first, when=1))) is first


def test_a_twin_keeps_its_newest_model_and_that_of_an_earlier_stage() -> None:
    """And sends neither."""
    base, first, second = blind([0.0] * 5), blind([1.0] * 2), blind([2.0] * 5)
    assert FLWF2T.groups is not None
    sent = FLWF2T.groups(told(FLWF2T, base, kept=kept(first, when=1)), second, 3)

    assert sent.send == {}
    assert same(sent.keep["newest"], second)
    assert same(sent.keep["earlier"], first)
    assert sent.keep["when"]["stage"] == [2.0]


# --- SCAFFOLD -------------------------------------------------------------------------------------

ONE_STEP = {"batch_size": 64, "epochs": 1, "weight_decay": 0.0}


def test_scaffold_halves_a_step_of_which_half_the_twins_know() -> None:
    """Two rounds of one step. Round 1 has no control: the twin keeps g = (base - theta) / rate.

    One of two members was counted, so c = g / 2. Round 2 from the same base has gradient g again,
    corrected by c - c_l = -g / 2: the step is half as long, and c_l+ = c_l - c + g / 2 = g.
    """
    first = learn(first_stage(SCAFFOLD, **ONE_STEP))
    base = first_stage("fedavg").base
    mean = {MODEL: first.weights, **first.send}
    after = SCAFFOLD.settled(RoundMean({MODEL: dict(base)}, mean, counted=1, members=2))

    received = {"control": after["control"]}
    second = learn(first_stage(SCAFFOLD, received=received, kept=first.keep, **ONE_STEP))

    for name in filter(is_parameter, base):
        whole = first.weights[name] - base[name]
        half = second.weights[name] - base[name]
        assert np.allclose(half, whole / 2, atol=1e-6)
        assert np.allclose(first.keep["control"][name], -whole / 0.1, atol=1e-6)
        assert np.allclose(second.keep["control"][name], -whole / 0.1, atol=2e-5)
        assert np.allclose(second.send["control"][name], 0, atol=2e-5)
    assert np.abs(first.weights["fc.weight"] - base["fc.weight"]).max() > 1e-4


def test_scaffolds_c_is_the_mean_of_all_members_also_of_who_has_joined() -> None:
    """Two members with c_l = 1; then four, of whom the two new ones come to 1 as well."""

    def one() -> Weights:
        return {HEAD_BIAS: np.ones(1, np.float32)}

    both = SCAFFOLD.settled(RoundMean({}, {MODEL: {}, "control": one()}, counted=2, members=2))
    joined = SCAFFOLD.settled(RoundMean(both, {MODEL: {}, "control": one()}, counted=2, members=4))

    assert both["control"][HEAD_BIAS].tolist() == [1.0]
    assert joined["control"][HEAD_BIAS].tolist() == [1.0]


def test_rows_that_have_grown_since_have_no_control_yet() -> None:
    """c has two rows and c_l one; the gradient of the third is left alone."""
    received = {"control": {HEAD_BIAS: np.array([5.0, 7.0], np.float32)}}
    mine = {"control": {HEAD_BIAS: np.array([1.0], np.float32)}}
    lesson = told(SCAFFOLD, blind([0.0] * 5), received=received, kept=mine)
    gradients = {HEAD_BIAS: torch.ones(5)}
    assert SCAFFOLD.correction is not None
    SCAFFOLD.correction(lesson)(gradients)

    assert gradients[HEAD_BIAS].tolist() == [1 + 5 - 1, 1 + 7, 1, 1, 1]


def test_a_lesson_without_a_step_leaves_the_control_as_it_was() -> None:
    """One image makes no batch: nothing divides by zero steps."""
    mine = {"control": {HEAD_BIAS: np.array([1.0], np.float32)}}
    one = {"images": np.zeros((1, 1, 4, 4), np.uint8), "rows": np.array([0])}
    learned = learn(told(SCAFFOLD, blind([0.0] * 5), kept=mine, **one))

    assert learned.keep["control"][HEAD_BIAS].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert not any(tensor.any() for tensor in learned.send["control"].values())


# --- FedCurv --------------------------------------------------------------------------------------


def test_fedcurv_pulls_to_where_the_others_are_sensitive() -> None:
    """Everybody's F is 4 and F theta 8 on four rows; this twin's own are 1 and 2.

    Of the others 3 and 6 remain: (3 - 2 * 6) for each of four biases of 1, and nothing for a row
    that has grown since. Least at theta = 6 / 3. By five rows, as D_CE.
    """

    def rows(value: float) -> Weights:
        return {HEAD_BIAS: np.full(4, value, np.float32)}

    lesson = told(
        FEDCURV,
        blind([0.0] * 5),
        received={FISHER: rows(4.0), PULL: rows(8.0)},
        kept={FISHER: rows(1.0), PULL: rows(2.0)},
    )
    values = [
        term(FEDCURV, lesson, step(blind([at] * 5), of_the_table())) for at in (1.0, 2.0, 3.0)
    ]

    assert values == pytest.approx(
        [each / 5 for each in (4 * (3 - 12), 4 * (12 - 24), 4 * (27 - 36))]
    )


@pytest.mark.parametrize("steep", [1.0, 1e6])
def test_fedcurv_comes_to_where_the_others_are_however_steep_they_are(steep: float) -> None:
    """F = 1 and 10^6 at theta_j = 1, from 0 at rate 0.5, by five rows: k = 1/5.

    A step of the penalty alone ends at 2 eta k F / (1 + 2 eta k F) of the way: 1/6, and all of it.
    A plain one would go 200,000 times as far as it should.
    """
    rows = {HEAD_BIAS: np.full(5, steep, np.float32)}
    lesson = told(FEDCURV, blind([0.0] * 5), received={FISHER: rows, PULL: rows}, learning_rate=0.5)
    net = from_weights(blind([0.0] * 5))
    named = dict(net.named_parameters())
    assert FEDCURV.term is not None
    assert FEDCURV.correction is not None
    shown = Step(net, torch.zeros(8, 1, 4, 4), torch.tensor(ROWS), of_the_table())
    torch.autograd.backward(FEDCURV.term(lesson)(shown))
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    FEDCURV.correction(lesson)(gradients)
    after = -0.5 * gradients[HEAD_BIAS]

    assert after.tolist() == pytest.approx([{1.0: 1 / 6, 1e6: 1.0}[steep]] * 5, rel=1e-5)


def test_where_nobody_else_is_sensitive_nothing_pulls() -> None:
    """Behind a rollback a twin may have kept more than all have sent: no penalty is left."""
    less, more = ({HEAD_BIAS: np.full(5, value, np.float32)} for value in (1.0, 3.0))
    lesson = told(
        FEDCURV,
        blind([0.0] * 5),
        received={FISHER: less, PULL: less},
        kept={FISHER: more, PULL: more},
    )

    assert term(FEDCURV, lesson, step(blind([9.0] * 5), of_the_table())) == 0.0


def test_a_diagonal_is_the_mean_squared_gradient() -> None:
    """A net that is undecided of five rows: 1/2 - y at each, so 1/4, and 0 elsewhere."""
    fisher = diagonal(told(FEDCURV, blind([0.0] * 5)), blind([0.0] * 5), most=3)

    assert np.allclose(fisher[HEAD_BIAS], 0.25)
    assert not fisher["fc.weight"].any()
    assert fisher.keys() == set(filter(is_parameter, blind([0.0] * 5)))


def test_a_diagonal_is_taken_of_images_spread_over_the_lesson() -> None:
    """Of eight images at most four: 0, 2, 4, 6, of rows 0, 0, 3, 4. A sure logit has no slope."""
    net = blind([0.0, 0.0, 0.0, 0.0, 200.0])
    fisher = diagonal(told(FEDCURV, net), net, most=4)

    assert np.allclose(fisher[HEAD_BIAS][:4], 0.25)
    assert np.isclose(fisher[HEAD_BIAS][4], 3 / 4)  # 1 at rows 0, 0 and 3


def test_a_twin_tells_by_how_much_its_sensitivities_have_changed() -> None:
    """It kept 1 and 1 of two rows; now they are 1/4, and by a bias of 0 nothing."""
    before = {FISHER: {HEAD_BIAS: np.ones(2, np.float32)},
              PULL: {HEAD_BIAS: np.ones(2, np.float32)}}  # fmt: skip
    lesson = told(FEDCURV, blind([0.0] * 5), kept=before)
    assert FEDCURV.groups is not None
    sent = FEDCURV.groups(lesson, blind([0.0] * 5), 3)

    assert np.allclose(sent.send[FISHER][HEAD_BIAS], [-0.75, -0.75, 0.25, 0.25, 0.25])
    assert sent.send[PULL][HEAD_BIAS].tolist() == [-1, -1, 0, 0, 0]
    assert np.allclose(sent.keep[FISHER][HEAD_BIAS], 0.25)


def test_the_aggregator_adds_up_what_three_twins_have_changed() -> None:
    """10 before, 1/2 on the mean of three: 11.5; what it did not know yet begins at 0."""
    half = {HEAD_BIAS: np.full(2, 0.5, np.float32)}
    before = {MODEL: {}, FISHER: {HEAD_BIAS: np.full(1, 10.0, np.float32)}}
    mean = {MODEL: blind([0.0]), FISHER: half, PULL: half}

    after = FEDCURV.settled(RoundMean(before, mean, counted=3, members=9))

    assert after[FISHER][HEAD_BIAS].tolist() == [11.5, 1.5]
    assert after[PULL][HEAD_BIAS].tolist() == [1.5, 1.5]
    assert after[MODEL] is mean[MODEL]


# --- upper bounds, and what they share ------------------------------------------------------------


def test_upper_bounds_are_fine_tuning_that_keeps_all_images() -> None:
    """And the oracle is one node. Neither has a paper of its own to cite."""
    cited: dict[str, Any] = {"paper": FEDAVG.paper, "year": FEDAVG.year}

    assert replace(JOINT, name="fedavg", memory="none", **cited) == FEDAVG
    assert replace(ORACLE, name="joint", pooled=False, paper=JOINT.paper) == JOINT
    assert {each.year for each in (JOINT, ORACLE)} == {None}


def test_fedka_without_its_terms_is_fine_tuning_with_a_memory() -> None:
    """alpha 1, beta and gamma 0, no weight: on the same images the same bytes."""
    bare = FEDKA.under(alpha=1.0, beta=0.0, gamma=0.0, weight="none")

    assert same(learn(lesson(bare)).weights, learn(lesson("fedavg")).weights)


def test_fedka_in_the_first_stage_is_plain_training_at_twice_the_rate() -> None:
    """2 L_CE, and every weight 1: a step of 2 g at rate 0.1 is a step of g at 0.2, bit for bit."""
    hers = learn(first_stage("fedka", learning_rate=0.1, weight_decay=0.0))
    plain = learn(first_stage("fedavg", learning_rate=0.2, weight_decay=0.0))

    assert same(hers.weights, plain.weights)


def test_image_steps_take_the_place_of_epochs() -> None:
    """Forty images in batches of 16, 16 and 8: 50 are passed with the fourth, of a second epoch.

    As many as two epochs have are two epochs, byte for byte.
    """
    assert learn(first_stage("fedavg", image_steps=50)).metrics["steps"] == 4
    assert learn(first_stage("fedavg", image_steps=1)).metrics["steps"] == 1
    assert same(
        learn(first_stage("fedavg", image_steps=80)).weights, learn(first_stage("fedavg")).weights
    )


def test_one_image_ends_a_lesson_of_any_length() -> None:
    """It makes no batch, however many image-steps are asked for."""
    one = {"images": np.zeros((1, 1, 4, 4), np.uint8), "rows": np.array([0])}

    assert learn(told(ORACLE, blind([0.0] * 5), image_steps=9, **one)).metrics["steps"] == 0


def test_a_group_of_an_earlier_stage_is_filled_up_with_zeros() -> None:
    """Rows are appended; parameters that it lacks are 0, and what is no parameter is not in it."""
    like = blind([0.0] * 3)

    filled = padded({HEAD_BIAS: np.array([1.0, 2.0], np.float32)}, like)

    assert filled[HEAD_BIAS].tolist() == [1.0, 2.0, 0.0]
    assert filled.keys() == set(filter(is_parameter, like))
    assert not filled["conv1.weight"].any()
