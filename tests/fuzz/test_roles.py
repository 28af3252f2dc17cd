"""Rewritten messages in the middle of a run: no role falls over, and nobody is silenced.

Between the steps of a small run with a learner that learns nothing, copies of what lies in the log
are written behind it with some of their parts changed and their hashes made right. The run must end
as if nothing had happened; what cannot be read must lie in the dead letters, with its reason.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from infra.transport.base import Transport, Trimmed
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record, piece, unpack
from schemas.errors import Refused
from schemas.messages import (
    ExemplarImage,
    ImageBatch,
    Message,
    ModelUpdate,
    PrototypeGradient,
    StrategyKept,
    StreamMarked,
)
from schemas.topics import TOPICS, table_row
from tests.flows.federation import Outcome, Told, finished, letters, outcome, put_together, small
from tests.fuzz.mutators import Draft, damaged, rewritten

ROOM = 32 * 1024 * 1024
OTHER_RUN = "9" * 64
ENDS = {"newer-schema", "unknown-kind"}
"""For these reasons a decision of a later program ends this one, or stops a line, rightly so."""
REWRITTEN = {
    "samples", "twin-state", "classes", "rounds", "updates", "models", "prototypes", "teachers",
}  # fmt: skip
HEARD_AT_ONCE = {"samples", "updates", "prototypes"}
"""Topics in which a message of another run waits for nothing before it is refused."""


def says_more(message: Message, than: Message) -> bool:
    """Whether a copy that can be read is something new that its author may say.

    No reader can tell such a one from an honest message: it must not be written by this test.
    """
    match message, than:
        case (ImageBatch(), ImageBatch()):
            return message.identity != than.identity
        case (StreamMarked(stage=stage), StreamMarked(stage=true)):
            return stage != true
        case (PrototypeGradient() | ExemplarImage() | StrategyKept(), _):
            return message.identity != than.identity or message.subject != than.subject
        case (ModelUpdate(entity=entity), ModelUpdate(entity=true)):
            return entity != true
    return message.subject != than.subject


@dataclass
class Noise:
    """Writes rewritten copies between the steps of a run, so many in each, and remembers them."""

    log: Transport
    chance: random.Random
    next_number: Callable[[], int]
    """The number in `rounds` that is to be decided next."""
    each: int
    left: int
    read: Counter[str] = field(default_factory=Counter)
    """Topics → copies that can be read."""
    unread: dict[tuple[str, int], str] = field(default_factory=dict)
    """Where a copy lies that cannot be read, and why not."""
    foreign: set[tuple[str, int]] = field(default_factory=set)
    """Where a copy lies that is of another run."""
    _written: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self) -> None:
        topics = [topic for topic in self.log.topics() if table_row(topic).name in REWRITTEN]
        goal = max(self.left - self.each, 0)
        while topics and self.left > goal:  # not every attempt comes to something
            self._write_to(self.chance.choice(topics))

    def _write_to(self, topic: str) -> None:
        record = self._honest(topic)
        if record is None:
            return
        payload = bytes(piece(record.value, ROOM).content)
        true = unpack(payload, ROOM)
        copy, reason = self._copy(topic, payload, true)
        if reason in ENDS and table_row(topic).name in ("classes", "rounds", "teachers"):
            return
        (value, *more) = copy.packed().pieces
        if more or value == record.value:
            return
        (offset,) = self.log.append(topic, [Record(record.key, value, record.headers)])
        place = (topic, offset)
        self._written.add(place)
        self.left -= 1
        self._remember(place, reason)

    def _honest(self, topic: str) -> Record | None:
        """Some record that this one did not write."""
        try:
            lie = self.log.read(topic, self.log.first(topic), 2**40)
        except Trimmed:
            return None
        honest = [each for each in lie if (topic, each.offset) not in self._written]
        return self.chance.choice(honest).record if honest else None

    def _copy(self, topic: str, payload: bytes, true: Message) -> tuple[Draft, str]:
        """A rewritten copy, and why it will not be read; most of those are drawn anew."""
        for _ in range(self.chance.randint(1, 12)):
            copy = rewritten(payload, self.chance)
            body = copy.header.get("body")
            if table_row(topic).name == "rounds" and isinstance(body, dict):
                body["number"] = self.chance.choice((body.get("number"), self.next_number()))
            if not (reason := self._reason(topic, copy, true)):
                break
        return copy, reason

    def _reason(self, topic: str, copy: Draft, true: Message) -> str:
        """Why a copy will not be read; what would be something new becomes one of another run."""
        try:
            message = unpack(copy.payload(), ROOM)
        except Refused as refused:
            return refused.reason
        if message.kind() not in table_row(topic).carries:
            return "unknown-kind"
        if message.run == true.run and says_more(message, true):
            copy.header["body"]["run"] = OTHER_RUN
            return "of another run"
        return ""

    def _remember(self, place: tuple[str, int], reason: str) -> None:
        if not reason:
            self.read[table_row(place[0]).name] += 1
        elif reason == "of another run":
            self.foreign.add(place)
        elif table_row(place[0]).name != "models":  # models are only looked up, by name
            self.unread[place] = reason


class Damage(Noise):
    """Writes records whose bytes met with an accident: none of them is one any more."""

    def _write_to(self, topic: str) -> None:
        record, other = self._honest(topic), self._honest(topic)
        if record is None or other is None:
            return
        value = damaged(record.value, [other.value], self.chance)
        try:
            piece(value, ROOM)
        except Refused as refused:
            (offset,) = self.log.append(topic, [Record(record.key, value, record.headers)])
            place = (topic, offset)
            self._written.add(place)
            self.left -= 1
            self._remember(place, refused.reason)


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    """The run without any of this."""
    return finished(small())


@pytest.mark.parametrize(
    ("seed", "copies", "count"),
    [
        (1, 1, 400),
        pytest.param(2, 1, 1600, marks=pytest.mark.slow),
        pytest.param(3, 1, 1600, marks=pytest.mark.slow),
        pytest.param(4, 2, 1600, marks=pytest.mark.slow),
    ],
)
def test_a_run_among_rewritten_messages_ends_as_if_there_were_none(
    seed: int, copies: int, count: int, undisturbed: Outcome
) -> None:
    """More than 5,000 in all; the same decisions, verdicts, teachers and model come of each run."""
    log = Log()
    run = put_together(small(), log, Told(copies=copies))
    line = run.aggregator.line
    noise = Noise(log, random.Random(seed), lambda: line.number + 1, count // 50, count)
    run.system.run(watch=noise)
    told = {(letter.topic, letter.offset): letter.reason for letter in letters(run)}

    assert outcome(run) == undisturbed
    assert noise.left == 0
    assert {place: told.get(place) for place in noise.unread} == noise.unread
    for topic, offset in noise.foreign:
        if table_row(topic).name in HEARD_AT_ONCE:
            assert told[topic, offset] in ("out-of-line", "unknown-entity")
    assert len(noise.unread) > count // 4
    assert noise.read.total() > count // 4
    assert {"samples", "classes", "rounds", "updates", "prototypes", "models"} <= noise.read.keys()


@pytest.mark.parametrize(
    ("seed", "copies", "count"),
    [
        (5, 1, 400),
        pytest.param(6, 1, 2000, marks=pytest.mark.slow),
        pytest.param(7, 2, 2000, marks=pytest.mark.slow),
    ],
)
def test_a_run_among_damaged_records_ends_as_if_there_were_none(
    seed: int, copies: int, count: int, undisturbed: Outcome
) -> None:
    """Every role reads them among the true ones; each is told of with its reason, none counts."""
    log = Log()
    run = put_together(small(), log, Told(copies=copies))
    line = run.aggregator.line
    noise = Damage(log, random.Random(seed), lambda: line.number + 1, count // 50, count)
    run.system.run(watch=noise)
    told = {(letter.topic, letter.offset): letter.reason for letter in letters(run)}

    assert outcome(run) == undisturbed
    assert noise.left == 0
    assert told == noise.unread
    assert set(told.values()) == {"unreadable", "bad-hash", "too-large"}
    assert {table_row(topic).name for topic, _ in told} == REWRITTEN - {"models"}


def test_every_topic_that_a_role_reads_is_written_to_here() -> None:
    """What is left out is what no role acts on: scores, and letters about all this."""
    assert {topic.name for topic in TOPICS} - REWRITTEN == {"metrics", "dead-letters"}
