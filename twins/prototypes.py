"""How a twin sends prototypes of its new classes: gradients of altered images (docs/method.md 6).

HeadGrown lists which are expected, entity by entity; each has a *place* in its entity's list. They
are made once for a stage, with the model of its first round that closed. Where two slots teach they
go with each round's update instead, and a round asks for some of the places. Every place is
answered, by a gradient or by the form without content and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from infra.promises import Answer, Do, Library, Result, Say, Task
from schemas.messages import Groups, PrototypeGradient, RoundClosed, RoundOpened, Tensors
from twins.buffer import Image
from twins.knowledge import Knowledge

Answered = tuple[float | None, str | None]
"""Of a place: between chosen and altered image, in dB; or why there is no gradient."""


class Prototypes:
    """From the end of a stage's first round to its prototypes."""

    __slots__ = ("_begun", "_knows")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._begun = -1
        """The last stage whose prototypes began, and need not begin again in this process."""

    def answers(self) -> Iterator[Answer]:
        """Make what the newest stage expects of this twin, while its teacher is not chosen."""
        knows, shared, stage = self._knows, self._knows.shared, self._knows.shared.line.stage
        if shared.configuration.slotted:
            return  # they go with each round's update
        if stage is None or stage.grown is None or not stage.size or stage.index <= self._begun:
            return
        closed = stage.first
        uids = shared.expected.get(knows.entity)
        if closed is None or not uids or self._late(stage.index):
            return
        self._begun = stage.index
        yield Do(
            ("prototypes", knows.entity, stage.index),
            lambda library: self._task(library, closed, uids),
            wanted=lambda: not self._late(closed.stage),
        )

    def again(self, stage: int) -> None:
        """These prototypes came to nothing, and are begun again if they are still expected."""
        if self._begun == stage:
            self._begun = stage - 1

    def _late(self, stage: int) -> bool:
        """Whether the teacher was chosen that a stage's prototypes are for."""
        return self._knows.shared.teachers.of(stage + 1) is not None

    def _task(self, library: Library, closed: RoundClosed, uids: tuple[str, ...]) -> Task:
        knows, rows = self._knows, self._knows.shared.line.rows
        images = defaultdict[str, list[Image]](list)
        for image in knows.raw_images(knows.began(closed.stage).position):
            images[image.label].append(image)
        groups = {"model": library.model(closed.model)}
        for place, uid in enumerate(uids):
            if images[uid]:
                groups[f"place/{place}"] = {"images": knows.pixels(library, images[uid])}
        values = {
            "entity": knows.entity,
            "stage": closed.stage,
            "rows": [rows[uid] for uid in uids],
        }
        return knows.shared.task("prototypes", values, groups)

    def done(self, stage: int, result: Result) -> Iterator[Answer]:
        """An answer for each place, unless the teacher was chosen meanwhile."""
        if not self._late(stage):
            places = range(len(result.values["places"]))
            yield from _answers(self._knows, stage, places, result.values["places"], result.groups)


def round_places(knows: Knowledge) -> Sequence[tuple[int, str]]:
    """Place and class of each prototype that the open round asks of a twin."""
    return knows.shared.expected_in_round.get(knows.entity, ())


def round_prototypes(
    knows: Knowledge, opened: RoundOpened, answers: Sequence[Answered], groups: Groups
) -> Iterator[Say]:
    """What goes before an update: an update in the log means that its prototypes are there."""
    places = [place for place, _ in round_places(knows)]
    return _answers(knows, opened.stage, places, answers, groups)


def _answers(
    knows: Knowledge,
    stage: int,
    places: Sequence[int],
    answers: Sequence[Answered],
    groups: Groups,
) -> Iterator[Say]:
    """Each place with its answer; the worker counts its gradients from 0."""
    for i, (place, answer) in enumerate(zip(places, answers, strict=True)):
        yield _said(knows, stage, place, answer, groups.get(f"place/{i}"))


def _said(
    knows: Knowledge, stage: int, place: int, answer: Answered, gradient: Tensors | None
) -> Say:
    psnr, reason = answer
    prototype = PrototypeGradient(
        run=knows.shared.line.run,
        entity=knows.entity,
        stage=stage,
        place=place,
        reason=reason,
        psnr=psnr,
        groups={} if gradient is None else {"gradient": gradient},
    )
    return Say(knows.topic("prototypes"), prototype)
