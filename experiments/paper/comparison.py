"""Theirs beside ours: each cell of a table with its mean over seeds, its difference, its state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import fmean
from typing import Any, Literal

from experiments.paper.results import METRICS, Result, by_seed, identity
from experiments.paper.statistics import Difference, Spread, difference, spread
from experiments.paper.tables import (
    REFERENCE,
    SCALES,
    TABLES,
    Printed,
    Row,
    Scale,
    Table,
    Values,
    table,
)
from experiments.recipes import departures
from schemas.datasets import own_data

SIDE = (
    "macro_f1", "forgetting", "backward_transfer", "new_class_accuracy", "rank_correlation",
)  # fmt: skip
"""What stands beside accuracy (docs/method.md 8)."""
ENTROPY = ("hits", "misses", "false_alarms")
"""Of the entropy rule against the labels, first contacts left out (docs/method.md 3.4)."""
TOLERANCE = 3.0
"""Points by which an average may miss the printed one and still be reproduced (method.md 8)."""
ENOUGH = 3
"""Paired seeds over which FedKA has to lead LGA for a table to be reproduced by its order."""
LGA = "lga"
OF_A_ROW = ("strategy", "seed")
"""What a row tells elsewhere."""
State = Literal[
    "reproduced", "reproduced by order", "differs", "same order", "other order", "above", "below",
    "not told apart", "reference", "diverged", "not run", "in no table",
]  # fmt: skip
"""`above` and `below` are of methods that the paper prints no number of."""


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
    remark: str = ""
    """Of a number that differs at the paper's scale what is known of why; of one that is not told
    apart whether the interval leaves 0 out.
    """

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

    def runs_of(row: Row) -> tuple[Result, ...]:
        names = (identity(table.configuration(row, seed), evaluate_on) for seed in seeds)
        return tuple(found[name] for name in names if name in found)

    of_row = [runs_of(row) for row in table.rows]
    cells: list[Cell] = []
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
    settings = {
        name: Setting(
            tuple(cell for cell in cells if cell.row.column == name),
            _lga(table, [cell for cell in cells if cell.row.column == name], runs_of),
        )
        for name in table.columns()
    }
    return Compared(table, tuple(_settled(table, cell, settings) for cell in cells), evaluate_on)


@dataclass(frozen=True)
class Setting:
    """The cells of one of a table's settings."""

    cells: tuple[Cell, ...]
    lga: Difference | None
    """LGA less FedKA in this setting, also where LGA is no row: ablations are judged by it too."""

    @property
    def leads(self) -> bool:
        """Whether FedKA is ahead of LGA in the mean over enough paired seeds (docs/method.md 8),
        and every method ran at as many.
        """
        enough = all(cell.ours and cell.ours.count >= ENOUGH for cell in self.cells)
        lga = self.lga
        return enough and lga is not None and len(lga.seeds) >= ENOUGH and lga.mean < 0


def _lga(
    table: Table, cells: Sequence[Cell], runs_of: Callable[[Row], Sequence[Result]]
) -> Difference | None:
    """LGA less FedKA, seed by seed; None where either was not run in this setting."""
    fedka = next((cell for cell in cells if cell.row.strategy == REFERENCE), None)
    if fedka is None:
        return None
    runs = runs_of(replace(fedka.row, strategy=LGA, printed=None))
    return difference(by_seed(runs, table.metric), by_seed(fedka.results, table.metric))


def _settled(table: Table, cell: Cell, settings: Mapping[str, Setting]) -> Cell:
    """A cell that misses the printed number, with what the whole of its table says of that."""
    if cell.state != "differs":
        return cell
    if all(in_order(each.cells) and each.leads for each in settings.values()):
        return replace(cell, state="reproduced by order")
    return replace(cell, remark="; ".join(_known_of(table, cell, settings[cell.row.column])))


def in_order(cells: Sequence[Cell]) -> bool:
    """Whether all these methods were run, and come in the order of their printed averages."""
    pairs = [(cell.ours.mean, cell.printed.average) for cell in cells if cell.ours and cell.printed]
    ours, theirs = (sorted(pairs, key=itemgetter(part)) for part in (0, 1))
    return len(pairs) == len(cells) and ours == theirs


