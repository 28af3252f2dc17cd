"""The plots of a report, drawn by matplotlib without a screen: measures in, PNG bytes out.

Each plot is drawn for a theme, because a page is read in light and in dark. Nothing is told by
colour alone, and backgrounds are transparent.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.measures import Measures, Outcome

DPI = 150
WIDTH = 9.6  # inches; a page shows them at about 100 pixels an inch
MOST_CELLS = 12
"""Rows of a matrix whose cells still have room for a number."""
MOST_MARKERS = 40
"""Rounds that a line can mark one by one."""
MOST_ROUNDS = 20
"""Rounds along a plot that have room for their names."""
MOST_NAMES = 40
"""Rows of a matrix whose classes still have room for a name."""


@dataclass(frozen=True)
class Theme:
    """The colours of a page. The three series keep their distance under colour blindness."""

    ink: str
    muted: str
    grid: str
    all: str
    old: str
    new: str
    bad: str
    low: str
    high: str
    """`low` to `high`: from nothing to 100 % in a matrix."""
    on_high: str
    """Text on `high`."""

    @property
    def shades(self) -> Colormap:
        return LinearSegmentedColormap.from_list("share", [self.low, self.high])


LIGHT = Theme(
    ink="#1d2733", muted="#5b6875", grid="#dfe5ea", all="#1f5fa8", old="#c2571a", new="#14866d",
    bad="#b3261e", low="#f3f7fb", high="#174a85", on_high="#ffffff",
)  # fmt: skip
DARK = Theme(
    ink="#e6ebf0", muted="#9aa7b4", grid="#33404d", all="#6cabf2", old="#f0995c", new="#4cc7a4",
    bad="#ff8a80", low="#1c2733", high="#8fc2fa", on_high="#0e1620",
)  # fmt: skip
OUTCOMES: Mapping[Outcome, tuple[str, str, str]] = {
    "both": ("hit: both saw a new class", "o", "new"),
    "labels only": ("miss: only the labels did", "X", "bad"),
    "entropy only": ("false alarm: only entropy did", "^", "old"),
    "neither": ("neither did", "s", "muted"),
}
"""What a window is called in the plot, its marker, and its colour in the theme. First contacts have
nothing to be compared with, and are not in it."""
Plot = Callable[[Measures, Theme], Figure | None]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, without a background."""
    held = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(held, format="png", dpi=DPI, transparent=True, bbox_inches="tight")
    return held.getvalue()


def accuracy_by_round(measures: Measures, theme: Theme) -> Figure | None:
    """Accuracy over all classes so far, and macro F1; the end of each stage stands out."""
    if not any(each.accuracy is not None for each in measures.rounds):
        return None
    figure, axes = _by_round(measures, theme)
    _line(axes, measures, "accuracy", theme.all, "accuracy, all classes so far", width=2.2)
    _line(axes, measures, "macro_f1", theme.muted, "macro F1", dashes=(3, 2))
    last = {each.stage: each for each in measures.rounds}
    for each in last.values():
        if each.accuracy is not None and measures.stages[each.stage].closed:
            axes.plot(each.number, each.accuracy, "o", color=theme.all, markersize=6)
            axes.annotate(
                f"{each.accuracy:.1f}",
                (each.number, each.accuracy),
                xytext=(3, 8 if each.accuracy < 90 else -15),
                textcoords="offset points",
                ha="right",
                color=theme.ink,
                fontsize=9,
                fontweight="bold",
            )
    _legend(axes, theme)
    return figure


def old_and_new_by_round(measures: Measures, theme: Theme) -> Figure | None:
    """Classes of earlier stages against those of the stage: what is kept, what is learned."""
    if not any(each.old_accuracy is not None for each in measures.rounds):
        return None
    figure, axes = _by_round(measures, theme)
    _line(axes, measures, "old_accuracy", theme.old, "old classes (earlier stages)", marker="s")
    _line(axes, measures, "new_accuracy", theme.new, "new classes (this stage)", marker="o")
    _line(axes, measures, "old_as_new", theme.bad, "old images taken for new", dashes=(2, 2))
    _legend(axes, theme)
    return figure


