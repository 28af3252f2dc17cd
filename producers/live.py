"""What a live federation's entities stream from data sets: on their first day, and when told to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from producers.images import Dataset, fitted
from schemas.configuration import nearest
from schemas.errors import ConfigurationError
from schemas.federation import Entity
from schemas.messages import DataFacts
from schemas.seeds import generator

CAMERA = "camera"
"""Source of what an entity has from its first day."""
Stream = tuple[NDArray[np.uint8], list[str]]
"""Images (N, C, H, W), and what the federation calls the class of each."""


def first_day(name: str, entity: Entity, dataset: Dataset, data: DataFacts, seed: int) -> Stream:
    """All training images of an entity's classes, mixed by chance. `name` is its full name."""
    images, labels = drawn(dataset, entity.classes, data, name, seed)
    return images, [entity.uid(label) for label in labels]


def drawn(
    dataset: Dataset,
    classes: Sequence[str],
    data: DataFacts,
    entity: str,
    seed: int,
    *,
    time: int = 0,
    most: int | None = None,
) -> Stream:
    """Training images of classes at a run's size and colour, mixed by chance, under their own uids.

    At most `most` of them, evenly of each class; `time` counts the draws of an entity. Raises
    ConfigurationError for a class that the data set does not have.
    """
    check_classes(dataset, classes)
    train, known = dataset.train, dataset.class_uids
    each = None if most is None else -(-most // len(classes))
    rows = np.concatenate(
        [np.flatnonzero(train.labels == known.index(uid))[:each] for uid in classes]
    )
    rows = generator(seed, "schedule", entity, time).permutation(rows)[:most]
    images = fitted(train.images[rows], data.channels, data.height, data.width).images
    return images, [known[label] for label in train.labels[rows]]


def check_classes(dataset: Dataset, classes: Sequence[str]) -> None:
    """Raises ConfigurationError for a class that a data set does not have."""
    for uid in classes:
        if uid not in dataset.class_uids:
            raise ConfigurationError(
                f"{dataset.name} has no class {uid!r}{nearest(uid, list(dataset.class_uids))}; it"
                f" has {', '.join(dataset.class_uids)}"
            )
