"""FedKA's prototypes: which image, how it is altered, and what its gradient tells."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.augmentation import Transform
from learning.encoder import (
    Arrays,
    Gradient,
    encoder_shapes,
    encoder_weights,
    fault,
    noised,
    recovered_label,
)
from learning.nets import ResNet18, from_weights
from learning.prototypes import (
    Mode,
    Perturbation,
    Prototype,
    encode,
    gradient_of,
    make_prototype,
    nearest_to_mean,
    perturbed,
    psnr,
)
from learning.shapes import first_model, grown

PLAIN = Transform(mean=(0.0,), std=(1.0,))
ENCODER_SHA256 = "c1acc1661b11b2a6550089a4f25803e19e2afd24f3990cd546cc54e7d6c230dd"
"""Of 1x16x16 images, 10 classes, seed 7."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


class OnePixel:
    """Images of one pixel x; the feature is x, the logits are (0, x)."""

    def __init__(self) -> None:
        self.training = False
        self.heard: list[float] = []

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def head(self, features: Tensor) -> Tensor:
        self.heard.append(float(features.detach()))
        return torch.cat([torch.zeros_like(features), features], dim=1)


def one_step(
    x: float, *, mode: Mode = "latent_noise", step: float = 0.2, transform: Transform = PLAIN
) -> float:
    """Move one pixel by one step towards class 1, without noise."""
    how = Perturbation(mode, steps=1, step=step, gamma=0.0)
    moved = perturbed(
        OnePixel(),
        torch.full((1, 1, 1), x),
        1,
        deviation_K=torch.ones(1),
        transform=transform,
        how=how,
        generator=rng(),
    )
    return float(moved)


def mute_encoder() -> Gradient:
    """All weights 0, two classes, images of 4x4: every map is 1/2 and every class has 1/2."""
    shapes = encoder_shapes(1, 4, 4, 2)
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def digest(arrays: Arrays) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()


# --- the encoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "side", "parameters"),
    [
        # 12*3*25 + 12 + 2*(12*12*25 + 12) + 100*768 + 100 = 912 + 7,224 + 76,900
        (3, 32, 85_036),
        # 12*25 + 12 + 7,224 + 100*588 + 100 = 312 + 7,224 + 58,900
        (1, 28, 66_436),
    ],
)
def test_the_encoder_has_as_many_parameters_as_its_layers_say(
    channels: int, side: int, parameters: int
) -> None:
    """Three convolutions of 12 maps and a linear layer on 12 * ceil(side / 4)^2 numbers."""
    weights = encoder_weights(channels, side, side, 100, rng())

    assert sum(array.size for array in weights.values()) == parameters
    assert {name: array.shape for name, array in weights.items()} == encoder_shapes(
        channels, side, side, 100
    )


def test_sides_that_four_does_not_divide_are_rounded_up() -> None:
    """30 pixels become 15, 8 and 8; 13 become 7, 4 and 4: 12 * 8 * 4 numbers meet the head."""
    assert encoder_shapes(1, 30, 13, 5)["head.weight"] == (5, 12 * 8 * 4)


def test_an_encoder_of_nothing_is_refused() -> None:
    """No class, no encoder; the numbers are in the message."""
    with pytest.raises(ValueError, match="1 channels of 16x16 pixels to 0 classes"):
        encoder_shapes(1, 16, 16, 0)


def test_encoder_weights_are_float32_between_minus_a_half_and_a_half() -> None:
    """They are multiples of 2^-24, so that drawing them rounds nothing on any processor."""
    numbers = np.concatenate([w.ravel() for w in encoder_weights(3, 32, 32, 100, rng()).values()])

    assert numbers.dtype == np.float32
    assert numbers.min() >= -0.5
    assert numbers.max() < 0.5
    assert abs(numbers.mean()) < 0.005
    assert abs(numbers.std() - 1 / math.sqrt(12)) < 0.005
    assert (numbers.astype(np.float64) * 2**24 % 1 == 0).all()


