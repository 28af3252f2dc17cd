"""doctor: is this machine fit for a run, and if not, what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    answer,
    data_dir,
    next_step,
    without_usual_place,
)
from schemas.errors import ServiceError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.check import Check


def doctor(data: DataDir = None, as_json: AsJson = False) -> None:
    """Look at this machine: is it fit for a run?

    Tells what a run needs, with cause and remedy, and what else is there. Ends with 1 only where
    something is missing that every run needs; with 3 where Kafka or Redis has an address, in the
    environment or from `make up`, and cannot be reached there.

    \b
    Examples:
      fedtwin doctor
      fedtwin doctor --json | jq '.checks[] | select(.fine | not)'
    """
    from experiments.doctor import checks

    found = list(checks(data_dir(data)))
    fit = all(check.fine for check in found if check.needed)
    away = [check.name for check in found if check.away]
    checked = [asdict(check) for check in found]
    told = {"schema": SCHEMA, "fit": fit, "away": away, "checks": checked}
    answer(told, as_json, lambda out: _told(out, found, fit))
    if not fit:
        raise typer.Exit(1)
    if away:
        raise typer.Exit(ServiceError.exit_code)


def _told(out: Console, found: list[Check], fit: bool) -> None:
    wide = max(len(check.name) for check in found)
    for check in found:
        mark = _mark(check)
        out.print(f"{mark}  {check.name:<{wide}}  {check.found}", soft_wrap=True)
        if not check.fine:
            why = without_usual_place(f"{check.cause}; {check.remedy}")
            out.print(f"{'':{wide + 9}}  {why}", soft_wrap=True)
    if not fit:
        next_step(out, "mend what is MISSING, then fedtwin doctor")
    elif any(check.away for check in found):
        next_step(out, "start what is AWAY, then fedtwin doctor; fedtwin demo needs none of it")
    else:
        next_step(out, "fedtwin demo")


def _mark(check: Check) -> str:
    if check.fine:
        return "ok     "
    return "MISSING" if check.needed else "AWAY   " if check.away else "note   "


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(doctor)
