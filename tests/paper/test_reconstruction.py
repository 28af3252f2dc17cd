"""From gradients back to images: equations, solvers, and what they reach."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from learning.encoder import Gradient, encoder_shapes, encoder_weights, noised
from learning.prototypes import encode, gradient_of
from producers.datasets import load
from proxy.layerwise import determined, solved_layerwise
from proxy.matching import Mismatch
from proxy.reconstruction import Pairs, descend, descend_alone, rebuild, to_bytes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def noise_images(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(rng(1).random((count, channels, height, width), dtype=np.float32))


def digits(count: int) -> tuple[Tensor, list[int]]:
    """The first digits at 16x16, which are of many classes, and their rows."""
    train = load("digits", Path()).train
    return torch.tensor(train.images[:count]) / 255, train.labels[:count].tolist()


def sent(
    images_BcHW: Tensor, rows: Sequence[int], classes: int = 10
) -> tuple[Gradient, list[Gradient]]:
    """An encoder and what the twins would send of these images."""
    _, channels, height, width = images_BcHW.shape
    encoder = encoder_weights(channels, height, width, classes, rng())
    pairs = zip(images_BcHW, rows, strict=True)
    return encoder, [gradient_of(encoder, image, row) for image, row in pairs]


def in_float64(arrays: Gradient) -> dict[str, NDArray[np.float64]]:
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def mse(images: NDArray[np.float32], wanted: Tensor) -> NDArray[np.float32]:
    return ((images - wanted.numpy()) ** 2).mean((1, 2, 3))


# --- the mismatch --------------------------------------------------------------------------------


def test_the_mismatch_of_an_encoder_of_zeros_can_be_worked_by_hand() -> None:
    """Two classes, zero weights: dL/db = (1/2, -1/2) and dL/dV = (1/4, -1/4) twelve times each.

    Against a gradient of zeros: 2 * 1/4 + 24 * 1/16 = 2. Against dL/db = (1, 0) alone:
    2 * 1/4 + 24 * 1/16 = 2 again, and || given ||² is 1. No pixel changes anything: slope 0.
    """
    zeros = {name: np.zeros(shape) for name, shape in encoder_shapes(1, 4, 4, 2).items()}
    other = zeros | {"head.bias": np.array([1.0, 0.0])}
    mismatch = Mismatch(zeros, [zeros, other], [1, 1], height=4, width=4)
    errors, slope = mismatch.at(torch.rand(2, 16))

    assert errors.tolist() == [2.0, 2.0]
    assert not slope.any()
    assert mismatch.size().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 13, 10)])
def test_the_slope_written_by_hand_is_that_of_double_backward(
    channels: int, height: int, width: int
) -> None:
    """In float64 they agree to 1e-9, for each image, also at sides that 4 does not divide."""
    wanted, rows = noise_images(2, channels, height, width), [3, 0]
    encoder, gradients = sent(wanted, rows)
    guess = torch.rand(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    weights = {n: torch.tensor(a).requires_grad_() for n, a in in_float64(encoder).items()}
    errors = []
    for image, row, gradient in zip(guess, rows, gradients, strict=True):
        loss = F.cross_entropy(encode(weights, image[None]), torch.tensor([row]))
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        pairs = zip(slopes, gradient.values(), strict=True)
        errors.append(torch.stack([(s - torch.tensor(g)).square().sum() for s, g in pairs]).sum())
    expected_B = torch.stack(errors)
    (expected,) = torch.autograd.grad(expected_B.sum(), guess)
    mismatch = Mismatch(encoder, gradients, rows, height=height, width=width, dtype=torch.float64)
    found_B, slope = mismatch.at(guess.detach().flatten(1))

    assert found_B.tolist() == pytest.approx(expected_B.tolist(), rel=1e-9)
    assert float((slope - expected.flatten(1)).abs().max()) < 1e-9 * float(expected.abs().max())


def test_the_image_itself_matches() -> None:
    """Its mismatch is rounding: below 1e-10 of || gradient ||², where mid-grey has over 1e-4."""
    images, rows = digits(3)
    mismatch = Mismatch(*sent(images, rows), rows, height=16, width=16)
    right, _ = mismatch.at(images.flatten(1))
    grey, _ = mismatch.at(torch.full((3, 256), 0.5))

    assert (right < 1e-10 * mismatch.size()).all()
    assert (grey > 1e-4 * mismatch.size()).all()


@pytest.mark.parametrize(
    ("rows", "side", "complaint"),
    [
        ([1], 16, "2 gradients with the rows of 1 classes"),
        ([1, 10], 16, "of an encoder for 10 classes"),
        ([1, 2], 20, "tensors of shapes"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(rows: list[int], side: int, complaint: str) -> None:
    """Too few rows, a row that does not exist, gradients of images of another size."""
    encoder, gradients = sent(noise_images(2, 1, 16, 16), [1, 2])

    with pytest.raises(ValueError, match=complaint):
        Mismatch(encoder, gradients, rows, height=side, width=side)


# --- L-BFGS --------------------------------------------------------------------------------------


def test_one_pair_tells_the_curvature_of_one_number() -> None:
    """A step of 2 that changed the slope by 4: curvature 2, so a slope of 3 asks for 1.5."""
    pairs = Pairs(torch.zeros(1, 1), history=3)
    pairs.add(torch.tensor([[2.0]]), torch.tensor([[4.0]]))

    assert pairs.newton(torch.tensor([[3.0]])).tolist() == [[1.5]]


def test_a_pair_without_positive_curvature_changes_nothing() -> None:
    """After the pair above: a step that changed the slope by -1, and one that changed nothing."""
    pairs = Pairs(torch.zeros(1, 1), history=3)
    pairs.add(torch.tensor([[2.0]]), torch.tensor([[4.0]]))
    pairs.add(torch.tensor([[1.0]]), torch.tensor([[-1.0]]))
    pairs.add(torch.tensor([[1.0]]), torch.tensor([[0.0]]))

    assert pairs.newton(torch.tensor([[3.0]])).tolist() == [[1.5]]


def test_pairs_along_the_axes_tell_a_whole_bowl() -> None:
    """f = x²/2 + 2 y²: a step (1, 0) changes the slope by (1, 0), one of (0, 1) by (0, 4).

    So the inverse Hessian is diag(1, 1/4), and a slope of (3, 8) asks for (3, 2).
    """
    pairs = Pairs(torch.zeros(1, 2), history=2)
    pairs.add(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    pairs.add(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 4.0]]))

    assert pairs.newton(torch.tensor([[3.0, 8.0]])).tolist() == [[3.0, 2.0]]


def test_the_oldest_pair_is_forgotten() -> None:
    """With a history of 1 only the last pair counts, however many came: curvature 5, 10 / 5 = 2."""
    pairs = Pairs(torch.zeros(1, 1), history=1)
    for curvature in (1.0, 2.0, 3.0, 4.0, 5.0):
        pairs.add(torch.tensor([[1.0]]), torch.tensor([[curvature]]))

    assert pairs.newton(torch.tensor([[10.0]])).tolist() == [[2.0]]


@pytest.mark.slow  # torch's optimisers import its compiler, for seconds
def test_the_batched_solver_goes_where_torchs_own_goes() -> None:
    """Two prototypes, history 5, 40 steps in float64: the same images to 1e-6.

    By then the window over the pairs has slid through its room several times. From mid-grey both
    have gone far: the images differ from it by more than 0.1.
    """
    images, rows = digits(2)
    encoder, gradients = sent(images, rows)
    grey = torch.full((2, 1, 16, 16), 0.5, dtype=torch.float64)
    mismatch = Mismatch(encoder, gradients, rows, height=16, width=16, dtype=torch.float64)
    together, _ = next(islice(descend(mismatch, grey.flatten(1), history=5), 40, None))
    for n, row in enumerate(rows):
        path = descend_alone(
            in_float64(encoder), in_float64(gradients[n]), row, grey[n], history=5, rounds=1
        )
        alone = next(islice(path, 39, None))

        np.testing.assert_allclose(together[n].view(1, 16, 16), alone, atol=1e-6)
        assert float((alone - 0.5).abs().max()) > 0.1


def test_an_image_that_breaks_leaves_the_others_alone() -> None:
    """A gradient with a NaN beside a sound one: the sound one's image is as without it."""
    images, rows = digits(2)
    encoder, gradients = sent(images, rows)
    broken = gradients[1] | {"head.bias": np.full(10, np.nan, np.float32)}
    beside = rebuild(encoder, [gradients[0], broken], rows, height=16, width=16, steps=30)
    sound = rebuild(encoder, gradients, rows, height=16, width=16, steps=30)

    np.testing.assert_allclose(beside[0], sound[0], atol=1e-4)
    assert (beside[1] == 0.5).all()


