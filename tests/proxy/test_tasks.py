"""What the proxy's workers answer, with a net whose answers are known (docs/method.md 6.5)."""

from __future__ import annotations

import pytest

from infra.promises import Task
from proxy.tasks import score_candidate
from schemas.messages import Transforms
from tests.lamp import lamp, shades
from tests.schemas.specimens import facts, recipe

TELLS_WHITE = lamp([2, 0], [0, 1])
"""Row 0 for what is brighter than 1/2, row 1 for what is darker."""
AUGMENTED = Transforms(mean=(0.5,), std=(0.5,), brightness=0.1)


@pytest.mark.parametrize("transforms", [AUGMENTED, Transforms(mean=(0.5,), std=(0.5,))])
@pytest.mark.parametrize(
    ("rows", "proxy_eval", "score"),
    [
        ([0, 1, 1, 1], "current", 1.0),
        ([1, 0, 0, 0], "current", 0.0),
        ([0, 0, 0, 1], "current", 2 / 4),
        ([0, 0, 0, 1], "all", (1 / 3 + 1) / 2),
        ([0, 1, 1, 2], "all", (1 + 1 + 0) / 3),
    ],
)
def test_all_views_of_an_image_meet_the_row_of_its_class(
    transforms: Transforms, rows: list[int], proxy_eval: str, score: float
) -> None:
    """A white image and three black ones, each twenty times where there is augmentation.

    The share of right answers; with `proxy_eval: all` the mean of the classes' shares. Row 2 is one
    that the candidate does not have.
    """
    values = {
        "rows": rows,
        "places": [(0, i) for i in range(4)],
        "round": None,
        "configuration": recipe(proxy_eval=proxy_eval).model_dump(mode="json"),
        "data": facts().model_copy(update={"transforms": transforms}).model_dump(mode="json"),
    }
    images = shades([1, 0, 0, 0]).astype("<f4") / 255
    task = Task("score", values, {"model": TELLS_WHITE, "rebuilt": {"images": images}})

    assert score_candidate(task).values["score"] == pytest.approx(score)
