"""data ls and data fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    answer,
    command,
    data_dir,
    next_step,
    table,
    without_usual_place,
)
from experiments.numbers import NOTHING, size

if TYPE_CHECKING:
    from rich.console import Console

    from producers.datasets import Holding

data = typer.Typer(
    name="data",
    help="List data sets, or bring one here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@data.command("ls")
def ls(data: DataDir = None, as_json: AsJson = False) -> None:
    """List data sets, and whether they are here.

    \b
    Examples:
      fedtwin data ls
      fedtwin data ls --data-dir ~/data --json
    """
    from producers.datasets import holdings

    folder = data_dir(data)
    found = [_told(each) for each in holdings(folder)]
    told = {"schema": SCHEMA, "data_dir": str(folder), "data": found}
    answer(told, as_json, lambda out: _listed(out, found, str(folder)))


@data.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `fedtwin data ls`.")],
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring a data set here, and check it.

    It comes from the network if need be, and every byte is checked.

    \b
    Examples:
      fedtwin data fetch cifar100
      fedtwin data fetch organamnist --data-dir ~/data
    """
    from producers.datasets import fetch as fetched

    folder = data_dir(data)
    found = _told(fetched(name, folder))
    told = {"schema": SCHEMA, "data_dir": str(folder), "data": [found]}
    answer(told, as_json, lambda out: _fetched(out, found, folder))


def _told(holding: Holding) -> dict[str, Any]:
    return {
        "name": holding.name,
        "about": holding.about,
        "present": holding.present,
        "path": str(holding.where) if holding.where else None,
        "bytes": holding.size,
        "remedy": without_usual_place(holding.remedy),
    }


def _listed(out: Console, found: list[dict[str, Any]], folder: str) -> None:
    table(
        out,
        ("data set", "here", ">size", "what it is"),
        (
            (
                each["name"],
                "yes" if each["present"] else "no",
                size(each["bytes"]) if each["bytes"] else NOTHING,
                each["about"],
            )
            for each in found
        ),
    )
    out.print(
        f"\nin {folder}; a file or folder of your own: npz:PATH or folder:PATH", soft_wrap=True
    )
    missing = [each["name"] for each in found if not each["present"]]
    if missing:
        fetch = without_usual_place(command("data", "fetch", missing[0], "--data-dir", folder))
        next_step(out, f"{fetch} brings it here")
    else:
        next_step(out, "fedtwin run smoke")


def _fetched(out: Console, found: dict[str, Any], folder: Path) -> None:
    from experiments.recipes import RECIPES

    where = found["path"] or "the installation"
    out.print(f"{found['name']} is in {where}, and is what it should be", soft_wrap=True)
    using = next(each for each, keys in RECIPES.items() if keys["dataset"] == found["name"])
    again = command("run", using, "--data-dir", folder)
    next_step(out, f"{without_usual_place(again)} learns from it")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.add_typer(data)
