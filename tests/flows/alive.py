"""A live federation over one log, whose time a story tells; and its copies."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aggregator.aggregator import Aggregator, Opening
from experiments.recipes import recipe
from infra.promises import Role, Start
from infra.serve import TICK, Session, Surroundings, System
from infra.shelf import Shelf
from infra.store.sqlite import SqliteStore
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.workers import Function, Inline
from producers.entity import image_batch
from proxy.proxy import Proxy
from schemas.codec import records
from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    Message,
    RoundClosed,
    RoundOpened,
    StreamEnded,
    StreamMarked,
    TeacherChosen,
    TwinDecision,
)
from schemas.schedule import Schedule
from schemas.teachers import TeachersLine
from schemas.topics import Names, parted
from schemas.verdicts import VerdictLines
from tests.flows.federation import DOTS, LIMIT, messages
from tests.flows.learner import FAKES
from twins.twins import Twins

NAMES = Names("spring")
NORTH, EAST, SOUTH, WEST = ("a/north", "a/east", "b/south", "b/west")
ALL = (NORTH, EAST, SOUTH, WEST)
SITES = ("a", "b")
QUIET = 5  # steps without a move, after which nobody has anything to say


def lively(**overrides: object) -> Configuration:
    """A small live run: rounds of two or more, closed after a minute."""
    values: dict[str, object] = {
        "live": True,
        "lr_schedule": "constant",
        "width": 1,
        "image_size": 4,
        "classes_per_stage": 3,
        "rounds_per_stage": 3,
        "clients_per_round": 4,
        "memory": 12,
        "encoder_classes": 12,
        "recon_batch": 2,
        "proto_per_class": 2,
        "quorum": 2,
        "deadline": 60.0,
        "growth_window": 10.0,
        "n_min": 24,
    }
    return recipe("tiny", overrides=values | overrides)


class Alive:
    """Roles of a live run in this process, and hands that stream to its entities."""

    def __init__(
        self,
        configuration: Configuration | None = None,
        *,
        over: Callable[[Transport], Transport] = lambda log: log,
        entities: Sequence[str] = ALL,
        copies: int = 1,
        functions: Mapping[str, Function] = FAKES,
        order: Callable[[Sequence[Session]], Sequence[Session]] = list,
        path: Path | None = None,
    ) -> None:
        self._quiet = QUIET if copies == 1 else 10 * QUIET
        self.log = Log(path)
        """As it is; roles may see it otherwise."""
        log = over(self.log)
        self.now = 1000.0
        self.configuration = configuration or lively()
        opening = Opening(
            self.configuration, DOTS.facts(DOTS.class_uids), Schedule(stages=()), SITES
        )
        self.shelf = Shelf(log, NAMES.federation("models"), LIMIT)
        self._around = Surroundings(
            log, self.shelf, LIMIT, store=SqliteStore(), clock=lambda: self.now
        )
        self._opening, self._entities, self._copies = opening, entities, copies
        self._functions, self._order = functions, order
        self.restart()
        self._sent: dict[tuple[str, str], int] = {}

    def restart(self, start: Start | None = None) -> None:
        """All roles end, and others begin: at a Standing, or by reading all."""
        self.roles: dict[str, Role] = {}
        for copy in range(self._copies):
            self.roles[f"aggregator-{copy}"] = Aggregator(NAMES, SITES, self._opening, self.shelf)
            self.roles[f"proxy-{copy}"] = Proxy(NAMES, SITES)
            for entity in self._entities:
                twins = Twins(NAMES, parted(entity)[0], self.shelf, [entity])
                self.roles[entity if not copy else f"{entity}-{copy}"] = twins
        self.system = System(
            list(self.roles.values()), self._around, Inline(self._functions), order=self._order
        )
        if start is not None:
            self.system.begin(start)

    def vanish(self, name: str) -> Session:
        """A role does nothing any more; gives it, to come back."""
        session = next(s for s in self.system.sessions if s.role is self.roles[name])
        self.system.sessions.remove(session)
        return session

    def join(self, role: Role) -> None:
        """A role begins, and reads what is there."""
        queue = self.system._queue
        self.system.sessions.append(Session(role, self._around, queue))

    # --- time -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Go on until nobody has anything to say: two ticks, which is when time is looked at."""
        for _ in range(2):
            quiet = 0
            while quiet < self._quiet:
                quiet = 0 if self.system.step() else quiet + 1
            self.now += TICK

    def after(self, seconds: float) -> None:
        """So much later, and settled before and behind."""
        self.settle()
        self.now += seconds
        self.settle()

    # --- what comes from outside ------------------------------------------------------------------

    def stream(
        self, entity: str, classes: str, each: int = 10, source: str = "camera"
    ) -> NDArray[np.uint8]:
        """So many images of each class come to an entity; a class is a letter of the text.

        Gives the images.
        """
        first = self._sent.get((entity, source), 0)
        uids = tuple(uid for uid in classes for _ in range(each))
        chance = np.random.Generator(np.random.PCG64([first, len(entity), *map(ord, entity)]))
        images = chance.integers(0, 256, (len(uids), *DOTS.train.images.shape[1:]), np.uint8)
        self._sent[entity, source] = first + len(uids)
        self.say(entity, image_batch(self.line.run, source, first, images, uids))
        return images

    def mark(self, entity: str, source: str = "camera") -> None:
        """What came so far is to be judged."""
        count = self._sent.get((entity, source), 0)
        self.say(entity, StreamMarked(run=self.line.run, source=source, count=count, stage=None))

    def leave(self, entity: str, source: str = "camera") -> None:
        """The entity says that it leaves."""
        count = self._sent.get((entity, source), 0)
        self.say(entity, StreamEnded(run=self.line.run, source=source, count=count))

    def decide(self, kind: type[Decision], **values: object) -> None:
        """An operator's command writes a decision."""
        line = self.line
        said = kind.model_validate({"run": line.run, "number": line.number + 1, **values})
        self.log.append(NAMES.federation("rounds"), records(said, source="operator")[1])

    def say(self, entity: str, message: Message) -> None:
        """Somebody writes into an entity's stream."""
        topic = NAMES.of_entity("samples", entity)
        self.log.append(topic, records(message, source="hands")[1])

    # --- what was decided -------------------------------------------------------------------------

    @property
    def line(self) -> RoundsLine:
        """The line `rounds`, as a newcomer reads it."""
        line = RoundsLine()
        for message, hash in messages(self.log, NAMES.federation("rounds")):
            assert isinstance(message, Decision)
            line.hear(message, hash)
        return line

    def lines(self, entity: str) -> list[TwinDecision]:
        """All that was written into an entity's line."""
        topic = NAMES.of_site("classes", parted(entity)[0])
        told = [message for message, _ in messages(self.log, topic)]
        return [each for each in told if isinstance(each, TwinDecision) and each.entity == entity]

    @property
    def verdicts(self) -> VerdictLines:
        """All entities' lines."""
        lines = VerdictLines(self.line)
        for site in SITES:
            for message, _ in messages(self.log, NAMES.of_site("classes", site)):
                assert isinstance(message, TwinDecision)
                lines.hear(site, message)
        return lines

    @property
    def teachers(self) -> list[TeacherChosen]:
        """What the proxy chose."""
        line = TeachersLine(self.line)
        for message, _ in messages(self.log, NAMES.federation("teachers")):
            assert isinstance(message, TeacherChosen)
            line.hear(message)
        return line.chosen

    def rounds(self, stage: int = -1) -> list[tuple[tuple[str, ...], RoundClosed | None]]:
        """Who was asked in each round of a stage, and how it closed."""
        return [
            (tuple(part.entity for part in each.opened.participants), each.closed)
            for each in self.line.stages[stage].rounds
        ]

    def kinds(self) -> list[str]:
        """The decisions in their order, by kind."""
        return [decision.kind() for decision in self.line.decisions.values()]


def asked(opened: RoundOpened) -> tuple[str, ...]:
    """Who is asked to train."""
    return tuple(part.entity for part in opened.participants)


def line_of(role: Role) -> RoundsLine:
    """The line `rounds` as a role has read it."""
    return role.line if isinstance(role, Aggregator | Proxy) else role._shared.line  # type: ignore[attr-defined]


def same(own: RoundsLine, line: RoundsLine) -> bool:
    """Whether the decisions that a role holds are those of the line, to its end."""
    end = {number: each for number, each in line.decisions.items() if number >= own.held}
    return own.decisions == end and own.number == line.number


def whim(seed: int) -> Callable[[Sequence[Session]], Sequence[Session]]:
    """Roles take their steps in any order."""
    chance = random.Random(seed)
    return lambda sessions: chance.sample(list(sessions), len(sessions))
