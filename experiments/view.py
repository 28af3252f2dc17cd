"""What a federation looks like at a moment, for people: one object for table, lines and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from experiments.numbers import counted, name_of
from experiments.watching import Program, Watching
from infra.others import BEGUN, LASTING, MISUSED, SILENT
from infra.stopping import STOPPED
from schemas.heldout import Accuracy, Loss
from schemas.messages import RoundOpened

REPLACED = 600.0  # seconds for which one that was lost is shown, when others do its work
TOLD = 60.0  # seconds for which that is shown
VERSIONS = 8  # of which the accuracy is told
NAMED = 5  # twins of one program that stall a round are named, others counted
OURSELVES = "fedtwin watch"
NEEDED = ("aggregator", "twins", "proxy")
"""Roles without which a run does not go on."""
Alive = Literal["alive", "silent", "failed", "stopped", "ended"]
Status = Literal["unknown", "opening", "running", "resting", "over", "ended"]


@dataclass(frozen=True)
class Outage:
    """A service that somebody misses."""

    service: str
    by: str
    """Who misses it: a program, or whoever looks."""
    why: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A part that does not do its work, and why as far as is known."""

    part: str
    cause: str
    seconds: float
    """How long it has been so."""


@dataclass(frozen=True)
class Waited:
    """Something that a program waits for."""

    what: str
    seconds: float


@dataclass(frozen=True)
class ProgramView:
    """One program."""

    name: str
    role: str
    state: Alive
    age: float
    """Seconds since its newest heartbeat."""
    up: float
    """Seconds that it had lived by then."""
    why: str
    """Why it has ended, if it has said so."""
    before: str
    """Why the one before it under this name has ended, if that was no good end."""
    in_work: list[str]
    queued: int
    """Tasks that wait for a worker."""
    waits: list[Waited]
    lag: dict[str, int]
    memory: int
    entities: int


@dataclass(frozen=True)
class EntityView:
    """One entity and its twin."""

    name: str
    site: str
    state: Literal["expected", "present", "paused", "gone"]
    buffered: int | None
    """Images of its stream that its twin holds."""
    known: list[str]
    """Classes that its twin has announced."""
    program: str
    """The one that hosts its twin, as far as was heard."""
    held_out: float | None
    """Percent, of the newest model that it has scored."""


@dataclass(frozen=True)
class RoundView:
    """The open round."""

    name: str
    seconds: float | None
    participants: int
    answered: list[str]
    missing: list[str]


@dataclass(frozen=True)
class AccuracyView:
    """Of a model, on images that the sites keep apart."""

    version: int
    percent: float
    images: int
    entities: int


@dataclass(frozen=True)
class LetterView:
    """The newest dead letter."""

    topic: str
    offset: int
    about: str
    reason: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class View:
    """All of it."""

    run: str
    status: Status
    live: bool
    stage: int | None
    rounds: int
    """That have closed."""
    round: RoundView | None
    head: list[str]
    """Classes that have a row, in order of their rows."""
    version: int | None
    model_sha256: str | None
    held_out: AccuracyView | None
    """Accuracy held out at the sites, of the newest version that most of the twins have scored."""
    worse: Loss | None
    """What that version has lost against the best before it, if more than `alarm_points`."""
    accuracy: list[AccuracyView]
    """Of each version, as far as it was scored; the newest first."""
    entities: list[EntityView]
    programs: list[ProgramView]
    lag: dict[str, dict[str, int]]
    """Role → kind of topic → records that its programs have not read."""
    dead_letters: int
    newest_letter: LetterView | None
    services: list[Outage]
    """Those that are away."""
    failed: list[Failed]
    """The first cause first: what has failed for the longest."""
    unread: dict[str, str] = field(default_factory=dict)
    """Topic → why whoever looks cannot read it."""


def view(
    watching: Watching,
    now: float,
    outages: tuple[Outage, ...] = (),
    unread: Mapping[str, str] | None = None,
) -> View:
    """What was heard, as it stands at a moment; `outages` are those of whoever looks."""
    line = watching.line
    newest = watching.held_out.newest()
    programs = [_program(watching, each, now) for each in _shown(watching, now)]
    status = _status(watching, programs)
    services = [*outages, *_missed(watching, programs)]
    return View(
        run=watching.names.run,
        status=status,
        live=line.live,
        stage=line.stage.index if line.stage else None,
        rounds=len(watching.rounds),
        round=_round(watching, line.open_round, now) if line.open_round else None,
        head=sorted(line.rows, key=lambda uid: line.rows[uid]),
        version=line.model.version if line.model else None,
        model_sha256=line.model.sha256 if line.model else None,
        held_out=_told(newest),
        worse=watching.held_out.loss(newest.version) if newest else None,
        accuracy=_accuracy(watching),
        entities=[_entity(watching, each) for each in watching.entities],
        programs=programs,
        lag=_lag(programs),
        dead_letters=len(watching.letters),
        newest_letter=_letter(watching, now),
        services=services,
        failed=sorted(
            _failed(watching, status, programs, services, now), key=lambda each: -each.seconds
        ),
        unread=dict(unread or {}),
    )


