"""Whose turn it is to decide, as the line tells: whoever says most cannot keep it from coming."""

from __future__ import annotations

import pytest

from infra.promises import Place
from infra.turn import Turn
from schemas.messages import Heartbeat, Paused

ROUNDS = "fedtwin.spring.rounds"
AFTER = 10.0


class Judge:
    """A role that knows how far its line is, and whether it could go on."""

    decided = 4
    can_decide = False


@pytest.fixture
def judge() -> Judge:
    """Decision 4 was read, and something is missing for the next."""
    return Judge()


@pytest.fixture
def turn(judge: Judge) -> Turn:
    """Its turn, when all that was there has been heard."""
    made = Turn(judge)  # type: ignore[arg-type]
    made.took_in(Place(ROUNDS, (4,)))
    made.heard(0.0)
    return made


def says(turn: Turn, number: int, offset: int) -> None:
    """It writes a decision there."""
    said = Paused(run="f" * 64, number=number, entity=None, rests=True)
    turn.wrote(said, ROUNDS, [offset])


def test_what_comes_meanwhile_does_not_begin_the_wait_anew(judge: Judge, turn: Turn) -> None:
    """Somebody speaks every second: ten seconds after it could be decided, it is its turn."""
    judge.can_decide = True
    came = []
    for second in range(12):
        turn.heard(float(second))
        if turn.has_come(float(second), AFTER):
            came.append(second)

    assert came == [10, 11]


def test_what_can_be_taken_back_does_not_begin_the_wait_anew(judge: Judge, turn: Turn) -> None:
    """A twin joins and leaves, so that the next decision is possible at every other moment."""
    came = []
    for second in range(12):
        turn.heard(float(second))
        judge.can_decide = second % 2 == 0
        if turn.has_come(float(second), AFTER):
            came.append(second)

    assert came == [10]


def test_each_decision_of_another_begins_the_wait_anew(judge: Judge, turn: Turn) -> None:
    """The other decides every six seconds what could be decided all the time: it is well."""
    judge.can_decide = True
    came = []
    for second in range(60):
        if second % 6 == 0:
            judge.decided += 1
            turn.took_in(Place(ROUNDS, (judge.decided,)))
        turn.heard(float(second))
        came.append(turn.has_come(float(second), AFTER))

    assert not any(came)


def test_nobody_is_waited_for_by_whoever_has_decided_last(judge: Judge, turn: Turn) -> None:
    """Its decision counts, so the next is its turn at once; another's counts, so it waits again."""
    judge.can_decide = True
    turn.has_come(0.0, AFTER)
    assert turn.has_come(10.0, AFTER)
    says(turn, 5, offset=70)
    judge.decided = 5
    turn.took_in(Place(ROUNDS, (70,)))
    assert turn.has_come(10.1, AFTER)

    says(turn, 6, offset=72)
    judge.decided = 6
    turn.took_in(Place(ROUNDS, (71,)))  # the other was quicker by one record
    assert not turn.has_come(10.2, AFTER)
    turn.took_in(Place(ROUNDS, (72,)))  # which comes second and does not count
    assert not turn.has_come(20.1, AFTER)
    assert turn.has_come(20.3, AFTER)


def test_what_is_no_decision_waits_until_it_is_quiet(turn: Turn) -> None:
    """While updates are missing there is only tidying to do, and whoever is well does that."""
    turn.heard(5.0)

    assert not turn.has_come(14.9, AFTER)
    assert turn.has_come(15.0, AFTER)


def test_who_leads_waits_for_nobody(judge: Judge, turn: Turn) -> None:
    """Whatever was heard a moment ago."""
    turn.heard(5.0)
    turn.wrote(Heartbeat(run="", process="a", role="x", at=0.0, in_work=(), waits=()), "x", [1])
    judge.can_decide = True

    assert turn.has_come(5.0, 0.0)
