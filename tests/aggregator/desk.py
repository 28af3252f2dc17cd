"""An aggregator at its desk: a real log and a real loop; the story writes what twins and proxy say.

Two entities, the north and the south, see two classes in each of two stages; a stage has two
rounds. The model is a ResNet-18 of width 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aggregator.aggregator import Aggregator, Opening
from infra.serve import Session, Surroundings
from infra.shelf import Shelf
from infra.transport.base import Stored
from infra.transport.embedded import Embedded as Log
from schemas.codec import Assembler, pack, records, unpack
from schemas.configuration import Configuration
from schemas.messages import (
    DeadLetter,
    Decision,
    EntityJoined,
    GlobalModel,
    Groups,
    Message,
    ModelName,
    ModelUpdate,
    RoundOpened,
    StageClosed,
    TeacherChosen,
    Tensors,
    WindowJudged,
)
from schemas.tensors import update_of
from schemas.topics import Names, parted
from tests.schemas.specimens import NORTH, SOUTH, facts, recipe, schedule

NAMES = Names("story")
ROUNDS, TEACHERS, MODELS = (NAMES.federation(each) for each in ("rounds", "teachers", "models"))
LETTERS = NAMES.federation("dead-letters")
CLASSES, UPDATES = NAMES.of_site("classes", "local"), NAMES.of_site("updates", "local")
ROOM = 32 * 1024 * 1024


def small(**overrides: Any) -> Configuration:
    """The narrowest model; every model of a stage is a candidate."""
    return recipe(**({"width": 1, "warmup": 0, "lr_schedule": "constant"} | overrides))


class Desk:
    """One run's log, the aggregators that work on it, and everyone else's pen."""

    def __init__(self, *, aggregators: int = 1, classes: int = 4, **overrides: Any) -> None:
        self.log = Log()
        config = small(**overrides)
        plan = schedule(config.stages, config.rounds_per_stage)
        self.opening: Opening | None = Opening(config, facts(classes), plan)
        self.wire = config.wire
        self.sessions: list[Session] = []
        for _ in range(aggregators):
            self.sit_down()

    def sit_down(self, opening: Opening | None = None) -> Session:
        """Another aggregator begins; it knows nothing but the log, and how the run was opened."""
        shelf = Shelf(self.log, MODELS, ROOM)
        role = Aggregator(NAMES, ["local"], opening or self.opening, shelf)
        around = Surroundings(self.log, shelf, ROOM, lambda message: self._wire(message))
        session = Session(role, around, deque())
        self.sessions.append(session)
        return session

    def _wire(self, message: Message) -> str:
        return self.wire if isinstance(message, GlobalModel | ModelUpdate) else "fp32"

    @property
    def aggregator(self) -> Aggregator:
        """The first one."""
        role = self.sessions[0].role
        assert isinstance(role, Aggregator)
        return role

    @property
    def waits(self) -> Sequence[str]:
        """What the first one waits for."""
        return self.aggregator.waits()

    def settle(self, order: Callable[[list[Session]], list[Session]] = list) -> None:
        """Let everybody read and answer until there is nothing left to do."""
        moved = True
        while moved:
            moved = sum(session.step() for session in order(self.sessions)) > 0

    # --- what lies in the log -----------------------------------------------------------------

    def read(self, topic: str) -> list[Message]:
        """All messages of a topic, in its order."""
        puts, found = Assembler(ROOM), []
        for stored in self.stored(topic):
            if whole := puts.add(stored.offset, stored.record.value):
                found.append(unpack(whole.payload, ROOM))
        return found

    def stored(self, topic: str) -> list[Stored]:
        """All records of a topic that are still there."""
        return self.log.read(topic, self.log.first(topic), 2**40)

    @property
    def rounds(self) -> list[Decision]:
        """What was decided, and counts, in order."""
        self.settle()
        return list(self.aggregator.line.decisions.values())

    @property
    def last(self) -> Decision:
        """The newest decision."""
        return self.rounds[-1]

    @property
    def letters(self) -> list[tuple[str, str]]:
        """Reason and identity of everything that was set aside."""
        self.settle()
        letters = [each for each in self.read(LETTERS) if isinstance(each, DeadLetter)]
        return [(letter.reason, letter.about) for letter in letters]

    @property
    def run(self) -> str:
        """The hash of RunOpened."""
        return pack(self.rounds[0]).hash

    @property
    def open_round(self) -> RoundOpened:
        """The round that waits for updates."""
        assert isinstance(self.last, RoundOpened), self.waits
        return self.last

    def model(self, name: ModelName) -> Tensors:
        """A global model's values."""
        return Shelf(self.log, MODELS, ROOM).model(name)

    # --- what others write ----------------------------------------------------------------------

    def write(self, topic: str, message: Message) -> str:
        """A message is appended; gives its hash."""
        hash, made = records(message, source="story", wire=self._wire(message))
        self.log.append(topic, made)
        return hash

    def join(self, *entities: str) -> None:
        """Entities begin their lines."""
        for entity in entities:
            topic = NAMES.of_site("classes", parted(entity)[0])
            self.write(topic, EntityJoined(run=self.run, number=0, entity=entity))

    def judge(
        self, entity: str, stage: int = 0, *uids: str, trainable: int = 4, **changes: Any
    ) -> None:
        """An entity's verdict on a stage: these classes are new to it."""
        self.write(CLASSES, self.verdict(entity, stage, *uids, trainable=trainable, **changes))

    def verdict(
        self, entity: str, stage: int, *uids: str, trainable: int = 4, **changes: Any
    ) -> WindowJudged:
        """A verdict as the entity's twin would give it."""
        self.settle()
        model = self.aggregator.line.judges(stage)
        fields: dict[str, Any] = {
            "run": self.run,
            "number": stage + 1,
            "entity": entity,
            "stage": stage,
            "position": 4 * (stage + 1),
            "model": model,
            "images": dict.fromkeys(uids, 2),
            "trainable": trainable,
            "entropy": 1.0,
            "reference": None,
            "threshold": 1.2,
            "first_contact": stage == 0,
            "reason": None,
            "verdict": "new" if uids else "known",
            "classes": uids,
        }
        return WindowJudged(**(fields | changes))

    def begin(self, stage: int = 0, north: int = 4, south: int = 4) -> None:
        """Both entities find the stage's classes, and the first round is opened."""
        if stage == 0:
            self.join(NORTH, SOUTH)
        uids = (str(2 * stage), str(2 * stage + 1))
        self.judge(NORTH, stage, *uids, trainable=north)
        self.judge(SOUTH, stage, *uids, trainable=south)
        self.settle()

    def update(self, entity: str, further: float = 0.0, **changes: Any) -> ModelUpdate:
        """What an entity learned in the open round: every number is so much further."""
        opened = self.open_round
        base = self.model(opened.base)
        values = {name: moved(tensor, further) for name, tensor in base.items()}
        fields: dict[str, Any] = {
            "run": self.run,
            "opened": opened.number,
            "entity": entity,
            "base": opened.base,
            "groups": {"model": update_of(values, base, self.wire)},
        }
        return ModelUpdate(**(fields | changes))

    def nothing(self, entity: str, reason: str = "not-finite: fc.weight[0] is nan") -> ModelUpdate:
        """An answer without content."""
        return self.update(entity, reason=reason, groups={})

    def answer(self, *updates: ModelUpdate) -> None:
        """Updates are sent, and the aggregator reads them."""
        for update in updates:
            self.write(UPDATES, update)
        self.settle()

    def round(self, north: float = 0.0, south: float = 0.0) -> None:
        """Both entities answer the open round."""
        self.answer(self.update(NORTH, north), self.update(SOUTH, south))

    def choose(self, stage: int) -> TeacherChosen:
        """The proxy takes the first candidate of the stage before."""
        closed = self.aggregator.line.closed(stage - 1)
        assert isinstance(closed, StageClosed)
        choice = TeacherChosen(
            run=self.run,
            number=stage - 1,
            stage=stage,
            teacher=closed.candidates[0],
            scores=(),
            used=(),
            withheld=(),
        )
        self.write(TEACHERS, choice)
        self.settle()
        return choice

    def whole_run(self) -> None:
        """From the first verdict to the end of the last stage."""
        for stage in range(self.aggregator.line.total_stages or 2):
            if stage:
                self.choose(stage)
            self.begin(stage)
            while isinstance(self.last, RoundOpened):
                self.round(0.5, 0.25)


def moved(tensor: np.ndarray[Any, Any], further: float) -> np.ndarray[Any, Any]:
    """Every float so much further; counters count one more."""
    if tensor.dtype.kind != "f":
        return tensor + tensor.dtype.type(1)
    return tensor + tensor.dtype.type(further)


def changed(groups: Groups, name: str, tensor: np.ndarray[Any, Any]) -> Groups:
    """The same groups, with another tensor in the model."""
    return groups | {"model": groups["model"] | {name: tensor}}
