"""The one loop: what it reads for a role, what it does for it, and what it never does.

The roles here are made up; each hears and answers what its story needs.
"""

from __future__ import annotations

import ast
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import infra
from infra import serve
from infra.points import POINTS, PROGRAMS, Hook, no_hook
from infra.promises import (
    Answer,
    Arrived,
    Do,
    Forget,
    Keep,
    Library,
    NotYet,
    Place,
    Result,
    Retell,
    Role,
    Say,
    Score,
    Seek,
    SetAside,
    Task,
    Trim,
)
from infra.serve import Letters, Surroundings, System
from infra.shelf import Shelf
from infra.store.base import About
from infra.store.sqlite import SqliteStore
from infra.telemetry import Stopwatch
from infra.transport import embedded
from infra.transport.base import Stored, Transport
from infra.transport.embedded import Embedded
from infra.transport.unkind import Unkind
from infra.workers import Inline
from schemas import codec
from schemas.codec import LENGTH, Record, cut, records, unpack
from schemas.errors import ConfigurationError, Refused, Stalled
from schemas.messages import (
    DeadLetter,
    EntityJoined,
    GlobalModel,
    Measured,
    Message,
    ModelName,
    ModelUpdate,
    NotUnderstood,
    StreamMarked,
    Tensors,
)
from schemas.tensors import model_sha256
from schemas.topics import Names, letters_of
from tests.infra.tasks import FUNCTIONS

NAMES = Names("run")
ROUNDS, TEACHERS = NAMES.federation("rounds"), NAMES.federation("teachers")
METRICS, MODELS = NAMES.federation("metrics"), NAMES.federation("models")
LETTERS = NAMES.federation("dead-letters")
CLASSES, UPDATES = NAMES.of_site("classes", "local"), NAMES.of_site("updates", "local")
SITE_LETTERS = NAMES.of_site("dead-letters", "local")
SAMPLES = NAMES.of_entity("samples", "local/north")
RUN = "a" * 64
BASE = ModelName(version=1, sha256="b" * 64)
MOST = 1 << 20
PIXELS = b"these bytes are a person's"


@dataclass
class Made:
    """A role that a story makes up: it hears, and answers what lies in `todo`."""

    name: str = "made"
    lines: Sequence[str] = ()
    topics: Sequence[str] = ()
    owns: Sequence[str] = ()
    until: Callable[[Made], bool] = lambda role: True
    """Whether it is over."""
    judge: Callable[[Arrived], None] = lambda arrived: None
    """Refuses a message, or says that it must wait."""
    todo: list[Answer] = field(default_factory=list)
    heard: list[Arrived] = field(default_factory=list)
    results: dict[tuple[str | int, ...], Result] = field(default_factory=dict)
    asked: int = 0
    """How often it was asked for answers."""
    missing: str = ""
    asked_about: list[int] = field(default_factory=list)
    """Numbers of decisions that something waits for, as often as that was asked."""

    def __post_init__(self) -> None:
        self.topics = [*self.lines, *(each for each in self.topics if each not in self.lines)]

    @property
    def over(self) -> bool:
        return self.until(self)

    def hear(self, arrived: Arrived) -> None:
        self.judge(arrived)
        self.heard.append(arrived)

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        self.results[id] = result
        yield Say(METRICS, measured(f"done/{id[0]}"))

    def answers(self) -> Iterator[Answer]:
        self.asked += 1
        todo, self.todo = self.todo, []
        yield from todo

    def waits(self) -> list[str]:
        return [self.missing] if self.missing else []

    @property
    def identities(self) -> list[str]:
        """What it heard, in order."""
        return [each.message.identity for each in self.heard]


def never(role: Made) -> bool:
    """A role that is not over, whatever comes."""
    return False


class Watched:
    """A log that notes every step of a writer."""

    def __init__(self, inner: Transport) -> None:
        self.steps: list[tuple[object, ...]] = []
        self._inner = inner
        self.read, self.first, self.end = inner.read, inner.first, inner.end
        self.topics, self.wait, self.close = inner.topics, inner.wait, inner.close

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        records = list(records)
        self.steps.append(("append", topic, len(records)))
        return self._inner.append(topic, records)

    def forget(self, topic: str, *keys: str) -> None:
        self.steps.append(("forget", topic, *keys))
        self._inner.forget(topic, *keys)

    def trim(self, topic: str, before: int) -> None:
        self.steps.append(("trim", topic, before))
        self._inner.trim(topic, before)


def system(log: Transport, *roles: Role, **more: Any) -> System:
    """Roles over a log, whose tasks are carried out in this process."""
    shelf = Shelf(log, MODELS, MOST)
    return System(roles, Surroundings(log, shelf, MOST, **more), Inline(FUNCTIONS))


def write(log: Transport, topic: str, *messages: Message, key: str | None = None) -> None:
    """Somebody writes messages to a topic."""
    for message in messages:
        log.append(topic, records(message, source="somebody", key=key)[1])


def measured(name: str) -> Measured:
    """A small message for whoever looks."""
    return Measured(run="", name=name, values={})


def joined(number: int, entity: str = "local/north") -> EntityJoined:
    """A decision in an entity's line."""
    return EntityJoined(run=RUN, number=number, entity=entity)


def update(opened: int, entity: str = "local/north", numbers: int = 1000) -> ModelUpdate:
    """An answer to a round, with 4 bytes a number."""
    weights = {"weight": np.random.default_rng(opened).random(numbers, np.float32)}
    return ModelUpdate(run=RUN, opened=opened, entity=entity, base=BASE, groups={"model": weights})


def letters(log: Transport, topic: str = LETTERS) -> list[DeadLetter]:
    """The dead letters of the federation, or of a site."""
    found = [
        unpack(codec.piece(each.record.value, MOST).content, MOST)
        for each in log.read(topic, log.first(topic), MOST)
    ]
    return [each for each in found if isinstance(each, DeadLetter)]


