"""The access list of a cluster: brought to what a run's rights are (schemas/rights), or emptied.

A broker keeps its list by topic. Of the topics and groups that a run has, exactly its rights stand
there; what a keeper has forbidden besides stays, and so does all that speaks of other names, such
as of everything that begins alike. That would let somebody in whom the run's rights do not name, so
it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from kafka import KafkaAdminClient, errors
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from infra.kafka import KafkaSettings, connected
from infra.topics import PATIENCE, in_words, whose
from schemas.errors import ConfigurationError
from schemas.rights import CLUSTER, Cluster, Grant, Kind, Operation
from schemas.topics import Names

T = TypeVar("T")
KINDS: dict[Kind, ResourceType] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.CLUSTER,
}
OPERATIONS: dict[Operation, ACLOperation] = {
    "alter-configs": ACLOperation.ALTER_CONFIGS,
    "create": ACLOperation.CREATE,
    "delete": ACLOperation.DELETE,
    "describe": ACLOperation.DESCRIBE,
    "describe-configs": ACLOperation.DESCRIBE_CONFIGS,
    "read": ACLOperation.READ,
    "write": ACLOperation.WRITE,
}
TOGETHER = 1000  # entries in a request: a controller makes no more than 10,000 records at once
HEARD, AGAIN = 10.0, 0.05  # seconds that a change may take to be seen, and between two looks
EVERYTHING = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ALLOW,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
ANYWHERE = "*"
"""The host that somebody comes from."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What was done to a list."""

    granted: Sequence[Grant] = ()
    kept: Sequence[Grant] = ()
    """They stood there."""
    withdrawn: Sequence[str] = ()
    """They stood there, and are no rights of the run."""
    wider: Sequence[str] = ()
    """Entries about more than one name, which reach into the run as well; they are left alone."""


class AccessList:
    """The list of one cluster. Whoever changes it is a super user there, or has been given that."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect. Raises ServiceError when the cluster cannot be reached."""
        self._admin = connected(
            settings, KafkaAdminClient, request_timeout_ms=round(1000 * PATIENCE)
        )

    def apply(self, wanted: Sequence[Grant]) -> Granted:
        """Grant what is missing, and withdraw what else there is of the same topics and groups.

        Twice changes nothing. Raises ConfigurationError for brokers that keep no list, ServiceError
        where we have no right to.
        """
        entries = {_entry(each): each for each in wanted}
        ours = {(each.kind, each.name) for each in wanted if each.name != CLUSTER}
        with in_words("change the access list"):
            there = self._there()
            missing = [entry for entry in entries if entry not in there]
            strange = [each for each in there if _of(each, ours) and each not in entries]
            for some in _portions(missing):
                told = _insisted(partial(self._admin.create_acls, list(some)))
                if told["failed"]:
                    raise told["failed"][0]("an entry was not taken")
            self._delete(strange)
            self._seen(present=missing, gone=strange)
        return Granted(
            granted=[entries[each] for each in missing],
            kept=[grant for entry, grant in entries.items() if entry in there],
            withdrawn=sorted(map(_told, strange)),
            wider=sorted(_told(each) for each in there if _reaches(each, ours)),
        )

    def rm(self, names: Names, cluster: Cluster | None = None) -> list[str]:
        """Withdraw all that speaks of a run's topics and groups; gives what that was.

        Where site and federation are one cluster, `cluster` says of whose alone.
        Nothing where brokers keep no list. Raises ServiceError where we have no right to.
        """
        prefix = f"{names.prefix}.{names.run}."
        try:
            with in_words("change the access list"):
                there = self._there()
                gone = [
                    each
                    for each in there
                    if _is_about(each, prefix) and cluster in (None, _cluster(each))
                ]
                self._delete(gone)
                self._seen(gone=gone)
        except NoList:
            return []
        return sorted(map(_told, gone))

    def close(self) -> None:
        """End the connection."""
        self._admin.close()

    def _there(self) -> set[ACL]:
        """Every entry that allows something."""
        try:
            found, _ = _insisted(lambda: self._admin.describe_acls(EVERYTHING))
        except errors.SecurityDisabledError:
            raise NoList(
                "these brokers keep no access list: everybody may do everything there. Set"
                " authorizer.class.name and super.users on each of them (docs/securing.md)"
            ) from None
        return set(found)

    def _delete(self, entries: Sequence[ACL]) -> None:
        for some in _portions(entries):
            filters = [_filter(each) for each in some]
            for _, _, error in _insisted(partial(self._admin.delete_acls, filters)):
                if error is not errors.NoError:
                    raise error("an entry was not taken away")

    def _seen(self, *, present: Collection[ACL] = (), gone: Collection[ACL] = ()) -> None:
        """Wait until the broker that we ask knows of a change: it hears of it from a controller."""
        until = time.monotonic() + HEARD
        while present or gone:
            there = self._there()
            if there.issuperset(present) and there.isdisjoint(gone):
                return
            if time.monotonic() > until:
                return  # it was taken, and is told
            time.sleep(AGAIN)


