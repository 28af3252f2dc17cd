"""How good a new global model is, by images that its training never saw (docs/method.md 8).

A live twin keeps some images apart. A process scores each new model for all its twins, one after
the other, on one copy. Nobody waits for it: work of the rounds goes first, and of models that come
too fast the older ones are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from infra.promises import Answer, Do, Library, Result, Say, Task
from schemas.messages import Groups, Measured, ModelName
from twins.knowledge import Knowledge
from twins.shared import Shared

TOGETHER = 2000
"""Images in one task: what a worker is given at once, and what training may have to wait for."""


class Scored(NamedTuple):
    """What a task is about."""

    model: ModelName
    classes: tuple[str, ...]
    """By row."""
    entities: tuple[str, ...]


class Scoring:
    """From a new model to confusion counts of each twin that lives here."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._model: ModelName | None = None
        self._asked: set[str] = set()
        """Entities whose images that model was given, or soon is."""
        self._tasks = 0
        self._given: dict[int, Scored] = {}
        """Task → what it is about, once it was prepared."""

    def answers(self, twins: Iterable[Knowledge]) -> Iterator[Answer]:
        """Score the newest model for those of these twins that were not asked about it yet."""
        model, rows = self._shared.line.model, self._shared.line.rows
        if not self._shared.line.live or model is None or not rows:
            return
        if model != self._model:
            self._model, self._asked = model, set()
        due = [knows for knows in twins if knows.entity not in self._asked and _is_ready(knows)]
        self._asked |= {knows.entity for knows in due}
        for part in _parts(due):
            self._tasks += 1
            yield Do(
                ("held-out", model.version, self._tasks),
                partial(self._task, number=self._tasks, model=model, twins=part),
                urgent=False,
                wanted=partial(self._is_newest, model),
            )

    def _is_newest(self, model: ModelName) -> bool:
        return self._shared.line.model == model

    def _task(
        self, library: Library, number: int, model: ModelName, twins: list[Knowledge]
    ) -> Task:
        rows = self._shared.line.rows
        groups: Groups = {"model": library.model(model)}
        labels: list[list[int]] = []
        entities: list[str] = []
        for knows in twins:
            images = knows.held_out()
            try:
                pixels = knows.pixels(library, images)
            except LookupError:  # a copy elsewhere was quicker, and let them go: it scores them
                continue
            groups[f"images/{len(labels)}"] = {"images": pixels}
            labels.append([rows[image.label] for image in images])
            entities.append(knows.entity)
        classes = tuple(sorted(rows, key=lambda uid: rows[uid]))
        self._given[number] = Scored(model, classes, tuple(entities))
        return self._shared.task("held-out", {"rows": labels}, groups)

    def done(self, number: int, result: Result) -> Iterator[Answer]:
        """A twin's counts for each."""
        scored = self._given.pop(number)
        for i, entity in enumerate(scored.entities):
            values = {
                "model": scored.model.sha256,
                "classes": list(scored.classes),
                "counts": result.groups[f"counts/{i}"]["counts"].tolist(),
            }
            name = f"held-out/{entity}/{scored.model.version}"
            measured = Measured(run=self._shared.line.run, name=name, values=values)
            yield Say(self._shared.names.federation("metrics"), measured)


def _is_ready(knows: Knowledge) -> bool:
    """Whether a twin takes part, and has read all that it has to go by."""
    return knows.line.here and not knows.unread and knows.stream.position >= knows.judged_to


def _parts(twins: list[Knowledge]) -> Iterator[list[Knowledge]]:
    """The twins in parts that have no more than so many images together, or are one twin."""
    part: list[Knowledge] = []
    size = 0
    for knows in twins:
        images = len(knows.held_out())
        if part and size + images > TOGETHER:
            yield part
            part, size = [], 0
        part.append(knows)
        size += images
    if part:
        yield part
