"""reproduce, report and compare: the paper's tables as commands."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    answer,
    command,
    console,
    data_dir,
    next_step,
    overrides,
    table,
)
from experiments.numbers import counted, duration
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.paper.comparison import Compared
    from experiments.paper.results import Result
    from experiments.paper.tables import Table

SCHEDULE = "schedule_sha256"
COMPARABLE = ("data", "evaluate_on", SCHEDULE)
"""What two runs have in common that are compared; the oracle has a schedule of its own."""
FIRST_SEED = 2021
"""The paper's; further ones count up."""
OVERVIEW = "overview"
RESULTS, WORK = Path("results"), Path("runs/reproduce")
Scale = Annotated[
    str,
    typer.Option(
        "--scale",
        metavar="NAME",
        help="paper: its own setting; bench: reduced, real images, two cores; smoke: digits.",
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", help="Where lines of finished runs are kept, besides those"
        " that come with the program."
    ),
]  # fmt: skip
On = Annotated[
    str,
    typer.Option(
        "--on", metavar="PART", help="test, or validation: the images that choices are made on."
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="KEY=VALUE", help="Change a key of every run; repeat for more."),
]
Tables = Annotated[
    list[str],
    typer.Argument(
        metavar="TABLE…",
        help="table2 to table11, figure4, figure5, methods (all of them), hospital, or all.",
    ),
]


