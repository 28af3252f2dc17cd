"""What a twin has seen of its stream, by reference."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import ImageBatch
from twins.buffer import Labels, Stream


def batch(first: int, *uids: str | None, source: str = "camera") -> ImageBatch:
    """Images of one pixel each; None stands for a number whose image could not be sent."""
    pixels = np.zeros((sum(uid is not None for uid in uids), 1, 1, 1), np.uint8)
    return ImageBatch(
        run="",
        source=source,
        first=first,
        classes=uids,
        reasons=tuple("broken file" for uid in uids if uid is None),
        groups={"images": {"images": pixels}},
    )


def stream() -> Stream:
    """A stream of which nothing was read."""
    return Stream(Labels())


def test_images_are_taken_by_number_and_repeats_change_nothing() -> None:
    """Numbers 0 to 2, then 1 to 3 as a sender writes them that lost its connection: four images."""
    seen = stream()
    seen.take(batch(0, "a", "b", "a"), 0)
    seen.take(batch(1, "b", "a", "c"), 1)

    assert [image.label for image in seen.images()] == ["a", "b", "a", "c"]
    assert [image.position for image in seen.images()] == [0, 1, 2, 3]
    assert (seen.position, seen.sources) == (4, {"camera": 4})


def test_what_lies_ahead_of_a_gap_is_passed_over() -> None:
    """Number 5 when 0 is due: nothing is taken until the gap is filled."""
    seen = stream()

    assert not seen.take(batch(5, "a"), 0)
    assert seen.position == 0


def test_an_image_that_could_not_be_sent_takes_its_number_and_no_row() -> None:
    """Numbers 0 and 2 have pixels: they are rows 0 and 1 of the batch."""
    seen = stream()
    seen.take(batch(0, "a", None, "b"), 7)

    assert [(image.number, image.row) for image in seen.images()] == [(0, 0), (2, 1)]
    assert seen.position == 3


def test_a_repeat_that_goes_further_counts_rows_from_its_own_start() -> None:
    """Of the batch 0 to 3 the images 2 and 3 are new: rows 1 and 2, for number 1 has no pixels."""
    seen = stream()
    seen.take(batch(0, "a", None), 0)
    seen.take(batch(0, "a", None, "b", "c"), 1)

    assert [(i.offset, i.row) for i in seen.images()] == [(0, 0), (1, 1), (1, 2)]


def test_a_mark_holds_when_its_images_are_taken_in_whatever_order_they_came() -> None:
    """The mark over two images comes first; it holds behind the second one."""
    seen = stream()
    seen.mark("camera", 2, 0, 0)

    assert seen.behind(*seen.marks[0], judged=0) is None
    seen.take(batch(0, "a", "b", "c"), 1)
    assert seen.behind(*seen.marks[0], judged=0) == 2


def test_an_empty_burst_is_judged_where_the_last_one_ended() -> None:
    """The mark of the next stage over the same count: no new image, the position stays."""
    seen = stream()
    seen.take(batch(0, "a", "b"), 0)
    seen.mark("camera", 2, 1, 1)

    assert seen.behind(*seen.marks[1], judged=2) == 2


def test_two_sources_share_positions_and_keep_their_own_numbers() -> None:
    """Two images of the schedule, one that was injected, one more of the schedule."""
    seen = stream()
    seen.take(batch(0, "a", "a"), 0)
    seen.take(batch(0, "z", source="inject"), 1)
    seen.take(batch(2, "b"), 2)

    assert [(i.position, i.source, i.number) for i in seen.images()] == [
        (0, "camera", 0),
        (1, "camera", 1),
        (2, "inject", 0),
        (3, "camera", 2),
    ]
    assert seen.behind("inject", 1, judged=0) == 3


def test_a_successor_reads_on_from_the_first_batch_that_is_needed() -> None:
    """Of three batches the first is settled: whoever starts there has the same positions."""
    seen = stream()
    for offset, (first, uid) in enumerate([(0, "a"), (2, "b"), (4, "b")]):
        seen.take(batch(first, uid, uid), offset)
    needed = [image for image in seen.images() if image.label == "b"]
    offset, position, sources = seen.needed_from(needed)

    successor = stream()
    successor.resume(offset, position, sources)
    successor.take(batch(2, "b", "b"), 1)
    successor.take(batch(4, "b", "b"), 2)

    assert (offset, position, sources) == (1, 2, {"camera": 2})
    assert list(successor.images()) == needed
    assert successor.position == seen.position


def test_a_reader_that_is_further_than_a_state_keeps_what_it_has() -> None:
    """The state says offset 1; the reader has taken two batches and only lets the first go."""
    seen = stream()
    seen.take(batch(0, "a"), 0)
    seen.take(batch(1, "b"), 1)
    seen.resume(1, 1, {"camera": 1})

    assert [image.label for image in seen.images()] == ["b"]
    assert (seen.position, seen.sources) == (2, {"camera": 2})


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=30))
def test_any_senders_trouble_leaves_the_same_images(cuts: list[tuple[int, int]]) -> None:
    """Whatever pieces of one source come, in any order: a prefix of it is taken, in its order."""
    source = [str(n % 4) for n in range(17)]
    seen = stream()
    for offset, (first, size) in enumerate(cuts):
        seen.take(batch(first, *source[first : first + size]), offset)

    taken = [image.label for image in seen.images()]
    assert taken == source[: len(taken)]
    assert [image.number for image in seen.images()] == list(range(len(taken)))
    reached = 0
    for first, size in cuts:
        if first <= reached < first + size:
            reached = first + size
    assert len(taken) == reached
