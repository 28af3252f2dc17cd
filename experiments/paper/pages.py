"""A comparison as files: Markdown, CSV, pictures of the curves, and a page that holds them all."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, select_autoescape

from experiments.folder import write_whole
from experiments.numbers import NOTHING
from experiments.paper.comparison import (
    ENTROPY,
    SIDE,
    Cell,
    Compared,
    as_json,
    beside,
    compared,
    noticed,
    states,
)
from experiments.paper.results import Result
from experiments.paper.statistics import Difference, Spread
from experiments.paper.tables import TABLES, Scale, Values, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER: Scale = "paper"
HEADINGS = ("method", "setting", "paper", "here", "seeds", "paper: to FedKA", "here: to FedKA",
            "state")  # fmt: skip
PHASES: dict[str, tuple[str, ...]] = {
    "training": ("learn",),
    "perturbing": ("prototypes",),
    "rebuilding": ("reconstruct", "score"),
    "memory": ("herd",),
    "detection": ("judge",),
    "evaluation": ("evaluate",),
}
"""Of a run's measured seconds; what is in none of them is `the rest`."""
LEAD = (
    "Means over the stages in percent, with the deviation over seeds. A difference (to FedKA) is a"
    " method's value less FedKA's at the same seed, so that + is above FedKA, with the interval"
    " that holds the true one 95 times in 100. Scales other than the paper's are smaller in data,"
    " net, twins and rounds: their numbers stand beside the printed ones to compare orders, never"
    " values."
)
SIDE_NOTE = (
    "Beside it: means over seeds of macro F1 and the rest in percent or points, and Spearman's"
    " correlation of the proxy's scores with the candidates' accuracies on test images, the mean"
    " over stages. Of two candidates it is 1 or -1 in a stage, and at a tie there is none. Entropy"
    " hits, misses and false alarms are those of the entropy rule against the labels, in windows of"
    " twins, summed over seeds; a twin's first contact, of which the rule can tell nothing, is left"
    " out."
)
COST_NOTE = (
    "What it took: seconds of all processes, summed over the seeds, and where they went. A training"
    " that several methods have in common counts where it was made, and seconds grow with whatever"
    " else the machine did meanwhile: shares within a row can be read, seconds of two rows not"
    " compared. Perturbing is the twins' making of prototypes; rebuilding is the proxy's, with its"
    " scoring of old models."
)
COLOURS = (
    "#1f5fa8", "#c2571a", "#14866d", "#8a3ffc", "#b3261e", "#5b6875", "#0e7490", "#a16207",
    "#be185d", "#4d7c0f", "#1d2733", "#7c3aed", "#0369a1", "#b45309", "#15803d", "#9f1239",
    "#475569",
)  # fmt: skip
MARKERS = "osD^vP*X<>hdp8H|_"


def mean_of(spread: Spread | None) -> str:
    """`48.9 ± 0.7`, or without a deviation where there is one value."""
    if spread is None:
        return NOTHING
    around = "" if spread.deviation is None else f" ± {spread.deviation:.2f}"
    return f"{spread.mean:.2f}{around}"


def interval_of(difference: Difference | None) -> str:
    """`-1.9 (-2.5 to -1.3)`: the mean and what holds the true one 95 times in 100."""
    if difference is None:
        return NOTHING
    around = ""
    if difference.low is not None and difference.high is not None:
        around = f" ({difference.low:+.2f} to {difference.high:+.2f})"
    return f"{difference.mean:+.2f}{around}"


def words_of(cell: Cell) -> tuple[str, ...]:
    """A row of the table as a person reads it."""
    printed = NOTHING if cell.printed is None else f"{cell.printed.average:.2f}"
    theirs = NOTHING if cell.theirs is None else f"{cell.theirs:+.2f}"
    return (
        cell.row.label, cell.row.column or NOTHING, printed, mean_of(cell.ours),
        str(len(cell.results)), theirs, interval_of(cell.against), cell.state,
    )  # fmt: skip


def markdown(found: Iterable[Compared], *, whole: bool = False) -> str:
    """How to read tables, then each: a heading and grids; `whole` with accuracy matrices."""
    parts = ["\n\n".join((LEAD, SIDE_NOTE, COST_NOTE))]
    for each in found:
        lines = [f"## {heading(each)}", "", *_grid(HEADINGS, map(words_of, each.cells))]
        lines += [line for said in remarks(each) for line in ("", said)]
        if any(cell.results for cell in each.cells):
            lines += ["", *_grid(side_headings(), side_rows(each))]
            lines += ["", *_grid(cost_headings(), cost_rows(each))]
            if whole:
                lines += _matrices(each)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _matrices(each: Compared) -> Iterator[str]:
    yield from ("", "### Accuracy on the classes of each stage, after each stage, mean over seeds")
    for name, rows in matrices(each):
        stages = range(len(rows))
        headings = (name, *(f"of stage {stage}" for stage in stages))
        filled = [
            [f"after {i}", *row, *[""] * (len(rows) - len(row))] for i, row in enumerate(rows)
        ]
        yield from ("", *_grid(headings, filled))


