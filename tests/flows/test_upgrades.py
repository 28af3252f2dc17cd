"""A release in which schema numbers were raised goes on with what the one before has written; of
that one nobody writes anything behind the first decision that it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgpack
import pytest

from experiments.replay import Replay
from experiments.system import Embedded
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from schemas.codec import LENGTH, Record, cut, piece
from schemas.errors import ConfigurationError
from schemas.messages import KINDS, Decision, Message, RoundOpened, RunOpened, TeacherChosen
from schemas.topics import table_row
from tests.flows.federation import LIMIT, NAMES, Outcome, letters, outcome, put_together, small


@contextmanager
def next_release(*kinds: type[Message], reads_older: bool = True) -> Iterator[None]:
    """Whatever is written and read herein is so by a release that has raised these numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(kind, "schema_number", 2)
            patch.setattr(kind, "lifts", (dict,) if reads_older else ())
        yield


def until(run: Embedded, decisions: int) -> Embedded:
    """So far all programs run; then they are stopped, whatever they were doing."""
    while run.observer.line.number < decisions:
        run.system.step()
    return run


def held(log: Transport) -> dict[str, list[tuple[int, bytes]]]:
    """All records of a log, by topic."""
    found = {}
    for topic in log.topics():
        stored = log.read(topic, log.first(topic), 2**40)
        found[topic] = [(each.offset, each.record.value) for each in stored]
    return found


@pytest.mark.parametrize("decisions", [1, 2, 5, 8])
def test_all_stopped_and_exchanged_go_on_to_the_same_bytes(quiet: Outcome, decisions: int) -> None:
    """The next release has raised every number there is. It goes on from where the other was, has
    nothing set aside, comes to the same model, and adds up again what both of them have summed."""
    log = Log()
    until(put_together(small(), log), decisions)
    with next_release(*KINDS.values()):
        run = put_together(small(), log)
        run.system.run()
        again = Replay(log, NAMES).fold()

    stored = log.read(NAMES.federation("rounds"), 0, LIMIT)
    numbers = [each.record.headers["ce_type"][-1] for each in stored]
    assert numbers == ["1"] * numbers.count("1") + ["2"] * numbers.count("2")
    assert min(numbers.count("1"), numbers.count("2")) > 0
    came_to = outcome(run)  # hashes of content are others: they cover the number
    assert (came_to.model, came_to.verdicts) == (quiet.model, quiet.verdicts)
    assert len(came_to.rounds) == len(quiet.rounds)
    assert letters(run) == []
    assert (again.different, again.model_sha256) == ([], quiet.model)


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        (RoundOpened, "producers"),
        (RoundOpened, "twins"),
        (RoundOpened, "aggregator"),
        (RoundOpened, "proxy"),
        (TeacherChosen, "twins"),
        (TeacherChosen, "aggregator"),
    ],
)
def test_a_forgotten_program_ends_at_the_first_decision_that_it_does_not_know(
    quiet: Outcome, kind: type[Decision], role: str
) -> None:
    """It has run from the beginning, and goes on beside the others when those were exchanged: at
    the first new decision it ends with 2, says both numbers, and writes nothing more. The others
    never notice."""
    log = Log()
    old = until(put_together(small(), log), 2)
    old.system.sessions[:] = [each for each in old.system.sessions if each.role.name == role]
    with next_release(kind):
        run = put_together(small(), log)
    said, before = end_beside(run, old, kind, log)

    assert f"{kind.__name__} of schema 2; this program reads schema 1" in str(said)
    assert said.exit_code == 2
    assert held(log) == before
    with next_release(kind):
        run.system.run()
    assert outcome(run) == quiet


def test_a_forgotten_program_that_always_decides_first_does_no_harm(quiet: Outcome) -> None:
    """The old proxy is the quicker one: the new release reads each of its choices, and never comes
    to make one of its own. That is no fork, and the run is the same."""
    log = Log()
    old = until(put_together(small(), log), 2)
    old.system.sessions[:] = [each for each in old.system.sessions if each.role.name == "proxy"]
    with next_release(TeacherChosen):
        run = put_together(small(), log)
        run.system.sessions[:] = sorted(
            run.system.sessions, key=lambda each: each.role.name != "proxy"
        )
    while not run.system.over:
        with next_release(TeacherChosen):
            run.system.step()
        old.system.step()

    stored = log.read(NAMES.federation("teachers"), 0, LIMIT)
    assert {each.record.headers["ce_type"] for each in stored} == {"fedtwin.TeacherChosen.v1"}
    assert outcome(run) == quiet


def end_beside(
    run: Embedded, old: Embedded, kind: type[Message], log: Transport
) -> tuple[ConfigurationError, object]:
    """What programs of the old release say when they end, and what the log held before that."""
    while not run.system.over:
        with next_release(kind):
            run.system.step()
        before = held(log)
        try:
            old.system.step()
        except ConfigurationError as said:
            return said, before
    raise AssertionError("the old programs have never ended")


class Beside(Log):
    """A log in which a later program has written, too, what is no decision: before each such
    record lies the same with a higher number."""

    def __init__(self) -> None:
        super().__init__()
        self.strewn = set[str]()

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        offsets = []
        for record in records:
            if table_row(topic).name not in {"rounds", "teachers", "classes"}:
                super().append(topic, [raised(record)])
                self.strewn.add(topic)
            offsets += super().append(topic, [record])
        return offsets


def raised(record: Record) -> Record:
    """The message of a record, as of a later schema."""
    payload = bytes(piece(record.value, LIMIT).content)
    start = LENGTH.size + LENGTH.unpack_from(payload)[0]
    packed = msgpack.packb(msgpack.unpackb(payload[LENGTH.size : start]) | {"schema": 2})
    return replace(record, value=cut(LENGTH.pack(len(packed)) + packed + payload[start:]).pieces[0])


def test_what_is_no_decision_is_passed_over_where_it_is_newer(quiet: Outcome) -> None:
    """Images, states, updates, models, prototypes, scores: the run comes to the same, and each one
    is told of once where a topic has an owner who reads it."""
    log = Beside()
    run = put_together(small(), log)
    run.system.run()

    assert outcome(run) == quiet
    kinds = {table_row(topic).name for topic in log.strewn}
    assert kinds == {"samples", "twin-state", "updates", "models", "prototypes", "metrics",
                     "dead-letters"}  # fmt: skip
    assert {each.reason for each in letters(run)} == {"newer-schema"}
    told = {table_row(each.topic).name for each in letters(run)}
    assert told == {"samples", "twin-state", "updates", "prototypes"}
    assert len({(each.topic, each.offset) for each in letters(run)}) == len(letters(run))


def test_a_release_that_reads_no_older_decision_says_so_and_ends() -> None:
    """As little as a newer one may an older one be passed over: a RunOpened that was not read would
    be followed by another."""
    log = Log()
    until(put_together(small(), log), 1)
    before = held(log)
    with next_release(RunOpened, reads_older=False):
        run = put_together(small(), log)
        with pytest.raises(
            ConfigurationError, match="RunOpened of schema 1; this program reads sc"
        ):
            run.system.run()

    assert held(log) == before
