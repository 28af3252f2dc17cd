"""Which tensors a model has, how the first one is drawn, and how its head grows.

The net is a ResNet-18 for small images (docs/method.md 2): a 3x3 stem of stride 1 without pooling,
then four layers of two basic blocks with w, 2w, 4w and 8w channels; the paper's w is 64. Tensors
bear torchvision's names. This file needs numpy alone, so that who only averages and grows models
starts without torch. Chance is drawn with numpy: torch's initialisers give other bytes on
processors with other instructions.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, NDArray[Any]]
HeadInit = Literal["default", "mean"]

LAYERS = ("layer1", "layer2", "layer3", "layer4")
BLOCKS_PER_LAYER = 2
HEAD_WEIGHT, HEAD_BIAS = "fc.weight", "fc.bias"

_STATISTICS = (".running_mean", ".running_var")
_COUNTER = ".num_batches_tracked"


class Sizes(NamedTuple):
    """What tells one ResNet-18 from another."""

    channels: int
    """Channels of an image: 1 (gray) or 3 (colour)."""
    width: int
    """Channels of the first layer; the last one has eight times as many."""
    classes: int
    """Rows of the head; 0 before the first class was found."""


def model_shapes(channels: int, width: int, classes: int) -> Shapes:
    """Every tensor's name and shape, in the order of torchvision's state dict.

    Raises ValueError if `channels` or `width` is below 1 or `classes` below 0.
    """
    if channels < 1 or width < 1 or classes < 0:
        raise ValueError(
            f"no model has {channels} channels, width {width} and {classes} classes: "
            "the least are 1, 1 and 0"
        )
    shapes = {"conv1.weight": (width, channels, 3, 3)} | _norm("bn1", width)
    before = width
    for number, layer in enumerate(LAYERS):
        after = width << number
        for block in range(BLOCKS_PER_LAYER):
            shapes |= _block(f"{layer}.{block}", before, after)
            before = after
    return shapes | {HEAD_WEIGHT: (classes, before), HEAD_BIAS: (classes,)}


def _block(name: str, before: int, after: int) -> Shapes:
    shapes: Shapes = {f"{name}.conv1.weight": (after, before, 3, 3)}
    shapes |= _norm(f"{name}.bn1", after)
    shapes |= {f"{name}.conv2.weight": (after, after, 3, 3)}
    shapes |= _norm(f"{name}.bn2", after)
    if before != after:
        shapes |= {f"{name}.downsample.0.weight": (after, before, 1, 1)}
        shapes |= _norm(f"{name}.downsample.1", after)
    return shapes


def _norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (channels,) for vector in vectors} | {f"{name}{_COUNTER}": ()}


def is_statistic(name: str) -> bool:
    """Whether this tensor holds the running means or variances of a batch normalisation."""
    return name.endswith(_STATISTICS)


def is_counter(name: str) -> bool:
    """Whether this tensor counts the batches that a batch normalisation has seen (an integer)."""
    return name.endswith(_COUNTER)


def is_parameter(name: str) -> bool:
    """Whether training moves this tensor along a gradient."""
    return not (is_statistic(name) or is_counter(name))


def dtype_of(name: str) -> np.dtype[np.generic]:
    """int64 for counters, float32 for everything else, both little-endian."""
    return np.dtype("<i8" if is_counter(name) else "<f4")


def sizes_of(model: Mapping[str, NDArray[Any]]) -> Sizes:
    """Read channels, width and classes from a model's tensors.

    Raises ValueError that names the first tensor which is missing, superfluous, or of a shape or
    dtype that no ResNet-18 of these sizes has.
    """
    stem, head = (_shape(model, name) for name in ("conv1.weight", HEAD_WEIGHT))
    if len(stem) != 4 or len(head) != 2:
        raise ValueError(f"conv1.weight of shape {stem} and fc.weight of {head} are no ResNet-18's")
    sizes = Sizes(channels=stem[1], width=stem[0], classes=head[0])
    expected = model_shapes(*sizes)
    for name in expected | dict.fromkeys(model, ()):
        _check_tensor(name, model, expected)
    return sizes


def _check_tensor(name: str, model: Mapping[str, NDArray[Any]], expected: Shapes) -> None:
    if name not in expected:
        raise ValueError(f"{name} is no tensor of a ResNet-18")
    shape, dtype = _shape(model, name), model[name].dtype
    if shape != expected[name] or dtype != dtype_of(name):
        raise ValueError(
            f"{name} is {dtype} of shape {shape}, not {dtype_of(name)} of shape {expected[name]}"
        )


def _shape(model: Mapping[str, NDArray[Any]], name: str) -> tuple[int, ...]:
    if name not in model:
        raise ValueError(f"the model has no tensor {name}")
    return model[name].shape


def first_model(channels: int, width: int, generator: np.random.Generator) -> Weights:
    """Draw the model that a run begins with: no class yet, so no row in the head.

    Convolutions are normal with variance 2 / (k * k * output channels) (He et al. 2015, fan-out),
    normalisations start as the identity (docs/method.md 2.1).
    """
    shapes = model_shapes(channels, width, classes=0)
    return {name: _first(name, shape, generator) for name, shape in shapes.items()}


def _first(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    if len(shape) == 4:
        out, _, height, width = shape
        deviation = np.sqrt(2.0 / (height * width * out))
        return (deviation * generator.standard_normal(shape)).astype("<f4")
    scales = len(shape) == 1 and name.endswith(".weight")
    starts_at_one = scales or name.endswith(".running_var")
    return np.full(shape, 1 if starts_at_one else 0, dtype_of(name))


def grown(
    model: Mapping[str, NDArray[Any]],
    rows: int,
    generator: np.random.Generator,
    head_init: HeadInit = "default",
) -> Weights:
    """Give the head `rows` more rows; every old row and every other tensor keeps its bytes.

    `default` draws weights and biases from U(-1/sqrt(K), 1/sqrt(K)), K features, which is what
    torch gives a linear layer; `mean` puts new rows at the mean of the old ones, moved by a tenth
    of such a draw so that no two begin alike, and falls back to `default` on an empty head.

    Raises ValueError if `rows` is below 1 or `head_init` is unknown.
    """
    if rows < 1:
        raise ValueError(f"a head grows by at least 1 row, not by {rows}")
    if head_init not in get_args(HeadInit):
        raise ValueError(f"head_init is one of {', '.join(get_args(HeadInit))}, not {head_init}")
    features = sizes_of(model).width << (len(LAYERS) - 1)
    bound = 1 / np.sqrt(features)
    head = {
        HEAD_WEIGHT: generator.uniform(-bound, bound, (rows, features)),
        HEAD_BIAS: generator.uniform(-bound, bound, rows),
    }
    return {
        name: _more_rows(tensor, head[name], head_init) if name in head else tensor.copy()
        for name, tensor in model.items()
    }


def _more_rows(old: NDArray[Any], drawn: NDArray[np.float64], head_init: HeadInit) -> NDArray[Any]:
    if head_init == "mean" and len(old):
        drawn = old.astype(np.float64).mean(axis=0) + 0.1 * drawn
    return np.concatenate([old, drawn.astype("<f4")])
