"""A federation that does not end: twins join, find classes, train, vanish, rest and leave."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

import schemas.stages
from aggregator import standing
from experiments.replay import Replay
from infra.transport.unkind import Unkind
from proxy.proxy import Proxy
from schemas.codec import records
from schemas.messages import ModelName, ModelUpdate, Paused, Standing, Taken
from schemas.topics import parted
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
)
from tests.flows.federation import messages
from twins.twins import Twins

MODEL = ModelName(version=1, sha256="a" * 64)


def begun() -> Alive:
    """Four twins have found three classes each, and have had their first rounds."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(10)
    return run


def test_the_first_classes_grow_together_and_train() -> None:
    """Nobody says when: enough images are there, others are waited for, and three rounds follow."""
    run = Alive()
    run.settle()
    run.stream(NORTH, "012")
    run.settle()
    assert run.kinds() == ["RunOpened"]  # what it has found waits for others' finds

    run.after(5)
    run.stream(SOUTH, "0134")
    run.after(3)
    assert run.kinds() == ["RunOpened"]

    run.after(2)
    assert run.kinds() == [
        "RunOpened",
        "StageOpened",
        "HeadGrown",
        *["RoundOpened", "RoundClosed"] * 3,
    ]
    assert run.line.rows == {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4}
    assert run.line.marked(0) == (NORTH, SOUTH)
    assert [who for who, _ in run.rounds()] == [(NORTH, SOUTH)] * 3
    assert run.line.model is not None
    assert run.line.model.version == 4


def test_new_classes_close_a_stage_and_the_old_ones_teach() -> None:
    """A twin finds a new class; prototypes come, the proxy chooses, and the next stage begins."""
    run = begun()
    run.stream(EAST, "7", 24)
    run.after(10)

    assert run.line.rows["7"] == 3
    assert [each.stage for each in run.teachers] == [1]
    assert run.line.marked(1) == (EAST,)
    assert run.line.stages[0].closed is not None
    assert len(run.teachers[0].used) == 6
    opened = run.line.stages[1].rounds[0].opened
    assert opened.teacher == run.teachers[0].teacher
    assert len(run.rounds(1)) == 3


def test_what_the_proxy_rebuilt_goes_once_a_teacher_is_chosen() -> None:
    """Over three stages it holds nothing of those that have a teacher, and it chooses on."""
    run = begun()
    for uid in "789":
        run.stream(EAST, uid, 24)
        run.after(11)
    proxy = run.roles["proxy-0"]
    assert isinstance(proxy, Proxy)

    assert [each.stage for each in run.teachers] == [1, 2, 3]
    assert all(each.used and each.scores for each in run.teachers)
    assert proxy.rebuilt == {}