def keys(log: Transport, topic: str) -> list[str]:
    """The keys of a topic's records."""
    return [each.record.key for each in log.read(topic, log.first(topic), MOST)]


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 1000 bytes, so that a small update has five."""
    monkeypatch.setattr(codec, "PIECE_BYTES", 1000)


@pytest.mark.usefixtures("small_pieces")
def test_messages_in_pieces_by_two_senders_at_once_are_both_heard() -> None:
    """Their pieces lie one between the other; each message comes when its last piece does."""
    log = Embedded()
    north, south = (records(update(i), source="twins")[1] for i in (1, 2))
    for pair in zip(north, south, strict=True):
        log.append(UPDATES, pair)
    role = Made(topics=[UPDATES])

    system(log, role).run()

    assert role.identities == [update(i).identity for i in (1, 2)]
    assert [each.place.offsets for each in role.heard] == [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]
    message = role.heard[1].message
    assert isinstance(message, ModelUpdate)
    assert np.array_equal(message.groups["model"]["weight"], update(2).groups["model"]["weight"])


@pytest.mark.usefixtures("small_pieces")
def test_pieces_of_a_sender_that_died_are_completed_by_its_successors() -> None:
    """The first died after three pieces. What it wrote was trimmed before the rest was read."""
    log = Embedded()
    made = records(update(1), source="twins")[1]
    log.append(UPDATES, made[:3])
    role = Made(topics=[UPDATES], until=lambda role: bool(role.heard))
    reader = system(log, role)
    while reader.step():
        pass
    assert not role.heard

    log.append(UPDATES, made)
    log.trim(UPDATES, 3)
    reader.run()

    assert [each.place.offsets for each in role.heard] == [(3, 4, 5, 6, 7)]


@pytest.mark.usefixtures("small_pieces")
def test_junk_pieces_that_nobody_completes_cost_next_to_nothing() -> None:
    """A thousand messages of five pieces begin and never end; the true one is heard all the same.

    Their reader keeps where they lie and none of their bytes; and not even that of what it trims.
    """
    log = Embedded()
    for i in range(1000):
        log.append(UPDATES, [Record("junk/0", cut(bytes([i % 256, i // 256]) * 2500).pieces[0])])
    write(log, UPDATES, update(1))
    role = Made(topics=[UPDATES])
    reader = system(log, role)

    reader.run()

    assert role.identities == [update(1).identity]
    pieces = reader.sessions[0]._pieces[UPDATES]
    assert len(list(pieces.unfinished())) == 1000
    assert all(type(each) is int for _, at in pieces._open.values() for each in at.values())
    role.todo.append(Trim(UPDATES, 1000))
    reader.step()
    assert not list(pieces.unfinished())


@pytest.mark.usefixtures("small_pieces")
def test_a_message_that_never_comes_whole_has_its_letter() -> None:
    """When it is let go, or at the end; not the rest of a copy of one that came whole."""
    log = Embedded()
    late, early, whole = (records(update(i), source="twins")[1] for i in (1, 2, 3))
    log.append(UPDATES, [*early[:3], *whole, whole[0], late[4], late[1]])
    role = Made(topics=[UPDATES], owns=[UPDATES], until=lambda role: not role.todo)
    role.todo.append(Trim(UPDATES, 3))
    reader = system(log, role)
    reader.run()

    told = [(each.offset, each.hash, each.reason, each.detail) for each in letters(log)]
    assert told == [
        (0, codec.pack(update(2)).hash, "unreadable", "3 of 5 pieces came"),
        (9, codec.pack(update(1)).hash, "unreadable", "2 of 5 pieces came"),
    ]


@pytest.mark.usefixtures("small_pieces")
def test_who_did_not_read_the_beginning_tells_nothing_of_what_lacks_a_piece() -> None:
    """It may have stood there; nor where pieces are forgotten one by one."""
    log = Embedded()
    made = records(update(1), source="twins")[1]
    log.append(UPDATES, made)
    log.trim(UPDATES, 2)
    write(log, MODELS, GlobalModel(run=RUN, version=1, groups=update(1).groups))
    log.forget(MODELS, keys(log, MODELS)[0])
    role = Made(topics=[UPDATES, MODELS], owns=[UPDATES, MODELS])
    system(log, role).run()

    assert not role.heard
    assert not letters(log)


@pytest.mark.usefixtures("small_pieces")
def test_what_comes_twice_is_heard_twice_and_each_place_is_true() -> None:
    """That a repeat changes nothing is the role's affair; the loop says where each lies."""
    log = Embedded()
    write(log, CLASSES, joined(0), joined(0))
    write(log, UPDATES, update(1), update(1))
    role = Made(topics=[CLASSES, UPDATES])

    system(log, role).run()

    assert [each.place.offsets for each in role.heard] == [(0,), (1,), tuple(range(5)),
                                                           tuple(range(5, 10))]  # fmt: skip


def test_a_role_is_told_what_a_message_weighs_and_what_its_hash_is() -> None:
    """A dead letter names both, and a decision names content by its hash."""
    log = Embedded()
    write(log, UPDATES, update(1))
    role = Made(topics=[UPDATES])

    system(log, role).run()

    (arrived,) = role.heard
    assert arrived.hash == codec.pack(update(1)).hash
    assert 4000 < arrived.size < 4500


# --- what must wait -------------------------------------------------------------------------------


def test_a_message_that_must_wait_is_asked_again_when_it_need_not() -> None:
    """An update comes before the decision that it answers: it is heard behind that, once."""
    log = Embedded()
    write(log, UPDATES, update(0))
    role = Made(topics=[UPDATES, CLASSES], until=lambda role: len(role.heard) == 2)

    def judge(arrived: Arrived) -> None:
        if isinstance(arrived.message, ModelUpdate) and not role.heard:
            raise NotYet(lambda: bool(role.heard), "decision 0")

    role.judge = judge
    reader = system(log, role)
    while reader.step():
        pass
    assert role.heard == []

    write(log, CLASSES, joined(0))
    reader.run()

    assert role.identities == [joined(0).identity, update(0).identity]


def test_a_message_may_have_to_wait_for_one_thing_after_another() -> None:
    """Each time it is asked, it names what it waits for next; then it is heard."""
    log = Embedded()
    write(log, UPDATES, update(0))
    write(log, CLASSES, joined(0), joined(1))
    role = Made(topics=[UPDATES, CLASSES], until=lambda role: len(role.heard) == 3)
    waited: list[int] = []

    def judge(arrived: Arrived) -> None:
        there = len(role.heard)
        if isinstance(arrived.message, ModelUpdate) and there < 2:
            waited.append(there)
            raise NotYet(lambda: len(role.heard) > there, f"decision {there}")

    role.judge = judge

    system(log, role).run()

    assert role.identities[-1] == update(0).identity
    assert waited[0] == 0


@pytest.mark.parametrize("how", ["trim", "forget", "trim by the role"])
def test_what_was_let_go_while_it_had_to_wait_is_not_waited_for(how: str) -> None:
    """An update waits for a decision; when that comes, the update is gone and nobody misses it."""
    log = Embedded()
    write(log, UPDATES, update(0))
    role = Made(topics=[UPDATES, CLASSES], until=lambda role: bool(role.heard))

    def judge(arrived: Arrived) -> None:
        if isinstance(arrived.message, ModelUpdate) and not role.heard:
            raise NotYet(lambda: bool(role.heard), "decision 0")

    role.judge = judge
    reader = system(log, role)
    while reader.step():
        pass

    match how:
        case "trim":
            log.trim(UPDATES, 1)
        case "forget":
            log.forget(UPDATES, f"{update(0).identity}/0")
        case _:
            role.todo.append(Trim(UPDATES, 1))
            reader.step()
    write(log, CLASSES, joined(0))
    reader.run()

    assert role.identities == [joined(0).identity]


