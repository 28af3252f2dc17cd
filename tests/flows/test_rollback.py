"""An operator goes back to an earlier model, whatever goes on, and everybody goes on from there."""

from __future__ import annotations

import random

import numpy as np
import pytest

from aggregator.aggregator import Aggregator
from experiments.operators import Operator, pause, rollback
from experiments.replay import Replay
from infra.transport.unkind import Unkind
from schemas.errors import ConfigurationError
from schemas.messages import DeadLetter, RoundOpened
from tests.flows.alive import (
    EAST,
    NAMES,
    NORTH,
    SITES,
    SOUTH,
    WEST,
    Alive,
    line_of,
    lively,
    same,
    whim,
)  # fmt: skip
from tests.flows.federation import messages


def begun(**overrides: object) -> Alive:
    """Four twins have found three classes each, and have had their first rounds: version 4."""
    run = Alive(lively(**overrides))
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(11)
    return run


def operator(run: Alive) -> Operator:
    """Who reads and decides."""
    return Operator(run.log, NAMES, everything=True)


def letters(run: Alive) -> list[tuple[str, str]]:
    """What was set aside of updates, and why."""
    return [
        (message.about, message.reason)
        for message, _ in messages(run.log, NAMES.federation("dead-letters"))
        if isinstance(message, DeadLetter)
    ]


def test_the_next_round_begins_on_the_earlier_models_values() -> None:
    """Version 5 has the bytes of version 2, and the stage's next rounds go on from it."""
    run = begun()
    decided = rollback(operator(run), 2)
    run.settle()

    assert (decided.model.version, decided.to.version, decided.closes) == (5, 2, None)
    assert decided.model.sha256 == decided.to.sha256
    assert run.line.model == decided.model
    run.stream(NORTH, "012")
    run.after(1)
    opened = run.line.stages[0].rounds[3].opened
    assert opened.base == decided.model
    assert run.line.model is not None
    assert run.line.model.version == 8
    assert letters(run) == []


def test_an_open_round_ends_uncounted_and_who_answers_it_is_too_late() -> None:
    """North, east and south have answered, west comes back behind the rollback: its answer counts
    nowhere, and it takes part in the next round as if nothing had happened."""
    run = begun()
    west = run.vanish(WEST)
    run.stream(NORTH, "012")
    run.after(1)
    open_round = run.line.open_round
    assert open_round is not None

    decided = rollback(operator(run), 3)
    run.system.sessions.append(west)
    run.after(1)

    assert decided.closes == open_round.number
    assert run.rounds()[3] == ((EAST, NORTH, SOUTH, WEST), None)
    opened = run.line.stages[0].rounds[4].opened
    assert opened.base == decided.model
    assert [who for who, _ in run.rounds()[4:]] == [(EAST, NORTH, SOUTH, WEST)] * 2
    assert all(closed and len(closed.counted) == 4 for _, closed in run.rounds()[4:])


def test_an_answer_to_a_round_that_an_operator_ended_is_no_dead_letter() -> None:
    """Three answered in time, and then the round ended uncounted: an aggregator that begins anew
    reads them behind the rollback, and sets none aside."""
    run = begun()
    run.vanish(WEST)
    run.stream(NORTH, "012")
    run.after(1)
    opened = run.line.open_round
    assert opened is not None
    answers = [update.identity for update, _ in messages(run.log, NAMES.of_site("updates", "a"))]
    assert f"ModelUpdate/{opened.number}/{NORTH}" in answers
    run.vanish("aggregator-0")
    rollback(operator(run), 3)

    run.join(Aggregator(NAMES, SITES, None, run.shelf))
    run.after(1)

    assert letters(run) == []
    assert len(run.rounds()) > 4


def test_an_older_model_gets_the_rows_that_grew_since() -> None:
    """Rows 0 to 2 are its own; row 3 is drawn as it was when it grew; all else keeps its bytes."""
    run = begun()
    run.stream(EAST, "7", 24)
    run.after(11)
    line = run.line
    last = line.stages[0].models[-1]
    grown = line.stages[1].grown
    assert grown is not None
    decided = rollback(operator(run), last.version)
    run.settle()

    back, then = (run.shelf.groups(name)["model"] for name in (decided.model, grown.model))
    assert decided.model.sha256 == grown.model.sha256
    for name, values in then.items():
        np.testing.assert_array_equal(back[name], values)
    assert len(back["fc.bias"]) == 4


def test_a_stage_that_ends_behind_a_rollback_may_be_taught_by_that_model() -> None:
    """It is among the candidates, and the last one."""
    run = begun()
    run.stream(EAST, "7", 24)
    run.settle()  # three more rounds, while others might find something as well
    decided = rollback(operator(run), 2)
    run.after(11)

    closed = run.line.stages[0].closed
    assert closed is not None
    assert closed.last == decided.model
    assert decided.model in closed.candidates
    assert run.teachers[0].teacher in closed.candidates
    assert len(run.rounds(1)) == 3


