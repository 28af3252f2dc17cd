"""The images of a training, where it is computed: bytes that lie there, and batches made of them.

On the processor a batch is cut by numpy, as everywhere; elsewhere all images are sent once, as
uint8, and cut, mirrored and normalised there. Either gives the same numbers. Legend: N images,
B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from learning.augmentation import Transform, Variation


class Album:
    """Images that batches are taken from."""

    def __init__(self, images_NCHW: NDArray[np.uint8], transform: Transform, device: str) -> None:
        self._images_NCHW, self._transform = images_NCHW, transform
        self._there_NCHW = None if device == "cpu" else resident(images_NCHW, device)

    def batch(self, chosen_B: NDArray[np.int64], chance: np.random.Generator | None) -> Tensor:
        """The chosen images as a net sees them; varied by chance where there is any."""
        if self._there_NCHW is not None:
            return taken(self._there_NCHW, chosen_B, self._transform, chance)
        images_BCHW = self._images_NCHW[chosen_B]
        if chance is None:
            return self._transform.normalise(images_BCHW)
        return self._transform.augment(images_BCHW, chance)


def resident(images_NCHW: NDArray[np.uint8], device: str) -> Tensor:
    """All images on a device, as bytes."""
    return torch.tensor(images_NCHW, device=device)


def taken(
    there_NCHW: Tensor,
    chosen_B: NDArray[np.int64],
    transform: Transform,
    chance: np.random.Generator | None,
) -> Tensor:
    """A batch of resident images, made where they lie; only what was drawn is sent there.

    Equal to what `Transform.augment` makes of the same images and chance, or `normalise`.
    """
    device = there_NCHW.device
    images_BCHW = there_NCHW[torch.from_numpy(chosen_B).to(device)]
    if chance is None:
        return transform.scaled(images_BCHW, None)
    drawn = transform.variation(len(chosen_B), chance)
    images_BCHW = _mirrored(_cut(images_BCHW, transform.crop_padding, drawn), drawn)
    return transform.scaled(images_BCHW, drawn.factors_B)


def _cut(images_BCHW: Tensor, padding: int, drawn: Variation) -> Tensor:
    if drawn.corners_2B is None:
        return images_BCHW
    device, (_, _, height, width) = images_BCHW.device, images_BCHW.shape
    framed = F.pad(images_BCHW, (padding,) * 4)
    top_B, left_B = torch.from_numpy(drawn.corners_2B).to(device)
    y_BH = top_B[:, None] + torch.arange(height, device=device)
    x_BW = left_B[:, None] + torch.arange(width, device=device)
    b_B, c_C = (torch.arange(n, device=device) for n in images_BCHW.shape[:2])
    return framed[
        b_B[:, None, None, None], c_C[None, :, None, None],
        y_BH[:, None, :, None], x_BW[:, None, None, :],
    ]  # fmt: skip


def _mirrored(images_BCHW: Tensor, drawn: Variation) -> Tensor:
    if drawn.mirrored_B is None:
        return images_BCHW
    mirrored_B = torch.from_numpy(drawn.mirrored_B).to(images_BCHW.device)
    return torch.where(mirrored_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)
