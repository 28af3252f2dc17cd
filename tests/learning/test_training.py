"""The one local update."""

import hashlib
import subprocess
import sys
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning.augmentation import Transform
from learning.lesson import Lesson
from learning.nets import from_weights, to_weights
from learning.objective import LocalObjective, teacher_of
from learning.scoring import accuracy, evaluate
from learning.shapes import Weights, grown, is_parameter
from learning.strategies import STRATEGIES
from learning.strategies.fedka import FEDKA
from learning.strategies.strategy import Objective, Strategy
from learning.training import learn
from tests.learning.lessons import first_stage, lesson, models, same

IN_ANOTHER_PROCESS = """
import hashlib, torch
torch.set_num_threads(1)
from learning.training import learn
from tests.learning.lessons import lesson
weights = learn(lesson("fedka")).weights
print(hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest())
"""


@pytest.mark.slow
def test_equal_lessons_give_equal_bytes_in_another_process() -> None:
    """One thread each: two processes train the same model."""
    torch.set_num_threads(1)
    weights = learn(lesson("fedka")).weights

    told = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True
    ).stdout.strip()

    joined = b"".join(weights[name].tobytes() for name in sorted(weights))
    assert told == hashlib.sha256(joined).hexdigest()


def test_bytes_depend_on_the_lesson_alone() -> None:
    """Not on torch's and numpy's global generators, on read-only or strangely laid out arrays."""
    plain = lesson("fedka")
    images = np.asfortranarray(plain.images)
    images.flags.writeable = False
    expected = learn(plain).weights
    torch.manual_seed(99)
    np.random.seed(99)

    again = learn(lesson("fedka", images=images)).weights

    assert same(again, expected)
    assert not same(learn(lesson("fedka", learning_rate=0.11)).weights, expected)


def test_fine_tuning_is_what_a_plain_loop_does() -> None:
    """Mean BCE, SGD with weight decay, shuffled batches of 16 with the last one short."""
    told = first_stage("fedavg")
    net = from_weights(told.base).train()
    images = told.transform.normalise(told.images)
    targets = F.one_hot(torch.from_numpy(told.rows), 4).float()

    for epoch in range(2):
        order = np.random.default_rng([len("shuffle"), epoch]).permutation(40)
        for start in (0, 16, 32):
            chosen = torch.from_numpy(order[start : start + 16])
            loss = F.binary_cross_entropy_with_logits(net(images[chosen]), targets[chosen])
            parameters = tuple(net.parameters())
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(0.1 * (gradient + 1e-5 * parameter))

    learned = learn(told)
    plain = to_weights(net)
    assert learned.metrics["steps"] == 6
    for name, tensor in learned.weights.items():
        assert np.allclose(tensor, plain[name], rtol=1e-4, atol=1e-6)


def test_fedka_in_its_first_stage_is_fine_tuning_at_twice_the_rate() -> None:
    """2 L at rate r is L at rate 2r, byte for byte: a factor of two rounds nothing."""
    fedka = learn(first_stage("fedka", learning_rate=0.05, weight_decay=0.0))
    fedavg = learn(first_stage("fedavg", learning_rate=0.1, weight_decay=0.0))

    assert same(fedka.weights, fedavg.weights)
    assert "semantic" not in fedka.metrics


def test_fedka_without_weights_and_distillation_is_fine_tuning() -> None:
    """alpha 1, beta 0, gamma 0, w 1: the same bytes from the same images (with memory or not)."""
    reduced = FEDKA.under(alpha=1.0, beta=0.0, gamma=0.0, weight="none")

    assert same(learn(lesson(reduced)).weights, learn(lesson("fedavg")).weights)


def test_a_method_that_has_no_teacher_does_not_listen_to_one() -> None:
    """`fedavg` learns the same whether the round names a teacher or not."""
    assert same(learn(lesson("fedavg")).weights, learn(lesson("fedavg", teacher=None)).weights)


