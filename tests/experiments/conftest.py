"""What the stories of whole runs have in common."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments import figures
from tests.memory import in_memory


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where a machine can: a run waits for its disk hundreds of times."""
    with in_memory(otherwise=tmp_path) as made:
        yield made


PLOTS = (
    "accuracy_by_round", "old_and_new_by_round", "stage_matrix", "confusion_matrix",
    "entropy_rises", "scores_and_accuracies",
)  # fmt: skip


@contextmanager
def without_plots() -> Iterator[None]:
    """Within, reports have empty pictures in the place of plots."""
    held = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(held, format="png")
    empty = Figure()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "png", lambda figure: held.getvalue())
        for plot in PLOTS:
            patched.setattr(figures, plot, lambda *told: empty)
        yield


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """For all of a module: to draw plots takes longer than a small run, and has its own tests
    (test_figures.py, test_report.py)."""
    with without_plots():
        yield


@pytest.fixture
def blank_figures_here() -> Iterator[None]:
    """For one test of a module in which others look at plots."""
    with without_plots():
        yield
