"""The aggregator's flows: how rounds open and close, how the head grows, and what is let go."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.aggregator import Aggregator
from infra.promises import Arrived, Place, Trim
from infra.shelf import Shelf
from schemas.codec import LENGTH, Record, cut, pack
from schemas.errors import ConfigurationError, Diverged, RunFailed
from schemas.messages import (
    GlobalModel,
    HeadGrown,
    Look,
    ModelUpdate,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
    StageClosed,
)
from schemas.tensors import model_sha256
from schemas.updates import NOTHING_TO_TRAIN_ON
from tests.aggregator.desk import (
    CLASSES,
    MODELS,
    NAMES,
    ROOM,
    ROUNDS,
    TEACHERS,
    UPDATES,
    Desk,
    changed,
)
from tests.schemas.specimens import NORTH, SOUTH, model

KINDS_OF_A_STAGE = ["HeadGrown", *["RoundOpened", "RoundClosed"] * 2, "StageClosed"]


def kinds(desk: Desk) -> list[str]:
    """What was decided, by kind."""
    return [decision.kind() for decision in desk.rounds]


# --- the run begins -------------------------------------------------------------------------------


def test_the_first_model_is_in_the_log_before_the_run_is_opened() -> None:
    """Version 0 has a head without rows, and RunOpened names it by its hash."""
    desk = Desk()
    (opened,) = desk.rounds
    (first,) = desk.read(MODELS)

    assert isinstance(opened, RunOpened)
    assert isinstance(first, GlobalModel)
    assert (first.version, first.run) == (0, pack(opened).hash)
    assert first.groups["model"]["fc.weight"].shape[0] == 0
    assert opened.model.sha256 == model_sha256(first.groups["model"])
    assert desk.waits == ["verdicts of stage 0 by local/north, local/south"]


def test_who_was_not_told_how_to_open_a_run_waits_for_it() -> None:
    """A standby that joins a federation; then it goes on like any other."""
    desk = Desk(aggregators=0)
    opening, desk.opening = desk.opening, None
    desk.sit_down()
    desk.settle()
    assert desk.waits == ["RunOpened"]
    assert desk.read(ROUNDS) == []

    desk.sit_down(opening)
    desk.settle()
    assert desk.waits == ["verdicts of stage 0 by local/north, local/south"]


# --- growth ---------------------------------------------------------------------------------------


def test_a_stage_begins_when_every_entity_was_judged() -> None:
    """Also who found nothing new gives a verdict: it says that the twin is ready."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.judge(NORTH, 0, "0", "1")
    assert kinds(desk) == ["RunOpened"]
    assert desk.waits == ["verdicts of stage 0 by local/south"]

    desk.judge(SOUTH, 0)
    assert kinds(desk) == ["RunOpened", "HeadGrown", "RoundOpened"]
    assert desk.waits == ["updates of round 0.0 by local/north, local/south"]


@pytest.mark.parametrize("first", ["north", "south"])
def test_rows_are_given_in_the_order_of_uids_whoever_is_judged_first(first: str) -> None:
    """Numbers by value, then all others by their bytes: 2, 9, 10, cat, dog."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    verdicts = [(NORTH, ("9", "10", "dog")), (SOUTH, ("2", "9", "cat"))]
    for entity, uids in verdicts if first == "north" else verdicts[::-1]:
        desk.judge(entity, 0, *uids)
    grown = desk.rounds[1]

    assert isinstance(grown, HeadGrown)
    assert grown.rows == {"2": 0, "9": 1, "10": 2, "cat": 3, "dog": 4}
    assert dict(grown.prototypes) == {NORTH: ("9", "10", "dog"), SOUTH: ("2", "9", "cat")}
    assert desk.model(grown.model)["fc.weight"].shape[0] == 5


def test_only_the_head_changes_when_the_head_grows() -> None:
    """Old rows and all other tensors keep their bytes, also in the second stage."""
    desk = Desk()
    desk.begin()
    desk.round(1.0, 1.0)
    desk.round(1.0, 1.0)
    before = desk.model(desk.aggregator.line.model or model(0))
    desk.choose(1)
    desk.begin(1)
    after = desk.model(desk.open_round.base)

    assert after["fc.weight"].shape[0] == 4
    assert after["fc.weight"][:2].tobytes() == before["fc.weight"].tobytes()
    assert all(
        after[name].tobytes() == before[name].tobytes() for name in before if "fc" not in name
    )


def test_a_class_that_has_a_row_gets_no_second_one() -> None:
    """New to the south in stage 1, known to the model since stage 0."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.judge(NORTH, 0, "0", "1")
    desk.judge(SOUTH, 0)
    desk.round()
    desk.round()
    desk.choose(1)
    desk.judge(NORTH, 1)
    desk.judge(SOUTH, 1, "0")

    assert kinds(desk)[-2:] == ["StageClosed", "RoundOpened"]
    assert desk.aggregator.line.rows == {"0": 0, "1": 1}