def test_a_later_stage_tells_all_its_terms() -> None:
    """Loss = 2 classification + semantic + attention; shares are in [0, 1]."""
    metrics = learn(lesson("fedka")).metrics

    assert metrics["loss"] == pytest.approx(
        2 * metrics["classification"] + metrics["semantic"] + metrics["attention"]
    )
    assert metrics["semantic"] > 0
    assert metrics["attention"] > 0
    assert 0 <= metrics["empty_maps"] <= 1
    assert 0 <= metrics["empty_teacher_maps"] <= 1
    assert metrics["gradient_norm"] > 0
    assert (metrics["samples"], metrics["steps"]) == (40, 6)


def test_every_step_counts_a_batch() -> None:
    """Normalisations saw 2 epochs of 3 batches; the base is not touched."""
    told = lesson("fedka")
    before = {name: tensor.copy() for name, tensor in told.base.items()}

    weights = learn(told).weights

    assert weights["layer4.1.bn2.num_batches_tracked"] == 6
    assert same(dict(told.base), before)
    assert all(np.isfinite(tensor).all() for tensor in weights.values())


def test_a_last_batch_of_one_image_is_left_out() -> None:
    """33 images in batches of 16: two steps an epoch, not three."""
    told = lesson("fedavg")
    learned = learn(lesson("fedavg", images=told.images[:33], rows=told.rows[:33]))

    assert learned.metrics["steps"] == 4


def test_one_image_alone_teaches_nothing() -> None:
    """No step, no means; the base comes back byte for byte."""
    told = lesson("fedavg")

    learned = learn(lesson("fedavg", images=told.images[:1], rows=told.rows[:1]))

    assert learned.metrics == {"steps": 0, "samples": 1}
    assert same(learned.weights, dict(told.base))


def test_a_clipped_step_is_no_longer_than_the_norm_times_the_rate() -> None:
    """One step without decay: |theta - base| is 0.1 * 0.01; the metric is the norm before."""
    one_step = {"batch_size": 64, "epochs": 1, "weight_decay": 0.0}
    told = lesson("fedka", clip_norm=0.01, **one_step)

    learned, free = learn(told), learn(lesson("fedka", **one_step))

    moved = {
        name: [
            (weights[name] - told.base[name]).ravel() for weights in (learned.weights, free.weights)
        ]
        for name in filter(is_parameter, told.base)
    }
    clipped = np.linalg.norm(np.concatenate([move[0] for move in moved.values()]))
    whole = np.linalg.norm(np.concatenate([move[1] for move in moved.values()]))
    assert clipped == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert whole == pytest.approx(0.1 * learned.metrics["gradient_norm"], rel=1e-3)
    assert learned.metrics["gradient_norm"] == pytest.approx(free.metrics["gradient_norm"])


def test_weight_decay_pulls_towards_zero() -> None:
    """One step: the difference to the step without decay is -lr * decay * base = -0.05 base."""
    one_step: dict[str, Any] = {"batch_size": 64, "epochs": 1}
    free = learn(lesson("fedavg", weight_decay=0.0, **one_step)).weights

    pulled = learn(lesson("fedavg", weight_decay=0.5, **one_step)).weights

    base = lesson("fedavg").base
    for name in filter(is_parameter, base):
        assert np.allclose(pulled[name] - free[name], -0.05 * base[name], atol=1e-6)


def test_chance_is_asked_once_for_each_purpose_and_epoch() -> None:
    """Shuffling always, augmentation only where the transform has any."""
    asked: list[tuple[str, int]] = []

    def generator(purpose: str, epoch: int) -> np.random.Generator:
        asked.append((purpose, epoch))
        return np.random.default_rng(epoch)

    learn(lesson("fedavg", generator=generator))
    assert asked == [("shuffle", 0), ("shuffle", 1)]

    asked.clear()
    learn(lesson("fedavg", generator=generator, transform=Transform((0.5,), (0.5,), 2)))
    assert asked == [("shuffle", 0), ("augment", 0), ("shuffle", 1), ("augment", 1)]