def waiting(*, over: bool, lines: Sequence[str] = ()) -> Made:
    """A role for which every update waits for its decision, and none comes."""
    role = Made(lines=lines, topics=[UPDATES], owns=[UPDATES], until=lambda role: over)

    def has_come(number: int) -> bool:
        role.asked_about.append(number)
        return False

    def judge(arrived: Arrived) -> None:
        if isinstance(arrived.message, ModelUpdate):
            number = arrived.message.opened
            raise NotYet(lambda: has_come(number), f"decision {number}")

    role.judge = judge
    return role


def test_however_many_wait_for_the_same_it_is_asked_about_once() -> None:
    """Five hundred updates wait for three decisions: a look asks three questions."""
    log = Embedded()
    write(log, UPDATES, *(update(i % 3, numbers=1) for i in range(500)))
    role = waiting(over=False)
    reader = system(log, role)
    while reader.step():
        pass
    role.asked_about.clear()

    reader.step()

    assert sorted(role.asked_about) == [0, 1, 2]


def test_what_waits_in_vain_is_told_at_the_end_and_heard_all_the_same_when_it_comes() -> None:
    """The letter says for what; what it is about is judged only by what it named."""
    log = Embedded()
    write(log, UPDATES, update(7), update(8))
    system(log, waiting(over=True)).run()

    assert [(each.reason, each.offset) for each in letters(log)] == [
        ("out-of-line", 0), ("out-of-line", 1),
    ]  # fmt: skip
    assert letters(log)[0].detail == f"{update(7).identity} waited in vain for decision 7"
    later = Made(topics=[UPDATES], owns=[UPDATES])
    system(log, later).run()
    assert len(later.heard) == 2
    assert len(letters(log)) == 2


def test_while_a_role_has_work_what_waits_for_it_is_no_dead_letter() -> None:
    """What it waits for may come."""
    log = Embedded()
    write(log, UPDATES, update(7))
    reader = system(log, waiting(over=False))
    while reader.step():
        pass

    assert not letters(log)


def test_what_waits_is_told_of_before_it_is_let_go() -> None:
    """A trim takes the first of two updates, which both wait."""
    log = Embedded()
    write(log, UPDATES, update(7), update(8))
    role = waiting(over=False)
    reader = system(log, role)
    reader.step()
    role.todo.append(Trim(UPDATES, 1))
    while reader.step():
        pass

    assert (log.first(UPDATES), [each.offset for each in letters(log)]) == (1, [0])


def test_what_waits_for_a_decision_that_stands_there_unread_is_not_let_go() -> None:
    """The line went on after it was read: the update may name just that, and stays for now."""
    log = Embedded()
    write(log, UPDATES, update(7), update(8))
    role = waiting(over=False, lines=[CLASSES])
    reader = system(log, role)
    while reader.step():
        pass
    role.todo += [Say(CLASSES, joined(0)), Trim(UPDATES, 2)]
    reader.step()

    assert (log.first(UPDATES), letters(log)) == (0, [])


# --- what is not valid ----------------------------------------------------------------------------


def refuse(reason: str) -> Callable[[Arrived], None]:
    """A role's judgement."""

    def judge(arrived: Arrived) -> None:
        raise Refused("wrong-base", reason)

    return judge


def test_a_refused_message_becomes_one_dead_letter_without_what_it_held() -> None:
    """Place, identity, hash, size, reason and detail; the bytes themselves stay where they were."""
    log = Embedded()
    secret = update(3)
    secret.groups["model"]["weight"] = np.frombuffer(PIXELS * 4, "|u1")
    write(log, CLASSES, joined(0))
    write(log, UPDATES, update(1), secret)
    role = Made(topics=[UPDATES], owns=[UPDATES], judge=refuse("of version 7"))

    system(log, role).run()

    assert role.heard == []
    first, second = letters(log)
    assert (first.topic, first.offset, second.offset) == (UPDATES, 0, 1)
    assert second == DeadLetter(
        run="",
        topic=UPDATES,
        offset=1,
        about=secret.identity,
        hash=codec.pack(secret).hash,
        size=second.size,
        reason="wrong-base",
        detail="of version 7",
    )
    assert len(PIXELS) * 4 < second.size < 1000
    assert all(PIXELS not in each.record.value for each in log.read(LETTERS, 0, MOST))


def newer(message: Message, kind: str | None = None) -> Record:
    """A message as a later program may write it."""
    header = {"kind": kind or message.kind(), "schema": 2, "body": message.header(), "tensors": []}
    packed = msgpack.packb(header)
    return Record("key/0", cut(LENGTH.pack(len(packed)) + packed).pieces[0])


JUNK = {
    "unreadable": Record("key/0", b"no piece at all, but somebody's bytes"),
    "bad-hash": Record("key/0", cut(b"something").pieces[0][:-1] + b"!"),
    "too-large": Record("key/0", codec.HEAD.pack(codec.MAGIC, 0, 9, bytes(32)) + bytes(400)),
    "newer-schema": newer(joined(0)),
    "unknown-kind": newer(joined(0), "Rumour"),
}


@pytest.mark.parametrize("reason", JUNK)
def test_what_cannot_be_read_is_set_aside_and_the_loop_goes_on(reason: str) -> None:
    """Junk between two honest messages: both are heard, and the junk has its reason in a letter."""
    log = Embedded()
    write(log, CLASSES, joined(0))
    log.append(CLASSES, [JUNK[reason]])
    write(log, CLASSES, joined(1))
    role = Made(lines=[CLASSES], owns=[CLASSES])

    system(log, role).run()

    told = [each.message for each in role.heard if not isinstance(each.message, NotUnderstood)]
    assert told == [joined(0), joined(1)]
    assert [(each.offset, each.reason) for each in letters(log)] == [(1, reason)]
    assert letters(log)[0].size > 0


@pytest.mark.parametrize("reason", ["newer-schema", "unknown-kind"])
def test_a_role_is_told_where_a_later_program_decided_in_an_entitys_line(reason: str) -> None:
    """In the place of what it cannot read: entity, number and both versions."""
    log = Embedded()
    log.append(CLASSES, [JUNK[reason]])
    role = Made(lines=[CLASSES])

    system(log, role).run()

    ((arrived, place),) = [(each.message, each.place) for each in role.heard]
    assert isinstance(arrived, NotUnderstood)
    assert (arrived.entity, arrived.number, place) == ("local/north", 0, Place(CLASSES, (0,)))
    assert "schema 2" in arrived.detail
    assert "this program" in arrived.detail


