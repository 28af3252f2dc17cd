"""A foreign client writes into every topic of a run: nobody crashes, nothing of it is accepted."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard

from experiments.system import SITE
from infra.kafka import KafkaSettings
from infra.shelf import Shelf
from infra.transport.base import Trimmed
from infra.transport.kafka import Kafka
from schemas.codec import HASH_BYTES, HEAD, LENGTH, MAGIC, PIECE_BYTES, Record, cut, records
from schemas.limits import LEAST_BYTES
from schemas.messages import ModelUpdate, RoundOpened, Tensors
from schemas.topics import table_row
from tests.distributed.conftest import Found
from tests.distributed.federation import PATIENCE, Federation, ended_as_undisturbed, of_kind
from tests.flows.junk import NOBODY, REPORTED, Littered, as_integers, longer, without

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
THREE_GB = 3 * 1024**3
KIB = 1024
YEAR = 365 * 24 * 3600
RANGE = "out-of-range"
SEVERAL = PIECE_BYTES * 5 // 2 // 8
"""Numbers of eight bytes that fill two pieces and a half."""


def foreign() -> list[Record]:
    """What is no message at all: nothing, noise, text, a length of 3 GB, a hash that is none."""
    chance = random.Random(5)
    claims = HEAD.pack(MAGIC, 0, THREE_GB // (960 * KIB), b"\x07" * HASH_BYTES)
    values = [b"", chance.randbytes(3000), b'{"accuracy": 100}', claims, claims + bytes(HASH_BYTES)]
    values.append(HEAD.pack(MAGIC, 0, 1, b"\x00" * HASH_BYTES) + bytes(HASH_BYTES) + b"content")
    values.append(struct.pack("<Q", 2**63))
    return [Record(f"junk/{number}", value) for number, value in enumerate(values)]


class Stranger:
    """Reads what is written, and strews what looks like it."""

    def __init__(self, log: Kafka, run: Federation, seed: int) -> None:
        self._log = log
        self._prefix = f"{run.names.prefix}.{run.names.run}."
        self.junk = Littered(log, random.Random(seed))
        self.noise: set[tuple[str, int]] = set()
        """Where what is no message at all lies, and somebody has to say so."""
        self._chance = random.Random(seed + 1)
        self._places: dict[str, int] = {}

    def begin(self, run: Federation) -> None:
        """Write into every topic of the run, before anybody else does."""
        with closing(Kafka(KafkaSettings(run.kafka))) as log:
            for topic in self._topics(run):
                for record in foreign():
                    place = (topic, log.append(topic, [record])[0])
                    self.junk.junk.add(place)
                    if table_row(topic).name in REPORTED:
                        self.noise.add(place)

    def look(self, run: Federation) -> None:
        """Read on in every topic, and answer some of the records with junk."""
        for topic in self._topics(run):
            for record in self._new(topic):
                if self._chance.random() < 0.2:
                    self.junk._strew(topic, record)

    def _topics(self, run: Federation) -> list[str]:
        return [name for name in run.topics() if table_row(name).name in REPORTED | {"models"}]

    def _new(self, topic: str) -> list[Record]:
        try:
            found = self._log.read(topic, self._places.get(topic, 0), 2**20)
        except Trimmed as trimmed:
            self._places[topic] = trimmed.first
            return []
        if found:
            self._places[topic] = found[-1].offset + 1
        return [each.record for each in found if (topic, each.offset) not in self.junk.junk]


def test_a_stranger_writes_into_every_topic(found: Found) -> None:
    """Noise before the run begins, and while it goes on copies of what was said with another
    content, under honest ids and with right hashes: the undisturbed model, a letter about each
    piece of noise and about junk alone, and every program still the one that was started."""
    run = found()
    with closing(Kafka(KafkaSettings(run.kafka))) as log:
        stranger = Stranger(log, run, seed=11)
        stranger.begin(run)
        run.start_all()

        def over() -> bool:
            stranger.look(run)
            return all(program.code is not None for program in run.programs.values())

        run.until(over, PATIENCE)
        run.finish()

    assert not any(program.ends for program in run.programs.values())
    ended_as_undisturbed(run)
    letters = run.letters()
    about = {(letter.topic, letter.offset) for letter in letters}
    assert about <= stranger.junk.junk
    assert stranger.noise <= about
    assert len(about) == len(letters)
    reasons = {letter.reason for letter in letters}
    assert {"unreadable", "bad-hash", "too-large"} < reasons  # which others, the moment decides


def test_clocks_that_are_years_off_change_nothing(found: Found) -> None:
    """The twins live in the future and the producers in the past; the broker's clock is its own."""
    run = found()
    run.start_all("twins", "producers")
    run.start("twins", clock=20 * YEAR)
    run.start("producers", clock=-30 * YEAR)
    run.finish()

    ended_as_undisturbed(run)
    assert not any(program.ends for program in run.programs.values())
    assert not run.letters()


