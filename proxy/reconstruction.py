"""From gradients back to images: the proxy finds pixels whose gradients match the given ones.

A batch of prototypes is rebuilt in lock-step: per-image L-BFGS in matrix form, so that a step costs
the same few operations however many images take part (docs/method.md 6.5). An image's steps depend
on its own numbers alone, but floats depend on the batch and on torch's threads: equal bytes need
equal batches, in equal order, and one thread.
Legend: B prototypes of a batch, c channels, H height, W width, D = c H W numbers of an image, M
pairs of steps remembered.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from learning.encoder import Arrays
from learning.prototypes import encode
from proxy.layerwise import determined, solved_layerwise
from proxy.matching import Mismatch

Start = Literal["grey", "noise", "layerwise"]

STEP = 0.1  # larger ones diverge without a line search
HISTORY = 30
GREY = 0.5
CURVED = 1e-8
"""A pair whose cosine between step and change of slope is not above this tells no curvature."""
MATCHED = 3e-8
"""Of || gradient ||²: a mismatch at which PSNRs of 41 dB and more were measured (digits)."""


def rebuild(
    encoder: Arrays,
    gradients: Sequence[Arrays],
    rows: Sequence[int],
    *,
    height: int,
    width: int,
    steps: int = 1500,
    start: Start = "grey",
    generators: Sequence[np.random.Generator] = (),
) -> NDArray[np.float32]:
    """Rebuild the images behind one batch of gradients: (B, c, H, W) in [0, 1], in their order.

    `rows` are the classes' rows. At most `steps` steps are taken; none after all images match.
    What matched best on the way is clamped and returned. Where the way starts:

    - `grey`: at 0.5 everywhere.
    - `noise`: at N(0, 1), from each image's own generator; GLFC's released code does so.
    - `layerwise`: where the layers' equations put it (`proxy.layerwise`), or at 0.5 if that matches
      better. Gradients without noise are matched there at once, and no step is taken.

    Raises ValueError if `steps` is below 1, if `noise` lacks generators, or as `Mismatch` does.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps rebuild nothing")
    mismatch = Mismatch(encoder, gradients, rows, height=height, width=width)
    shape = (len(gradients), encoder["conv1.weight"].shape[1], height, width)
    start_BD = torch.full(shape, GREY).flatten(1)
    if start == "noise":
        start_BD = _noise(shape, generators)
    if start == "layerwise" and determined(mismatch.layers):
        pairs = zip(gradients, rows, strict=True)
        solved = [
            solved_layerwise(encoder, gradient, row, height=height, width=width)
            for gradient, row in pairs
        ]
        solved_BD = torch.stack(solved).float().clamp(0, 1).flatten(1)
        start_BD = _nearer(mismatch, solved_BD, start_BD)
    path = islice(descend(mismatch, start_BD), steps + 1)
    return _best(path, start_BD, mismatch.size()).clamp(0, 1).view(shape).numpy()