def test_where_no_decisions_stand_a_later_programs_message_is_only_set_aside() -> None:
    """Nobody's line is in `updates`."""
    log = Embedded()
    log.append(UPDATES, [JUNK["unknown-kind"]])
    role = Made(topics=[UPDATES], owns=[UPDATES])

    system(log, role).run()

    assert role.heard == []
    assert [each.reason for each in letters(log)] == ["unknown-kind"]


def test_a_message_of_another_topic_is_set_aside() -> None:
    """A valid update among the entities' lines is not heard: the table says what they carry."""
    log = Embedded()
    write(log, CLASSES, update(1))
    role = Made(lines=[CLASSES], owns=[CLASSES])

    system(log, role).run()

    assert role.heard == []
    (letter,) = letters(log)
    assert (letter.reason, letter.about) == ("unknown-kind", update(1).identity)
    assert letter.detail == f"ModelUpdate does not belong into {CLASSES}"


@pytest.mark.parametrize("topic", [ROUNDS, TEACHERS])
@pytest.mark.parametrize("kind", ["EntityJoined", "Rumour"])
def test_a_decision_that_we_cannot_read_ends_the_program(topic: str, kind: str) -> None:
    """To pass over it would fork the run: exit code 2, with both schemas and the place."""
    log = Embedded()
    log.append(topic, [newer(joined(0), kind)])

    with pytest.raises(ConfigurationError) as told:
        system(log, Made(lines=[topic], owns=[topic])).run()

    assert told.value.exit_code == 2
    assert f"{topic} at 0: " in str(told.value)
    assert "schema 2; this program " in str(told.value)
    assert ("reads schema 1" in str(told.value)) == (kind == "EntityJoined")
    assert ("schemas up to 1" in str(told.value)) == (kind == "Rumour")
    assert str(told.value).endswith("use the program that wrote it")


def test_what_was_refused_in_a_sites_own_cluster_is_told_of_there() -> None:
    """The stream's letter goes to the site, that about the site's updates to the federation."""
    log = Embedded()
    log.append(SAMPLES, [JUNK["unreadable"]])
    log.append(UPDATES, [JUNK["unreadable"]])
    for _ in range(2):  # whoever begins anew writes no letter again
        role = Made(topics=[SAMPLES, UPDATES], owns=[SAMPLES, UPDATES])
        system(log, role, role).run()

    assert [each.topic for each in letters(log, SITE_LETTERS)] == [SAMPLES]
    assert [each.topic for each in letters(log)] == [UPDATES]


def test_a_site_cannot_silence_what_the_federation_has_to_tell() -> None:
    """In the site's topic lies a letter about an update that the federation's owner refuses."""
    log = Embedded()
    log.append(UPDATES, [JUNK["unreadable"]])
    system(log, Made(topics=[UPDATES], owns=[UPDATES])).run()
    (letter,) = log.read(LETTERS, 0, MOST)
    log.forget(LETTERS, letter.record.key)
    log.append(SITE_LETTERS, [letter.record])

    log.append(SAMPLES, [JUNK["unreadable"]])
    role = Made(topics=[SAMPLES, UPDATES], owns=[SAMPLES, UPDATES])
    system(log, role).run()

    assert [each.topic for each in letters(log)] == [UPDATES]


def test_only_the_owner_of_a_topic_writes_its_letters() -> None:
    """Two roles refuse the same message, and one of them owns the topic: there is one letter."""
    log = Embedded()
    write(log, UPDATES, update(1))
    reader = Made("reader", topics=[UPDATES], judge=refuse("not for me"))
    owner = Made("owner", topics=[UPDATES], owns=[UPDATES], judge=refuse("late"))

    system(log, reader, owner).run()

    assert [each.detail for each in letters(log)] == ["late"]


def test_a_letter_is_not_written_again_by_copies_nor_after_a_restart() -> None:
    """Two copies of the owner, then a program that begins anew, and a new piece of junk for it."""
    log = Embedded()
    log.append(CLASSES, [JUNK["unreadable"]])
    copies = [Made(lines=[CLASSES], owns=[CLASSES]) for _ in range(2)]
    system(log, *copies).run()
    assert len(letters(log)) == 1

    log.append(CLASSES, [JUNK["bad-hash"]])
    system(log, Made(lines=[CLASSES], owns=[CLASSES])).run()

    assert [each.offset for each in letters(log)] == [0, 1]


def test_letters_that_were_trimmed_do_not_stop_their_writer() -> None:
    """Dead letters are kept by size; who begins anew goes on behind what is gone."""
    log = Embedded()
    log.append(CLASSES, [JUNK["unreadable"], JUNK["bad-hash"]])
    system(log, Made(lines=[CLASSES], owns=[CLASSES])).run()
    log.trim(LETTERS, 1)

    log.append(CLASSES, [JUNK["too-large"]])
    system(log, Made(lines=[CLASSES], owns=[CLASSES])).run()

    assert log.first(LETTERS) == 1
    there = [key.split("/")[2] for key in keys(log, LETTERS)]
    assert there == ["1", "0", "2"]


def test_of_very_many_letters_the_newest_are_kept_and_no_more_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three hundred records of junk: the log keeps the last forty to fifty letters about them."""
    monkeypatch.setattr(embedded, "LETTERS", 40)
    monkeypatch.setattr(serve, "REMEMBERED", 50)
    log = Embedded()
    reader, another = system(log, Made(lines=[CLASSES], owns=[CLASSES])), Letters(log)
    for _ in range(30):
        log.append(CLASSES, [JUNK["unreadable"]] * 10)
        reader.run()
        assert another.tell_of(CLASSES, log.end(CLASSES) - 1)

    there = [each.offset for each in letters(log)]
    assert there == list(range(300 - len(there), 300))
    assert 40 <= len(there) <= 50
    assert not another.tell_of(CLASSES, 0)
    assert len(another) == 50


def test_of_scores_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report rests on them."""
    monkeypatch.setattr(embedded, "LETTERS", 40)
    log = Embedded()
    write(log, METRICS, *(measured(f"model/{i}") for i in range(100)))

    assert len(keys(log, METRICS)) == 100


def test_a_role_may_set_a_message_aside_after_it_had_to_wait() -> None:
    """What it heard first and refused later becomes a letter like any other."""
    log = Embedded()
    write(log, CLASSES, joined(0))
    role = Made(lines=[CLASSES], owns=[CLASSES])
    reader = system(log, role)
    reader.run()

    role.todo.append(SetAside(role.heard[0], Refused("out-of-line", "joins twice")))
    reader.step()

    (letter,) = letters(log)
    assert (letter.reason, letter.about) == ("out-of-line", joined(0).identity)
    assert letter.size == role.heard[0].size > 0


