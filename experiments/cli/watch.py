"""watch: a run over Kafka or a live federation, seen while it goes on."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.logs import meant
from experiments.cli.words import SCHEMA, AsJson, Run, answer, console
from schemas.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.view import View
    from experiments.watch import Looking

FRAME = 0.5  # seconds between two pictures
LOOK = 0.1  # seconds between two looks at whether a first look is complete
FOUND = 10.0  # seconds within which a first look ends, whatever is missing
FAILED, UNREACHABLE = 1, 3


def watch(
    run: Run = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, within ten seconds.")] = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.0, metavar="N", help="Look for so long.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a federation: entities, rounds, accuracy, programs, and what has failed and why.

    It reads what everybody may read and disturbs nobody. On a terminal it shows a table that
    changes, elsewhere a line for each change. It goes on while Kafka is away, and ends with the
    run. Without --seconds, --json looks once.

    With --once or --json the exit code is 1 when a part has failed, and 3 when Kafka is away.

    \b
    Examples:
      fedtwin watch first
      fedtwin watch first --once --json | jq .failed
      fedtwin watch --seconds 60            # of the run that FEDTWIN_RUN names
    """
    with closing(_looking(run)) as looking:
        if not once and not as_json:
            _follow(looking, seconds)
            return
        if once or seconds is None:
            seen = _first_look(looking)
        else:
            time.sleep(seconds)
            seen = looking.view()
    answer({"schema": SCHEMA, **asdict(seen)}, as_json, lambda out: _shown(out, seen))
    if code := _code(seen):
        raise typer.Exit(code)


def _looking(run: Path | None) -> Looking:
    """Raises ConfigurationError where nobody names a run, ServiceError where nobody names Kafka."""
    from experiments.folder import RunFolder
    from experiments.watch import Looking, Source, on_kafka
    from infra.settings import read_settings
    from schemas.topics import Names

    run = meant(run)
    folder = RunFolder(run)
    if folder.exists:
        names = folder.names()
        if folder.read_manifest().get("transport") != "kafka":
            return Looking(
                names, [Source(f"the log in {run}", folder.opened)], lambda: folder.running
            )
        return on_kafka(read_settings(), names)
    if "/" in str(run):
        raise DataError(f"there is no run in {run}: `fedtwin ls` lists folders")
    return on_kafka(read_settings(), Names(str(run)))


def _first_look(looking: Looking) -> View:
    """Raises DataError when there is no such run."""
    until = time.monotonic() + FOUND - 1
    while not looking.settled and time.monotonic() < until:
        time.sleep(LOOK)
    seen = looking.view()
    if looking.there is False and not seen.services:
        raise DataError(_not_there(looking))
    return seen


def _not_there(looking: Looking) -> str:
    others = looking.readers[0].others
    there = f"there are {', '.join(others[:5])}" if others else "there is none at all"
    return f"Kafka holds nothing of a run {looking.watching.names.run}; {there}"


def _code(seen: View) -> int:
    from experiments.view import OURSELVES

    if any(each.by == OURSELVES for each in seen.services):
        return UNREACHABLE
    return FAILED if seen.failed else 0


def _follow(looking: Looking, seconds: float | None) -> None:
    """Show it until its time is over, or the run is."""
    from rich.live import Live

    from experiments.cli.watched import Lines, picture

    out = console()
    until = time.monotonic() + (float("inf") if seconds is None else seconds)
    _wait(looking, until)
    seen = looking.view()
    if not out.is_terminal:
        lines = Lines(out)
        while not lines.tell(looking.view(), looking.there) and time.monotonic() < until:
            time.sleep(FRAME)
        return
    with Live(console=out, screen=False, auto_refresh=False, transient=True) as live:
        while seen.status not in ("over", "ended") and time.monotonic() < until:
            live.update(picture(seen, out.width, out.height - 1), refresh=True)
            time.sleep(FRAME)
            seen = looking.view()
    _shown(out, seen)


def _wait(looking: Looking, until: float) -> None:
    """For the first complete look, so that nothing is told that is not so."""
    until = min(until, time.monotonic() + FOUND - 1)
    while not looking.settled and time.monotonic() < until:
        time.sleep(LOOK)


def _shown(out: Console, seen: View) -> None:
    from experiments.cli.watched import told

    for line in told(seen):
        out.print(line, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(watch)