def test_two_processes_draw_the_same_encoder() -> None:
    """Seed 7 gives the stored bytes, here and in a process of its own."""
    program = (
        "import hashlib, sys, numpy as np\n"
        "from learning.encoder import encoder_weights\n"
        "w = encoder_weights(1, 16, 16, 10, np.random.Generator(np.random.PCG64(7)))\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in w.values())).hexdigest())\n"
        "print('torch' in sys.modules)\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert other.stdout.split() == [ENCODER_SHA256, "False"], other.stderr
    assert digest(encoder_weights(1, 16, 16, 10, rng(7))) == ENCODER_SHA256


def test_an_encoder_of_zeros_sees_halves() -> None:
    """Every sigmoid gives 1/2; with a head of ones the logit is 12 / 2 = 6, plus a bias of 1."""
    encoder = mute_encoder()
    encoder["head.weight"][0] = 1
    encoder["head.bias"][1] = 1
    weights = {name: torch.tensor(array) for name, array in encoder.items()}

    logits = encode(weights, torch.rand(3, 1, 4, 4))

    assert logits.tolist() == [[6.0, 1.0]] * 3


# --- the gradient --------------------------------------------------------------------------------


def test_the_gradient_of_an_encoder_of_zeros_can_be_worked_by_hand() -> None:
    """p = (1/2, 1/2) and y = 1: dL/db = (1/2, -1/2), dL/dV = dL/db * h = (1/4, -1/4), rest 0.

    What reaches the last map is V' (p - 1[y]) = 0, so no convolution has a gradient.
    """
    gradient = gradient_of(mute_encoder(), torch.rand(1, 4, 4), 1)

    assert gradient["head.bias"].tolist() == [0.5, -0.5]
    assert (gradient["head.weight"] == [[0.25], [-0.25]]).all()
    assert not any(gradient[name].any() for name in gradient if name.startswith("conv"))


def test_a_gradient_is_float32_and_has_the_shapes_of_the_encoder() -> None:
    """One tensor for each of the encoder's, batch size 1."""
    encoder = encoder_weights(3, 12, 8, 5, rng())
    gradient = gradient_of(encoder, torch.rand(3, 12, 8), 4)

    assert {name: array.shape for name, array in gradient.items()} == encoder_shapes(3, 12, 8, 5)
    assert {array.dtype for array in gradient.values()} == {np.dtype(np.float32)}


def test_a_row_that_the_encoder_lacks_is_refused() -> None:
    """An encoder of two classes has no row 2."""
    with pytest.raises(ValueError, match="row 2 of a model that knows 2 classes"):
        gradient_of(mute_encoder(), torch.rand(1, 4, 4), 2)


def test_noise_of_a_deviation_is_added_to_every_number() -> None:
    """The difference, over 7,000 numbers and more, has mean 0 and deviation 0.01 within 5 %."""
    gradient = gradient_of(encoder_weights(1, 16, 16, 10, rng()), torch.rand(1, 16, 16), 3)
    shifted = noised(gradient, 0.01, rng(1))
    shift = np.concatenate([(shifted[name] - gradient[name]).ravel() for name in gradient])

    assert abs(shift.std() - 0.01) < 0.0005
    assert abs(shift.mean()) < 0.0005
    assert digest(noised(gradient, 0.01, rng(1))) == digest(shifted)
    with pytest.raises(ValueError, match="not 0"):
        noised(gradient, 0.0, rng(1))


# --- what it tells -------------------------------------------------------------------------------


def test_the_label_of_a_hundred_random_images_is_read_from_their_gradients() -> None:
    """Only the row of the class is negative, so it is found in 100 of 100."""
    encoder = encoder_weights(3, 16, 16, 100, rng())
    generator = rng(1)
    rows = [int(row) for row in generator.integers(0, 100, 100)]
    images = torch.from_numpy(generator.random((100, 3, 16, 16), dtype=np.float32))
    read = [
        recovered_label(gradient_of(encoder, x, row)) for x, row in zip(images, rows, strict=True)
    ]

    assert read == rows


@pytest.mark.parametrize(
    ("bias", "weights", "label"),
    [
        ([0.2, -0.5, 0.3], [0.1, -0.3, 0.2], 1),
        ([0.2, -0.5, 0.3], [-0.3, 0.1, 0.2], None),  # one rule says 1, the other 0
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], None),  # nothing is negative, nothing tells
        ([0.1, 0.2, 0.3], [-0.3, 0.1, 0.2], None),  # argmin is 0 by both, but p - 1 is never > 0
    ],
)
def test_both_rules_must_name_the_same_negative_row(
    bias: list[float], weights: list[float], label: int | None
) -> None:
    """The row of the smallest bias gradient, and of the smallest sum of the weights' gradient."""
    gradient = {
        "head.bias": np.array(bias, np.float32),
        "head.weight": np.array([[w / 2, w / 2] for w in weights], np.float32),
    }

    assert recovered_label(gradient) == label