# --- rebuilding ----------------------------------------------------------------------------------


def test_digits_are_rebuilt_from_mid_grey() -> None:
    """Eight digits, 250 steps: every MSE is below 5e-3."""
    images, rows = digits(8)
    rebuilt = rebuild(*sent(images, rows), rows, height=16, width=16, steps=250)

    assert rebuilt.shape == (8, 1, 16, 16)
    assert rebuilt.dtype == np.float32
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    assert (mse(rebuilt, images) < 5e-3).all()


def test_images_come_in_the_order_of_their_gradients() -> None:
    """Turned around, the gradients give the same images turned around."""
    images, rows = digits(4)
    encoder, gradients = sent(images, rows)
    straight = rebuild(encoder, gradients, rows, height=16, width=16, steps=40)
    turned = rebuild(encoder, gradients[::-1], rows[::-1], height=16, width=16, steps=40)

    np.testing.assert_allclose(straight, turned[::-1], atol=1e-3)
    assert mse(straight, images).max() < mse(straight, images.flip(0)).min()


def test_equal_batches_give_equal_bytes() -> None:
    """Twice the same call, once the same image."""
    images, rows = digits(3)
    given = sent(images, rows)
    first, again = (rebuild(*given, rows, height=16, width=16, steps=40) for _ in range(2))

    assert first.tobytes() == again.tobytes()