def reproduce(
    names: Tables,
    scale: Scale = "bench",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="N", help="Seeds from 2021 on.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Only this method; repeat for more."),
    ] = None,
    own: Own = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="Runs side by side; one a core."),
    ] = None,
    results: Results = RESULTS,
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Where runs lie until they are stored.")
    ] = WORK,
    data: DataDir = None,
    on: On = "test",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep folders of stored runs, and shared trainings.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell what would run, and run nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run what a table of the paper still lacks, and show it beside the printed numbers.

    All methods of a table have one schedule and the same images. What was stored is never run
    again; Ctrl-C stops at any moment, and the same command goes on.

    \b
    Examples:
      fedtwin reproduce table2 --scale smoke --seeds 3
      fedtwin reproduce table2 table11 --scale bench --seeds 3 --data-dir ~/data
      fedtwin reproduce table10 --scale paper --plan
      fedtwin reproduce hospital -o dataset=npz:cells.npz --seeds 3
    """
    from experiments import api
    from experiments.paper import reproduce as runs
    from experiments.paper.results import stored

    keys = overrides(own or ())
    tables = _with(only or (), _tables(names, scale, keys))
    planned = runs.planned(tables, range(FIRST_SEED, FIRST_SEED + seeds), _part(on))
    planned = [each for each in planned if not only or each.configuration.strategy in only]
    folder = data_dir(data) or api.DATA_DIR.expanduser()
    known = _of_these_data(stored(results), keys, folder)
    done = {each.identity for each in known}
    missing = [each for each in planned if each.identity not in done]
    notes = console(stderr=True)
    notes.print(f"{counted(len(planned), 'run')}, {len(missing)} of them not stored yet")
    if plan:
        told = {"schema": SCHEMA, "planned": len(planned), "missing": [r.name for r in missing]}
        answer(told, as_json, lambda out: _planned(out, told))
        return
    machine = runs.Machine(
        work,
        folder,
        jobs or api.cores(),
        lambda text: notes.print(text, soft_wrap=True),
        keep=keep,
    )
    left = len(missing)
    for result in machine.run(missing, results / f"{scale}.jsonl"):
        left -= 1
        notes.print(_stored(result, left), soft_wrap=True)
    known = _of_these_data(stored(results), keys, folder)
    _show(tables, known, on, as_json, methods=only or ())


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|TABLE…",
            help="Folders of runs, tables as of `reproduce`, or overview alone.",
        ),
    ],
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            metavar="NAME",
            show_default="bench; of folders alone, any",
            help="paper, bench or smoke.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write report.html, .md, .csv and PNGs there; of overview, overview.md.",
        ),
    ] = None,
    own: Own = None,
    results: Results = RESULTS,
    data: DataDir = None,
    on: On = "test",
    as_json: AsJson = False,
) -> None:
    """Show tables of the paper beside what was run of them, from stored results alone.

    A folder of a run adds its result for this once. Of folders alone the tables are shown that
    these runs belong to; what belongs to none has a table of its own.

    \b
    Examples:
      fedtwin report table2 table11
      fedtwin report runs/bench-fedka-2021 runs/bench-lga-2021 --out comparison
      fedtwin report all --out comparison
      fedtwin report table2 runs/bench-fedka-2021 --json
      fedtwin report overview                  # a line for each table, as Markdown
    """
    from experiments import api
    from experiments.paper import pages
    from experiments.paper.comparison import tables_of
    from experiments.paper.results import of_folder, stored

    keys = overrides(own or ())
    if OVERVIEW in names:
        if len(names) > 1:
            raise ConfigurationError(
                f"{OVERVIEW} is a line for each table of the paper and stands alone:"
                f" `fedtwin report {OVERVIEW}`, and the others in a command of their own"
            )
        _overview(stored(results), _scales(scale or "bench")[0], keys, _part(on), out, as_json)
        return
    folders = [Path(name) for name in names if Path(name).is_dir()]
    found = [name for name in names if not Path(name).is_dir()]
    here = list(map(of_folder, folders))
    if found:
        tables = _tables(found, scale or "bench", keys)
        tables = [
            each.joined_by(run.strategy for run in [*stored(results), *here]) for each in tables
        ]
    else:
        tables = tables_of(here, keys, _part(on), _scales(scale))
    place = data_dir(data) or api.DATA_DIR.expanduser()
    known = _like_these([*_of_these_data(stored(results), keys, place), *here], here)
    shown = _show(tables, known, on, as_json, loose=here)
    if out is not None:
        written = pages.write(shown, out)
        if not as_json:
            next_step(console(), f"open {written[0]}")


def compare(
    one: Annotated[str, typer.Argument(metavar="A", help="A method, or a folder of a run.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="accuracy, macro_f1, forgetting, backward_transfer or new_class_accuracy.",
        ),
    ] = "accuracy",
    scale: Scale = "bench",
    own: Own = None,
    results: Results = RESULTS,
    on: On = "test",
    as_json: AsJson = False,
) -> None:
    """Say whether A differs from B by more than chance, at the seeds at which both ran.

    \b
    Examples:
      fedtwin compare fedka lga
      fedtwin compare fedka lga -o iid=0.4 --metric forgetting
      fedtwin compare runs/smoke-fedka-2021 runs/smoke-lga-2021
    """
    from experiments.paper.results import METRICS, by_seed, identity, of_folder, stored
    from experiments.paper.statistics import LEVEL, difference
    from experiments.paper.tables import CIFAR, SCALES
    from experiments.recipes import recipe
    from learning.strategies.choice import installed

    if metric not in METRICS:
        raise ConfigurationError(f"--metric is one of {', '.join(METRICS)}, not {metric!r}")
    if scale not in SCALES:
        raise ConfigurationError(f"--scale is {', '.join(SCALES)}, not {scale!r}")
    known, keys = stored(results), overrides(own or ())

    def of(name: str) -> list[Result]:
        if Path(name).is_dir():
            return [of_folder(Path(name))]
        if name not in installed():
            raise ConfigurationError(
                f"{name} is neither a folder nor a method: `fedtwin methods` lists these"
            )
        names = {
            identity(recipe(CIFAR[scale], overrides={**keys, "strategy": name, "seed": seed}), on)
            for seed in {each.seed for each in known}
        }
        return [each for each in known if each.identity in names]

    runs = [of(name) for name in (one, other)]
    for seed in {each.seed for each in runs[0]} & {each.seed for each in runs[1]}:
        a, b = (next(each for each in side if each.seed == seed) for side in runs)
        pooled = {_pooled(each.strategy) for each in (a, b)} == {True, False}
        asked = [key for key in COMPARABLE if key in a.line.keys() & b.line.keys()]
        unlike = [
            key for key in asked if a.line[key] != b.line[key] and not (pooled and key == SCHEDULE)
        ]
        if unlike:
            raise ConfigurationError(
                f"{one} and {other} differ at seed {seed} in more than their method: in"
                f" {', '.join(unlike)}. Only runs on the same images and schedule can be compared"
            )
    sides = [by_seed(side, metric) for side in runs]
    found = difference(*sides)
    if found is None:
        raise ConfigurationError(
            f"{one} and {other} have no seed in common: {_seeds(one, sides[0])},"
            f" {_seeds(other, sides[1])}. `fedtwin reproduce methods --method NAME --scale {scale}`"
            " runs what is missing"
        )
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "a": one,
        "b": other,
        "metric": metric,
        "seeds": list(found.seeds),
        "difference": found.mean,
        "deviation": found.deviation,
        "level": LEVEL,
        "low": found.low,
        "high": found.high,
        "verdict": found.verdict,
        "remark": found.remark or None,
    }
    answer(told, as_json, lambda out: _compared(out, told))


def _tables(names: Sequence[str], scale: str, own: dict[str, Any]) -> list[Table]:
    from experiments.paper.tables import TABLES, table

    wanted = [each for name in names for each in (TABLES if name == "all" else (name,))]
    found = [table(name, scale, own) for name in dict.fromkeys(wanted)]  # type: ignore[arg-type]
    for each in found:
        if each.name == "hospital" and "dataset" not in own and "all" not in names:
            raise ConfigurationError(
                "hospital is about images of your own: name them with -o dataset=npz:FILE"
            )
    if "hospital" in [each.name for each in found] and "dataset" not in own:
        console(stderr=True).print(
            "left out: hospital, which is about images of your own and needs -o dataset=npz:FILE",
            soft_wrap=True,
        )
        found = [each for each in found if each.name != "hospital"]
    return found


def _with(methods: Sequence[str], tables: Sequence[Table]) -> list[Table]:
    """The tables, that of all methods with those of other packages that are asked for.

    Raises ConfigurationError for a method that is in none of them.
    """
    from experiments.paper.tables import EVERY
    from learning.strategies.choice import installed
    from schemas.configuration import nearest

    joined = [each.joined_by(name for name in methods if name in installed()) for each in tables]
    there = list(dict.fromkeys(row.strategy for each in joined for row in each.rows))
    for name in methods:
        if name not in there:
            names = ", ".join(dict.fromkeys(each.name for each in tables))
            more = f"; `{EVERY}` is the table of every method" if name in installed() else ""
            raise ConfigurationError(
                f"--method {name}: {names} has no such method, but {', '.join(there)}"
                f"{more or nearest(name, there)}"
            )
    return joined


def _overview(
    known: Sequence[Result],
    scale: Any,
    own: dict[str, Any],
    on: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """A line for each table of the paper: as Markdown, as one object, and as a file."""
    from experiments.folder import write_whole
    from experiments.paper import pages

    lines = pages.overviewed(known, scale, own, on)
    text = pages.overview(known, scale, own, on)
    if as_json:
        print(json.dumps({"schema": SCHEMA, "overview": lines}))
    else:
        print(text, end="")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / f"{OVERVIEW}.md", text.encode())


def _scales(asked: str | None) -> Sequence[Any]:
    """All of them, or the one that is asked for."""
    from experiments.paper.tables import SCALES

    if asked not in (None, *SCALES):
        raise ConfigurationError(f"--scale is {', '.join(SCALES)}, not {asked!r}")
    return SCALES if asked is None else (asked,)


def _of_these_data(known: Sequence[Result], own: dict[str, Any], folder: Path) -> list[Result]:
    """Without results of other images under the same name, where a file of one's own is asked for.

    A file that is not here says nothing: then all that is stored under its name is meant.
    """
    from producers.datasets import load, placed
    from schemas.datasets import own_data
    from schemas.errors import DataError

    name = str(own.get("dataset", ""))
    if not own_data(name)[1]:
        return list(known)
    size = own.get("image_size")
    try:
        now = load(placed(name, folder), folder, image_size=size).sha256
    except DataError:
        return list(known)
    form, path = own_data(name)
    called = f"{form}:{Path(path).name}"
    return [
        each
        for each in known
        if each.configuration.dataset != called or each.line["data"]["sha256"] == now
    ]


def _like_these(known: Sequence[Result], runs: Sequence[Result]) -> list[Result]:
    """Without results of other images under the name of a file that one of these runs saw."""
    from schemas.datasets import own_data

    def called(each: Result) -> str:
        return str(each.line["configuration"]["dataset"])

    seen = {called(each): each.line["data"]["sha256"] for each in runs if own_data(called(each))[1]}
    return [
        each
        for each in known
        if seen.get(called(each), each.line["data"]["sha256"]) == each.line["data"]["sha256"]
    ]


def _pooled(method: str) -> bool:
    """Whether a method trains on one node; what is not installed any more is taken for none."""
    from learning.strategies.choice import installed

    return method in installed() and installed()[method].pooled


def _part(on: str) -> str:
    from experiments.runner import PARTS

    if on not in PARTS:
        raise ConfigurationError(f"--on is {' or '.join(PARTS)}, not {on!r}")
    return on


def _show(
    tables: Sequence[Any],
    known: Sequence[Result],
    on: str,
    as_json: bool,
    *,
    methods: Sequence[str] = (),
    loose: Sequence[Result] = (),
) -> list[Compared]:
    """Tell all tables as one answer; `loose` are runs that have to be shown, if in no table."""
    from experiments.paper.comparison import as_json as plain
    from experiments.paper.comparison import compared, in_none
    from experiments.paper.comparison import only as chosen

    found = [chosen(compared(each, known, _part(on)), methods) for each in tables]
    found += in_none(loose, tables, on)
    told = {"schema": SCHEMA, "tables": [plain(each) for each in found]}
    answer(told, as_json, lambda out: _tables_shown(out, found))
    return found


def _tables_shown(out: Console, found: Sequence[Compared]) -> None:
    from experiments.paper.pages import HEADINGS, heading, remarks, words_of

    right = {2, 3, 4, 5, 6}
    headings = [f">{name}" if i in right else name for i, name in enumerate(HEADINGS)]
    for each in found:
        out.print(heading(each), style="bold")
        table(out, headings, map(words_of, each.cells))
        for said in remarks(each):
            out.print(said, soft_wrap=True)
        out.print()


def _planned(out: Console, told: dict[str, Any]) -> None:
    for name in told["missing"]:
        out.print(name)
    next_step(out, "the same command without --plan")


def _stored(result: Result, left: int) -> str:
    value = result.value("accuracy")
    took = duration(result.line["wall_seconds"])
    shown = "nothing scored" if value is None or math.isnan(value) else f"{value:.2f} %"
    return f"stored: {result.strategy} {result.seed}: {shown} in {took}; {left} to go"


def _seeds(name: str, values: dict[int, float]) -> str:
    return f"{name} ran at {', '.join(map(str, sorted(values))) or 'none'}"


def _compared(out: Console, told: dict[str, Any]) -> None:
    pairs = counted(len(told["seeds"]), "seed")
    a, b = told["a"], told["b"]
    out.print(f"{a} less {b}: {told['difference']:+.2f} points of {told['metric']}, {pairs}")
    if told["low"] is None:
        out.print("one seed tells no difference from chance")
    else:
        level = f"{told['level']:.0%}"
        said = ": ".join(filter(None, (told["verdict"], told["remark"])))
        out.print(f"{level} interval {told['low']:+.2f} to {told['high']:+.2f}: {said}")
    next_step(out, command("report", "methods"))


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(reproduce)
    app.command()(report)
    app.command()(compare)
