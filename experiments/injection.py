"""New class streams into a run that is there: images first, then the decision that names them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.folder import RunFolder
from experiments.observer import Observer
from experiments.system import SITE
from infra.transport.embedded import Embedded as Log
from producers.entity import batches, image_batch
from schemas.codec import records
from schemas.errors import ConfigurationError, RunFailed
from schemas.messages import Look, Message, StageAdded, StreamMarked

TRIES = 20


@dataclass(frozen=True)
class Injection:
    """What was injected."""

    entity: str
    source: str
    images: int
    classes: tuple[str, ...]
    stage: int
    """The stage in which the twins will look at it."""


def inject(
    folder: Path, entity: str, images: NDArray[np.uint8], uids: tuple[str, ...]
) -> Injection:
    """Stream images (N, C, H, W) with their class uids to an entity of a run folder.

    Raises ConfigurationError for an entity or a size of image that the run does not have.
    """
    run_folder = RunFolder(folder)
    log = run_folder.opened(readonly=True)
    try:
        seen = _read(run_folder, log)
        _check(seen, folder, entity, images)
        source = f"inject-{uuid.uuid4().hex[:12]}"
        topic = run_folder.names().of_entity("samples", entity)
        run = seen.line.run
        for start, stop in batches(images):
            batch = image_batch(run, source, start, images[start:stop], uids[start:stop])
            _append(log, topic, batch)
        _append(log, topic, StreamMarked(run=run, source=source, count=len(images), stage=None))
        look = Look(entity=entity, source=source, count=len(images))
        stage = _decide(run_folder, log, look)
        return Injection(entity, source, len(images), tuple(sorted(set(uids))), stage)
    finally:
        log.close()


def _decide(folder: RunFolder, log: Log, look: Look) -> int:
    """Write StageAdded with the next number until it is the one that counted."""
    topic = folder.names().federation("rounds")
    for _ in range(TRIES):
        line = _read(folder, log).line
        added = StageAdded(run=line.run, number=line.number + 1, looks=(look,))
        _append(log, topic, added)
        line = _read(folder, log).line
        for index, looks in enumerate(line.added):
            if look in looks.values():
                assert line.opened is not None
                return line.opened.configuration.stages + index
    raise RunFailed(f"{TRIES} other decisions came first: inject again when the run is quieter")


def _read(folder: RunFolder, log: Log) -> Observer:
    observer = Observer(folder.names(), SITE, None)
    folder.follow(observer, log)
    return observer


def _append(log: Log, topic: str, message: Message) -> None:
    log.append(topic, records(message, source="injector")[1])


def _check(seen: Observer, folder: Path, entity: str, images: NDArray[np.uint8]) -> None:
    opened = seen.line.opened
    if opened is None:
        raise ConfigurationError(f"{folder}: the run is not opened yet; inject when it is")
    if entity not in seen.line.entities:
        known = ", ".join(seen.line.entities[:4])
        raise ConfigurationError(f"{folder} has no entity {entity!r}; it has {known} ...")
    wanted = (opened.data.channels, opened.data.height, opened.data.width)
    if images.shape[1:] != wanted or not len(images):
        raise ConfigurationError(f"images are {images.shape[1:]}, the run's are {wanted}")