def test_what_matched_best_counts() -> None:
    """With more steps the result never matches worse, although single steps may."""
    images, rows = digits(2)
    encoder, gradients = sent(images, rows)
    mismatch = Mismatch(encoder, gradients, rows, height=16, width=16)
    path = islice(descend(mismatch, torch.full((2, 256), 0.5)), 31)
    errors = np.array([found.numpy() for _, found in path])
    best = [mismatch.at(images_after(n, encoder, gradients, rows))[0] for n in (10, 20, 30)]

    assert (best[0] >= best[1]).all()
    assert (best[1] >= best[2]).all()
    assert best[2].numpy() == pytest.approx(errors.min(axis=0), rel=0.2)


def images_after(
    steps: int, encoder: Gradient, gradients: list[Gradient], rows: list[int]
) -> Tensor:
    rebuilt = rebuild(encoder, gradients, rows, height=16, width=16, steps=steps)
    return torch.from_numpy(rebuilt).flatten(1)


def test_a_noisy_start_is_each_images_own() -> None:
    """Equal generators give equal bytes, others give others; there is one for each image."""
    images, rows = digits(2)
    given = sent(images, rows)

    def from_noise(*seeds: int) -> NDArray[np.float32]:
        generators = [rng(seed) for seed in seeds]
        return rebuild(
            *given, rows, height=16, width=16, steps=3, start="noise", generators=generators
        )

    assert from_noise(1, 2).tobytes() == from_noise(1, 2).tobytes()
    assert (from_noise(1, 2)[1] != from_noise(1, 3)[1]).any()
    with pytest.raises(ValueError, match="1 generators for 2 prototypes"):
        from_noise(1)


