"""What commands share: options, where data lies, and how an answer is told."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.numbers import NOTHING, counted
from infra.places import usual_data_dir
from schemas.errors import ConfigurationError
from schemas.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.messages import DataFacts

SCHEMA = 1
"""Of every JSON object that a command prints."""
BEGUN = "fedtwin.begun"
"""In a context's `meta`: the folder of the run that a command has begun or goes on with."""
PIPED_WIDTH = 120
"""Columns of a table that no terminal shows."""


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout, and nothing else."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where data sets lie. Otherwise FEDTWIN_DATA_DIR, or fedtwin in the cache folder.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Trainings side by side, otherwise one a core; any number gives the same model.",
    ),
]
Replication = Annotated[
    int | None,
    typer.Option(
        "--replication",
        min=1,
        metavar="N",
        help="Copies of each topic; otherwise three, or as many as Kafka has brokers.",
    ),
]
InSync = Annotated[
    int | None,
    typer.Option(
        "--min-insync",
        min=1,
        metavar="N",
        help="Copies that must have a record before it counts as written; otherwise all but one.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No estimate, no progress.")]
Run = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="A run's folder, or the name of a run or live federation on Kafka; otherwise"
        " FEDTWIN_RUN.",
    ),
]
Needed = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run's folder, or the name of a run or live federation on Kafka."
    ),
]
AsOption = Annotated[Path | None, typer.Option("--run", metavar="RUN", help="RUN, as an option.")]


def data_dir(asked: Path | None) -> Path:
    """The folder of data sets: as asked, as the environment says, or in the user's cache."""
    named = asked or os.environ.get("FEDTWIN_DATA_DIR")
    return Path(named).expanduser().absolute() if named else usual_data_dir(os.environ)


def without_usual_place(text: str) -> str:
    """A text in whose commands the folder of data sets is named only where it is not the usual."""
    return text.replace(f" --data-dir {shlex.quote(str(data_dir(None)))}", "")


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, values read as YAML. Raises ConfigurationError for anything else."""
    import yaml

    found: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"-o takes key=value, such as -o stages=2, not {pair!r}")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigurationError(f"-o {pair}: the value is no YAML; quote it") from None
    return found


def answer(told: dict[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """Tell one object: as JSON on one line, or as a person reads it."""
    if as_json:
        print(json.dumps(told))
    else:
        show(console())


def console(*, stderr: bool = False) -> Console:
    """Where to print: a terminal's own width, or wide enough where a program reads.

    What is printed there may quote what others have written: it is made plain.
    """
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            made = (plain(each, "\n") if isinstance(each, str) else each for each in objects)
            super().print(*made, **options)

    on_screen = (sys.stderr if stderr else sys.stdout).isatty()
    return Plain(
        stderr=stderr, width=None if on_screen else PIPED_WIDTH, highlight=False, markup=False
    )


def table(out: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their headings; a heading that begins with '>' has its column to the right.

    Lines end where their words do: a terminal would not show blanks, but a file would keep them.
    What is too long for its column goes on below, for a name that is cut cannot be copied.
    """
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        shown.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        shown.add_row(*map(plain, row))
    for segments in out.render_lines(shown, pad=False):
        line = Text.assemble(*((each.text, each.style or "") for each in segments))
        line.rstrip()
        out.print(line, soft_wrap=True)


def facts(out: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Names and what they are, a line each."""
    known = [(name, value) for name, value in pairs if value]
    wide = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        out.print(f"{name:<{wide}}  {plain(value)}", soft_wrap=True)


def changes(told: Mapping[str, Any], data: DataFacts) -> str:
    """What was done to images that a model could not take as they were; empty for nothing."""
    colour = "gray" if data.channels == 1 else "colour"
    made = [
        (told["resized"], f"resized to {data.width}x{data.height}"),
        (told["recoloured"], f"converted to {colour}"),
    ]
    return ", ".join(f"{counted(number, 'image')} {what}" for number, what in made if number)


def command(*words: str | Path) -> str:
    """A command that can be copied into a shell."""
    return shlex.join(["fedtwin", *map(str, words)])


def anew(folder: Path) -> str:
    """The command that begins a run that diverged again, more cautiously."""
    from experiments.folder import RunFolder
    from experiments.recipes import departures, more_cautious

    manifest = RunFolder(folder).read_manifest()
    own = RunFolder(folder).configuration()
    keys = departures(own) | {"learning_rate": more_cautious(own)}
    if manifest["report_prototypes"] is not None:
        keys["report_prototypes"] = manifest["report_prototypes"]
    given = [word for key, value in keys.items() for word in ("-o", f"{key}={_as_yaml(value)}")]
    places = ["--run-dir", str(folder)]
    if manifest.get("transport") == "kafka":
        places += ["--transport", "kafka"]
        told = manifest["processes"] | manifest.get("kafka", {})
        places += [f"--{key.replace('_', '-')}={each}" for key, each in told.items() if each]
    if Path(manifest["data_dir"]) != data_dir(None):
        places += ["--data-dir", manifest["data_dir"]]
    return command("run", own.recipe, *given, *places, "--fresh")


def _as_yaml(value: object) -> str:
    """A value as `overrides` reads it, in one line."""
    return value if isinstance(value, str) else json.dumps(value)


def next_step(out: Console, text: str) -> None:
    """The last line of every answer to a person."""
    out.print(f"\nnext: {text}", soft_wrap=True)


def moment(at: float | None) -> str:
    """A time in seconds since 1970, in this machine's time."""
    return NOTHING if at is None else datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def in_a_line(text: str) -> str:
    """What a long text says first and last: a worker's trace ends in what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return text.strip()
    return f"{lines[0].partition(': ')[0]}: {lines[-1]}"