def remarks(each: Compared) -> list[str]:
    """What a reader has to know beside the numbers, a sentence each.

    Of each that differs from the printed one what is known of why, of what is not told apart
    whether that is for its deviation alone; and where no twin drew a class, which is then neither
    learned nor scored (docs/method.md 1.1).
    """
    differing = [
        f"{' '.join(filter(None, (cell.row.label, cell.row.column)))} {cell.state}: {cell.remark}."
        for cell in each.cells
        if cell.remark
    ]
    undrawn = {
        (cell.row.column, run.seed): classes
        for cell in each.cells
        for run in cell.results
        if (classes := run.line.get("undrawn_classes"))
    }
    return differing + [
        f"{' '.join(filter(None, (column, f'seed {seed}')))}: no twin drew {_listed(classes)},"
        " of which nothing is learned and nothing scored."
        for (column, seed), classes in sorted(undrawn.items())
    ]


def _listed(classes: Sequence[str]) -> str:
    return f"class{'' if len(classes) == 1 else 'es'} {', '.join(classes)}"


def heading(each: Compared) -> str:
    """Name, what it is, scale, and on which images if not the test's."""
    on = "" if each.evaluate_on == "test" else f", scored on {each.evaluate_on} images"
    scale = each.table.scale
    within = f" (scale {scale}{on})" if scale else on
    return f"{each.table.name}: {each.table.title}{within}"


def side_headings() -> tuple[str, ...]:
    heard = (f"entropy {name}" for name in ENTROPY)
    return ("method", "setting", *(name.replace("_", " ") for name in (*SIDE, *heard)))


def side_rows(each: Compared) -> list[tuple[str, ...]]:
    """What stands beside accuracy in docs/method.md 8, of the rows that were run."""
    rows = []
    for cell in each.cells:
        if not cell.results:
            continue
        heard = noticed(cell.results)
        rows.append((
            cell.row.label, cell.row.column or NOTHING,
            *(mean_of(beside(cell.results, name)) for name in SIDE),
            *(NOTHING if heard is None else str(heard[name]) for name in ENTROPY),
        ))  # fmt: skip
    return rows


def cost_headings() -> tuple[str, ...]:
    return ("method", "setting", "seconds", *(f"{name} %" for name in PHASES), "the rest %")


def cost_rows(each: Compared) -> list[tuple[str, ...]]:
    """What the runs of a row took together, by phase: work of all processes, in percent.

    A training that several methods have in common counts where it was made.
    """
    rows = []
    for cell in each.cells:
        if not cell.results:
            continue
        seconds = Counter[str]()
        for run in cell.results:
            seconds.update(run.line["seconds"])
        total = seconds.total()
        if not total:
            continue
        shares = [sum(seconds[phase] for phase in phases) / total for phases in PHASES.values()]
        rows.append((
            cell.row.label, cell.row.column or NOTHING, f"{total:.0f}",
            *(f"{100 * share:.1f}" for share in [*shares, 1 - sum(shares)]),
        ))  # fmt: skip
    return rows


def matrices(each: Compared) -> list[tuple[str, list[list[str]]]]:
    """Of each row that was run its accuracy matrix, the mean over seeds: a[t][j] in percent."""
    found = []
    for cell in each.cells:
        if not cell.results:
            continue
        of_runs = [run.line["matrix"] for run in cell.results]
        mean = [
            [
                mean_of(Spread(1, fmean(known), None)) if (known := _known(values)) else NOTHING
                for values in zip(*rows, strict=False)
            ]
            for rows in zip(*of_runs, strict=False)
        ]
        found.append((" ".join(filter(None, (cell.row.label, cell.row.column))), mean))
    return found


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    bar = "|" + "---|" * len(headings)
    return [_line(headings), bar, *map(_line, rows)]


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "/") for word in words) + " |"


