"""Images on their way into a model."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.augmentation import Transform

CHANCE = np.random.default_rng(0)
COLOUR = CHANCE.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
AS_IT_IS: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
"""With these the transform's output is the image's own numbers."""


def test_images_are_normalised_by_channel() -> None:
    """(x / 255 - mean) / std: 255 with 0.5 and 0.25 is 2, 51 with 0.2 and 0.1 is 0."""
    images = np.array([[[[255]], [[51]]]], dtype=np.uint8)

    out = Transform((0.5, 0.2), (0.25, 0.1)).normalise(images)

    assert out.flatten().tolist() == pytest.approx([2, 0], abs=1e-6)
    assert out.dtype == torch.float32


@pytest.mark.slow  # torchvision imports torch's compiler, for seconds
def test_normalising_agrees_with_torchvision() -> None:
    """ToTensor and Normalize, image by image, to 1e-6."""
    transforms = pytest.importorskip("torchvision.transforms.functional")
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

    ours = Transform(mean, std).normalise(COLOUR)

    theirs = transforms.normalize(torch.from_numpy(COLOUR) / 255, mean, std)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_a_transform_without_chance_augments_by_normalising() -> None:
    """And draws nothing: the generator is where it was."""
    transform, chance = Transform(**AS_IT_IS), np.random.default_rng(3)

    out = transform.augment(COLOUR, chance)

    assert torch.equal(out, transform.normalise(COLOUR))
    assert chance.random() == np.random.default_rng(3).random()
    assert not transform.augments


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_a_crop_is_a_window_of_the_framed_image(seed: int, padding: int) -> None:
    """Each image is one of the (2p + 1)^2 windows of itself in a black frame."""
    out = Transform(**AS_IT_IS, crop_padding=padding).augment(COLOUR, np.random.default_rng(seed))

    frame = np.pad(COLOUR, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for image, framed in zip(out.round().numpy(), frame, strict=True):
        windows = [
            framed[:, top : top + 5, left : left + 4]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        assert any(np.array_equal(image, window) for window in windows)


def test_crops_reach_every_place() -> None:
    """A white pixel under padding 1 is seen in the middle and in the eight places around it."""
    images = np.zeros((500, 1, 3, 3), np.uint8)
    images[:, 0, 1, 1] = 255

    out = Transform((0.0,), (1.0,), crop_padding=1).augment(images, np.random.default_rng(0))

    places = {tuple(np.argwhere(image[0] > 0.5)[0]) for image in out.numpy()}
    assert len(places) == 9


def test_half_of_the_images_are_mirrored() -> None:
    """Each is itself or its mirror image; of 400 about 200 are mirrored."""
    images = np.tile(np.arange(4, dtype=np.uint8), (400, 1, 2, 1))

    out = Transform((0.0,), (1 / 255,), horizontal_flip=True).augment(
        images, np.random.default_rng(0)
    )

    rows = out.round().int()[:, 0, 0].tolist()
    mirrored = sum(row == [3, 2, 1, 0] for row in rows)
    assert mirrored + sum(row == [0, 1, 2, 3] for row in rows) == 400
    assert 160 < mirrored < 240


def test_brightness_multiplies_each_image_and_stays_in_range() -> None:
    """U(0.75, 1.25): 100 becomes 75 to 125, one factor for an image; 250 is clipped at 255."""
    images = np.full((300, 1, 2, 2), 100, np.uint8)
    images[:, 0, 0, 0] = 250

    out = Transform((0.0,), (1 / 255,), brightness=0.25).augment(images, np.random.default_rng(0))

    factors = out[:, 0, 1, 1] / 100
    assert 0.75 <= factors.min() < 0.77
    assert 1.23 < factors.max() <= 1.25
    assert torch.allclose(out[:, 0, 0, 0], (250 * factors).clamp_max(255), atol=1e-3)


def test_the_same_generator_gives_the_same_batch() -> None:
    """And the next batch from it is another one."""
    transform = Transform(**AS_IT_IS, crop_padding=2, horizontal_flip=True, brightness=0.2)
    chance = np.random.default_rng(9)

    first, second = transform.augment(COLOUR, chance), transform.augment(COLOUR, chance)

    assert torch.equal(first, transform.augment(COLOUR, np.random.default_rng(9)))
    assert not torch.equal(first, second)
    assert transform.augments


def test_images_may_be_read_only_and_stay_as_they_are() -> None:
    """Arrays over received bytes cannot be written."""
    frozen = COLOUR.copy()
    frozen.flags.writeable = False

    out = Transform(**AS_IT_IS).normalise(frozen)
    out += 1

    assert np.array_equal(frozen, COLOUR)


def test_what_is_no_image_or_transform_is_refused() -> None:
    """Other dtypes, axes and channels; means without deviations; chances out of range."""
    transform = Transform((0.5,), (0.5,))
    floats: Any = np.zeros((1, 1, 2, 2))
    with pytest.raises(ValueError, match="not float64 of 4"):
        transform.normalise(floats)
    with pytest.raises(ValueError, match="not uint8 of 3"):
        transform.normalise(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="have 3 channels, the transform's means 1"):
        transform.normalise(COLOUR)
    with pytest.raises(ValueError, match="1 means do not fit 2"):
        Transform((0.5,), (0.5, 0.5))
    with pytest.raises(ValueError, match="deviations are positive"):
        Transform((0.5,), (0.0,))
    with pytest.raises(ValueError, match="crop_padding -1"):
        Transform((0.5,), (0.5,), crop_padding=-1)
    with pytest.raises(ValueError, match=r"brightness 1\.5"):
        Transform((0.5,), (0.5,), brightness=1.5)
