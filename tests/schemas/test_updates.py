"""When an update may be counted: one question, asked by who sends and by who reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.errors import Refused
from schemas.messages import Tensors
from schemas.tensors import Spec, specs, update_of
from schemas.updates import Expected, checked_update

BASE: Tensors = {
    "fc.weight": np.full((2, 3), 0.5, "<f4"),
    "bn.running_mean": np.zeros(2, "<f4"),
    "seen": np.array(3, "<i8"),
}
EXPECTED: Expected = {"model": specs(BASE), "drift": {"fc.weight": Spec("<f4", (2, 3))}}
W = 4
DRIFT: Tensors = {"fc.weight": np.zeros((2, 3), "<f4")}


def learned(**changes: Any) -> Tensors:
    """The base, a quarter further, with these tensors instead (a dot is written __)."""
    further = BASE | {"fc.weight": BASE["fc.weight"] + np.float32(0.25)}
    return further | {name.replace("__", "."): each for name, each in changes.items()}


def refusal(groups: dict[str, Tensors], total_weight: int = W) -> str:
    """Why these groups may not be counted."""
    with pytest.raises(Refused) as caught:
        checked_update(groups, BASE, EXPECTED, total_weight, "fp32")
    return str(caught.value)


@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
def test_an_update_means_values_on_every_wire(wire: str) -> None:
    """A half and a quarter, to the wire's precision; a strategy's group is as it was sent."""
    sent = {"model": update_of(learned(), BASE, wire), "drift": DRIFT}
    values = checked_update(sent, BASE, EXPECTED, W, wire)

    assert values["model"]["fc.weight"] == pytest.approx(0.75, abs=1e-6)
    assert values["model"]["seen"] == 3
    assert values["drift"].keys() == DRIFT.keys()
    assert all(values["drift"][name] is tensor for name, tensor in DRIFT.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fc__weight": np.zeros((3, 2), "<f4")}, "wrong-shape: fc.weight has shape (3, 2)"),
        ({"fc__weight": np.zeros((2, 3), "<f8")}, "wrong-dtype: fc.weight is <f8"),
        ({"fc__weight": np.full((2, 3), np.nan, "<f4")}, "not-finite: fc.weight[0] is nan"),
        ({"bn__running_mean": np.array([0, -np.inf], "<f4")}, "not-finite: bn.running_mean[1]"),
        (
            {"fc__weight": np.full((2, 3), 2.0**30, "<f4")},
            "out-of-range: fc.weight[0] is 1073741824.0",
        ),
        ({"fc__bias": np.zeros(2, "<f4")}, "wrong-shape: missing tensors [], unknown ['fc.bias']"),
    ],
)
def test_what_may_not_be_counted_is_refused_with_tensor_and_value(
    changes: dict[str, Any], reason: str
) -> None:
    """A reader of the dead letters sees at once what the twin sent."""
    assert refusal({"model": learned(**changes), "drift": DRIFT}).startswith(reason)


def test_statistics_know_no_range_but_parameters_do() -> None:
    """A parameter of weight 1 in 4 stays below 2^32 / 4 = 2^30; a mean may be of any size."""
    far = {"bn__running_mean": np.full(2, 1e30, "<f4")}
    near = {"fc__weight": np.full((2, 3), np.nextafter(np.float32(2**30), np.float32(0)), "<f4")}
    sent = {"model": learned(**far, **near), "drift": DRIFT}

    assert checked_update(sent, BASE, EXPECTED, W, "fp32")["model"]["bn.running_mean"][0] > 1e29
    assert refusal(sent, W + 1).startswith("out-of-range: fc.weight[0]")


def test_a_strategys_groups_are_held_to_the_same_rules() -> None:
    """None may be missing, none may be added, and each is checked."""
    nan: Tensors = {"fc.weight": np.full((2, 3), np.nan, "<f4")}

    assert (
        refusal({"model": learned()})
        == "wrong-shape: groups ['model'], expected ['drift', 'model']"
    )
    assert refusal({"model": learned(), "drift": nan}).startswith("not-finite: fc.weight[0] is nan")
    assert refusal({"model": learned(), "drift": DRIFT, "own": {}}).startswith(
        "wrong-shape: groups"
    )
    assert refusal({}).startswith("wrong-shape: groups []")
