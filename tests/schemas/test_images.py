"""When images may be taken: one question, asked by who streams and by the twin that reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.errors import Refused
from schemas.images import check_batch, check_images
from schemas.messages import ImageBatch
from tests.schemas.specimens import RUN, facts

PIXELS = np.zeros((2, 1, 4, 4), "|u1")


def batch(**changes: Any) -> ImageBatch:
    """Three numbers of a source, of which one could not be sent."""
    fields: dict[str, Any] = {
        "source": "camera",
        "first": 0,
        "classes": ("0", None, "1"),
        "reasons": ("the shutter stuck",),
        "groups": {"images": {"images": PIXELS}},
    }
    return ImageBatch(run=RUN, **(fields | changes))


def test_a_batch_brings_an_image_or_a_reason_for_each_of_its_numbers() -> None:
    """Grey images of 4x4 pixels, as the run's data says; also when no number has content."""
    nothing = {"images": {"images": PIXELS[:0]}}

    check_batch(batch(), 1, facts())
    check_batch(batch(classes=(None,), groups=nothing), 1, facts())
    check_images(batch().groups, 2, facts())


@pytest.mark.parametrize(
    ("changes", "pieces", "reason"),
    [
        ({}, 2, "too-large: a batch of 2 pieces"),
        ({"classes": (), "reasons": ()}, 1, "unreadable: 0 numbers, 0 reasons"),
        ({"reasons": ()}, 1, "unreadable: 3 numbers, 0 reasons"),
        ({"classes": ("0", "1")}, 1, "unreadable: 2 numbers, 1 reasons"),
        ({"classes": ("0", None)}, 1, "wrong-shape: images (2, 1, 4, 4), expected (1, 1, 4, 4)"),
        ({"groups": {}}, 1, "wrong-shape: images None, expected (2, 1, 4, 4)"),
        ({"groups": {"images": {"pixels": PIXELS}}}, 1, "wrong-shape: images None"),
        ({"groups": {"images": {"images": PIXELS}, "more": {}}}, 1, "wrong-shape: images (2, 1"),
        ({"groups": {"images": {"images": PIXELS[:, :, :3]}}}, 1, "wrong-shape: images (2, 1, 3"),
        (
            {"groups": {"images": {"images": PIXELS.astype("<f4")}}},
            1,
            "wrong-dtype: images are <f4",
        ),
    ],
)
def test_a_batch_that_its_reader_cannot_use_is_refused_whole(
    changes: dict[str, Any], pieces: int, reason: str
) -> None:
    """It fills no number, so the true sender's may come after it."""
    with pytest.raises(Refused) as caught:
        check_batch(batch(**changes), pieces, facts())

    assert str(caught.value).startswith(reason)
