"""The classification term and the gradient's magnitude (docs/method.md 5.1 to 5.3)."""

from math import log

import pytest
import torch

from learning.losses import classification, gaps
from learning.strategies.strategy import Family

LN3 = log(3)
LOGITS = torch.tensor([[LN3, 0.0, -LN3], [0.0, 0.0, 0.0]], dtype=torch.float64)
ROWS = torch.tensor([0, 2])


def test_the_sigmoid_family_averages_over_the_classes() -> None:
    """Sigmoids of (ln 3, 0, -ln 3) are 3/4, 1/2, 1/4.

    With class 0 true: -(ln 3/4 + ln 1/2 + ln 3/4) = ln(32/9), a third of it under `mean`.
    With three zeros it is 3 ln 2, whichever class is true.
    """
    mean = classification(LOGITS, ROWS, family="bce", reduction="mean")
    total = classification(LOGITS, ROWS, family="bce", reduction="sum")

    assert mean.tolist() == pytest.approx([log(32 / 9) / 3, log(2)])
    assert total.tolist() == pytest.approx([log(32 / 9), 3 * log(2)])


def test_the_softmax_family_is_cross_entropy_by_classes() -> None:
    """exp of (ln 3, 0, -ln 3) is 3, 1, 1/3: the soft-max of class 0 is 9/13; of zeros 1/3."""
    mean = classification(LOGITS, ROWS, family="softmax", reduction="mean")
    total = classification(LOGITS, ROWS, family="softmax", reduction="sum")

    assert mean.tolist() == pytest.approx([log(13 / 9) / 3, log(3) / 3])
    assert total.tolist() == pytest.approx([log(13 / 9), log(3)])


def test_a_gap_is_what_the_true_class_lacks() -> None:
    """1 - 3/4 and 1 - 1/2 with sigmoids; 1 - 9/13 and 1 - 1/3 with soft-max."""
    assert gaps(LOGITS, ROWS, family="bce").tolist() == pytest.approx([1 / 4, 1 / 2])
    assert gaps(LOGITS, ROWS, family="softmax").tolist() == pytest.approx([4 / 13, 2 / 3])


@pytest.mark.parametrize("family", ["bce", "softmax"])
def test_a_gap_is_the_gradient_at_the_true_class(family: Family) -> None:
    """d D_CE / dz_y = P_y - 1 under `sum` (docs/method.md 5.3): the gap is its magnitude."""
    logits = LOGITS.clone().requires_grad_()

    loss = classification(logits, ROWS, family=family, reduction="sum").sum()
    (slope,) = torch.autograd.grad(loss, logits)

    at_truth = slope.gather(1, ROWS[:, None])[:, 0]
    assert torch.allclose(-at_truth, gaps(LOGITS, ROWS, family=family))


def test_a_gap_of_a_well_learned_sample_is_not_rounded_away() -> None:
    """At a logit of 40 sigmoid rounds to 1, but the gap is e^-40 = 4.2e-18."""
    certain = torch.tensor([[40.0, -40.0]])

    assert gaps(certain, torch.tensor([0]), family="bce").item() == pytest.approx(
        4.25e-18, rel=1e-2
    )
