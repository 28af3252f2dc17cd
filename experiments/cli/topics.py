"""topics: what a run has on Kafka, planned, made, listed and taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    InSync,
    Replication,
    answer,
    data_dir,
    next_step,
    overrides,
    table,
)
from experiments.numbers import counted, size
from schemas.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from infra.topics import Administration, Planned
    from schemas.topics import Names

group = typer.Typer(
    name="topics",
    help="The topics of a run on Kafka.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's name, such as smoke-fedka-2021; no folder.")
]
Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="Whose schedule names the entities.")]
Override = Annotated[
    list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Change a key of the recipe.")
]


@group.command()
def plan(
    recipe: Recipe,
    override: Override = None,
    data: DataDir = None,
    replication: Replication = None,
    min_insync: InSync = None,
    as_json: AsJson = False,
) -> None:
    """Say which topics a recipe needs, and with which settings. Asks no broker.

    \b
    Examples:
      fedtwin topics plan smoke
      fedtwin topics plan smoke --replication 3 --min-insync 2 --json
    """
    names, planned = _planned(recipe, override, data, replication, min_insync)
    topics = [
        {"name": each.name, "replication": each.replication, "configs": dict(each.configs)}
        for of_cluster in planned.values()
        for each in of_cluster
    ]
    told = {"schema": SCHEMA, "run": names.run, "topics": topics}
    answer(told, as_json, lambda out: _plan_shown(out, told))


@group.command()
def apply(
    recipe: Recipe,
    override: Override = None,
    data: DataDir = None,
    replication: Replication = None,
    min_insync: InSync = None,
    as_json: AsJson = False,
) -> None:
    """Make the topics that a recipe needs, and mend those whose settings differ. Twice is as once.

    \b
    Examples:
      fedtwin topics apply smoke
      fedtwin topics apply smoke --replication 3 --min-insync 2
    """
    names, planned = _planned(recipe, override, data, replication, min_insync)
    done: dict[str, list[str]] = {"made": [], "mended": [], "kept": []}
    for cluster, administration in _clusters():
        applied = administration.apply(planned[cluster])
        for what in done:
            done[what] += getattr(applied, what)
    told = {"schema": SCHEMA, "run": names.run, **done}
    answer(told, as_json, lambda out: _applied(out, told))


@group.command()
def ls(run: Name, as_json: AsJson = False) -> None:
    """List a run's topics: where they begin and end, what they take, and in how many copies.

    \b
    Examples:
      fedtwin topics ls smoke-fedka-2021
    """
    names = _names(run)
    found = {
        each.name: {
            "name": each.name,
            "first": each.first,
            "end": each.end,
            "bytes": each.size,
            "copies": each.copies,
            "configs": dict(each.configs),
        }
        for _, administration in _clusters()
        for each in administration.ls(names)
    }
    if not found:
        raise DataError(f"Kafka holds no topic of a run {run}: `fedtwin ls` shows runs by name")
    told = {"schema": SCHEMA, "run": run, "topics": [found[name] for name in sorted(found)]}
    answer(told, as_json, lambda out: _listed(out, told))


@group.command()
def rm(
    run: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a run's topics away, with all that is in them.

    \b
    Examples:
      fedtwin topics rm smoke-fedka-2021 --yes
    """
    names = _names(run)
    if not yes and not _confirmed(f"Everything that the run {run} sent is lost. Go on?"):
        raise ConfigurationError("nothing was taken away; --yes does not ask")
    gone = sorted({name for _, each in _clusters() for name in each.rm(names)})
    told = {"schema": SCHEMA, "run": run, "removed": gone}
    answer(told, as_json, lambda out: _removed(out, told))


def _confirmed(question: str) -> bool:
    """Whether somebody said yes; where nobody is there to be asked, nobody did."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def _names(run: str) -> Names:
    from schemas.topics import Names

    return Names(run)


def _planned(
    recipe: str,
    override: list[str] | None,
    data: Any,
    replication: int | None,
    min_insync: int | None,
) -> tuple[Names, dict[str, list[Planned]]]:
    from experiments.recipes import recipe as configured
    from experiments.recipes import run_name
    from experiments.runner import load_data, opened_with
    from experiments.system import SITE
    from infra.kafka import KafkaSettings
    from infra.topics import plan as planned
    from producers.datasets import placed
    from schemas.topics import Names

    configuration = configured(recipe, None, overrides(override or ()))
    folder = data_dir(data)
    dataset = load_data(configuration, placed(configuration.dataset, folder), folder)
    opening = opened_with(configuration, dataset)
    names = Names(run_name(configuration))
    settings = KafkaSettings("", replication=replication, min_insync=min_insync)
    entities = opening.schedule.entities
    return names, {
        "federation": planned(names, "federation", [SITE], entities, settings),
        "site": planned(names, "site", [SITE], entities, settings),
    }


def _clusters() -> Iterator[tuple[str, Administration]]:
    """Both clusters, by name; one after the other where they are one."""
    from infra.settings import read_settings

    settings = read_settings()
    for cluster, service in (("federation", settings.kafka), ("site", settings.site_kafka)):
        with _administration(service) as administration:
            yield cluster, administration


@contextmanager
def _administration(service: Any) -> Iterator[Administration]:
    from infra.topics import Administration
    from infra.transport.clusters import kafka_settings

    with closing(Administration(kafka_settings(service))) as administration:
        yield administration


def _plan_shown(out: Console, told: dict[str, Any]) -> None:
    rows = [
        (each["name"], str(each["replication"] or "up to 3"), each["configs"]["cleanup.policy"])
        for each in told["topics"]
    ]
    table(out, ("topic", ">copies", "kept"), rows)
    next_step(out, "fedtwin topics apply with the same words makes them")


def _applied(out: Console, told: dict[str, Any]) -> None:
    for what in ("made", "mended", "kept"):
        out.print(f"{what:<7}{counted(len(told[what]), 'topic')}")
    next_step(out, f"fedtwin topics ls {told['run']}")


def _listed(out: Console, told: dict[str, Any]) -> None:
    rows = [
        (
            each["name"],
            str(each["first"]),
            str(each["end"]),
            size(each["bytes"]),
            str(each["copies"]),
        )
        for each in told["topics"]
    ]
    table(out, ("topic", ">first", ">end", ">size", ">copies"), rows)
    next_step(out, f"fedtwin topics rm {told['run']} takes them away")


def _removed(out: Console, told: dict[str, Any]) -> None:
    out.print(f"taken away: {counted(len(told['removed']), 'topic')} of {told['run']}")
    next_step(out, "fedtwin run RECIPE --transport kafka begins one anew")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.add_typer(group)
