"""What a program hears of the others: which of them have fallen silent, and what they said last.

A program that was killed tells nothing any more, so somebody else has to. Like `watch` it goes by
heartbeats; only what is heard while it listens counts, so no clock but its own decides.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True)
class Other:
    """A program, as it was heard."""

    beat: Heartbeat
    """The newest."""
    first: float
    """When it was first heard under its name."""
    heard: float
    """When last."""


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
    """All other programs of a run. Others read from other threads: no value is changed in place."""

    def __init__(self, process: str) -> None:
        """`process` is our own name."""
        self._process = process
        self._known: dict[str, Other] = {}
        self._hosts: dict[str, str] = {}
        """Entity → the program that last told of it."""
        self._listened: float | None = None

    def listens(self, now: float) -> None:
        """It is about to hear what was said since it last listened. Where that is long ago nobody
        was silent for it: they have to find back first, as we had."""
        if self._listened is not None and (deaf := now - self._listened) > SILENT:
            self._known = {
                name: replace(each, heard=each.heard + deaf) for name, each in self._known.items()
            }
        self._listened = now

    def hear(self, beat: Heartbeat, now: float) -> None:
        """A heartbeat that was written while we listened."""
        if beat.process == self._process:
            return
        known = self._known.get(beat.process)
        again = known is None or known.beat.ended is not None or beat.up < known.beat.up
        first = now if known is None or again else known.first
        others = {name: each for name, each in self._known.items() if name != beat.process}
        for name in list(others)[: max(0, len(others) - MOST + 1)]:  # those not heard for longest
            del others[name]
        self._known = {**others, beat.process: Other(beat, first, now)}
        told = (name.removeprefix(BUFFERED) for name, _ in beat.counts if name.startswith(BUFFERED))
        moved = [entity for entity in told if self._hosts.get(entity) != beat.process]
        if moved and len(self._hosts) + len(moved) <= MOST_ENTITIES:
            self._hosts = {**self._hosts, **dict.fromkeys(moved, beat.process)}

    def lost(self, now: float) -> list[Lost]:
        """Those that are gone, the first cause first; nobody while we have not listened of late."""
        known, hosts = self._known, self._hosts
        if self._listened is None or now - self._listened > SILENT:
            return []
        gone = [each for each in known.values() if _is_lost(each, now)]
        entities = _hosted(hosts, {each.beat.process for each in gone})
        told = [
            _lost(each, sorted(entities.get(each.beat.process, [])), now)
            for each in gone
            if not _replaced(each, known, hosts)
        ]
        return sorted(told, key=lambda each: -each.seconds)


def _is_lost(other: Other, now: float) -> bool:
    silent, ended = now - other.heard, other.beat.ended
    if ended is None:
        return SILENT < silent < FORGOTTEN
    mistake = ended.code == MISUSED and other.beat.up < BEGUN
    return ended.code not in (0, STOPPED) and silent < (MISTAKE if mistake else FORGOTTEN)


def _hosted(hosts: dict[str, str], processes: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entity, process in hosts.items():
        if process in processes:
            found.setdefault(process, []).append(entity)
    return found


def _replaced(gone: Other, known: dict[str, Other], hosts: dict[str, str]) -> bool:
    """Whether another of its role has begun since, at its site where it had one."""
    sites = _sites(hosts, gone.beat.process)
    return any(
        each.beat.role == gone.beat.role
        and each.first > gone.heard
        and each.beat.ended is None
        and (not sites or sites & _sites(hosts, each.beat.process))
        for each in known.values()
    )


def _sites(hosts: dict[str, str], process: str) -> set[str]:
    return {entity.partition("/")[0] for entity, host in hosts.items() if host == process}


def _lost(other: Other, entities: list[str], now: float) -> Lost:
    beat = other.beat
    more = f" and {len(entities) - NAMED} more" if len(entities) > NAMED else ""
    return Lost(
        role=beat.role,
        process=beat.process,
        sites=", ".join(sorted({each.partition("/")[0] for each in entities})),
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
    elif beat.waits:
        yield max(beat.waits, key=lambda wait: wait[1])[0].replace(" waits ", " waited ", 1)
    elif not beat.away:
        yield "had nothing to do"