# --- rounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
def test_a_round_averages_what_the_twins_learned(wire: str) -> None:
    """Two twins learn +1 from 30 images and +5 from 10: the next model is at (30 + 50) / 40 = 2."""
    desk = Desk(agg_weight="samples", wire=wire)
    desk.begin(north=30, south=10)
    opened, base = desk.open_round, desk.model(desk.open_round.base)
    desk.round(1.0, 5.0)
    closed = desk.rounds[-2]

    assert [each.weight for each in opened.participants] == [30, 10]
    assert isinstance(closed, RoundClosed)
    assert [entity for entity, _ in closed.counted] == [NORTH, SOUTH]
    after = desk.model(closed.model)
    assert (after["bn1.weight"] - base["bn1.weight"]).tolist() == [2.0]
    for name in after:
        moved = 1 if after[name].dtype.kind == "i" else 2.0
        assert after[name] - base[name] == pytest.approx(
            moved, abs=0.02 if wire == "bf16" else 1e-6
        )


def test_each_twin_counts_the_same_unless_images_are_counted() -> None:
    """agg_weight=uniform: (1 + 5) / 2 = 3, whatever they trained on."""
    desk = Desk()
    desk.begin(north=30, south=10)
    base = desk.model(desk.open_round.base)
    desk.round(1.0, 5.0)
    closed = desk.rounds[-2]

    assert isinstance(closed, RoundClosed)
    assert (desk.model(closed.model)["bn1.weight"] - base["bn1.weight"]).tolist() == [3.0]


def test_a_twin_without_images_still_counts_once() -> None:
    """A weight of 0 would be no participant at all."""
    desk = Desk(agg_weight="samples")
    desk.begin(north=0, south=10)

    assert [each.weight for each in desk.open_round.participants] == [1, 10]


def test_a_round_waits_for_every_participant_and_no_longer() -> None:
    """One has answered, the other without content: the mean is of the one."""
    desk = Desk()
    desk.begin()
    base, north = desk.model(desk.open_round.base), desk.update(NORTH, 1.0)
    silent = desk.nothing(SOUTH, "no image to train on")
    desk.answer(north)
    assert kinds(desk)[-1] == "RoundOpened"
    assert desk.waits == ["updates of round 0.0 by local/south"]

    desk.answer(silent)
    closed = desk.rounds[-2]
    assert isinstance(closed, RoundClosed)
    assert closed.counted == ((NORTH, pack(north).hash),)
    assert closed.withheld == ((SOUTH, "no image to train on"),)
    assert (desk.model(closed.model)["bn1.weight"] - base["bn1.weight"]).tolist() == [1.0]


def test_a_round_in_which_all_answers_come_without_content_keeps_the_model() -> None:
    """It closes under the version that it was opened with, and no model is published."""
    desk = Desk()
    desk.begin()
    opened = desk.open_round
    desk.answer(desk.nothing(NORTH), desk.nothing(SOUTH))
    closed, after = desk.rounds[-2:]

    assert isinstance(closed, RoundClosed)
    assert isinstance(after, RoundOpened)
    assert (closed.model, closed.counted) == (opened.base, ())
    assert (after.round, after.base) == (1, opened.base)
    assert [each.identity for each in desk.read(MODELS)] == ["GlobalModel/1"]


def test_two_such_rounds_end_the_run_as_diverged() -> None:
    """One line names stage, round, learning rate and tensor, and a remedy; so does a resume."""
    desk = Desk(learning_rate=0.75)
    desk.begin()
    desk.answer(desk.nothing(NORTH), desk.nothing(SOUTH))
    last = [desk.nothing(NORTH), desk.nothing(SOUTH, "not-finite: conv1.weight[4] is inf")]
    with pytest.raises(Diverged) as caught:
        desk.answer(*last)

    said = str(caught.value)
    assert said.startswith("diverged: stage 0, round 1, learning rate 0.75: ")
    assert "local/north: not-finite: fc.weight[0] is nan" in said
    assert "smaller learning_rate" in said
    desk.sessions.clear()
    desk.sit_down()
    with pytest.raises(Diverged, match="stage 0, round 1"):
        desk.settle()


