"""Attention distillation L_AD: Grad-CAM and its closed form (docs/method.md 5.6)."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learning.losses import (
    attended_rows,
    attention_distance,
    class_activation_map,
    grad_cam,
    is_empty,
)
from learning.nets import ResNet18, from_weights, pooled
from learning.shapes import LAYERS, first_model, grown
from learning.strategies.strategy import AttentionClass


def net(seed: int, rows: int = 3) -> ResNet18:
    """A narrow net in float64 that has looked at a few images, so its statistics are its own."""
    chance = np.random.default_rng(seed)
    drawn = from_weights(grown(first_model(1, 2, chance), rows, chance)).double().train()
    with torch.no_grad():
        drawn(torch.from_numpy(chance.normal(size=(8, 1, 16, 16))))
    return drawn


def images(seed: int = 7, count: int = 4) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 1, 16, 16)))


def test_the_map_is_the_relu_of_the_channels_weighed_by_the_head() -> None:
    """Two channels of two cells, (2, 6) and (4, 0); head row (1, -1): (2 - 4, 6 - 0) / 2 = (-1, 3).

    After the ReLU (0, 3).
    """
    a = torch.tensor([[[[2.0, 6.0]], [[4.0, 0.0]]]])
    head = torch.tensor([[9.0, 9.0], [1.0, -1.0]])
    row = torch.tensor([1])

    assert class_activation_map(a, head, row).tolist() == [[0.0, 3.0]]
    assert class_activation_map(a, head, row, relu=False).tolist() == [[-1.0, 3.0]]


def test_the_distance_is_taken_between_directions() -> None:
    """(3, 4) and (8, 6) point to (.6, .8) and (.8, .6): L1 0.4, squared L2 0.08; by 2 cells."""
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[8.0, 6.0]])

    def distance(**switches: Any) -> float:
        return attention_distance(student, teacher, **switches).item()

    assert distance() == pytest.approx(0.2)
    assert distance(reduction="sum") == pytest.approx(0.4)
    assert distance(norm="l2sq", reduction="sum") == pytest.approx(0.08)
    assert distance(norm="l2sq") == pytest.approx(0.04)


@pytest.mark.parametrize("training", [True, False])
def test_the_closed_form_is_grad_cam_and_has_its_gradient(training: bool) -> None:
    """At the last layer both maps are equal, and so are the gradients of the distance: plain
    autograd through the closed form against double backward, to 1e-6 in float64, in train and eval
    mode.
    """
    student = net(0).train(training)
    rows, target = torch.tensor([0, 2, 1, 2]), torch.rand(4, 4, generator=seeded()).double()
    gradients, found = [], []

    for closed in (True, False):
        a, logits = student.maps_and_logits(images())
        if closed:
            found.append(class_activation_map(a, student.fc.weight, rows))
        else:
            found.append(grad_cam(a, logits.gather(1, rows[:, None])))
        loss = attention_distance(found[-1], target).mean()
        slopes = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
        gradients.append(torch.cat([s.flatten() for s in slopes if s is not None]))

    assert torch.allclose(found[0], found[1], rtol=1e-12, atol=0)
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() < 1e-6 * gradients[1].norm()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_the_gradient_reaches_the_backbone() -> None:
    """A known trap: attention losses that detach the activations teach the backbone nothing."""
    student = net(0)
    a, _ = student.maps_and_logits(images())

    found = class_activation_map(a, student.fc.weight, torch.tensor([0, 1, 2, 0]))
    loss = attention_distance(found, torch.rand(4, 4, generator=seeded()).double()).mean()
    (stem,) = torch.autograd.grad(loss, [student.conv1.weight])

    assert stem.norm() > 0


def test_detached_channel_weights_leave_the_head_alone() -> None:
    """`alpha_grad: detached`: no gradient to W; the backbone's, for which W is constant, stays."""
    student, rows = net(0), torch.tensor([0, 1, 2, 0])
    target = torch.rand(4, 4, generator=seeded()).double()
    slopes = {}

    for alpha_grad in ("full", "detached"):
        a, _ = student.maps_and_logits(images())
        found = class_activation_map(a, student.fc.weight, rows, alpha_grad=alpha_grad)
        loss = attention_distance(found, target).mean()
        weights = [student.conv1.weight, student.fc.weight]
        slopes[alpha_grad] = torch.autograd.grad(loss, weights, allow_unused=True)

    assert slopes["detached"][1] is None
    assert slopes["full"][1].norm() > 0
    assert torch.allclose(slopes["full"][0], slopes["detached"][0])


