"""Theirs beside ours: each cell of a table with its mean over seeds, its difference, its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.paper.results import Result, by_seed, identity
from experiments.paper.statistics import Difference, Spread, difference, spread
from experiments.paper.tables import REFERENCE, Printed, Row, Table

TOLERANCE = 3.0
"""Points by which an average may miss the printed one and still be reproduced (method.md 8)."""
State = Literal[
    "reproduced", "differs", "same order", "other order", "not told apart", "reference", "not run"
]


@dataclass(frozen=True)
class Cell:
    """One row of a table, at the seeds that were run."""

    row: Row
    results: tuple[Result, ...]
    ours: Spread | None
    """Mean over stages, over seeds, in percent."""
    stages: tuple[Spread, ...]
    """After each stage that all these runs have."""
    against: Difference | None
    """This method less the reference, seed by seed."""
    theirs: float | None
    """The same of the printed averages."""
    state: State

    @property
    def printed(self) -> Printed | None:
        return self.row.printed


@dataclass(frozen=True)
class Compared:
    """A table with what was run of it."""

    table: Table
    cells: tuple[Cell, ...]
    evaluate_on: str

    @property
    def run(self) -> int:
        """Cells of which at least one seed was run."""
        return sum(bool(cell.results) for cell in self.cells)

    @property
    def seeds(self) -> list[int]:
        return sorted({each.seed for cell in self.cells for each in cell.results})


def compared(table: Table, results: Iterable[Result], evaluate_on: str = "test") -> Compared:
    """Find the runs of each row among all results, and tell what can be said of each."""
    known = list(results)
    seeds = sorted({each.seed for each in known})
    found = {each.identity: each for each in known}
    of_row = [
        tuple(
            found[name]
            for seed in seeds
            if (name := identity(table.configuration(row, seed), evaluate_on)) in found
        )
        for row in table.rows
    ]
    cells = []
    for row, runs in zip(table.rows, of_row, strict=True):
        place = next(
            (
                i
                for i, each in enumerate(table.rows)
                if each.strategy == REFERENCE and each.column == row.column
            ),
            None,
        )
        reference = (row, ()) if place is None else (table.rows[place], of_row[place])
        cells.append(_cell(table, row, runs, *reference))
    return Compared(table, tuple(cells), evaluate_on)


def _cell(
    table: Table, row: Row, runs: Sequence[Result], reference: Row, its: Sequence[Result]
) -> Cell:
    """`reference` is the row itself where there is no other to compare it with."""
    values = by_seed(runs, table.metric)
    ours = spread(list(values.values())) if values else None
    against = theirs = None
    if row is not reference:
        against = difference(values, by_seed(its, table.metric))
        if row.printed and reference.printed:
            theirs = row.printed.average - reference.printed.average
    state = _state(table, row, ours, against, theirs)
    return Cell(row, tuple(runs), ours, _by_stage(table, runs), against, theirs, state)


def _state(
    table: Table,
    row: Row,
    ours: Spread | None,
    against: Difference | None,
    theirs: float | None,
) -> State:
    if ours is None:
        return "not run"
    if table.scale == "paper" and row.printed:
        return "reproduced" if abs(ours.mean - row.printed.average) <= TOLERANCE else "differs"
    if row.strategy == REFERENCE:
        return "reference"
    if against is None or against.verdict == "not told apart" or not theirs:
        return "not told apart"
    return "same order" if (against.mean > 0) == (theirs > 0) else "other order"


def _by_stage(table: Table, runs: Sequence[Result]) -> tuple[Spread, ...]:
    of_runs = [each.stages(table.metric) for each in runs]
    found = []
    for values in zip(*of_runs, strict=False):
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            break
        found.append(spread(known))
    return tuple(found)


def states(cells: Iterable[Cell]) -> dict[str, int]:
    """How many cells are in each state."""
    found: dict[str, int] = {}
    for cell in cells:
        found[cell.state] = found.get(cell.state, 0) + 1
    return found


def as_json(each: Compared) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "table": each.table.name,
        "title": each.table.title,
        "scale": each.table.scale,
        "metric": each.table.metric,
        "evaluate_on": each.evaluate_on,
        "seeds": each.seeds,
        "rows": [_row(cell) for cell in each.cells],
    }


def _row(cell: Cell) -> Mapping[str, Any]:
    against = cell.against
    return {
        "method": cell.row.strategy,
        "label": cell.row.label,
        "setting": cell.row.column,
        "printed": cell.printed.average if cell.printed else None,
        "printed_stages": list(cell.printed.stages) if cell.printed else [],
        "seeds": [each.seed for each in cell.results],
        "mean": cell.ours.mean if cell.ours else None,
        "deviation": cell.ours.deviation if cell.ours else None,
        "stages": [each.mean for each in cell.stages],
        "stage_deviations": [each.deviation for each in cell.stages],
        "printed_difference": cell.theirs,
        "difference": against.mean if against else None,
        "difference_low": against.low if against else None,
        "difference_high": against.high if against else None,
        "pairs": len(against.seeds) if against else 0,
        "state": cell.state,
        "model_sha256": {str(each.seed): each.line["model_sha256"] for each in cell.results},
        "commands": [each.line["command"] for each in cell.results],
    }
