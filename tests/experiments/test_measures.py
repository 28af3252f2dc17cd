"""What is measured of a run: numbers that a person can check, from runs that are told by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score

from experiments.measures import COUNTS, Measures, measure, rank_correlation
from experiments.observer import Observer
from learning.shapes import dtype_of, model_shapes
from schemas.codec import pack
from schemas.messages import GlobalModel, ModelName, ModelUpdate
from tests.experiments.told import EAST, NAMES, NORTH, SOUTH, WEST, Told, right, sha, spread, story
from tests.test_floors import ROOT

Wire = Literal["fp32", "bf16", "int8"]


def measured(told: Told) -> Measures:
    return measure(told.observer, {}, 10.0)


# --- rounds and stages ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any), min_size=4, max_size=4
    )
)
def test_accuracy_and_f1_are_those_of_scikit_learn(confusion: list[list[int]]) -> None:
    """Whatever a model answers, both numbers are the ones that everybody else computes."""
    told = Told("ab", "cd")
    told.grows("a", "b")
    told.round(right(1, 1))
    told.ends()
    told.grows("c", "d")
    told.round(confusion)

    last = measured(told).rounds[-1]
    true, predicted = spread(confusion)

    assert last.accuracy == pytest.approx(100 * accuracy_score(true, predicted))
    f1 = f1_score(true, predicted, average="macro", zero_division=0)
    assert last.macro_f1 == pytest.approx(100 * f1)
    old = true < 2
    assert last.old_accuracy == pytest.approx(100 * accuracy_score(true[old], predicted[old]))
    assert last.new_accuracy == pytest.approx(100 * accuracy_score(true[~old], predicted[~old]))
    assert last.old_as_new == pytest.approx(100 * float(np.mean(predicted[old] >= 2)))


def test_forgetting_follows_the_example_of_the_method() -> None:
    """a = [.90], [.95, .80], [.60, .50, .90]: F is 32.5, BWT -30 and new classes are at 86.7."""
    told = Told("ab", "cd", "ef")
    told.grows("a", "b")
    told.round([[9, 1], [1, 9]])
    told.ends()
    told.grows("c", "d")
    told.round([[19, 1, 0, 0], [1, 19, 0, 0], [0, 0, 8, 2], [0, 0, 2, 8]])
    told.ends()
    told.grows("e", "f")
    told.round([
        [6, 0, 0, 0, 4, 0], [0, 6, 0, 0, 4, 0], [0, 0, 5, 0, 5, 0], [0, 0, 0, 5, 0, 5],
        [0, 0, 0, 0, 9, 1], [0, 0, 0, 0, 1, 9],
    ])  # fmt: skip
    told.ends()

    found = measured(told)

    first, second, third = found.matrix
    assert first == pytest.approx((90,))
    assert second == pytest.approx((95, 80))
    assert third == pytest.approx((60, 50, 90))
    assert found.forgetting == pytest.approx(32.5)
    assert found.backward_transfer == pytest.approx(-30)
    assert found.new_class_accuracy == pytest.approx(260 / 3)
    assert found.average_accuracy == pytest.approx((90 + 90 + 4000 / 60) / 3)


def test_a_stage_has_the_accuracy_of_its_last_round() -> None:
    """The better round before it is kept apart: to choose it would be to choose on test images."""
    told = Told("ab", rounds=2)
    told.grows("a", "b")
    told.round([[10, 0], [0, 10]])
    told.round([[8, 2], [2, 8]])
    told.ends()

    (stage,) = measured(told).stages

    assert (stage.accuracy, stage.best_round_accuracy) == (80, 100)
    assert stage.closed


def test_each_round_is_measured_as_if_the_run_ended_there() -> None:
    """The story's stage 1 stands at 60 % and then 70 %, after a stage 0 of 90 %."""
    rounds = measured(story()).rounds

    assert [each.number for each in rounds] == [0, 1, 2, 3]
    assert [each.accuracy for each in rounds] == pytest.approx([70, 90, 60, 70])
    assert [each.average_accuracy for each in rounds] == pytest.approx([70, 90, 75, 80])
    assert [each.forgetting for each in rounds] == pytest.approx([0, 0, 40, 30])
    assert rounds[2].stage_accuracies == pytest.approx((50, 70))