def to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8, rounded half to even; what lies outside is clamped."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def descend(
    mismatch: Mismatch, start_BD: Tensor, *, history: int = HISTORY
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go down from a start by L-BFGS without line search; every image for itself, in lock-step.

    Yields the images (B, D) and their mismatches (B) before the first and after each step, without
    end. The first step is STEP times the slope, and at most STEP long in the 1-norm; the next ones
    are STEP times the quasi-Newton direction. An image that diverges leaves the others as they are.

    Raises ValueError if `history` is below 1.
    """
    images_BD = start_BD
    errors_B, slope_BD = mismatch.at(images_BD)
    pairs = Pairs(images_BD, history)
    move_BD = -STEP * slope_BD / slope_BD.abs().sum(1, keepdim=True).clamp_min(1)
    while True:
        yield images_BD, errors_B
        images_BD = images_BD + move_BD
        before_BD = slope_BD
        errors_B, slope_BD = mismatch.at(images_BD)
        pairs.add(move_BD, slope_BD - before_BD)
        move_BD = -STEP * pairs.newton(slope_BD)


class Pairs:
    """The last M steps s of each image with the changes y of its slope, and their products.

    L-BFGS's two loops over the pairs are solved as two triangular systems of their inner products
    (Chen et al., "Large-scale L-BFGS using MapReduce", 2014): equal in exact arithmetic. A pair
    without positive curvature is remembered as zeros, which change nothing.
    """

    def __init__(self, like_BD: Tensor, history: int) -> None:
        if history < 1:
            raise ValueError(f"a history of {history} pairs remembers no curvature")
        images, numbers = like_BD.shape
        # The window over the last M pairs slides through twice the room, and is moved back when it
        # reaches the end: so it is always in order and in one piece.
        self._history = self._end = history
        self._steps, self._changes = like_BD.new_zeros(2, images, 2 * history, numbers)
        self._sy, self._yy = like_BD.new_zeros(2, images, 2 * history, 2 * history)
        self._scale_B1 = like_BD.new_ones(images, 1)

    def add(self, step_BD: Tensor, change_BD: Tensor) -> None:
        """Remember a step and by how much it changed the slope; forget the oldest pair."""
        curvature_B = (step_BD * change_BD).sum(1)
        energy_B = change_BD.square().sum(1)
        lengths_B = (step_BD.square().sum(1) * energy_B).sqrt()
        curved_B1 = (curvature_B > CURVED * lengths_B)[:, None]
        self._scale_B1 = torch.where(curved_B1, (curvature_B / energy_B)[:, None], self._scale_B1)
        if self._end == 2 * self._history:
            self._move_back()
        newest, self._end = self._end, self._end + 1
        self._steps[:, newest] = torch.where(curved_B1, step_BD, 0)
        self._changes[:, newest] = torch.where(curved_B1, change_BD, 0)
        window, newest_B1D = self._window(), self._changes[:, newest, None]
        self._sy[:, window, newest] = (newest_B1D @ self._steps[:, window].mT)[:, 0]
        products_BM = (newest_B1D @ self._changes[:, window].mT)[:, 0]
        self._yy[:, window, newest] = self._yy[:, newest, window] = products_BM

    def newton(self, slope_BD: Tensor) -> Tensor:
        """The inverse Hessian, as the pairs tell it, times a slope (B, D)."""
        window = self._window()
        steps_BMD, changes_BMD = self._steps[:, window], self._changes[:, window]
        yy_BMM = self._yy[:, window, window]
        later_BMM = self._sy[:, window, window].triu()
        own_B1M = later_BMM.diagonal(dim1=1, dim2=2)[:, None]
        own_B1M += own_B1M == 0  # pairs of zeros: any number but zero does
        # Vectors stand as rows, left of the matrices: as columns they take ten times as long.
        slope_B1D, scale_B11 = slope_BD[:, None], self._scale_B1[:, None]
        # The loop from the newest pair to the oldest, then the one back.
        first_B1M = _solved(later_BMM.mT, slope_B1D @ steps_BMD.mT, upper=False)
        rest_B1D = scale_B11 * (slope_B1D - first_B1M @ changes_BMD)
        left_B1M = own_B1M * first_B1M
        left_B1M -= scale_B11 * (slope_B1D @ changes_BMD.mT - first_B1M @ yy_BMM)
        second_B1M = _solved(later_BMM, left_B1M, upper=True)
        return (rest_B1D + second_B1M @ steps_BMD)[:, 0]

    def _window(self) -> slice:
        return slice(self._end - self._history, self._end)

    def _move_back(self) -> None:
        kept = self._window()
        for rows in (self._steps, self._changes):
            rows[:, : self._history] = rows[:, kept].clone()
        for square in (self._sy, self._yy):
            square[:, : self._history, : self._history] = square[:, kept, kept].clone()
        self._end = self._history


def _solved(matrix_BMM: Tensor, known_B1M: Tensor, *, upper: bool) -> Tensor:
    """The row vectors x with x matrix = known."""
    return torch.linalg.solve_triangular(matrix_BMM, known_B1M, upper=upper, left=False)


def _noise(shape: tuple[int, ...], generators: Sequence[np.random.Generator]) -> Tensor:
    if len(generators) != shape[0]:
        raise ValueError(f"{len(generators)} generators for {shape[0]} prototypes")
    drawn = np.stack([generator.standard_normal(shape[1:]) for generator in generators])
    return torch.tensor(drawn, dtype=torch.float32).flatten(1)


def _nearer(mismatch: Mismatch, images_BD: Tensor, others_BD: Tensor) -> Tensor:
    """Of two images, the one that matches better."""
    better_B = mismatch.at(images_BD)[0] < mismatch.at(others_BD)[0]
    return torch.where(better_B[:, None], images_BD, others_BD)


def _best(path: Iterable[tuple[Tensor, Tensor]], start_BD: Tensor, size_B: Tensor) -> Tensor:
    """What matched best on a path, which is left as soon as all images match."""
    best_BD, least_B = start_BD, torch.full_like(size_B, torch.inf)
    for images_BD, errors_B in path:
        best_BD = torch.where((errors_B < least_B)[:, None], images_BD, best_BD)
        least_B = torch.fmin(errors_B, least_B)
        if (least_B <= MATCHED * size_B).all():
            break
    return best_BD


def descend_alone(
    encoder: Arrays,
    gradient: Arrays,
    row: int,
    start_cHW: Tensor,
    *,
    history: int = 100,
    rounds: int = 20,
) -> Iterator[Tensor]:
    """Go down for a single prototype as GLFC's released code does, with torch's own L-BFGS.

    Double backward through the encoder, no line search, step STEP; yields the image (c, H, W) after
    each call of at most `rounds` iterations, without end. What the batched solver is measured
    against: equal settings lead along equal images, up to rounding.
    """
    weights = {name: torch.tensor(array).requires_grad_() for name, array in encoder.items()}
    given = [torch.tensor(gradient[name]) for name in weights]
    image = start_cHW[None].clone().requires_grad_()
    lbfgs = torch.optim.LBFGS([image], lr=STEP, max_iter=rounds, history_size=history)
    solver = cast(torch.optim.Optimizer, lbfgs)  # whose `step` has types

    def mismatch() -> float:
        loss = F.cross_entropy(encode(weights, image), torch.tensor([row]))
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        pairs = zip(slopes, given, strict=True)
        error = torch.stack([(slope - wanted).square().sum() for slope, wanted in pairs]).sum()
        (image.grad,) = torch.autograd.grad(error, image)
        return float(error.detach())

    while True:
        solver.step(mismatch)
        yield image.detach()[0].clone()