def test_a_gradient_counts_only_for_the_class_that_it_shows() -> None:
    """Of row 1, it is at fault as one of row 0; noise excuses that, but not an infinite number."""
    gradient = gradient_of(mute_encoder(), torch.rand(1, 4, 4), 1)
    broken = gradient | {"conv2.bias": np.full(12, np.inf, np.float32)}

    assert fault(gradient, 1) is None
    assert fault(gradient, 0) == "label-rules-disagree"
    assert fault(gradient, 0, with_noise=True) is None
    assert fault(broken, 1) == "not-finite"
    assert fault(broken, 1, with_noise=True) == "not-finite"


def test_a_gradient_tells_what_entered_the_linear_layer() -> None:
    """h = (dL/dV_y) / (dL/db_y): with zero weights (-1/4) / (-1/2) = 1/2, what a sigmoid gives."""
    gradient = gradient_of(mute_encoder(), torch.rand(1, 4, 4), 1)

    assert (gradient["head.weight"][1] / gradient["head.bias"][1] == 0.5).all()


# --- which image ---------------------------------------------------------------------------------


def test_the_image_nearest_to_the_mean_of_directions_is_chosen() -> None:
    """Directions (1, 0), (0, 1) and (.707, .707) have mean (.569, .569): the third is nearest.

    Lengths do not count: to the plain mean (10.3, 10.3) the first would be nearest.
    """
    features = np.array([[1.0, 0.0], [0.0, 1.0], [30.0, 30.0]])

    assert nearest_to_mean(features) == 2


def test_of_equally_near_images_the_earlier_is_chosen() -> None:
    """(1, 0) and (0, 1) lie equally far from (1/2, 1/2)."""
    assert nearest_to_mean(np.array([[0.0, 1.0], [1.0, 0.0]])) == 0
    assert nearest_to_mean(np.array([[1.0, 0.0], [0.0, 1.0]])) == 0


def test_a_feature_of_length_zero_is_no_reason_to_fail() -> None:
    """(0, 0) stays; mean (2/3, 0): distances 2/3, 1/3, 1/3."""
    assert nearest_to_mean(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])) == 1


def test_without_an_image_there_is_no_nearest_one() -> None:
    """A class that has no image left cannot be asked for one."""
    with pytest.raises(ValueError, match="no image"):
        nearest_to_mean(np.zeros((0, 3)))


# --- how it is altered ---------------------------------------------------------------------------


def test_a_step_goes_down_the_cross_entropy_of_the_normalised_image() -> None:
    """CE(0, z) at class 1 is -ln s(z), with slope s(z) - 1 = -1/2 at z = 0.

    With std 1 a pixel at 0 goes to 0 + 0.2 / 2 = 0.1. With mean 0.25 and std 0.5 a pixel at 0.25
    also has z = 0, and dz/dx = 2 doubles the step: 0.25 + 0.2 = 0.45.
    """
    assert one_step(0.0) == pytest.approx(0.1)
    assert one_step(0.25, transform=Transform(mean=(0.25,), std=(0.5,))) == pytest.approx(0.45)


def test_what_leaves_the_range_is_clamped() -> None:
    """0 + 4 / 2 = 2 becomes 1."""
    assert one_step(0.0, step=4.0) == 1.0


def test_the_released_codes_way_neither_normalises_nor_clamps() -> None:
    """BCE of (0, x) against (0, 1) is the mean of ln 2 and -ln s(x): slope -1/4 at x = 0.

    0.2 / 4 = 0.05 and 8 / 4 = 2. Weight decay adds 1e-5 x to the slope: from x = 1, whose slope is
    -(1 - s(1)) / 2 = -0.134471, to 1 + 0.2 * (0.134471 - 0.00001) = 1.026892.
    """
    elsewhere = Transform(mean=(0.25,), std=(0.5,))

    assert one_step(0.0, mode="code", transform=elsewhere) == pytest.approx(0.05)
    assert one_step(0.0, mode="code", step=8.0) == pytest.approx(2.0)
    assert one_step(1.0, mode="code") == pytest.approx(1.026892, abs=1e-6)


def test_an_image_can_stay_as_it_is() -> None:
    """Mode `none`: the same numbers, in a tensor of their own."""
    assert one_step(0.3, mode="none", step=100.0) == pytest.approx(0.3)


def test_each_step_has_fresh_noise_of_the_classs_deviation() -> None:
    """The head hears x + 0.1 * 3 * n with the generator's own n, another one in each step."""
    net, n = OnePixel(), rng(5).standard_normal(3)
    perturbed(
        net,
        torch.full((1, 1, 1), 0.5),
        1,
        deviation_K=torch.tensor([3.0]),
        transform=PLAIN,
        how=Perturbation(steps=3, step=1e-9, gamma=0.1),
        generator=rng(5),
    )

    assert net.heard == pytest.approx([0.5 + 0.3 * each for each in n], abs=1e-6)
    assert len(set(net.heard)) == 3


