"""No image and no exemplar ever reaches a topic of the federation's cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from infra.transport.embedded import Embedded as Log
from producers.images import Dataset
from schemas.codec import Record, piece, records, unpack
from schemas.messages import Content, ExemplarImage, ImageBatch, TwinState
from schemas.topics import TOPICS, table_row
from tests.flows.digits import TINY, digits, told_by_child
from tests.flows.federation import (
    DOTS,
    LIMIT,
    Outcome,
    Told,
    disturbed,
    letters,
    outcome,
    put_together,
    small,
)
from tests.flows.junk import Littered

LETTER_BYTES = 2_000


class Watched(Log):
    """A log in memory that remembers what was ever written, also what was let go since."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, Record]] = []

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        records = list(records)
        self.written += [(topic, record) for record in records]
        return super().append(topic, records)


def of_the_federation(log: Watched) -> list[tuple[str, Record]]:
    """Everything that left a site."""
    return [each for each in log.written if table_row(each[0]).cluster == "federation"]


def unseen(images: np.ndarray, log: Watched) -> bool:
    """Whether no record of the federation holds an image as bytes or as floats from 0 to 1."""
    values = [record.value for _, record in of_the_federation(log)]
    bare = [image.tobytes() for image in images]
    scaled = [(image / np.float32(255)).astype("<f4").tobytes() for image in images]
    return not any(each in value for value in values for each in (*bare, *scaled))


def assert_private(log: Watched, dataset: Dataset) -> None:
    """Scan all that left the site: kinds, types of tensors, and the bytes themselves."""
    left = of_the_federation(log)
    assert {table_row(topic).name for topic, _ in left} >= {
        "classes", "rounds", "updates", "models", "prototypes", "teachers",
    }  # fmt: skip
    for topic, record in left:
        message = unpack(piece(record.value, LIMIT).content, LIMIT)
        assert not isinstance(message, ImageBatch | ExemplarImage | TwinState), topic
        if isinstance(message, Content):
            dtypes = {t.dtype.str for tensors in message.groups.values() for t in tensors.values()}
            assert dtypes <= {"<f4", "<i8"}, f"{topic} carries {dtypes}"
    assert unseen(dataset.train.images, log)


def test_the_table_keeps_images_at_their_site() -> None:
    """Whatever topic may carry one lies in the site's cluster and is read by twins alone."""
    for topic in TOPICS:
        if {"ImageBatch", "ExemplarImage"} & set(topic.carries):
            assert (topic.cluster, topic.readers, topic.scope) == ("site", ("twins",), "entity")


@pytest.mark.parametrize("overrides", [{}, {"wire": "int8"}, {"strategy": "fedavg"}], ids=str)
def test_no_image_leaves_its_site(overrides: dict[str, object]) -> None:
    """All that was ever written is looked at, with every role twice."""
    log = Watched()
    prototypes = overrides.get("strategy") != "fedavg"
    put_together(small(stages=2, **overrides), log, Told(copies=2)).system.run()

    assert any(table_row(topic).cluster == "site" for topic, _ in log.written)
    assert unseen(DOTS.train.images, log)
    if prototypes:
        assert_private(log, DOTS)


def test_the_scan_would_find_an_image() -> None:
    """One that is smuggled into an update as floats, or into a letter as bytes."""
    log, image = Watched(), DOTS.train.images[3]
    log.append("fedtwin.story.updates.local", [Record("a", b"x" + image.tobytes() + b"y")])
    assert not unseen(DOTS.train.images, log)

    log = Watched()
    scaled = (image / np.float32(255)).astype("<f4").tobytes()
    log.append("fedtwin.story.dead-letters", [Record("a", scaled)])
    assert not unseen(DOTS.train.images, log)


def test_a_dead_letter_refers_to_images_and_holds_none() -> None:
    """Batches that are refused are full of images; what is said of them is short."""
    run = disturbed(small(stages=2), 2, over=lambda inner, chance: Littered(inner, chance, 0.4))
    log = Watched()
    for letter in letters(run):
        log.append("fedtwin.story.dead-letters", records(letter, source="somebody")[1])

    assert {table_row(letter.topic).name for letter in letters(run)} >= {"samples", "twin-state"}
    assert max(len(record.value) for _, record in log.written) < LETTER_BYTES
    assert unseen(DOTS.train.images, log)


@pytest.mark.slow
def test_no_digit_leaves_its_site(tmp_path: Path) -> None:
    """The recipe `tiny` with real nets and real prototypes."""

    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        log = Watched()
        run = put_together(TINY, log, Told(functions=FUNCTIONS), dataset=digits())
        run.system.run()
        assert_private(log, digits())
        return outcome(run)

    assert told_by_child(run, tmp_path).teachers
