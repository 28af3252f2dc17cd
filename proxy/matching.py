"""How far gradients at guessed images lie from the given ones, and which way is down.

The slope is written out by hand: the encoder is so small that running torch's double backward
costs far more than the arithmetic. A test holds it against autograd. Everything is done for a batch
of images at once, and no image's numbers enter another's.
Legend: B images, c image channels, O maps that a layer gives and L places in each, I maps that
enter it and P places in each, K = 25 I numbers under its kernel, D = c H W numbers of an image, J
numbers that enter the linear layer, C rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learning.encoder import (
    CONVOLUTIONS,
    HEAD_BIAS,
    HEAD_WEIGHT,
    KERNEL,
    MAPS,
    PADDING,
    STRIDES,
    Arrays,
    encoder_shapes,
    map_sizes,
)


class Layer(NamedTuple):
    """One convolution of the encoder, and the gradients that it should get."""

    kernel_OK: Tensor
    bias_O1: Tensor
    stride: int
    inward: tuple[int, int]
    """Height and width of what enters."""
    outward: tuple[int, int]
    """Height and width of what it gives."""
    target_BOK: Tensor
    target_bias_BO: Tensor

    def patches(self, below_BIP: Tensor) -> Tensor:
        """What lies under the kernel at each place: (B, K, L)."""
        return F.unfold(self._square(below_BIP), KERNEL, padding=PADDING, stride=self.stride)

    def folded(self, patches_BKL: Tensor) -> Tensor:
        """Add up patches where they overlap, the transpose of `patches`: (B, I, P)."""
        square = F.fold(patches_BKL, self.inward, KERNEL, padding=PADDING, stride=self.stride)
        return square.flatten(2)

    def convolved(self, below_BIP: Tensor) -> Tensor:
        """The convolution without its bias: (B, O, L)."""
        kernel = self.kernel_OK.view(MAPS, -1, KERNEL, KERNEL)
        square = self._square(below_BIP)
        return F.conv2d(square, kernel, stride=self.stride, padding=PADDING).flatten(2)

    def _square(self, below_BIP: Tensor) -> Tensor:
        return below_BIP.reshape(len(below_BIP), -1, *self.inward)


class Mismatch:
    """The sum over the encoder's tensors of || grad CE(encode(x), row) - given gradient ||²."""

    def __init__(
        self,
        encoder: Arrays,
        gradients: Sequence[Arrays],
        rows: Sequence[int],
        *,
        height: int,
        width: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take the gradients of one batch, with the row of each one's class.

        Raises ValueError if there is none, if rows and gradients do not pair up, or if a tensor or
        row does not fit the encoder.
        """
        _check(encoder, gradients, rows, height, width)
        own = {name: torch.tensor(array, dtype=dtype) for name, array in encoder.items()}
        given = {
            name: torch.tensor(np.stack([gradient[name] for gradient in gradients]), dtype=dtype)
            for name in encoder
        }
        inward = [(height, width), *map_sizes(height, width)]
        self.layers = [
            Layer(
                kernel_OK=own[f"{name}.weight"].flatten(1),
                bias_O1=own[f"{name}.bias"][:, None],
                stride=stride,
                inward=inward[n],
                outward=inward[n + 1],
                target_BOK=given[f"{name}.weight"].flatten(2),
                target_bias_BO=given[f"{name}.bias"],
            )
            for n, (name, stride) in enumerate(zip(CONVOLUTIONS, STRIDES, strict=True))
        ]
        self.head_CJ, self.head_bias_C = own[HEAD_WEIGHT], own[HEAD_BIAS]
        self.target_head_BCJ, self.target_head_bias_BC = given[HEAD_WEIGHT], given[HEAD_BIAS]
        self.wanted_BC = F.one_hot(torch.tensor(rows), len(self.head_CJ)).to(dtype)

    def size(self) -> Tensor:
        """|| given gradient ||² of each image (B): what a mismatch is small against."""
        given = [self.target_head_BCJ, self.target_head_bias_BC]
        for layer in self.layers:
            given += [layer.target_BOK, layer.target_bias_BO]
        return _squares(given)

    def at(self, images_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The mismatch of each image (B), and its slope along the pixels (B, D).

        A layer with patches U of what enters it, maps a behind its sigmoid and the sigmoid's slope
        q = a (1 - a) has the gradient d U', where d is the cross entropy's derivative before the
        sigmoid. Its error R = d U' - target pulls at d by R U and at U by R' d. What pulls at the
        d travels up through the layers, as the d themselves had come down; at the head it turns,
        and comes down to the pixels with what pulls at the maps.
        """
        patches, maps = self._up(images_BD)
        bends = [a - a * a for a in maps]
        hidden_BJ = maps[-1].flatten(1)
        chances_BC = torch.softmax(torch.addmm(self.head_bias_C, hidden_BJ, self.head_CJ.T), 1)
        excess_BC = chances_BC - self.wanted_BC
        behind, before = self._down(excess_BC, bends)
        errors = [
            torch.baddbmm(layer.target_BOK, d, u.mT, beta=-1)
            for layer, d, u in zip(self.layers, before, patches, strict=True)
        ]
        bias_errors = [
            d.sum(2) - layer.target_bias_BO for layer, d in zip(self.layers, before, strict=True)
        ]
        head_error_BCJ = excess_BC[:, :, None] * hidden_BJ[:, None]
        head_error_BCJ -= self.target_head_BCJ
        head_bias_error_BC = excess_BC - self.target_head_bias_BC
        mismatch_B = _squares([*errors, *bias_errors, head_error_BCJ, head_bias_error_BC])

        # From here on the derivatives of half the mismatch.
        on_before = [
            torch.baddbmm(bias_error[:, :, None], error, u)
            for error, bias_error, u in zip(errors, bias_errors, patches, strict=True)
        ]
        on_head_BJ = self._up_again(on_before, bends)
        on_excess_BC = on_head_BJ @ self.head_CJ.T + head_bias_error_BC
        on_excess_BC += (hidden_BJ[:, None] @ head_error_BCJ.mT)[:, 0]
        on_logits_BC = on_excess_BC - (chances_BC * on_excess_BC).sum(1, keepdim=True)
        on_logits_BC *= chances_BC
        on_maps = on_logits_BC @ self.head_CJ + (excess_BC[:, None] @ head_error_BCJ)[:, 0]
        on_maps = on_maps.view_as(maps[-1])
        for n in (2, 1, 0):
            on_maps += on_before[n] * behind[n] * (1 - 2 * maps[n])
            on_patches = self.layers[n].kernel_OK.mT @ (on_maps * bends[n])
            on_maps = self.layers[n].folded(on_patches.baddbmm_(errors[n].mT, before[n]))
        return mismatch_B, 2 * on_maps.flatten(1)

    def _up(self, images_BD: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The patches (B, K, L) that enter each convolution, and the maps (B, O, L) behind it."""
        patches, maps = [], []
        below = images_BD
        for layer in self.layers:
            patches.append(layer.patches(below))
            below = torch.sigmoid(layer.kernel_OK @ patches[-1] + layer.bias_O1)
            maps.append(below)
        return patches, maps

    def _down(self, excess_BC: Tensor, bends: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The cross entropy's derivatives behind and before each sigmoid, both (B, O, L)."""
        behind = [(excess_BC @ self.head_CJ).view_as(bends[2])]
        before = [behind[0] * bends[2]]
        for n in (2, 1):
            behind.insert(0, self.layers[n].folded(self.layers[n].kernel_OK.mT @ before[0]))
            before.insert(0, behind[0] * bends[n - 1])
        return behind, before

    def _up_again(self, on_before: list[Tensor], bends: list[Tensor]) -> Tensor:
        """Complete, in place, what pulls at the derivatives before each sigmoid.

        The derivative before a sigmoid of one layer was made from that of the next one. Returns
        what pulls at the derivative behind the last sigmoid (B, J).
        """
        for n in (1, 2):
            below = on_before[n - 1] * bends[n - 1]
            on_before[n] += self.layers[n].convolved(below)
        return (on_before[2] * bends[2]).flatten(1)


def _squares(tensors: list[Tensor]) -> Tensor:
    """The sum of squares over everything but the first axis, summed over the tensors (B)."""
    return torch.stack([tensor.flatten(1).square().sum(1) for tensor in tensors]).sum(0)


def _check(
    encoder: Arrays, gradients: Sequence[Arrays], rows: Sequence[int], height: int, width: int
) -> None:
    if not gradients or len(gradients) != len(rows):
        raise ValueError(f"{len(gradients)} gradients with the rows of {len(rows)} classes")
    classes, channels = len(encoder[HEAD_WEIGHT]), encoder["conv1.weight"].shape[1]
    expected = encoder_shapes(channels, height, width, classes)
    for tensors in (encoder, *gradients):
        shapes = {name: array.shape for name, array in tensors.items()}
        if shapes != expected:
            raise ValueError(f"tensors of shapes {shapes} where {expected} are due")
    if not all(0 <= row < classes for row in rows):
        raise ValueError(f"rows {list(rows)} of an encoder for {classes} classes")