def test_two_rounds_without_an_image_end_the_run_and_blame_no_learning_rate() -> None:
    """Nobody announced a class: the remedy is in n_lab and images_per_class, which are named."""
    desk = Desk(n_lab=8, images_per_class=5)
    desk.join(NORTH, SOUTH)
    desk.judge(NORTH)
    desk.judge(SOUTH)
    desk.answer(*(desk.nothing(each, NOTHING_TO_TRAIN_ON) for each in (NORTH, SOUTH)))
    last = [desk.nothing(each, NOTHING_TO_TRAIN_ON) for each in (NORTH, SOUTH)]
    with pytest.raises(RunFailed) as caught:
        desk.answer(*last)

    said = str(caught.value)
    assert not isinstance(caught.value, Diverged)
    assert said.startswith("nothing to train on: stage 0, round 1: ")
    assert "0 classes were announced" in said
    assert "n_lab (8)" in said
    assert "images_per_class is 5" in said
    assert "learning_rate" not in said


def test_a_run_of_which_one_training_fails_is_told_by_that_one() -> None:
    """The north never has an image; the south's numbers are the reason."""
    desk = Desk()
    desk.begin()
    desk.answer(desk.nothing(NORTH, NOTHING_TO_TRAIN_ON), desk.nothing(SOUTH, "fc.bias[0] is nan"))
    last = [desk.nothing(each, NOTHING_TO_TRAIN_ON) for each in (NORTH, SOUTH)]

    with pytest.raises(Diverged, match=r"local/south: fc\.bias\[0\] is nan"):
        desk.answer(*last)


def test_one_content_in_between_and_the_run_goes_on() -> None:
    """Twice in a row is diverged; twice with a model between is not."""
    desk = Desk(rounds_per_stage=3)
    desk.begin()
    desk.answer(desk.nothing(NORTH), desk.nothing(SOUTH))
    desk.round()
    desk.answer(desk.nothing(NORTH), desk.nothing(SOUTH))

    assert isinstance(desk.last, StageClosed)
    assert len(desk.last.candidates) == 2


# --- updates that may not be counted --------------------------------------------------------------

NAN = np.full((1,), np.nan, "<f4")
Bad = Callable[[Desk], ModelUpdate]


def with_tensor(name: str, tensor: Any) -> Bad:
    """An update of the north in which one tensor is another."""
    return lambda desk: desk.update(
        NORTH, groups=changed(desk.update(NORTH, 1.0).groups, name, tensor)
    )


