"""How a twin judges a stage: is there a new class in its window? (docs/method.md 3)

Once for each stage that waits for it, on everything up to the stage's mark, under the model with
which the stage before ended. The verdict is written also when nothing is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

from infra.promises import Answer, Do, Library, Result, Say, Task
from schemas.messages import ModelName, WindowJudged
from schemas.seeds import generator
from twins.buffer import pixels
from twins.knowledge import Knowledge
from twins.memory import trainable
from twins.novelty import judged

REFERENCES = 512  # images of known data that the entropy of a window is compared with
Drawn = TypeVar("Drawn")


class Judging:
    """From a mark to a verdict."""

    __slots__ = ("_begun", "_knows", "_said")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._begun = -1
        """The last stage whose judging began, and needs not begin again in this process."""
        self._said = -1
        """The last stage on which it said a verdict."""

    def answers(self) -> Iterator[Answer]:
        """Judge the stage that is due, once its model and its images are there."""
        knows, line = self._knows, self._knows.line
        stage = knows.due
        if stage is None or stage <= self._begun or line.number < 0:
            return
        model = knows.shared.line.judges(stage)
        up_to = self.up_to(stage) if model else None
        if model is None or up_to is None:
            return
        self._begun = stage
        if knows.window(up_to):
            yield Do(
                ("judge", knows.entity, stage),
                lambda library: self._task(library, stage, model, up_to),
                wanted=lambda: line.judged < stage,
            )
        else:
            nothing = {"entropy": None, "reference": None, "reason": "no image to judge"}
            yield from self.done(stage, Result(nothing, {}))

    def up_to(self, stage: int) -> int | None:
        """The position behind all that a stage looks at; None before that has come."""
        shared, stream = self._knows.shared, self._knows.stream
        scheduled = shared.configuration.stages
        if stage < scheduled:
            mark = stream.marks.get(stage)
            return stream.behind(*mark, self._knows.judged_to) if mark else None
        look = shared.line.added[stage - scheduled][self._knows.entity]
        return stream.behind(look.source, look.count, self._knows.judged_to)

    def waits(self) -> Iterator[str]:
        """What the stage that is due still lacks, in words."""
        stage, marks = self._knows.due, self._knows.stream.marks
        if stage is None:
            return
        if self.up_to(stage) is None:
            scheduled = stage < self._knows.shared.configuration.stages
            images = f"the images of stage {stage}"
            yield f"the mark of stage {stage}" if scheduled and stage not in marks else images
        elif self._knows.shared.line.judges(stage) is None:
            yield f"StageClosed({stage - 1})"
        elif self._said == stage:
            yield f"its verdict on stage {stage}, to read it back"

    def _task(self, library: Library, stage: int, model: ModelName, up_to: int) -> Task:
        knows = self._knows
        window = self._drawn(knows.window(up_to), knows.shared.configuration.n_window, stage, 0)
        references = self._drawn(knows.known_images(knows.judged_to), REFERENCES, stage, 1)
        return knows.shared.task(
            "judge",
            {"virtual": knows.shared.virtual_rows(stage)},
            {
                "model": library.model(model),
                "window": {"images": pixels(library, knows.samples, window)},
                "reference": {"images": knows.pixels(library, references)},
            },
        )

    def _drawn(self, images: Sequence[Drawn], most: int, stage: int, which: int) -> Sequence[Drawn]:
        """At most so many of the images, by a seeded draw, in their order."""
        if len(images) <= most:
            return images
        seed = self._knows.shared.configuration.seed
        chance = generator(seed, f"detect/{which}", self._knows.entity, stage)
        chosen = sorted(chance.choice(len(images), most, replace=False))
        return [images[i] for i in chosen]

    def done(self, stage: int, result: Result) -> Iterator[Answer]:
        """The verdict, unless a copy of this twin was quicker."""
        up_to, model = self.up_to(stage), self._knows.shared.line.judges(stage)
        if self._knows.line.judged < stage and up_to is not None and model is not None:
            self._said = stage
            verdict = self._verdict(stage, up_to, model, result)
            yield Say(self._knows.topic("classes"), verdict)

    def _verdict(self, stage: int, up_to: int, model: ModelName, result: Result) -> WindowJudged:
        knows, line, shared = self._knows, self._knows.line, self._knows.shared
        first_contact, rise = not line.known, shared.rise(stage)
        entropy, reference = result.values["entropy"], result.values["reference"]
        counts = Counter(image.label for image in knows.window(up_to))
        judgement = judged(
            counts, line.known, entropy, None if first_contact else reference or 0.0, rise,
            shared.configuration,
        )  # fmt: skip
        return WindowJudged(
            run=shared.line.run,
            number=line.number + 1,
            entity=knows.entity,
            stage=stage,
            position=up_to,
            model=model,
            images=dict(sorted(counts.items())),
            trainable=trainable(knows, judgement.classes, up_to),
            entropy=entropy,
            reference=None if entropy is None else reference or 0.0,
            threshold=rise,
            first_contact=first_contact,
            reason=result.values["reason"],
            verdict=judgement.verdict,
            classes=judgement.classes,
        )
