"""What people see of a live federation, and decide in it: over Kafka, beside its programs.

An operator reads the lines like everybody else, and writes a decision into `rounds` with the next
number. It counts once it is read back; when another was quicker it is decided anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from aggregator.rollback import rolled_back
from experiments.folder import Listener
from experiments.live import Standing
from infra.serve import Surroundings, System
from infra.settings import read_settings
from infra.shelf import Shelf
from infra.transport.base import Transport
from infra.transport.clusters import connect
from infra.workers import Inline
from schemas.codec import records
from schemas.configuration import nearest
from schemas.errors import ConfigurationError, DataError, RunFailed
from schemas.heldout import HeldOut
from schemas.limits import LEAST_BYTES, largest_message
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    GlobalModel,
    HeadGrown,
    Message,
    ModelName,
    Paused,
    RolledBack,
    RoundClosed,
    RunOpened,
)
from schemas.topics import Names

Json = dict[str, Any]
TRIES = 20
SOURCE = "operator"
"""Who wrote a record, as its header says: the decision itself names nobody."""


class Operator:
    """One who reads a live federation and may decide something in it."""

    def __init__(self, transport: Transport, names: Names, *, everything: bool = False) -> None:
        """Read its decisions; with `everything` also verdicts, dead letters and what was measured.

        Raises DataError where the log holds no such run, and ConfigurationError for a recipe's.
        """
        self.names = names
        self._transport = transport
        self.standing = Standing(names, [])
        self._listener = Listener(self.standing.hear, [names.federation("rounds")])
        shelf = Shelf(transport, names.federation("models"), LEAST_BYTES)
        around = Surroundings(transport, shelf, LEAST_BYTES)
        self._reader = System([self._listener], around, Inline({}))
        self.read()
        opened = self.line.opened
        if opened is None:
            raise DataError(
                f"the log holds no run {names.run}: it was not opened yet, or this is another"
                f" broker: `fedtwin topics ls {names.run}`"
            )
        if not self.line.live:
            raise ConfigurationError(
                f"{names.run} is a run of the recipe {opened.configuration.recipe}, whose schedule"
                " decides all that; this is for live federations"
            )
        self.opened: RunOpened = opened
        self.standing.sites = opened.all_sites
        if everything:
            self._listener.topics = self.standing.topics
            self.read()

    @property
    def line(self) -> RoundsLine:
        """The line `rounds`, as far as it was read."""
        return self.standing.line

    def read(self) -> None:
        """Read on to the end."""
        while any(session.behind for session in self._reader.sessions):
            self._reader.step()

    def shelf(self) -> Shelf:
        """Its models."""
        most = largest_message(self.opened.configuration, self.opened.data)
        return Shelf(self._transport, self.names.federation("models"), most)

    def say(self, topic: str, message: Message, key: str | None = None, wire: str = "fp32") -> None:
        """Append a message; it is durable when this returns."""
        self._transport.append(topic, records(message, source=SOURCE, key=key, wire=wire)[1])

    def decide(self, make: Callable[[RoundsLine], Decision | None]) -> Decision | None:
        """Write what `make` makes of the line until it counts; None when there is nothing to do.

        Raises what `make` does, and RunFailed where others are always quicker.
        """
        for _ in range(TRIES):
            self.read()
            decision = make(self.line)
            if decision is None:
                return None
            self.say(self.names.federation("rounds"), decision)
            self.read()
            if self.line.decisions.get(decision.number) == decision:
                return decision
        raise RunFailed(f"{TRIES} other decisions came first: try again when it is quieter")


@contextmanager
def operating(run: str, *, everything: bool = False) -> Iterator[Operator]:
    """An operator of a live federation, with the services that the environment or `make up` names.

    Raises ServiceError where they are not there, and what Operator does.
    """
    names = Names(run)
    with services(site=everything) as transport:
        yield Operator(transport, names, everything=everything)


@contextmanager
def services(*, site: bool) -> Iterator[Transport]:
    """The log on the services at hand; `site` says whether a site's own cluster is needed too."""
    with closing(connect(read_settings(), site=site)) as transport:
        yield transport


# --- how it stands --------------------------------------------------------------------------------


def overview(operator: Operator) -> Json:
    """A live federation in one object: who is there, what goes on, how good its models are."""
    standing, line = operator.standing, operator.line
    held, present = standing.held_out, standing.present
    newest = held.newest_of(present)
    accuracy = None if newest is None else held.of(newest)
    return {
        "run": operator.names.run,
        "live": True,
        "doing": doing(standing),
        "entities": [_entity(standing, entity) for entity in sorted(standing.verdicts.of)],
        "stages": len(line.stages),
        "rounds": standing.rounds,
        "decisions": line.number + 1,
        "classes": list(line.rows),
        "model_version": line.model.version if line.model else None,
        "model_sha256": line.model.sha256 if line.model else None,
        "held_out_accuracy": accuracy.percent if accuracy else None,
        "held_out_version": newest,
        "held_out_images": accuracy.images if accuracy else 0,
        "versions": _versions(held, line),
        "dead_letters": len(standing.letters),
    }


