"""Methods on the whole system: each of the list, and one that keeps state at both ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.recipes import recipe
from infra.transport.embedded import Embedded as Log
from learning.lesson import Lesson
from learning.shapes import Shapes, Weights
from learning.strategies import STRATEGIES
from learning.strategies.fedka import FEDKA
from learning.strategies.strategy import MODEL, Groups, RoundMean, Sent
from schemas.codec import Record, pack, piece, unpack
from schemas.errors import Stalled
from schemas.messages import GlobalModel, ModelUpdate, RoundClosed, StrategyKept, TwinState
from schemas.tensors import groups_sha256, model_sha256
from tests.flows.digits import digits, told_by_child
from tests.flows.federation import (
    EAST,
    LIMIT,
    NAMES,
    Outcome,
    Told,
    decided,
    disturbed,
    finished,
    in_file,
    letters,
    messages,
    outcome,
    put_together,
    small,
)
from tests.flows.lives import Fuse, answered, begun, lived, until_the_end
from tests.flows.test_endings import Swallowing

# --- every method of the list ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith("fedka-") else ()) for n in STRATEGIES],
)
def test_every_method_runs_and_copies_come_to_the_same(name: str) -> None:
    """With a proxy or without, with a memory or without, with state at both ends or without."""
    configuration = small(stages=2, strategy=name)
    run = disturbed(configuration, 4, copies=2)
    strategy = STRATEGIES[name]
    opened = run.observer.line.stages[1].rounds[0].opened

    assert outcome(run) == finished(configuration)
    assert (opened.teacher is None) == (strategy.teacher == "none")
    assert bool(run.observer.teachers.chosen[0].used) == strategy.proxy


# --- one that keeps state at both ends ------------------------------------------------------------


def never(lesson: Lesson, weights: Weights, steps: int) -> Sent:
    """The fake learner makes the groups itself."""
    raise NotImplementedError


def drift_shapes(model: Shapes) -> Mapping[str, Shapes]:
    """One group of one tensor."""
    return {"drift": {"drift": (3,)}}


def settle(closed: RoundMean) -> Groups:
    """What the aggregator keeps: all that the twins ever sent, halved each round."""
    before = closed.before.get("drift", {}).get("drift", np.zeros(3, np.float32))
    drift = before / np.float32(2) + closed.mean["drift"]["drift"]
    return {MODEL: closed.mean[MODEL], "drift": {"drift": drift}}


DRIFTING = replace(FEDKA, name="drifting", groups=never, group_shapes=drift_shapes, settle=settle)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What such a method comes to when nothing disturbs it."""
    monkeypatch.setitem(STRATEGIES, DRIFTING.name, DRIFTING)
    return finished(small(stages=2, strategy=DRIFTING.name))


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_what_a_method_keeps_does_not_depend_on_the_schedule(drifting: Outcome, seed: int) -> None:
    """Groups travel with updates and models, and the diary stays with its twin."""
    configuration = small(stages=2, strategy=DRIFTING.name)
    run = disturbed(configuration, seed, copies=1 + seed % 3)

    assert outcome(run) == drifting
    assert not letters(run)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["append:durable", "said", "task:done", "forgotten"])
def test_what_a_method_keeps_survives_a_crash(drifting: Outcome, folder: Path, point: str) -> None:
    """Between diary and update, between update and state: at every fifth such moment."""
    path, told = folder / "run.sqlite", Told()
    configuration = small(stages=2, strategy=DRIFTING.name)

    def live(number: int) -> int:
        done = answered(path)
        end = lived(configuration, path, told, Fuse(11, point))
        assert not begun(path).keys() & done
        return end

    assert until_the_end(live) == 0
    assert outcome(in_file(configuration, path, told)) == drifting


