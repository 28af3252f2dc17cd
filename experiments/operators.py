"""What people see of a live federation, and decide in it: over Kafka, beside its programs.

An operator reads the lines like everybody else, and writes a decision into `rounds` with the next
number. It counts once it is read back; when another was quicker it is decided anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from experiments.folder import Listener
from experiments.heldout import HeldOut, origins
from experiments.live import Standing
from infra.serve import Surroundings, System
from infra.settings import read_settings
from infra.shelf import Shelf
from infra.transport.base import Transport
from infra.transport.clusters import connect
from infra.workers import Inline
from schemas.codec import records
from schemas.errors import ConfigurationError, DataError, RunFailed
from schemas.limits import LEAST_BYTES, largest_message
from schemas.line import RoundsLine
from schemas.messages import Decision, Message, RunOpened
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
    with closing(connect(read_settings(), site=everything)) as transport:
        yield Operator(transport, names, everything=everything)


# --- how it stands --------------------------------------------------------------------------------


def overview(operator: Operator) -> Json:
    """A live federation in one object: who is there, what goes on, how good its models are."""
    standing, line = operator.standing, operator.line
    held, present = standing.held_out, standing.present
    newest = held.newest(present)
    share = held.share(-1 if newest is None else newest)
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
        "held_out_accuracy": share.percent,
        "held_out_version": newest,
        "held_out_images": share.images,
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
    }


def _versions(held: HeldOut, line: RoundsLine) -> list[Json]:
    """Each version of the model that somebody has scored, the oldest first."""
    whence = origins(line)
    losses = {loss.version: loss for loss in held.losses(line)}
    found = []
    for version in held.versions:
        share, loss = held.share(version), losses.get(version)
        found.append(
            {
                "version": version,
                "from": whence.get(version, "a model that nobody decided"),
                "accuracy": share.percent,
                "images": share.images,
                "entities": len(held.entities(version)),
                "lost_points": loss.points if loss else None,
                "lost_against": loss.before if loss else None,
            }
        )
    return found
