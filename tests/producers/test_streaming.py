"""Images into a stream while it runs."""

from __future__ import annotations

import numpy as np

from infra.transport.embedded import Embedded
from producers.streaming import Streaming, source_of
from schemas.codec import Record, piece, records, unpack
from schemas.messages import ImageBatch, Message, StreamEnded, StreamMarked, TwinState
from schemas.topics import Names
from tests.schemas.specimens import specimen

NAMES, RUN, NORTH = Names("spring"), "a" * 64, "local/north"
TOPIC = NAMES.of_entity("samples", NORTH)
IMAGES = np.arange(6 * 16, dtype=np.uint8).reshape(6, 1, 4, 4)
UIDS = ("0", "0", "1", "1", "2", "2")


def told(log: Embedded) -> list[Message]:
    """What lies in the topic; noise is none."""
    found = [each.record.value for each in log.read(TOPIC, log.first(TOPIC), 2**24)]
    return [unpack(piece(each, 2**24).content, 2**24) for each in found if each != b"noise"]


def test_images_are_numbered_on_and_their_end_is_marked() -> None:
    """A second hand goes on behind what the first has sent; another source counts by itself."""
    log = Embedded()
    assert Streaming(log, NAMES, RUN).stream(NORTH, "camera", IMAGES[:4], UIDS[:4]) == 4
    log.append(TOPIC, [Record("noise", b"noise")])
    hand = Streaming(log, NAMES, RUN)
    assert hand.stream(NORTH, "camera", IMAGES[4:], UIDS[4:]) == 6
    assert hand.stream(NORTH, "scanner", IMAGES[:1], UIDS[:1]) == 1
    assert hand.count(NORTH, "camera") == 6

    batches = [each for each in told(log) if isinstance(each, ImageBatch)]
    assert [(each.source, each.first, each.classes) for each in batches] == [
        ("camera", 0, UIDS[:4]),
        ("camera", 4, UIDS[4:]),
        ("scanner", 0, UIDS[:1]),
    ]
    marks = [each for each in told(log) if isinstance(each, StreamMarked)]
    assert [(each.source, each.count, each.stage) for each in marks] == [
        ("camera", 4, None),
        ("camera", 6, None),
        ("scanner", 1, None),
    ]


def test_an_entity_leaves_behind_all_that_it_has_sent() -> None:
    """Of each source; also where what it sent first was let go."""
    log = Embedded()
    hand = Streaming(log, NAMES, RUN)
    hand.stream(NORTH, "camera", IMAGES, UIDS)
    hand.stream(NORTH, "camera", IMAGES, UIDS)
    hand.stream(NORTH, "scanner", IMAGES[:1], UIDS[:1])
    log.trim(TOPIC, 2)
    Streaming(log, NAMES, RUN).end(NORTH)

    ends = [each for each in told(log) if isinstance(each, StreamEnded)]
    assert [(each.source, each.count) for each in ends] == [("camera", 12), ("scanner", 1)]


def test_a_source_is_completed_by_whoever_begins_it_again() -> None:
    """Broken off behind four of six images: two are sent, and the end is marked again."""
    log = Embedded()
    source = source_of("camera", NORTH, IMAGES, UIDS)
    Streaming(log, NAMES, RUN).stream(NORTH, source, IMAGES[:4], UIDS[:4])
    assert Streaming(log, NAMES, RUN).complete(NORTH, source, IMAGES, UIDS) == 2
    assert Streaming(log, NAMES, RUN).complete(NORTH, source, IMAGES, UIDS) == 0

    batches = [each for each in told(log) if isinstance(each, ImageBatch)]
    assert [(each.first, each.classes) for each in batches] == [(0, UIDS[:4]), (4, UIDS[4:])]
    last = told(log)[-1]
    assert isinstance(last, StreamMarked)
    assert (last.source, last.count) == (source, 6)


def test_other_images_under_one_name_are_another_source() -> None:
    """Another picture, another class, another entity; the same ones are the same."""
    source = source_of("camera", NORTH, IMAGES, UIDS)

    assert source.startswith("camera#")
    assert source == source_of("camera", NORTH, IMAGES.copy(), list(UIDS))
    assert source != source_of("camera", NORTH, IMAGES[::-1], UIDS)
    assert source != source_of("camera", NORTH, IMAGES, UIDS[::-1])
    assert source != source_of("camera", "local/south", IMAGES, UIDS)


def test_what_a_twin_has_let_go_is_not_sent_again() -> None:
    """The stream was trimmed behind four images: its twin's state tells of them."""
    log = Embedded()
    hand = Streaming(log, NAMES, RUN)
    hand.stream(NORTH, "camera", IMAGES[:4], UIDS[:4])
    log.trim(TOPIC, log.end(TOPIC))
    known = {"run": RUN, "entity": NORTH, "sources": {"camera": 4}}
    state = specimen(TwinState).model_copy(update=known)
    log.append(NAMES.of_entity("twin-state", NORTH), records(state, source="twins")[1])
    fresh = Streaming(log, NAMES, RUN)

    assert fresh.counts(NORTH) == {"camera": 4}
    assert fresh.complete(NORTH, "camera", IMAGES, UIDS) == 2