# --- programs -------------------------------------------------------------------------------------


def _shown(watching: Watching, now: float) -> list[Program]:
    """Every program but those that were replaced long ago, or started with wrong words."""
    return [
        each
        for each in sorted(watching.programs.values(), key=lambda p: (p.beat.role, p.beat.process))
        if not (_misused(each) and now - each.last() > TOLD)
        and (now - each.last() < REPLACED or not _replaced(watching, each))
    ]


def _misused(program: Program) -> bool:
    """Whether it ended with wrong words before it did anything: that is told for a while only."""
    ended = program.beat.ended
    return ended is not None and ended.code == MISUSED and program.beat.up < BEGUN


def _replaced(watching: Watching, program: Program) -> bool:
    """Whether another of its role has begun since it was last heard of."""
    return any(
        other.beat.role == program.beat.role
        and other.beat.at - other.beat.up > program.beat.at
        and other.beat.ended is None
        for other in watching.programs.values()
        if other is not program
    )


def _program(watching: Watching, program: Program, now: float) -> ProgramView:
    beat = program.beat
    age = max(0.0, now - program.last())
    if program.heard is None and beat.at > now:
        age = now - watching.began  # its clock goes wrong: we have not heard of it while we looked
    return ProgramView(
        name=beat.process,
        role=beat.role,
        state=_state(watching, program, age, now),
        age=age,
        up=beat.up,
        why=beat.ended.why if beat.ended else "",
        before=program.before.why if program.before else "",
        in_work=list(beat.in_work),
        queued=beat.queued,
        waits=[Waited(what, seconds) for what, seconds in beat.waits],
        lag=dict(beat.lag),
        memory=beat.memory,
        entities=sum(
            count.process == beat.process and name.startswith("buffered ")
            for name, count in watching.counts.items()
        ),
    )


def _state(watching: Watching, program: Program, age: float, now: float) -> Alive:
    ended = program.beat.ended
    if ended is not None:
        return {0: "ended", STOPPED: "stopped"}.get(ended.code, "failed")  # type: ignore[return-value]
    since = watching.hearing_since
    deaf = since is not None and now - since <= SILENT  # all of them have to find back first
    return "silent" if age > SILENT and not deaf else "alive"


def _status(watching: Watching, programs: list[ProgramView]) -> Status:
    line = watching.line
    if line.over:
        return "over"
    if programs and all(each.state in ("ended", "stopped") for each in programs):
        return "ended"
    if line.opened is None:
        return "opening" if programs else "unknown"
    return "resting" if line.all_rest else "running"


