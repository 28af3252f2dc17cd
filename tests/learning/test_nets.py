"""The net in torch."""

import numpy as np
import pytest
import torch

from learning.augmentation import Transform
from learning.nets import (
    BATCH,
    features_and_logits,
    folded,
    from_weights,
    frozen_statistics,
    pooled,
    to_weights,
)
from learning.shapes import LAYERS
from tests.learning.lessons import models, same

PLAIN = Transform((0.5,), (0.5,))


def test_weights_come_out_as_they_went_in() -> None:
    """Byte for byte, contiguous and writable, though the net keeps them in another layout."""
    _, base = models(width=4)

    net = from_weights(base)
    back = to_weights(net)

    assert same(back, base)
    assert all(tensor.flags.c_contiguous and tensor.flags.writeable for tensor in back.values())
    assert net.get_parameter("layer1.0.conv1.weight").is_contiguous(
        memory_format=torch.channels_last
    )


def test_a_net_is_a_copy() -> None:
    """Training it does not reach the arrays that it was built from, nor those it gave away."""
    _, base = models()
    net = from_weights(base)
    given = to_weights(net)

    with torch.no_grad():
        net.conv1.weight += 1

    assert np.array_equal(given["conv1.weight"], base["conv1.weight"])
    assert np.allclose(to_weights(net)["conv1.weight"], base["conv1.weight"] + 1)


def test_building_a_net_draws_no_random_number() -> None:
    """Torch's global generator is where it was."""
    before = torch.get_rng_state()

    from_weights(models()[1])

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("side", "cells"), [(32, 4), (28, 4), (16, 2), (8, 1)])
def test_the_last_map_is_an_eighth_of_the_image(side: int, cells: int) -> None:
    """32 and 28 end at 4 x 4, 16 at 2 x 2, 8 at a single cell; maps halve on the way."""
    net = from_weights(models()[1])

    maps = dict(net.maps(torch.zeros(2, 1, side, side)))

    assert list(maps) == list(LAYERS)
    assert maps["layer4"].shape == (2, 16, cells, cells)
    assert maps["layer1"].shape == (2, 2, side, side)


def test_logits_are_the_head_of_the_mean_of_the_last_map() -> None:
    """z = W mean(A) + b, whichever way it is asked for; no map is negative."""
    net = from_weights(models()[1])
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    maps, logits = net.maps_and_logits(images)

    expected = pooled(maps) @ net.fc.weight.T + net.fc.bias
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.equal(logits, net.head(net.features(images)))
    assert torch.equal(logits, net(images))
    assert maps.min() >= 0


@pytest.mark.slow  # torchvision imports torch's compiler, for seconds
def test_the_stem_and_blocks_compute_what_torchvisions_do() -> None:
    """With the same stem, torchvision's ResNet-18 of the same weights gives the same logits."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(num_classes=4).eval()
    theirs.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    ours = from_weights(to_weights(theirs))
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_folding_the_normalisations_changes_only_the_last_bits() -> None:
    """A net whose statistics are not trivial, folded, says the same; the original is untouched."""
    net = from_weights(models(width=4)[1]).train()
    images = torch.rand(9, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    net(images)
    net.eval()
    before = to_weights(net)

    lean = folded(net)

    assert torch.allclose(lean(images), net(images), atol=1e-5)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in lean.modules())
    assert same(to_weights(net), before)


def test_looking_at_images_leaves_a_training_net_as_it_was() -> None:
    """Statistics and mode are the same afterwards, and no batch but the last is short."""
    net = from_weights(models()[1]).train()
    before = to_weights(net)
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 3, 1, 8, 8), dtype=np.uint8)

    features, logits = features_and_logits(net, images, PLAIN)

    assert features.shape == (BATCH + 3, 16)
    assert logits.shape == (BATCH + 3, 4)
    assert net.training
    assert same(to_weights(net), before)
    alone, _ = features_and_logits(net, images[BATCH:], PLAIN)
    assert np.array_equal(features[BATCH:], alone)


def test_no_images_have_no_features() -> None:
    """(0, K) and (0, C), so that callers need no special case."""
    features, logits = features_and_logits(
        from_weights(models()[1]), np.empty((0, 1, 8, 8), np.uint8), PLAIN
    )

    assert features.shape == (0, 16)
    assert logits.shape == (0, 4)


def test_statistics_thaw_also_after_an_error() -> None:
    """A net in training is back in train mode when what it was frozen for has failed."""
    net = from_weights(models()[1]).train()

    def fail() -> None:
        with frozen_statistics(net):
            assert not net.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert net.training