def test_no_step_rebuilds_nothing() -> None:
    """A budget of 0 steps is a mistake."""
    images, rows = digits(1)
    with pytest.raises(ValueError, match="0 steps"):
        rebuild(*sent(images, rows), rows, height=16, width=16, steps=0)


def test_pixels_become_bytes_without_wrapping() -> None:
    """1.01 is 255 and not 1, -0.1 is 0; 0.5 * 255 = 127.5 goes to the even 128, 0.3 * 255 to 76."""
    pixels = np.array([1.01, -0.1, 0.5, 0.3, 1.0], np.float32)

    assert to_bytes(pixels).tolist() == [255, 0, 128, 76, 255]


# --- solved layer by layer -----------------------------------------------------------------------


def test_a_gradient_that_says_nothing_solves_nothing() -> None:
    """All zeros: the layers' equations have no finite solution, and mid-grey is where it ends."""
    images, rows = digits(2)
    encoder, gradients = sent(images, rows)
    nothing = {name: np.zeros_like(array) for name, array in gradients[1].items()}
    rebuilt = rebuild(
        encoder, [gradients[0], nothing], rows, height=16, width=16, steps=1, start="layerwise"
    )

    assert not solved_layerwise(encoder, nothing, rows[1], height=16, width=16).isfinite().all()
    assert mse(rebuilt, images)[0] < 1e-8
    assert np.isfinite(rebuilt).all()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 18, 13)])
def test_an_exact_gradient_is_its_image(channels: int, height: int, width: int) -> None:
    """Solved layer by layer, images of pure chance come back with MSE below 1e-8 (80 dB)."""
    images, rows = noise_images(3, channels, height, width), [4, 9, 0]
    encoder, gradients = sent(images, rows)
    for image, gradient, row in zip(images, gradients, rows, strict=True):
        solved = solved_layerwise(encoder, gradient, row, height=height, width=width)

        assert solved.shape == image.shape
        assert float((solved - image).square().mean()) < 1e-8


def test_where_the_layers_solve_the_image_no_step_is_needed() -> None:
    """With one step allowed digits come back to the last bit of a byte."""
    images, rows = digits(4)
    rebuilt = rebuild(*sent(images, rows), rows, height=16, width=16, steps=1, start="layerwise")

    assert (to_bytes(rebuilt) == to_bytes(images.numpy())).all()


def test_with_noise_in_the_gradient_grey_is_the_better_start() -> None:
    """Noise of 0.1 makes the layers' solution worthless; the way from mid-grey is taken."""
    images, rows = noise_images(2, 3, 12, 12), [1, 2]
    encoder, gradients = sent(images, rows)
    noisy = [noised(gradient, 0.1, rng(n)) for n, gradient in enumerate(gradients)]
    layerwise = rebuild(encoder, noisy, rows, height=12, width=12, steps=5, start="layerwise")
    grey = rebuild(encoder, noisy, rows, height=12, width=12, steps=5)

    assert layerwise.tobytes() == grey.tobytes()


@pytest.mark.parametrize(("side", "enough"), [(40, True), (44, False)])
def test_large_images_have_more_unknowns_than_equations(side: int, enough: bool) -> None:
    """Into the second layer go 12 maps of a quarter of the pixels; 3,600 + 12 maps of a 16th tell.

    40: 12 * 400 = 4,800 unknowns and 3,600 + 12 * 100 = 4,800 equations. 44: 12 * 484 = 5,808
    unknowns, and only 3,600 + 12 * 121 = 5,052 equations; then rebuilding starts from mid-grey.
    """
    images, rows = noise_images(1, 1, side, side), [0]
    encoder, gradients = sent(images, rows)
    given = (encoder, gradients, rows)

    assert determined(Mismatch(*given, height=side, width=side).layers) is enough
    if not enough:
        starts = [
            rebuild(*given, height=side, width=side, steps=2, start=start).tobytes()
            for start in ("layerwise", "grey")
        ]
        assert starts[0] == starts[1]
