"""Junk under honest names: messages that look like the true ones and are not valid.

`Littered` is a transport that strews them around whatever is written, at random, from the first
record on. It remembers where, so that a test can ask what became of each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infra.transport.base import Stored, Transport
from schemas.codec import Record, cut, piece, records, unpack
from schemas.messages import (
    Content,
    Decision,
    EntityJoined,
    ExemplarImage,
    GlobalModel,
    HeadGrown,
    ImageBatch,
    Message,
    ModelName,
    ModelUpdate,
    PrototypeGradient,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
    StrategyKept,
    StreamMarked,
    TeacherChosen,
    Tensors,
    TwinState,
    WindowJudged,
)
from schemas.topics import table_row

LIMIT = 2**25
OTHER_RUN = "f" * 64
NOBODY = ModelName(version=0, sha256="e" * 64)
REPORTED = {"samples", "twin-state", "classes", "rounds", "updates", "prototypes", "teachers"}
"""Topics that have an owner who reads them, and so dead letters."""


@dataclass
class Littered:
    """Wraps any transport; `chance` also says how much junk there is."""

    inner: Transport
    chance: random.Random
    amount: float = 0.4
    """Probability of junk before a record, and of more behind it."""
    junk: set[tuple[str, int]] = field(default_factory=set)
    """Where junk lies."""
    silent: set[tuple[str, int]] = field(default_factory=set)
    """Junk that nobody need report: it is passed over, or never becomes whole."""
    _decided: set[str] = field(default_factory=set)

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        offsets: list[int] = []
        for record in records:
            if self.chance.random() < self.amount:
                self._strew(topic, record)
            offsets += self.inner.append(topic, [record])
            self._decided.add(f"{topic}/{record.key}")
            if self.chance.random() < self.amount:
                self._strew(topic, record)
        return offsets

    def _strew(self, topic: str, record: Record) -> None:
        row = table_row(topic)
        values, silent = self._made(record)
        for value in values:
            junk = Record(record.key, value, record.headers)
            place = (topic, self.inner.append(topic, [junk])[0])
            self.junk.add(place)
            passed = f"{topic}/{record.key}" in self._decided and row.name in _LINES
            if silent or passed or row.name not in REPORTED:
                self.silent.add(place)

    def _made(self, record: Record) -> tuple[list[bytes], bool]:
        """Records' values, and whether they make no noise."""
        true = unpack(piece(record.value, LIMIT).content, LIMIT)
        ways = [way for kinds, way in _WAYS if isinstance(true, kinds)]
        number = self.chance.randrange(len(_BYTES) + len(ways))
        if number < len(_BYTES):
            return [_BYTES[number](record.value, self.chance)], _BYTES[number] is first_of_two
        made, silent = ways[number - len(_BYTES)](true, self.chance)
        return [each.value for each in records(made, source="stranger")[1]], silent

    @property
    def to_report(self) -> set[tuple[str, int]]:
        """Where junk lies that must not be passed over in silence."""
        return self.junk - self.silent

    def holds(self, topic: str, offset: int) -> bool:
        """Whether a record is still there: what was let go nobody may have read."""
        if offset < self.inner.first(topic):
            return False
        found = self.inner.read(topic, offset, 1)
        return bool(found) and found[0].offset == offset

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        return self.inner.read(topic, place, max_bytes)

    def first(self, topic: str) -> int:
        return self.inner.first(topic)

    def end(self, topic: str) -> int:
        return self.inner.end(topic)

    def topics(self) -> list[str]:
        return self.inner.topics()

    def forget(self, topic: str, *keys: str) -> None:
        self.inner.forget(topic, *keys)

    def trim(self, topic: str, before: int) -> None:
        self.inner.trim(topic, before)

    def wait(self, seconds: float) -> None:
        self.inner.wait(seconds)

    def close(self) -> None:
        self.inner.close()