def stage_matrix(measures: Measures, theme: Theme) -> Figure | None:
    """a[t][j]: a row for each stage's end, a column for the classes of each stage."""
    size = len(measures.matrix)
    if not size:
        return None
    values = np.full((size, size), np.nan)
    for t, row in enumerate(measures.matrix):
        values[t, : len(row)] = [np.nan if share is None else share for share in row]
    figure, axes = _matrix(values, theme, side=min(6.0, 1.9 + 0.62 * size))
    _cells(axes, values, theme, "{:.1f}")
    axes.set_xlabel("tested on the classes of stage", color=theme.muted)
    axes.set_ylabel("after stage", color=theme.muted)
    _ticks(axes, [str(t) for t in range(size)])
    return figure


def confusion_matrix(measures: Measures, theme: Theme, names: Sequence[str]) -> Figure | None:
    """The newest model's answers, each row in percent of its class's images."""
    counts = np.array(measures.confusion, np.float64)
    if not counts.sum():
        return None
    images = counts.sum(axis=1, keepdims=True)
    values = np.divide(100 * counts, images, out=np.full_like(counts, np.nan), where=images > 0)
    figure, axes = _matrix(values, theme, side=min(7.6, 2.6 + 0.42 * len(counts)))
    _cells(axes, values, theme, "{:.0f}", hide_zero=True)
    axes.set_xlabel("predicted class", color=theme.muted)
    axes.set_ylabel("true class", color=theme.muted)
    _ticks(axes, [_short(name) for name in names[: len(counts)]])
    for row in np.flatnonzero(np.diff(measures.stage_of_row[: len(counts)])):
        axes.axhline(row + 0.5, color=theme.old, linewidth=0.8, alpha=0.7)
        axes.axvline(row + 0.5, color=theme.old, linewidth=0.8, alpha=0.7)
    return figure


