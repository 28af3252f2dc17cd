"""A live twin that finds nothing new for weeks: how much of its stream it holds (method.md 3.4)."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest

from infra.transport.unkind import Unkind
from schemas.configuration import Configuration
from schemas.messages import (
    ExemplarImage,
    GlobalModel,
    ImageBatch,
    ModelUpdate,
    RoundOpened,
    TwinState,
)  # fmt: skip
from schemas.topics import parted
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, Alive, lively, whim
from tests.flows.federation import messages
from tests.flows.learner import FAKES
from tests.flows.test_held_out import Seen, diary, tenths
from twins.shared import bounded
from twins.twins import Twins

KEPT = 400
MOST = KEPT + KEPT // 2
"""Images that a twin is not done with, up to what its newest round looked at."""
EACH = 250
"""Images that come at once."""


def held(run: Alive, entity: str) -> int:
    """Images of an entity's stream that are in the log."""
    stream = (message for message, _ in messages(run.log, NAMES.of_entity("samples", entity)))
    return sum(len(each.classes) for each in stream if isinstance(each, ImageBatch))


def states(run: Alive, entity: str) -> list[TwinState]:
    """What the log holds of a twin's states."""
    return [each for each in diary(run, entity) if isinstance(each, TwinState)]


def streamed(run: Alive, times: int) -> list[bytes]:
    """Two twins find three classes; then nothing new comes for so long, and of class 2 nothing.

    Gives the images of the second, in their order.
    """
    run.settle()
    run.stream(NORTH, "012", 10)
    sent = [*run.stream(EAST, "012", 10)]
    run.after(11)
    for _ in range(times):
        run.stream(NORTH, "01", EACH // 2)
        sent += [*run.stream(EAST, "01", EACH // 2)]
        run.after(1)
    return [image.tobytes() for image in sent]


@cache
def long_run() -> tuple[Alive, Seen, list[bytes]]:
    """Ten thousand images of two classes."""
    seen = Seen()
    run = Alive(
        lively(keep_images=KEPT, rounds_per_stage=2),
        entities=(NORTH, EAST),
        functions=seen.functions,
    )
    return run, seen, streamed(run, 40)


@pytest.mark.slow
def test_after_ten_thousand_images_the_log_holds_some_hundred() -> None:
    """One and a half times `keep_images` at most, what lies in the oldest batch before them, and
    what came since the newest round."""
    run, _, sent = long_run()
    assert len(sent) == 10_030
    assert len(run.line.stages) == 1

    for entity in (NORTH, EAST):
        assert KEPT <= held(run, entity) <= MOST + 2 * EACH
        twins = run.roles[entity]
        assert isinstance(twins, Twins)
        assert dict(twins.tells())[f"buffered {entity}"] == held(run, entity)
        (state,) = states(run, entity)
        assert state.since >= 10_030 - MOST - EACH
        assert state.stage == 0


@pytest.mark.slow
def test_of_what_was_let_go_the_best_are_remembered_and_no_more() -> None:
    """A memory of twelve, three classes: four of each, also of the one that came on the first day.

    Beside them lie the images that are kept apart; nothing else was left behind.
    """
    run, _, _ = long_run()
    (state,) = states(run, EAST)
    pictures = Counter((each.source, each.image) for each in diary(run, EAST)
                       if isinstance(each, ExemplarImage))  # fmt: skip

    assert {uid: len(images) for uid, images in state.exemplars.items()} == {"0": 4, "1": 4, "2": 4}
    assert {number for _, number in state.exemplars["2"]} <= set(range(20, 30))
    assert {uid: len(images) for uid, images in state.apart.items()} == {
        "0": 50, "1": 50, "2": len([each for each in tenths(30) if each >= 20]),
    }  # fmt: skip
    named = {
        image for each in (state.exemplars, state.apart) for its in each.values() for image in its
    }
    assert set(pictures) == named


@pytest.mark.slow
def test_every_image_is_trained_on_and_none_that_is_kept_apart() -> None:
    """Whatever is let go has been trained on before; tenths beyond fifty of a class train."""
    _, seen, sent = long_run()
    apart: Counter[str] = Counter()
    first = set()
    for number in tenths(len(sent)):
        uid = "012"[number // 10] if number < 30 else "01"[(number - 30) % EACH // (EACH // 2)]
        apart[uid] += 1
        if apart[uid] <= 50:
            first.add(sent[number])

    assert not first & seen.trained()
    assert {*sent} - first <= seen.by["learn data"]


@pytest.mark.parametrize("memory", [12, 600])
def test_a_verdict_foresees_what_is_let_go(memory: int) -> None:
    """A thousand images at once, of which more are let go than are kept: what a verdict calls
    trainable is what the next round trains on, also when the classes have become old."""
    run = Alive(
        lively(keep_images=KEPT, agg_weight="samples", memory=memory, keep_rounds="all"),
        entities=(NORTH, EAST),
    )
    run.settle()
    for entity in (NORTH, EAST):
        run.stream(entity, "012", 333)
    run.after(11)
    first = run.verdicts.line(EAST).verdicts[0]
    run.stream(EAST, "34", 400)
    run.after(11)
    run.after(1)
    second = run.verdicts.line(EAST).verdicts[1]

    weights = {
        part.position: part.weight
        for stage in run.line.stages
        for each in stage.rounds
        for part in each.opened.participants
        if part.entity == EAST
    }
    assert weights == {999: first.trainable, 1799: second.trainable}
    trained = trained_on(run, EAST)
    assert {trained[position] for position in weights} == {*weights.values()}
    assert first.trainable < 0.9 * 999


def trained_on(run: Alive, entity: str) -> dict[int, float]:
    """Position that a round asked for → images on which a twin says that it trained then."""
    found = {}
    for message, _ in messages(run.log, NAMES.of_site("updates", parted(entity)[0])):
        if isinstance(message, ModelUpdate) and message.entity == entity:
            opened = run.line.decisions[message.opened]
            assert isinstance(opened, RoundOpened)
            position = {part.entity: part.position for part in opened.participants}[entity]
            found[position] = (message.measured or {})["samples"]
    return found


@pytest.mark.slow
def test_who_takes_a_long_stream_over_begins_where_the_state_says() -> None:
    """A twin that comes anew reads the rest alone, and finds the next class like any other."""
    run = Alive(lively(keep_images=KEPT, rounds_per_stage=2), entities=(NORTH, EAST))
    streamed(run, 8)
    before = states(run, EAST)[-1]
    assert 0 < before.since <= run.log.first(NAMES.of_entity("samples", EAST)) * EACH

    run.vanish(EAST)
    run.join(Twins(NAMES, parted(EAST)[0], run.shelf, [EAST]))
    run.stream(EAST, "7", 40)
    run.after(11)
    run.after(11)

    assert run.line.rows["7"] == 3
    *_, after = states(run, EAST)
    assert after.learned == ("0", "1", "2")
    assert {uid: len(images) for uid, images in after.exemplars.items()} == {"0": 4, "1": 4, "2": 4}
    assert {*after.exemplars["2"]} == {*before.exemplars["2"]}
    closed = run.rounds(1)[-1][1]
    assert closed is not None
    assert EAST in dict(closed.counted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_copies_over_an_unkind_log_let_go_the_same(seed: int) -> None:
    """Two of each role in any order, one of the twins away now and then: one state is left."""
    chance = random.Random(seed)
    run = Alive(
        lively(keep_images=100, rounds_per_stage=2), entities=(NORTH, EAST), copies=2,
        over=lambda log: Unkind(log, chance, 0.3), order=whim(seed), functions=FAKES,
    )  # fmt: skip
    run.settle()
    for entity in (NORTH, EAST):
        run.stream(entity, "012", 10)
    run.after(11)
    for turn in range(12):
        away = run.vanish(f"{EAST}-1") if turn % 3 == 1 else None
        for entity in (NORTH, EAST):
            run.stream(entity, "01", chance.randint(13, 30))
        run.after(1)
        if away:
            run.system.sessions.append(away)
        run.settle()
    run.after(61)

    assert run.line.open_round is None
    for entity in (NORTH, EAST):
        assert run.verdicts.line(entity).verdicts[run.verdicts.judged(entity)].position >= 186
        state, *same = states(run, entity)
        assert all(each == state for each in same)
        assert state.since > 0
        assert {uid: len(its) for uid, its in state.exemplars.items()} == {"0": 4, "1": 4, "2": 4}
        assert held(run, entity) <= 150 + 60 + 60


def test_a_twin_goes_on_whose_rounds_model_is_gone_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It died between a round that lets images go and its state; meanwhile the others went on for
    more rounds than models are kept. It chooses by another model of the stage, and takes part."""
    monkeypatch.setattr("schemas.stages.NEWEST", 3)
    run = Alive(lively(keep_images=60, rounds_per_stage=2), entities=(NORTH, EAST, SOUTH))
    run.settle()
    for entity in (NORTH, EAST, SOUTH):
        run.stream(entity, "012", 10)
    run.after(11)
    for entity in (NORTH, EAST, SOUTH):
        run.stream(entity, "01", 60)
    while not any(part.position > 100 for part in newest(run).participants if part.entity == EAST):
        run.system.step()
        run.now += 0.05
    base = newest(run).base
    gone = run.vanish(EAST)
    for each in [each for each in run.system._queue if each[0] is gone]:
        run.system._queue.remove(each)
    assert not any(state.since for state in states(run, EAST))
    for _ in range(8):
        for entity in (NORTH, SOUTH):
            run.stream(entity, "01", 30)
        run.after(61)
    models = [each for each, _ in messages(run.log, NAMES.federation("models"))]
    assert base.version not in [each.version for each in models if isinstance(each, GlobalModel)]

    run.join(Twins(NAMES, parted(EAST)[0], run.shelf, [EAST]))
    for _ in range(3):
        for entity in (NORTH, EAST, SOUTH):
            run.stream(entity, "01", 30)
        run.after(61)

    assert states(run, EAST)[-1].since > 0
    assert EAST in [part.entity for part in newest(run).participants]


def newest(run: Alive) -> RoundOpened:
    """The newest round."""
    return run.line.stages[-1].rounds[-1].opened


def test_a_run_that_an_older_program_opened_keeps_its_streams_whole() -> None:
    """Its opening has no such key, and its states were made without: no default may change them."""
    opened = lively().model_dump()
    assert bounded(Configuration.model_validate(opened))
    del opened["keep_images"]
    assert not bounded(Configuration.model_validate(opened))