def test_a_round_that_counts_nobody_keeps_its_model() -> None:
    """Both twins answered without content: the version stays, and so does its accuracy."""
    told = Told("ab", rounds=2)
    told.grows("a", "b")
    first = told.round([[9, 1], [1, 9]])
    told.round(None, counted={}, withheld={NORTH: "training diverged", EAST: "training diverged"})
    told.ends()

    last = measured(told).rounds[-1]

    assert last.version == first
    assert last.accuracy == 90
    assert last.counted == ()
    assert dict(last.withheld) == {NORTH: "training diverged", EAST: "training diverged"}
    assert last.bytes_up == 0


def test_a_stage_without_new_classes_is_measured_on_the_old_ones() -> None:
    """Nobody found anything in stage 1: it has an accuracy, and nothing new to be measured."""
    told = Told("ab", "cd", "ef")
    told.grows("a", "b")
    told.round(right(10, 10))
    told.ends()
    told.begins_without_growth()
    told.round([[8, 2], [2, 8]])
    told.ends()
    told.grows("e", "f")
    told.round([[6, 4, 0, 0], [4, 6, 0, 0], [0, 0, 9, 1], [0, 0, 1, 9]])
    told.ends()

    found = measured(told)

    assert found.matrix == ((100,), (80, None), (60, None, 90))
    assert found.stages[1].accuracy == 80
    assert found.stages[1].new_accuracy is None
    assert found.forgetting == pytest.approx(40)
    assert found.new_class_accuracy == pytest.approx(95)


def test_a_run_in_its_midst_is_measured_so_far() -> None:
    """Stage 1 is open and its second model not yet tested: its first one stands for it."""
    told = Told("ab", "cd", rounds=3)
    told.grows("a", "b")
    for _ in range(3):
        told.round(right(10, 10))
    told.ends()
    told.grows("c", "d")
    told.round(right(5, 5, 5, 5))
    told.round(None)

    found = measured(told)

    assert not found.over
    assert [stage.closed for stage in found.stages] == [True, False]
    assert found.stages[1].accuracy == 100
    assert found.rounds[-1].accuracy is None
    assert found.average_accuracy == 100
    assert len(found.matrix) == 1


def test_a_run_that_has_just_begun_has_no_numbers_yet() -> None:
    """Only RunOpened is there: everything is empty or None, and nothing fails."""
    found = measured(Told("ab"))

    assert (found.rounds, found.stages, found.matrix, found.confusion) == ((), (), (), ())
    assert found.average_accuracy is found.forgetting is found.images_per_second is None


def test_before_a_run_is_opened_there_is_nothing_to_measure() -> None:
    """An empty log is the caller's mistake, and it is told so."""
    with pytest.raises(ValueError, match="no RunOpened"):
        measure(Observer(NAMES, "local", None), {}, 0.0)


# --- classes --------------------------------------------------------------------------------------


def test_classes_without_test_images_are_named_and_left_out() -> None:
    """Class c was injected from elsewhere: macro F1 is that of a and b, both at 80 %."""
    told = Told("ab", "c")
    told.grows("a", "b")
    told.round(right(10, 10))
    told.ends()
    told.grows("c")
    told.round([[8, 2, 0], [2, 8, 0], [0, 0, 0]])
    told.ends()

    found = measured(told)

    assert found.untested_classes == ("c",)
    assert found.stages[1].macro_f1 == pytest.approx(80)
    assert found.matrix == ((100,), (80, None))


def test_a_class_that_nobody_drew_is_named() -> None:
    """Class c streams to no twin, so that neither the head nor the test has it."""
    told = Told("abc", undrawn="c")
    told.grows("a", "b")
    told.round(right(10, 10))

    assert measured(told).undrawn_classes == ("c",)


