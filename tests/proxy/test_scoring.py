"""How well a candidate knows the rebuilt prototypes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.augmentation import Transform
from learning.nets import from_weights
from learning.shapes import first_model, grown
from proxy.scoring import score, views

SHIFTING = Transform(mean=(0.0,), std=(1.0,), crop_padding=2)
PLAIN = Transform(mean=(0.0,), std=(1.0,))


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def plain(images: NDArray[np.uint8], generator: np.random.Generator) -> Tensor:
    """A recipe without augmentation draws nothing."""
    return PLAIN.normalise(images)


class Reader:
    """Reads the class off the first pixel, and remembers how many images it saw at a time."""

    def __init__(self, classes: int) -> None:
        self.training = False
        self.classes = classes
        self.batches: list[int] = []

    def features(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return images[:, 0, 0, 0]

    def head(self, features: Tensor) -> Tensor:
        guesses = features.long().clamp(max=self.classes - 1)
        return torch.nn.functional.one_hot(guesses, self.classes).float()


def showing(*classes: int) -> Tensor:
    """One image for each class, which `Reader` reads as that class."""
    return torch.tensor(classes).float().view(-1, 1, 1, 1)


def test_the_score_is_the_share_of_right_answers() -> None:
    """Three of four."""
    assert score(Reader(3), showing(0, 1, 2, 2), [0, 1, 2, 1]) == 0.75


def test_a_balanced_score_is_the_mean_of_the_classes_shares() -> None:
    """Class 0 has three of three, class 1 none of one: (1 + 0) / 2, not 3 / 4."""
    shown, rows = showing(0, 0, 0, 0), [0, 0, 0, 1]

    assert score(Reader(2), shown, rows, class_balanced=True) == 0.5
    assert score(Reader(2), shown, rows) == 0.75


def test_equal_shares_are_equal_scores() -> None:
    """Shares of 0.1, 0.2 and 0.3 in any order: 0.2 to the last bit, so that a tie is one.

    As floats 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1.
    """
    rows = [0] * 10 + [1] * 10 + [2] * 10

    def answered(*right: int) -> Tensor:
        return showing(
            *(row if n < count else 3 for row, count in enumerate(right) for n in range(10))
        )

    shown = [answered(*right) for right in ((1, 2, 3), (3, 2, 1), (2, 3, 1))]

    assert {score(Reader(4), each, rows, class_balanced=True) for each in shown} == {0.2}


def test_every_view_counts_in_batches_of_fixed_size() -> None:
    """600 views make batches of 256, 256 and 88; the last one is no smaller matter."""
    reader = Reader(2)
    rows = [0] * 599 + [1]

    assert score(reader, showing(*rows), rows) == 1.0
    assert reader.batches == [256, 256, 88]


def test_a_class_that_the_candidate_does_not_know_is_missed() -> None:
    """A head of two rows never answers 2."""
    assert score(Reader(2), showing(0, 2), [0, 2]) == 0.5


def test_a_real_model_scores_the_same_twice_and_stays_as_it_is() -> None:
    """Eval mode, no gradient, no statistics moved."""
    net = from_weights(grown(first_model(1, 4, rng(1)), 5, rng(2)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = rng(3).integers(0, 256, (4, 1, 16, 16), dtype=np.uint8)
    seen = views(images, SHIFTING.augment, [rng(n) for n in range(4)], copies=3)
    rows = [row for row in range(4) for _ in range(3)]

    assert score(net, seen, rows) == score(net, seen, rows)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_model_in_training_mode_is_refused() -> None:
    """Its answer to one view would depend on the others."""
    reader = Reader(2)
    reader.training = True
    with pytest.raises(ValueError, match="training mode"):
        score(reader, showing(0), [0])


def test_nothing_cannot_be_scored() -> None:
    """No view, or not one row for each: the caller decides what an empty set means."""
    with pytest.raises(ValueError, match="0 rows for 0 views"):
        score(Reader(2), showing()[:0], [])
    with pytest.raises(ValueError, match="1 rows for 2 views"):
        score(Reader(2), showing(0, 1), [0])


# --- views ---------------------------------------------------------------------------------------


def test_an_image_is_shown_twenty_times_each_time_otherwise() -> None:
    """A dark and a bright image: twenty crops of the one, framed in black, then of the other."""
    images = np.full((2, 1, 8, 8), [[[[51]]], [[[204]]]], np.uint8)
    seen = views(images, SHIFTING.augment, [rng(0), rng(1)])

    assert seen.shape == (40, 1, 8, 8)
    assert seen.dtype == torch.float32
    assert seen.amax((1, 2, 3)).tolist() == pytest.approx([0.2] * 20 + [0.8] * 20)
    assert len({view.numpy().tobytes() for view in seen[:20]}) > 5


def test_without_augmentation_one_copy_says_it_all() -> None:
    """The views are the normalised images."""
    images = rng(3).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)

    assert torch.equal(views(images, plain, [rng(0), rng(1)], copies=1), PLAIN.normalise(images))


def test_an_images_views_do_not_depend_on_the_others() -> None:
    """Alone or second of two, with the same generator: the same twenty views."""
    images = rng(3).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    both = views(images, SHIFTING.augment, [rng(0), rng(1)])
    alone = views(images[1:], SHIFTING.augment, [rng(1)])

    assert torch.equal(both[20:], alone)


def test_there_is_one_generator_for_each_image() -> None:
    """And at least one image and one copy."""
    images = np.zeros((2, 1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        views(images, plain, [rng(0)])
    with pytest.raises(ValueError, match="0 generators for 0 images"):
        views(images[:0], plain, [])
    with pytest.raises(ValueError, match="0 copies"):
        views(images, plain, [rng(0), rng(1)], copies=0)
