"""show, ls and methods: they only look, and disturb nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import operate, tables
from experiments.cli.logs import RUNS, by_name, meant
from experiments.cli.words import (
    SCHEMA,
    AsJson,
    Run,
    anew,
    answer,
    command,
    in_a_line,
    moment,
    next_step,
    table,
)
from experiments.numbers import NOTHING
from schemas.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console


def show(run: Run = None, as_json: AsJson = False) -> None:
    """Show where a run stands: running, done, failed, diverged or stopped. It needs no lock.

    Of a live federation, on the services at hand: who is there, what goes on, and how good each
    version of its model is, held out at the sites.

    \b
    Examples:
      fedtwin show runs/smoke-fedka-2021
      fedtwin show first
      fedtwin show runs/smoke-fedka-2021 --json | jq .waits
    """
    from experiments.api import show as shown

    run = meant(run)
    if by_name(run):
        operate.show(str(run), as_json)
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
    """List runs and how far they are, in a folder and on Kafka. It needs no lock.

    Without DIR, and where an address of Kafka is known, also what that holds: live federations and
    runs, by the names that other commands take.

    \b
    Examples:
      fedtwin ls
      fedtwin ls runs --json
      fedtwin ls --json | jq '.kafka.runs[] | select(.status == "live").run'
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"there is no folder {folder}: `fedtwin ls` looks in {RUNS}")
    place = folder or RUNS
    runs = list(_runs(place))
    kafka = _on_kafka() if folder is None else None
    told = {"schema": SCHEMA, "runs": runs, "kafka": kafka}
    answer(told, as_json, lambda out: _listed(out, place, told))


def _on_kafka() -> dict[str, Any] | None:
    from infra.settings import KAFKA, read_settings

    settings = read_settings()
    if KAFKA not in settings.services:
        return None
    from experiments.listing import listing

    return asdict(listing(settings))


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    from experiments.summary import glance

    for manifest in sorted(folder.rglob("manifest.json")):
        try:
            yield glance(manifest.parent)
        except DataError as error:
            yield {"run_dir": str(manifest.parent), "status": "unreadable", "why": str(error)}


def _listed(out: Console, folder: Path, told: dict[str, Any]) -> None:
    runs, kafka = told["runs"], told["kafka"]
    if runs:
        columns = ("folder", "data", "status", ">stages", ">rounds", "why")
        table(out, columns, (_row(each) for each in runs))
    else:
        out.print(f"no run in {folder}")
    if kafka:
        out.print()
        _listed_on_kafka(out, kafka)
    if kafka and kafka["runs"]:
        next_step(out, "fedtwin show NAME" + " or FOLDER" * bool(runs))
    else:
        next_step(out, "fedtwin show FOLDER" if runs else "fedtwin demo")


def _listed_on_kafka(out: Console, kafka: dict[str, Any]) -> None:
    if kafka["away"]:
        out.print(f"Kafka at {kafka['kafka']} was not asked: {kafka['away']}", soft_wrap=True)
        return
    nothing = "" if kafka["runs"] else " no run"
    out.print(f"Kafka at {kafka['kafka']} holds{nothing}", soft_wrap=True)
    if kafka["runs"]:
        columns = ("name", "status", ">entities", ">stages", ">rounds", ">version", "last decision")
        table(out, columns, (_row_on_kafka(each) for each in kafka["runs"]))


def _row_on_kafka(run: dict[str, Any]) -> tuple[str, ...]:
    if run["last_decision"] is None:
        return (run["run"], run["status"], *[NOTHING] * 4, in_a_line(run["why"] or ""))
    return (
        run["run"],
        run["status"],
        *(str(run[key]) for key in ("entities", "stages", "rounds", "model_version")),
        f"{moment(run['last_at'])} {run['last_decision']}",
    )


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


FUNCTIONS = {
    "term": "a loss term of its own",
    "correction": "corrects gradients",
    "groups": "keeps state at the twin",
    "settle": "keeps state at the aggregator",
}
"""What a method may do that no switch expresses, in words."""


def methods(as_json: AsJson = False) -> None:
    """List methods for --strategy: whom to cite, and switches.

    \b
    Examples:
      fedtwin methods
      fedtwin methods --json | jq '.methods[].name'
    """
    from learning.strategies.choice import installed

    found = [
        {
            "name": each.name,
            "paper": each.paper,
            "year": each.year,
            "memory": each.memory,
            "teacher": each.teacher,
            "pooled": each.pooled,
            "functions": [name for name in FUNCTIONS if getattr(each, name)],
            "switches": asdict(each.objective),
        }
        for each in installed().values()
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
        year = f" ({each['year']})" if each["year"] else ""
        out.print(f"{each['name']}{year}", style="bold")
        out.print(f"  {each['paper']}", soft_wrap=True)
        parts = [
            f"memory {each['memory']}, teacher {each['teacher']}",
            switches or "every switch at its default",
            *(FUNCTIONS[name] for name in each["functions"]),
        ]
        if each["pooled"]:
            parts.append("one node in place of all twins")
        out.print(f"  {'; '.join(parts)}", soft_wrap=True)
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
