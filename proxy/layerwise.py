"""An image solved from its gradient, layer by layer, without any descent.

Why this works: the linear layer's gradient gives what entered it in closed form (docs/method.md
6.4), and with it the derivative of the cross entropy before the last sigmoid. From there on each
convolution is known from both sides: what it gave, and its own gradient, are *linear* in what
entered it. Solving these equations, and carrying the derivative on, leads down to the pixels; the
idea is that of R-GAP (Zhu and Blaschko, ICLR 2021). From an exact gradient it finds the image to
three digits or more; with noise in the gradient, above all in colour, it finds nothing.

In float64, because each layer's rounding is magnified by the layers below it. Images are solved one
after another, so none depends on its batch.
Legend as in `proxy.matching`, without B; S = 25 O numbers of a layer's gradient for each map that
enters.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from learning.encoder import KERNEL, MAPS, Arrays
from proxy.matching import Layer, Mismatch

TINY = 1e-9
"""Maps lie in (0, 1); rounding must not put one on the border, where its logit is infinite."""
WEIGHT = 1e4
"""Of a layer's gradient against its output: the gradient's equations are the better conditioned."""
ROUNDS, CONVERGED = 160, 1e-20
"""Conjugate gradients end after so many rounds, or when the squared error has shrunk so far."""

Map = Callable[[Tensor], Tensor]


def determined(layers: list[Layer]) -> bool:
    """Whether each layer has as many equations as unknowns: for images of up to 40 pixels a side.

    O maps of L places and O kernels of K numbers stand against I maps of P places.
    """
    return all(
        layer.kernel_OK.shape[1] // KERNEL**2 * math.prod(layer.inward)
        <= MAPS * math.prod(layer.outward) + layer.kernel_OK.numel()
        for layer in layers
    )


def solved_layerwise(
    encoder: Arrays, gradient: Arrays, row: int, *, height: int, width: int
) -> Tensor:
    """The image (c, H, W), float64, whose gradient this would be if it were exact; not clamped.

    It is not finite where the gradient says nothing at all. Raises ValueError as `Mismatch` does.
    """
    sides = (height, width)
    given = Mismatch(encoder, [gradient], [row], height=height, width=width, dtype=torch.float64)
    excess_C, head_CJ = given.target_head_bias_BC[0], given.target_head_BCJ[0]
    # Row c of the linear layer's gradient is excess_c times what entered; here by least squares.
    entered = (excess_C @ head_CJ / (excess_C @ excess_C)).view(MAPS, -1)
    behind = (excess_C @ given.head_CJ).view(MAPS, -1)
    for layer in reversed(given.layers):
        maps_OL = entered.clamp(TINY, 1 - TINY)
        before_OL = behind * maps_OL * (1 - maps_OL)
        entered = _entered(layer, torch.logit(maps_OL) - layer.bias_O1, before_OL)
        behind = layer.folded((layer.kernel_OK.T @ before_OL)[None])[0]
    return entered.view(-1, *sides)


def _entered(layer: Layer, given_OL: Tensor, before_OL: Tensor) -> Tensor:
    """What entered a layer (I, P), of what it gave and of its gradient, by least squares.

    Minimises || convolved(x) - given ||² + w || before patches(x)' - target ||².
    """
    kernel_OK = layer.kernel_OK
    touched_P = layer.folded((kernel_OK.square().T @ torch.ones_like(given_OL))[None])[0].mean(0)
    gradient_SP = _gradient_matrix(layer, before_OL)
    scale = (WEIGHT * touched_P.mean() / gradient_SP.square().sum(0).mean()).sqrt()
    gradient_SP *= scale
    target_IS = layer.target_BOK[0].view(MAPS, -1, KERNEL**2).transpose(0, 1).flatten(1)
    known_IP = layer.folded((kernel_OK.T @ given_OL)[None])[0] + scale * target_IS @ gradient_SP

    def applied(x_IP: Tensor) -> Tensor:
        output_OL = layer.convolved(x_IP[None])[0]
        back_IP = layer.folded((kernel_OK.T @ output_OL)[None])[0]
        return back_IP + x_IP @ gradient_SP.T @ gradient_SP

    return _conjugate_gradients(applied, _preconditioner(touched_P, gradient_SP), known_IP)


def _gradient_matrix(layer: Layer, before_OL: Tensor) -> Tensor:
    """The matrix (S, P) that turns one map that entered into its part of the layer's gradient."""
    places = math.prod(layer.inward)
    numbers_1P = torch.arange(1, places + 1, dtype=before_OL.dtype)[None]
    # Each place under the kernel by its number; what hangs over the border is number 0.
    where_kL = layer.patches(numbers_1P[None])[0].long()
    matrix = before_OL.new_zeros(MAPS, KERNEL**2, places + 1)
    spread = before_OL[:, None].expand(-1, KERNEL**2, -1)
    matrix.scatter_(2, where_kL.expand_as(spread), spread)
    return matrix[..., 1:].flatten(0, 1)


def _preconditioner(diagonal_P: Tensor, gradient_SP: Tensor) -> Map:
    """The inverse of diagonal + gradient' gradient, as a map of rows (I, P).

    The convolution's own part of the equations stands in it by its diagonal alone.
    """
    equations, places = gradient_SP.shape
    if places <= equations:
        inverse_PP = _inverse(torch.diag(diagonal_P) + gradient_SP.T @ gradient_SP)
        return lambda x_IP: x_IP @ inverse_PP
    # The Woodbury identity: a matrix of size S is inverted instead of one of size P.
    lean_SP = gradient_SP / diagonal_P
    core_SS = _inverse(torch.eye(equations, dtype=lean_SP.dtype) + lean_SP @ gradient_SP.T)
    return lambda x_IP: x_IP / diagonal_P - x_IP @ lean_SP.T @ core_SS @ lean_SP


def _inverse(matrix: Tensor) -> Tensor:
    """Of a symmetric positive matrix; garbage, and no exception, if it is not."""
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)


def _conjugate_gradients(applied: Map, preconditioned: Map, known: Tensor) -> Tensor:
    """Solve applied(x) = known; both maps are symmetric and positive."""
    x = torch.full_like(known, 0.5)
    residual = known - applied(x)
    direction = preconditioned(residual)
    first = error = (residual * direction).sum()
    for _ in range(ROUNDS):
        image = applied(direction)
        length = error / (direction * image).sum()
        x += length * direction
        residual -= length * image
        leaning = preconditioned(residual)
        before, error = error, (residual * leaning).sum()
        if not error > CONVERGED * first:
            break
        direction = leaning + error / before * direction
    return x
