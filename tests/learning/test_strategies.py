"""The list of methods, their switches, and the seam at which others are added."""

import ast
import subprocess
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from learning.shapes import model_shapes
from learning.strategies import STRATEGIES
from learning.strategies.fedavg import FEDAVG
from learning.strategies.fedka import FEDKA
from learning.strategies.scaffold import SCAFFOLD
from learning.strategies.strategy import (
    MODEL,
    Groups,
    LossTerm,
    Objective,
    RoundMean,
    Strategy,
)
from learning.training import learn
from tests.learning.lessons import first_stage, lesson, same
from tests.test_floors import ROOT

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

SHARED = {name: "fedka" for name in STRATEGIES if name.startswith("fedka-")} | {"oracle": "joint"}
"""Methods that are values in another's file."""


def test_the_methods_are_listed_by_name() -> None:
    """The paper's five, its four ablations, five of its related work, and two upper bounds."""
    ablations = ["fedka-no-cbl", "fedka-no-sdl", "fedka-no-adl", "fedka-no-wadl"]
    related = ["fedprox", "scaffold", "fedntd", "flwf2t", "fedcurv"]

    assert list(STRATEGIES) == [
        *("fedavg", "icarl", "lwm", "glfc", "lga", "fedka"), *ablations, *related,
        *("joint", "oracle"),
    ]  # fmt: skip
    assert all(strategy.name == name for name, strategy in STRATEGIES.items())


def test_a_methods_file_is_short_and_gives_its_equation() -> None:
    """At most 80 lines; at its head the paper's section here or its equation, and a formula."""
    for name in STRATEGIES:
        file = ROOT / "learning" / "strategies" / f"{SHARED.get(name, name)}.py"
        text = file.read_text()
        head = ast.get_docstring(ast.parse(text)) or ""

        assert len(text.splitlines()) <= 80, name
        assert any(told in head for told in ("D_CE", "BCE(", "c_l")), name
        assert any(told in head for told in ("docs/method.md", "et al.")), name


def test_an_ablation_changes_one_switch() -> None:
    """Besides its name and one switch of the objective it is FedKA."""
    for name, strategy in STRATEGIES.items():
        if name.startswith("fedka-"):
            assert replace(strategy, name="fedka", objective=FEDKA.objective) == FEDKA
            different = [
                switch.name
                for switch in fields(Objective)
                if getattr(strategy.objective, switch.name) != getattr(FEDKA.objective, switch.name)
            ]
            assert len(different) == 1


def test_a_method_that_weighs_no_sample_does_so_under_every_preset() -> None:
    """`lineage_compat` sets weight and exponent; for fine-tuning they mean nothing."""
    switches: dict[str, Any] = {"weight": "cumulative", "exponent": "stage", "weight_clamp": None}

    assert FEDAVG.under(**switches) == FEDAVG
    assert FEDKA.under(**switches).objective.weight == "cumulative"


def test_the_lower_bound_remembers_nothing_and_asks_nobody() -> None:
    """No memory, no teacher, no prototypes; FedKA has all three."""
    assert (FEDAVG.memory, FEDAVG.teacher, FEDAVG.proxy) == ("none", "none", False)
    assert (FEDKA.memory, FEDKA.teacher, FEDKA.proxy) == ("exemplars", "best", True)