# --- catching up, trimming, the end ---------------------------------------------------------------


def test_a_role_answers_nothing_before_it_has_read_its_lines() -> None:
    """What was decided before it began is read first, a megabyte at a time; only then it speaks."""
    log = Embedded()
    for number in range(12):
        write(log, CLASSES, joined(number))
    log.append(ROUNDS, [Record("junk/0", bytes(1 << 20)) for _ in range(10)])
    role = Made(lines=[ROUNDS, CLASSES], topics=[UPDATES], todo=[Say(METRICS, measured("now"))])
    write(log, UPDATES, update(1))
    reader = system(log, role)

    reader.step()
    assert (role.asked, log.end(METRICS), len(role.heard)) == (0, 0, 12)
    reader.run()

    assert role.identities[-1] == update(1).identity
    assert log.end(METRICS) == 1


def test_who_reads_while_others_write_is_caught_up_at_what_was_there_at_first() -> None:
    """Its line grows all the time; it speaks when it has read what stood there as it began."""
    log = Embedded()
    write(log, CLASSES, joined(0))
    role = Made(lines=[CLASSES])
    reader = system(log, role)
    for number in range(1, 4):
        reader.step()
        write(log, CLASSES, joined(number))

    assert role.asked > 0


@pytest.mark.parametrize("how", ["forget", "trim"])
def test_a_line_whose_end_is_let_go_does_not_keep_its_reader_waiting(how: str) -> None:
    """As it began ten records were there; before it read them a copy of it let the last ones go."""
    log = Embedded()
    for number in range(10):
        write(log, CLASSES, joined(number))
    log.append(CLASSES, [Record(f"state/{i}", bytes(1 << 20)) for i in range(16)])
    role = Made(lines=[CLASSES], until=lambda role: role.asked > 0)
    reader = system(log, role)
    reader.step()
    assert role.asked == 0

    if how == "forget":
        log.forget(CLASSES, *(f"state/{i}" for i in range(16)))
    else:
        log.trim(CLASSES, log.end(CLASSES))
    reader.run()

    assert role.asked == 1


def test_who_comes_to_a_trimmed_topic_goes_on_where_it_begins() -> None:
    """Updates of closed rounds are gone, and nobody who begins later needs them."""
    log = Embedded()
    write(log, UPDATES, update(1), update(2), update(3))
    log.trim(UPDATES, 2)
    role = Made(topics=[UPDATES])

    system(log, role).run()

    assert role.identities == [update(3).identity]


def test_a_producer_goes_on_in_its_own_stream_though_its_beginning_is_gone() -> None:
    """It reads back what it sent before; what its twin has trimmed, it need not send again."""
    log = Embedded()
    marks = [StreamMarked(run=RUN, source="s", count=i, stage=i) for i in range(3)]
    write(log, SAMPLES, *marks)
    log.trim(SAMPLES, 2)
    producer = Made(lines=[SAMPLES])

    system(log, producer).run()

    assert producer.identities == [marks[2].identity]


def test_a_twin_whose_stream_was_trimmed_waits_for_its_state_to_say_where_to_go_on() -> None:
    """A copy of it trimmed what it had not read. It reads nothing, until it knows where it stands.

    That nobody tells it, is told as what is missing; it does not go round in circles.
    """
    log = Embedded()
    marks = [StreamMarked(run=RUN, source="s", count=i, stage=i) for i in range(4)]
    write(log, SAMPLES, *marks)
    log.trim(SAMPLES, 2)
    twin = Made("twins", topics=[SAMPLES], owns=[SAMPLES], until=lambda role: bool(role.heard))
    reader = system(log, twin)
    with pytest.raises(Stalled, match=f"twins waits to hear where to go on in {SAMPLES}: it beg"):
        reader.run()
    assert twin.heard == []

    twin.todo.append(Seek(SAMPLES, 3))
    reader.run()

    assert twin.identities == [marks[3].identity]


def test_a_reader_that_is_further_already_does_not_go_back() -> None:
    """The state of a copy that lags behind says less than what was read."""
    log = Embedded()
    marks = [StreamMarked(run=RUN, source="s", count=i, stage=i) for i in range(3)]
    write(log, SAMPLES, *marks)
    twin = Made(topics=[SAMPLES], owns=[SAMPLES], until=lambda role: role.asked > 2)
    reader = system(log, twin)
    reader.step()
    twin.todo.append(Seek(SAMPLES, 1))

    reader.run()

    assert twin.identities == [mark.identity for mark in marks]


def test_nobody_is_over_before_everything_was_read() -> None:
    """One role has nothing more to say, the other writes to it until it is over, too."""
    log = Embedded()
    listener = Made("listener", topics=[METRICS])
    talker = Made("talker", until=lambda role: not role.todo)
    talker.todo = [Say(METRICS, measured(str(i))) for i in range(3)]

    system(log, listener, talker).run()

    assert listener.identities == [measured(str(i)).identity for i in range(3)]


def test_a_run_that_cannot_go_on_says_who_waits_for_what() -> None:
    """Nothing is in work and nobody can take a step: exit code 1, one line, all that is missing."""
    twins = Made("twins", missing="local/north: the mark of stage 0", until=never)
    aggregator = Made("aggregator", missing="verdicts of stage 0 by local/north", until=never)

    with pytest.raises(Stalled) as told:
        system(Embedded(), twins, aggregator, clock=lambda: 7.0).run()

    assert told.value.exit_code == 1
    assert str(told.value) == (
        "nothing is in work and no role can take a step: twins waits for local/north: the mark of"
        " stage 0 since 0 s; aggregator waits for verdicts of stage 0 by local/north since 0 s."
        " Resume goes on when it is there"
    )


def test_what_is_waited_for_is_told_with_how_long() -> None:
    """The aggregator waits from the start, the twins since second 30; at 42 somebody asks."""
    now = [0.0]
    twins, aggregator = Made("twins", until=never), Made("aggregator", until=never)
    runner = system(Embedded(), twins, aggregator, clock=lambda: now[0])
    aggregator.missing = "verdicts"
    runner.step()
    now[0], twins.missing = 30.0, "RunOpened"
    runner.step()
    now[0] = 42.0

    assert [str(wait) for wait in runner.waits()] == [
        "twins waits for RunOpened since 12 s",
        "aggregator waits for verdicts since 42 s",
    ]
    with pytest.raises(Stalled, match="waits for RunOpened since 12 s; aggregator waits"):
        runner.run()


