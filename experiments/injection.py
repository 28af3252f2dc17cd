"""New class streams into a run that is there: images first, then the decision that names them.

Neither needs the run's lock, so it may go on meanwhile (docs/decisions/0006).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.folder import RunFolder
from infra.transport.embedded import Embedded as Log
from producers.entity import SOURCE, batches, image_batch
from producers.streaming import MARK, digest, source_of
from schemas.codec import records
from schemas.configuration import nearest
from schemas.errors import ConfigurationError, RunFailed
from schemas.line import RoundsLine
from schemas.messages import Look, Message, RunOpened, StageAdded, StreamMarked
from schemas.schedule import SITE, sorted_uids

LONGEST_NAME = 180
"""Characters, so that the hash has room behind it."""
TRIES = 20
PAUSE, PAUSES = 1.0, 600
"""Between two looks at a schedule that still streams, in seconds, and the most of them."""


def rest(turn: int) -> None:
    """Let a moment pass; `turn` counts the moments from 0."""
    time.sleep(PAUSE)


@dataclass(frozen=True)
class Injection:
    """What was injected."""

    entity: str
    source: str
    images: int
    classes: tuple[str, ...]
    stage: int
    """The stage in which the twin will look at it."""
    added: bool
    """False when the run had it already, and nothing was added."""


def inject(
    folder: Path,
    entity: str,
    images: NDArray[np.uint8],
    uids: Sequence[str],
    *,
    source: str | None = None,
    pause: Callable[[int], None] = rest,
) -> Injection:
    """Stream images (N, C, H, W) with their class uids to an entity of a run folder.

    The source is a hash of entity, images and classes. If it is named, that hash stands behind its
    name, so that other images under one name are never mixed. What came from this source already is
    not added again: so an injection that was broken off is simply repeated. While a runner still
    streams what the schedule has for the entity, it waits: `pause` is called between two looks.
    Raises ConfigurationError for an entity or images that the run does not have, for a name under
    which other images came, and for a run that was stopped in the middle of that, DataError for a
    folder that holds no run.
    """
    run_folder = RunFolder(folder)
    line = run_folder.decided()
    opened = opened_in(line, folder)
    entity = known_entity(line, entity)
    check(opened, images, uids)
    name, source = named(source, entity, images, uids)
    stage = stage_of(line, entity, source)
    added = stage is None
    if stage is None:
        looks = {looks[entity].source for looks in line.added if entity in looks}
        check_name(entity, name, source, looks | run_folder.sources(entity))
        _after_the_schedule(run_folder, opened, entity, pause)
        stage = _add(run_folder, entity, images, uids, source)
    return Injection(entity, name, len(images), sorted_uids(set(uids)), stage, added)


def opened_in(line: RoundsLine, folder: Path) -> RunOpened:
    """What the run was opened with. Raises ConfigurationError before that."""
    if line.opened is None:
        raise ConfigurationError(
            f"{folder}: the run is not opened yet, so nobody would look at an injection:"
            f" `fedtwin resume {folder}` first"
        )
    return line.opened


def known_entity(line: RoundsLine, entity: str) -> str:
    """The full name of an entity of the run, from that or its short name.

    Raises ConfigurationError, naming the nearest, for one that the run does not have.
    """
    full = entity if "/" in entity else f"{SITE}/{entity}"
    if full not in line.entities:
        first, last = line.entities[0], line.entities[-1]
        raise ConfigurationError(
            f"the run has no entity {entity!r}{nearest(full, list(line.entities))}; it has"
            f" {len(line.entities)}, {first} to {last}"
        )
    return full


def _after_the_schedule(
    folder: RunFolder, opened: RunOpened, entity: str, pause: Callable[[int], None]
) -> None:
    """Wait until all that the schedule streams to an entity is in the log.

    A twin judges a stage on everything before its mark, so images that came earlier would be judged
    in a scheduled stage, and the one that they add would find nothing new.
    """
    stages = opened.schedule.stages
    last = max(stage for stage, each in enumerate(stages) if entity in each.marked)
    for turn in range(PAUSES):
        running = folder.running  # asked first: a runner may end between the two questions
        if folder.streamed(entity, last):
            return
        if not running:
            raise ConfigurationError(
                f"the run was stopped before all that its schedule has for {entity} had streamed,"
                f" and an injection comes behind that: `fedtwin resume {folder.path}`, and inject"
                " while it goes on"
            )
        pause(turn)
    raise RunFailed(
        f"after {PAUSES} looks the schedule still streams to {entity}: inject again later"
    )


def _add(
    folder: RunFolder,
    entity: str,
    images: NDArray[np.uint8],
    uids: Sequence[str],
    source: str,
) -> int:
    run = folder.decided().run
    topic = folder.names().of_entity("samples", entity)
    with closing(folder.opened()) as log:
        for start, stop in batches(images):
            _append(
                log, topic, image_batch(run, source, start, images[start:stop], uids[start:stop])
            )
        _append(log, topic, StreamMarked(run=run, source=source, count=len(images), stage=None))
        return _decide(folder, log, Look(entity=entity, source=source, count=len(images)))


def _decide(folder: RunFolder, log: Log, look: Look) -> int:
    """Write StageAdded with the next number until it is the one that counted."""
    topic = folder.names().federation("rounds")
    for _ in range(TRIES):
        line = folder.decided()
        _append(log, topic, StageAdded(run=line.run, number=line.number + 1, looks=(look,)))
        stage = stage_of(folder.decided(), look.entity, look.source)
        if stage is not None:
            return stage
    raise RunFailed(f"{TRIES} other decisions came first: inject again when the run is quieter")


def stage_of(line: RoundsLine, entity: str, source: str) -> int | None:
    """The added stage in which the entity looks at this source, if there is one."""
    scheduled = line.total_stages - len(line.added)
    for index, looks in enumerate(line.added):
        if entity in looks and looks[entity].source == source:
            return scheduled + index
    return None


def _append(log: Log, topic: str, message: Message) -> None:
    log.append(topic, records(message, source="injector")[1])


def check(opened: RunOpened, images: NDArray[np.uint8], uids: Sequence[str]) -> None:
    """Raises ConfigurationError for images that are not as the run takes them."""
    wanted = (opened.data.channels, opened.data.height, opened.data.width)
    if images.shape[1:] != wanted or images.dtype != np.uint8:
        raise ConfigurationError(
            f"images are {images.dtype} {images.shape[1:]}, the run's are uint8 {wanted}"
        )
    if not len(images) or len(images) != len(uids):
        raise ConfigurationError(
            f"{len(images)} images with {len(uids)} classes: an injection has at least one image,"
            " and a class for each"
        )


def named(
    name: str | None, entity: str, images: NDArray[np.uint8], uids: Sequence[str]
) -> tuple[str, str]:
    """The name of a source, and how the log knows it: by a hash of all that it holds.

    Raises ConfigurationError for a name that may be none.
    """
    if name is None:
        own = f"inject-{digest(entity, images, uids)}"
        return own, own
    if name == SOURCE:
        raise ConfigurationError(
            f"{SOURCE!r} is the source of the run's own schedule: name another"
        )
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(
            f"the name of a source has 1 to {LONGEST_NAME} characters, all of them printable; it"
            f" has {len(name)}"
        )
    return name, source_of(name, entity, images, uids)


def check_name(entity: str, name: str, source: str, there: Iterable[str]) -> None:
    """Raises ConfigurationError when other images came under this name, or began to; `there` are
    the sources of all that came."""
    if any(other.rpartition(MARK)[0] == name for other in {*there} - {source}):
        raise ConfigurationError(
            f"{entity} has other images from {name!r} already: give those again, where that was"
            " broken off, or name another --source"
        )
