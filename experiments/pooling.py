"""How many images each training of a schedule passes, and one node in place of all twins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from learning.memory import budget
from producers.images import Dataset
from schemas.configuration import Configuration
from schemas.schedule import Client, Schedule, Stage, entity_name


def images_per_class(configuration: Configuration, dataset: Dataset) -> dict[str, int]:
    """Training images of each class that the recipe takes."""
    most = configuration.images_per_class
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_uids)).tolist()
    return {
        uid: min(count, most or count)
        for uid, count in zip(dataset.class_uids, counts, strict=True)
    }


def bursts(schedule: Schedule, stage: Stage, counts: Mapping[str, int]) -> dict[str, int]:
    """Entity → images that stream to it in a stage, of so many of each class."""
    return {
        client.entity: sum(
            counts[uid] // schedule.share(client.entity, uid).parts for uid in client.classes
        )
        for client in stage.clients
    }


def trained_on(
    configuration: Configuration, schedule: Schedule, counts: Mapping[str, int]
) -> Iterator[list[int]]:
    """Stage by stage, of each round the images that its twins have together, exemplars included.

    Counted as for a method with a memory (docs/method.md 4), whatever the strategy.
    """
    raw: dict[str, int] = {}
    held: dict[str, int] = {}
    for stage in schedule.stages:
        burst = bursts(schedule, stage, counts)
        for client in stage.clients:
            if client.classes:
                known = held.get(client.entity, 0)
                held[client.entity] = known + len(client.classes)
                kept = known * budget(configuration.memory, known) if known else 0
                raw[client.entity] = burst[client.entity] + min(kept, configuration.memory)
        yield [sum(raw.get(entity, 0) for entity in round) for round in stage.sampled]


def pooled(configuration: Configuration, schedule: Schedule, counts: Mapping[str, int]) -> Schedule:
    """The same stages and rounds with one entity, to which every class streams.

    It passes as many images in a round as the schedule's own twins would in all their local epochs.
    """
    node, stages = entity_name(0), []
    trained = trained_on(configuration, schedule, counts)
    for number, (stage, rounds) in enumerate(zip(schedule.stages, trained, strict=True)):
        client = Client(entity=node, group="B" if number else "N", classes=stage.classes)
        stages.append(
            Stage(
                classes=stage.classes,
                clients=(client,),
                sampled=((node,),) * len(stage.sampled),
                image_steps=tuple(configuration.local_epochs * images for images in rounds),
            )
        )
    return Schedule(stages=tuple(stages), image_share=schedule.image_share)