def test_images_of_a_class_without_a_row_count_as_missed() -> None:
    """Five images of c are too few to announce it; they wait, and one stage later it has a row."""
    told = Told("ab", "cd")
    told.judges(NORTH, {"a": 50, "b": 50, "c": 5}, classes=("a", "b"), first_contact=True)
    told.grows("a", "b")
    told.round(right(10, 10))
    waiting = measured(told)
    told.ends()
    told.judges(NORTH, {"c": 55, "d": 7}, stage=1, classes=("c",))
    told.grows("c")
    told.round(right(10, 10, 10))

    found = measured(told)

    assert waiting.waiting_classes == ("c",)
    assert found.waiting_classes == ("d",)
    assert [stage.missed_images for stage in found.stages] == [5, 7]


# --- new classes ----------------------------------------------------------------------------------


def test_the_entropy_rule_is_judged_by_the_labels() -> None:
    """Six windows of stage 1, one of each kind; the first contacts of stage 0 stand apart."""
    twins = tuple(f"local/twin-{number}" for number in range(6))
    told = Told("ab", "cd", entities=twins)
    for twin in twins:
        told.judges(twin, {"a": 50, "b": 50}, classes=("a", "b"), first_contact=True)
    told.grows("a", "b")
    told.round(right(10, 10), counted={twins[0]: {}})
    told.ends()
    told.judges(twins[0], {"c": 50}, stage=1, classes=("c",), entropy=1.0, reference=0.2)
    told.judges(twins[1], {"c": 50}, stage=1, classes=("c",), entropy=0.6, reference=0.2)
    told.judges(twins[2], {"a": 50}, stage=1, entropy=1.0, reference=0.2, suspected=True)
    told.judges(twins[3], {"a": 50, "c": 7}, stage=1, entropy=0.6, reference=0.2)
    told.judges(twins[4], {}, stage=1, entropy=None)
    told.judges(twins[5], {"d": 50}, stage=1, classes=("d",), entropy=None)

    found = measured(told)

    assert [each.outcome for each in found.detections if each.stage == 1] == [
        "both", "labels only", "entropy only", "neither", "nothing to judge", "labels only",
    ]  # fmt: skip
    counts = found.detector
    assert (counts.hits, counts.misses, counts.false_alarms, counts.quiet) == (1, 2, 1, 1)
    assert (counts.first_contacts, counts.nothing_to_judge) == (6, 1)


def test_labels_judge_the_rule_also_where_it_acts_alone() -> None:
    """With detector=entropy the rule says "known" to 50 images of c, and has missed them."""
    told = Told("ab", "cd", detector="entropy")
    told.judges(NORTH, {"a": 50}, classes=("a",), first_contact=True)
    told.grows("a")
    told.round(right(10))
    told.ends()
    told.judges(NORTH, {"c": 50}, stage=1, entropy=0.3, reference=0.2)

    assert measured(told).detector.misses == 1


def test_other_rules_are_scored_on_the_same_windows() -> None:
    """In the story north finds c and d within 100 images and jumps by 1.2 nats, east c within 50
    by 0.2, south jumps over 50 known ones; the threshold is 0.5, and 1.2 where it is absolute."""
    found = {
        each.rule: (each.recall, each.false_alarms_per_10000, each.delay)
        for each in measured(story()).rules
    }

    assert found == {
        "label": (100, 0, (99 + 49) / 2),
        "hybrid": (100, 200, (99 + 49) / 2),
        "entropy": (50, 0, 99),
        "jump, relative": (50, 200, 99),
        "jump, absolute": (0, 0, None),
    }


def test_a_window_without_entropy_is_judged_by_labels_alone() -> None:
    """Nothing to look at is no false alarm, and a class whose entropy is unknown is missed by all
    rules that need it."""
    told = Told("ab", "cd")
    told.judges(NORTH, {"a": 50, "b": 50}, classes=("a", "b"), first_contact=True)
    told.grows("a", "b")
    told.round(right(10, 10))
    told.ends()
    told.judges(NORTH, {"c": 50}, stage=1, classes=("c",), entropy=None)

    recalls = {each.rule: each.recall for each in measured(told).rules}

    assert recalls == {
        "label": 100, "hybrid": 100, "entropy": 100, "jump, relative": 0, "jump, absolute": 0,
    }  # fmt: skip


