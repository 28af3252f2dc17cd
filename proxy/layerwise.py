"""An image solved from its gradient, layer by layer, without any descent.

Why this works: the linear layer's gradient gives what entered it in closed form (docs/method.md
6.4), and with it the derivative of the cross entropy before the last sigmoid. From there on each
convolution is known from both sides: what it gave, and its own gradient, are *linear* in what
entered it. Solving these equations, and carrying the derivative on, leads down to the pixels; the
idea is R-GAP's (Zhu and Blaschko, ICLR 2021). Without noise the result is the image to about four
digits or better. With noise it is useless, most of all in colour, and says so by a large mismatch.

In float64, because each layer's rounding is magnified by the layers below it.
Legend as in `proxy.matching`; S = 25 O equations of a layer's gradient, for each map that enters.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from learning.encoder import KERNEL, MAPS, Arrays, map_sizes
from proxy.matching import Layer, Mismatch

TINY = 1e-9
"""Maps lie in (0, 1); rounding must not put one on the border, where its logit is infinite."""
WEIGHT = 1e4
"""Of a layer's gradient against its output. The gradient is by far the more exact of the two."""
SMALLEST = 1e-300
ROUNDS, CONVERGED = 160, 1e-20
"""Conjugate gradients end after so many rounds, or when all residuals have shrunk so far."""

Map = Callable[[Tensor], Tensor]


def determined(given: Mismatch) -> bool:
    """Whether every layer has at least as many equations as unknowns: for colour, up to 40 pixels.

    O maps of L places and O kernels of K numbers stand against I maps of P places.
    """
    return all(
        layer.target_BOK.shape[2] // KERNEL**2 * math.prod(layer.inward)
        <= MAPS * math.prod(outward) + layer.target_BOK[0].numel()
        for layer, outward in zip(given.layers, map_sizes(*given.layers[0].inward), strict=True)
    )


def solved_layerwise(
    encoder: Arrays, gradients: Sequence[Arrays], rows: Sequence[int], *, height: int, width: int
) -> Tensor:
    """The images (B, D) whose gradients these would be if they were exact; not clamped.

    An image is not finite where its gradient says nothing at all. Raises ValueError as `Mismatch`.
    """
    given = Mismatch(encoder, gradients, rows, height=height, width=width, dtype=torch.float64)
    excess_BC = given.target_head_bias_BC
    # Row c of the linear layer's gradient is excess_c h: all rows together, by least squares.
    hidden_BJ = (excess_BC[:, None] @ given.target_head_BCJ)[:, 0]
    hidden_BJ = hidden_BJ / excess_BC.square().sum(1, keepdim=True)
    entered_BIP = hidden_BJ.view(len(hidden_BJ), MAPS, -1)
    behind = (excess_BC @ given.head_CJ).view_as(entered_BIP)
    for layer in reversed(given.layers):
        maps = entered_BIP.clamp(TINY, 1 - TINY)
        before = behind * maps * (1 - maps)
        entered_BIP = _entered(layer, torch.logit(maps) - layer.bias_O1, before)
        behind = layer.folded(layer.kernel_OK.mT @ before)
    return entered_BIP.flatten(1)


def _entered(layer: Layer, given_BOL: Tensor, before_BOL: Tensor) -> Tensor:
    """What entered a layer (B, I, P), of what it gave and of its gradient, by least squares.

    Minimises || convolved(x) - given ||² + w || before patches(x)' - target ||² by preconditioned
    conjugate gradients. The preconditioner takes the first part by its diagonal alone, so that the
    Woodbury identity inverts the sum of both with matrices of size S.
    """
    gradient_BSP = _gradient_matrix(layer, before_BOL)
    ones_OL = torch.ones_like(given_BOL[:1])
    diagonal_P = layer.folded(layer.kernel_OK.square().mT @ ones_OL).mean(1)[0]
    energy_B = gradient_BSP.square().sum(1).mean(1)
    scale_B11 = (WEIGHT * diagonal_P.mean() / energy_B).sqrt()[:, None, None]
    gradient_BSP *= scale_B11
    target_BOIk = layer.target_BOK.view(len(given_BOL), MAPS, -1, KERNEL**2)
    target_BIS = target_BOIk.transpose(1, 2).flatten(2)
    known = layer.folded(layer.kernel_OK.mT @ given_BOL) + scale_B11 * target_BIS @ gradient_BSP

    def applied(x: Tensor) -> Tensor:
        output = layer.folded(layer.kernel_OK.mT @ layer.convolved(x))
        return output + x @ gradient_BSP.mT @ gradient_BSP

    lean_BSP = gradient_BSP / diagonal_P
    one_SS = torch.eye(gradient_BSP.shape[1], dtype=gradient_BSP.dtype)
    core_BSS = torch.linalg.inv_ex(one_SS + lean_BSP @ gradient_BSP.mT).inverse

    def preconditioned(x: Tensor) -> Tensor:
        x = x / diagonal_P
        return x - x @ gradient_BSP.mT @ core_BSS @ lean_BSP

    return _conjugate_gradients(applied, preconditioned, known)


def _gradient_matrix(layer: Layer, before_BOL: Tensor) -> Tensor:
    """The matrix (B, S, P) that turns one map that entered into its part of the gradient."""
    images, maps, _ = before_BOL.shape
    places = math.prod(layer.inward)
    numbered_11P = torch.arange(1, places + 1, dtype=before_BOL.dtype)[None, None]
    # Each place under the kernel by its number; what hangs over the border falls on number 0.
    where_KL = layer.patches(numbered_11P)[0].long()
    matrix = before_BOL.new_zeros(images, maps, KERNEL**2, places + 1)
    spread = before_BOL[:, :, None].expand(-1, -1, KERNEL**2, -1)
    matrix.scatter_(3, where_KL.expand_as(spread), spread)
    return matrix[..., 1:].flatten(1, 2)


def _conjugate_gradients(applied: Map, preconditioned: Map, known: Tensor) -> Tensor:
    """Solve applied(x) = known for each image at once; `applied` is symmetric and positive."""
    x = torch.full_like(known, 0.5)
    residual = known - applied(x)
    direction = preconditioned(residual)
    error_B11 = first_B11 = _dot(residual, direction)
    for _ in range(ROUNDS):
        image = applied(direction)
        length_B11 = error_B11 / _dot(direction, image).clamp_min(SMALLEST)
        x = x + length_B11 * direction
        residual = residual - length_B11 * image
        leaning = preconditioned(residual)
        before_B11, error_B11 = error_B11, _dot(residual, leaning)
        if (error_B11 <= CONVERGED * first_B11).all():
            break
        direction = leaning + error_B11 / before_B11.clamp_min(SMALLEST) * direction
    return x


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum((1, 2), keepdim=True)
