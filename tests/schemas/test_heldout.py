"""Accuracy held out at the sites: a sum over entities, whoever says what and in whatever order, and
which models have lost too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest

from schemas import heldout
from schemas.heldout import Accuracy, HeldOut, Loss
from schemas.line import RoundsLine
from tests.schemas.specimens import model
from tests.schemas.test_live_line import begins, closes, ends, grows, line, opens

WARD, ICU = "north/ward", "south/icu"
FINE, WORSE = [[45, 5], [5, 45]], [[40, 10], [10, 40]]


def rounds(count: int = 3) -> RoundsLine:
    """Version 1 has grown by two classes; of so many closed rounds come the versions from 2 on."""
    more = [each for i in range(count) for each in (opens(3 + 2 * i, 0, i, 1 + i),
                                                    closes(4 + 2 * i, 0, i, 2 + i))]  # fmt: skip
    return line(begins(1), grows(2), *more)


def said(version: int, counts: object = ((2, 1), (0, 1)), **changes: Any) -> dict[str, Any]:
    """Of three images of the first class two were known, of one of the second it was."""
    size = len(counts) if isinstance(counts, list | tuple) else 2
    classes = [str(i) for i in range(size)]
    return {"model": model(version).sha256, "classes": classes, "counts": counts} | changes


Word = tuple[str, int, Sequence[Sequence[int]]]


def held(words: Iterable[Word], read: RoundsLine | None = None) -> HeldOut:
    """Each entity's word on a version, one behind the other."""
    found = HeldOut(read or rounds())
    for offset, (entity, version, counts) in enumerate(words):
        assert found.hear(f"held-out/{entity}/{version}", said(version, counts), offset)
    return found


# --- how good a version is ------------------------------------------------------------------------


def test_every_image_weighs_alike() -> None:
    """Three of four, and ten of ten: 13 of 14, which is no mean of 75 and 100 percent."""
    found = held([(WARD, 3, [[2, 1], [0, 1]]), (ICU, 3, ((10, 0), (0, 0)))])

    assert found.of(3) == Accuracy(3, 13, 14, entities=2)
    assert found.of(3).percent == pytest.approx(100 * 13 / 14)  # type: ignore[union-attr]
    assert set(found.entities(3)) == {WARD, ICU}
    assert found.at(WARD) == 75.0


def test_the_last_word_counts_in_whatever_order_it_is_read() -> None:
    """A twin that was started again has more images by now. What lies last in the log is also what
    is left of it when Kafka has compacted it."""
    counts = {0: [[1, 0], [0, 0]], 5: [[2, 1], [0, 1]], 9: [[0, 3], [0, 1]]}
    for order in (*permutations(counts), (9,)):
        found = HeldOut(rounds())
        for offset in order:
            found.hear(f"held-out/{WARD}/3", said(3, counts[offset]), offset)

        assert found.of(3) == Accuracy(3, 1, 4, entities=1)


def test_what_is_said_of_a_model_that_was_not_decided_is_not_counted() -> None:
    """One whose decision came second scored a model that nobody has; nor does that take anything
    from the word on the model that counts."""
    found = held([(WARD, 3, [[2, 1], [0, 1]])])
    found.hear(f"held-out/{ICU}/3", said(3, model="9" * 64), 8)
    found.hear(f"held-out/{WARD}/3", said(3, [[9, 0], [0, 9]], model="9" * 64), 9)

    assert found.of(3) == Accuracy(3, 3, 4, entities=1)
    assert found.at(ICU) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model/3", said(3)),
        ("held-out/north/ward", said(3)),
        ("held-out/north/ward/x", said(3)),
        ("held-out/North/ward/3", said(3)),
        ("held-out/north/ward/3", {}),
        ("held-out/north/ward/3", said(3, classes=3)),
        ("held-out/north/ward/3", said(3, model=3)),
        ("held-out/north/ward/3", said(3, "many")),
        ("held-out/north/ward/3", said(3, [1, 2])),
        ("held-out/north/ward/3", said(3, [[1], [1]])),
        ("held-out/north/ward/3", said(3, [[1], [1, 2]])),
        ("held-out/north/ward/3", said(3, [[1]], classes=["0", "1"])),
        ("held-out/north/ward/3", said(3, [[-2]])),
        ("held-out/north/ward/3", said(3, [[1.5]])),
        ("held-out/north/ward/3", said(3, [["1"]])),
        ("held-out/north/ward/3", said(3, [[True]])),
    ],
)
def test_anybody_may_write_there_and_nothing_else_is_counted(
    name: str, values: dict[str, Any]
) -> None:
    """Other measurements, and counts that are none."""
    found = HeldOut(rounds())

    assert not found.hear(name, values, 0)
    assert found.versions == []


