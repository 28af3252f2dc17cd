"""What a twin remembers, in little room: as a tuple and a dict would hold it, and much smaller."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twins.exemplars import Album, Exemplar, Images

IMAGES = st.tuples(st.sampled_from(["schedule", "inject-1"]), st.integers(0, 5))
OFFSETS = st.lists(st.integers(0, 2**40), min_size=1, max_size=3).map(tuple)


@given(images=st.lists(IMAGES), start=st.integers(-9, 9), stop=st.integers(-9, 9))
def test_images_are_a_tuple_of_sources_and_numbers(
    images: list[Exemplar], start: int, stop: int
) -> None:
    """In their order, also where one stands twice; a part of them is what a tuple's would be."""
    held = Images(images)

    assert list(held) == images
    assert tuple(held[start:stop]) == tuple(images)[start:stop]
    assert all(held.index(image) == images.index(image) for image in images)


@given(
    steps=st.lists(st.tuples(st.sampled_from(["set", "default", "pop"]), IMAGES, OFFSETS)),
)
def test_an_album_is_a_dict_of_offsets(
    steps: list[tuple[str, Exemplar, tuple[int, ...]]],
) -> None:
    """Put, put only if new, and taken out in any order: sources with equal numbers stay apart."""
    album, wanted = Album(), dict[Exemplar, tuple[int, ...]]()
    for what, image, offsets in steps:
        match what:
            case "set":
                album[image] = wanted[image] = offsets
            case "default":
                assert album.setdefault(image, offsets) == wanted.setdefault(image, offsets)
            case "pop":
                assert album.pop(image, None) == wanted.pop(image, None)

        assert dict(album) == wanted
        assert (image in album) == (image in wanted)


def test_the_first_pixels_of_an_image_count_and_lie_where_they_were_written_last() -> None:
    """A copy of the twin writes the same ones; others under the same name are passed over."""
    album = Album()
    album.note(("schedule", 3), (10, 11), digest=7)
    album.note(("schedule", 3), (14, 15), digest=7)
    album.note(("schedule", 3), (20,), digest=8)
    assert dict(album) == {("schedule", 3): (14, 15)}


def test_an_image_that_is_not_there_is_named() -> None:
    """A task that asks for it cannot be prepared, and says why."""
    with pytest.raises(KeyError, match="inject-1"):
        Album()["inject-1", 3]


def test_a_hundred_exemplars_take_a_few_kilobytes() -> None:
    """Their order and their places: at most 60 bytes each, where tuples and objects take 400."""
    images = [("schedule", 1000 + number) for number in range(100)]
    tracemalloc.start()
    album, held = Album(), Images(images)
    for number, image in enumerate(images):
        album[image] = (5000 + number,)

    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (len(album), len(held)) == (100, 100)
    assert size < 6000