def test_a_wait_that_ended_and_comes_again_is_another_one() -> None:
    """The teacher of stage 1 was waited for; what counts for that of stage 2 begins anew."""
    now = [0.0]
    role = Made(until=never, missing="the teacher")
    runner = system(Embedded(), role, clock=lambda: now[0])
    for now[0], role.missing in ((0.0, "the teacher"), (10.0, ""), (20.0, "the teacher")):
        runner.step()
    now[0] = 25.0

    assert [wait.seconds for wait in runner.waits()] == [5.0]


def test_roles_are_asked_what_they_wait_for_once_a_second() -> None:
    """A thousand steps, eight in each second: there may be thousands of twins to ask."""
    now, asked = [0.0], [0]

    class Counted(Made):
        def waits(self) -> list[str]:
            asked[0] += 1
            return []

    runner = system(Embedded(), Counted(until=never), clock=lambda: now[0])
    for step in range(1000):
        now[0] = step / 8
        runner.step()

    assert asked == [125]


def test_who_has_not_read_its_lines_does_not_say_what_it_waits_for() -> None:
    """It could only name what came long ago."""
    log = Embedded()
    write(log, CLASSES, joined(0))
    role = Made(lines=[CLASSES], until=lambda role: bool(role.heard), missing="the beginning")
    runner = system(log, role)

    assert not runner.waits()
    runner.run()
    assert [wait.what for wait in runner.waits()] == ["made waits for the beginning"]


def test_a_run_that_stalled_goes_on_when_it_is_there() -> None:
    """The same roles are stepped again after somebody has written what was missing."""
    log = Embedded()
    role = Made(topics=[CLASSES], until=lambda role: bool(role.heard))
    reader = system(log, role)
    with pytest.raises(Stalled, match="nobody says what is missing"):
        reader.run()

    write(log, CLASSES, joined(0))
    reader.run()

    assert role.identities == [joined(0).identity]


# --- answers --------------------------------------------------------------------------------------


def test_what_is_said_in_a_row_is_written_at_once_and_in_order() -> None:
    """Three messages to one topic, one to another, one more to the first: three appends."""
    log = Watched(Embedded())
    role = Made(
        todo=[
            *(Say(METRICS, measured(str(i))) for i in range(3)),
            Say(CLASSES, joined(0), "line"),
            Say(METRICS, measured("3")),
        ]
    )

    system(log, role).step()

    assert log.steps == [
        ("append", METRICS, 3), ("append", CLASSES, 1), ("append", METRICS, 1),
    ]  # fmt: skip
    assert keys(log, METRICS) == [f"{measured(str(i)).identity}/0" for i in range(4)]
    assert keys(log, CLASSES) == ["line/0"]


def test_a_message_is_durable_before_one_of_another_kind_that_may_name_it() -> None:
    """Models first, then the decision; also where both stand in one topic."""
    log = Watched(Embedded())
    role = Made(todo=[Say(CLASSES, update(1)), Say(CLASSES, update(2)), Say(CLASSES, joined(0))])

    system(log, role).step()

    assert log.steps == [("append", CLASSES, 2), ("append", CLASSES, 1)]


class OneByOne(Embedded):
    """A log that writes each record before it takes the next."""

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        offsets: list[int] = []
        for each in records:
            offsets += super().append(topic, [each])
        return offsets


def test_of_what_is_said_in_a_row_each_message_is_made_when_those_before_are_written() -> None:
    """Ten of a megabyte are not held together, and a broker need not wait for the last of them."""
    log, written = OneByOne(), list[int]()
    role = Made(todo=[Say(UPDATES, update(i, numbers=250_000)) for i in range(10)])

    def wire(message: Message) -> str:
        written.append(log.end(UPDATES))
        return "fp32"

    around = Surroundings(log, Shelf(log, MODELS, MOST), MOST, wire)

    System([role], around, Inline(FUNCTIONS)).step()

    assert written == [2 * i for i in range(10)]
    assert len(keys_of_all(log)) == 20


def keys_of_all(log: Transport) -> set[str]:
    """The keys of all updates, read to the end."""
    found: set[str] = set()
    place = 0
    while place < log.end(UPDATES):
        for each in log.read(UPDATES, place, MOST):
            place = each.offset + 1
            found.add(each.record.key)
    return found


def test_messages_are_let_go_with_all_their_pieces_and_in_one_step() -> None:
    """A model of three pieces and a state of one: their keys go together, others stay."""
    log = Watched(Embedded())
    for key in ("1/aa/0", "1/aa/1", "1/aa/2", "state/3/0", "state/4/0"):
        log.append(METRICS, [Record(key, b"value")])
    log.steps.clear()
    role = Made(todo=[Forget(METRICS, "1/aa", 3), Forget(METRICS, "state/3")])

    system(log, role).step()

    assert log.steps == [("forget", METRICS, "1/aa/0", "1/aa/1", "1/aa/2", "state/3/0")]
    assert keys(log, METRICS) == ["state/4/0"]


def weights(seed: int) -> Tensors:
    """A small model."""
    return {"weight": np.random.default_rng(seed).random(10, np.float32)}


def published(log: Transport, version: int) -> ModelName:
    """A model in the log."""
    name = ModelName(version=version, sha256=model_sha256(weights(version)))
    model = GlobalModel(run=RUN, version=version, groups={"model": weights(version)})
    write(log, MODELS, model, key=name.key)
    return name


def test_old_models_are_kept_and_let_go_as_the_proxy_says() -> None:
    """Three are put into the store from the log; later only one of them is still wanted."""
    log, store = Embedded(), SqliteStore()
    names = [published(log, version) for version in range(3)]
    role = Made(todo=[Keep(name, 0) for name in names])
    reader = system(log, role, store=store)
    reader.step()
    assert store.list() == names

    role.todo.append(Keep(only=frozenset([names[1]])))
    reader.step()

    assert store.list() == [names[1]]


def test_what_is_known_of_an_old_model_is_kept_beside_it() -> None:
    """Its stage, its round and its score, for people; without a store nobody misses them."""
    log, store = Embedded(), SqliteStore()
    name = published(log, 1)
    for keeper in (store, None):
        role = Made(todo=[Keep(name, 2, 1), Score(name, 2, 0.75)])
        system(log, role, store=keeper).step()

    assert store.about(name) == About(2, 1, {2: 0.75})


def test_an_old_model_that_the_store_lost_is_put_back_from_the_log() -> None:
    """A task asks for it: it comes from the log, and the next one comes from the store."""
    log, store = Embedded(), SqliteStore()
    name = published(log, 1)
    role = Made(todo=[Do(("score", 1), old_model_of(name))], until=lambda role: bool(role.results))

    system(log, role, store=store).run()

    assert store.list() == [name]
    assert np.array_equal(
        role.results["score", 1].groups["model"]["weight"], weights(1)["weight"] * 2
    )


def old_model_of(name: ModelName) -> Callable[[Library], Task]:
    """Prepares a task that is given an old model."""
    return lambda library: Task("double", {}, {"model": library.old_model(name)})


