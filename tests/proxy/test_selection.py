"""Which old model teaches."""

import subprocess
import sys
from itertools import permutations

import pytest

from proxy.selection import best


def test_the_best_candidate_teaches() -> None:
    """Versions 7 to 9 were scored; 8 was the best."""
    assert best({7: 0.5, 8: 0.75, 9: 0.625}, last=9) == 8


def test_of_equal_candidates_the_later_teaches() -> None:
    """Whatever the order in which the scores came."""
    for order in permutations([(7, 0.75), (8, 0.5), (9, 0.75)]):
        assert best(dict(order), last=9) == 9


def test_without_a_prototype_the_last_model_teaches() -> None:
    """Nothing could be scored: no crash, and no older model."""
    assert best({}, last=9) == 9


def test_a_candidate_that_knows_nothing_is_still_a_candidate() -> None:
    """Scores of 0 are scores; the last version is only for a stage without any."""
    assert best({7: 0.0, 8: 0.0}, last=9) == 8


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.1])
def test_a_score_outside_its_range_is_refused(score: float) -> None:
    """A NaN would win or lose by the order in which it came."""
    with pytest.raises(ValueError, match="version 8 has the score"):
        best({7: 0.5, 8: score}, last=9)


def test_choosing_needs_no_torch() -> None:
    """Who only decides starts without it."""
    program = "import sys, proxy.selection, learning.encoder; print('torch' in sys.modules)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert other.stdout.split() == ["False"], other.stderr
