"""A training elsewhere than on the processor: what can be shown of it without a graphics card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learning import training
from learning.album import resident, taken
from learning.augmentation import Transform
from learning.devices import missing
from learning.lesson import Lesson
from learning.strategies import STRATEGIES
from learning.training import learn
from tests.learning.lessons import lesson

VARIED = Transform((0.5, 0.4), (0.25, 0.2), crop_padding=3, horizontal_flip=True, brightness=0.3)
ASKS_FOR_VALUES = {"fedntd"}
"""Methods that pick numbers by a mask, whose count a device without numbers cannot know."""


@pytest.mark.parametrize(
    "transform",
    [VARIED, Transform((0.5, 0.4), (0.25, 0.2)), Transform((0.5, 0.4), (0.25, 0.2), 2)],
)
def test_images_that_lie_there_make_the_same_batch(transform: Transform) -> None:
    """Cut, mirrored, brightened and normalised by torch, to the bytes that numpy's way gives."""
    images = np.random.default_rng(1).integers(0, 256, (20, 2, 9, 7), dtype=np.uint8)
    chosen = np.array([3, 3, 19, 0, 7, 11])
    there = resident(images, "cpu")

    varied = taken(there, chosen, transform, np.random.default_rng(2))
    plain = taken(there, chosen, transform, None)

    assert there.dtype == torch.uint8
    for ours, theirs in (
        (varied, transform.augment(images[chosen], np.random.default_rng(2))),
        (plain, transform.normalise(images[chosen])),
    ):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
        assert ours.is_contiguous(memory_format=torch.channels_last)


def elsewhere(name: str) -> Lesson:
    """A lesson on torch's device without numbers: it stands for any that is not the processor."""
    told = lesson(name, transform=Transform((0.5,), (0.25,), 2, True, 0.2), epochs=1)
    object.__setattr__(told, "device", "meta")
    return told


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - ASKS_FOR_VALUES))
def test_nothing_of_a_training_is_left_on_the_processor(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, rows, loss, gradients and corrections are there; where one is not, torch refuses
    to compute. The last step, and the way back, are the device's own."""
    stepped: list[str] = []

    def note(parameters: list[Any], gradients: list[Any], *_: Any, **__: Any) -> None:
        stepped.extend(each.device.type for each in (*parameters, *gradients))

    class Over(Exception):
        """The training is done; what there is has no numbers."""

    def end(student: Any) -> None:
        raise Over

    monkeypatch.setattr(training, "sgd", note)
    monkeypatch.setattr(training, "to_weights", end)

    with pytest.raises(Over):
        learn(elsewhere(name))

    assert stepped
    assert set(stepped) == {"meta"}


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_told(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is here is torch's word; the processor always is."""
    asked = {"cuda": torch.cuda, "mps": torch.backends.mps}[device]

    monkeypatch.setattr(asked, "is_available", lambda: False)
    assert f"device={device} is not here" in (missing(device) or "")

    monkeypatch.setattr(asked, "is_available", lambda: True)
    assert missing(device) is None
    assert missing("cpu") is None
