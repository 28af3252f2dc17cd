"""The physical entities: each streams its images, stage by stage, to its own topic.

They wait for RunOpened, which holds the schedule, and then for nobody. Images of one entity have
one source and are numbered from 0; after each stage's burst a mark says how many there are so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from infra.promises import Answer, Arrived, Place, Result, Say
from producers.images import Dataset
from schemas.images import check_batch
from schemas.line import RoundsLine
from schemas.messages import Decision, ImageBatch, StreamMarked
from schemas.schedule import Schedule
from schemas.seeds import generator
from schemas.topics import Names, parted

BATCH_BYTES = 512 * 1024
"""Pixels in a message; the record stays well below the 960 KiB of one piece."""
SOURCE = "schedule"


class Producers:
    """The role that streams for the entities of a site, by the schedule in RunOpened."""

    name = "producers"

    def __init__(self, names: Names, site: str, dataset: Dataset, images_per_class: int | None):
        self._names = names
        self._site = site
        self._dataset = dataset
        self._most = images_per_class
        self._line = RoundsLine()
        self._sent: dict[str, int] = {}
        self._marked: dict[str, set[int]] = {}
        self._burst: Iterator[Answer] | None = None
        self._rounds = names.federation("rounds")

    @property
    def lines(self) -> Sequence[str]:
        """`rounds`, and each entity's own stream: what is in it is not sent again."""
        return [self._rounds, *self._streams]

    topics = lines
    owns: Sequence[str] = ()

    @property
    def over(self) -> bool:
        """Everything that the schedule asks for is in the log."""
        return self._line.over or (self._burst is not None and self._finished)

    _finished = False

    @property
    def _streams(self) -> dict[str, str]:
        """Topic → entity, for the entities of this site."""
        return {self._names.of_entity("samples", e): e for e in self._entities}

    @property
    def _entities(self) -> list[str]:
        return [e for e in self._line.entities if parted(e)[0] == self._site]

    def hear(self, arrived: Arrived) -> None:
        match arrived.message:
            case ImageBatch() | StreamMarked() as sample:
                if sample.source == SOURCE and sample.run == self._line.run:
                    self._note(arrived.place, sample)
            case Decision() as decision:
                self._line.hear(decision, arrived.hash)

    def _note(self, place: Place, sample: ImageBatch | StreamMarked) -> None:
        """What is in the log need not be sent: as the twin takes it, by number and without gaps.

        What stood before the first record of a topic that was trimmed has been taken, too. Raises
        Refused for a batch that the twin will refuse.
        """
        assert self._line.opened is not None
        if isinstance(sample, ImageBatch):
            check_batch(sample, len(place.offsets), self._line.opened.data)
        entity = self._streams[place.topic]
        trimmed = entity not in self._sent and place.offsets[0] > 0
        due = self._sent.setdefault(entity, 0)
        match sample:
            case ImageBatch() if sample.first <= due or trimmed:
                self._sent[entity] = max(due, sample.first + len(sample.classes))
            case StreamMarked(stage=int() as stage):
                self._marked.setdefault(entity, set()).add(stage)
                self._sent[entity] = sample.count if trimmed else due

    def answers(self) -> Iterator[Answer]:
        """A batch or a mark at a time, so that other roles have their turns."""
        if self._line.opened is None or self._finished:
            return
        if self._burst is None:
            self._burst = self._stream()
        answer = next(self._burst, None)
        if answer is None:
            self._finished = True
        else:
            yield answer

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """It gives no tasks."""
        yield from ()

    def waits(self) -> list[str]:
        return [] if self._line.opened else ["RunOpened"]

    def _stream(self) -> Iterator[Answer]:
        """All entities' bursts, stage after stage, from where the log already ends."""
        assert self._line.opened is not None
        schedule = self._line.opened.schedule
        begun = dict(self._sent)
        counts = dict.fromkeys(self._entities, 0)
        for number, stage in enumerate(schedule.stages):
            for entity in (e for e in stage.marked if e in counts):
                burst = burst_of(self._dataset, schedule, number, entity, self._most, self._seed)
                first, counts[entity] = counts[entity], counts[entity] + len(burst[1])
                already = max(0, begun.get(entity, 0) - first)
                yield from self._send(entity, first, burst, already)
                if number not in self._marked.get(entity, ()):
                    yield self._mark(entity, counts[entity], number)

    @property
    def _seed(self) -> int:
        assert self._line.opened is not None
        return self._line.opened.configuration.seed

    def _send(
        self,
        entity: str,
        first: int,
        burst: tuple[NDArray[np.uint8], tuple[str, ...]],
        already: int,
    ) -> Iterator[Answer]:
        images, uids = burst
        topic = self._names.of_entity("samples", entity)
        for start, stop in batches(images, already):
            yield Say(topic, image_batch(self._line.run, SOURCE, first + start, images[start:stop],
                                         uids[start:stop]))  # fmt: skip

    def _mark(self, entity: str, count: int, stage: int) -> Say:
        mark = StreamMarked(run=self._line.run, source=SOURCE, count=count, stage=stage)
        return Say(self._names.of_entity("samples", entity), mark)


def burst_of(
    dataset: Dataset, schedule: Schedule, stage: int, entity: str, most: int | None, seed: int
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The images (N, C, H, W) and class uids that stream to an entity in a stage, mixed by chance.

    Of each class it gets its share, in the data set's order at most `most` of them.
    """
    chosen: list[NDArray[np.int64]] = []
    for uid in schedule.stages[stage].streams[entity]:
        share = schedule.share(entity, uid)
        of_class = np.flatnonzero(dataset.train.labels == dataset.class_uids.index(uid))[:most]
        chosen.append(of_class[share.part :: share.parts])
    rows = np.concatenate([np.zeros(0, np.int64), *chosen])
    rows = generator(seed, "schedule", entity, stage).permutation(rows)
    uids = tuple(dataset.class_uids[label] for label in dataset.train.labels[rows])
    return dataset.train.images[rows], uids


def batches(images: NDArray[np.uint8], start: int = 0) -> Iterator[tuple[int, int]]:
    """Where to cut images into messages, from `start` on."""
    size = max(1, BATCH_BYTES // max(1, images[:1].nbytes))
    for first in range(start, len(images), size):
        yield first, min(first + size, len(images))


def image_batch(
    run: str, source: str, first: int, images: NDArray[np.uint8], uids: Sequence[str]
) -> ImageBatch:
    """Images as a message of their entity."""
    return ImageBatch(
        run=run,
        source=source,
        first=first,
        classes=tuple(uids),
        groups={"images": {"images": np.ascontiguousarray(images)}},
    )
