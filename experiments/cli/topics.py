"""topics: what a run has on Kafka, and who may do what there: planned, made, listed, taken away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from experiments.cli.logs import meant, name_of
from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    InSync,
    Replication,
    Run,
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

    from infra.settings import Service
    from infra.topics import Administration, Planned
    from schemas.rights import Cluster, Grant
    from schemas.topics import Names

group = typer.Typer(
    name="topics",
    help="The topics of a run on Kafka.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
BOTH: tuple[Cluster, ...] = ("federation", "site")
Name = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's name, such as smoke-fedka-2021; no folder.")
]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Whose schedule names the entities; or a live federation's YAML file.",
    ),
]
Override = Annotated[
    list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Change a key of the recipe.")
]
Called = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="A live federation's. Otherwise the file's."),
]
WithList = Annotated[
    bool, typer.Option("--acl", help="Also who may do what there (access control list).")
]
Only = Annotated[
    Literal["federation", "site"] | None,
    typer.Option(
        "--cluster", help="Only in this one, where another's are somebody else's. Otherwise both."
    ),
]
OneSite = Annotated[
    str | None,
    typer.Option(
        "--site",
        metavar="NAME",
        help="Of a site's cluster only what is this site's. Otherwise all.",
    ),
]
Known = Annotated[
    Path | None,
    typer.Option(
        "--principals",
        metavar="FILE",
        help="YAML: as whom brokers know each side. Otherwise User:fedtwin-aggregator, …-proxy,"
        " …-operator, …-site-SITE, …-producers-SITE.",
    ),
]


@group.command()
def plan(
    recipe: Recipe,
    override: Override = None,
    data: DataDir = None,
    name: Called = None,
    replication: Replication = None,
    min_insync: InSync = None,
    acl: WithList = False,
    principals: Known = None,
    cluster: Only = None,
    site: OneSite = None,
    as_json: AsJson = False,
) -> None:
    """Say which topics a recipe needs, and with which settings. Asks no broker.

    \b
    Examples:
      fedtwin topics plan smoke
      fedtwin topics plan smoke --replication 3 --min-insync 2 --json
      fedtwin topics plan federation.yaml --acl --principals principals.yaml
      fedtwin topics plan federation.yaml --acl --cluster site --site north
    """
    needed = _needed(recipe, override, data, name).within(cluster, site)
    topics = [
        {"name": each.name, "replication": each.replication, "configs": dict(each.configs)}
        for of_cluster in needed.topics(replication, min_insync).values()
        for each in of_cluster
    ]
    told: dict[str, Any] = {"schema": SCHEMA, "run": needed.names.run, "topics": topics}
    if acl or principals:
        told["grants"] = {
            cluster: list(map(str, rights)) for cluster, rights in needed.rights(principals).items()
        }
    answer(told, as_json, lambda out: _plan_shown(out, told))


@group.command()
def apply(
    recipe: Recipe,
    override: Override = None,
    data: DataDir = None,
    name: Called = None,
    replication: Replication = None,
    min_insync: InSync = None,
    acl: WithList = False,
    principals: Known = None,
    cluster: Only = None,
    site: OneSite = None,
    as_json: AsJson = False,
) -> None:
    """Make the topics that a recipe needs, and mend those whose settings differ. Twice is as once.

    With --acl also grant everybody what the topics' table says, and withdraw whatever else there is
    of the same topics: a super user of the brokers may do that.

    \b
    Examples:
      fedtwin topics apply smoke
      fedtwin topics apply smoke --replication 3 --min-insync 2
      fedtwin topics apply federation.yaml --acl --principals principals.yaml
      fedtwin topics apply federation.yaml --acl --cluster federation
      fedtwin topics apply federation.yaml --acl --cluster site --site north
    """
    needed = _needed(recipe, override, data, name).within(cluster, site)
    planned = needed.topics(replication, min_insync)
    rights = needed.rights(principals) if acl or principals else None
    done: dict[str, list[str]] = {"made": [], "mended": [], "kept": []}
    listed: dict[str, list[str]] = {"granted": [], "held": [], "withdrawn": [], "wider": []}
    for which, administration, service in _clusters(needed.clusters):
        applied = administration.apply(planned[which])
        for what in done:
            done[what] += getattr(applied, what)
        if rights is not None:
            for what, entries in _listed_rights(service, rights[which]).items():
                listed[what] += entries
    told: dict[str, Any] = {"schema": SCHEMA, "run": needed.names.run, **done}
    if rights is not None:
        told["acl"] = listed
    answer(told, as_json, lambda out: _applied(out, told))


@group.command()
def ls(run: Run = None, cluster: Only = None, as_json: AsJson = False) -> None:
    """List a run's topics: where they begin and end, what they take, and in how many copies.

    \b
    Examples:
      fedtwin topics ls smoke-fedka-2021
    """
    name = name_of(meant(run))
    names = _names(name)
    found = {
        each.name: {
            "name": each.name,
            "first": each.first,
            "end": each.end,
            "bytes": each.size,
            "copies": each.copies,
            "configs": dict(each.configs),
        }
        for _, administration, _ in _clusters((cluster,) if cluster else BOTH)
        for each in administration.ls(names)
    }
    if not found:
        raise DataError(f"Kafka holds no topic of a run {name}: `fedtwin ls` shows runs by name")
    told = {"schema": SCHEMA, "run": name, "topics": [found[name] for name in sorted(found)]}
    answer(told, as_json, lambda out: _listed(out, told))


@group.command()
def rm(
    run: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    cluster: Only = None,
    as_json: AsJson = False,
) -> None:
    """Take a run's topics away, with all that is in them and all rights to them.

    \b
    Examples:
      fedtwin topics rm smoke-fedka-2021 --yes
    """
    names = _names(run)
    wanted = (cluster,) if cluster else BOTH
    if not yes and not _confirmed(f"Everything that the run {run} sent is lost. Go on?"):
        raise ConfigurationError("nothing was taken away; --yes does not ask")
    gone: set[str] = set()
    withdrawn: set[str] = set()
    for _, administration, service in _clusters(wanted):
        # first: what we were not let we have not done
        withdrawn |= {*_withdrawn(service, names, cluster)}
        gone |= {*administration.rm(names, cluster)}
    told = {
        "schema": SCHEMA, "run": run, "removed": sorted(gone), "withdrawn": sorted(withdrawn),
    }  # fmt: skip
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


@dataclass(frozen=True)
class _Needed:
    """Whose topics they are."""

    names: Names
    sites: list[str]
    entities: list[str]
    clusters: tuple[Cluster, ...] = BOTH
    site: str | None = None
    """The only one whose topics are wanted in a site's cluster."""

    def within(self, cluster: Cluster | None, site: str | None) -> _Needed:
        """Only what one cluster has, and of a site's only what is its own.

        Raises ConfigurationError for a site that is not there.
        """
        if site is not None and site not in self.sites:
            raise ConfigurationError(
                f"{site} is no site of {self.names.run}; there are {', '.join(self.sites)}"
            )
        return replace(self, clusters=(cluster,) if cluster else self.clusters, site=site)

    def _here(self, cluster: Cluster) -> tuple[list[str], list[str]]:
        """Sites and entities of which there is something in a cluster."""
        if cluster == "federation" or self.site is None:
            return self.sites, self.entities
        from schemas.topics import parted

        return [self.site], [each for each in self.entities if parted(each)[0] == self.site]

    def topics(self, copies: int | None, insync: int | None) -> dict[str, list[Planned]]:
        """By cluster."""
        from infra.kafka import KafkaSettings
        from infra.topics import plan as planned

        settings = KafkaSettings("", replication=copies, min_insync=insync)
        return {
            each: planned(self.names, each, *self._here(each), settings) for each in self.clusters
        }

    def rights(self, file: Path | None) -> dict[str, list[Grant]]:
        """By cluster, for the principals that a file names."""
        from infra.yaml_file import read_yaml
        from schemas.rights import Principals, grants

        known: Principals = read_yaml(file, Principals) if file else Principals()
        return {each: grants(self.names, each, *self._here(each), known) for each in self.clusters}