class Writer(Made):
    """A role that need not hear again the answers that it wrote."""

    def wrote(self, message: Message) -> Callable[[], None] | None:
        read_back = partial(self.heard_of.append, message.identity)
        return read_back if isinstance(message, ModelUpdate) else None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.heard_of: list[str] = []


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("numbers", [10, 1000])
def test_an_author_does_not_hear_its_own_answer_again_but_everybody_elses(numbers: int) -> None:
    """An update of one piece or of five: read back it is known by its hash, and not decoded."""
    log, own = Embedded(), update(1, "local/north", numbers)
    write(log, UPDATES, update(1, "local/south", numbers))
    role = Writer(topics=[UPDATES, METRICS], todo=[Say(UPDATES, own), Say(METRICS, measured("m"))])
    runner = system(log, role)

    runner.run()
    assert role.identities == ["ModelUpdate/1/local/south", "Measured/m"]
    assert role.heard_of == [own.identity]

    write(log, UPDATES, own)  # a copy of it was slower
    runner.run()
    assert role.identities[2:] == ["ModelUpdate/1/local/north"]


class Crowded(Embedded):
    """A log in which somebody else may be a little quicker; notes what of it was read."""

    def __init__(self, *, crowded: bool) -> None:
        super().__init__()
        self._crowded = crowded
        self.given: set[int] = set()

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        if self._crowded:
            super().append(topic, codec.records(update(9, "local/south"), source="twins")[1])
        return super().append(topic, records)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        found = super().read(topic, place, max_bytes)
        self.given |= {each.offset for each in found}
        return found


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("crowded", [False, True])
def test_an_answer_that_stands_where_its_author_would_read_next_is_not_read(crowded: bool) -> None:
    """Ten pieces of its own need not be fetched, unless something of others lies before them.

    Another began to write the first one, and died: nobody waits for the rest of it.
    """
    log, own = Crowded(crowded=crowded), [update(1), update(2)]
    Embedded.append(log, UPDATES, records(own[0], source="twins")[1][:2])
    role = Writer(topics=[UPDATES], owns=[UPDATES], todo=[Say(UPDATES, each) for each in own])

    system(log, role).run()

    assert role.identities == ["ModelUpdate/9/local/south"] * crowded
    assert role.heard_of == [each.identity for each in own]
    assert len(log.given) == (2 + 5 + 10 if crowded else 2)
    assert log.end(letters_of(UPDATES)) == 0