def _lag(programs: list[ProgramView]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for each in programs:
        if each.state == "alive":
            found.setdefault(each.role, Counter()).update(each.lag)
    return {role: dict(lag) for role, lag in found.items() if lag}


def _missed(watching: Watching, programs: list[ProgramView]) -> Iterator[Outage]:
    """Services that living programs say they miss."""
    for each in programs:
        if each.state == "alive":
            for away in watching.programs[each.name].beat.away:
                yield Outage(away.service, each.name, away.why, away.seconds + each.age)


# --- entities and rounds --------------------------------------------------------------------------


def _entity(watching: Watching, entity: str) -> EntityView:
    line = watching.verdicts.line(entity)
    count = watching.counts.get(f"buffered {entity}")
    state: Literal["expected", "present", "paused", "gone"]
    if line.number < 0:
        state = "expected"
    elif not line.here:
        state = "gone"
    else:
        rests = watching.line.all_rest or entity in watching.line.resting
        state = "paused" if rests else "present"
    return EntityView(
        name=entity,
        site=entity.partition("/")[0],
        state=state,
        buffered=count.number if count else None,
        known=list(line.known),
        program=count.process if count else "",
        held_out=watching.held_out.at(entity),
    )


def _round(watching: Watching, opened: RoundOpened, now: float) -> RoundView:
    answered = watching.answered(opened)
    at = watching.opened_at.get(opened.number)
    return RoundView(
        name=name_of(opened),
        seconds=None if at is None else max(0.0, now - at),
        participants=len(opened.participants),
        answered=answered,
        missing=[p.entity for p in opened.participants if p.entity not in set(answered)],
    )


def _accuracy(watching: Watching) -> list[AccuracyView]:
    told = (each for each in map(_told, watching.held_out.all()) if each is not None)
    return list(islice(told, VERSIONS))


def _told(accuracy: Accuracy | None) -> AccuracyView | None:
    if accuracy is None:
        return None
    return AccuracyView(accuracy.version, accuracy.percent, accuracy.images, accuracy.entities)


def _letter(watching: Watching, now: float) -> LetterView | None:
    if watching.newest_letter is None:
        return None
    at, letter = watching.newest_letter
    return LetterView(
        letter.topic, letter.offset, letter.about, letter.reason, letter.detail, max(0.0, now - at)
    )


# --- what has failed ------------------------------------------------------------------------------


def _failed(
    watching: Watching,
    status: Status,
    programs: list[ProgramView],
    services: list[Outage],
    now: float,
) -> Iterator[Failed]:
    for away in services:
        yield Failed(
            away.service,
            f"away since {away.seconds:.0f} s, says {away.by}: {away.why}",
            away.seconds,
        )
    deaf = any(each.by == OURSELVES for each in services)
    if deaf or status in ("over", "ended", "unknown"):
        return  # of who cannot be heard nothing is known, and who has ended need not live
    lost = [
        each
        for each in programs
        if each.state in ("silent", "failed")
        and not _replaced(watching, watching.programs[each.name])
    ]
    held_up = _held_up(watching, now)
    for each in lost:
        yield Failed(
            each.name, _end_of(each) + _without(each, held_up.pop(each.name, [])), each.age
        )
    yield from _nobody(programs, {each.role for each in lost})
    if programs:
        yield from _stalled(watching, {each.name: each for each in programs}, held_up, now)
    if not watching.line.live:
        yield from _at_rest(watching, programs, now)


def _end_of(program: ProgramView) -> str:
    if program.state == "silent":
        return f"no heartbeat since {program.age:.0f} s (killed?)"
    return f"ended: {program.why}"


def _nobody(programs: list[ProgramView], told: set[str]) -> Iterator[Failed]:
    """Roles of which nobody lives, where it was not said why."""
    if not programs:
        return
    for role in NEEDED:
        of_role = [each for each in programs if each.role == role]
        if role in told or any(each.state == "alive" for each in of_role):
            continue
        newest = min(of_role, key=lambda each: each.age, default=None)
        if newest is None:
            yield Failed(role, "no program of this role was heard of", 0.0)
        elif newest.age > SILENT:  # who ends a federation stops one program after the other
            yield Failed(role, f"none lives: {newest.name} was {newest.why}", newest.age)


def _held_up(watching: Watching, now: float) -> dict[str, list[str]]:
    """Program → twins that live there, for which the open round has waited for a while."""
    opened, found = watching.line.open_round, dict[str, list[str]]()
    if opened is not None and now - watching.opened_at.get(opened.number, now) > SILENT:
        for entity in _round(watching, opened, now).missing:
            count = watching.counts.get(f"buffered {entity}")
            found.setdefault(count.process if count else "", []).append(entity)
    return found


def _without(program: ProgramView, held_up: Sequence[str]) -> str:
    """What is missed where a program is lost."""
    lived = f"; {counted(program.entities, 'entity', 'entities')} lived there"
    waits = f", and the open round waits for {len(held_up)}" if held_up else ""
    return f"{lived}{waits}" if program.entities else ""


def _stalled(
    watching: Watching,
    programs: Mapping[str, ProgramView],
    held_up: Mapping[str, Sequence[str]],
    now: float,
) -> Iterator[Failed]:
    """Twins that the open round waits for, and whose program does nothing about it."""
    opened = watching.line.open_round
    for name, entities in held_up.items():
        since = watching.opened_at[opened.number] if opened else now
        host = programs.get(name)
        if host is not None and host.state == "alive":
            idle = watching.programs[name].idle_since
            if idle is None or now - idle <= SILENT:
                continue
            since = max(since, idle)
        for entity in entities[:NAMED]:
            yield Failed(entity, f"stalls the open round: {_why(host, entity)}", now - since)
        if len(entities) > NAMED:
            rest = f"and {len(entities) - NAMED} more"
            yield Failed(rest, f"stall the open round: {_why(host, '')}", now - since)


def _why(host: ProgramView | None, entity: str) -> str:
    if host is None:
        return "its twin lives in no program that was heard of"
    if host.state != "alive":
        return f"its twin lives in {host.name}: {_end_of(host)}"
    own = [each for each in host.waits if entity in each.what and LASTING not in each.what]
    return own[0].what if own else f"{host.name} has nothing in work, and says not why"


def _at_rest(watching: Watching, programs: list[ProgramView], now: float) -> Iterator[Failed]:
    """A recipe in which nothing is in work, and somebody waits."""
    living = [watching.programs[each.name] for each in programs if each.state == "alive"]
    idle = [each.idle_since for each in living]
    waits = [
        wait
        for each in programs
        if each.state == "alive"
        for wait in each.waits
        if LASTING not in wait.what
    ]
    resting = [now - since for since in idle if since is not None]
    if waits and len(resting) == len(idle) and min(resting) > SILENT:
        first = max(waits, key=lambda each: each.seconds)
        if first.seconds > SILENT:
            yield Failed(watching.names.run, f"nobody works: {first.what}", min(resting))