BAD: dict[str, tuple[str, Bad]] = {
    "a base that is not the round's": (
        "wrong-base",
        lambda desk: desk.update(NORTH, base=model(0)),
    ),
    "another shape": ("wrong-shape", with_tensor("bn1.weight", np.ones(2, "<f4"))),
    "another dtype": ("wrong-dtype", with_tensor("bn1.weight", np.ones(1, "<f8"))),
    "a tensor too many": ("wrong-shape", with_tensor("extra", np.ones(1, "<f4"))),
    "no tensor at all": ("wrong-shape", lambda desk: desk.update(NORTH, groups={})),
    "a group of its own": (
        "wrong-shape",
        lambda desk: desk.update(NORTH, groups=desk.update(NORTH).groups | {"own": {"x": NAN}}),
    ),
    "a number that is none": ("not-finite", with_tensor("bn1.weight", NAN)),
    "a number out of range": ("out-of-range", with_tensor("bn1.bias", np.full(1, 2.0**31, "<f4"))),
    "content, and a reason to have none": (
        "unreadable",
        lambda desk: desk.update(NORTH, 1.0, reason="also"),
    ),
    "an entity of another site": (
        "unknown-entity",
        lambda desk: desk.update("abroad/north", 1.0),
    ),
    "an entity that takes no part": ("unknown-entity", lambda desk: desk.update("local/west", 1.0)),
    "another run": ("out-of-line", lambda desk: desk.update(NORTH, 1.0, run="9" * 64)),
    "an answer to no round": ("closed-round", lambda desk: desk.update(NORTH, 1.0, opened=1)),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_bad_update_answers_nothing_and_silences_nobody(what: str, when: str) -> None:
    """It goes to the dead letters with its reason; the true sender's answer is what counts."""
    desk = Desk()
    desk.begin()
    reason, make = BAD[what]
    bad, true = make(desk), desk.update(NORTH, 1.0)
    desk.answer(*((bad, true) if when == "before" else (true, bad)))
    assert desk.waits == ["updates of round 0.0 by local/south"]

    desk.answer(desk.update(SOUTH, 1.0))
    closed = desk.rounds[-2]
    assert isinstance(closed, RoundClosed)
    assert dict(closed.counted)[NORTH] == pack(true).hash
    assert desk.letters == [(reason, bad.identity)]


def test_a_bad_update_says_in_its_dead_letter_which_number_of_which_tensor() -> None:
    """A reference and the reason: what it held is not in there."""
    desk = Desk()
    desk.begin()
    desk.answer(BAD["a number that is none"][1](desk))
    (letter,) = desk.read("fedtwin.story.dead-letters")
    (stored,) = desk.stored(UPDATES)

    shown = letter.header()
    assert (shown["topic"], shown["offset"]) == (UPDATES, stored.offset)
    assert shown["detail"] == "bn1.weight[0] is nan"
    assert shown["hash"] == stored.record.headers["ce_id"]


def test_a_round_that_is_closed_takes_no_answer_any_more() -> None:
    """What was counted comes again in silence; another answer is too late, and said to be."""
    desk = Desk()
    desk.begin()
    north, other, south = desk.update(NORTH, 1.0), desk.update(NORTH, 2.0), desk.nothing(SOUTH)
    desk.answer(north, south, north, south)
    assert desk.letters == []

    desk.answer(north, south, desk.nothing(SOUTH).model_copy(update={"opened": north.opened}))
    assert desk.letters == []

    desk.answer(other)
    assert desk.letters == [("closed-round", other.identity)]


def test_of_two_answers_of_one_entity_the_first_valid_one_counts() -> None:
    """Both are valid, so neither is set aside, and the sums hold one of them."""
    desk = Desk()
    desk.begin()
    base = desk.model(desk.open_round.base)
    first, second = desk.update(NORTH, 1.0), desk.update(NORTH, 3.0)
    desk.answer(first, second, desk.nothing(NORTH), first, desk.update(SOUTH, 1.0))
    closed = desk.rounds[-2]

    assert isinstance(closed, RoundClosed)
    assert dict(closed.counted)[NORTH] == pack(first).hash
    assert (desk.model(closed.model)["bn1.weight"] - base["bn1.weight"]).tolist() == [1.0]
    assert desk.letters == []


def test_an_answer_to_a_round_that_no_run_has_is_set_aside_at_once() -> None:
    """Nobody waits for decision 2^50; the twin's true answer counts as ever."""
    desk = Desk()
    desk.begin()
    far = desk.update(NORTH, opened=2**50)
    desk.answer(far)

    assert desk.letters == [("out-of-line", far.identity)]
    desk.round()
    assert isinstance(desk.rounds[-2], RoundClosed)


def test_an_answer_to_a_round_that_never_comes_is_set_aside_when_the_run_is_over() -> None:
    """An injection might have brought it; at the end the letter says what it waited for."""
    desk = Desk(keep_rounds="all")
    desk.begin()
    ahead = desk.update(NORTH, opened=500)
    desk.answer(ahead)
    assert desk.letters == []

    desk.round()
    desk.round()
    desk.choose(1)
    desk.begin(1)
    desk.round()
    desk.round()

    assert desk.aggregator.over
    assert desk.letters == [("out-of-line", ahead.identity)]


def test_an_answer_waits_for_the_decision_that_it_answers() -> None:
    """Topics merge as they like: an update may be read before the RoundOpened that it names."""
    desk = Desk()
    desk.begin()
    early = [desk.update(NORTH, 1.0), desk.update(SOUTH, 1.0)]
    ahead = desk.update(NORTH, opened=99)
    late = Desk(aggregators=0)
    for update in (*early, ahead):
        late.write(UPDATES, update)
    late.sit_down()
    late.join(NORTH, SOUTH)
    for entity in (NORTH, SOUTH):
        late.judge(entity, 0, "0", "1")

    assert kinds(late) == ["RunOpened", *KINDS_OF_A_STAGE[:4]]
    assert late.letters == []


# --- stages ---------------------------------------------------------------------------------------


def test_a_whole_run_goes_through_its_stages() -> None:
    """Each grows, has its rounds and ends; behind the last there is nothing left to wait for."""
    desk = Desk()
    desk.whole_run()

    assert kinds(desk) == ["RunOpened", *KINDS_OF_A_STAGE * 2]
    assert desk.aggregator.over
    assert desk.waits == ["an injection"]
    assert desk.letters == []


def test_the_next_stage_waits_for_its_teacher_and_names_it_in_every_round() -> None:
    """No teacher in stage 0, and the chosen version in stage 1."""
    desk = Desk()
    desk.begin()
    assert desk.open_round.teacher is None
    desk.round()
    desk.round()
    desk.begin(1)
    assert desk.waits == ["the teacher of stage 1"]

    choice = desk.choose(1)
    assert desk.open_round.teacher == choice.teacher
    desk.round()
    assert desk.open_round.teacher == choice.teacher


def test_a_method_without_a_teacher_names_none() -> None:
    """FedAvg waits for the choice all the same: everyone acts on the same decisions."""
    desk = Desk(strategy="fedavg")
    desk.begin()
    assert isinstance(desk.rounds[1], HeadGrown)
    assert desk.rounds[1].prototypes == ()
    desk.round()
    desk.round()
    desk.choose(1)
    desk.begin(1)

    assert desk.open_round.teacher is None


@pytest.mark.parametrize(("warmup", "candidates"), [(0, 3), (1, 2), (2, 1), (9, 1)])
def test_only_models_behind_the_warm_up_become_candidates(warmup: int, candidates: int) -> None:
    """Of three rounds; at least the last one's model is scored."""
    desk = Desk(rounds_per_stage=3, warmup=warmup)
    desk.begin()
    versions = []
    for _ in range(3):
        desk.round(0.5, 0.5)
        versions.append(desk.aggregator.line.model)
    closed = desk.last

    assert isinstance(closed, StageClosed)
    assert list(closed.candidates) == versions[-candidates:]
    assert closed.last == versions[-1]


def test_the_rate_follows_its_schedule_within_each_stage() -> None:
    """Cosine over two rounds: all of it, then half."""
    desk = Desk(lr_schedule="cosine", learning_rate=0.5)
    desk.whole_run()

    rates = [each.learning_rate for each in desk.rounds if isinstance(each, RoundOpened)]
    assert rates == [0.5, 0.25, 0.5, 0.25]


def test_an_injection_adds_a_stage_to_a_run_that_was_over() -> None:
    """It waits for the entity that it names, is taught by what the proxy chooses, and grows."""
    desk = Desk()
    desk.whole_run()
    added = StageAdded(
        run=desk.run,
        number=len(desk.rounds),
        looks=(Look(entity=SOUTH, source="burst", count=4),),
    )
    desk.write(ROUNDS, added)
    desk.settle()
    assert desk.waits == ["verdicts of stage 2 by local/south"]

    desk.judge(SOUTH, 2, "4")
    desk.settle()
    assert desk.waits == ["the teacher of stage 2"]
    desk.choose(2)
    grown, opened = desk.rounds[-2:]
    assert isinstance(grown, HeadGrown)
    assert isinstance(opened, RoundOpened)
    assert (grown.rows, grown.prototypes) == ({"4": 4}, ())
    assert [each.entity for each in opened.participants] == [NORTH, SOUTH]
    desk.round()
    desk.round()
    assert desk.aggregator.over


# --- more than one aggregator ---------------------------------------------------------------------


def decided(desk: Desk) -> list[str]:
    """The hashes of the decisions that count, in order."""
    line = desk.aggregator.line
    return [pack(line.decisions[number]).hash for number in range(line.number + 1)]


def test_a_second_aggregator_changes_nothing() -> None:
    """Both read the same and decide the same bytes; which came first makes no difference."""
    alone, together = Desk(), Desk(aggregators=2)
    alone.whole_run()
    together.whole_run()

    assert decided(together) == decided(alone)
    assert [each.role.over for each in together.sessions] == [True, True]
    assert {pack(each).hash for each in together.read(ROUNDS)} == set(decided(alone))


@settings(deadline=None, max_examples=10)
@given(st.randoms(use_true_random=False))
def test_nor_do_three_that_come_in_any_order_and_die(chance: random.Random) -> None:
    """Steps in any order; one is gone in the middle, and another begins from the log alone."""
    alone, many = Desk(rounds_per_stage=1), Desk(rounds_per_stage=1, aggregators=2)
    alone.whole_run()

    def any_order(sessions: list[Any]) -> list[Any]:
        if chance.random() < 0.05:
            del sessions[1]
            many.sit_down()
        return chance.sample(sessions, chance.randint(1, len(sessions)))

    for stage in range(2):
        if stage:
            many.choose(stage)
        many.begin(stage)
        opened = many.open_round
        for update in (many.update(NORTH, 0.5), many.update(SOUTH, 0.25)):
            many.write(UPDATES, update)
            for _ in range(chance.randint(0, 6)):
                many.settle(any_order)
        many.settle()
        assert many.last.number > opened.number

    assert decided(many) == decided(alone)


def test_who_begins_anew_goes_on_where_the_log_ends() -> None:
    """Killed when one of two answers was there: the other one is all that is asked for."""
    alone, killed = Desk(), Desk()
    alone.whole_run()
    killed.begin()
    killed.answer(killed.update(NORTH, 0.5))
    killed.sessions.clear()
    killed.sit_down()
    killed.settle()

    assert killed.waits == ["updates of round 0.0 by local/south"]
    killed.answer(killed.update(SOUTH, 0.25))
    killed.round(0.5, 0.25)
    killed.choose(1)
    killed.begin(1)
    killed.round(0.5, 0.25)
    killed.round(0.5, 0.25)
    assert decided(killed) == decided(alone)


def test_a_decision_of_somebody_else_in_the_same_place_is_the_one_that_counts() -> None:
    """The operator's StageAdded takes the number; what the aggregator decides then is one later."""
    desk = Desk()
    desk.begin()
    added = StageAdded(run=desk.run, number=3, looks=(Look(entity=SOUTH, source="burst", count=4),))
    desk.write(UPDATES, desk.update(NORTH))
    desk.write(UPDATES, desk.update(SOUTH))
    desk.write(ROUNDS, added)
    desk.settle()

    counted = desk.aggregator.line.decisions
    assert [counted[number].kind() for number in (2, 3, 4, 5)] == [
        "RoundOpened",
        "StageAdded",
        "RoundClosed",
        "RoundOpened",
    ]


# --- what it costs --------------------------------------------------------------------------------


def calls(act: Callable[[], object]) -> int:
    """How many functions of Python run."""
    found = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        found[0] += event == "call"

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found[0]


def test_a_step_in_which_nothing_came_asks_nobody() -> None:
    """However many it waits for, they have been asked when the last message came."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.settle()
    role = desk.aggregator
    (joined, *_) = desk.read(CLASSES)
    role.hear(Arrived(Place(CLASSES, (0,)), pack(joined).hash, joined))

    assert calls(lambda: list(role.answers())) > 10
    assert calls(lambda: list(role.answers())) == 2  # this function's own, and `answers`


def test_a_model_that_was_lost_is_looked_for_in_every_step() -> None:
    """Nobody hears `models`: when its copy is there again, the round opens with no other word."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.judge(NORTH, 0, "0", "1")
    desk.settle()
    lost = desk.stored(MODELS)
    desk.log.forget(MODELS, *(each.record.key for each in lost))
    desk.sessions.clear()
    desk.sit_down()
    desk.judge(SOUTH, 0, "0", "1")
    desk.settle()
    assert "version 0 of the model, which is not in the log" in desk.waits

    desk.log.append(MODELS, [each.record for each in lost])

    assert kinds(desk)[-1] == "RoundOpened"


# --- what is let go -------------------------------------------------------------------------------


def tell_lines(reader: Aggregator, desk: Desk) -> None:
    """Another aggregator hears what was decided."""
    for topic in (ROUNDS, TEACHERS, CLASSES):
        for offset, message in enumerate(desk.read(topic)):
            reader.hear(Arrived(Place(topic, (offset,)), pack(message).hash, message))


@pytest.mark.parametrize(("keep", "rounds_left"), [(1, 2), (2, 3), ("all", 5)])
def test_of_updates_only_those_of_the_newest_rounds_are_kept(keep: Any, rounds_left: int) -> None:
    """Of five rounds: as many closed ones as asked for, and the open one's."""
    desk = Desk(rounds_per_stage=5, keep_rounds=keep)
    desk.begin()
    numbers = []
    for _ in range(4):
        numbers.append(desk.open_round.number)
        desk.round()
    numbers.append(desk.open_round.number)
    desk.answer(desk.update(NORTH))

    left = {each.opened for each in desk.read(UPDATES) if isinstance(each, ModelUpdate)}
    assert sorted(left) == numbers[-rounds_left:]


def test_no_more_rounds_are_kept_when_a_stage_is_over() -> None:
    """Its last round is closed and none is open: of three rounds the newest one's are left."""
    desk = Desk(rounds_per_stage=3)
    desk.begin()
    for _ in range(3):
        last = desk.open_round.number
        desk.round()

    assert kinds(desk)[-1] == "StageClosed"
    assert {each.opened for each in desk.read(UPDATES) if isinstance(each, ModelUpdate)} == {last}


def test_what_nobody_trimmed_before_a_crash_is_trimmed_after_it() -> None:
    """The stage is over, and three rounds' updates lie in the log: an aggregator begins anew."""
    desk = Desk(rounds_per_stage=3, keep_rounds=2)
    desk.begin()
    sent = []
    for _ in range(3):
        updates = [desk.update(NORTH), desk.update(SOUTH)]
        sent += updates
        desk.answer(*updates)
    reader = Aggregator(NAMES, ["local"], None, Shelf(desk.log, MODELS, ROOM))
    tell_lines(reader, desk)
    for offset, update in enumerate(sent):
        reader.hear(Arrived(Place(UPDATES, (offset,)), pack(update).hash, update))

    assert list(reader.answers()) == [Trim(UPDATES, 2)]


def test_nothing_is_trimmed_where_nothing_tells_what_the_open_round_needs() -> None:
    """Of the newest closed round no answer lies in the topic: its pieces may be the open one's."""
    desk = Desk(rounds_per_stage=3)
    desk.begin()
    first = [desk.update(NORTH), desk.update(SOUTH)]
    desk.answer(*first)
    desk.round()
    newest = desk.update(NORTH)
    reader = Aggregator(NAMES, ["local"], None, Shelf(desk.log, MODELS, ROOM))
    tell_lines(reader, desk)
    for offset, update in enumerate([*first, newest]):
        reader.hear(Arrived(Place(UPDATES, (offset,)), pack(update).hash, update))

    assert not [answer for answer in reader.answers() if isinstance(answer, Trim)]


def test_an_update_that_had_to_wait_is_not_trimmed_with_what_lies_before_it() -> None:
    """The answer that lies first was heard last; it belongs to a round that is kept."""
    desk = Desk(rounds_per_stage=3)
    desk.begin()
    sent = []
    for _ in range(2):
        updates = [desk.update(NORTH), desk.update(SOUTH)]
        sent += updates
        desk.answer(*updates)
    reader = Aggregator(NAMES, ["local"], None, Shelf(desk.log, MODELS, ROOM))
    tell_lines(reader, desk)
    for offset, update in reversed(list(enumerate(sent))):
        reader.hear(Arrived(Place(UPDATES, (offset,)), pack(update).hash, update))

    trims = [answer for answer in reader.answers() if isinstance(answer, Trim)]
    assert trims == [Trim(UPDATES, 2)]


def left_of_models(desk: Desk) -> list[int]:
    """Versions whose model is still in the log."""
    desk.settle()
    return sorted({int(each.record.key.partition("/")[0]) for each in desk.stored(MODELS)})


def test_old_models_are_let_go_but_for_the_best_and_the_last_of_a_stage() -> None:
    """Of stage t, version 3t + 1 is the grown one, 3t + 2 and 3t + 3 closed its two rounds."""
    desk = Desk(stages=4, classes=8)
    desk.begin()
    desk.round()
    assert left_of_models(desk) == [1, 2]

    desk.round()
    for stage in (1, 2):
        desk.choose(stage)
        desk.begin(stage)
        desk.round(0.5, 0.5)
        desk.round(0.5, 0.5)
    desk.choose(3)
    desk.begin(3)
    # Stage 0 left its teacher (2) and its last (3), stage 1 likewise (5 and 6); stage 2 is whole.
    assert left_of_models(desk) == [2, 3, 5, 6, 7, 8, 9, 10]


def test_a_model_that_lost_its_race_is_let_go() -> None:
    """Somebody published another version 1; no decision ever named it."""
    desk = Desk()
    desk.settle()
    (first,) = desk.read(MODELS)
    assert isinstance(first, GlobalModel)
    loser = first.model_copy(update={"version": 1})
    name = model(1, "f")
    records = [Record(f"{name.key}/0", pack(loser).pieces[0])]
    desk.log.append(MODELS, records)
    desk.begin()

    keys = {each.record.key.rpartition("/")[0] for each in desk.stored(MODELS)}
    assert name.key not in keys
    assert desk.open_round.base.key in keys


def test_a_model_that_is_in_the_log_already_is_not_published_again() -> None:
    """Its author died between content and decision; who decides now finds it there."""
    author, heir = Desk(), Desk()
    author.begin()
    (record,) = [each.record for each in author.stored(MODELS) if each.record.key.startswith("1/")]
    heir.settle()
    heir.log.append(MODELS, [record])
    heir.begin()

    assert [each.record for each in heir.stored(MODELS)] == [record]
    assert decided(heir) == decided(author)


def test_without_the_newest_model_nothing_is_decided() -> None:
    """It is gone from the log, as in an aggregator's eyes that has not read the decision behind it.

    What is missing is said, and the answers wait; put back, the run goes on as if nothing was.
    """
    desk = Desk()
    desk.begin()
    (lost,) = desk.stored(MODELS)
    answers = [desk.update(NORTH, 1.0), desk.update(SOUTH, 1.0)]
    desk.log.forget(MODELS, lost.record.key)
    desk.sessions.clear()
    desk.sit_down()
    desk.answer(*answers)
    assert desk.waits == ["version 1 of the model, which is not in the log"]
    assert desk.letters == []

    desk.log.append(MODELS, [lost.record])
    assert kinds(desk)[-2:] == ["RoundClosed", "RoundOpened"]


def test_content_whose_number_is_not_decided_yet_is_nobodys_to_forget() -> None:
    """A second aggregator may have published version 2 and not yet decided it."""
    desk = Desk()
    desk.settle()
    (first,) = desk.read(MODELS)
    assert isinstance(first, GlobalModel)
    ahead = model(2, "e")
    desk.log.append(MODELS, [Record(f"{ahead.key}/0", pack(first).pieces[0])])
    desk.begin()

    assert f"{ahead.key}/0" in {each.record.key for each in desk.stored(MODELS)}
    desk.round()
    assert f"{ahead.key}/0" not in {each.record.key for each in desk.stored(MODELS)}


# --- what cannot stand, or cannot be read ---------------------------------------------------------


def test_verdicts_and_choices_that_cannot_stand_go_to_the_dead_letters() -> None:
    """Those of `classes` and `rounds` are the aggregator's to set aside, the others the proxy's."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    wrong = desk.verdict(NORTH, 0, "0", model=model(3))
    stranger = desk.verdict("local/west", 0, "0")
    desk.write(CLASSES, wrong)
    desk.write(CLASSES, stranger)
    desk.judge(NORTH, 0, "0", "1")
    desk.judge(SOUTH, 0, "0", "1")
    desk.settle()
    desk.write(ROUNDS, desk.open_round.model_copy(update={"number": 3}))
    desk.round()
    desk.round()
    choice = desk.choose(1).model_copy(update={"number": 1, "stage": 3})
    desk.write(TEACHERS, choice)

    assert desk.letters == [
        ("unknown-entity", stranger.identity),
        ("wrong-base", wrong.identity),
        ("out-of-line", "RoundOpened/3"),
    ]


def frame(kind: str, schema: int, **body: Any) -> Record:
    """An intact record of a message that a newer program writes."""
    header = msgpack.packb({"kind": kind, "schema": schema, "body": body, "tensors": []})
    return Record("k/0", cut(LENGTH.pack(len(header)) + header).pieces[0])


@pytest.mark.parametrize("topic", [ROUNDS, TEACHERS])
@pytest.mark.parametrize(
    ("record", "said"),
    [
        (frame("RoundOpened", 2), "RoundOpened of schema 2; this program reads schema 1"),
        (
            frame("RoundPostponed", 2),
            "'RoundPostponed' of schema 2; this program knows no such kind, and schemas up to 1",
        ),
    ],
)
def test_a_decision_of_a_newer_program_ends_this_one(topic: str, record: Record, said: str) -> None:
    """To pass over it would fork the run: both versions are named, and the exit code is 2."""
    desk = Desk()
    desk.begin()
    desk.log.append(topic, [record])
    with pytest.raises(ConfigurationError) as caught:
        desk.settle()

    assert said in str(caught.value)
    assert "fork" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "reason", "said"),
    [
        ("WindowJudged", "newer-schema", "WindowJudged of schema 2; this program reads schema 1"),
        (
            "EntityMoved",
            "unknown-kind",
            "'EntityMoved' of schema 2; this program knows no such kind, and schemas up to 1",
        ),
    ],
)
def test_a_newer_decision_stops_its_own_entitys_line_alone(
    kind: str, reason: str, said: str
) -> None:
    """The south's verdict counts; the north's behind it does not, and the run says why it waits."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.log.append(CLASSES, [frame(kind, 2, run=desk.run, number=1, entity=NORTH)])
    desk.judge(SOUTH, 0, "0")
    desk.judge(NORTH, 0, "0")
    desk.settle()

    assert desk.letters == [(reason, "?")]
    assert desk.waits == [f"verdicts of stage 0 by local/north (its line stops at {said})"]
    desk.sit_down()
    desk.settle()
    assert kinds(desk) == ["RunOpened"]


def test_a_newer_record_that_names_no_entity_stops_nobody() -> None:
    """It is set aside, and the round opens."""
    desk = Desk()
    desk.join(NORTH, SOUTH)
    desk.log.append(CLASSES, [frame("WindowJudged", 2)])
    desk.judge(SOUTH, 0, "0")
    desk.judge(NORTH, 0, "0")

    assert desk.letters == [("newer-schema", "?")]
    assert isinstance(desk.last, RoundOpened)


def test_bytes_that_are_no_record_are_set_aside() -> None:
    """In every topic that the aggregator owns."""
    desk = Desk()
    desk.begin()
    for topic in (ROUNDS, CLASSES, UPDATES):
        desk.log.append(topic, [Record("junk", b"not a record")])
    desk.round()

    assert sorted(desk.letters) == [("unreadable", "?")] * 3
    assert kinds(desk)[-2:] == ["RoundClosed", "RoundOpened"]