class Noted(Embedded):
    """A log that notes what was asked of it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str, int]] = []

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        offsets = super().append(topic, records)
        self.asked += [("append", topic, offset) for offset in offsets]
        return offsets

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        self.asked.append(("read", topic, place))
        return super().read(topic, place, max_bytes)


def test_a_log_hears_that_an_author_passes_over_its_answer_before_it_reads_anything_else() -> None:
    """A transport that follows many topics at once would fetch the answer with the next of them."""
    log = Noted()
    todo: list[Answer] = [Say(UPDATES, update(1)), Say(UPDATES, update(2))]
    runner = system(log, Writer(topics=[METRICS, UPDATES], todo=todo))

    runner.step()
    runner.step()

    written = log.asked.index(("append", UPDATES, 1))
    assert log.asked[written + 1 :][:2] == [("read", UPDATES, 2), ("read", METRICS, 0)]


class AtOnce(Inline):
    """Workers whose tasks all end at the same moment."""

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        found: list[tuple[object, Result]] = []
        while more := super().finished(wait):
            found += more
        return found


def test_answers_of_tasks_that_ended_together_are_written_together() -> None:
    """One acknowledgement for both, where each would have waited for its own."""
    log = Watched(Embedded())
    role = Made(until=lambda role: len(role.results) == 2)
    role.todo = [work("learn 0", []), work("learn 1", [])]
    around = Surroundings(log, Shelf(log, MODELS, MOST), MOST)

    System([role], around, AtOnce(FUNCTIONS)).run()

    assert log.steps == [("append", METRICS, 2)]


# --- work -----------------------------------------------------------------------------------------


def work(name: str, said: list[str], **more: Any) -> Do:
    """A task that notes when it is prepared."""

    def prepare(library: Library) -> Task:
        said.append(name)
        return Task("double", {"say": name})

    return Do((name,), prepare, **more)


def test_work_is_prepared_only_when_a_worker_is_free_and_the_urgent_first() -> None:
    """Two workers, five tasks: an evaluation that nobody waits for comes behind every training."""
    prepared: list[str] = []
    role = Made(until=lambda role: len(role.results) == 5)
    role.todo = [work("evaluate", prepared, urgent=False)]
    role.todo += [work(f"learn {i}", prepared) for i in range(4)]
    runner = system(Embedded(), role)

    runner.step()
    assert prepared[:3] == ["learn 0", "learn 1", "learn 2"]
    runner.run()

    assert prepared == [*(f"learn {i}" for i in range(4)), "evaluate"]
    assert {id[0]: result.values["said"] for id, result in role.results.items()} == {
        name: name for name in prepared
    }


def test_what_is_in_work_can_be_told() -> None:
    """For the line that says how far a run is; with work in it, it is neither over nor stalled."""
    role = Made(todo=[work(f"learn {i}", []) for i in range(3)])
    runner = system(Embedded(), role)

    runner.step()

    assert runner.in_work
    assert not runner.over
    runner.run()
    assert runner.in_work == []
    assert len(role.results) == 3


def test_work_that_somebody_else_has_done_meanwhile_is_not_begun() -> None:
    """Asked just before it begins: what would come of it is in the log already."""
    prepared: list[str] = []
    role = Made(until=lambda role: bool(role.results))
    role.todo = [work("learn", prepared, wanted=lambda: False), work("judge", prepared)]

    system(Embedded(), role).run()

    assert prepared == ["judge"]


def test_work_whose_inputs_were_let_go_is_passed_over_and_told_when_nothing_goes_on() -> None:
    """What may be forgotten is never needed again; should it be after all, the end names it."""
    log = Embedded()
    gone = ModelName(version=5, sha256="c" * 64)

    def learn(library: Library) -> Task:
        return Task("double", {}, {"model": library.model(gone)})

    def judge(library: Library) -> Task:
        return Task("double", {"say": library.message(Place(SAMPLES, (3,))).identity})

    role = Made(until=never)
    role.todo = [Do(("learn", "local/north", 12), learn), Do(("judge", 0), judge)]

    with pytest.raises(Stalled) as told:
        system(log, role).run()

    assert "learn local/north 12 was passed over (LookupError: model version 5" in str(told.value)
    assert f"judge 0 was passed over (LookupError: {SAMPLES} no longer holds" in str(told.value)


def test_what_a_task_gives_is_told_to_its_own_role() -> None:
    """Two copies of a role have the same task: each hears of its own, and of nothing else."""
    copies = [Made(until=lambda role: bool(role.results), todo=[work("learn", [])]) for _ in "ab"]
    log = Embedded()

    system(log, *copies).run()

    assert [list(copy.results) for copy in copies] == [[("learn",)], [("learn",)]]
    assert keys(log, METRICS) == [f"{measured('done/learn').identity}/0"] * 2


def test_what_was_read_is_said_again_at_once_or_not_at_all() -> None:
    """Without a worker, before what the role says next; where a part of it is gone, nothing of
    that is said."""
    log = Embedded()
    write(log, CLASSES, joined(0), joined(1))

    def again(*offsets: int) -> Retell:
        def say(library: Library) -> Iterator[Say]:
            for offset in offsets:
                yield Say(METRICS, measured(library.message(Place(CLASSES, (offset,))).identity))

        return Retell(say)

    role = Made(topics=[CLASSES], until=lambda role: len(role.heard) == 2 and not role.todo)
    role.todo = [again(1, 0), again(0, 7), Say(METRICS, measured("next"))]
    system(log, role).run()

    said = ["EntityJoined/local/north/1", "EntityJoined/local/north/0", "next"]
    assert keys(log, METRICS) == [f"{measured(name).identity}/0" for name in said]


# --- all of it together ---------------------------------------------------------------------------


@dataclass
class Greeter(Made):
    """Joins each entity once that has not joined; what it says, it only believes when it reads it.

    Two of these side by side are what a standby is.
    """

    said: set[str] = field(default_factory=set)
    single: bool = False
    """One at a time, so that each is an append of its own."""

    def answers(self) -> Iterator[Answer]:
        there = {each.message.subject for each in self.heard}
        for entity in sorted({f"local/{i}" for i in range(6)} - there - self.said):
            self.said.add(entity)
            yield Say(CLASSES, joined(0, entity))
            if self.single:
                return


@pytest.mark.parametrize("seed", range(10))
def test_copies_of_a_role_come_to_the_same_over_an_unkind_transport(seed: int) -> None:
    """Topics merge at random, records come twice or late, and roles take turns in any order."""
    chance = random.Random(seed)
    inner = Embedded()
    log = Unkind(inner, chance)
    everybody = {f"local/{i}" for i in range(6)}

    def complete(role: Made) -> bool:
        return {each.message.subject for each in role.heard} >= everybody

    copies = [Greeter(lines=[CLASSES], topics=[UPDATES], until=complete) for _ in range(2)]
    shelf = Shelf(log, MODELS, MOST)
    around = Surroundings(log, shelf, MOST)
    runner = System(
        copies, around, Inline({}), order=lambda all: chance.sample(list(all), len(all))
    )

    runner.run()

    first, second = ({each.message.subject for each in copy.heard} for copy in copies)
    assert first == second == everybody
    assert [each.place for each in copies[0].heard] == [each.place for each in copies[1].heard]


@pytest.mark.usefixtures("small_pieces")
def test_messages_that_wait_are_not_lost_over_an_unkind_transport() -> None:
    """They come last first, and each waits for the one before; reads that give none lose none."""
    for seed in range(20):
        log = Unkind(Embedded(), random.Random(seed), trouble=0.5)
        write(log, UPDATES, *(update(i) for i in reversed(range(5))))
        role = InOrder(topics=[UPDATES], until=lambda role: len(role.heard) == 5)

        system(log, role).run()

        assert role.identities == [update(i).identity for i in range(5)]


class InOrder(Made):
    """Hears updates in the order of their numbers, each once."""

    def hear(self, arrived: Arrived) -> None:
        assert isinstance(arrived.message, ModelUpdate)
        number = arrived.message.opened
        if number > len(self.heard):
            raise NotYet(lambda: len(self.heard) >= number, f"update {number - 1}")
        if number == len(self.heard):
            self.heard.append(arrived)


def test_the_time_of_a_role_and_of_the_log_are_told_apart() -> None:
    """A role computes for 3 s while it answers, and 2 s while it hears; the log takes the rest."""
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    log = Embedded()
    write(log, CLASSES, joined(0))

    def busy(arrived: Arrived) -> None:
        now[0] += 2.0

    class Slow(Made):
        def answers(self) -> Iterator[Answer]:
            if not self.asked:
                now[0] += 3.0
                yield Say(METRICS, measured("slow"))
            self.asked += 1

    system(log, Slow("slow", lines=[CLASSES], judge=busy), stopwatch=watch).run()

    assert watch.seconds["slow"] == 5.0
    assert watch.seconds["log"] == 0.0
    assert watch.calls["log"] >= 2


# --- crash points ---------------------------------------------------------------------------------


def test_every_point_has_a_name_in_the_list_and_every_name_a_point() -> None:
    """The hooks in infra's code and infra/points.py name the same moments."""
    called = {
        node.args[0].value
        for path in Path(infra.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("hook")
        if node.args and isinstance(node.args[0], ast.Constant)
    }

    assert called == {*POINTS, *PROGRAMS}


def test_a_run_comes_by_every_point() -> None:
    """A role that says, forgets, trims, keeps and works is seen at each of them."""
    seen: list[str] = []
    log = Embedded(hook=seen.append)
    name = published(log, 1)
    role = Made(lines=[CLASSES], until=lambda role: bool(role.results))
    role.todo = [
        Say(CLASSES, joined(0)),
        Say(METRICS, measured("a")),
        Forget(METRICS, "never"),
        Trim(METRICS, 1),
        Keep(name),
        work("learn", []),
    ]

    system(log, role, hook=seen.append, store=SqliteStore()).run()

    assert set(seen) == set(POINTS)


@pytest.mark.parametrize("point", ["said", "append:written"])
def test_who_was_killed_while_speaking_is_completed_by_who_begins_anew(
    point: str, tmp_path: Path
) -> None:
    """Killed with three of six said, or on the way: the next one reads what is there, goes on."""
    path = tmp_path / "run.sqlite"
    seen: list[str] = []

    def killed(name: str) -> None:
        seen.append(name)
        if seen.count(point) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    if (pid := os.fork()) == 0:
        run_greeter(path, killed)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    heard = run_greeter(path, no_hook)

    assert heard == [joined(0, f"local/{i}").identity for i in range(6)]


def run_greeter(path: Path, hook: Hook) -> list[str]:
    """Let a greeter greet everybody; what it heard at last."""
    role = Greeter(lines=[CLASSES], until=lambda role: len(role.heard) == 6, single=True)
    with closing(Embedded(path, hook)) as log:
        system(log, role, hook=hook).run()
    return role.identities
