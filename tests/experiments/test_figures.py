"""The plots of a report: what is in them, and that they are left out where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import (
    DARK,
    LIGHT,
    accuracy_by_round,
    confusion_matrix,
    entropy_rises,
    old_and_new_by_round,
    png,
    scores_and_accuracies,
    stage_matrix,
)
from experiments.measures import Measures, measure
from tests.experiments.told import Told, right, story


def measured(told: Told) -> Measures:
    return measure(told.observer, {}, 1.0)


def axes_of(figure: Figure | None) -> Axes:
    assert figure is not None
    return figure.axes[0]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_line_is_interrupted_where_the_question_changes() -> None:
    """The story's accuracies are 70 and 90, then 60 and 70: two pieces, the ends written out."""
    axes = axes_of(accuracy_by_round(measured(story()), LIGHT))
    pieces = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]

    assert [70, 90] in [pytest.approx(piece) for piece in pieces if len(piece) == 2]
    assert [60, 70] in [pytest.approx(piece) for piece in pieces if len(piece) == 2]
    assert words(axes) == ["stage 0", "stage 1", "90.0", "70.0"]


def test_rounds_are_called_as_everywhere() -> None:
    """By their stage and their number in it, from 0; of very many only some have room."""
    few = axes_of(accuracy_by_round(measured(story()), LIGHT))
    told = Told("ab", rounds=50)
    told.grows("a", "b")
    for _ in range(50):
        told.round(right(5, 5))
    many = axes_of(accuracy_by_round(measured(told), LIGHT))

    assert [each.get_text() for each in few.get_xticklabels()] == ["0.0", "0.1", "1.0", "1.1"]
    assert [each.get_text() for each in many.get_xticklabels()][:3] == ["0.0", "0.3", "0.6"]


def test_a_matrix_is_read_from_its_cells() -> None:
    """a[t][j] of the story; what comes later than a stage stays empty."""
    axes = axes_of(stage_matrix(measured(story()), DARK))

    assert words(axes) == ["90.0", "60.0", "80.0"]


def test_a_large_matrix_has_no_room_for_words() -> None:
    """Forty-one classes: colours tell, numbers of rows stand at the sides, stages are parted."""
    names = [f"class-{number}" for number in range(41)]
    told = Told(names[:20], names[20:])
    told.grows(*names[:20])
    told.round(right(*[5] * 20))
    told.ends()
    told.grows(*names[20:])
    told.round(right(*[5] * 41))

    axes = axes_of(confusion_matrix(measured(told), LIGHT, names))

    assert words(axes) == []
    assert not any(label.get_text().startswith("class") for label in axes.get_yticklabels())
    assert len(axes.lines) == 2


def test_long_names_are_cut() -> None:
    """A name of a hundred letters would leave no room for the matrix."""
    told = Told("ab")
    told.grows("a", "b")
    told.round(right(5, 5))

    axes = axes_of(confusion_matrix(measured(told), LIGHT, ["a" * 100, "b"]))
    labels = [label.get_text() for label in axes.get_xticklabels()]

    assert [len(label) for label in labels] == [14, 1]


def test_windows_lie_above_or_below_the_threshold() -> None:
    """Of the story's windows a hit, a miss and a false alarm are comparable; first contacts not."""
    axes = axes_of(entropy_rises(measured(story()), LIGHT))
    rises = [
        value for line in axes.lines for value in np.asarray(line.get_ydata()).tolist()
        if line.get_marker() in ("o", "X", "^")
    ]  # fmt: skip

    assert sorted(rises) == pytest.approx([0.2, 1.2, 1.2])


def test_candidates_are_compared_within_their_stage() -> None:
    """Scores 50 and 100, accuracies 70 and 90: 25 points apart from their mean, and 10."""
    axes = axes_of(scores_and_accuracies(measured(story()), LIGHT))
    points = [
        (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
        for line in axes.lines
        if line.get_marker() == "o" and len(np.asarray(line.get_xdata()))
    ]

    assert points == [pytest.approx((-25, -10)), pytest.approx((25, 10))]


@pytest.mark.parametrize(
    "plot",
    [
        accuracy_by_round,
        old_and_new_by_round,
        stage_matrix,
        entropy_rises,
        scores_and_accuracies,
        lambda found, theme: confusion_matrix(found, theme, []),
    ],
)
def test_nothing_is_drawn_of_nothing(plot: object) -> None:
    """A run that has just begun has no plot."""
    assert callable(plot)
    assert plot(measured(Told("ab")), LIGHT) is None


def test_a_figure_is_a_png_without_a_background() -> None:
    """It begins as PNG files do, and is as transparent as the page needs."""
    figure = stage_matrix(measured(story()), LIGHT)
    assert figure is not None

    image = png(figure)

    assert image.startswith(b"\x89PNG")
    assert image[25] == 6  # colour with an alpha channel
