"""The preset `lineage_compat`, end to end: a signal for each twin and round, and two slots.

Trainings, entropies and gradients are real here, because what decides is what they say.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.measures import measure
from experiments.recipes import PRESETS, recipe
from experiments.system import Embedded
from experiments.worker import FUNCTIONS
from infra.promises import Result, Task
from infra.store.sqlite import SqliteStore
from infra.transport.embedded import Embedded as Log
from infra.transport.unkind import Unkind
from infra.workers import Function
from producers.datasets import load
from producers.images import Dataset
from schemas.codec import records
from schemas.configuration import Configuration
from schemas.messages import Decision, ImageBatch, Look, RoundOpened, StageAdded, TeacherChosen
from tests.flows.federation import (
    DOTS,
    NAMES,
    NORTH,
    Told,
    Whim,
    attend,
    outcome,
    put_together,
    small,
)

REAL = Told(functions=FUNCTIONS)


def lineage(**overrides: object) -> Configuration:
    """Three small stages under the preset; 0.5 nats are a signal, so that newcomers have one."""
    quick = {"entropy_threshold": 0.5, "perturb": {"mode": "code", "steps": 4}}
    return small(**{**PRESETS["lineage_compat"], **quick, **overrides})


@cache
def digits() -> Dataset:
    """The bundled images, as `tiny` takes them."""
    return load("digits", Path("."), image_size=16)


def seen_through(configuration: Configuration, dataset: Dataset = DOTS) -> Embedded:
    """A run, undisturbed."""
    run = put_together(configuration, Log(), REAL, dataset=dataset)
    run.system.run()
    return run


class Whole(NamedTuple):
    """A run that is over, and what is left of it. Who looks adds nothing to its log."""

    run: Embedded
    log: Log
    store: SqliteStore
    results: Mapping[str, list[Result]]
    """What each task came to, by the task's name."""
    decided: list[tuple[Decision, bool]]
    """Each decision, and whether it could be seen to be next."""


@cache
def whole() -> Whole:
    """The run that nobody disturbs."""
    results: dict[str, list[Result]] = {name: [] for name in FUNCTIONS}
    functions: dict[str, Function] = {}
    for name, noted in results.items():
        functions |= recording(name, noted)
    log, store = Log(), SqliteStore()
    run = put_together(lineage(), log, Told(functions=functions), store=store)
    decided = attend(run)
    run.system.run()
    return Whole(run, log, store, results, decided)


def undisturbed() -> Embedded:
    """What all other ways to run it have to come to."""
    return whole().run


def test_who_stands_by_sees_when_slots_could_be_chosen() -> None:
    """Before each round, as soon as nothing is missing that they rest on."""
    decided = whole().decided

    assert [each.identity for each, could in decided if not could] == []
    assert sum(isinstance(each, TeacherChosen) for each, _ in decided) > 2


def recording(name: str, results: list[Result]) -> Mapping[str, Function]:
    """The real task of this name; its results are noted."""

    def noted(task: Task) -> Result:
        results.append(FUNCTIONS[name](task))
        return results[-1]

    return {name: noted}


def opened(run: Embedded) -> list[RoundOpened]:
    """Every round as it was opened."""
    return [each.opened for stage in run.observer.line.stages for each in stage.rounds]


def versions(run: Embedded) -> list[tuple[int, int, int | None, int | None]]:
    """Of each choice stage and round, and the versions in its slots."""
    found = []
    for each in run.observer.teachers.chosen:
        first, second = (model.version if model else None for model in each.slots or (None, None))
        found.append((each.stage, each.round, first, second))
    return found


def measured(run: Embedded, number: int, entity: str) -> dict[str, float]:
    """What a twin measured when it answered the round that this decision opened."""
    return run.observer.measured[f"update/{number}/{entity}"]


@pytest.mark.slow
def test_tiny_runs_under_the_preset_and_ends_in_one_model() -> None:
    """Twice the same bytes; the untrained model of stage 0 is as unsure as can be, a signal."""
    configuration = recipe("tiny", "lineage_compat", {"images_per_class": 12, "perturb.steps": 4})
    first, second = (seen_through(configuration, digits()) for _ in range(2))

    assert outcome(first) == outcome(second)
    start = opened(first)[0]
    told = [measured(first, start.number, part.entity) for part in start.participants]
    assert [each["signal"] for each in told] == [1.0, 1.0]
    assert all(each["entropy_before"] == 0 for each in told)
    assert measure(first.observer, {}, 0.0).over


