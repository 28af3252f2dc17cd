"""How a head grows (docs/method.md 2.2)."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from learning.nets import from_weights
from learning.shapes import HEAD_BIAS, HEAD_WEIGHT, first_model, grown

IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from learning.shapes import HEAD_BIAS, HEAD_WEIGHT, first_model, grown
chance = np.random.default_rng(2021)
model = grown(grown(first_model(1, 2, chance), 3, chance), 2, chance)
sys.stdout.write((model[HEAD_WEIGHT].tobytes() + model[HEAD_BIAS].tobytes()).hex())
"""


def test_growth_leaves_the_old_logits_as_they_were_bit_for_bit() -> None:
    """Rows 0 to 2 of the grown head answer any input with exactly the old numbers."""
    chance = np.random.default_rng(0)
    old = grown(first_model(3, 2, chance), 3, chance)
    new = grown(old, 4, chance)
    images = torch.from_numpy(chance.normal(size=(5, 3, 8, 8)).astype(np.float32))

    before, after = from_weights(old), from_weights(new)

    with torch.no_grad():
        features = before.features(images)
        rows = [before.head(features)[:, row] for row in range(3)]
        grown_rows = [after.head(after.features(images))[:, row] for row in range(3)]
    assert torch.equal(torch.stack(rows), torch.stack(grown_rows))
    for name, tensor in old.items():
        assert np.array_equal(
            tensor, new[name][: len(tensor)] if name.startswith("fc") else new[name]
        )


def test_the_same_seed_gives_the_same_rows_in_another_process() -> None:
    """Head weights and biases drawn from seed 2021 have equal bytes in two processes."""
    chance = np.random.default_rng(2021)
    model = grown(grown(first_model(1, 2, chance), 3, chance), 2, chance)

    told = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True
    ).stdout

    assert told == (model[HEAD_WEIGHT].tobytes() + model[HEAD_BIAS].tobytes()).hex()


def test_new_rows_are_drawn_between_plus_and_minus_one_by_the_root_of_the_features() -> None:
    """Width 8 has 64 features: 1000 rows fill [-1/8, 1/8], mean 0, variance (1/4)^2 / 12."""
    chance = np.random.default_rng(1)

    head = grown(first_model(1, 8, chance), 1000, chance)[HEAD_WEIGHT]

    assert head.min() >= -1 / 8
    assert head.max() <= 1 / 8
    assert head.mean() == pytest.approx(0, abs=1e-3)
    assert head.var() == pytest.approx((1 / 4) ** 2 / 12, rel=0.01)


def test_a_row_may_begin_at_the_mean_of_the_old_ones() -> None:
    """Old rows are all 2 and all 4: new ones lie within a tenth of 1/sqrt(16) = 0.025 of 3."""
    chance = np.random.default_rng(1)
    model = grown(first_model(1, 2, chance), 2, chance)
    model[HEAD_WEIGHT][:] = [[2.0], [4.0]]
    model[HEAD_BIAS][:] = [2.0, 4.0]

    bigger = grown(model, 3, chance, head_init="mean")

    for name in (HEAD_WEIGHT, HEAD_BIAS):
        assert np.abs(bigger[name][2:] - 3.0).max() <= 0.1 / 4 + 1e-6
        assert len(np.unique(bigger[name][2:], axis=0)) == 3
