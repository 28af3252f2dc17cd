"""Semantic distillation L_SD in its five readings (docs/method.md 5.5)."""

from math import log
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learning.losses import semantic_distillation
from learning.strategies.strategy import SemanticMode

LN3 = log(3)
# Two old stages of two rows each, and one new row. Teacher: (3/4, 1/4) in the first block.
TEACHER = torch.tensor([[LN3, 0.0, 0.0, 0.0]], dtype=torch.float64)
STUDENT = torch.zeros(1, 5, dtype=torch.float64)
NEW_ROW = torch.tensor([4])


def distil(student: Tensor, teacher: Tensor, mode: SemanticMode, **switches: Any) -> Tensor:
    rows = torch.full((len(student),), student.shape[1] - 1)
    sizes = [teacher.shape[1] // 2, teacher.shape[1] - teacher.shape[1] // 2]
    return semantic_distillation(
        student, teacher, rows, mode=mode, block_sizes=sizes, **{"reduction": "sum", **switches}
    )


def test_each_old_stage_is_a_distribution_of_its_own() -> None:
    """Block 1: 3/4 ln((3/4)/(1/2)) + 1/4 ln((1/4)/(1/2)) = 3/4 ln 3 - ln 2. Block 2 agrees: 0."""
    assert distil(STUDENT, TEACHER, "block").item() == pytest.approx(0.75 * LN3 - log(2))


def test_all_old_rows_may_be_one_distribution() -> None:
    """q = (3, 1, 1, 1)/6, p = 1/4 each: 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)."""
    assert distil(STUDENT, TEACHER, "joint").item() == pytest.approx(0.5 * log(4 / 3))


def test_a_slice_of_the_students_whole_opinion_also_pays_for_new_rows() -> None:
    """p = 1/5 each: 1/2 ln(5/2) + 1/2 ln(5/6) = 1/2 ln(25/12), the joint value plus ln(5/4)."""
    assert distil(STUDENT, TEACHER, "slice").item() == pytest.approx(0.5 * log(25 / 12))


def test_a_slice_may_take_the_label_as_teacher_of_the_new_stage() -> None:
    """A sample of the new row pays -ln(1/5) besides; a sample of an old row pays nothing more."""
    students, teachers = STUDENT.repeat(2, 1), TEACHER.repeat(2, 1)

    losses = semantic_distillation(
        students, teachers, torch.tensor([4, 0]), mode="slice_onehot", reduction="sum"
    )

    assert losses.tolist() == pytest.approx([0.5 * log(25 / 12) + log(5), 0.5 * log(25 / 12)])


def test_lga_mixes_the_teachers_sigmoids_with_the_label() -> None:
    """Targets (3/4, 1/2, 1/2, 1/2, label), student (ln 3, 0, 0, 0, 0): a zero costs ln 2 whatever
    its target; the first ln 4 - 3/4 ln 3. In all 4 ln 2 + ln 4 - 3/4 ln 3, by five under `mean`.
    """
    student = torch.tensor([[LN3, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = 4 * log(2) + log(4) - 0.75 * LN3

    assert distil(student, TEACHER, "bce").item() == pytest.approx(expected)
    assert distil(student, TEACHER, "bce", reduction="mean").item() == pytest.approx(expected / 5)


def test_mean_reduction_divides_by_the_rows_that_the_teacher_knows() -> None:
    """Four of the five rows are old."""
    whole = distil(STUDENT, TEACHER, "block").item()

    assert distil(STUDENT, TEACHER, "block", reduction="mean").item() == pytest.approx(whole / 4)


def test_temperature_softens_both_opinions_and_is_squared() -> None:
    """At T = 2 the teacher's ln 9 becomes ln 3: four times the value for ln 3 at T = 1."""
    sharper = torch.tensor([[2 * LN3, 0.0, 0.0, 0.0]], dtype=torch.float64)

    softened = distil(STUDENT, sharper, "block", temperature=2.0).item()

    assert softened == pytest.approx(4 * (0.75 * LN3 - log(2)))


ROWS = st.lists(st.floats(-8, 8), min_size=5, max_size=5)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(ROWS, ROWS.map(lambda row: row[:4]))
def test_the_slice_is_the_joint_divergence_less_the_log_of_the_old_mass(
    student: list[float], teacher: list[float]
) -> None:
    """sum over old rows of q ln(q/p) = KL(q || p renormalised) - ln P_old (docs/method.md 5.5)."""
    z, q = torch.tensor([student]).double(), torch.tensor([teacher]).double()
    old_mass = z.softmax(1)[:, :4].sum()

    sliced, joint = distil(z, q, "slice"), distil(z, q, "joint")

    assert sliced.item() == pytest.approx(joint.item() - old_mass.log().item(), abs=1e-6)


@pytest.mark.parametrize("mode", ["block", "joint"])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(student=ROWS, shift=st.floats(-5, 5))
def test_an_equal_opinion_costs_nothing(
    mode: SemanticMode, student: list[float], shift: float
) -> None:
    """Old logits that are equal up to a constant are the same distribution: 0; others cost."""
    z = torch.tensor([student]).double()
    other = z[:, :4] + torch.tensor([1.0, 0.0, 0.0, 0.0]).double()

    assert distil(z, z[:, :4] + shift, mode).item() == pytest.approx(0, abs=1e-12)
    assert distil(z, other, mode).item() > 0


@pytest.mark.parametrize("mode", ["block", "joint", "slice", "slice_onehot", "bce"])
def test_only_readings_that_see_new_rows_move_them(mode: SemanticMode) -> None:
    """Rows from C_old on have no gradient under `block` and `joint`, and some otherwise."""
    z = torch.tensor([[0.3, -1.0, 0.7, 0.2, 0.5]], dtype=torch.float64, requires_grad=True)

    (slope,) = torch.autograd.grad(distil(z, TEACHER, mode).sum(), z)

    assert (slope[0, 4] == 0) == (mode in ("block", "joint"))
    assert slope[0, :4].abs().sum() > 0


def test_no_gradient_reaches_the_teacher() -> None:
    """A teacher's logits that could carry one get none."""
    teacher = TEACHER.clone().requires_grad_()
    student = STUDENT.clone().requires_grad_()

    torch.autograd.backward(distil(student, teacher, "block").sum())

    assert teacher.grad is None
    assert student.grad is not None


def test_a_teacher_that_knows_more_than_the_student_is_refused() -> None:
    """Three rows cannot be distilled into two."""
    with pytest.raises(ValueError, match="the teacher knows 3 classes, the student only 2"):
        distil(torch.zeros(1, 2), torch.zeros(1, 3), "joint")


def test_blocks_must_cover_the_teachers_rows() -> None:
    """Blocks of 2 and 1 rows are not the teacher's four."""
    with pytest.raises(ValueError, match=r"blocks of \[2, 1\] rows are not the teacher's 4"):
        semantic_distillation(STUDENT, TEACHER, NEW_ROW, mode="block", block_sizes=[2, 1])