def test_without_an_image_there_is_no_accuracy() -> None:
    """Nobody has any; nobody has scored version 9; no class has a row yet."""
    found = held([(WARD, 2, [[0, 0], [0, 0]]), (ICU, 3, [])])

    assert [found.of(version) for version in (2, 3, 9)] == [None, None, None]
    assert found.at(WARD) is None


# --- what is remembered ---------------------------------------------------------------------------


def test_what_was_read_before_the_decision_counts_once_that_is_read() -> None:
    """Topics are not ordered among each other: the word on version 2 came first."""
    read = rounds(0)
    found = held([(WARD, 2, FINE)], read)
    early = found.of(2)
    assert read.hear(opens(3, 0, 0, 1), "")
    assert read.hear(closes(4, 0, 0, 2), "")

    assert early is None
    assert found.of(2) == Accuracy(2, 90, 100, entities=1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (f"held-out/{WARD}/3", {"counts": ((51, 0), (0, 1))}),
        (f"held-out/{WARD}/3", {"counts": ((10**6, 0), (0, 10**6))}),
        (f"held-out/{WARD}/3", {"classes": ["0", "0"]}),
        (f"held-out/{WARD}/3", {"classes": ["1", "0"]}),
        (f"held-out/{WARD}/3", {"classes": ["0", "7"]}),
        ("held-out/elsewhere/ward/3", {}),
    ],
)
def test_what_cannot_be_is_not_counted(name: str, changes: dict[str, Any]) -> None:
    """More than the fifty images that an entity keeps apart of a class, classes that are not the
    model's rows, or an entity of a site that takes no part: the word before stands."""
    found = held([(WARD, 3, [[40, 10], [0, 50]])])
    found.hear(name, said(3) | changes, 10)

    assert found.of(3) == Accuracy(3, 90, 100, entities=1)