@given(
    st.floats(0, 3), st.floats(0, 3), st.floats(0, 2), st.integers(0, 20), st.booleans()
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_every_window_is_counted_once(
    entropy: float, reference: float, threshold: float, images: int, first: bool
) -> None:
    """Whatever a window says, it is one of the six outcomes and adds one to one of the counts."""
    told = Told("ab")
    told.judges(
        NORTH,
        {"a": images},
        classes=("a",) if images >= told.configuration.n_lab else (),
        entropy=entropy,
        reference=reference,
        threshold=threshold,
        first_contact=first,
    )

    counts = measured(told).detector

    assert sum(vars(counts).values()) == 1
    assert counts.first_contacts == first


# --- teachers -------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float)),
        min_size=2,
        max_size=9,
    )
)
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    """With ties as well; where a side does not vary there is none, and scipy says NaN."""
    ours = rank_correlation(pairs)

    if min(len({pair[side] for pair in pairs}) for side in (0, 1)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(spearmanr(pairs).statistic)


def test_a_choice_is_held_against_test_images() -> None:
    """The proxy took version 2 at 70 %; version 3 would have been 20 points better."""
    told = Told("ab", "cd", rounds=2)
    told.grows("a", "b")
    told.round([[7, 3], [3, 7]])
    told.round([[9, 1], [1, 9]])
    told.ends()
    told.teaches(2, {2: 0.9, 3: 0.8}, withheld=[(WEST, 0, "no image of this class is left")])

    (teacher,) = measured(told).teachers

    assert (teacher.stage, teacher.version) == (1, 2)
    assert teacher.score == pytest.approx(90)
    assert [(each.round, each.accuracy) for each in teacher.candidates] == [(0, 70), (1, 90)]
    assert teacher.rank_correlation == pytest.approx(-1)
    assert teacher.regret == pytest.approx(20)
    assert teacher.withheld == ((WEST, 0, "no image of this class is left"),)


def test_without_scores_the_last_version_teaches() -> None:
    """No prototype came: there is a teacher, no score, and nothing to correlate."""
    told = Told("ab", "cd")
    told.grows("a", "b")
    last = told.round(right(10, 10))
    told.ends()
    told.teaches(last, prototypes=0)

    found = measured(told)

    assert found.teachers[0].score is found.rank_correlation is None
    assert found.teachers[0].version == last


def test_a_method_without_teachers_has_none() -> None:
    """The proxy writes its line for fine-tuning too, and nobody is taught by it."""
    told = Told("ab", "cd", strategy="fedavg")
    told.grows("a", "b")
    last = told.round(right(10, 10))
    told.ends()
    told.teaches(last, prototypes=0)

    assert measured(told).teachers == ()


# --- trainings, bytes, seconds --------------------------------------------------------------------


def test_losses_are_means_over_all_steps() -> None:
    """Ten steps at a loss of 1 and thirty at 2 make 1.75; who has no teacher has no such term."""
    told = Told("ab", local_epochs=3)
    told.grows("a", "b")
    short = {"samples": 100.0, "steps": 10.0, "loss": 1.0}
    long = {"samples": 300.0, "steps": 30.0, "loss": 2.0, "semantic": 0.5}
    told.round(right(10, 10), counted={NORTH: short, EAST: long})

    (only,) = measured(told).rounds

    assert only.training == {"loss": 1.75, "semantic": 0.5}
    assert only.steps == 40
    assert only.images == 1200
    assert not set(COUNTS) & set(only.training)


def test_empty_maps_are_counted_in_the_whole_run() -> None:
    """The story's four taught trainings found a quarter of the maps empty."""
    assert measured(story()).empty_maps == pytest.approx(25)


@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
def test_bytes_are_those_of_the_messages(wire: Wire) -> None:
    """What is computed from shapes is what messages weigh, to 1 %; int8 is compressed besides."""
    told = Told("ab", width=32, wire=wire)
    told.grows("a", "b")
    told.round(right(10, 10))
    chance = np.random.Generator(np.random.PCG64(0))
    model = {
        name: chance.standard_normal(shape).astype(dtype_of(name))
        for name, shape in model_shapes(1, 32, 2).items()
    }
    base = ModelName(version=1, sha256=sha(1))
    update = ModelUpdate(run=sha(1), opened=2, entity=NORTH, base=base, groups={"model": model})
    whole = GlobalModel(run=sha(1), version=2, groups={"model": model})

    (only,) = measured(told).rounds
    up, down = (sum(map(len, pack(each, wire).pieces)) for each in (update, whole))

    if wire == "int8":
        assert 0.7 * only.bytes_up < 2 * up < 1.01 * only.bytes_up
    else:
        assert only.bytes_up == pytest.approx(2 * up, rel=0.01)
        assert only.bytes_down == pytest.approx(2 * down, rel=0.01)


def test_a_teacher_travels_to_each_twin_once_a_stage() -> None:
    """North and east learn in both rounds of stage 1, south in the second: three more models."""
    told = Told("ab", "cd", rounds=2)
    told.grows("a", "b")
    told.round(right(10, 10))
    last = told.round(right(10, 10))
    told.ends()
    told.teaches(last)
    told.grows("c", "d")
    told.round(right(5, 5, 5, 5), teacher=last)
    told.round(right(5, 5, 5, 5), counted={NORTH: {}, EAST: {}, SOUTH: {}}, teacher=last)

    before, _, first, second = measured(told).rounds
    old, new = before.bytes_up // 2, first.bytes_up // 2

    assert before.bytes_down == 2 * old
    assert first.bytes_down == 2 * new + 2 * old
    assert second.bytes_down == 3 * new + 1 * old


def test_phases_add_up_to_all_of_the_work() -> None:
    """60 of 100 s are training, 10 rebuild, 20 keep the books, and a new phase is in the rest."""
    spent = {"learn": 60.0, "reconstruct": 10.0, "log": 12.0, "judge": 8.0, "dreams": 10.0}

    shares = measure(story().observer, spent, 55.0).shares

    assert shares == pytest.approx(
        {"training": 60, "reconstruction": 10, "bookkeeping": 20, "other": 10}
    )
    assert measure(story().observer, {}, 0.0).shares == {}


def test_the_rate_of_images_is_of_the_trainings_that_were_timed() -> None:
    """Eight trainings of 100 images took 10 s; of a resumed run, two of them took 1 s."""
    whole = measure(story().observer, {}, 10.0)
    resumed = measure(story().observer, {}, 1.0, trainings=2)
    only_read = measure(story().observer, {}, 1.0, trainings=0)

    assert whole.images_per_second == pytest.approx(80)
    assert resumed.images_per_second == pytest.approx(200)
    assert only_read.images_per_second is None


def test_dead_letters_are_counted_by_reason() -> None:
    """Two updates were not finite and one record was changed on its way."""
    assert measured(story()).dead_letters == {"bad-hash": 1, "not-finite": 2}


# --- as values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [Told("ab"), story()], ids=["just begun", "over"])
def test_measures_are_plain_json(told: Told) -> None:
    """Any reader takes them: no NaN, no infinity, no class of ours, and nothing lost."""
    found = measured(told)

    text = json.dumps(found.as_json(), allow_nan=False)
    read: dict[str, Any] = json.loads(text)

    assert read["model_sha256"] == found.model_sha256
    assert [each["accuracy"] for each in read["stages"]] == [s.accuracy for s in found.stages]
    assert set(read["detector"]) >= {"hits", "misses", "false_alarms"}


def test_hearing_everything_twice_changes_nothing() -> None:
    """A resumed observer reads measures again; the first of each name counts."""
    told = story()
    once = measured(told)
    told.hear_all_again()

    assert measured(told) == once


@pytest.mark.slow
def test_measuring_brings_no_torch() -> None:
    """The process that measures, writes and reports is the main one, which starts without torch."""
    code = (
        "import sys, experiments.measures, experiments.metrics, experiments.report,"
        " experiments.figures\n"
        "from tests.experiments.told import story\n"
        "from experiments.metrics import Metrics\n"
        "from pathlib import Path; import tempfile\n"
        "found = experiments.measures.measure(story().observer, {}, 1.0)\n"
        "with tempfile.TemporaryDirectory() as folder: Metrics(Path(folder)).write(found)\n"
        "print('torch' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.strip() == "False"
