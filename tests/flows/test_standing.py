"""Whoever begins at a Standing comes to what those came to who have read all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from aggregator import standing
from experiments.replay import Replay
from infra.beginning import newest_start
from infra.promises import Arrived, Place, Start, Task
from infra.transport.unkind import Unkind
from infra.workers import Inline
from schemas.codec import pack
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    Paused,
    RunOpened,
    Standing,
    TeacherChosen,
    TwinDecision,
    TwinState,
    WindowJudged,
)
from schemas.teachers import TeachersLine
from schemas.topics import parted
from schemas.verdicts import VerdictLines
from tests.flows.alive import EAST, NAMES, NORTH, SITES, SOUTH, WEST, Alive, lively, whim
from tests.flows.federation import LIMIT, messages
from tests.flows.learner import FAKES
from twins.twins import Twins

ALL = (NORTH, EAST, SOUTH, WEST)


def months(run: Alive, seed: int) -> Iterator[None]:
    """A live run's course: images of old and new classes come, somebody leaves, somebody rests; it
    gives way whenever all is settled."""
    chance = random.Random(seed)
    run.settle()
    for entity in ALL:
        run.stream(entity, "012")
    run.after(61)
    yield
    for uids in ("34", "012", "7", "8"):
        for entity in chance.sample(ALL, 2):
            run.stream(entity, uids, 12)
        if uids == "7":
            run.leave(WEST)
        if uids in "78":
            run.decide(Paused, entity=SOUTH, rests=uids == "7")
        run.after(11)
        run.after(61)
        yield


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Standing every five decisions."""
    monkeypatch.setattr(standing, "EVERY", 5)


def begun(run: Alive) -> Start | None:
    """Where a program would begin now."""
    return newest_start(run.log, NAMES, LIMIT)


def test_roles_that_began_at_a_standing_decide_what_the_others_decide() -> None:
    """All roles end again and again, and others begin at a Standing. The log is the one of roles
    that have never ended, byte for byte, and a replay makes the same."""
    logs = []
    for restarts in (False, True):
        run, starts = Alive(lively(keep_images=20, keep_rounds="all")), 0
        for _ in months(run, seed=3):
            if restarts:
                start = begun(run)
                run.restart(start)
                starts += start is not None
        logs.append([hash for _, hash in messages(run.log, NAMES.federation("rounds"))])
        logs[-1] += [pack(each).hash for entity in ALL for each in run.lines(entity)]
        logs[-1] += [pack(each).hash for each in run.teachers]

    assert starts >= 3
    assert logs[0] == logs[1]
    assert Replay(run.log, NAMES).fold().different == []


class Reader:
    """The three lines of a live run as somebody has read them."""

    def __init__(self, start: Start | None = None, *, whole: bool = False) -> None:
        self.line = RoundsLine(whole=whole)
        self.teachers, self.verdicts = TeachersLine(self.line), VerdictLines(self.line)
        self.counted: list[Decision] = []
        if start is not None:
            self.line.begin(start.opened, start.run, start.standing, start.hash)
            self._again()

    def hear(self, message: object, hash: str) -> None:
        """Take what was read next, of any line."""
        match message:
            case TwinDecision():
                self.verdicts.hear(parted(message.entity)[0], message)
            case TeacherChosen():
                self.teachers.hear(message)
            case Decision():
                if self.line.hear(message, hash):
                    self.counted.append(message)
                    self._again()

    def _again(self) -> None:
        self.verdicts.again()
        self.teachers.again()

    @property
    def ends(self) -> list[object]:
        """What anybody comes to, who holds everything too."""
        lines = sorted(self.verdicts.of.items())
        own = [(e, each.number, each.here, each.judged, {*each.known}) for e, each in lines]
        return [self.line.number, own, [each.teacher for each in self.teachers.chosen]]

    @property
    def state(self) -> dict[str, Any]:
        """All that is held."""
        line, of = vars(self.line), sorted(self.verdicts.of.items())
        parts = {"parts": vars(self.line.parts)}
        verdicts = {e: (each.verdicts, each.told, each.pending) for e, each in of}
        return {**line, **parts, "verdicts": verdicts, "teachers": self.teachers.chosen}


Said = list[tuple[object, str]]


def merged(topics: list[Said], chance: random.Random) -> Iterator[tuple[object, str]]:
    """What lies in several topics, read in any order; of each topic in its own."""
    left = [list(reversed(each)) for each in topics]
    while left := [each for each in left if each]:
        yield chance.choice(left).pop()