def _needed(
    recipe: str, override: list[str] | None, data: Path | None, name: str | None
) -> _Needed:
    from experiments.recipes import recipe as configured
    from experiments.recipes import run_name
    from experiments.runner import Local, load_data, opened_with
    from experiments.scenario import AnyFile
    from experiments.system import SITE
    from infra.yaml_file import read_yaml
    from producers.datasets import placed
    from schemas.topics import Names

    if recipe.endswith((".yaml", ".yml")):
        if override:
            raise ConfigurationError("keys of a live federation stand in its file, not behind -o")
        told: AnyFile = read_yaml(Path(recipe), AnyFile)
        full = [told.full(each) for each in told.entities]
        return _Needed(Names(name or Path(recipe).stem), list(told.sites), full)
    if name:
        raise ConfigurationError("--name is a live federation's; a recipe's run is named by itself")
    configuration = configured(recipe, None, overrides(override or ()))
    folder = data_dir(data)
    dataset = load_data(configuration, placed(configuration.dataset, folder), Local(folder))
    opening = opened_with(configuration, dataset)
    return _Needed(Names(run_name(configuration)), [SITE], [*opening.schedule.entities])


def _clusters(
    wanted: Sequence[Cluster] = BOTH,
) -> Iterator[tuple[Cluster, Administration, Service]]:
    """These clusters, by name; one after the other where they are one."""
    from infra.settings import read_settings

    settings = read_settings()
    services = {"federation": settings.kafka, "site": settings.site_kafka}
    for cluster in wanted:
        with _administration(services[cluster]) as administration:
            yield cluster, administration, services[cluster]


def _listed_rights(service: Service, rights: list[Grant]) -> dict[str, list[str]]:
    """Bring a cluster's list to these; gives what was done."""
    from infra.rights import AccessList
    from infra.transport.clusters import kafka_settings

    with closing(AccessList(kafka_settings(service))) as access:
        done = access.apply(rights)
    return {
        "granted": list(map(str, done.granted)),
        "held": list(map(str, done.kept)),
        "withdrawn": [*done.withdrawn],
        "wider": [*done.wider],
    }


def _withdrawn(service: Service, names: Names, cluster: Cluster | None) -> list[str]:
    from infra.rights import AccessList
    from infra.transport.clusters import kafka_settings

    with closing(AccessList(kafka_settings(service))) as access:
        return access.rm(names, cluster)


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
    for cluster, rights in told.get("grants", {}).items():
        rows = [tuple(each.split(" ", 3)) for each in rights]
        out.print(f"\nrights in the {cluster}'s cluster")
        table(out, ("who", "may", "what", "called"), rows)
    next_step(out, "fedtwin topics apply with the same words makes them")


def _applied(out: Console, told: dict[str, Any]) -> None:
    for what in ("made", "mended", "kept"):
        out.print(f"{what:<7}{counted(len(told[what]), 'topic')}")
    for what, entries in told.get("acl", {}).items():
        if what != "wider":
            out.print(f"{what:<10}{counted(len(entries), 'right')}")
        elif entries:
            out.print("These entries reach into the run as well, and were left alone:")
            for each in entries:
                out.print(f"  {each}")
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
    if told["withdrawn"]:
        out.print(f"withdrawn: {counted(len(told['withdrawn']), 'right')}")
    next_step(out, "fedtwin run RECIPE --transport kafka begins one anew")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.add_typer(group)
