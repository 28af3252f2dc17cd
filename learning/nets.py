"""The net in torch: a ResNet-18 for small images, and its way to and from plain tensors.

The forward pass gives, besides the logits, the map A on which attention is compared: the output of
the last block after its ReLU, which reaches the logits only through average pooling and one linear
layer (docs/method.md 2.3). Legend: B images, c image channels, C rows of the head, K feature
channels, H height, W width.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from learning.augmentation import Transform
from learning.shapes import BLOCKS_PER_LAYER, LAYERS, Weights, model_shapes, sizes_of

BATCH = 256
"""Images in one forward pass where nothing is learned. Fixed, for floats depend on the batch."""


# torch fills new layers from its global generator, and warns of a head without rows. These wait for
# their weights instead: until they are loaded they hold whatever the memory held.


class _Conv(nn.Conv2d):
    def reset_parameters(self) -> None:
        pass


class _Norm(nn.BatchNorm2d):
    def reset_parameters(self) -> None:
        pass


class _Head(nn.Linear):
    def reset_parameters(self) -> None:
        pass


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added; a basic block of He et al. (2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _Conv(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = _Norm(after)
        self.conv2 = _Conv(after, after, 3, padding=1, bias=False)
        self.bn2 = _Norm(after)
        self.downsample: nn.Sequential | None = None
        if before != after:
            shortcut = _Conv(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _Norm(after))

    def forward(self, x_BKHW: Tensor) -> Tensor:
        y_BKHW = F.relu(self.bn1(self.conv1(x_BKHW)), inplace=True)
        y_BKHW = self.bn2(self.conv2(y_BKHW))
        y_BKHW += x_BKHW if self.downsample is None else self.downsample(x_BKHW)
        return F.relu(y_BKHW, inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1, no pooling before the last map, and a linear head.

    Build it with `from_weights`: built directly its tensors hold nothing that makes sense.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        model_shapes(channels, width, classes)  # the sizes make sense
        self.conv1 = _Conv(channels, width, 3, padding=1, bias=False)
        self.bn1 = _Norm(width)
        before = width
        for number, name in enumerate(LAYERS):
            after = width << number
            blocks = [Block(before, after, stride=1 if number == 0 else 2)]
            blocks += [Block(after, after, stride=1) for _ in range(BLOCKS_PER_LAYER - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            before = after
        self.fc = _Head(before, classes)

    def maps(self, x_BcHW: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The output of each layer after its last ReLU, by name, the earliest first."""
        y_BKHW = F.relu(self.bn1(self.conv1(x_BcHW)), inplace=True)
        for name in LAYERS:
            y_BKHW = self.get_submodule(name)(y_BKHW)
            yield name, y_BKHW

    def maps_and_logits(self, x_BcHW: Tensor) -> tuple[Tensor, Tensor]:
        """The last map A (B, K, H, W) and the logits (B, C) in one pass."""
        a_BKHW = self._last_map(x_BcHW)
        return a_BKHW, self.head(pooled(a_BKHW))

    def features(self, x_BcHW: Tensor) -> Tensor:
        """The mean of the last map over its cells (B, K); not normalised."""
        return pooled(self._last_map(x_BcHW))

    def head(self, features_BK: Tensor) -> Tensor:
        """Logits (B, C) of features, one for each row.

        Row by row, because a matrix product sums in another order when there are more rows: so
        growth leaves the old rows' logits as they were, bit for bit.
        """
        return (features_BK[:, None] * self.fc.weight).sum(2) + self.fc.bias

    def forward(self, x_BcHW: Tensor) -> Tensor:
        return self.maps_and_logits(x_BcHW)[1]

    def _last_map(self, x_BcHW: Tensor) -> Tensor:
        for _, a_BKHW in self.maps(x_BcHW):
            last_BKHW = a_BKHW
        return last_BKHW


def pooled(a_BKHW: Tensor) -> Tensor:
    """Global average pooling: the mean of a map over its cells."""
    return a_BKHW.mean((2, 3))


