"""How a twin judges a stage: is there a new class in its window? (docs/method.md 3)

Once for each stage that waits for it, on everything up to the stage's mark, under the model with
which the stage before ended. The verdict is written also when nothing is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from infra.promises import Answer, Do, Library, Result, Say, Task
from schemas.limits import MOST_COUNTED, rows_in_words, with_room
from schemas.messages import ModelName, WindowJudged
from schemas.schedule import sorted_uids
from schemas.seeds import generator
from twins.knowledge import Knowledge
from twins.memory import trainable
from twins.novelty import REFERENCES, Drawn, drawn, judged


class Question(NamedTuple):
    """What a verdict is to be about."""

    key: int
    """The stage; in a live run the moment."""
    model: ModelName
    up_to: int
    """The position that it looks up to."""
    after: int | None = None
    """In a live run the newest decision that was read."""
    nothing: str = "no image to judge"
    """Why there is no entropy where there is no image."""


class Judging:
    """From a mark to a verdict."""

    __slots__ = ("_asked", "_knows", "_said", "_without")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._asked: Question | None = None
        """The last one that began, and needs not begin again in this process."""
        self._said = -1
        """The last key on which it said a verdict."""
        self._without: tuple[str, ...] = ()
        """Classes that it saw when it judged last and could not announce, for want of room."""

    def answers(self) -> Iterator[Answer]:
        """Judge what is due, once its model and its images are there."""
        knows, line = self._knows, self._knows.line
        if not line.here:
            self._asked = None  # it is asked anew should it come back
            return
        question = self._live() if knows.shared.line.live else self._scheduled()
        if question is None or (self._asked and question.key <= self._asked.key):
            return
        self._asked = question
        if knows.window(question.up_to):
            yield Do(
                ("judge", knows.entity, question.key),
                lambda library: self._task(library, question),
                wanted=lambda: line.judged < question.key,
            )
        else:
            nothing = {"entropy": None, "reference": None, "reason": question.nothing}
            yield from self.done(question.key, Result(nothing, {}))

    def let_go(self) -> None:
        """What it asked last is not answered, and is asked again when there is somebody to ask."""
        self._asked = None

    def again(self, key: int) -> None:
        """This judging came to nothing, and begins again if it is still to be done."""
        if self._asked and self._asked.key == key:
            self._asked = None

    # --- what is due -----------------------------------------------------------------------------

    def _scheduled(self) -> Question | None:
        """The stage that waits for this twin, when its mark and its model are there."""
        stage = self._knows.due
        model = None if stage is None else self._knows.shared.line.judges(stage)
        up_to = self.up_to(stage) if stage is not None and model else None
        if stage is None or model is None or up_to is None:
            return None
        return Question(stage, model, up_to)

    def up_to(self, stage: int) -> int | None:
        """The position behind all that a stage looks at; None before that has come."""
        shared, stream = self._knows.shared, self._knows.stream
        scheduled = shared.configuration.stages
        if stage < scheduled:
            mark = stream.marks.get(stage)
            return stream.behind(*mark, self._knows.judged_to) if mark else None
        look = shared.line.added[stage - scheduled][self._knows.entity]
        return stream.behind(look.source, look.count, self._knows.judged_to)

    def _live(self) -> Question | None:
        """What has come since the last moment, if that is enough or marked; or that it is there.

        While what it found before has no row it judges nothing (docs/method.md 3.4).
        """
        knows, line, rounds = self._knows, self._knows.line, self._knows.shared.line
        if rounds.model is None:
            return None
        key, judged_to = line.judged + 1, knows.judged_to
        if line.armed(rounds.number) and self._enough(judged_to):
            return Question(key, rounds.model, knows.stream.position, rounds.number)
        newest = line.verdicts.get(line.judged)
        if newest and newest.after is not None and rounds.away(knows.entity, newest.after):
            missed = "a round closed without its answer"
            return Question(key, rounds.model, judged_to, rounds.number, missed)
        return None

    def _enough(self, judged_to: int) -> bool:
        """Whether `n_min` images came since the last moment, or any before a mark."""
        stream = self._knows.stream
        fresh = [image for image in stream.images() if image.position >= judged_to]
        if len(fresh) >= self._knows.shared.configuration.n_min:
            return True
        marks = (stream.behind(*mark, 0) for mark in stream.live_marks.items())
        marked = max((behind for behind in marks if behind is not None), default=0)
        return any(image.position < marked for image in fresh)

    def waits(self) -> Iterator[str]:
        """What the stage that is due still lacks, in words; and which classes lack a row."""
        yield from self._waits()
        if self._without:
            shown = ", ".join(self._without[:3]) + " and more" * (len(self._without) > 3)
            yield f"room for {shown}: {rows_in_words(self._knows.shared.opened)}"

    def _waits(self) -> Iterator[str]:
        stage, marks = self._knows.due, self._knows.stream.marks
        if self._said > self._knows.line.judged:
            yield f"its verdict on {self._named(self._said)}, to read it back"
        elif stage is None:
            return
        elif self.up_to(stage) is None:
            scheduled = stage < self._knows.shared.configuration.stages
            images = f"the images of stage {stage}"
            yield f"the mark of stage {stage}" if scheduled and stage not in marks else images
        elif self._knows.shared.line.judges(stage) is None:
            yield f"StageClosed({stage - 1})"

    def _named(self, key: int) -> str:
        return f"moment {key}" if self._knows.shared.line.live else f"stage {key}"

    # --- the verdict -----------------------------------------------------------------------------

    def _task(self, library: Library, question: Question) -> Task:
        knows, stage, n_window = (
            self._knows,
            question.key,
            self._knows.shared.configuration.n_window,
        )
        window = self._drawn(knows.window(question.up_to), n_window, stage, 0)
        references = self._drawn(knows.known_images(knows.judged_to), REFERENCES, stage, 1)
        return knows.shared.task(
            "judge",
            {"virtual": knows.shared.virtual_rows(stage)},
            {
                "model": library.model(question.model),
                "window": {"images": knows.pixels(library, window)},
                "reference": {"images": knows.pixels(library, references)},
            },
        )

    def _drawn(self, images: Sequence[Drawn], most: int, stage: int, which: int) -> Sequence[Drawn]:
        """At most so many of the images, by a seeded draw, in their order."""
        seed = self._knows.shared.configuration.seed
        return drawn(images, most, generator(seed, f"detect/{which}", self._knows.entity, stage))

    def done(self, key: int, result: Result) -> Iterator[Answer]:
        """The verdict, unless a copy of this twin was quicker, or it has left meanwhile."""
        question = self._asked
        if not self._knows.line.here:
            self._asked = None  # it is asked anew should it come back
            return
        if question and (question.after or 0) < self._knows.shared.line.floor:
            self._asked = None  # it took so long that a verdict could rest on that no more
            return
        if question and question.key == key and self._knows.line.judged < key:
            self._said = key
            yield Say(self._knows.topic("classes"), self._verdict(question, result))

    def _verdict(self, question: Question, result: Result) -> WindowJudged:
        stage, up_to = question.key, question.up_to
        knows, line, shared = self._knows, self._knows.line, self._knows.shared
        first_contact, rise = not line.known, shared.rise(stage)
        entropy, reference = result.values["entropy"], result.values["reference"]
        counts = Counter(image.label for image in knows.window(up_to))
        reference_here = None if first_contact else reference or 0.0
        known: Collection[str] = line.known
        judgement = judged(counts, known, entropy, reference_here, rise, shared.configuration)
        self._without = self._beyond(judgement.classes)
        if self._without:
            known = {*known, *self._without}
            judgement = judged(counts, known, entropy, reference_here, rise, shared.configuration)
        return WindowJudged(
            run=shared.line.run,
            number=line.number + 1,
            entity=knows.entity,
            stage=stage,
            after=question.after,
            position=up_to,
            model=question.model,
            images=dict(sorted(self._told(counts, judgement.classes).items())),
            trainable=trainable(knows, judgement.classes, up_to),
            entropy=entropy,
            reference=None if entropy is None else reference or 0.0,
            threshold=rise,
            first_contact=first_contact,
            reason=result.values["reason"],
            verdict=judgement.verdict,
            classes=judgement.classes,
        )

    def _beyond(self, found: Collection[str]) -> tuple[str, ...]:
        """Of new classes those that have no row and no room for one (docs/decisions/0027).

        They stay in the window unannounced, and nothing is trained on them.
        """
        opened, rows = self._knows.shared.opened, self._knows.shared.line.rows
        own = with_room(opened, self._knows.line.known, found)
        return sorted_uids({*found} - {*with_room(opened, rows, own)})

    def _told(self, counts: Counter[str], found: Collection[str]) -> dict[str, int]:
        """The counts, of no more classes than its reader takes: first those that matter."""
        own = {*self._knows.line.known, *found}
        first = sorted(counts, key=lambda uid: (uid not in own, uid))[:MOST_COUNTED]
        return {uid: counts[uid] for uid in first}
