"""What a program hears of the others: which of them have fallen silent, and what they said last.

A program that was killed tells nothing any more, so somebody else has to. Like `watch` it goes by
heartbeats; only what is heard while it listens counts, so no clock but its own decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from infra.stopping import STOPPED
from schemas.messages import Heartbeat

SILENT = 6.0  # seconds without a heartbeat, three of them, after which a program counts as lost
FORGOTTEN = 3600.0  # seconds for which one that was not replaced is told
MISUSED = 2  # the exit code of wrong words
BEGUN = 10.0  # seconds after which a program has begun to do its work
MISTAKE = 60.0  # seconds for which one is told that was started with wrong words
MOST = 200  # programs that are remembered: whoever may write heartbeats may invent names
MOST_ENTITIES = 20_000
NAMED = 3  # entities that are named, others counted
BUFFERED = "buffered "
LASTING = "room for "
"""What is said for as long as it is so, and keeps nobody from anything else."""


@dataclass(frozen=True)
class Other:
    """A program, as it was heard."""

    beat: Heartbeat
    """The newest."""
    first: float
    """When it was first heard under its name."""
    heard: float
    """When last."""
    entities: tuple[str, ...] = ()
    """Whose twins lived there, as it last told of any."""
    beats: int = 1
    """How often it was heard, under its name and of this life."""


class Lost(NamedTuple):
    """A program that is gone, and was not told to stop."""

    role: str
    process: str
    sites: str
    """Of the entities that lived there."""
    entities: str
    """Them, in few words."""
    state: str
    """`silent`, or `failed` where it has said why."""
    cause: str
    """Why it ended, or what it did or waited for when it was last heard."""
    seconds: float
    """Since then."""


class Others:
    """All other programs of a run. They are heard by the loop, and told to other threads."""

    def __init__(self, process: str) -> None:
        """`process` is our own name."""
        self._process = process
        self._known: dict[str, Other] = {}
        """By name, whoever was not heard for longest first."""
        self._hosts: dict[str, str] = {}
        """Entity → the program that last told of it."""
        self._listened: float | None = None
        self._told: tuple[dict[str, Other], dict[str, str]] = ({}, {})
        """Both as they were when all was heard: for other threads, and never changed."""

    def listens(self, now: float) -> None:
        """It is about to hear what was said since it last listened. Where that is long ago nobody
        was silent for it: they have to find back first, as we had."""
        if self._listened is not None and (deaf := now - self._listened) > SILENT:
            for name, each in self._known.items():
                self._known[name] = replace(each, heard=each.heard + deaf)
        self._listened = now

    def hear(self, beat: Heartbeat, now: float) -> None:
        """A heartbeat that was written while we listened."""
        if beat.process == self._process:
            return
        known = self._known.pop(beat.process, None)
        again = known is None or known.beat.ended is not None or beat.up < known.beat.up
        first = now if known is None or again else known.first
        told = tuple(
            name.removeprefix(BUFFERED) for name, _ in beat.counts if name.startswith(BUFFERED)
        )
        had, beats = (known.entities, known.beats + 1) if known and not again else ((), 1)
        self._known[beat.process] = Other(beat, first, now, told or had, beats)
        if len(self._known) > MOST:  # a name that was heard once may be invented
            once = (name for name, each in self._known.items() if each.beats == 1)
            del self._known[next(once, next(iter(self._known)))]
        for name, _ in beat.counts:
            entity = name.removeprefix(BUFFERED)
            if entity != name and (entity in self._hosts or len(self._hosts) < MOST_ENTITIES):
                self._hosts[entity] = beat.process

    def heard(self) -> None:
        """That was all, for now."""
        self._told = dict(self._known), dict(self._hosts)

    def lost(self, now: float) -> list[Lost]:
        """Those that are gone, the first cause first; nobody while we have not listened of late."""
        if self._listened is None or now - self._listened > SILENT:
            return []
        known, hosts = self._told
        hosted = _hosted(hosts)
        sites = {process: _sites(entities) for process, entities in hosted.items()}
        told = [
            _lost(each, sorted(hosted.get(each.beat.process, ())), now)
            for each in known.values()
            if _is_lost(each, now) and not _replaced(each, known, sites)
        ]
        return sorted(told, key=lambda each: -each.seconds)


def _is_lost(other: Other, now: float) -> bool:
    silent, ended = now - other.heard, other.beat.ended
    if ended is None:
        return SILENT < silent < FORGOTTEN
    mistake = ended.code == MISUSED and other.beat.up < BEGUN
    return ended.code not in (0, STOPPED) and silent < (MISTAKE if mistake else FORGOTTEN)


def _hosted(hosts: Mapping[str, str]) -> dict[str, list[str]]:
    """Program → the entities whose twins live there."""
    found: dict[str, list[str]] = {}
    for entity, process in hosts.items():
        found.setdefault(process, []).append(entity)
    return found


def _replaced(gone: Other, known: Mapping[str, Other], sites: Mapping[str, set[str]]) -> bool:
    """Whether another of its role has begun since, at its site where it had one."""
    had = sites.get(gone.beat.process) or _sites(gone.entities)
    return any(
        each.beat.role == gone.beat.role
        and each.first > gone.heard
        and each.beat.ended is None
        and (not had or bool(had & sites.get(each.beat.process, set())))
        for each in known.values()
    )


def _sites(entities: Iterable[str]) -> set[str]:
    return {entity.partition("/")[0] for entity in entities}


def _lost(other: Other, entities: list[str], now: float) -> Lost:
    beat = other.beat
    more = f" and {len(entities) - NAMED} more" if len(entities) > NAMED else ""
    return Lost(
        role=beat.role,
        process=beat.process,
        sites=", ".join(sorted(_sites(entities or other.entities))),
        entities=", ".join(entities[:NAMED]) + more,
        state="failed" if beat.ended else "silent",
        cause="; ".join(_causes(beat)),
        seconds=now - other.heard,
    )


def _causes(beat: Heartbeat) -> Iterator[str]:
    """What it said last, without what changes from second to second."""
    if beat.ended is not None:
        yield beat.ended.why
        return
    yield from (f"missed {away.service}: {away.why}" for away in beat.away)
    if beat.in_work:
        others = f" and {len(beat.in_work) - 1} more" if len(beat.in_work) > 1 else ""
        yield f"was at {beat.in_work[0]}{others}"
    elif waits := [wait for wait in beat.waits if LASTING not in wait[0]]:
        yield max(waits, key=lambda wait: wait[1])[0].replace(" waits ", " waited ", 1)
    elif not beat.away:
        yield "had nothing to do"