def doing(standing: Standing) -> str:
    """What goes on, in words, as far as it is decided."""
    line, stage = standing.line, standing.line.stage
    if opened := line.open_round:
        who = ", ".join(part.entity for part in opened.participants)
        return f"round {opened.stage}.{opened.round} waits for {who}"
    if line.all_rest:
        return "paused"
    if stage is None:
        return "waits for somebody to find a new class"
    if stage.closed:
        return f"stage {stage.index} is closed, and the next one begins with new classes"
    if not stage.rounds:
        return f"stage {stage.index} has begun, and waits for a quorum"
    return f"stage {stage.index} rests after {len(stage.rounds)} rounds, until new images come"


def _entity(standing: Standing, entity: str) -> Json:
    own = standing.verdicts.line(entity)
    newest = own.verdicts.get(own.judged)
    return {
        "entity": entity,
        "here": own.here,
        "paused": entity in standing.line.resting,
        "classes": list(own.known),
        "judged_images": newest.position if newest else 0,
        "forgotten_images": sum(
            images for (whose, _), images in standing.forgotten.items() if whose == entity
        ),
    }


def _versions(held: HeldOut, line: RoundsLine) -> list[Json]:
    """Each version of the model that somebody has scored, the oldest first."""
    whence = origins(line)
    losses = {loss.version: loss for loss in held.losses()}
    found = []
    for version in held.versions:
        accuracy, loss = held.of(version), losses.get(version)
        found.append(
            {
                "version": version,
                "from": whence[version],
                "accuracy": accuracy.percent if accuracy else None,
                "images": accuracy.images if accuracy else 0,
                "entities": len(held.entities(version)),
                "lost_points": loss.points if loss else None,
                "lost_against": loss.before if loss else None,
            }
        )
    return found


def origins(line: RoundsLine) -> dict[int, str]:
    """Version → where it comes from, in words."""
    found = {0: "the first weights"}
    for each in line.decisions.values():
        match each:
            case HeadGrown(stage=stage, rows=rows, model=model):
                found[model.version] = f"stage {stage} grows by {', '.join(rows)}"
            case RoundClosed(stage=stage, round=round, counted=counted, model=model) if counted:
                found[model.version] = f"round {stage}.{round}"
            case RolledBack(to=to, model=model):
                found[model.version] = f"back to version {to.version}"
    return found


# --- what is decided ------------------------------------------------------------------------------


def rollback(operator: Operator, version: int) -> RolledBack:
    """Make an earlier version's values the newest model: the content first, then the decision.

    Raises ConfigurationError for a version that cannot be gone back to, and where another operator
    went back to one meanwhile.
    """
    shelf, began = operator.shelf(), operator.line.number

    def make(line: RoundsLine) -> RolledBack:
        _alone(line, began)
        to = _earlier(line, shelf, version)
        groups, decision = rolled_back(line, to, shelf.groups(to))
        content = GlobalModel(run=line.run, version=decision.model.version, groups=groups)
        models, wire = operator.names.federation("models"), operator.opened.configuration.wire
        operator.say(models, content, decision.model.key, wire)
        return decision

    decided = operator.decide(make)
    assert isinstance(decided, RolledBack)
    return decided


def _alone(line: RoundsLine, began: int) -> None:
    """Whether nobody else has gone back since we looked: two at once want to know of each other."""
    others = [each for number, each in line.decisions.items()
              if number > began and isinstance(each, RolledBack)]  # fmt: skip
    if others:
        raise ConfigurationError(
            f"another operator has just gone back to version {others[-1].to.version}, which is"
            f" version {others[-1].model.version} now: look with `fedtwin show`, and ask again"
        )


def _earlier(line: RoundsLine, shelf: Shelf, version: int) -> ModelName:
    """The model of an earlier version, which has to be there."""
    to, newest = line.named(version), line.model
    assert newest is not None
    if to is None:
        why = f"there was no version {version}: the newest is {newest.version}"
    elif to == newest:
        why = f"version {version} is the newest model already"
    elif version == 0:
        why = "version 0 is the first weights, which were drawn before anybody had trained"
    elif to not in line.earlier or not shelf.has(to):
        why = f"version {version} was let go"
    else:
        return to
    known = {*shelf.names()} & line.earlier - {line.named(0)}
    there = sorted(each.version for each in known if shelf.has(each))
    raise ConfigurationError(
        f"{why}. Kept are versions of the newest two stages, and of earlier ones"
        f" the best and the last; there are {', '.join(map(str, there)) or 'none'}"
    )


def pause(operator: Operator, entity: str | None, *, rests: bool) -> Paused | None:
    """Let an entity, or the whole federation, rest or go on; None where it does so already.

    Raises ConfigurationError for an entity that the federation does not know.
    """
    known = sorted(operator.standing.verdicts.of)
    if entity is not None and entity not in known:
        raise ConfigurationError(
            f"the federation has no entity {entity!r}{nearest(entity, known)}; it has"
            f" {', '.join(known[:5])}" + (f" and {len(known) - 5} more" if len(known) > 5 else "")
        )

    def make(line: RoundsLine) -> Paused | None:
        now = line.all_rest if entity is None else entity in line.resting
        if now == rests:
            return None
        return Paused(run=line.run, number=line.number + 1, entity=entity, rests=rests)

    decided = operator.decide(make)
    assert decided is None or isinstance(decided, Paused)
    return decided