def test_slots_are_chosen_before_every_round_and_named_in_it() -> None:
    """Stages 1 and 2 have two rounds each: four choices, and each round names its own."""
    run = undisturbed()
    chosen = {(each.stage, each.round): each.slots for each in run.observer.teachers.chosen}

    assert sorted(chosen) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for each in opened(run):
        assert each.slots == chosen.get((each.stage, each.round))
        assert each.teacher is None


def test_the_last_stage_asks_for_nothing_and_shifts_once() -> None:
    """It lists no prototype; behind its first round B2 stands in both slots."""
    run = undisturbed()
    last = run.observer.line.stages[-1]
    (_, _, _, before), (_, _, first, second) = versions(run)[-2:]

    assert last.grown is not None
    assert not last.grown.prototypes
    assert first == second == before
    assert not run.observer.teachers.chosen[-1].scores


def test_a_twin_is_asked_for_its_new_classes_in_every_round_that_samples_it() -> None:
    """Places are the classes of its verdict, once for each round of the stage with it in."""
    run = undisturbed()
    line = run.observer.line
    assert line.opened is not None
    for stage in line.stages[:-1]:
        sampled = line.opened.schedule.stages[stage.index].sampled
        assert stage.grown is not None
        listed = dict(stage.grown.prototypes)
        for entity in line.marked(stage.index):
            verdict = run.observer.verdicts.verdict(entity, stage.index)
            assert verdict is not None
            trains = sum(entity in entities for entities in sampled)
            assert listed.get(entity, ()) == verdict.classes * trains


def test_without_a_signal_a_place_is_answered_without_content() -> None:
    """What the twins measured tells which gradients were used, and which were withheld."""
    run = undisturbed()
    line = run.observer.line
    signalled = [
        (place, measured(run, each.number, entity)["signal"])
        for each in opened(run)
        if each.stage < 2
        for entity, place, _ in line.expected_in(each.stage, each.round)
    ]
    chosen = run.observer.teachers.chosen

    assert {signal for _, signal in signalled} == {0.0, 1.0}
    assert sum(len(each.used) for each in chosen) == sum(s == 1.0 for _, s in signalled)
    withheld = [reason for each in chosen for _, _, reason in each.withheld]
    assert withheld == ["no signal"] * sum(s == 0.0 for _, s in signalled)