class Forger:
    """Says in honest names what is not so: answers to an open round of participants who have not
    answered yet."""

    def __init__(self, log: Kafka, run: Federation) -> None:
        self._log = log
        self._topic = run.names.of_site("updates", SITE)
        line = run.decided()
        self.opened = list(line.decisions.values())[-1]
        assert isinstance(self.opened, RoundOpened)
        base = self.opened.base
        shelf = Shelf(log, run.names.federation("models"), LEAST_BYTES)
        self._true = ModelUpdate(
            run=self.opened.run,
            opened=self.opened.number,
            entity=self.opened.participants[0].entity,
            base=base,
            groups={"model": shelf.groups(base)["model"]},
        )
        self.told: dict[int, str] = {}
        """Where it lies → the reason for which nobody must take it."""

    def changed(self, **values: Any) -> ModelUpdate:
        """An answer in which something is not so."""
        return self._true.model_copy(update=values)

    def tensors(self, change: Callable[[Tensors, str], Tensors]) -> ModelUpdate:
        """An answer whose tensors are changed by a function."""
        groups = {"model": change(self._true.groups["model"], "fc.weight")}
        return self.changed(groups=groups)

    def say(self, message: ModelUpdate, reason: str) -> None:
        """With a right hash, under the right key."""
        self.write(records(message, source="twins")[1], reason)

    def write(self, made: Sequence[Record], reason: str) -> int:
        """Records, one behind the other; gives where the first lies, which is what is told of."""
        place, *_ = self._log.append(self._topic, made)
        if reason:
            self.told[place] = reason
        return place

    def row(self, encoding: str, shape: tuple[int, ...], content: bytes) -> bytes:
        """An answer of one tensor, made by somebody who does not use our code."""
        body = {"kind": "ModelUpdate", "schema": 1, "body": self._true.header()}
        tensors = [["model", "fc.weight", "<f4", list(shape), encoding, len(content)]]
        header = msgpack.packb(body | {"tensors": tensors})
        return LENGTH.pack(len(header)) + header + content


def test_honest_names_and_dishonest_content(found: Found) -> None:
    """The twins die with their first answers on their lips; before they are there again somebody
    answers for them. Each answer has a right hash, and each its letter with the reason."""
    run = found()
    run.start_all(kill={"twins": ("append:before", 9)})
    first = run.programs["twins-1"]
    run.until(lambda: first.code is not None and of_kind(run, RoundOpened) > 0)
    with closing(Kafka(KafkaSettings(run.kafka))) as log:
        forger = Forger(log, run)
        number = forger.opened.number
        forger.say(forger.changed(opened=number - 1), "closed-round")
        forger.say(forger.changed(base=NOBODY), "wrong-base")
        forger.say(forger.changed(entity="local/stranger"), "unknown-entity")
        forger.say(forger.changed(entity="elsewhere/entity-000"), "unknown-entity")
        forger.say(forger.changed(run="f" * 64), "out-of-line")
        forger.say(forger.tensors(longer), "wrong-shape")
        forger.say(forger.tensors(without), "wrong-shape")
        forger.say(forger.tensors(as_integers), "wrong-dtype")
        for value, reason in ((np.nan, "not-finite"), (-np.inf, "not-finite"), (2**31, RANGE)):
            forger.say(forger.tensors(partial(filled, value)), reason)

        bomb = zstandard.compress(bytes(2**28))
        forger.write(cut_up(forger.row("int8", (10, 10), bomb), "bomb"), "bomb")
        forger.write(cut_up(forger.row("raw", (THREE_GB // 4,), b"little"), "large"), "bomb")
        forger.write(cut_up(forger.row("raw", (2,), b"little"), "little"), "unreadable")
        lines_up(forger)
    run.finish()

    ended_as_undisturbed(run)
    letters = {letter.offset: letter for letter in run.letters()}
    assert {offset: letter.reason for offset, letter in letters.items()} == forger.told
    assert {letter.topic for letter in letters.values()} == {run.names.of_site("updates", SITE)}
    assert [name for name, program in run.programs.items() if program.ends] == ["twins-1"]


def lines_up(forger: Forger) -> None:
    """Three answers in three pieces each: one lacks a piece; two lie one between the other, each
    of their pieces twice; and a piece of one says that it is a piece of another."""
    lacking, one, two = (
        cut_up(forger.row("raw", (2 * SEVERAL,), number.to_bytes(8, "little") * SEVERAL), "pieces")
        for number in (1, 2, 3)
    )
    forger.write([lacking[0], lacking[2]], "unreadable")
    for begun in (one[0], two[0], one[1], two[1]):
        forger.write([begun], "")
    again = [forger.write([begun], "") for begun in (one[0], two[0], one[1], two[1])]
    head = HEAD.size + 3 * HASH_BYTES
    forger.write([Record("pieces", one[2].value[:head] + two[2].value[head:])], "bad-hash")
    for ended in (one[2], two[2]):
        forger.write([ended], "")
    forger.told |= dict.fromkeys(again[:2], "wrong-shape")  # of what comes twice the later counts


def cut_up(payload: bytes, key: str) -> list[Record]:
    """Any payload as records."""
    return [Record(key, value) for value in cut(payload).pieces]


def filled(value: float, tensors: Tensors, name: str) -> Tensors:
    """One number of a tensor is another."""
    tensor = tensors[name].copy()
    tensor.reshape(-1)[0] = value
    return tensors | {name: tensor}
