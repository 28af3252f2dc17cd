"""A small federation, and ways to run it: what the flows in this folder have in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.aggregator import Opening
from experiments.recipes import recipe
from experiments.system import Embedded, embedded, opening_of
from infra.points import Hook, no_hook
from infra.promises import Answer, Deciding, Say, Workers
from infra.serve import Session, Surroundings
from infra.store.base import ModelStore
from infra.store.sqlite import SqliteStore
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.transport.unkind import Unkind
from infra.workers import Function, Inline
from producers.entity import image_batch
from producers.images import Dataset, Part, digest
from schemas.codec import pack, piece, records, unpack
from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import DeadLetter, Decision, Look, Message, StageAdded, Transforms
from schemas.topics import Names
from tests.flows.learner import FAKES

RUN = "story"
NAMES = Names(RUN)
LIMIT = 2**26
NORTH, EAST, SOUTH, WEST = (f"local/entity-{number:03d}" for number in range(4))
Order = Callable[[Sequence[Session]], Sequence[Session]]


def small(**overrides: object) -> Configuration:
    """The recipe `tiny`, smaller: three stages of three classes, a model of 12 kB."""
    values: dict[str, object] = {
        "width": 1,
        "image_size": 4,
        "stages": 3,
        "classes_per_stage": 3,
        "iid": 0.67,
        "clients": 3,
        "new_clients": 1,
        "memory": 12,
        "encoder_classes": 12,
        "recon_batch": 2,
        "proto_per_class": 2,
    }
    return recipe("tiny", overrides=values | overrides)


def dots(classes: int = 10, each: int = 12, side: int = 4) -> Dataset:
    """Images of noise; no two are alike, so that one in the wrong place would show."""
    chance = np.random.Generator(np.random.PCG64(classes * each * side))
    images = chance.integers(0, 256, (classes * each, 1, side, side), np.uint8)
    train = Part(images, np.tile(np.arange(classes), each))
    uids = tuple(map(str, range(classes)))
    test = train.within_class(0, 2)
    return Dataset(
        name="dots",
        train=train,
        validation=train.within_class(0, 0),
        test=test,
        class_uids=uids,
        class_names=uids,
        transforms=Transforms(mean=(0.5,), std=(0.5,)),
        encoder_classes=classes,
        licence="none",
        citation="none",
        version="1",
        sha256=digest({"train": train, "test": test}, uids),
        public=True,
    )


DOTS = dots()


@dataclass(frozen=True)
class Outcome:
    """What a run came to, as far as it must not depend on how it was run."""

    model: str
    """SHA-256 of the last model."""
    rounds: tuple[str, ...]
    """Hash of each decision, in order."""
    teachers: tuple[str, ...]
    verdicts: Mapping[str, tuple[str, ...]]
    """Entity → hash of each of its verdicts."""


@dataclass
class Told:
    """How a run is to be run. What is here changes no outcome."""

    copies: int = 1
    order: Order = list
    functions: Mapping[str, Function] = field(default_factory=lambda: FAKES)
    workers: Workers | None = None
    """None carries `functions` out in this process."""
    hook: Hook = no_hook
    unkind: int | None = None
    """A seed with which a file is read and written unkindly."""


def put_together(
    configuration: Configuration,
    transport: Transport,
    told: Told | None = None,
    *,
    dataset: Dataset = DOTS,
    opening: Opening | None = None,
    store: ModelStore | None = None,
) -> Embedded:
    """A federation over a transport, ready to go."""
    told = told or Told()
    return embedded(
        opening or opening_of(configuration, dataset),
        dataset,
        transport,
        store or SqliteStore(),
        told.workers or Inline(told.functions),
        run=RUN,
        around=lambda same: _with(same, told.hook),
        copies=told.copies,
        order=told.order,
    )


def attend(run: Embedded) -> list[tuple[Decision, bool]]:
    """What the aggregator and the proxy of a run will decide; and whether each could be seen to be
    next before it was said, as who stands by has to see it."""
    seen: list[tuple[Decision, bool]] = []

    def watched(role: Deciding, said: Callable[..., Iterator[Answer]]) -> Callable[..., object]:
        def saying(*words: object) -> Iterator[Answer]:
            could = role.can_decide
            for answer in said(*words):
                if isinstance(answer, Say) and isinstance(answer.message, Decision):
                    seen.append((answer.message, could))
                yield answer

        return saying

    for session in run.system.sessions:
        role: Any = session.role
        for name in ("answers", "done") if isinstance(session.role, Deciding) else ():
            setattr(role, name, watched(role, getattr(role, name)))
    return seen


def _with(around: Surroundings, hook: Hook) -> Surroundings:
    return replace(around, hook=hook)


def outcome(run: Embedded) -> Outcome:
    """What a run has come to so far."""
    line = run.observer.line
    assert line.model is not None
    return Outcome(
        model=line.model.sha256,
        rounds=tuple(pack(line.decisions[number]).hash for number in range(line.number + 1)),
        teachers=tuple(pack(chosen).hash for chosen in run.observer.teachers.chosen),
        verdicts={
            entity: tuple(pack(verdict).hash for verdict in of.verdicts.values())
            for entity, of in sorted(run.observer.verdicts.of.items())
            if of.verdicts
        },
    )


def finished(configuration: Configuration, told: Told | None = None) -> Outcome:
    """See a run through, in memory and undisturbed but for what is told."""
    run = put_together(configuration, Log(), told)
    run.system.run()
    return outcome(run)


def in_file(
    configuration: Configuration,
    path: Path,
    told: Told | None = None,
    *,
    dataset: Dataset = DOTS,
) -> Embedded:
    """See a run through, or go on with it, in a file."""
    told = told or Told()
    log, store = Log(path, told.hook), SqliteStore(path)
    read = log if told.unkind is None else Unkind(log, random.Random(told.unkind))
    try:
        run = put_together(configuration, read, told, dataset=dataset, store=store)
        run.system.run()
        return run
    finally:
        log.close()
        store.close()


class Whim:
    """Steps roles in any order, and lets one sleep while there is something it has not read."""

    def __init__(self, chance: random.Random, naps: float, longest: int) -> None:
        self._chance = chance
        self._naps = naps
        self._longest = longest
        self._asleep: dict[int, int] = {}

    def __call__(self, sessions: Sequence[Session]) -> Sequence[Session]:
        awake = []
        for session in self._chance.sample(list(sessions), len(sessions)):
            key = id(session)
            left = self._asleep.get(key, 0)
            if not left and self._chance.random() < self._naps:
                left = self._chance.randint(1, self._longest)
            self._asleep[key] = max(0, left - 1)
            if not left or not session.behind:
                awake.append(session)
        return awake


def disturbed(
    configuration: Configuration,
    seed: int,
    *,
    copies: int = 1,
    trouble: float | None = None,
    over: Callable[[Transport, random.Random], Transport] = lambda log, chance: log,
    dataset: Dataset = DOTS,
    functions: Mapping[str, Function] = FAKES,
) -> Embedded:
    """See a run through under a random schedule: any order, any merging, repeats and delays."""
    chance = random.Random(seed)
    much = chance.choice((0.1, 0.3, 0.6)) if trouble is None else trouble
    log = Unkind(over(Log(), chance), chance, much)
    whim = Whim(chance, chance.choice((0.0, 0.02, 0.1)), chance.choice((5, 80, 300)))
    told = Told(copies=copies, order=whim, functions=functions)
    run = put_together(configuration, log, told, dataset=dataset)
    run.system.run()
    return run


def letters(run: Embedded) -> list[DeadLetter]:
    """What was set aside."""
    return list(run.observer.dead_letters.values())


# --- the log, read and written beside a run -------------------------------------------------------


def messages(log: Transport, topic: str) -> list[tuple[Message, str]]:
    """All messages that a topic holds, with their hashes; each is one piece here."""
    found, place = [], log.first(topic)
    while stored := log.read(topic, place, LIMIT):
        parts = [piece(each.record.value, LIMIT) for each in stored]
        found += [(unpack(part.content, LIMIT), part.message) for part in parts]
        place = stored[-1].offset + 1
    return found


def decided(log: Transport, names: Names = NAMES) -> RoundsLine:
    """The line `rounds` as far as it stands in the log."""
    line = RoundsLine()
    for message, hash in messages(log, names.federation("rounds")):
        if isinstance(message, Decision):
            line.hear(message, hash)
    return line


def stream(
    log: Transport, entity: str, classes: Mapping[str, int], source: str = "visitor"
) -> Look:
    """Images of classes that nobody scheduled come to an entity: so many of each."""
    chance = np.random.Generator(np.random.PCG64(len(source)))
    uids = tuple(uid for uid, count in classes.items() for _ in range(count))
    images = chance.integers(0, 256, (len(uids), *DOTS.train.images.shape[1:]), np.uint8)
    batch = image_batch(decided(log).run, source, 0, images, uids)
    log.append(NAMES.of_entity("samples", entity), records(batch, source="visitor")[1])
    return Look(entity=entity, source=source, count=len(uids))


def add_stage(log: Transport, *looks: Look) -> None:
    """The decision that names such images; nobody else writes meanwhile."""
    line = decided(log)
    added = StageAdded(run=line.run, number=line.number + 1, looks=looks)
    log.append(NAMES.federation("rounds"), records(added, source="visitor")[1])