def from_weights(weights: Mapping[str, NDArray[Any]], device: str = "cpu") -> ResNet18:
    """Build the net whose tensors these are on a device, in eval mode and channels_last layout.

    The arrays are copied. No random number is drawn. A head without rows gives logits (B, 0).

    Raises ValueError as `shapes.sizes_of` does.
    """
    net = ResNet18(*sizes_of(weights))
    # Our own copies, because torch aligns them to 64 bytes and numpy does not.
    tensors = {name: torch.tensor(weights[name], device=device) for name in net.state_dict()}
    net.load_state_dict(tensors, assign=True)
    return net.requires_grad_().eval().to(memory_format=torch.channels_last)


def folded(net: ResNet18) -> ResNet18:
    """The same function as `net` in eval mode, each normalisation folded into its convolution.

    A tenth faster, and equal but for the last bits. Only for looking: it cannot learn further.
    """
    lean = copy.deepcopy(net).eval()
    norms = {name: norm for name, norm in lean.named_modules() if isinstance(norm, _Norm)}
    for name, norm in norms.items():
        conv_name = name.replace("bn", "conv").replace("downsample.1", "downsample.0")
        conv = lean.get_submodule(conv_name)
        assert isinstance(conv, _Conv)
        lean.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        lean.set_submodule(name, nn.Identity())
    return lean.to(memory_format=torch.channels_last)


def frozen(weights: Mapping[str, NDArray[Any]], device: str = "cpu") -> ResNet18:
    """A net that only looks: `folded`, and no gradient flows into it."""
    return folded(from_weights(weights, device)).requires_grad_(False)


def on_device(weights: Mapping[str, NDArray[Any]], device: str = "cpu") -> dict[str, Tensor]:
    """The same tensors as torch's, by name; on the CPU they share the arrays' memory."""
    return {name: torch.as_tensor(tensor, device=device) for name, tensor in weights.items()}


def to_weights(net: nn.Module) -> Weights:
    """Copy a net's tensors out: contiguous arrays, float32 and (counters) int64, by name."""
    return {
        name: tensor.detach().contiguous().numpy(force=True).copy()
        for name, tensor in net.state_dict().items()
    }


def features_and_logits(
    net: ResNet18, images_NcHW: NDArray[np.uint8], transform: Transform
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a net makes of images, without augmentation: features (N, K) and logits (N, C).

    In eval mode, whatever the net's mode was (it is restored), in batches of 256, on the net's
    device. Serves herding (features), novelty and scoring (logits).
    """
    features, logits = [np.empty((0, net.fc.in_features), np.float32)], []
    logits.append(np.empty((0, net.fc.out_features), np.float32))
    with frozen_statistics(net), torch.inference_mode():
        for start in range(0, len(images_NcHW), BATCH):
            images_BcHW = images_NcHW[start : start + BATCH]
            x_BcHW = transform.normalise(images_BcHW, net.fc.weight.device)
            features_BK = net.features(x_BcHW)
            features.append(features_BK.numpy(force=True))
            logits.append(net.head(features_BK).numpy(force=True))
    return np.concatenate(features), np.concatenate(logits)


def first_overflow(
    net: ResNet18, images_NcHW: NDArray[np.uint8], transform: Transform
) -> str | None:
    """The first layer whose output for these images is not finite; None if logits are finite.

    Training normalises by the batch, so it can go on while weights grow beyond all measure; in eval
    mode the running statistics lag behind such weights, and what they let through overflows layer
    by layer. The net then holds finite numbers only and yet says nothing of any image.
    """
    _, logits_NC = features_and_logits(net, images_NcHW, transform)
    if np.isfinite(logits_NC).all():
        return None
    found: list[str] = []
    hooks = [
        layer.register_forward_hook(partial(_note_overflow, found, name))
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    ]
    features_and_logits(net, images_NcHW, transform)
    for hook in hooks:
        hook.remove()
    return found[0] if found else "fc"


def _note_overflow(
    found: list[str], name: str, layer: nn.Module, given: object, output_BKHW: Tensor
) -> None:
    if not found and not torch.isfinite(output_BKHW).all():
        found.append(name)


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Within, batch normalisation uses its running statistics and leaves them as they are."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)
