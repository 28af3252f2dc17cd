"""What `benchmarks/training.py --methods` times: lessons of a later stage."""

from runpy import run_path

import pytest

from learning.fisher import of_others
from learning.lesson import Lesson
from learning.strategies import STRATEGIES
from learning.strategies.flwf2t import earlier_model
from tests.test_floors import ROOT

MEASURED = run_path(str(ROOT / "benchmarks" / "training.py"))
OLD = MEASURED["OLD"]


def timed(method: str) -> Lesson:
    """A tiny one: forty images of 8x8, a net of width 2."""
    lesson = MEASURED["later"](MEASURED["Setting"](2, 1, 8), method, images=40, epochs=1)
    assert isinstance(lesson, Lesson)
    return lesson


def test_scaffold_is_timed_with_both_controls() -> None:
    """The twins differ, so c is not c_l, and neither is 0."""
    lesson = timed("scaffold")
    theirs, ours = (groups["control"]["fc.weight"] for groups in (lesson.received, lesson.kept))

    assert theirs.any()
    assert ours.any()
    assert (theirs != ours).any()


def test_fedcurv_is_timed_with_somebody_elses_sensitivities() -> None:
    """Of the sums over both twins the other one's are left."""
    fisher, pull = of_others(timed("fedcurv"), "fisher", "fisher_theta")

    assert fisher["fc.weight"][:OLD].any()
    assert pull["fc.weight"][:OLD].any()


def test_flwf2t_is_timed_with_its_second_teacher() -> None:
    """Of the stage before: as many rows as there were."""
    own = earlier_model(timed("flwf2t"))

    assert own is not None
    assert own["fc.weight"].shape[0] == OLD


@pytest.mark.parametrize("method", STRATEGIES)
def test_old_images_are_there_where_a_method_remembers_them(method: str) -> None:
    """And a teacher that knows the old classes, for who listens."""
    lesson = timed(method)

    assert (lesson.rows.min() < OLD) == (lesson.strategy.memory != "none")
    assert lesson.taught == (lesson.strategy.teacher != "none")
