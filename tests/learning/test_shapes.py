"""Which tensors a model has."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from learning.nets import from_weights
from learning.shapes import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    Sizes,
    dtype_of,
    first_model,
    grown,
    is_counter,
    is_parameter,
    is_statistic,
    model_shapes,
    sizes_of,
)


@pytest.mark.parametrize(
    ("channels", "classes", "parameters"),
    [(3, 10, 11_173_962), (3, 100, 11_220_132), (1, 9, 11_172_297)],
)
def test_the_papers_net_has_as_many_parameters_as_a_resnet_18(
    channels: int, classes: int, parameters: int
) -> None:
    """Width 64 with a 3x3 stem: 11.2 million parameters and 9,620 numbers of normalisation."""
    shapes = model_shapes(channels, 64, classes)

    counted = {name: math.prod(shape) for name, shape in shapes.items()}
    assert sum(n for name, n in counted.items() if is_parameter(name)) == parameters
    assert sum(n for name, n in counted.items() if not is_parameter(name)) == 9_620


@pytest.mark.slow  # torchvision imports torch's compiler, for seconds
def test_tensors_bear_torchvisions_names_in_its_order() -> None:
    """But for the stem's kernel of 3, shapes are those of torchvision's ResNet-18, too."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18(num_classes=7).state_dict()

    ours = model_shapes(3, 64, 7)

    assert list(ours) == list(theirs)
    different = [name for name in ours if ours[name] != tuple(theirs[name].shape)]
    assert different == ["conv1.weight"]


def test_a_tensors_name_tells_what_it_is() -> None:
    """Statistics, counters and parameters; only counters are whole numbers."""
    assert is_statistic("layer1.0.bn1.running_var")
    assert is_counter("bn1.num_batches_tracked")
    assert is_parameter("fc.bias")
    assert not is_parameter("bn1.running_mean")
    assert dtype_of("bn1.num_batches_tracked") == np.int64
    assert dtype_of("bn1.running_mean") == np.float32


def test_the_first_model_has_no_class() -> None:
    """Its head has no row, its tensors the promised shapes and dtypes, its norms are identities."""
    model = first_model(3, 4, np.random.default_rng(0))

    assert {name: tensor.shape for name, tensor in model.items()} == model_shapes(3, 4, 0)
    assert all(tensor.dtype == dtype_of(name) for name, tensor in model.items())
    assert sizes_of(model) == Sizes(channels=3, width=4, classes=0)
    assert (model["layer2.0.downsample.1.weight"] == 1).all()
    assert (model["layer3.1.bn2.running_var"] == 1).all()
    assert (model["layer3.1.bn2.bias"] == 0).all()
    assert model["bn1.num_batches_tracked"] == 0


def test_convolutions_are_drawn_with_the_variance_of_their_outputs() -> None:
    """512 x 512 kernels of 3 x 3: 2 / (9 * 512), mean 0."""
    kernels = first_model(1, 64, np.random.default_rng(0))["layer4.1.conv2.weight"]

    assert kernels.var() == pytest.approx(2 / (9 * 512), rel=0.01)
    assert kernels.mean() == pytest.approx(0, abs=1e-4)


def test_growing_step_by_step_keeps_every_byte_of_before() -> None:
    """3 rows, then 2 more: the first 3 and all other tensors stay; the old model is not touched."""
    chance = np.random.default_rng(0)
    old = grown(first_model(1, 2, chance), 3, chance)
    bytes_before = {name: tensor.tobytes() for name, tensor in old.items()}

    new = grown(old, 2, chance)

    assert {name: tensor.tobytes() for name, tensor in old.items()} == bytes_before
    assert sizes_of(new).classes == 5
    for name, tensor in old.items():
        kept = new[name][:3] if name in (HEAD_WEIGHT, HEAD_BIAS) else new[name]
        assert kept.tobytes() == tensor.tobytes()


def test_a_mean_of_no_rows_is_a_draw() -> None:
    """`mean` on an empty head gives what `default` gives."""
    first = first_model(1, 2, np.random.default_rng(0))

    mean, default = (
        grown(first, 2, np.random.default_rng(5), head_init=init) for init in ("mean", "default")
    )

    assert np.array_equal(mean[HEAD_WEIGHT], default[HEAD_WEIGHT])


def test_a_head_without_rows_answers_without_logits() -> None:
    """Five images, no class: (5, 0)."""
    net = from_weights(first_model(1, 2, np.random.default_rng(0)))

    maps, logits = net.maps_and_logits(torch.zeros(5, 1, 8, 8))

    assert logits.shape == (5, 0)
    assert maps.shape == (5, 16, 1, 1)


def test_what_is_no_model_is_refused_with_the_tensor_that_is_wrong() -> None:
    """Missing, superfluous, of another shape, of another dtype, and no head at all."""
    model = first_model(1, 2, np.random.default_rng(0))

    def without(name: str) -> dict[str, np.ndarray]:
        return {key: tensor for key, tensor in model.items() if key != name}

    with pytest.raises(ValueError, match=r"no tensor layer1\.0\.bn1\.bias"):
        sizes_of(without("layer1.0.bn1.bias"))
    with pytest.raises(ValueError, match=r"no tensor fc\.weight"):
        sizes_of(without("fc.weight"))
    with pytest.raises(ValueError, match="extra is no tensor"):
        sizes_of({**model, "extra": np.zeros(1)})
    with pytest.raises(ValueError, match=r"fc\.bias is float32 of shape \(3,\), not .* \(0,\)"):
        sizes_of({**model, "fc.bias": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"bn1\.bias is float64"):
        sizes_of({**model, "bn1.bias": np.zeros(2)})
    with pytest.raises(ValueError, match="no ResNet-18's"):
        sizes_of({**model, "fc.weight": np.zeros(3, np.float32)})


def test_impossible_sizes_and_growths_are_refused() -> None:
    """No width, no rows to grow by, no such way to begin."""
    with pytest.raises(ValueError, match="width 0"):
        model_shapes(1, 0, 3)
    model = first_model(1, 2, np.random.default_rng(0))
    unknown: Any = "imprint"
    with pytest.raises(ValueError, match="not by 0"):
        grown(model, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="not imprint"):
        grown(model, 1, np.random.default_rng(0), unknown)
