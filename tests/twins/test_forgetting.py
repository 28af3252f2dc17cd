"""What is forgotten, worked by hand."""

from __future__ import annotations

from typing import cast

import numpy as np

from infra.promises import Library, Place
from schemas.messages import Forgotten, Message, StreamImage
from tests.twins.test_buffer import batch
from twins.buffer import Labels, Stream
from twins.forgetting import Forgettings, Remains

WARD = "local/ward"


def asked(label: str | None = None, before: int = 0, **images: tuple[int, int]) -> Forgotten:
    """A request about ranges of sources."""
    return Forgotten(run="", entity=WARD, label=label, images=images, before=before)


def test_a_request_holds_its_range_of_its_source_and_its_class() -> None:
    """Numbers 2 to 4 of the camera, as far as they are of class b."""
    forgotten = Forgettings()
    forgotten.note(asked("b", camera=(2, 5)))

    held = [(n, uid) for n in range(7) for uid in "ab" if forgotten.hold("camera", n, uid)]
    assert held == [(2, "b"), (3, "b"), (4, "b")]
    assert not forgotten.hold("scanner", 3, "b")


def test_a_request_that_is_said_again_is_no_other_but_may_reach_further() -> None:
    """The same images: only the place before which nothing stays is a later one."""
    forgotten = Forgettings()

    assert forgotten.note(asked(camera=(2, 5), before=3))
    assert not forgotten.note(asked(camera=(2, 5), before=9))
    assert not forgotten.note(asked(camera=(2, 5), before=4))
    assert (len(forgotten), forgotten.before) == (1, 9)
    assert forgotten.note(asked(camera=(2, 6)))
    assert asked(camera=(2, 5)).key != asked(camera=(2, 6)).key != asked("a", camera=(2, 6)).key


def test_a_stream_gives_no_forgotten_image_whenever_it_came() -> None:
    """Number 1 was taken before the request, and comes again later in a repeat: the first record
    holds its pixels, and so does the third."""
    forgotten = Forgettings()
    stream = Stream(Labels(), forgotten.hold)
    stream.take(batch(0, "a", "b", None, "b"), 0)
    forgotten.note(asked(camera=(1, 2)))
    stream.strike()
    assert stream.tainted == 1
    stream.take(batch(4, "a"), 1)
    stream.take(batch(1, "b", None, "b", "a", "a"), 2)

    assert [(i.number, i.row, i.position) for i in stream.images()] == [
        (0, 0, 0), (3, 2, 3), (4, 0, 4), (5, 3, 5),
    ]  # fmt: skip
    assert [image.number for image in stream.seen() if image.gone] == [1]
    assert stream.tainted == 3


def remain(number: int, label: str, position: int) -> StreamImage:
    """An image that was moved."""
    pixels = {"images": {"images": np.full((1, 1, 1, 1), number, np.uint8)}}
    return StreamImage(
        run="", entity=WARD, source="camera", image=number, label=label, position=position,
        groups=pixels,
    )  # fmt: skip


def test_what_remains_of_a_stream_is_given_until_it_is_settled_or_forgotten() -> None:
    """Three images at positions 5, 7 and 9: before 8 there are two; then class a is settled up to
    6, and number 9 forgotten."""
    forgotten, remains = Forgettings(), Remains("diary")
    for offset, (number, label) in enumerate([(9, "b"), (5, "a"), (7, "a")]):
        remains.note(remain(number, label, number), Place("diary", (offset,)), tenth=False)

    assert [image.number for image in remains.before(8)] == [5, 7]
    forgotten.note(asked(camera=(9, 10)))
    gone = list(remains.let_go({"a": 6}, 0, forgotten))
    assert sorted(each.key for each in gone) == ["stream/camera/5", "stream/camera/9"]
    assert [image.number for image in remains.before(100)] == [7]
    assert [each.key for each in remains.let_go({}, 8, forgotten)] == ["stream/camera/7"]


def test_pixels_that_were_written_again_lie_at_the_later_place() -> None:
    """A copy wrote the same; somebody wrote other ones under the name, which do not count."""
    remains = Remains("diary")
    remains.note(remain(1, "a", 1), Place("diary", (3,)), tenth=False)
    remains.note(remain(1, "a", 1), Place("diary", (8,)), tenth=False)
    other = remain(1, "a", 1).model_copy(
        update={"groups": {"images": {"images": np.zeros((1, 1, 1, 1), np.uint8)}}}
    )
    remains.note(other, Place("diary", (9,)), tenth=False)

    asked_for: list[Place] = []

    class Book:
        """A library with one message."""

        def message(self, place: Place) -> Message:
            asked_for.append(place)
            return remain(1, "a", 1)

    [image] = remains.before(100)
    assert remains.pixels(cast(Library, Book()), image).tolist() == [[[[1]]]]
    assert asked_for == [Place("diary", (8,))]
