"""Which images a live twin keeps apart, and how a model is scored on them."""

from __future__ import annotations

import numpy as np

from infra.promises import Task
from schemas.messages import ImageBatch
from tests.lamp import lamp, shades
from tests.schemas.specimens import facts, recipe
from twins.apart import MOST, first_of_each, is_tenth
from twins.buffer import Labels, Stream
from twins.learner import held_out


def batch(first: int, count: int, uid: str = "a") -> ImageBatch:
    """So many images of a class, of one pixel each."""
    pixels = np.zeros((count, 1, 1, 1), np.uint8)
    return ImageBatch(
        run="", source="camera", first=first, classes=(uid,) * count,
        groups={"images": {"images": pixels}},
    )  # fmt: skip


def stream(*batches: ImageBatch) -> Stream:
    """A live stream of these."""
    seen = Stream(Labels())
    for offset, each in enumerate(batches):
        seen.take(each, offset, live=True)
    return seen


def test_source_and_number_decide_by_their_hash() -> None:
    """By sha256sum and bc: camera/4 has 8C00BE...F2, a multiple of ten; camera/0 has none.

    Of the first forty these seven: 4, 5, 8, 13, 22, 33 and 36.
    """
    assert [n for n in range(40) if is_tenth("camera", n)] == [4, 5, 8, 13, 22, 33, 36]
    assert not is_tenth("other", 4)


def test_about_a_tenth_is_kept_apart() -> None:
    """Of 100,000 a tenth: 10,000, give or take three times 95."""
    assert abs(sum(is_tenth("camera", n) for n in range(100_000)) - 10_000) < 285


def test_of_a_class_the_first_fifty_are_kept_and_the_rest_is_not() -> None:
    """A thousand images of one class have more than fifty such; those behind train."""
    apart = list(first_of_each(stream(batch(0, 1000)).images(), {}, 0))

    assert len(apart) == MOST == 50
    assert [image.number for image in apart[:4]] == [4, 5, 8, 13]
    assert sum(is_tenth("camera", n) for n in range(apart[-1].number + 1)) == 50


def test_what_a_state_names_counts_and_is_not_chosen_again() -> None:
    """Of the class 49 are named, up to position 10: one more is kept, number 13."""
    named = {"a": [("camera", -1)] * 49}
    apart = list(first_of_each(stream(batch(0, 100)).images(), named, 10))

    assert [image.number for image in apart] == [13]


def test_a_repeat_changes_nothing() -> None:
    """Numbers 0 to 9, then 5 to 14 once more by another sender: 4, 5, 8 and 13."""
    seen = stream(batch(0, 10), batch(5, 10))

    assert [image.number for image in seen.images() if image.tenth] == [4, 5, 8, 13]


def test_a_recipe_keeps_nothing_apart() -> None:
    """Its runner has test images."""
    seen = Stream(Labels())
    seen.take(batch(0, 100), 0)

    assert not any(image.tenth for image in seen.images())


def test_counts_are_true_by_predicted_row_and_one_model_serves_all() -> None:
    """A lamp calls white row 0 and black row 1 (logits b against 1/2). One twin has two white
    images and a black one that is said to be of row 0; the other has none at all."""
    task = Task(
        "held-out",
        {
            "rows": [[0, 0, 0], []],
            "configuration": recipe().model_dump(mode="json"),
            "data": facts().model_dump(mode="json"),
        },
        {
            "model": lamp([1, 0], [0, 0.5]),
            "images/0": {"images": shades([1, 1, 0])},
            "images/1": {"images": shades([])},
        },
    )

    counts = {name: group["counts"].tolist() for name, group in held_out(task).groups.items()}

    assert counts == {"counts/0": [[2, 1], [0, 0]], "counts/1": [[0, 0], [0, 0]]}