_LINES = {"classes", "rounds", "teachers"}
Made = tuple[Message, bool]


# --- records that are none ------------------------------------------------------------------------


def flipped(value: bytes, chance: random.Random) -> bytes:
    """One bit is another."""
    at = chance.randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :]


def shortened(value: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return value[: chance.randrange(len(value))]


def first_of_two(value: bytes, chance: random.Random) -> bytes:
    """A piece whose other piece never comes."""
    content = bytes(piece(value, LIMIT).content)
    return cut(content + bytes(2**20)).pieces[0]


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, shortened, first_of_two)


# --- messages that are not valid ------------------------------------------------------------------


def of_another_run(true: Message, chance: random.Random) -> Made:
    """Everything fits, but for the run."""
    return true.model_copy(update={"run": OTHER_RUN}), False


def in_the_wrong_topic(true: Message, chance: random.Random) -> Made:
    """A kind that nobody expects here."""
    kind = StreamMarked if isinstance(true, ModelUpdate | PrototypeGradient) else ModelUpdate
    if kind is StreamMarked:
        return StreamMarked(run=true.run, source="schedule", count=3, stage=0), False
    entity = getattr(true, "entity", "local/entity-000")
    return ModelUpdate(run=true.run, opened=2, entity=entity, base=NOBODY, groups={}), False


def with_another_number(true: Decision, chance: random.Random) -> Made:
    """A decision whose turn has passed, or has not come."""
    return true.model_copy(update={"number": true.number + chance.choice((3, 50, 10**6))}), True


def _with(*choices: dict[str, Any]) -> Callable[[Message, random.Random], Made]:
    def made(true: Message, chance: random.Random) -> Made:
        return true.model_copy(update=chance.choice(choices)), False

    return made


def for_nobody(true: Message, chance: random.Random) -> Made:
    """About an entity that is not there, or that another site speaks for."""
    entity = chance.choice(("local/stranger", "elsewhere/entity-000"))
    return true.model_copy(update={"entity": entity}), False