def test_in_any_order_of_topics_all_who_read_come_to_the_same() -> None:
    """At each Standing of a long log of copies: who began two Standings before holds what he holds
    who began at the first decision, and who holds everything has counted the same decisions."""
    chance = random.Random(1)
    run = Alive(over=lambda log: Unkind(log, chance, 0.3), copies=2, order=whim(1))
    for _ in months(run, seed=1):
        pass
    rounds: Said = list(messages(run.log, NAMES.federation("rounds")))
    others: list[Said] = [list(messages(run.log, NAMES.of_site("classes", s))) for s in SITES]
    others.append(list(messages(run.log, NAMES.federation("teachers"))))
    first = next(each for each, _ in rounds if isinstance(each, RunOpened))
    told = [(each, hash) for each, hash in rounds if isinstance(each, Standing)]
    counted = {hash: told for told, hash in told}
    compared = 0
    for last, _ in told:
        before = counted.get(last.before.hash) if last.before else None
        start = counted.get(before.before.hash) if before and before.before else None
        if start is None or before is None or before.before is None:
            continue
        upto = [each for each in rounds if each[0].number <= last.number]  # type: ignore[attr-defined]
        place = Place("rounds", (0,))
        hash = before.before.hash
        readers = [
            Reader(), Reader(whole=True), Reader(Start(first, last.run, start, hash, place)),
        ]  # fmt: skip
        for reader in readers:
            for message, hash in merged([upto, *others], chance):
                reader.hear(message, hash)
        whole = readers[1]
        assert readers[0].counted == whole.counted
        assert readers[2].counted == [e for e in whole.counted if e.number > start.number]
        assert readers[0].ends == whole.ends == readers[2].ends
        assert readers[0].state == readers[2].state
        compared += 1
    assert compared >= 5


def _hear_state(states: list[TwinState], arrived: Arrived) -> None:
    if isinstance(arrived.message, TwinState):
        states.append(arrived.message)


def test_a_twin_that_died_before_its_state_catches_up_from_a_standing() -> None:
    """A round let go images of its stream, and its state does not say so when it dies. Standings
    later it comes back: begun there or by reading all, it writes the same states."""
    found = []
    for whole in (True, False):
        run = Alive(lively(keep_images=60, rounds_per_stage=2), entities=(NORTH, EAST, SOUTH))
        run.settle()
        for entity in (NORTH, EAST, SOUTH):
            run.stream(entity, "012", 10)
        run.after(11)
        for entity in (NORTH, EAST, SOUTH):
            run.stream(entity, "01", 60)
        while not any(each.position > 100 for each in run.line.parts.of(EAST).asked):
            run.system.step()
            run.now += 0.05
        asked = run.line.parts.of(EAST).asked[-1]
        gone = run.vanish(EAST)
        for each in [each for each in run.system._queue if each[0] is gone]:
            run.system._queue.remove(each)
        while (start := begun(run)) is None or start.standing.number < asked.opened:
            for entity in (NORTH, SOUTH):
                run.stream(entity, "01", 30)
            run.after(61)
        heard: list[TwinState] = []
        run._around.overhear = partial(_hear_state, heard)
        run.join(Twins(NAMES, "a", run.shelf, [EAST]))
        if not whole:
            run.system.sessions[-1].begin(start)
        run.stream(EAST, "01", 30)
        run.after(61)

        found.append([each for each in heard if each.entity == EAST])
        assert asked.opened in [each.number for each in found[-1] if each.since > 0]
        assert EAST in [p.entity for p in run.line.stages[-1].rounds[-1].opened.participants]

    assert found[0] == found[1]


class Slow(Inline):
    """Workers that have taken up a judging and do not come to its end, until they are let."""

    def __init__(self) -> None:
        super().__init__(FAKES)
        self.held: list[tuple[object, Task]] = []
        self.holds = False

    def submit(self, id: object, task: Task) -> None:
        if self.holds and task.name == "judge":
            self.held.append((id, task))
        else:
            super().submit(id, task)


def test_who_judges_for_so_long_that_nobody_knows_what_it_rests_on_judges_anew() -> None:
    """A twin has found a class when two Standings have come since it began: it says nothing of it,
    looks again under the newest model, and says it then. Nothing goes to the dead letters."""
    run, workers = Alive(), Slow()
    run.system._workers = workers
    run.settle()
    for entity in ALL:
        run.stream(entity, "012")
    run.after(11)
    workers.holds = True
    run.stream(NORTH, "7", 24)
    run.settle()
    began = run.line.number
    workers.holds = False
    while run.line.floor <= began:
        run.stream(EAST, "012")
        run.after(1)
    assert [task.name for _, task in workers.held] == ["judge"]
    for id, task in workers.held:
        workers.submit(id, task)
    run.after(61)

    found = [each for each in run.lines(NORTH) if isinstance(each, WindowJudged)]
    assert [each.classes for each in found] == [("0", "1", "2"), ("7",)]
    assert (found[1].after or 0) > began
    assert "7" in run.line.rows
    assert run.log.end(NAMES.federation("dead-letters")) == 0
