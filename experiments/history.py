"""What was decided in a run, by whom and when: every decision that counted, of every line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from experiments.folder import Listener
from experiments.forgetting import told
from experiments.numbers import counted
from infra.promises import Arrived
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.transport.base import Stored, Transport
from infra.workers import Inline
from schemas.errors import DataError
from schemas.limits import LEAST_BYTES
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    EntityJoined,
    EntityLeft,
    HeadGrown,
    Measured,
    Paused,
    RolledBack,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    StageOpened,
    Standing,
    TeacherChosen,
    TwinDecision,
    WindowJudged,
)
from schemas.teachers import TeachersLine
from schemas.topics import Names
from schemas.verdicts import VerdictLines

FEW = 4  # names in a row before the rest is counted
UNVERIFIED = "metrics, unverified"
"""By whom: somebody who may write there, which every side may."""


@dataclass(frozen=True)
class Entry:
    """One decision."""

    line: str
    """`rounds`, `teachers`, the entity whose line it is, or `forgotten`."""
    number: int
    at: float | None
    """When its record was appended, in seconds since 1970; None where the log does not keep it."""
    by: str
    kind: str
    what: str


class _Timed:
    """A log that remembers when each record that was read had been appended."""

    def __init__(self, log: Transport) -> None:
        self._log = log
        self.at: dict[tuple[str, int], float | None] = {}

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        found = self._log.read(topic, place, max_bytes)
        self.at |= {(topic, each.offset): each.at for each in found}
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


def history(transport: Transport, names: Names) -> list[Entry]:
    """All decisions, in the order of time, where it is known, and of their lines.

    Raises DataError for a log that holds no such run.
    """
    log, line = _Timed(transport), RoundsLine()
    found: list[Entry] = []

    def note(arrived: Arrived, of: str) -> None:
        decision = arrived.message
        assert isinstance(decision, Decision)
        at = log.at[arrived.place.topic, arrived.place.offsets[0]]
        said = Entry(of, decision.number, at, author(decision), decision.kind(), words(decision))
        found.append(said)

    def decided(arrived: Arrived) -> None:
        if isinstance(arrived.message, Decision) and line.hear(arrived.message, arrived.hash):
            note(arrived, "rounds")

    _read(log, names, [names.federation("rounds")], decided)
    if line.opened is None:
        raise DataError(
            f"the log holds no run {names.run}: it was not opened yet, or this is another broker"
        )
    verdicts, teachers = VerdictLines(line), TeachersLine(line)

    def heard(arrived: Arrived) -> None:
        match arrived.message:
            case TeacherChosen() as choice:
                before = len(teachers.chosen)
                teachers.hear(choice, arrived)
                if len(teachers.chosen) > before:
                    note(arrived, "teachers")
            case TwinDecision(entity=entity) as verdict:
                last = verdicts.line(entity).number
                verdicts.hear(arrived.place.topic.rsplit(".", 1)[1], verdict, arrived)
                if verdicts.line(entity).number > last:
                    note(arrived, entity)

    sites = [names.of_site("classes", site) for site in line.opened.all_sites]
    _read(log, names, [*sites, names.federation("teachers")], heard)
    if line.live:
        found += _forgotten(log, names, line)
    return sorted(found, key=lambda entry: entry.at or 0.0)


def _forgotten(log: _Timed, names: Names, line: RoundsLine) -> list[Entry]:
    """What entities are said to have been asked to forget: no decision, and told in `metrics`,
    where anybody may write."""
    found: dict[tuple[str, str], Entry] = {}

    def heard(arrived: Arrived) -> None:
        asked = told(arrived.message) if isinstance(arrived.message, Measured) else None
        if asked and line.knows(
            asked.entity
        ):  # the last word about a request counts: a broker keeps no other
            at = log.at[arrived.place.topic, arrived.place.offsets[0]]
            words = f"{asked.entity} forgets {asked.asked}: {counted(asked.images, 'image')}"
            found.pop((asked.entity, asked.request), None)
            entry = Entry("forgotten", 0, at, UNVERIFIED, "Forgotten", words)
            found[asked.entity, asked.request] = entry

    _read(log, names, [names.federation("metrics")], heard)
    return [replace(entry, number=i) for i, entry in enumerate(found.values())]


def _read(
    timed: _Timed, names: Names, topics: Sequence[str], heard: Callable[[Arrived], None]
) -> None:
    log = cast(Transport, timed)
    around = Surroundings(log, Shelf(log, names.federation("models"), LEAST_BYTES), LEAST_BYTES)
    reader = System([Listener(heard, topics)], around, Inline({}))
    while any(session.behind for session in reader.sessions):
        reader.step()


def author(decision: Decision) -> str:
    """Who may decide such a thing: who else writes it there is passed over by everybody."""
    match decision:
        case StageAdded() | Paused() | RolledBack():
            return "operator"
        case TwinDecision(entity=entity):
            return f"twin of {entity}"
        case TeacherChosen():
            return "proxy"
    return "aggregator"


def words(decision: Decision) -> str:
    """What a decision says, for people."""
    match decision:
        case RunOpened(configuration=run):
            kind = "a live federation" if run.live else "a run"
            return f"opens {kind}: recipe {run.recipe}, {run.strategy}, seed {run.seed}"
        case StageOpened(stage=stage, found=found):
            return f"stage {stage} begins with what {few([e for e, _ in found])} found"
        case HeadGrown(rows=rows, model=model):
            return f"the head grows by {few(list(rows))}: version {model.version}"
        case RoundOpened(stage=stage, round=round, participants=parts, teacher=teacher):
            taught = f", taught by version {teacher.version}" if teacher else ""
            return f"round {stage}.{round} asks {few([each.entity for each in parts])}{taught}"
        case RoundClosed():
            return _closed(decision)
        case StageClosed(stage=stage, candidates=candidates, last=last):
            versions = few([str(each.version) for each in candidates])
            return f"stage {stage} ends with version {last.version}; versions {versions} may teach"
        case StageAdded(looks=looks):
            named = few(
                [f"{each.entity} at {each.count} images of {each.source}" for each in looks]
            )
            return f"another stage looks at {named}"
        case Paused(entity=entity, rests=rests):
            return f"{entity or 'everybody'} {'rests' if rests else 'goes on'}"
        case RolledBack(to=to, closes=closes, model=model):
            ends = "" if closes is None else "; the open round ends uncounted"
            return f"back to version {to.version}, as version {model.version}{ends}"
        case Standing(members=members, rows=rows, model=model):
            here = sum(each.here for each in members)
            return f"how it stands: {here} entities, {len(rows)} classes, version {model.version}"
    return _of_others(decision)


def _closed(closed: RoundClosed) -> str:
    counts = f"round {closed.stage}.{closed.round} counts {len(closed.counted)}"
    withheld = f", {len(closed.withheld)} without content" if closed.withheld else ""
    missing = f", without {few(list(closed.missing))}" if closed.missing else ""
    return f"{counts}{withheld}{missing}: version {closed.model.version}"


def _of_others(decision: Decision) -> str:
    """Of twins, and of the proxy."""
    match decision:
        case EntityJoined():
            return "joins"
        case EntityLeft():
            return "leaves"
        case WindowJudged(classes=classes, images=images, reason=reason):
            if classes:
                return f"has found {few(list(classes))}"
            if not images:
                return f"judges nothing: {reason}"
            return f"has found nothing new in {sum(images.values())} images"
        case TeacherChosen(stage=stage, teacher=teacher, scores=scores):
            scored = f", of {len(scores)} that were scored" if scores else ""
            return f"version {teacher.version} teaches stage {stage}{scored}"
    return decision.kind()


def few(named: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(named) - FEW} more" if len(named) > FEW else ""
    return ", ".join(named[:FEW]) + more
