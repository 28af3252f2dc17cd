"""Accuracy held out at the sites: a sum over entities, whoever says what and in whatever order."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.heldout import MOST, HeldOut
from tests.schemas.specimens import model


def said(version: int = 3, **changes: Any) -> dict[str, Any]:
    """Of three images of the first class two were known, of one of the second it was."""
    values = {"model": model(version).sha256, "classes": ["0", "1"], "counts": [[2, 1], [0, 1]]}
    return values | changes


def heard(*entities: str, version: int = 3) -> HeldOut:
    """Each of them has said the same."""
    held_out = HeldOut()
    for offset, entity in enumerate(entities):
        assert held_out.hear(f"held-out/{entity}/{version}", said(version), offset)
    return held_out


def test_every_image_weighs_alike() -> None:
    """Three of four, and ten of ten: 13 of 14, which is no mean of 75 and 100 percent."""
    held_out = heard("north/ward")
    more = said(counts=((10, 0), (0, 0)))
    held_out.hear("held-out/south/icu/3", more, 7)
    found = held_out.of(model(3))

    assert found is not None
    assert (found.right, found.images, found.entities) == (13, 14, 2)
    assert found.percent == pytest.approx(100 * 13 / 14)
    assert held_out.at("north/ward", model(3)) == 75.0


def test_the_first_word_counts_in_whatever_order_it_is_read() -> None:
    """A twin that lived in two places said it twice: what stands first in the log."""
    for order in ((0, 5), (5, 0)):
        held_out = HeldOut()
        for offset in order:
            counts = [[2, 1], [0, 1]] if offset == 0 else [[0, 3], [1, 0]]
            held_out.hear("held-out/north/ward/3", said(counts=counts), offset)

        found = held_out.of(model(3))
        assert found is not None
        assert found.right == 3


def test_what_is_said_of_another_model_of_that_version_is_not_counted() -> None:
    """One whose decision came second scored a model that nobody has."""
    held_out = heard("north/ward")
    held_out.hear("held-out/north/icu/3", said(model="9" * 64), 9)

    found = held_out.of(model(3))
    assert found is not None
    assert found.entities == 1
    assert held_out.of(model(4)) is None
    assert held_out.at("north/icu", model(3)) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model/3", said()),
        ("held-out/north/ward", said()),
        ("held-out/north/ward/x", said()),
        ("held-out/North/ward/3", said()),
        ("held-out/north/ward/3", {}),
        ("held-out/north/ward/3", said(counts="many")),
        ("held-out/north/ward/3", said(counts=[1, 2])),
        ("held-out/north/ward/3", said(counts=[[1, -2]])),
        ("held-out/north/ward/3", said(counts=[[1.5]])),
        ("held-out/north/ward/3", said(counts=[[True]])),
    ],
)
def test_anybody_may_write_there_and_nothing_else_is_counted(
    name: str, values: dict[str, Any]
) -> None:
    """Other measurements, and counts that are none."""
    held_out = HeldOut()

    assert not held_out.hear(name, values, 0)
    assert held_out.of(model(3)) is None


def test_a_federation_that_never_ends_is_remembered_for_its_newest_versions() -> None:
    """Of the oldest nothing is left, so memory does not grow."""
    held_out = HeldOut()
    for version in range(MOST + 3):
        held_out.hear(f"held-out/north/ward/{version}", said(version), version)

    assert held_out.of(model(2)) is None
    assert held_out.of(model(3)) is not None


def test_an_entity_without_images_kept_apart_says_nothing() -> None:
    """No image is no accuracy, and no division by zero."""
    held_out = HeldOut()
    held_out.hear("held-out/north/ward/3", said(counts=[]), 0)

    assert held_out.of(model(3)) is None


def test_a_version_that_one_twin_has_scored_does_not_tell_where_the_federation_stands() -> None:
    """Three have scored version 5, one version 6 so far: 5 it is, until others follow. Where all
    but one have left, it is the newest again after three versions."""
    held_out = HeldOut()
    versions = (6, 5, 4)
    for entity in ("north/a", "north/b", "south/c"):
        held_out.hear(f"held-out/{entity}/5", said(5), 1)
        held_out.hear(f"held-out/{entity}/4", said(4), 2)
    held_out.hear("held-out/north/a/6", said(6, counts=[[0, 9], [0, 0]]), 3)
    early = held_out.newest(map(model, versions))
    for entity in ("north/b", "south/c"):
        held_out.hear(f"held-out/{entity}/6", said(6), 4)
    then = held_out.newest(map(model, versions))
    for version in (7, 8, 9):
        held_out.hear(f"held-out/north/a/{version}", said(version), 5)
    alone = held_out.newest(map(model, (9, 8, 7, *versions)))

    told = [each.version for each in (early, then, alone) if each is not None]
    assert told == [5, 6, 9]
    assert HeldOut().newest(map(model, versions)) is None