def test_a_model_in_training_mode_is_refused() -> None:
    """Its batch normalisation would look at the batch, and change."""
    net = OnePixel()
    net.training = True
    with pytest.raises(ValueError, match="training mode"):
        perturbed(
            net,
            torch.zeros(1, 1, 1),
            1,
            deviation_K=torch.ones(1),
            transform=PLAIN,
            how=Perturbation(),
            generator=rng(),
        )


def test_the_peak_signal_to_noise_ratio_is_in_decibels() -> None:
    """A difference of 0.1 everywhere is MSE 0.01: 10 lg(1 / 0.01) = 20 dB. None: infinite."""
    assert psnr(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.1)) == pytest.approx(20.0)
    assert psnr(torch.ones(1, 2, 2), torch.ones(1, 2, 2)) == math.inf


# --- all of it -----------------------------------------------------------------------------------


def images_of_a_class() -> NDArray[np.uint8]:
    return rng(3).integers(0, 256, (7, 1, 16, 16), dtype=np.uint8)


def prototype(
    how: Perturbation, *, seed: int = 9, dp_noise_sigma: float | None = None
) -> Prototype:
    return make_prototype(
        small_net(),
        images_of_a_class(),
        3,
        encoder_weights(1, 16, 16, 10, rng()),
        transform=PLAIN,
        perturbation=how,
        generator=rng(seed),
        dp_noise_sigma=dp_noise_sigma,
    )


def small_net() -> ResNet18:
    return from_weights(grown(first_model(1, 4, rng(1)), 5, rng(2)))


def test_a_prototype_is_altered_and_keeps_its_class() -> None:
    """The steps raise the model's confidence in row 3, and the gradient shows row 3.

    No parameter of the model gets a gradient or changes.
    """
    net, images = small_net(), images_of_a_class()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    features = net.features(PLAIN.normalise(images)).detach()
    chosen = torch.tensor(images[nearest_to_mean(features.numpy())]) / 255
    altered = perturbed(
        net,
        chosen,
        3,
        deviation_K=features.std(0, correction=0),
        transform=PLAIN,
        how=Perturbation(),
        generator=rng(9),
    )
    made = prototype(Perturbation())

    chances = torch.softmax(net.head(net.features(torch.stack([chosen, altered]))), dim=1)[:, 3]
    assert chances[1] > chances[0]
    assert made.psnr == pytest.approx(psnr(chosen, altered))
    expected = gradient_of(encoder_weights(1, 16, 16, 10, rng()), altered, 3)
    assert digest(made.gradient) == digest(expected)
    assert fault(made.gradient, 3) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_same_generator_makes_the_same_prototype() -> None:
    """Byte for byte, and another seed makes another one of the same image."""
    first, again = prototype(Perturbation()), prototype(Perturbation())
    other = prototype(Perturbation(), seed=10)

    assert digest(first.gradient) == digest(again.gradient)
    assert digest(first.gradient) != digest(other.gradient)
    assert first.index == other.index


def test_an_image_that_was_not_altered_has_no_signal_to_noise_ratio() -> None:
    """It would be infinite, which no message can carry."""
    made = prototype(Perturbation(mode="none"))
    pixels = torch.tensor(images_of_a_class()[made.index]) / 255
    expected = gradient_of(encoder_weights(1, 16, 16, 10, rng()), pixels, 3)

    assert made.psnr is None
    assert digest(made.gradient) == digest(expected)


def test_noise_reaches_the_gradient_only_if_asked_for() -> None:
    """With sigma 1 every number moves, and the label rules no longer hold."""
    plain = prototype(Perturbation(mode="none"))
    noisy = prototype(Perturbation(mode="none"), dp_noise_sigma=1.0)

    assert all((noisy.gradient[name] != plain.gradient[name]).all() for name in plain.gradient)
    assert fault(plain.gradient, 3) is None
    assert fault(noisy.gradient, 3) == "label-rules-disagree"


def test_a_class_without_images_has_no_prototype() -> None:
    """The caller answers with the reason instead."""
    with pytest.raises(ValueError, match="row 3 needs an image"):
        make_prototype(
            small_net(),
            images_of_a_class()[:0],
            3,
            encoder_weights(1, 16, 16, 10, rng()),
            transform=PLAIN,
            perturbation=Perturbation(),
            generator=rng(),
        )
