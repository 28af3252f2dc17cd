"""show, ls and methods: they only look, and disturb nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import operate, tables
from experiments.cli.words import (
    SCHEMA,
    AsJson,
    Run,
    anew,
    answer,
    command,
    in_a_line,
    next_step,
    table,
)
from experiments.numbers import NOTHING
from schemas.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console


RUNS = Path("runs")
"""Where `ls` looks unless somebody names another folder."""


def show(run: Run, as_json: AsJson = False) -> None:
    """Show where a run stands: running, done, failed, diverged or stopped. It needs no lock.

    In place of a folder RUN may be the name of a live federation, on the services at hand: who is
    there, what goes on, and how good each version of its model is, held out at the sites.

    \b
    Examples:
      fedtwin show runs/smoke-fedka-2021
      fedtwin show first
      fedtwin show runs/smoke-fedka-2021 --json | jq .waits
    """
    from experiments.api import show as shown

    if federation := operate.federation_of(run):
        operate.show(federation, as_json)
        return
    told = shown(run)
    answer(told, as_json, lambda out: _standing(out, told))


def _standing(out: Console, told: dict[str, Any]) -> None:
    tables.run(out, told)
    out.print()
    tables.entities(out, told)
    tables.waiting(out, told)
    next_step(out, _advice(told))


def _advice(told: dict[str, Any]) -> str:
    if told["status"] == "running":
        return f"it goes on; look again with {command('show', told['run_dir'])}"
    if told["status"] == "done":
        return f"open {told['report']}, or fedtwin inject --help"
    if told["status"] == "diverged":
        return anew(Path(told["run_dir"]))
    going_on = command("resume", told["run_dir"])
    return f"mend what failed, then {going_on}" if told["status"] == "failed" else going_on


def ls(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where to look, also in folders below; else in runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs and how far they are. It needs no lock.

    \b
    Examples:
      fedtwin ls
      fedtwin ls runs --json
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"there is no folder {folder}: `fedtwin ls` looks in {RUNS}")
    place = folder or RUNS
    runs = list(_runs(place))
    told = {"schema": SCHEMA, "runs": runs}
    answer(told, as_json, lambda out: _listed(out, place, runs))


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    from experiments.summary import glance

    for manifest in sorted(folder.rglob("manifest.json")):
        try:
            yield glance(manifest.parent)
        except DataError as error:
            yield {"run_dir": str(manifest.parent), "status": "unreadable", "why": str(error)}


def _listed(out: Console, folder: Path, runs: list[dict[str, Any]]) -> None:
    if not runs:
        out.print(f"no run in {folder}")
        next_step(out, "fedtwin demo")
        return
    columns = ("folder", "data", "status", ">stages", ">rounds", "why")
    table(out, columns, (_row(each) for each in runs))
    next_step(out, "fedtwin show FOLDER")


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    where = run.get("position")
    if where is None:
        return run["run_dir"], NOTHING, run["status"], NOTHING, NOTHING, run["why"]
    return (
        run["run_dir"],
        run["dataset"],
        run["status"],
        f"{where['stages']}/{where['of_stages']}",
        f"{where['rounds']}/{where['of_rounds']}",
        in_a_line(run["why"] or ""),
    )


def methods(as_json: AsJson = False) -> None:
    """List methods for --strategy: whom to cite, and switches.

    \b
    Examples:
      fedtwin methods
      fedtwin methods --json | jq '.methods[].name'
    """
    from learning.strategies import STRATEGIES

    found = [
        {
            "name": each.name,
            "paper": each.paper,
            "year": each.year,
            "memory": each.memory,
            "teacher": each.teacher,
            "switches": asdict(each.objective),
        }
        for each in STRATEGIES.values()
    ]
    told = {"schema": SCHEMA, "methods": found}
    answer(told, as_json, lambda out: _methods(out, found))


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="One, with its keys.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List recipes, or every key of one with its value: what -o KEY=VALUE can change.

    \b
    Examples:
      fedtwin recipes
      fedtwin recipes smoke
      fedtwin recipes cifar100-small --json | jq .keys.memory
    """
    from experiments.recipes import ABOUT

    if name is None:
        told: dict[str, Any] = {"schema": SCHEMA, "recipes": ABOUT}
        answer(told, as_json, lambda out: _recipes(out, ABOUT))
        return
    keys = _keys_of(name)
    told = {"schema": SCHEMA, "recipe": name, "keys": keys}
    answer(told, as_json, lambda out: _keys_shown(out, name, keys))


def _keys_of(name: str) -> dict[str, Any]:
    """Every key by its name, nested ones with a dot, as the recipe has it."""
    from experiments.recipes import recipe

    values = recipe(name).model_dump(mode="json")
    nested = {f"perturb.{key}": value for key, value in values.pop("perturb").items()}
    del values["recipe"]
    return values | nested


def _recipes(out: Console, about: Mapping[str, str]) -> None:
    table(out, ("recipe", "what it is"), about.items())
    next_step(out, "fedtwin recipes NAME lists its keys")


def _keys_shown(out: Console, name: str, keys: Mapping[str, Any]) -> None:
    from schemas.configuration import values_of

    rows = [(key, _plain_key(value), values_of(key)) for key, value in keys.items()]
    table(out, ("key", "value", "takes"), rows)
    next_step(
        out, f"fedtwin run {name} -o KEY=VALUE; what is not set is the method's own choice, or off"
    )


def _plain_key(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return "not set" if value is None else str(value).lower()


def _methods(out: Console, found: list[dict[str, Any]]) -> None:
    from learning.strategies.strategy import Objective

    usual = asdict(Objective())
    for each in found:
        own = {name: value for name, value in each["switches"].items() if value != usual[name]}
        switches = ", ".join(f"{name} {_plain(value)}" for name, value in own.items())
        out.print(f"{each['name']} ({each['year']})", style="bold")
        out.print(f"  {each['paper']}", soft_wrap=True)
        out.print(
            f"  memory {each['memory']}, teacher {each['teacher']};"
            f" {switches or 'every switch at its default'}",
            soft_wrap=True,
        )
    next_step(out, f"fedtwin run smoke --strategy {found[-1]['name']}")


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return NOTHING if value is None else str(value)


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(show)
    app.command()(ls)
    app.command()(recipes)
    app.command()(methods)
