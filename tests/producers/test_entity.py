"""Entities stream what the schedule gives them, stage after stage, and wait for nobody."""

from __future__ import annotations

import numpy as np

from experiments.recipes import recipe
from experiments.system import SITE, opening_of
from infra.promises import Arrived, Place, Say
from producers.entity import SOURCE, Producers, batches, burst_of
from producers.images import Dataset, Part
from schemas.codec import pack
from schemas.messages import ImageBatch, Message, ModelName, RunOpened, StreamMarked, Transforms
from schemas.topics import Names

NAMES = Names("story")
RUN = "a" * 64
IMAGES_EACH = 20


def dataset() -> Dataset:
    """Ten classes; every pixel of an image is its number, so that each can be told apart."""
    numbers = np.arange(10 * IMAGES_EACH, dtype=np.uint8)
    pixels = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 1, 16, 16)).copy()
    part = Part(pixels, np.repeat(np.arange(10), IMAGES_EACH))
    uids = tuple(str(n) for n in range(10))
    look = Transforms(mean=(0.5,), std=(0.5,))
    return Dataset(
        "numbers", part, part, part, uids, uids, look, 10, "none", "nobody", "1", "b" * 64, True
    )


def opened(**overrides: object) -> RunOpened:
    """The first decision of a tiny run on these images."""
    opening = opening_of(recipe("tiny", overrides=overrides), dataset())
    return RunOpened(
        run="",
        number=0,
        configuration=opening.configuration,
        data=opening.data,
        schedule=opening.schedule,
        model=ModelName(version=0, sha256="c" * 64),
    )


def producers() -> Producers:
    """The entities of the one site."""
    return Producers(NAMES, SITE, dataset(), None)


def hear(role: Producers, message: Message, topic: str, offset: int = 0) -> None:
    """A message arrives, under the run's hash."""
    role.hear(Arrived(Place(topic, (offset,)), RUN, message))


def all_of(role: Producers) -> list[Say]:
    """Everything that it says until it is over."""
    said: list[Say] = []
    while answers := list(role.answers()):
        said += [answer for answer in answers if isinstance(answer, Say)]
    return said


def stream(role: Producers, first: RunOpened) -> list[Say]:
    """What is sent once the run is opened."""
    hear(role, first, NAMES.federation("rounds"))
    return all_of(role)


def test_nothing_is_sent_before_the_run_is_opened() -> None:
    """It says what it waits for instead."""
    role = producers()

    assert not list(role.answers())
    assert role.waits() == ["RunOpened"]
    assert not role.over


def test_each_entity_gets_its_classes_and_a_mark_for_every_stage() -> None:
    """Numbers rise from 0 without a gap, and each mark tells how many there are so far."""
    role, first = producers(), opened()
    said = stream(role, first)

    assert role.over
    for entity in first.schedule.entities:
        topic = NAMES.of_entity("samples", entity)
        count, stages = 0, list[int | None]()
        seen: list[set[str | None]] = [set(), set()]
        for message in (each.message for each in said if each.topic == topic):
            if isinstance(message, ImageBatch):
                assert (message.first, message.source) == (count, SOURCE)
                count += len(message.classes)
                seen[len(stages)] |= set(message.classes)
            else:
                assert isinstance(message, StreamMarked)
                assert message.count == count
                stages.append(message.stage)
        assert stages == [0, 1]
        assert seen == [set(stage.streams[entity]) for stage in first.schedule.stages]


def test_an_entity_that_gets_nothing_new_gets_its_mark_all_the_same() -> None:
    """Group O of stage 1: the burst is empty, the count stays."""
    role, first = producers(), opened()
    (idle,) = first.schedule.stages[1].group("O")
    said = stream(role, first)

    marks = [each.message for each in said if each.topic == NAMES.of_entity("samples", idle)][-2:]
    assert [mark.count for mark in marks if isinstance(mark, StreamMarked)] == [
        4 * IMAGES_EACH,
        4 * IMAGES_EACH,
    ]


def test_a_producer_that_starts_again_goes_on_where_the_log_ends() -> None:
    """A part was sent before it died: the rest follows, and both together are the whole stream."""
    first = opened()
    whole = stream(producers(), first)
    before, after = whole[:7], producers()
    hear(after, first, NAMES.federation("rounds"))
    for offset, each in enumerate(before):
        hear(after, each.message, each.topic, offset)
    rest = all_of(after)

    def named(said: list[Say]) -> list[tuple[str, str]]:
        return [(each.topic, pack(each.message).hash) for each in said]

    assert named(before + rest) == named(whole)


def test_all_holders_of_a_class_get_all_of_its_images_unless_they_share_them() -> None:
    """Full: twenty images each. Disjoint: together twenty, none twice."""
    for share, each_gets in (("full", IMAGES_EACH), ("disjoint", None)):
        schedule = opened(image_share=share, n_lab=1).schedule
        uid = schedule.stages[0].classes[0]
        holders = schedule.stages[0].holders(uid)
        got = [
            [
                int(image[0, 0, 0])
                for image, label in zip(*burst_of(dataset(), schedule, 0, e, None, 1), strict=True)
                if label == uid
            ]
            for e in holders
        ]
        assert len(holders) > 1
        if each_gets:
            assert all(sorted(own) == sorted(got[0]) and len(own) == each_gets for own in got)
        else:
            assert sorted(image for own in got for image in own) == list(range(IMAGES_EACH))


def test_images_per_class_takes_the_first_of_each_class() -> None:
    """Three of each of four classes, in an order that is drawn."""
    schedule = opened().schedule
    entity = schedule.entities[0]
    images, uids = burst_of(dataset(), schedule, 0, entity, 3, 1)

    assert sorted(image[0, 0, 0] % IMAGES_EACH for image in images) == sorted([0, 1, 2] * 4)
    assert sorted(uids) == sorted(schedule.stages[0].streams[entity] * 3)


def test_a_message_stays_below_half_a_mebibyte_of_pixels() -> None:
    """1,000 images of 3,072 bytes: 170 to a message, the last takes what is left."""
    cuts = list(batches(np.zeros((1000, 3, 32, 32), np.uint8)))

    assert cuts[0] == (0, 170)
    assert cuts[-1] == (850, 1000)
    assert [stop for _, stop in cuts[:-1]] == [start for start, _ in cuts[1:]]
