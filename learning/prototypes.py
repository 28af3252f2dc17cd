"""Prototypes: one image of a class, sent as the gradient of a small network that everybody knows.

The gradient of `learning.encoder` tells the class of the image exactly, and the image itself but
for rounding: what protects the entity's real image is the perturbation alone (docs/method.md 6.7).
Legend: N images, c image channels, H height, W width, K features of the classifier, C rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from learning.augmentation import WHITE, Transform
from learning.encoder import (
    CONVOLUTIONS,
    HEAD_BIAS,
    HEAD_WEIGHT,
    PADDING,
    STRIDES,
    Arrays,
    Gradient,
    noised,
)

Mode = Literal["latent_noise", "code", "none"]

WEIGHT_DECAY = 1e-5  # of the pixels, in mode `code` only, as in GLFC's released code
BATCH = 256  # images in one forward pass; fixed, for floats depend on the batch


class Classifier(Protocol):
    """A model that names classes in two steps; `learning.nets.ResNet18` is one."""

    training: bool

    def features(self, images: Tensor, /) -> Tensor:
        """Features (N, K) of normalised images (N, c, H, W)."""
        ...

    def head(self, features: Tensor, /) -> Tensor:
        """Logits (N, C) of features (N, K)."""
        ...


@dataclass(frozen=True)
class Perturbation:
    """How the pixels of a prototype are altered while its class is kept (docs/method.md 6.2)."""

    mode: Mode = "latent_noise"
    """`latent_noise`: cross entropy of features with fresh noise in each step. `code`: what GLFC's
    released code does: BCE of the image itself, not normalised, not clamped. `none`: no change."""
    steps: int = 50
    step: float = 0.2
    """Learning rate of the pixels, which lie in [0, 1]."""
    gamma: float = 0.1
    """Noise of the features, in units of their standard deviation within the class."""


@dataclass(frozen=True)
class Prototype:
    """What one class of one twin comes to."""

    gradient: Gradient
    index: int
    """Which of the images it was made from."""
    psnr: float | None
    """Between that image and the perturbed one, in dB; None if they are equal."""


def encode(weights: Mapping[str, Tensor], images_NcHW: Tensor) -> Tensor:
    """Logits (N, C) of images in [0, 1]: sigmoids between the layers, a pure function of both."""
    maps = images_NcHW
    for name, stride in zip(CONVOLUTIONS, STRIDES, strict=True):
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        maps = torch.sigmoid(F.conv2d(maps, kernel, bias, stride, PADDING))
    return F.linear(maps.flatten(1), weights[HEAD_WEIGHT], weights[HEAD_BIAS])


def make_prototype(
    net: Classifier,
    images_NcHW: NDArray[np.uint8],
    row: int,
    encoder: Arrays,
    *,
    transform: Transform,
    perturbation: Perturbation,
    generator: np.random.Generator,
    dp_noise_sigma: float | None = None,
) -> Prototype:
    """Choose an image of the class, perturb it and take the encoder's gradient at it.

    `images_NcHW` are the twin's images of the class, `row` its row, and `transform` normalises
    images for `net`, which is in eval mode. Ask `fault` before the gradient leaves the twin.

    Raises ValueError if there is no image, `net` is in training mode, or it or the encoder has no
    such row.
    """
    if not len(images_NcHW):
        raise ValueError(f"a prototype of row {row} needs an image, and there is none")
    features_NK = _features(net, images_NcHW, transform)
    index = nearest_to_mean(features_NK.numpy())
    chosen_cHW = torch.tensor(images_NcHW[index]) / WHITE
    altered_cHW = perturbed(
        net,
        chosen_cHW,
        row,
        deviation_K=features_NK.std(0, correction=0),
        transform=transform,
        how=perturbation,
        generator=generator,
    )
    gradient = gradient_of(encoder, altered_cHW, row)
    if dp_noise_sigma is not None:
        gradient = noised(gradient, dp_noise_sigma, generator)
    decibels = psnr(chosen_cHW, altered_cHW)
    return Prototype(gradient, index, decibels if math.isfinite(decibels) else None)


def nearest_to_mean(features_NK: NDArray[np.floating]) -> int:
    """Choose the image whose features of length 1 are nearest to the mean of all of them.

    argmin over x of || mu - phi(x) ||, phi the L2-normalised features and mu their mean
    (docs/method.md 6.2); ties go to the earlier image. Features of length 0 stay 0.

    Raises ValueError if there is no image.
    """
    if not len(features_NK):
        raise ValueError("no image, no nearest one")
    phi_NK = features_NK.astype(np.float64)
    # einsum and not @: the sums of a BLAS depend on its threads.
    lengths_N1 = np.sqrt(np.einsum("nk,nk->n", phi_NK, phi_NK))[:, None]
    phi_NK = np.divide(phi_NK, lengths_N1, out=np.zeros_like(phi_NK), where=lengths_N1 > 0)
    away_NK = phi_NK.mean(axis=0) - phi_NK
    return int(np.einsum("nk,nk->n", away_NK, away_NK).argmin())


def perturbed(
    net: Classifier,
    image_cHW: Tensor,
    row: int,
    *,
    deviation_K: Tensor,
    transform: Transform,
    how: Perturbation,
    generator: np.random.Generator,
) -> Tensor:
    """Move an image by `how.steps` gradient steps on its pixels towards its own class.

    In mode `latent_noise` each step lowers CE(head(phi(x) + gamma * deviation * n), row) with
    fresh n ~ N(0, 1), phi(x) the features of the normalised image, and the result is clamped to
    [0, 1]; `deviation_K` is the features' standard deviation within the class. The steps raise
    the model's confidence in the true class: this alters pixels, it is no adversarial example.

    Raises ValueError if `net` is in training mode or has no such row.
    """
    if how.mode == "none":
        return image_cHW.clone()
    _check_mode(net)
    mean, std = (
        torch.tensor(numbers)[:, None, None] for numbers in (transform.mean, transform.std)
    )
    pixels = image_cHW.clone()
    for _ in range(how.steps):
        pixels.requires_grad_()
        if how.mode == "code":
            loss = _bce(net.head(net.features(pixels[None])), row)
        else:
            noise_K = torch.from_numpy(generator.standard_normal(len(deviation_K))).float()
            features_1K = net.features(((pixels - mean) / std)[None])
            loss = _ce(net.head(features_1K + how.gamma * deviation_K * noise_K), row)
        (slope,) = torch.autograd.grad(loss, pixels)
        pixels = pixels.detach()
        if how.mode == "code":
            slope += WEIGHT_DECAY * pixels
        pixels -= how.step * slope
    return pixels if how.mode == "code" else pixels.clamp(0, 1)


def psnr(image: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio of two images in [0, 1], in dB: 10 log10(1 / MSE)."""
    error = float((image.double() - other.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def gradient_of(encoder: Arrays, image_cHW: Tensor, row: int) -> Gradient:
    """The gradient of CE(encode(image), row) for every tensor of the encoder, batch size 1.

    Raises ValueError if the encoder has no such row.
    """
    weights = {name: torch.tensor(array).requires_grad_() for name, array in encoder.items()}
    loss = _ce(encode(weights, image_cHW[None].float()), row)
    slopes = torch.autograd.grad(loss, list(weights.values()))
    return {name: slope.numpy() for name, slope in zip(weights, slopes, strict=True)}


@torch.no_grad()
def _features(net: Classifier, images_NcHW: NDArray[np.uint8], transform: Transform) -> Tensor:
    _check_mode(net)
    batches = range(0, len(images_NcHW), BATCH)
    inputs = (transform.normalise(images_NcHW[first : first + BATCH]) for first in batches)
    return torch.cat([net.features(batch) for batch in inputs])


def _check_mode(net: Classifier) -> None:
    if net.training:
        raise ValueError("the model is in training mode: its features depend on the batch")


def _ce(logits_1C: Tensor, row: int) -> Tensor:
    return F.cross_entropy(logits_1C, _target(logits_1C, row))


def _bce(logits_1C: Tensor, row: int) -> Tensor:
    wanted_1C = F.one_hot(_target(logits_1C, row), logits_1C.shape[1]).to(logits_1C.dtype)
    return F.binary_cross_entropy_with_logits(logits_1C, wanted_1C)


def _target(logits_1C: Tensor, row: int) -> Tensor:
    if not 0 <= row < logits_1C.shape[1]:
        raise ValueError(f"row {row} of a model that knows {logits_1C.shape[1]} classes")
    return torch.tensor([row])