def test_junk_of_versions_that_nobody_decided_blinds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is let go before anything that may still be decided, and memory does not grow."""
    monkeypatch.setattr(heldout, "EARLY", 8)
    read = rounds(0)
    found = held([(WARD, 1, FINE), (ICU, 2, FINE)], read)
    for number in range(500):
        found.hear(f"held-out/{WARD}/{10**6 + number}", said(7), number)
    assert read.hear(opens(3, 0, 0, 1), "")
    assert read.hear(closes(4, 0, 0, 2), "")

    assert found.versions == [1, 2]
    assert found.newest() == Accuracy(2, 90, 100, entities=1)


def test_a_federation_that_never_ends_is_remembered_for_its_newest_versions_and_its_best() -> None:
    """Of others nothing is left, so memory does not grow; and what is worse than the best is so for
    ever, however long ago that was."""
    found = HeldOut(rounds(8), most=3)
    for version in (*range(2, 9), 9):
        counts = FINE if version == 3 else WORSE
        found.hear(f"held-out/{WARD}/{version}", said(version, counts), version)

    assert found.versions == [3, 8, 9]
    assert found.loss(9) == Loss(9, 3, 10.0, 80.0, 90.0)


# --- which version tells --------------------------------------------------------------------------


def test_a_version_that_one_twin_has_scored_does_not_tell_where_the_federation_stands() -> None:
    """Three have scored version 5, one version 6 so far: 5 it is, until others follow. Where all
    but one have left, it is the newest again after three versions."""
    three = (WARD, ICU, "south/x-ray")
    found = held([(e, v, FINE) for v in (4, 5) for e in three], rounds(8))
    found.hear(f"held-out/{WARD}/6", said(6, WORSE), 7)
    early = found.newest()
    for entity in three[1:]:
        found.hear(f"held-out/{entity}/6", said(6, FINE), 8)
    then = found.newest()
    for version in (7, 8, 9):
        found.hear(f"held-out/{WARD}/{version}", said(version, FINE), 9)
    alone = found.newest()

    told = [each.version for each in (early, then, alone) if each is not None]
    assert told == [5, 6, 9]
    assert HeldOut(rounds()).newest() is None


def test_the_newest_that_all_who_are_there_have_scored() -> None:
    """Version 3 was scored by one of two: 2 is the newest of both; if nothing was, any will do."""
    found = held([(WARD, 2, FINE), (ICU, 2, FINE), (WARD, 3, FINE)])

    assert found.newest_of([WARD, ICU]) == 2
    assert found.newest_of([WARD]) == 3
    assert found.newest_of([WARD, "south/gone"]) == 3
    assert HeldOut(rounds()).newest_of([WARD]) is None


# --- which are worse ------------------------------------------------------------------------------


def test_a_model_that_lost_more_than_five_points_is_reported() -> None:
    """90 %, 86 % and 80 %: four points are few, ten are too many, against the best before."""
    found = held([(WARD, 2, FINE), (WARD, 3, [[43, 7], [7, 43]]), (WARD, 4, WORSE)])

    assert found.losses() == [Loss(4, 2, 10.0, 80.0, 90.0)]
    assert found.loss(3) is None
    assert found.losses()[0].words == (
        "version 4 has lost 10.0 points held out at the sites: 80.0 % where version 2 has 90.0 %"
    )


def test_models_are_compared_on_the_classes_that_the_older_one_knew() -> None:
    """New classes that nobody has trained yet lose nothing; the old ones at 80 % lose ten."""
    fine = [[45, 5, 0, 0], [5, 45, 0, 0], [50, 0, 0, 0], [50, 0, 0, 0]]
    worse = [[40, 10, 0, 0], [10, 40, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]

    read = line(
        begins(1), grows(2), opens(3, 0, 0, 1), closes(4, 0, 0, 2), ends(5, 0, 2),
        begins(6, 1, [(ICU, 0)]), grows(7, 1, 3, 2), opens(8, 1, 0, 3), closes(9, 1, 0, 4),
    )  # fmt: skip

    assert held([(WARD, 2, FINE), (WARD, 4, fine)], read).losses() == []
    (loss,) = held([(WARD, 2, FINE), (WARD, 4, worse)], read).losses()
    assert (loss.before, loss.points) == (2, 10.0)


def test_models_are_compared_on_the_entities_that_scored_both() -> None:
    """A newcomer for whom the model is poor does not make it worse than it was."""
    found = held([(WARD, 2, FINE), (WARD, 3, FINE), (ICU, 3, [[0, 50], [50, 0]])])

    assert found.of(3) == Accuracy(3, 90, 200, entities=2)
    assert found.losses() == []


def test_a_version_that_one_lucky_entity_has_scored_hides_no_loss() -> None:
    """Both knew 90 % of version 2. Of version 3 the ward alone has spoken, and knew all; of version
    4 the ward still knows 96 %, the icu 30 %: that is measured against version 2."""
    both = [(WARD, 2, FINE), (ICU, 2, FINE)]
    fallen = [(WARD, 4, [[48, 2], [2, 48]]), (ICU, 4, [[15, 35], [35, 15]])]
    found = held([*both, (WARD, 3, [[50, 0], [0, 50]]), *fallen])

    loss = found.loss(4)

    assert loss is not None
    assert loss.before == 2
    assert loss.points == pytest.approx(27.0)


def test_a_head_that_has_just_grown_is_not_reported() -> None:
    """Nobody has trained it, and nobody would go back behind it."""
    found = held([(WARD, 0, [[50]]), (WARD, 1, [[0, 50], [0, 50]])])

    assert found.losses() == []
