"""From stored images (uint8) to what a model sees (float32), with or without augmentation.

Torch is imported where a tensor is made, because data sets name their `Transform` in places that
must start without torch. Legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WHITE = 255.0


@dataclass(frozen=True, eq=False)
class Variation:
    """How a batch of images is varied; None for what a transform leaves alone."""

    corners_2B: NDArray[np.int64] | None
    """Top and left of each window, in the framed image."""
    mirrored_B: NDArray[np.bool_] | None
    factors_B: NDArray[np.float32] | None
    """Of brightness."""


@dataclass(frozen=True)
class Transform:
    """How a data set's images are varied in training, and normalised always."""

    mean: tuple[float, ...]
    """Per channel, of images in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of images in [0, 1]; positive."""
    crop_padding: int = 0
    """A random window is cut out of the image framed by so many black pixels."""
    horizontal_flip: bool = False
    """Mirror every second image, by chance. Not where left and right are different classes."""
    brightness: float = 0.0
    """Multiply an image by a number from U(1 - brightness, 1 + brightness); in [0, 1]."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"{len(self.mean)} means do not fit {len(self.std)} deviations")
        if min(self.std) <= 0:
            raise ValueError(f"deviations are positive, not {self.std}")
        if self.crop_padding < 0 or not 0 <= self.brightness <= 1:
            raise ValueError(
                f"crop_padding {self.crop_padding} is below 0 "
                f"or brightness {self.brightness} is outside [0, 1]"
            )

    @property
    def augments(self) -> bool:
        """Whether two passes over the same image can differ."""
        return self.crop_padding > 0 or self.horizontal_flip or self.brightness > 0

    def normalise(
        self, images_BCHW: NDArray[np.uint8], device: str | torch.device = "cpu"
    ) -> Tensor:
        """(x / 255 - mean) / std as float32, in channels_last layout; nothing is varied.

        Raises ValueError if these are no uint8 images with as many channels as there are means.
        """
        return self.scaled(self._tensor(images_BCHW, device), None)

    def augment(self, images_BCHW: NDArray[np.uint8], generator: np.random.Generator) -> Tensor:
        """Crop, flip and brighten each image by chance, in this order, and normalise.

        As torchvision's transforms of these names would, but a batch at a time, and brightness in
        float32: it is clipped to [0, 255] and not rounded. A batch always draws the same amount.

        Raises ValueError as `normalise` does.
        """
        drawn = self.variation(len(images_BCHW), generator)
        if drawn.corners_2B is not None:
            images_BCHW = self._cut(images_BCHW, drawn.corners_2B)
        if drawn.mirrored_B is not None:
            mirrored = drawn.mirrored_B[:, None, None, None]
            images_BCHW = np.where(mirrored, images_BCHW[..., ::-1], images_BCHW)
        return self.scaled(self._tensor(images_BCHW), drawn.factors_B)

    def variation(self, images: int, generator: np.random.Generator) -> Variation:
        """What chance says of so many images; their pixels have no part in it."""
        corners = mirrored = factors = None
        if self.crop_padding:
            corners = generator.integers(0, 2 * self.crop_padding + 1, (2, images))
        if self.horizontal_flip:
            mirrored = generator.random(images) < 0.5
        if self.brightness:
            span = (1 - self.brightness, 1 + self.brightness)
            factors = generator.uniform(*span, images).astype(np.float32)
        return Variation(corners, mirrored, factors)

    def scaled(self, images_BCHW: Tensor, factors_B: NDArray[np.float32] | None) -> Tensor:
        """What `normalise` says, of uint8 images on any device, brightened first if at all."""
        import torch

        device = images_BCHW.device
        x_BCHW = images_BCHW.to(torch.float32, memory_format=torch.channels_last)
        if factors_B is not None:
            factors = torch.from_numpy(factors_B).to(device)[:, None, None, None]
            x_BCHW.mul_(factors).clamp_(0, WHITE)
        scale_C11 = [[[1 / (WHITE * std)]] for std in self.std]
        shift_C11 = [[[-mean / std]] for mean, std in zip(self.mean, self.std, strict=True)]
        scale, shift = (torch.tensor(each, device=device) for each in (scale_C11, shift_C11))
        return x_BCHW.mul_(scale).add_(shift)

    def _cut(
        self, images_BCHW: NDArray[np.uint8], corners_2B: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        images, channels, height, width = images_BCHW.shape
        padding = self.crop_padding
        framed = np.zeros(
            (images, channels, height + 2 * padding, width + 2 * padding), images_BCHW.dtype
        )
        framed[:, :, padding:-padding, padding:-padding] = images_BCHW
        windows = np.lib.stride_tricks.sliding_window_view(framed, (height, width), (2, 3))
        top_B, left_B = corners_2B
        return windows[np.arange(images), :, top_B, left_B]

    def _tensor(self, images_BCHW: NDArray[np.uint8], device: str | torch.device = "cpu") -> Tensor:
        import torch

        if images_BCHW.dtype != np.uint8 or images_BCHW.ndim != 4:
            raise ValueError(
                f"images are uint8 of 4 axes, not {images_BCHW.dtype} of {images_BCHW.ndim}"
            )
        if images_BCHW.shape[1] != len(self.mean):
            raise ValueError(
                f"the images have {images_BCHW.shape[1]} channels, "
                f"the transform's means {len(self.mean)}"
            )
        return torch.tensor(images_BCHW, device=device)