def as_csv(found: Iterable[Compared]) -> str:
    """One line for each cell of all tables."""
    held = io.StringIO()
    keys = [
        "table", "scale", "metric", "evaluate_on", "method", "setting", "printed", "mean",
        "deviation", "pairs", "printed_difference", "difference", "difference_low",
        "difference_high", "state", "remark", "seeds", *SIDE, *ENTROPY,
    ]  # fmt: skip
    writer = csv.DictWriter(held, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for each in found:
        told = as_json(each)
        for row in told["rows"]:
            seeds = len(row["seeds"])
            writer.writerow({**told, **row, **(row["detector"] or {}), "seeds": seeds})
    return held.getvalue()


def curves(each: Compared) -> Figure | None:
    """A metric by share of the classes seen, with its deviation; dashed the paper's, if printed.

    Stages of ours and theirs are not equally many, so both go from the first stage to all classes.
    """
    from matplotlib.figure import Figure  # slow to be read, and an overview has no picture

    from experiments.figures import LIGHT

    shown = [cell for cell in each.cells if cell.stages or (cell.printed and cell.printed.stages)]
    if not any(cell.stages for cell in shown):
        return None
    figure = Figure(figsize=(9.6, 4.6))
    axes = figure.add_subplot()
    axes.grid(axis="y", color=LIGHT.grid, linewidth=0.8)
    for cell in shown:
        place = each.cells.index(cell) % len(COLOURS)
        name = " ".join(filter(None, (cell.row.label, cell.row.column)))
        style: dict[str, Any] = {"color": COLOURS[place], "markersize": 4.5}
        if cell.stages:
            means = [stage.mean for stage in cell.stages]
            bars = [stage.deviation or 0.0 for stage in cell.stages]
            style |= {"marker": MARKERS[place], "label": name}
            axes.errorbar(_seen(means), means, bars, capsize=2, **style)
        if cell.printed and cell.printed.stages:
            theirs = cell.printed.stages
            style |= {"marker": "", "label": f"{name}, paper"}
            axes.plot(_seen(theirs), theirs, linestyle="--", linewidth=1, **style)
    axes.set_xlabel("classes seen, % of all", color=LIGHT.muted)
    axes.set_ylabel(f"{each.table.metric.replace('_', ' ')} (%)", color=LIGHT.muted)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8)
    return figure


def _seen(stages: Sequence[float]) -> list[float]:
    """Percent of all classes that have been seen at the end of each stage."""
    return [100 * (stage + 1) / len(stages) for stage in range(len(stages))]


def write(found: Sequence[Compared], out: Path) -> list[Path]:
    """report.html, .md and .csv, and a PNG for each table with curves; gives their paths."""
    from experiments.figures import png

    out.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for each in found:
        figure = curves(each)
        if figure is not None:
            pictures[_picture(each)] = png(figure)
    page = _page(found, pictures)
    files = {
        "report.html": page.encode(),
        "report.md": markdown(found, whole=True).encode(),
        "report.csv": as_csv(found).encode(),
        **{f"{name}.png": content for name, content in pictures.items()},
    }
    for name, content in files.items():
        write_whole(out / name, content)
    return [out / name for name in files]


def _page(found: Sequence[Compared], pictures: dict[str, bytes]) -> str:
    environment = Environment(
        loader=PackageLoader("experiments"), autoescape=select_autoescape(["html"])
    )
    shown = [
        {
            "heading": heading(each),
            "headings": HEADINGS,
            "rows": [words_of(cell) for cell in each.cells],
            "remarks": remarks(each),
            "side_headings": side_headings(),
            "side": side_rows(each),
            "cost_headings": cost_headings(),
            "costs": cost_rows(each),
            "matrices": matrices(each),
            "picture": _uri(pictures.get(_picture(each))),
            "commands": sorted({
                run.line["command"] for cell in each.cells for run in cell.results
            }),
        }
        for each in found
    ]  # fmt: skip
    notes = {"lead": LEAD, "side_note": SIDE_NOTE, "cost_note": COST_NOTE}
    return environment.get_template("comparison.html").render(tables=shown, **notes)


def _picture(each: Compared) -> str:
    """The name of a table's picture; own data and other images tell two of one table apart."""
    data = Path(str(each.table.own.get("dataset", "")).rpartition(":")[2]).stem
    on = "" if each.evaluate_on == "test" else each.evaluate_on
    return "-".join(filter(None, (each.table.name, each.table.scale, data, on)))


def _uri(content: bytes | None) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode() if content else ""


def overviewed(
    known: Sequence[Result],
    scale: Scale = "bench",
    own: Values | None = None,
    evaluate_on: str = "test",
) -> list[dict[str, Any]]:
    """Of every table how many cells are in each state, at the paper's scale and at `scale`; and how
    many seeds each row of it has there at least, where it was run."""
    lines = []
    for name in TABLES:
        if not name.startswith("table"):
            continue
        at = {
            each: compared(table(name, each, own), known, evaluate_on)
            for each in dict.fromkeys((PAPER, scale))
        }
        lines.append({
            "table": name,
            "title": at[scale].table.title,
            "states": {each: states(found.cells) for each, found in at.items()},
            "seeds": min((len(c.results) for c in at[scale].cells if c.results), default=0),
        })  # fmt: skip
    return lines


def overview(
    known: Sequence[Result],
    scale: Scale = "bench",
    own: Values | None = None,
    evaluate_on: str = "test",
) -> str:
    """The state of every table of the paper at its own scale and at another, as Markdown."""
    scales = [f"at `{each}`" for each in (scale,) if each != PAPER]
    headings = ("table", "what", "at the paper's scale", *scales, "seeds")
    rows = [
        (
            line["table"].removeprefix("table"),
            line["title"],
            *(
                ", ".join(f"{count} {state}" for state, count in found.items())
                for found in line["states"].values()
            ),
            str(line["seeds"]),
        )
        for line in overviewed(known, scale, own, evaluate_on)
    ]
    return "\n".join(_grid(headings, rows)) + "\n"