def _known_of(table: Table, cell: Cell, setting: Setting) -> Iterator[str]:
    """What is known of why a number is another one than printed."""
    if not (cell.ours and cell.printed):
        return
    theirs = cell.printed.average
    yield f"{cell.ours.mean - theirs:+.2f} points from what the paper prints of one run"
    if cell.ours.deviation is not None:
        yield f"{cell.ours.count} seeds here vary by {cell.ours.deviation:.2f}"
    best = [run.line["best_round_average"] for run in cell.results]
    if table.metric == "accuracy" and None not in best:
        yield f"with the best round of each stage for its last {fmean(best) - theirs:+.2f}"
    ordered = in_order(setting.cells)
    yield "the printed order" if ordered else "not the printed order, or not every method was run"
    if setting.lga is None and LGA not in {each.row.strategy for each in setting.cells}:
        yield "LGA, by which an order is judged too, was not run in this setting"
    if cell.ours.count < ENOUGH:
        yield f"an order counts from {ENOUGH} seeds on"


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
    if runs and not values:
        state = "diverged"
    remark = against.remark if against and state == "not told apart" else ""
    return Cell(row, tuple(runs), ours, _by_stage(table, runs), against, theirs, state, remark)


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
    if against is None or against.verdict == "not told apart":
        return "not told apart"
    if not theirs:
        return "above" if against.mean > 0 else "below"
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


def tables_of(
    runs: Iterable[Result],
    own: Values | None = None,
    evaluate_on: str = "test",
    scales: Sequence[Scale] = SCALES,
) -> list[Table]:
    """Every table that one of these runs is a cell of; `own` is changed in all tables."""
    found: dict[tuple[str, Scale, str], Table] = {}
    for run in runs:
        data = run.configuration.dataset
        keys = {**({"dataset": data} if own_data(data)[1] else {}), **(own or {})}
        for scale in scales:
            for name in TABLES:
                asked = table(name, scale, keys).joined_by([run.strategy])
                if run.identity in _identities(asked, run.seed, evaluate_on):
                    place = name, scale, str(keys.get("dataset"))
                    found[place] = found.get(place, asked).joined_by([run.strategy])
    return list(found.values())


def in_none(runs: Iterable[Result], tables: Sequence[Table], evaluate_on: str) -> list[Compared]:
    """Runs that are a cell of none of these tables, as tables of their own: their figures alone.

    A row is a configuration, at the seeds that there are; what was scored on other images stands
    in a table of its own.
    """
    rows: dict[str, dict[str, list[Result]]] = {}
    for run in runs:
        if any(run.identity in _identities(each, run.seed, evaluate_on) for each in tables):
            continue
        same = run.configuration.model_copy(update={"seed": 0})
        of_part = rows.setdefault(run.line["evaluate_on"], {})
        of_part.setdefault(identity(same, ""), []).append(run)
    return [_loose(part, list(found.values())) for part, found in rows.items()]


def _identities(table: Table, seed: int, evaluate_on: str) -> set[str]:
    return {identity(table.configuration(row, seed), evaluate_on) for row in table.rows}


def _loose(evaluate_on: str, found: Sequence[Sequence[Result]]) -> Compared:
    rows = [Row(runs[0].strategy, {}, _setting(runs[0])) for runs in found]
    whole = Table("runs", "in no table shown here", None, "accuracy", "", tuple(rows))
    cells = [_cell(whole, row, runs, row, runs) for row, runs in zip(rows, found, strict=True)]
    return Compared(
        whole,
        tuple(
            cell if cell.state == "diverged" else replace(cell, state="in no table")
            for cell in cells
        ),
        evaluate_on,
    )


def _setting(run: Result) -> str:
    """A run's recipe, and what is changed in it."""
    own = run.configuration
    changed = {key: each for key, each in departures(own).items() if key not in OF_A_ROW}
    if "dataset" in changed:
        changed["dataset"] = run.line["data"]["name"]
    return " ".join([own.recipe, *(f"{key}={each}" for key, each in changed.items())])


def beside(results: Iterable[Result], name: str) -> Spread | None:
    """One of `SIDE` over the runs that have it."""
    key = METRICS.get(name, name)
    known = [each.line[key] for each in results if each.line[key] is not None]
    return spread(known) if known else None


def noticed(results: Iterable[Result]) -> dict[str, int] | None:
    """How often the entropy rule was right, summed over runs; None where none was scored."""
    told = [each.line["detector"] for each in results if each.line.get("detector")]
    return {name: sum(each[name] for each in told) for name in ENTROPY} if told else None


def only(each: Compared, methods: Collection[str]) -> Compared:
    """The rows of these methods, compared with the reference all the same; of none, all rows."""
    shown = tuple(cell for cell in each.cells if not methods or cell.row.strategy in methods)
    return replace(each, cells=shown)


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
        "remark": cell.remark or None,
        **{name: found.mean if (found := beside(cell.results, name)) else None for name in SIDE},
        "detector": noticed(cell.results),
        "model_sha256": {str(each.seed): each.line["model_sha256"] for each in cell.results},
        "commands": [each.line["command"] for each in cell.results],
    }