def test_half_precision_is_near_full_precision_and_gives_full_weights() -> None:
    """bf16 keeps eight bits: the step differs, but by little, and tensors stay float32."""
    one_step = {"batch_size": 64, "epochs": 1}
    full = learn(lesson("fedka", **one_step))

    half = learn(lesson("fedka", precision="bf16", **one_step))

    assert all(half.weights[name].dtype == full.weights[name].dtype for name in full.weights)
    assert not same(half.weights, full.weights)
    assert half.metrics["loss"] == pytest.approx(full.metrics["loss"], rel=0.05)


def third_stage(strategy: Strategy) -> Lesson:
    """Forty images of six classes, two of each stage, for a client that has met three of four.

    All of them in one step, which tells switches apart as well as three do. The head of the model
    is enlarged, so that its gaps differ enough for weights to be clamped.
    """
    teacher = models()[1]
    base = grown(teacher, 2, np.random.default_rng(2))
    return lesson(
        strategy,
        teacher=teacher,
        base=base | {"fc.weight": 32 * base["fc.weight"]},
        rows=np.arange(40) % 6,
        stage_of_row=(0, 0, 1, 1, 2, 2),
        stage=2,
        learned=3,
        epochs=1,
        batch_size=40,
    )


@cache
def in_a_third_stage(switch: str, value: Any) -> Weights:
    """What FedKA learns there with one switch thrown."""
    return learn(third_stage(FEDKA.under(**{switch: value}))).weights


SWITCHED: list[tuple[str, Any]] = [
    ("family", "softmax"),
    ("reduction", "sum"),
    ("alpha", 1.0),
    ("beta", 0.5),
    ("gamma", 0.5),
    ("cls_rows", "current"),
    ("weight", "product"),
    ("weight", "old_new"),
    ("weight", "cumulative"),
    ("weight", "none"),
    ("weighted", ("classification", "semantic")),
    ("weight_clamp", None),
    ("exponent", "stage"),
    ("exponent", "one"),
    ("sd_mode", "joint"),
    ("sd_mode", "slice"),
    ("sd_mode", "slice_onehot"),
    ("sd_mode", "bce"),
    ("sd_temperature", 2.0),
    ("ad_layers", ("layer2",)),
    ("ad_layers", ("layer3", "layer4")),
    ("ad_class", "student"),
    ("ad_class", "truth"),
    ("ad_class", "own"),
    ("ad_norm", "l2sq"),
    ("alpha_grad", "detached"),
    ("cam_relu", False),
]


@pytest.mark.parametrize(("switch", "value"), SWITCHED)
def test_every_switch_makes_another_model_of_finite_numbers(switch: str, value: Any) -> None:
    """In a third stage each alone differs from the default, and the same lesson gives it again."""
    model = in_a_third_stage(switch, value)

    assert all(np.isfinite(tensor).all() for tensor in model.values())
    assert not same(model, in_a_third_stage("alpha", 2.0))
    assert same(model, learn(third_stage(FEDKA.under(**{switch: value}))).weights)


def test_no_switch_is_left_out_and_none_stands_for_another() -> None:
    """All were thrown, but for the one that counts without a teacher; no two models are the same.

    Of a value that is read as another's both would make one model.
    """
    models = {in_a_third_stage(*each)["conv1.weight"].tobytes() for each in SWITCHED}

    assert {switch for switch, _ in SWITCHED} | {"alpha_alone"} == {
        switch.name for switch in fields(Objective)
    }
    assert len(models) == len(SWITCHED)


def test_looking_at_earlier_layers_does_not_move_the_statistics() -> None:
    """One step: the second pass is in eval mode, so running means are those of plain training."""
    one_step = {"batch_size": 64, "epochs": 1}
    deep = learn(lesson(FEDKA.under(ad_layers=("layer1", "layer3")), **one_step)).weights
    plain = learn(lesson("fedavg", **one_step)).weights

    for name in plain:
        if not is_parameter(name):
            assert np.array_equal(deep[name], plain[name])


def test_earlier_layers_work_in_half_precision() -> None:
    """Gradients are taken of the half-precision maps themselves."""
    deep = FEDKA.under(ad_layers=("layer2", "layer4"))

    metrics = learn(lesson(deep, precision="bf16", epochs=1)).metrics

    assert np.isfinite(metrics["loss"])
    assert metrics["attention"] > 0