def verdict_that_does_not_fit(true: WindowJudged, chance: random.Random) -> Made:
    """The next number, and another stage, model or list of classes."""
    ways: list[dict[str, Any]] = [
        {"stage": true.stage + 1},
        {"model": NOBODY},
        {"verdict": "new", "classes": ()},
        {"verdict": "known", "classes": ("0",)},
        {"verdict": "new", "classes": ("1", "0")},
        {"verdict": "new", "classes": ("0", "0")},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def joins_twice(true: WindowJudged, chance: random.Random) -> Made:
    """It has joined long ago."""
    return EntityJoined(run=true.run, number=true.number, entity=true.entity), False


def growth_that_does_not_fit(true: HeadGrown, chance: random.Random) -> Made:
    """The next number, and rows, stage or version that are not the next."""
    model = ModelName(version=true.model.version + 1, sha256=true.model.sha256)
    ways: list[dict[str, Any]] = [
        {"stage": true.stage + 1},
        {"rows": {}},
        {"rows": {uid: row + 1 for uid, row in true.rows.items()}},
        {"model": model},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def opening_that_does_not_fit(true: RoundOpened, chance: random.Random) -> Made:
    """The next number, and another base, round, stage or company."""
    stranger = true.participants[0].model_copy(update={"entity": "local/stranger"})
    ways: list[dict[str, Any]] = [
        {"base": NOBODY},
        {"round": true.round + 1},
        {"stage": true.stage + 1},
        {"participants": (*true.participants, true.participants[0])},
        {"participants": (stranger,)},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def closing_that_does_not_fit(true: RoundClosed, chance: random.Random) -> Made:
    """The next number, and another round, company or version."""
    ways: list[dict[str, Any]] = [
        {"opened": true.opened - 1},
        {"counted": (*true.counted, ("local/stranger", "a" * 64))},
        {"round": true.round + 1},
        {"model": ModelName(version=true.model.version + 1, sha256="a" * 64)},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def another_decision(true: Decision, chance: random.Random) -> Made:
    """The next number, and a decision whose time it is not."""
    if isinstance(true, StageClosed):
        closed = RoundClosed(
            run=true.run, number=true.number, opened=true.number - 1, stage=true.stage, round=0,
            counted=(), withheld=(), model=true.last,
        )  # fmt: skip
        return closed, False
    end = StageClosed(run=true.run, number=true.number, stage=0, candidates=(NOBODY,), last=NOBODY)
    return end, False


def tensors_that_do_not_fit(true: Content, chance: random.Random) -> Made:
    """Not finite, not as many, of another shape or of another type."""
    group = sorted(true.groups)[0] if true.groups else "model"
    tensors = dict(true.groups.get(group, {"conv1.weight": np.zeros(3, np.float32)}))
    name = next((name for name in tensors if tensors[name].dtype == np.float32), min(tensors))
    ways: list[Callable[[Tensors, str], Tensors]] = [with_nan, without, longer, as_integers]
    changed = chance.choice(ways)(tensors, name)
    return true.model_copy(update={"groups": true.groups | {group: changed}}), False


def with_nan(tensors: Tensors, name: str) -> Tensors:
    """One number is none."""
    tensor = tensors[name].astype(np.float32)
    tensor.reshape(-1)[:1] = np.nan
    return tensors | {name: tensor}


def without(tensors: Tensors, name: str) -> Tensors:
    """One tensor is missing."""
    return {other: tensor for other, tensor in tensors.items() if other != name}


def longer(tensors: Tensors, name: str) -> Tensors:
    """One tensor has a row too many."""
    tensor = np.atleast_1d(tensors[name])
    return tensors | {name: np.concatenate([tensor, tensor[:1]])}


def as_integers(tensors: Tensors, name: str) -> Tensors:
    """One tensor is of another type."""
    return tensors | {name: np.zeros(tensors[name].shape, np.int32)}


def update_that_does_not_fit(true: ModelUpdate, chance: random.Random) -> Made:
    """From another base, to a round that is none, too large, or with content and a reason."""
    huge = {name: np.full_like(t, 2**31) for name, t in true.groups.get("model", {}).items()}
    ways: list[dict[str, Any]] = [
        {"base": NOBODY},
        {"opened": 0},
        {"groups": true.groups | {"model": huge}},
        {"groups": true.groups | {"more": {"x": np.zeros(1, np.float32)}}},
        {"reason": "for no reason", "groups": {"model": {"x": np.zeros(1, np.float32)}}},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def update_to_come(true: ModelUpdate, chance: random.Random) -> Made:
    """To a round that nobody opens: it waits for one until the end, or no run has so many."""
    ahead = chance.choice((50, 10**6, 2**50))
    return true.model_copy(update={"opened": true.opened + ahead}), False


def gradient_to_come(true: PrototypeGradient, chance: random.Random) -> Made:
    """Of a stage that never begins, or that no run has."""
    ahead = chance.choice((5, 10**6, 2**50))
    return true.model_copy(update={"stage": true.stage + ahead}), False


def state_to_come(true: TwinState, chance: random.Random) -> Made:
    """Of a decision that nobody takes, or that no run has."""
    ahead = chance.choice((100, 10**6, 2**50))
    return true.model_copy(update={"number": true.number + ahead}), False


def gradient_that_does_not_fit(true: PrototypeGradient, chance: random.Random) -> Made:
    """At a place that nobody asks for, or with content and a reason."""
    ways: list[dict[str, Any]] = [
        {"place": true.place + 50},
        {"reason": "for no reason", "groups": {"gradient": {"x": np.zeros(1, np.float32)}}},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def gradient_of_another_class(true: PrototypeGradient, chance: random.Random) -> Made:
    """It tells each class but its own."""
    gradient = {name: -tensor for name, tensor in true.groups.get("gradient", {}).items()}
    return true.model_copy(update={"groups": {"gradient": gradient}, "reason": None}), False


def choice_that_does_not_fit(true: Decision, chance: random.Random) -> Made:
    """Another stage, or a teacher that is no candidate."""
    ways: list[dict[str, Any]] = [{"stage": true.number + 2}, {"teacher": NOBODY}]
    return true.model_copy(update=chance.choice(ways)), False


def state_that_does_not_fit(true: TwinState, chance: random.Random) -> Made:
    """Of a decision that did not change the twin, or that changed it otherwise."""
    ways: list[dict[str, Any]] = [
        {"number": 0},
        {"number": true.number + 1},
        {"current": (*true.current, "9")},
        {"learned": ("9", *true.learned)},
        {"stage": true.stage + 1},
        {"kept": "a" * 64},
    ]
    return true.model_copy(update=chance.choice(ways)), True


def batch_that_does_not_fit(true: ImageBatch, chance: random.Random) -> Made:
    """Images of another size or type, or not as many as there are numbers."""
    images = true.groups["images"]["images"]
    ways: list[dict[str, Any]] = [
        {"groups": {"images": {"images": images[:, :, :-1]}}},
        {"groups": {"images": {"images": images.astype(np.float32)}}},
        {"groups": {"images": {"images": images[1:]}}},
        {"classes": (), "groups": {"images": {"images": images[:0]}}},
        {"reasons": ("why not",)},
    ]
    return true.model_copy(update=chance.choice(ways)), False


def batch_ahead(true: ImageBatch, chance: random.Random) -> Made:
    """Numbers behind a gap: they are passed over."""
    return true.model_copy(update={"first": true.first + 10**6}), True


def model_of_that_name(true: GlobalModel, chance: random.Random) -> Made:
    """Other content under an honest key."""
    model = {name: tensor + tensor.dtype.type(1) for name, tensor in true.groups["model"].items()}
    return true.model_copy(update={"groups": {"model": model}}), True


_WAYS: tuple[tuple[Any, Callable[[Any, random.Random], Made]], ...] = (
    (
        ImageBatch | StreamMarked | EntityJoined | WindowJudged | TeacherChosen | HeadGrown
        | RoundOpened | RoundClosed | StageClosed | ModelUpdate | PrototypeGradient | TwinState
        | ExemplarImage | StrategyKept | GlobalModel,
        of_another_run,
    ),
    (ImageBatch | WindowJudged | RoundOpened | ModelUpdate | PrototypeGradient | TwinState,
     in_the_wrong_topic),
    (Decision, with_another_number),
    (EntityJoined | WindowJudged | ModelUpdate | PrototypeGradient | TwinState | ExemplarImage
     | StrategyKept, for_nobody),
    (WindowJudged, verdict_that_does_not_fit),
    (WindowJudged, joins_twice),
    (TeacherChosen, choice_that_does_not_fit),
    (HeadGrown, growth_that_does_not_fit),
    (RoundOpened, opening_that_does_not_fit),
    (RoundClosed, closing_that_does_not_fit),
    (RunOpened | HeadGrown | RoundOpened | RoundClosed | StageClosed | StageAdded,
     another_decision),
    (ModelUpdate | PrototypeGradient | ExemplarImage, tensors_that_do_not_fit),
    (ModelUpdate, update_that_does_not_fit),
    (ModelUpdate, update_to_come),
    (PrototypeGradient, gradient_that_does_not_fit),
    (PrototypeGradient, gradient_of_another_class),
    (PrototypeGradient, gradient_to_come),
    (TwinState, state_to_come),
    (TwinState, state_that_does_not_fit),
    (ImageBatch, batch_that_does_not_fit),
    (ImageBatch, batch_ahead),
    (GlobalModel, model_of_that_name),
    (GlobalModel, tensors_that_do_not_fit),
)  # fmt: skip