@pytest.mark.parametrize("layer", LAYERS[:-1])
def test_an_earlier_layers_gradient_is_the_slope_of_its_loss(layer: str) -> None:
    """Double backward against a central difference along a random direction, float64, to 1e-4."""
    student, rows = net(2).eval(), torch.tensor([0, 1, 2, 0])
    parameter = student.conv1.weight
    direction = torch.randn(parameter.shape, generator=seeded()).double()
    cells = dict(student.maps(images()))[layer].flatten(2).shape[2]
    target = torch.rand(4, cells, generator=seeded()).double()

    def loss() -> Tensor:
        maps = dict(student.maps(images()))
        scores = student.head(pooled(maps[LAYERS[-1]])).gather(1, rows[:, None])
        return attention_distance(grad_cam(maps[layer], scores), target).mean()

    (slope,) = torch.autograd.grad(loss(), [parameter])
    step = 1e-6
    moved = []
    for sign in (1, -1):
        parameter.data += sign * step * direction
        moved.append(loss().item())
        parameter.data -= sign * step * direction

    assert (slope * direction).sum().item() == pytest.approx(
        (moved[0] - moved[1]) / (2 * step), rel=1e-4, abs=1e-9
    )


def test_with_detached_weights_an_earlier_map_is_the_same() -> None:
    """Only the gradient differs, never the map itself."""
    student, rows = net(2).eval(), torch.tensor([0, 1, 2, 0])
    maps = dict(student.maps(images()))
    scores = student.head(pooled(maps[LAYERS[-1]])).gather(1, rows[:, None])

    full = grad_cam(maps["layer2"], scores)
    detached = grad_cam(maps["layer2"], scores, alpha_grad="detached")

    assert torch.equal(full, detached)


def test_with_frozen_statistics_an_earlier_map_belongs_to_its_image() -> None:
    """In eval mode a batch's maps equal each image's own; in train mode the batch mixes them."""
    for training, alike in ((False, True), (True, False)):
        student, rows = net(2).train(training), torch.tensor([0, 1, 2, 0])
        maps = dict(student.maps(images()))
        scores = student.head(pooled(maps[LAYERS[-1]])).gather(1, rows[:, None])
        together = grad_cam(maps["layer3"], scores)
        slope = torch.autograd.grad(scores[0].sum(), maps["layer3"])[0]

        alone = torch.einsum("k,khw->hw", slope[0].mean((1, 2)), maps["layer3"][0]).relu()

        assert torch.allclose(together[0], alone.flatten()) == alike


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(st.floats(0, 5), min_size=4, max_size=4).filter(lambda cells: max(cells) > 0.1),
    st.lists(st.floats(0, 5), min_size=4, max_size=4).filter(lambda cells: max(cells) > 0.1),
    st.floats(0.01, 100),
)
def test_only_where_a_map_looks_counts_not_how_strongly(
    student: list[float], teacher: list[float], scale: float
) -> None:
    """A -> s A changes nothing; a map is at distance 0 from itself, at most 2 sqrt(Q) from any."""
    a, b = torch.tensor([student]).double(), torch.tensor([teacher]).double()

    distance = attention_distance(a, b, reduction="sum").item()

    assert attention_distance(scale * a, b, reduction="sum").item() == pytest.approx(distance)
    assert attention_distance(a, a).item() == 0
    assert 0 <= distance <= 4


def test_a_teacher_that_looks_nowhere_teaches_nothing_of_the_sample() -> None:
    """Its distance is 0 and finite; with an empty student map it is the teacher's own L1 length."""
    student = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0], [3.0, 4.0]])

    distances = attention_distance(student, teacher, reduction="sum")
    (slope,) = torch.autograd.grad(distances.sum(), student)

    assert distances.tolist() == pytest.approx([0.0, 0.6 + 0.8])
    assert slope[0].tolist() == [0.0, 0.0]
    assert slope.isfinite().all()
    assert is_empty(teacher).tolist() == [True, False]


def test_a_map_of_one_cell_can_teach_nothing() -> None:
    """Any two positive numbers are both 1 once normalised (images of 8 x 8 end so)."""
    assert attention_distance(torch.tensor([[0.2]]), torch.tensor([[7.0]])).item() == 0


@pytest.mark.parametrize(
    ("attention_class", "teachers", "students"),
    [
        ("teacher", [1, 0], [1, 0]),
        ("student", [0, 1], [0, 1]),
        ("truth", [0, 0], [0, 0]),
        ("own", [1, 0], [2, 1]),
    ],
)
def test_the_class_that_the_maps_explain_can_be_chosen(
    attention_class: AttentionClass, teachers: list[int], students: list[int]
) -> None:
    """Two old rows. Sample 0 is of row 0, sample 1 of the new row 2. The teacher prefers rows 1
    and 0, the student among all rows 2 and 1, among old ones 0 and 1.
    """
    teacher_logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    logits = torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.8, 0.3]])

    theirs, ours = attended_rows(attention_class, logits, teacher_logits, torch.tensor([0, 2]))

    assert theirs.tolist() == teachers
    assert ours.tolist() == students