def test_a_version_that_was_let_go_and_one_that_never_was() -> None:
    """Two stages later the middle of the first is gone; what is there is told."""
    run = begun()
    for uid in "78":
        run.stream(EAST, uid, 24)
        run.after(11)
    reader, newest = operator(run), run.line.model
    assert newest is not None

    with pytest.raises(ConfigurationError, match=r"version 2 was let go\. .* there are ") as told:
        rollback(reader, 2)
    there = [int(each) for each in str(told.value).rsplit("there are ", 1)[1].split(", ")]
    assert {each.version for each in run.line.stages[1].models} <= set(there)
    with pytest.raises(ConfigurationError, match="there was no version 99"):
        rollback(reader, 99)
    with pytest.raises(ConfigurationError, match="is the newest model already") as current:
        rollback(reader, newest.version)
    with pytest.raises(ConfigurationError, match="version 0 is the first weights") as first:
        rollback(reader, 0)
    kept = f"there are {', '.join(map(str, there))}"
    assert str(current.value).endswith(kept)
    assert str(first.value).endswith(kept)
    assert not {0, newest.version} & set(there)
    assert run.line.model == newest
    assert rollback(reader, there[0]).to.version == there[0]


class Second(Operator):
    """An operator before whose decision another one's comes."""

    first = None

    def say(self, topic: str, *more: object) -> None:
        """The other one is quicker, between our content and our decision."""
        if topic.endswith(".rounds") and Second.first is not None:
            first, Second.first = Second.first, None
            first()
        super().say(topic, *more)  # type: ignore[arg-type]


def test_of_two_operators_at_once_one_wins_and_the_other_is_told() -> None:
    """Its content is nobody's, and is let go once a round has opened behind it."""
    run = begun()
    quick, slow = operator(run), Second(run.log, NAMES)
    Second.first = lambda: rollback(quick, 2)  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match=r"has just gone back to version 2, .* version 5"):
        rollback(slow, 3)
    run.stream(NORTH, "012")
    run.after(1)
    assert sum(name.version == 5 for name in run.shelf.names()) == 1


def test_an_aggregator_that_was_quicker_changes_nothing_but_the_number() -> None:
    """A round closes between: the operator decides anew, behind it."""
    run = begun()
    run.stream(NORTH, "012")
    slow = Second(run.log, NAMES)
    Second.first = lambda: run.after(1)  # type: ignore[assignment]
    decided = rollback(slow, 2)

    assert decided.model.version > 5
    assert run.line.decisions[decided.number] == decided
    assert len(run.rounds()) == 6


@pytest.mark.parametrize("keep", ["all", 1])
def test_it_replays_to_the_same_bytes(keep: object) -> None:
    """Also where the model that was gone back to is long gone itself, for it was made anew; where
    sums cannot be redone, its copy is read."""
    run = begun(keep_rounds=keep)
    run.stream(EAST, "7", 24)
    run.after(11)
    rollback(operator(run), run.line.stages[0].models[-1].version)
    run.stream(NORTH, "012")
    run.after(11)
    for uid in "89":
        run.stream(EAST, uid, 24)
        run.after(11)
    rollback(operator(run), run.line.stages[-1].models[0].version)
    run.settle()

    replayed = Replay(run.log, NAMES).fold()
    assert run.line.model is not None
    assert replayed.different == []
    assert replayed.model_sha256 == run.line.model.sha256
    if keep == "all":
        assert replayed.rolled_back == 2
        assert replayed.read == replayed.gone == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_operators_among_copies_over_an_unkind_log_leave_one_history(seed: int) -> None:
    """Rollbacks and pauses at any moment: all roles read the same, and it replays."""
    chance = random.Random(seed)
    run = Alive(
        lively(keep_rounds="all"),
        over=lambda log: Unkind(log, chance, 0.3), copies=2, order=whim(seed),
    )  # fmt: skip
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(11)
    backs = 0
    for uids in ("34", "012", "7", "56"):
        for entity in chance.sample((NORTH, EAST, SOUTH, WEST), 2):
            run.stream(entity, uids, 16)
        for _ in range(chance.randint(1, 60)):
            run.system.step()
        hand = operator(run)
        there = [each.version for each in hand.line.stages[-1].models[:-1]]
        if there and chance.random() < 0.8:
            rollback(hand, chance.choice(there))
            backs += 1
        who = chance.choice((None, EAST))
        pause(hand, who, rests=True)
        run.after(chance.choice((1, 11)))
        pause(operator(run), who, rests=False)
        run.after(61)

    assert backs
    line = run.line
    for role in run.roles.values():
        assert same(line_of(role), line)
    replayed = Replay(run.log, NAMES).fold()
    assert line.model is not None
    assert (replayed.different, replayed.rolled_back) == ([], backs)
    assert replayed.model_sha256 == line.model.sha256
    assert any(isinstance(each, RoundOpened) for each in line.decisions.values())
