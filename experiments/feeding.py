"""New class streams into a run on Kafka, from outside: a live federation, or a recipe's run.

A live twin judges them at their mark. In a recipe's run they are followed by the decision that
names them, and are its next stage (docs/decisions/0006).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.injection import PAUSES, TRIES, check, check_name, named, rest, stage_of
from experiments.outside import Outside
from infra.serve import READ_BYTES
from infra.transport.base import Trimmed
from producers.entity import SOURCE
from producers.streaming import Streaming
from schemas.codec import piece, records, unpack
from schemas.errors import ConfigurationError, Refused, RunFailed
from schemas.limits import LEAST_BYTES
from schemas.messages import Look, StageAdded, StreamMarked, TwinState
from schemas.schedule import sorted_uids

OFTEN = 0.5  # seconds between two messages of a stream that has a rate


@dataclass(frozen=True)
class Fed:
    """What was streamed to an entity."""

    run: str
    entity: str
    source: str
    images: int
    classes: tuple[str, ...]
    new_images: int
    """Those that were not there already."""
    stage: int | None
    """Of a recipe's run: in which the twin looks at them."""
    next: str
    """What happens now, in words."""


class Broken(KeyboardInterrupt):
    """Somebody interrupted the stream; how far it had come."""


def feed(
    outside: Outside,
    entity: str,
    images: NDArray[np.uint8],
    uids: Sequence[str],
    *,
    source: str | None = None,
    rate: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[int], None] = rest,
    running: Callable[[], bool] = lambda: True,
) -> Fed:
    """Stream images (N, C, H, W) with their class uids to an entity, `rate` of them a second.

    `entity` is its full name. The source is named as in `injection.inject`: what came from it
    already is not sent again, so a stream that was broken off is simply repeated. In a recipe's run
    it waits until the schedule has streamed, as long as somebody is `running` it. Raises
    ConfigurationError for what the run cannot take, Broken when it was interrupted.
    """
    check(outside.opened, images, uids)
    streaming = Streaming(outside.transport, outside.names, outside.run)
    name, known_as = named(source, entity, images, uids)
    check_name(entity, name, known_as, streaming.counts(entity))
    if not outside.configuration.live:
        _after_the_schedule(outside, entity, pause, running)
    before = min(streaming.count(entity, known_as), len(images))
    most = None if rate is None else max(1, round(OFTEN * rate))
    try:
        streaming.complete(
            entity, known_as, images, uids, most=most, before=_pace(rate, sleep, clock)
        )
    except KeyboardInterrupt:
        sent = streaming.count(entity, known_as)
        broken = Broken(f"{sent} of {len(images)} images were sent")
        broken.add_note(f"{sent} of {len(images)} images were sent to {entity}, and stand")
        broken.add_note("next: the same command goes on behind them")
        raise broken from None
    stage = None
    if not outside.configuration.live:
        stage = _stage(outside, Look(entity=entity, source=known_as, count=len(images)))
    outside.look()
    classes = sorted_uids(set(uids))
    new = len(images) - before
    return Fed(outside.names.run, entity, name, len(images), classes, new, stage,
               _next(outside, entity, classes, new, stage))  # fmt: skip


def _pace(
    rate: float | None, sleep: Callable[[float], None], clock: Callable[[], float]
) -> Callable[[int], None]:
    """Called before so many images are sent: sleeps until they are due."""
    if rate is None:
        return lambda count: None
    due = clock()

    def before(count: int) -> None:
        nonlocal due
        sleep(max(0.0, due - clock()))
        due += count / rate

    return before


# --- a recipe's run -------------------------------------------------------------------------------


def _after_the_schedule(
    outside: Outside, entity: str, pause: Callable[[int], None], running: Callable[[], bool]
) -> None:
    """Wait until all that the schedule streams to an entity is in the log: what came earlier would
    be judged in a scheduled stage."""
    stages = outside.opened.schedule.stages
    last = max(stage for stage, each in enumerate(stages) if entity in each.marked)
    for turn in range(PAUSES):
        there = running()  # asked first: a runner may end between the two questions
        outside.look()
        if last < len(outside.standing.line.stages) or last in _marks(outside, entity):
            return
        if not there:
            raise ConfigurationError(
                f"the run was stopped before all that its schedule has for {entity} had streamed,"
                " and an injection comes behind that: go on with the run, and inject meanwhile"
            )
        pause(turn)
    raise RunFailed(
        f"after {PAUSES} looks the schedule still streams to {entity}: inject again later"
    )


def _marks(outside: Outside, entity: str) -> set[int]:
    """The scheduled stages whose mark has come to an entity."""
    found: set[int] = set()
    for each in ("samples", "twin-state"):
        topic, place = outside.names.of_entity(each, entity), 0
        while place < outside.transport.end(topic):
            try:
                stored = outside.transport.read(topic, place, READ_BYTES)
            except Trimmed as trimmed:
                place = trimmed.first
                continue
            for one in stored:
                place = one.offset + 1
                try:
                    said = unpack(piece(one.record.value, LEAST_BYTES).content, LEAST_BYTES)
                except Refused:
                    continue
                match said:
                    case StreamMarked(source=source, stage=int() as stage) if source == SOURCE:
                        found.add(stage)
                    case TwinState(marks=marks):
                        found.update(stage for stage, _, _ in marks)
    return found


def _stage(outside: Outside, look: Look) -> int:
    """The stage that looks at these images: that which was added for them, or is now."""
    line = outside.standing.line
    topic = outside.names.federation("rounds")
    for _ in range(TRIES):
        outside.look()
        if (stage := stage_of(line, look.entity, look.source)) is not None:
            return stage
        said = StageAdded(run=line.run, number=line.number + 1, looks=(look,))
        outside.transport.append(topic, records(said, source="injector")[1])
    raise RunFailed(f"{TRIES} other decisions came first: inject again when the run is quieter")


# --- what comes of it -----------------------------------------------------------------------------


def _next(
    outside: Outside, entity: str, classes: Sequence[str], new: int, stage: int | None
) -> str:
    line, configuration = outside.standing.line, outside.configuration
    if stage is not None:
        return f"stage {stage} of the run looks at them"
    if not new:
        return "nothing: these very images were there already"
    own = outside.standing.verdicts.line(entity)
    fresh = [uid for uid in classes if uid not in own.known]
    if line.all_rest or entity in line.resting:
        who = "the federation" if line.all_rest else entity
        return f"{who} is paused: its twin looks at them when it goes on"
    back = "" if own.here else f"{entity} had left, and joins again; "
    if not fresh:
        return (
            f"{back}its twin knows these classes, and trains on the images from the next round on"
        )
    grows = [uid for uid in fresh if uid not in line.rows]
    head = (
        f"the head grows by {', '.join(grows)} {configuration.growth_window:g} s after that, and"
        if grows
        else "a stage begins, and"
    )
    return (
        f"{back}its twin judges them at their mark, and announces {', '.join(fresh)} where it has"
        f" {configuration.n_lab} images or more; {head} rounds open when"
        f" {configuration.quorum} twins are ready"
    )