def test_a_twin_s_diary_counts_once_its_update_is_counted(drifting: Outcome) -> None:
    """Each twin's last state names the hash of its last counted update, and only that is left."""
    run = put_together(small(stages=2, strategy=DRIFTING.name), log := Log())
    run.system.run()
    counted: dict[str, str] = {}
    for decision in decided(log).decisions.values():
        if isinstance(decision, RoundClosed):
            counted |= dict(decision.counted)

    assert outcome(run) == drifting
    assert len(counted) > 2
    for entity, hash in counted.items():
        own = [message for message, _ in messages(log, NAMES.of_entity("twin-state", entity))]
        assert [each.update for each in own if isinstance(each, StrategyKept)] == [hash]
        assert [each.kept for each in own if isinstance(each, TwinState)] == [hash]


def test_a_twin_that_misses_what_its_method_keeps_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its answer was counted, and what goes with it never came: it names the decision."""
    monkeypatch.setitem(STRATEGIES, DRIFTING.name, DRIFTING)
    log = Swallowing(tmp_path / "run", "StrategyKept", NAMES.of_entity("twin-state", EAST))
    configuration = small(stages=2, strategy=DRIFTING.name)
    with pytest.raises(Stalled) as end:
        put_together(configuration, log).system.run()
    log.close()

    assert f"twins waits for {EAST}: its StrategyKept, which decision " in str(end.value)


def test_a_method_s_groups_reach_everyone_with_the_model(drifting: Outcome) -> None:
    """An update without its group would not count; the last model carries what was settled."""
    run = put_together(small(stages=2, strategy=DRIFTING.name), log := Log())
    run.system.run()
    models = [m for m, _ in messages(log, NAMES.federation("models")) if isinstance(m, GlobalModel)]
    updates = [m for m, _ in messages(log, NAMES.of_site("updates", "local"))]

    assert set(models[-1].groups) == {"model", "drift"}
    assert all(isinstance(m, ModelUpdate) and set(m.groups) == {"model", "drift"} for m in updates)
    assert len({pack(each).hash for each in updates}) == len(updates)


class Forging(Log):
    """A log in which every model is preceded by one that differs in what is kept beside it."""

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        records = list(records)
        for record in records if topic == NAMES.federation("models") else ():
            model = unpack(piece(record.value, LIMIT).content, LIMIT)
            assert isinstance(model, GlobalModel)
            drift = {"drift": {"drift": np.full(3, 7, np.float32)}}
            forged = model.model_copy(update={"groups": {**model.groups, **drift}})
            super().append(topic, [Record(record.key, pack(forged).pieces[0], record.headers)])
        return super().append(topic, records)


def test_what_a_method_keeps_at_the_aggregator_is_taken_as_the_decision_named_it(
    drifting: Outcome,
) -> None:
    """Under each honest key lies the same model with another drift, first; nobody goes by it."""
    run = put_together(small(stages=2, strategy=DRIFTING.name), Forging())
    run.system.run()

    assert outcome(run) == drifting
    assert run.aggregator.line.model is not None
    groups = run.shelf.groups(run.aggregator.line.model)
    assert groups_sha256(groups) == drifting.model != model_sha256(groups["model"])


@pytest.mark.slow
def test_a_real_method_with_state_comes_to_the_same_twice(tmp_path: Path) -> None:
    """Control variates on digits: plain, and with every role twice."""
    changes = {"strategy": "scaffold", "images_per_class": 24, "stages": 1, "rounds_per_stage": 4}
    configuration = recipe("tiny", overrides=changes)

    def quietly() -> Outcome:
        from experiments.worker import FUNCTIONS

        run = put_together(configuration, Log(), Told(functions=FUNCTIONS), dataset=digits())
        run.system.run()
        return outcome(run)

    def unkindly() -> Outcome:
        from experiments.worker import FUNCTIONS

        run = disturbed(configuration, 1, copies=2, dataset=digits(), functions=FUNCTIONS)
        return outcome(run)

    assert told_by_child(quietly, tmp_path) == told_by_child(unkindly, tmp_path)