def test_of_a_stage_that_goes_on_for_long_the_newest_models_are_kept_and_may_teach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten rounds, five of which are remembered: the log holds the first, those five and their
    base; of five the last two are scored, behind a warm-up of three."""
    monkeypatch.setattr(schemas.stages, "NEWEST", 5)
    run = Alive(lively(rounds_per_stage=10))
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(11)
    run.settle()
    versions = {model.version for model in run.shelf.names()}
    run.stream(EAST, "7", 24)
    run.after(11)
    first = run.line.stages[0]

    assert [each.version for each in first.models[:10]] == [*range(2, 12)]
    assert {*range(7, 12)} <= versions <= {1, 2, *range(6, 12)}
    assert first.closed is not None
    assert list(first.closed.candidates) == first.models[-2:]
    assert [each.stage for each in run.teachers] == [1]


def test_a_stage_rests_until_new_images_come() -> None:
    """Three rounds, then nothing for an hour; new images of known classes bring three more."""
    run = begun()
    run.after(3600)
    assert len(run.rounds()) == 3

    run.stream(WEST, "012", 8)
    run.after(1)
    assert len(run.rounds()) == 6
    position = {
        part.entity: part.position for part in run.line.stages[0].rounds[5].opened.participants
    }
    assert position[WEST] == 54
    assert position[NORTH] == 30
    assert len(run.line.stages) == 1


def test_a_few_images_wait_until_they_are_marked() -> None:
    """Fewer than n_min are not judged, however long they lie; a mark says that these are all."""
    run = begun()
    run.stream(WEST, "0", 5)
    run.after(600)
    assert run.verdicts.line(WEST).judged == 0

    run.mark(WEST)
    run.after(1)
    assert run.verdicts.line(WEST).judged == 1
    assert run.verdicts.line(WEST).verdicts[1].images == {"0": 5}
    assert len(run.rounds()) == 6


def test_while_what_it_found_has_no_row_a_twin_judges_nothing() -> None:
    """Between a verdict and the first round with its rows come more images: they wait."""
    run = begun()
    run.stream(EAST, "7", 24)
    run.settle()
    run.stream(EAST, "8", 24)
    run.settle()
    assert run.verdicts.line(EAST).judged == 1

    run.after(11)
    assert run.line.rows["7"] == 3
    assert run.verdicts.line(EAST).verdicts[2].classes == ("8",)
    run.after(11)
    assert run.line.rows["8"] == 4
    assert [run.line.marked(stage) for stage in (1, 2)] == [(EAST,), (EAST,)]


def test_one_that_comes_late_with_known_classes_begins_a_stage() -> None:
    """Its classes have rows already: nothing grows, and it has a place of its own in time."""
    run = Alive(entities=(NORTH, EAST, SOUTH, WEST))
    run.settle()
    for entity in (NORTH, EAST):
        run.stream(entity, "012")
    run.after(11)
    run.stream(WEST, "012")
    run.after(11)

    assert run.line.stages[1].grown is None
    assert run.line.marked(1) == (WEST,)
    assert [who for who, _ in run.rounds(1)] == [(EAST, NORTH, WEST)] * 3


def test_who_vanishes_is_left_out_by_a_decision_and_comes_back_by_itself() -> None:
    """A round waits a minute for it, the next does without; back again, it says so."""
    run = begun()
    west = run.vanish(WEST)
    run.stream(NORTH, "012")
    run.after(1)
    assert len(run.rounds()) == 4
    assert run.rounds()[3][1] is None

    run.after(60)
    who, closed = run.rounds()[3]
    assert WEST in who
    assert closed is not None
    assert closed.missing == (WEST,)
    assert {entity for entity, _ in closed.counted} == {EAST, NORTH, SOUTH}
    assert [who for who, _ in run.rounds()[4:]] == [(EAST, NORTH, SOUTH)] * 2

    run.system.sessions.append(west)
    run.settle()
    back = run.verdicts.line(WEST).verdicts[1]
    assert (back.images, back.reason) == ({}, "a round closed without its answer")
    run.stream(NORTH, "012")
    run.after(1)
    assert [who for who, _ in run.rounds()[6:]] == [(EAST, NORTH, SOUTH, WEST)] * 3


def test_below_the_quorum_nobody_is_counted_and_nothing_goes_on() -> None:
    """Of two that are asked one answers: its update is no model. Both back, all goes on."""
    run = Alive(entities=(NORTH, SOUTH))
    run.settle()
    for entity in (NORTH, SOUTH):
        run.stream(entity, "012")
    run.after(11)
    before = run.line.model
    south = run.vanish(SOUTH)
    run.stream(NORTH, "012")
    run.after(61)

    _, closed = run.rounds()[3]
    assert closed is not None
    assert closed.counted == ()
    assert closed.withheld == ((NORTH, "fewer than the quorum of 2 answered"),)
    assert closed.missing == (SOUTH,)
    assert run.line.model == before
    run.after(3600)
    assert len(run.rounds()) == 4

    run.system.sessions.append(south)
    run.after(1)
    assert len(run.rounds()) > 4
    assert run.line.model != before


def test_a_pause_ends_with_the_word_that_ends_it() -> None:
    """One entity rests and the others train; then all rest, and nothing begins."""
    run = begun()
    run.decide(Paused, entity=EAST, rests=True)
    run.settle()
    run.stream(NORTH, "012")
    run.after(1)
    assert [who for who, _ in run.rounds()[3:]] == [(NORTH, SOUTH, WEST)] * 3

    run.decide(Paused, entity=None, rests=True)
    run.settle()
    run.stream(NORTH, "012")
    run.after(600)
    assert len(run.rounds()) == 6

    run.decide(Paused, entity=None, rests=False)
    run.decide(Paused, entity=EAST, rests=False)
    run.after(1)
    assert [who for who, _ in run.rounds()[6:]] == [(EAST, NORTH, SOUTH, WEST)] * 3


@pytest.mark.parametrize("rounds", [0, 3])
def test_while_everybody_rests_no_head_grows(rounds: int) -> None:
    """What was found meanwhile, before a first stage or behind one with rounds, waits for the end
    of the pause; then it grows at once, for it has been collected for long enough."""
    run = begun() if rounds else Alive()
    run.settle()
    run.decide(Paused, entity=None, rests=True)
    run.settle()
    paused = run.kinds()
    for entity in (NORTH, EAST):
        run.stream(entity, "78", 24)
    run.after(600)
    assert run.kinds() == paused
    assert run.verdicts.line(NORTH).pending is not None

    run.decide(Paused, entity=None, rests=False)
    run.after(1)
    assert {"7", "8"} <= run.line.rows.keys()
    assert len(run.line.stages) == (2 if rounds else 1)


def test_who_leaves_takes_no_part_until_it_streams_again() -> None:
    """It says so behind its last image, and its twin decides it."""
    run = begun()
    run.leave(WEST)
    run.settle()
    assert not run.verdicts.line(WEST).here
    run.stream(NORTH, "012")
    run.after(1)
    assert [who for who, _ in run.rounds()[3:]] == [(EAST, NORTH, SOUTH)] * 3

    run.stream(WEST, "01", 12)
    run.after(1)
    assert run.verdicts.line(WEST).here
    assert [who for who, _ in run.rounds()[6:]] == [(EAST, NORTH, SOUTH, WEST)] * 3


def test_who_has_left_stays_away_when_its_twin_begins_anew() -> None:
    """A process that takes over has read no image yet, so nothing tells it that somebody left but
    the line: it says nothing. When the entity streams again it is back, also there."""
    run = begun()
    run.leave(WEST)
    run.settle()
    run.vanish(WEST)
    run.join(Twins(NAMES, parted(WEST)[0], run.shelf, [WEST]))
    run.after(1)
    assert [each.kind() for each in run.lines(WEST)] == [
        "EntityJoined",
        "WindowJudged",
        "EntityLeft",
    ]

    run.stream(WEST, "01", 12)
    run.after(1)
    assert run.verdicts.line(WEST).here


def test_who_was_missed_and_has_left_takes_part_when_it_streams_again() -> None:
    """It left while a round waited for it, and comes back: to say both at once was one word too
    many, and it waited for ever to read the second."""
    run = begun()
    west = run.vanish(WEST)
    run.stream(NORTH, "012")
    run.after(1)
    run.leave(WEST)
    run.after(60)
    run.system.sessions.append(west)
    run.after(1)
    assert not run.verdicts.line(WEST).here
    assert run.verdicts.line(WEST).judged == 0

    run.stream(WEST, "01", 12)
    run.stream(NORTH, "012")
    run.after(1)
    assert run.verdicts.line(WEST).here
    assert WEST in run.rounds()[-1][0]
    assert not messages(run.log, NAMES.federation("dead-letters"))


def test_who_leaves_while_it_is_judged_says_nothing_until_it_is_back() -> None:
    """The others are judged first, and meanwhile its leaving was read: a verdict would be out of
    its line. Back again, it is judged on all that came."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.leave(WEST)
    run.settle()
    assert not run.verdicts.line(WEST).here
    assert run.verdicts.line(WEST).judged == -1
    assert messages(run.log, NAMES.federation("dead-letters")) == []

    run.stream(WEST, "0", 1)
    run.after(1)
    assert run.verdicts.line(WEST).verdicts[0].images == {"0": 11, "1": 10, "2": 10}