def _insisted(ask: Callable[[], T]) -> T:
    """Asked again while a broker is away for a moment, as one that has just begun is."""
    until = time.monotonic() + HEARD
    while True:
        try:
            return ask()
        except errors.RetriableError:
            if time.monotonic() > until:
                raise
            time.sleep(AGAIN)


class NoList(ConfigurationError):
    """Brokers without an authorizer."""


def _entry(grant: Grant) -> ACL:
    return ACL(
        grant.principal,
        ANYWHERE,
        OPERATIONS[grant.operation],
        ACLPermissionType.ALLOW,
        ResourcePattern(KINDS[grant.kind], grant.name, ACLResourcePatternType.LITERAL),
    )


def _filter(entry: ACL) -> ACLFilter:
    """What finds this entry and no other."""
    pattern = entry.resource_pattern
    return ACLFilter(
        entry.principal,
        entry.host,
        entry.operation,
        entry.permission_type,
        ResourcePatternFilter(pattern.resource_type, pattern.resource_name, pattern.pattern_type),
    )


def _named(entry: ACL) -> tuple[Kind | None, str, bool]:
    """What an entry speaks of, and whether of this one name alone."""
    pattern = entry.resource_pattern
    kind = next((k for k, each in KINDS.items() if each is pattern.resource_type), None)
    literal = pattern.pattern_type is ACLResourcePatternType.LITERAL
    return kind, str(pattern.resource_name), literal and pattern.resource_name != ANYWHERE


def _of(entry: ACL, ours: set[tuple[Kind, str]]) -> bool:
    kind, name, exact = _named(entry)
    return exact and (kind, name) in ours


def _is_about(entry: ACL, prefix: str) -> bool:
    """Whether an entry speaks of one name of a run, or of several that are all the run's."""
    kind, name, _ = _named(entry)
    return kind in ("topic", "group") and name.startswith(prefix)


def _reaches(entry: ACL, ours: set[tuple[Kind, str]]) -> bool:
    """Whether an entry about several names is also about one of these."""
    kind, name, exact = _named(entry)
    stem = "" if name == ANYWHERE else name
    return not exact and any(k == kind and each.startswith(stem) for k, each in ours)


def _told(entry: ACL) -> str:
    kind, name, exact = _named(entry)
    words = f"{entry.principal} {entry.operation.name.lower().replace('_', '-')} {kind} {name}"
    return words if exact or name == ANYWHERE else f"{words}*"


def _portions(entries: Sequence[ACL]) -> Iterator[Sequence[ACL]]:
    for start in range(0, len(entries), TOGETHER):
        yield entries[start : start + TOGETHER]


def _cluster(entry: ACL) -> Cluster | None:
    """In which cluster an entry belongs: twins are dealt where their streams are."""
    kind, name, _ = _named(entry)
    return "site" if kind == "group" else whose(name)