@pytest.mark.parametrize("layers", [("layer4",), ("layer1", "layer3")])
def test_a_student_that_is_its_teacher_pays_nothing(layers: tuple[str, ...]) -> None:
    """The base is the teacher with new rows: with equal statistics (eval mode) both distillations
    are 0 but for the last bits, and another base's are not.
    """
    seen = {}

    for seed in (0, 5):
        told = lesson(FEDKA.under(ad_layers=layers), base=models(seed)[1])
        student = from_weights(told.base).eval()
        objective = LocalObjective(told, student, teacher_of(told))
        seen[seed] = objective(told.transform.normalise(told.images), torch.from_numpy(told.rows))

    assert seen[0]["semantic"].item() == pytest.approx(0, abs=1e-6)
    assert seen[0]["attention"].item() == pytest.approx(0, abs=1e-4)
    assert seen[5]["semantic"].item() > 1e-4
    assert seen[5]["attention"].item() > 1e-2


def test_a_stage_that_grew_no_row_classifies_among_all() -> None:
    """`cls_rows: current` has nothing to choose in a stage without new classes."""
    told = {"stage": 2, "new": 0}
    switched = STRATEGIES["fedavg"].under(cls_rows="current")

    assert same(learn(lesson(switched, **told)).weights, learn(lesson("fedavg", **told)).weights)


def test_the_loop_learns() -> None:
    """Four kinds of images, a bright quarter each: after six epochs it tells new ones apart."""
    chance = np.random.default_rng(0)
    rows = np.arange(128) % 4
    images = chance.integers(0, 80, (128, 1, 16, 16), dtype=np.uint8)
    for image, row in zip(images, rows, strict=True):
        top, left = 8 * (row // 2), 8 * (row % 2)
        image[0, top : top + 8, left : left + 8] += 120
    told = first_stage(
        "fedka",
        base=models(width=4)[1],
        images=images[:96],
        rows=rows[:96],
        learning_rate=0.5,
        epochs=6,
    )

    before = accuracy(evaluate(told.base, images[96:], rows[96:], told.transform))
    after = accuracy(evaluate(learn(told).weights, images[96:], rows[96:], told.transform))

    assert before < 0.6
    assert after > 0.9


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rate": 0.0}, "positive and finite"),
        ({"strategy": FEDKA.under(reduction="sum"), "learning_rate": 2.0}, "at most 0.2"),
        ({"batch_size": 1}, "not 1 and 2"),
        ({"epochs": 0}, "not 16 and 0"),
        ({"weight_decay": -1.0}, "not -1.0 and None"),
        ({"clip_norm": 0.0}, "not 1e-05 and 0.0"),
        ({"precision": "fp16"}, "not fp16"),
        ({"stage_of_row": (0, 0, 1)}, "the head has 4 rows, and stages are told of 3"),
        ({"stage_of_row": (1, 0, 1, 1)}, "stage by stage"),
        ({"stage_of_row": (0, 0, 2, 2)}, "in stage 1 no row"),
        ({"base": models()[0], "teacher": models()[1]}, "stages are told of 4"),
        (
            {"base": models()[0], "teacher": models()[1], "stage_of_row": (0, 0)},
            "the teacher knows 4 classes, the student only 2",
        ),
        ({"rows": np.zeros(3, np.int64)}, r"\(40, 1, 16, 16\) and \(3,\)"),
        ({"rows": np.full(40, 4)}, "rows 4 to 4, but the head has 4"),
        ({"images": np.zeros((0, 1, 8, 8), np.uint8), "rows": np.zeros(0, np.int64)}, "at least 1"),
        ({"images": np.zeros((40, 3, 8, 8), np.uint8)}, "the model sees 1 channels"),
    ],
)
def test_a_lesson_that_makes_no_sense_is_refused(changes: dict[str, Any], complaint: str) -> None:
    """Before anything is trained, with the numbers that do not fit."""
    with pytest.raises(ValueError, match=complaint):
        lesson(**changes)
