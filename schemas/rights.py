"""Who may do what on a broker, by the table of topics: the access list of a run.

A right names one topic, letter by letter. Kafka could grant all that begins alike, but what begins
with `hospital-a` is also `hospital-ab`'s.

Who reads a topic and who writes it stands in the table. Besides, who owns one that is trimmed may
let its records go, for which Kafka has one word with taking the topic away; a site's twins may be
members of its group, and see to it that forgotten images leave the disk; an operator makes topics,
mends them, takes them away and looks at them, but sees nothing that is sealed or an entity's own.
Nobody may change the list itself: that is for the super users, whom the broker's own settings name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from schemas.configuration import Frozen
from schemas.errors import ConfigurationError
from schemas.topics import TOPICS, Names, Role, Topic, parted

Kind = Literal["topic", "group", "cluster"]
Operation = Literal[
    "alter-configs", "create", "delete", "describe", "describe-configs", "read", "write"
]
"""In Kafka's words. To read, write or delete something is also to see that it is there."""
Cluster = Literal["federation", "site"]
PRINCIPAL = re.compile(r"User:[^*\s][^*]*")


def _principal(text: str) -> str:
    if not PRINCIPAL.fullmatch(text):
        raise ValueError("a principal is User: and a name, such as User:fedtwin-proxy")
    return text


Principal = Annotated[str, AfterValidator(_principal)]
"""How a broker knows somebody: `User:` and a name or a certificate's subject; everybody's `User:*`
is refused."""
CLUSTER = "kafka-cluster"
"""Kafka's name of itself."""
ROLES: tuple[Role, ...] = get_args(Role)
KEEPING: tuple[Operation, ...] = ("alter-configs", "create", "delete", "describe-configs")
"""What an operator may do with each topic."""
ERASING: tuple[Operation, ...] = ("alter-configs", "describe-configs", "write")
"""What makes that what was let go leaves the disk: a record begins a new segment there."""


@dataclass(frozen=True, order=True, slots=True)
class Grant:
    """One right of somebody."""

    principal: str
    kind: Kind
    name: str
    operation: Operation

    def __str__(self) -> str:
        return f"{self.principal} {self.operation} {self.kind} {self.name}"


class Principals(Frozen):
    """Who comes as whom; as a file in YAML:

        aggregator: User:CN=aggregator
        sites: {north: User:CN=north}
        producers: {north: User:north-cameras, north/ct-1: User:ct-1}

    Where nothing is said of somebody, its name follows from what it is.
    """

    aggregator: Principal = "User:fedtwin-aggregator"
    proxy: Principal = "User:fedtwin-proxy"
    operator: Principal = "User:fedtwin-operator"
    sites: Mapping[str, Principal] = {}
    """Site → who its twins are; otherwise `User:fedtwin-site-<site>`."""
    producers: Mapping[str, Principal] = {}
    """Site, or entity by its full name → who its producers are; otherwise
    `User:fedtwin-producers-<site>`."""

    def twins(self, site: str) -> str:
        """Who the twins of a site are."""
        return self.sites.get(site, f"User:fedtwin-site-{site}")

    def producing(self, site: str, entity: str = "") -> str:
        """Who produces for an entity, or for a whole site."""
        usual = self.producers.get(site, f"User:fedtwin-producers-{site}")
        return self.producers.get(entity, usual)

    def check(self, sites: Sequence[str], entities: Sequence[str]) -> None:
        """Raises ConfigurationError for whom a run does not have, and for two sites in one."""
        known = {*sites, *entities}
        if unknown := [each for each in (*self.sites, *self.producers) if each not in known]:
            raise ConfigurationError(
                f"{unknown[0]} is no site or entity of this run; its sites are {', '.join(sites)}"
            )
        whose: dict[str, str] = {}
        for site in sites:
            here = [entity for entity in entities if parted(entity)[0] == site]
            for name in {self.twins(site), *(self.producing(site, each) for each in ("", *here))}:
                if (other := whose.setdefault(name, site)) != site:
                    raise ConfigurationError(
                        f"{name} stands for {other} and for {site}: each could write as the other"
                    )


def grants(
    names: Names,
    cluster: Cluster,
    sites: Sequence[str],
    entities: Sequence[str],
    principals: Principals,
) -> list[Grant]:
    """Every right in one of a run's two clusters, in order; `entities` are full names.

    Where site and federation are one cluster, it gets both lists. Raises ConfigurationError for
    principals that do not fit.
    """
    principals.check(sites, [each for each in entities if parted(each)[0] in sites])
    crew = _Crew(sites, entities, principals)
    found = {
        Grant(who, "topic", name, operation)
        for row in TOPICS
        if row.cluster == cluster
        for name, whose in names.each(row, sites, entities)
        for who, operation in crew.rights(row, whose)
    }
    operator = principals.operator
    found |= {
        Grant(operator, "cluster", CLUSTER, each) for each in ("describe", "describe-configs")
    }
    if cluster == "site":  # where a site's streams are, its twins are dealt
        for site in sites:
            found.add(Grant(principals.twins(site), "group", names.group(site), "read"))
            found.add(Grant(operator, "group", names.group(site), "describe"))
    return sorted(found)


@dataclass(frozen=True)
class _Crew:
    """Those who take part in a run."""

    sites: Sequence[str]
    entities: Sequence[str]
    principals: Principals

    def rights(self, row: Topic, whose: str) -> Iterator[tuple[str, Operation]]:
        """Who may do what in one topic of a line of the table."""
        writers = set(_writers(row))
        readers = {*row.readers, *(() if row.sealed else writers)}
        if row.writer == "each side":
            readers |= set(ROLES)  # they listen to each other
        for role in ROLES:
            for who in self._who(role, whose):
                if role in writers:
                    yield who, "write"
                if role in readers:
                    yield who, "read"
                if role == row.owner and row.kept == "trimmed":
                    yield who, "delete"
                if role == row.owner and row.erased:
                    yield from ((who, each) for each in ERASING)
        yield from ((self.principals.operator, each) for each in self._operations(row))

    def _operations(self, row: Topic) -> Iterator[Operation]:
        """What the operator may do there."""
        yield from KEEPING
        if not row.sealed and row.scope != "entity":
            yield "read"
        if row.commanded or row.writer == "each side":
            yield "write"

    def _who(self, role: Role, whose: str) -> Iterator[str]:
        """Everybody of a role who has to do with what is a site's, an entity's, or all's."""
        if role in ("aggregator", "proxy"):
            yield self.principals.aggregator if role == "aggregator" else self.principals.proxy
            return
        site, _, entity = whose.partition("/")
        for each in [site] if site else self.sites:
            if role == "twins":
                yield self.principals.twins(each)
                continue
            here = [e for e in self.entities if parted(e)[0] == each and (not entity or e == whose)]
            yield from {self.principals.producing(each, one) for one in here or [""]}


def _writers(row: Topic) -> Iterator[Role]:
    match row.writer:
        case "each side":
            yield from ROLES
        case "owners":
            yield from (each.owner for each in TOPICS if each.owner and each.cluster == row.cluster)
        case role:
            yield role