def test_prototypes_that_do_not_come_hold_up_no_stage_for_longer_than_the_deadline() -> None:
    """Three twins of stage 0 are expected to send theirs, and one never does."""
    run = Alive(lively(proto_per_class=4))
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(5)
    run.vanish(SOUTH)
    run.after(6)
    run.after(61)
    run.stream(EAST, "7", 24)
    run.after(11)
    assert run.kinds()[-2:] == ["StageClosed", "Standing"]

    run.after(60)
    (teacher,) = run.teachers
    assert {(entity, reason) for entity, _, reason in teacher.withheld} == {
        (SOUTH, "not there by the deadline")
    }
    assert len(teacher.used) == 9
    assert len(run.line.stages) == 2


def test_a_stage_whose_twins_are_gone_does_not_hold_up_the_next() -> None:
    """Two begin a stage and vanish before a round opens; two others make another with theirs."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST):
        run.stream(entity, "012")
    run.settle()
    run.now += 11
    while "HeadGrown" not in run.kinds():
        run.system.step()
    run.decide(Paused, entity=None, rests=True)
    run.settle()
    assert run.kinds() == ["RunOpened", "StageOpened", "HeadGrown", "Paused"]
    run.leave(EAST)
    run.settle()
    run.decide(Paused, entity=None, rests=False)
    for entity in (SOUTH, WEST):
        run.stream(entity, "345")
    run.after(11)
    run.after(61)  # for prototypes that nobody makes, because no round closed

    assert run.line.marked(1) == (SOUTH, WEST)
    assert [who for who, _ in run.rounds(1)] == [(NORTH, SOUTH, WEST)] * 3


@pytest.mark.parametrize("seed", range(6))
def test_copies_in_any_order_over_an_unkind_log_come_to_one_history(seed: int) -> None:
    """Two of each role, steps at random, a log that merges, repeats and delays: what one of them
    decided all of them read, every update is counted once, and who reads later sees the same."""
    chance = random.Random(seed)
    run = Alive(over=lambda log: Unkind(log, chance, 0.3), copies=2, order=whim(seed))
    run.settle()
    for _ in range(6):
        for entity in chance.sample((NORTH, EAST, SOUTH, WEST), 3):
            run.stream(entity, chance.choice(("012", "34", "0156", "7")), chance.randint(4, 16))
        if chance.random() < 0.5:
            run.mark(chance.choice((NORTH, EAST, SOUTH, WEST)))
        run.after(chance.choice((1, 5, 11, 70)))
    for _ in range(10):
        run.after(61)

    line = run.line
    assert line.stages
    for role in run.roles.values():
        assert same(line_of(role), line)
    counted = [
        (closed.opened, entity)
        for stage in line.stages
        for each in stage.rounds
        if (closed := each.closed)
        for entity, _ in closed.counted
    ]
    assert len(counted) == len(set(counted)) > 0
    assert line.model is not None
    assert run.shelf.has(line.model)
    assert Replay(run.log, NAMES).fold().different == []


def test_its_log_replays_to_the_same_bytes() -> None:
    """Every head grown again and every sum made anew, also of a round that missed somebody."""
    run = Alive(lively(keep_rounds="all"))
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(11)
    run.vanish(WEST)
    run.stream(EAST, "7", 24)
    run.decide(Paused, entity=SOUTH, rests=True)
    run.after(61)
    run.after(61)
    run.stream(NORTH, "8", 24)
    run.after(80)

    line = run.line
    closed = [each.closed for stage in line.stages for each in stage.rounds if each.closed]
    assert any(each.missing for each in closed)
    assert len(line.stages) == 3
    replayed = Replay(run.log, NAMES).fold()
    assert line.model is not None
    assert replayed.different == []
    assert replayed.model_sha256 == line.model.sha256
    assert replayed.summed == sum(bool(each.counted) for each in closed) > 5
    assert replayed.grown == 4


def test_updates_do_not_pile_up_where_nobody_asks_for_them() -> None:
    """Of many rounds in three stages, in one of which a twin is missed: the newest one's are left.

    Every decision is made anew all the same, and one sum.
    """
    run = begun()
    run.vanish(WEST)
    for uid in "78":
        run.stream(EAST, uid, 24)
        run.after(11)
        run.after(61)

    rounds = [each for stage in run.line.stages for each in stage.rounds]
    left = {
        message.opened
        for site in SITES
        for message, _ in messages(run.log, NAMES.of_site("updates", site))
        if isinstance(message, ModelUpdate)
    }
    assert len(run.line.stages) == 3
    assert len(rounds) > 9
    assert any(each.closed.missing for each in rounds if each.closed)
    assert left == {rounds[-1].opened.number}
    replayed = Replay(run.log, NAMES).fold()
    assert (replayed.different, replayed.summed) == ([], 1)


def test_behind_each_stage_it_is_told_how_the_run_stands() -> None:
    """Classes, members and how far each has come, versions that are needed; and replay agrees."""
    run = begun()
    run.leave(WEST)
    run.decide(Paused, entity=NORTH, rests=True)
    run.stream(EAST, "7", 24)
    run.after(11)

    (told,) = (each for each in run.line.decisions.values() if isinstance(each, Standing))
    closed = run.line.stages[0].closed
    assert closed is not None
    assert told.number == closed.number + 1
    assert (told.rows, told.stages) == ({"0": 0, "1": 1, "2": 2}, 1)
    assert told.model == closed.last
    members = {each.entity: each for each in told.members}
    assert told.resting == (NORTH,)
    assert not members[WEST].here
    assert members[EAST].classes == ("0", "1", "2", "7")
    assert members[EAST].taken == Taken(stage=0, opened=1, moment=0)
    assert members[EAST].number == 2
    assert all(run.shelf.has(name) for name in told.kept)
    assert Replay(run.log, NAMES).fold().different == []


def test_it_is_told_when_much_has_happened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every five decisions here, a thousand else; never in the middle of a round."""
    monkeypatch.setattr(standing, "EVERY", 5)
    run = begun()
    for _ in range(3):
        run.stream(NORTH, "012")
        run.after(1)

    kinds = run.kinds()
    told = [number for number, kind in enumerate(kinds) if kind == "Standing"]
    assert len(told) >= 4
    assert {after - before for before, after in pairwise(told)} <= {6, 7}
    assert "RoundOpened" not in {kinds[number - 1] for number in told}
    assert Replay(run.log, NAMES).fold().different == []


@pytest.mark.parametrize("wrong", [{"kept": ()}, {"teachers": (MODEL,)}, {"classes": ("8",)}])
def test_a_replay_sees_that_it_was_told_otherwise(wrong: dict[str, object]) -> None:
    """What the line alone cannot say: versions, other lines, what an entity had announced."""
    run = begun()
    run.stream(EAST, "7", 24)
    run.settle()
    verdicts, line = run.verdicts, run.line
    true = standing.standing(line, verdicts, (), standing.reached(verdicts))
    if "classes" in wrong:
        members = tuple(each.model_copy(update=wrong) for each in true.members)
        wrong = {"members": members}
    false = true.model_copy(update=wrong)
    run.log.append(NAMES.federation("rounds"), records(false, source="hands")[1])
    run.after(11)

    assert run.line.decisions[false.number] == false
    assert f"decision {false.number}: Standing" in Replay(run.log, NAMES).fold().different