def test_in_a_round_behind_the_first_the_base_before_is_the_measure() -> None:
    """In rounds 1 what a twin compares with is what it measured in round 0, if it trained there."""
    run = undisturbed()
    pairs = []
    for stage in run.observer.line.stages:
        first, second = (each.opened for each in stage.rounds)
        both = {part.entity for part in first.participants} & {
            part.entity for part in second.participants
        }
        for entity in both:
            now, then = measured(run, second.number, entity), measured(run, first.number, entity)
            pairs.append((now["entropy_before"], then["entropy"]))

    assert pairs
    assert [now for now, _ in pairs] == pytest.approx([then for _, then in pairs], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_two_of_each_role_on_an_unkind_log_come_to_the_same(seed: int) -> None:
    """Any order, any merging, repeats and delays, and every role twice: the same bytes."""
    chance = random.Random(seed)
    told = Told(copies=2, order=Whim(chance, 0.02, 80), functions=FUNCTIONS)
    run = put_together(lineage(), Unkind(Log(), chance, 0.3), told)
    run.system.run()

    assert outcome(run) == outcome(undisturbed())
    assert not run.observer.dead_letters


@pytest.mark.slow
@pytest.mark.parametrize("every", [5])
def test_it_goes_on_from_the_log_wherever_it_was_stopped(every: int) -> None:
    """Every few steps all roles are dropped with what they knew, and new ones read the log."""
    log, store = Log(), SqliteStore()
    stops = 0
    while True:
        run = put_together(lineage(), log, REAL, store=store)
        for _ in range(every + stops // 10):  # the longer the log, the more steps reading takes
            run.system.step()
        if run.system.over:
            break
        stops += 1

    assert stops > 3
    assert outcome(run) == outcome(undisturbed())


class Killed(BaseException):
    """The process is gone; nothing that it knew is left."""


def killed_after(points: int) -> Told:
    """Ends the process behind so many of the points that a crash may hit; two of each role."""
    left = iter(range(points))

    def hook(point: str) -> None:
        if next(left, None) is None:
            raise Killed(point)

    return Told(copies=2, functions=FUNCTIONS, hook=hook)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_it_goes_on_wherever_two_of_each_role_were_killed(seed: int) -> None:
    """Five crashes at any point, also between a prototype and its update: the same bytes."""
    chance, log, store = random.Random(seed), Log(), SqliteStore()
    for _ in range(5):
        told = killed_after(chance.randint(5, 400))
        with pytest.raises(Killed):
            put_together(lineage(), Unkind(log, chance, 0.2), told, store=store).system.run()
    run = put_together(lineage(), log, REAL, store=store)
    run.system.run()

    assert outcome(run) == outcome(undisturbed())


def test_a_proxy_that_starts_anew_scores_only_what_is_not_chosen_yet() -> None:
    """One that begins behind the last choice has nothing to do: its scores stand in the log."""
    run, log, store, results, _ = whole()
    end = log.end(NAMES.federation("teachers"))
    again: list[Result] = []
    told = Told(functions={**FUNCTIONS, **recording("score", again)})
    put_together(lineage(), log, told, store=store).system.run()

    chosen = run.observer.teachers.chosen
    assert not again
    assert log.end(NAMES.federation("teachers")) == end
    assert [each.values["score"] for each in results["score"]] == [
        score for each in chosen for _, score in each.scores
    ]


def test_gradients_are_let_go_when_nothing_is_scored_any_more() -> None:
    """In the last stage nobody needs them: the topic is empty."""
    log = whole().log
    (topic,) = (each for each in log.topics() if ".prototypes." in each)

    assert log.first(topic) == log.end(topic) > 0


@pytest.mark.slow
def test_a_stage_that_is_added_is_taught_by_the_slots_as_they_stand() -> None:
    """A class is injected behind the last stage: slots for each of its rounds, all the same two."""
    log, store = Log(), SqliteStore()
    put_together(lineage(), log, REAL, store=store).system.run()
    line = undisturbed().observer.line
    images = DOTS.train.images[DOTS.train.labels == 9]
    batch = ImageBatch(
        run=line.run,
        source="later",
        first=0,
        classes=("9",) * len(images),
        groups={"images": {"images": images}},
    )
    look = Look(entity=NORTH, source="later", count=len(images))
    added = StageAdded(run=line.run, number=line.number + 1, looks=(look,))
    log.append(NAMES.of_entity("samples", NORTH), records(batch, source="test")[1])
    log.append(NAMES.federation("rounds"), records(added, source="test")[1])
    run = put_together(lineage(), log, REAL, store=store)
    run.system.run()

    assert versions(run)[:-2] == versions(undisturbed())
    assert [each[2:] for each in versions(run)[-3:]] == [versions(undisturbed())[-1][2:]] * 3
    assert run.observer.line.rows["9"] == len(line.rows)


def test_a_strategy_without_a_teacher_is_asked_for_nothing_and_told_of_none() -> None:
    """Fine-tuning: no place, no slot in any round; the guard fills B2 with stage 0's last model."""
    run = seen_through(lineage(strategy="fedavg"))
    grown = [stage.grown for stage in run.observer.line.stages if stage.grown]
    first = run.observer.line.stages[0].closed
    assert first is not None

    assert not any(each.prototypes for each in grown)
    assert not any(each.slots or each.teacher for each in opened(run))
    last = first.last.version
    assert versions(run) == [(1, 0, None, last), (1, 1, None, last), (2, 0, None, last),
                             (2, 1, last, last)]  # fmt: skip


def test_without_any_signal_the_guard_fills_the_second_slot() -> None:
    """Nothing rises by 9 nats: no gradient, no score, and stage 0's last model is B2 for good."""
    run = seen_through(lineage(entropy_threshold=9.0))
    closed = run.observer.line.stages[0].closed
    assert closed is not None

    assert {second for _, _, _, second in versions(run)} == {closed.last.version}
    assert not any(each.scores or each.used for each in run.observer.teachers.chosen)


def test_only_the_first_clients_are_ever_sampled() -> None:
    """Quirk 1: a client joins with stages 1 and 2, is judged, and never trains."""
    run = undisturbed()
    trained = {part.entity for each in opened(run) for part in each.participants}
    joined = set(run.observer.line.entities)

    assert trained == {f"local/entity-{number:03d}" for number in range(3)}
    assert len(joined) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("quirks", "again"), [((1, 14), True), ((1,), False)])
def test_herding_may_choose_an_image_again(quirks: tuple[int, ...], again: bool) -> None:
    """Quirk 14: some memory holds an image twice; without the quirk none does."""
    results: list[Result] = []
    told = Told(functions={**FUNCTIONS, **recording("herd", results)})
    put_together(lineage(quirks=quirks), Log(), told).system.run()
    chosen = [each["chosen"].tolist() for result in results for each in result.groups.values()]

    assert any(chosen)
    assert any(len(set(images)) < len(images) for images in chosen) == again
