"""Images into a stream while it runs."""

from __future__ import annotations

import numpy as np

from infra.transport.embedded import Embedded
from producers.streaming import Streaming
from schemas.codec import Record, piece, unpack
from schemas.messages import ImageBatch, Message, StreamEnded, StreamMarked
from schemas.topics import Names

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