def entropy_rises(measures: Measures, theme: Theme) -> Figure | None:
    """How far each window's entropy rose above that of known images, against the threshold."""
    if not any(each.outcome in OUTCOMES and each.rise is not None for each in measures.detections):
        return None
    figure, axes = _axes(theme, 3.7)
    for outcome, (label, marker, colour) in OUTCOMES.items():
        points = [
            (each.stage + _spread(place, measures), each.rise)
            for place, each in enumerate(measures.detections)
            if each.outcome == outcome and each.rise is not None
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True), marker, label=label, color=getattr(theme, colour),
                markersize=7 if len(points) < 60 else 4, alpha=0.85,
            )  # fmt: skip
    compared = [each for each in measures.detections if each.outcome in OUTCOMES]
    stages = sorted({each.stage for each in compared})
    for stage in stages:
        limits = [each.threshold for each in compared if each.stage == stage]
        axes.hlines(max(limits), stage - 0.4, stage + 0.4, color=theme.ink, linewidth=1.5)
    axes.plot([], [], "-", color=theme.ink, linewidth=1.5, label="threshold")
    axes.set_xlabel("stage", color=theme.muted)
    axes.set_ylabel("rise of mean entropy (nats)", color=theme.muted)
    axes.set_xticks(stages[:: 1 + len(stages) // 20])
    axes.set_xlim(stages[0] - 0.6, stages[-1] + 0.6)
    axes.axhline(0, color=theme.grid, linewidth=1)
    _legend(axes, theme)
    return figure


def scores_and_accuracies(measures: Measures, theme: Theme) -> Figure | None:
    """The proxy's score of each candidate against what test images say of it.

    Both less the mean of the candidates for the same stage: only those are chosen among.
    """
    if all(teacher.rank_correlation is None for teacher in measures.teachers):
        return None
    figure, axes = _axes(theme, 3.7)
    for teacher in measures.teachers:
        known = [
            (c.version, c.score, c.accuracy) for c in teacher.candidates if c.accuracy is not None
        ]
        if not known:
            continue
        versions, scores, accuracies = (np.array(each) for each in zip(*known, strict=True))
        for version, score, accuracy in zip(
            versions, scores - scores.mean(), accuracies - accuracies.mean(), strict=True
        ):
            chosen = version == teacher.version
            axes.plot(
                score, accuracy, "o", color=theme.all, markersize=9 if chosen else 6,
                markerfacecolor=theme.all if chosen else "none",
            )  # fmt: skip
    axes.plot([], [], "o", color=theme.all, label="chosen to teach")
    axes.plot([], [], "o", color=theme.all, markerfacecolor="none", label="candidate")
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.set_xlabel("score on prototypes, less the stage's mean (points)", color=theme.muted)
    axes.set_ylabel("accuracy on test images,\nless the stage's mean (points)", color=theme.muted)
    _legend(axes, theme)
    return figure


# --- parts that plots share -----------------------------------------------------------------------


def _axes(theme: Theme, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_subplot()
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.grid)
    return figure, axes


def _by_round(measures: Measures, theme: Theme) -> tuple[Figure, Axes]:
    """Rounds along the page, percent up it, and a line where a stage begins."""
    figure, axes = _axes(theme, 3.7)
    for stage in range(len(measures.stages)):
        numbers = [each.number for each in measures.rounds if each.stage == stage]
        if not numbers:
            continue
        if stage:
            axes.axvline(numbers[0] - 0.5, color=theme.muted, linewidth=0.8, dashes=(4, 3))
        label = f"stage {stage}" if len(measures.stages) <= 8 else str(stage)
        axes.text(
            (numbers[0] + numbers[-1]) / 2, 104, label, color=theme.muted, fontsize=9, ha="center"
        )
    axes.set_ylim(-2, 102)
    axes.set_xlim(-0.5, len(measures.rounds) - 0.5)
    axes.set_xlabel("round", color=theme.muted)
    axes.set_ylabel("% of test images", color=theme.muted)
    shown = measures.rounds[:: 1 + (len(measures.rounds) - 1) // MOST_ROUNDS]
    axes.set_xticks(
        [each.number for each in shown], [f"{each.stage}.{each.round}" for each in shown]
    )
    return figure, axes


def _line(
    axes: Axes,
    measures: Measures,
    name: str,
    colour: str,
    label: str,
    *,
    width: float = 1.8,
    dashes: tuple[float, float] | None = None,
    marker: str = "",
) -> None:
    """One measure by round, interrupted where a stage begins: the classes asked about change."""
    for stage in range(len(measures.stages)):
        own = [each for each in measures.rounds if each.stage == stage]
        values = [np.nan if getattr(each, name) is None else getattr(each, name) for each in own]
        axes.plot(
            [each.number for each in own], values, color=colour, linewidth=width,
            linestyle=(0, dashes) if dashes else "-", markersize=4.5,
            marker=marker if len(measures.rounds) <= MOST_MARKERS else "",
            label=label if stage == 0 else None,
        )  # fmt: skip


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, frameon=False, fontsize=9,
        labelcolor=theme.ink,
    )  # fmt: skip


def _matrix(values: NDArray[np.float64], theme: Theme, side: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    axes.imshow(values, cmap=theme.shades, vmin=0, vmax=100)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    return figure, axes


def _cells(
    axes: Axes, values: NDArray[np.float64], theme: Theme, form: str, hide_zero: bool = False
) -> None:
    if len(values) > MOST_CELLS:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value) or (hide_zero and value < 0.5):
            continue
        colour = theme.on_high if value > 62 else theme.ink
        axes.text(
            column, row, form.format(value), color=colour, ha="center", va="center", fontsize=9
        )


def _ticks(axes: Axes, names: Sequence[str]) -> None:
    """A name for each row and column while there is room, then numbers of rows."""
    if len(names) > MOST_NAMES:
        return
    long = max(map(len, names), default=0) > 2
    size = 9 if len(names) <= 20 else 7
    axes.set_xticks(range(len(names)), names, rotation=90 if long else 0, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _spread(place: int, measures: Measures) -> float:
    """Where a window stands beside its stage, so that twins do not hide each other."""
    stage = measures.detections[place].stage
    own = [i for i, each in enumerate(measures.detections) if each.stage == stage]
    return 0.6 * ((own.index(place) + 0.5) / len(own) - 0.5)
