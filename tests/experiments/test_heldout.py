"""How counts of entities become the accuracy of a version, and which have lost too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from experiments.heldout import HeldOut, Loss, Share, origins
from schemas.line import RoundsLine
from schemas.messages import Measured
from tests.schemas.test_live_line import begins, closes, grows, line, opens

WARD, ICU = "north/ward", "north/icu"


def said(
    entity: str, version: int, counts: Sequence[Sequence[int]], classes: str = "01"
) -> Measured:
    """An entity's counts, true by predicted row."""
    values = {"model": "a" * 64, "classes": list(classes), "counts": counts}
    return Measured(run="", name=f"held-out/{entity}/{version}", values=values)


def held(*measured: Measured) -> HeldOut:
    """All of these, heard."""
    found = HeldOut()
    for each in measured:
        found.hear(each)
    return found


def rounds() -> RoundsLine:
    """Version 1 has grown by two classes, 2 to 4 closed rounds, 5 has grown by two more."""
    more = [each for i in (1, 2) for each in (opens(3 + 2 * i, 0, i, 1 + i),
                                              closes(4 + 2 * i, 0, i, 2 + i))]  # fmt: skip
    return line(begins(1), grows(2), opens(3, 0, 0, 1), closes(4, 0, 0, 2), *more)


def test_the_accuracy_is_that_of_the_sums() -> None:
    """8 of 10 and 1 of 2: 9 of 12 images are 75 %, and not the mean of 80 and 50."""
    found = held(said(WARD, 2, [[5, 1], [1, 3]]), said(ICU, 2, [[0, 1], [0, 1]]))

    assert found.share(2) == Share(9, 12)
    assert found.share(2).percent == 75
    assert set(found.entities(2)) == {WARD, ICU}


def test_without_an_image_there_is_no_accuracy() -> None:
    """Nobody has any; nobody has scored version 9."""
    found = held(said(WARD, 2, [[0, 0], [0, 0]]))

    assert found.share(2).percent is None
    assert found.share(9).percent is None


def test_the_first_word_counts() -> None:
    """A twin that was started again scores the newest model again, perhaps on more images."""
    found = held(said(WARD, 2, [[1, 0], [0, 0]]))

    assert not found.hear(said(WARD, 2, [[9, 0], [0, 0]]))
    assert found.share(2) == Share(1, 1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model/2", {"classes": ["0"], "counts": [[1]]}),
        ("held-out/north/ward", {"classes": ["0"], "counts": [[1]]}),
        ("held-out/north/ward/x", {"classes": ["0"], "counts": [[1]]}),
        ("held-out/north/ward/2", {"classes": ["0"]}),
        ("held-out/north/ward/2", {"classes": ["0"], "counts": [[1], [1]]}),
        ("held-out/north/ward/2", {"classes": ["0", "1"], "counts": [[1], [1, 2]]}),
        ("held-out/north/ward/2", {"classes": ["0"], "counts": [[-1]]}),
        ("held-out/north/ward/2", {"classes": ["0"], "counts": [["1"]]}),
        ("held-out/north/ward/2", {"classes": 3, "counts": 3}),
    ],
)
def test_what_is_no_such_count_is_passed_over(name: str, values: Mapping[str, object]) -> None:
    """`metrics` holds other things too, and who writes there is believed nothing."""
    found = HeldOut()

    assert not found.hear(Measured(run="", name=name, values=dict(values)))
    assert found.versions == []


def test_the_newest_that_all_who_are_there_have_scored() -> None:
    """Version 3 was scored by one of two: 2 is the newest of both; if nothing was, any will do."""
    found = held(said(WARD, 2, [[1]], "0"), said(ICU, 2, [[1]], "0"), said(WARD, 3, [[1]], "0"))

    assert found.newest([WARD, ICU]) == 2
    assert found.newest([WARD]) == 3
    assert found.newest([WARD, "south/gone"]) == 3
    assert HeldOut().newest([WARD]) is None


def test_a_model_that_lost_more_than_five_points_is_reported() -> None:
    """90 %, 86 % and 80 %: four points are few, ten are too many, against the best before."""
    found = held(
        said(WARD, 2, [[45, 5], [5, 45]]),
        said(WARD, 3, [[43, 7], [7, 43]]),
        said(WARD, 4, [[40, 10], [10, 40]]),
    )

    assert found.losses(rounds()) == [Loss(4, 2, 10.0, 80.0, 90.0)]
    assert found.loss(3, rounds()) is None
    assert found.losses(rounds())[0].words == (
        "version 4 has lost 10.0 points held out at the sites: 80.0 % where version 2 has 90.0 %"
    )


def test_models_are_compared_on_the_classes_that_the_older_one_knew() -> None:
    """New classes that nobody has trained yet lose nothing; the old ones at 80 % lose ten."""
    fine = [[45, 5, 0, 0], [5, 45, 0, 0], [50, 0, 0, 0], [50, 0, 0, 0]]
    worse = [[40, 10, 0, 0], [10, 40, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]
    old = said(WARD, 2, [[45, 5], [5, 45]])

    assert held(old, said(WARD, 3, fine, "0123")).losses(rounds()) == []
    (loss,) = held(old, said(WARD, 3, worse, "0123")).losses(rounds())
    assert (loss.before, loss.points) == (2, 10.0)


def test_models_are_compared_on_the_entities_that_scored_both() -> None:
    """A newcomer for whom the model is poor does not make it worse than it was."""
    found = held(
        said(WARD, 2, [[45, 5], [5, 45]]),
        said(WARD, 3, [[45, 5], [5, 45]]),
        said(ICU, 3, [[0, 50], [50, 0]]),
    )

    assert found.share(3).percent == 45
    assert found.losses(rounds()) == []


def test_a_head_that_has_just_grown_is_not_reported() -> None:
    """Nobody has trained it, and nobody would go back behind it."""
    found = held(said(WARD, 0, [[50]], "0"), said(WARD, 1, [[0, 50], [0, 50]]))

    assert found.losses(rounds()) == []


def test_versions_are_told_by_where_they_come_from() -> None:
    """Weights that were drawn, a head that grew, rounds."""
    assert origins(rounds()) == {
        0: "the first weights",
        1: "stage 0 grows by 0, 1",
        2: "round 0.0",
        3: "round 0.1",
        4: "round 0.2",
    }
