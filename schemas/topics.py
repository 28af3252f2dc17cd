"""Every topic: its scope, who writes it, who reads it, how long its records are kept.

Each topic has one partition and one writer's side, so who may say what is a property of the topic
and never of a field in a message. Order exists inside a topic only.

What is kept `by size` loses its oldest records; `newest` besides keeps the last of each name alone,
so that heartbeats, which come every other second, do not displace scores. A broker does that; the
log of one process only with dead letters, of which it keeps the newest 100,000.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.errors import ConfigurationError

PREFIX = "fedtwin"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Names of runs, sites and entities. Three of them and a prefix fit Kafka's 249 characters."""
ENTITY = f"^{NAME.pattern}/{NAME.pattern}$"
"""An entity's full name, `<site>/<entity>`."""
Scope = Literal["federation", "site", "entity"]
"""Who has one of these topics: the federation, each site, or each entity of a site."""
Kept = Literal["all", "trimmed", "compacted", "newest", "by size"]
Role = Literal["producers", "twins", "aggregator", "proxy"]


@dataclass(frozen=True)
class Topic:
    """One line of the table."""

    name: str
    scope: Scope
    cluster: Literal["federation", "site"]
    """Which cluster holds it where site and federation are different ones."""
    writer: Role | Literal["each side", "owners"]
    """`owners`: whoever owns a topic of the same cluster."""
    readers: tuple[Role, ...]
    """Besides its writer, which goes on from there when it begins again."""
    owner: Role | None
    """Who trims it and writes its dead letters."""
    kept: Kept
    carries: tuple[str, ...]
    """Kinds of message."""
    sealed: bool = False
    """Nobody sees what it holds but its readers: not who wrote it, and no operator."""
    commanded: bool = False
    """An operator's commands write here, too."""
    erased: bool = False
    """It holds images, which somebody may want forgotten: who owns it may also begin a new segment,
    and say how soon an old one leaves the disk."""


TOPICS = (
    Topic(
        "samples", "entity", "site", "producers", ("twins",), "twins", "trimmed",
        ("ImageBatch", "StreamMarked", "StreamEnded"), erased=True,
    ),
    Topic(
        "twin-state", "entity", "site", "twins", ("twins",), "twins", "compacted",
        ("TwinState", "ExemplarImage", "StrategyKept", "Forgotten", "StreamImage", "StreamMoved"),
        erased=True,
    ),
    Topic(
        "classes", "site", "federation", "twins", ("aggregator", "twins"), "aggregator", "all",
        ("EntityJoined", "EntityLeft", "WindowJudged"),
    ),
    Topic(
        "rounds", "federation", "federation", "aggregator", ("twins", "proxy", "producers"),
        "aggregator", "all",
        ("RunOpened", "StageOpened", "HeadGrown", "RoundOpened", "RoundClosed", "StageClosed",
         "StageAdded", "Paused", "RolledBack", "Standing"),
         commanded=True,
    ),
    Topic(
        "updates", "site", "federation", "twins", ("aggregator", "twins"), "aggregator",
        "trimmed", ("ModelUpdate",),
    ),
    Topic(
        "models", "federation", "federation", "aggregator", ("twins", "proxy"), "aggregator",
        "compacted", ("GlobalModel",), commanded=True,
    ),
    Topic(
        "prototypes", "site", "federation", "twins", ("proxy",), "proxy", "trimmed",
        ("PrototypeGradient",), sealed=True,
    ),
    Topic(
        "teachers", "federation", "federation", "proxy", ("aggregator", "twins"), "proxy", "all",
        ("TeacherChosen",),
    ),
    Topic(
        "metrics", "federation", "federation", "each side", (), None, "newest",
        ("Measured", "Heartbeat"),
    ),
    Topic("metrics", "site", "site", "twins", (), None, "newest", ("Measured",)),
    Topic("dead-letters", "site", "site", "twins", (), None, "by size", ("DeadLetter",)),
    Topic(
        "dead-letters", "federation", "federation", "owners", ("twins",), None, "by size",
        ("DeadLetter",),
    ),
)  # fmt: skip
BY_SCOPE = {(topic.name, topic.scope): topic for topic in TOPICS}


@dataclass(frozen=True)
class Names:
    """The topic names of one run: `<prefix>.<run>.<topic>[.<site>[.<entity>]]`.

    Raises ConfigurationError for a prefix, run, site or entity name that does not match `NAME`.
    """

    run: str
    prefix: str = PREFIX

    def __post_init__(self) -> None:
        checked(self.prefix, "prefix")
        checked(self.run, "run")

    def federation(self, topic: str) -> str:
        """The name of a topic that the federation has one of."""
        return self._name(topic, "federation")

    def of_site(self, topic: str, site: str) -> str:
        """The name of a site's topic."""
        return f"{self._name(topic, 'site')}.{checked(site, 'site')}"

    def of_entity(self, topic: str, entity: str) -> str:
        """The name of an entity's topic; `entity` is its full name `<site>/<entity>`."""
        site, name = parted(entity)
        return f"{self._name(topic, 'entity')}.{site}.{name}"

    def group(self, site: str) -> str:
        """The name of the consumer group that a site's twins are dealt in."""
        return f"{self.prefix}.{self.run}.twins.{checked(site, 'site')}"

    def each(
        self, row: Topic, sites: Sequence[str], entities: Sequence[str]
    ) -> Iterator[tuple[str, str]]:
        """The topics of a line of the table, and whose each is: a site's, an entity's, or ''.

        Only entities of these sites have some.
        """
        match row.scope:
            case "federation":
                yield self.federation(row.name), ""
            case "site":
                yield from ((self.of_site(row.name, site), site) for site in sites)
            case "entity":
                for entity in entities:
                    if parted(entity)[0] in sites:
                        yield self.of_entity(row.name, entity), entity

    def _name(self, topic: str, scope: Scope) -> str:
        if (topic, scope) not in BY_SCOPE:
            raise ValueError(f"the table has no topic {topic!r} of scope {scope}")
        return f"{self.prefix}.{self.run}.{topic}"


def table_row(topic: str) -> Topic:
    """The line of the table that a full topic name belongs to. Raises ValueError for others."""
    parts = topic.split(".")
    scopes: dict[int, Scope] = {3: "federation", 4: "site", 5: "entity"}
    scope = scopes.get(len(parts))
    if scope is None or (parts[2], scope) not in BY_SCOPE:
        raise ValueError(f"{topic!r} is no topic of this system")
    return BY_SCOPE[parts[2], scope]


def letters_of(topic: str) -> str:
    """Where it is told what was refused in a topic: in the cluster that holds it.

    Raises ValueError for what is no topic of this system.
    """
    cluster, parts = table_row(topic).cluster, topic.split(".")
    letters = ".".join((*parts[:2], "dead-letters"))
    return f"{letters}.{parts[3]}" if cluster == "site" else letters


def parted(entity: str) -> tuple[str, str]:
    """Site and own name of an entity `<site>/<entity>`. Raises ConfigurationError for others."""
    site, _, name = entity.partition("/")
    return checked(site, "site"), checked(name, "entity")


def checked(name: str, what: str) -> str:
    """The name itself when it may be one; ConfigurationError otherwise."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what} name {name!r}: use 1 to 63 lower-case letters, digits and '-', not '-' first"
        )
    return name