def test_the_torch_free_half_starts_without_torch() -> None:
    """The aggregator reads strategies, shapes and rates; importing torch takes seconds."""
    program = (
        "import sys, learning.strategies, learning.shapes, learning.rates, learning.novelty, "
        "learning.memory, learning.scoring, learning.augmentation, learning.lesson; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_recipe_changes_switches() -> None:
    """The rest stays; the kind of teacher changes only where there is one."""
    changed = FEDKA.under(teacher="last", family="softmax", beta=0.5)

    assert changed.teacher == "last"
    assert changed.objective == replace(FEDKA.objective, family="softmax", beta=0.5)
    assert FEDKA.under() == FEDKA
    assert FEDAVG.under(teacher="last").teacher == "none"
    assert not changed.proxy


def test_a_method_may_change_itself_in_the_softmax_family() -> None:
    """Its own changes apply in this family alone, and a recipe has the last word."""
    method = replace(FEDKA, softmax={"sd_temperature": 2.0, "alpha": 3.0})

    assert method.under().objective.alpha == 2.0
    assert method.under(family="softmax").objective.sd_temperature == 2.0
    assert method.under(family="softmax", alpha=1.0).objective.alpha == 1.0


@pytest.mark.parametrize(
    ("switches", "complaint"),
    [
        ({"family": "hinge"}, "family is one of bce, softmax, not hinge"),
        ({"reduction": "max"}, "reduction is one of"),
        ({"cls_rows": "old"}, "cls_rows is one of"),
        ({"weight": "class"}, "weight is one of"),
        ({"exponent": "half"}, "exponent is one of"),
        ({"sd_mode": "l2"}, "sd_mode is one of"),
        ({"ad_class": "best"}, "ad_class is one of"),
        ({"ad_norm": "l3"}, "ad_norm is one of"),
        ({"alpha_grad": "half"}, "alpha_grad is one of"),
        ({"weighted": ("semantic", "semantic")}, "weighted are distinct"),
        ({"ad_layers": ("layer5",)}, "ad_layers are distinct names"),
        ({"ad_layers": ()}, "ad_layers names at least one"),
        ({"beta": -1.0}, "not negative"),
        ({"alpha_alone": 0.0}, "not 0 without a teacher"),
        ({"alpha": 0.0, "alpha_alone": 1.0, "beta": 0.0, "gamma": 0.0}, "has a term"),
        ({"weight_clamp": (2.0, 5.0)}, "clamped around 1"),
        ({"sd_temperature": 0.0}, "a temperature is positive"),
        ({"sd_mode": "bce", "sd_temperature": 2.0}, "bce has no temperature"),
        ({"teacher": "worst"}, "teacher is one of"),
    ],
)
def test_a_value_that_a_switch_does_not_take_is_refused(
    switches: dict[str, Any], complaint: str
) -> None:
    """With the switch and the values that it takes."""
    with pytest.raises(ValueError, match=complaint):
        FEDKA.under(**switches)


def test_what_is_no_switch_is_refused() -> None:
    """A name that the objective does not have."""
    with pytest.raises(TypeError, match="delta"):
        FEDKA.under(delta=1.0)


def test_memory_is_one_of_three_kinds() -> None:
    """And groups are sent with shapes or not at all."""
    unknown: Any = "some"
    with pytest.raises(ValueError, match="memory is one of none, exemplars, everything"):
        replace(FEDAVG, memory=unknown)
    with pytest.raises(ValueError, match="sends groups and tells their shapes"):
        replace(FEDAVG, group_shapes=lambda model: {})


def test_what_a_method_sends_has_the_shapes_that_it_tells() -> None:
    """The aggregator holds an update to them; the model is always among them."""
    sent = learn(first_stage(SCAFFOLD)).send

    told = SCAFFOLD.sent_shapes(model_shapes(1, 2, 4))

    assert told.keys() == {MODEL, "control"}
    assert {name: tensor.shape for name, tensor in sent["control"].items()} == told["control"]
    assert FEDAVG.sent_shapes({"a": (1,)}) == {MODEL: {"a": (1,)}}


def test_a_method_without_a_step_of_its_own_takes_the_mean() -> None:
    """What was sent is what comes back."""
    mean: Groups = {MODEL: {"a": np.ones(2, np.float32)}}

    assert FEDAVG.settled(RoundMean({MODEL: {}}, mean, counted=2, members=5)) == mean


def test_a_method_can_add_a_term_to_the_loss() -> None:
    """`term` is told each step, and its mean is among the metrics; here it keeps logits small."""
    noticed = []

    def small_logits(lesson: "Lesson") -> LossTerm:
        def term(step: "Step") -> "Tensor":
            noticed.append((step.images_BcHW.shape[0], step.rows_B.shape, step.student.training))
            return 10 * step.logits_BC.square().mean()

        return term

    method: Strategy = replace(FEDAVG, name="small", term=small_logits)

    plain = learn(first_stage("fedavg"))
    held = learn(first_stage(method))

    assert noticed == [(16, (16,), True), (16, (16,), True), (8, (8,), True)] * 2
    assert held.metrics["term"] > 0
    assert held.metrics["loss"] == pytest.approx(
        held.metrics["classification"] + held.metrics["term"]
    )
    assert "term" not in plain.metrics
    assert not same(plain.weights, held.weights)


def test_a_method_without_functions_sends_and_keeps_nothing() -> None:
    """FedKA is switches alone."""
    learned = learn(lesson("fedka", epochs=1))

    assert learned.send == {}
    assert learned.keep == {}
