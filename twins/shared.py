"""What all twins of one process have in common: the decisions, and what they ask of whom.

A decision concerns many entities, and each twin is asked after each decision. What a decision says
of an entity is looked up here, once for all of them, so that no twin has to read the others' parts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

from infra.promises import Start, Task
from learning.strategies.choice import chosen
from learning.strategies.strategy import Strategy
from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import (
    DataFacts,
    Decision,
    Groups,
    HeadGrown,
    Participant,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageAdded,
)
from schemas.teachers import TeachersLine
from schemas.topics import Names
from schemas.verdicts import VerdictLines
from twins.buffer import Labels
from twins.novelty import rise, virtual_rows


class Shared:
    """The lines as this process has read them, and the names of topics."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.line = RoundsLine(whole=False)
        self.teachers = TeachersLine(self.line)
        self.verdicts = VerdictLines(self.line)
        self.labels = Labels()
        self.participants: Mapping[str, Participant] = {}
        """Of the round that was opened last."""
        self.answered: set[str] = set()
        """Entities whose valid answer to that round is in the log."""
        self.counted: dict[int, Mapping[str, str]] = {}
        """Of a recipe: number of a RoundClosed → the hash of each update that it counted."""
        self.expected: Mapping[str, tuple[str, ...]] = {}
        """Prototypes that the HeadGrown read last lists: entity → classes, by their place."""
        self.expected_in_round: Mapping[str, Sequence[tuple[int, str]]] = {}
        """Of those, what the round opened last asks for, if it does: entity → place and class."""
        self._strategy: Strategy | None = None
        self._marked: Mapping[str, Sequence[int]] = {}
        """Entity → the stages that wait for it, ascending."""

    # --- what the run is -------------------------------------------------------------------------

    @property
    def opened(self) -> RunOpened:
        """What the run was opened with."""
        assert self.line.opened is not None
        return self.line.opened

    @property
    def configuration(self) -> Configuration:
        """The run's configuration."""
        return self.opened.configuration

    @property
    def data(self) -> DataFacts:
        """What the run knows of its images."""
        assert self.line.opened is not None
        return self.line.opened.data

    @property
    def strategy(self) -> Strategy:
        """The run's method."""
        assert self._strategy is not None
        return self._strategy

    @property
    def signals(self) -> bool:
        """Whether anything depends on a signal: slots teach, and the strategy listens."""
        return self.configuration.slotted and self.strategy.teacher != "none"

    def virtual_rows(self, stage: int) -> int:
        """How many zero logits stand for classes that have no row yet (docs/method.md 3.3)."""
        assert self.line.opened is not None
        return virtual_rows(self.line.opened, stage)

    def rise(self, stage: int) -> float:
        """The rise of entropy that counts as a jump in a stage, in nats (docs/method.md 3.4)."""
        return rise(self.line, stage, self.configuration)

    def task(self, name: str, values: Mapping[str, object], groups: Groups) -> Task:
        """Work for a worker process, which is told what the run is, too."""
        run = {
            "configuration": self.configuration.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
        }
        return Task(name, {**values, **run}, groups)

    def done_before(self, position: int) -> int:
        """Before which position a live twin is done with its stream that is asked to train up to
        another; in steps of half of `keep_images`, so that it has little to do for it."""
        if not self.line.live or self.strategy.memory == "everything":
            return 0
        if not bounded(self.configuration):
            return 0
        kept = self.configuration.keep_images
        step = max(1, kept // 2)
        return max(0, position - kept) // step * step

    def image_steps(self, opened: RoundOpened) -> int | None:
        """How many images a training of the round passes, if the schedule says it."""
        assert self.line.opened is not None
        stages = self.line.opened.schedule.stages
        steps = stages[opened.stage].image_steps if opened.stage < len(stages) else ()
        return steps[opened.round] if steps else None

    # --- what a decision asks of an entity -------------------------------------------------------

    def unread(self, entity: str) -> int | None:
        """The first stage whose verdict of this entity was not read, as far as is known.

        If the stage has begun, that verdict is in the log.
        """
        if not self.line.live:
            return self.due(entity)
        judged = self.verdicts.judged(entity)
        taken = self.line.taken_up(entity)
        return next((stage for stage, each in taken.items() if each.moment > judged), None)

    def due(self, entity: str) -> int | None:
        """The first stage that waits for an entity and was not judged, as far as is known.

        A live run's stages wait for nobody.
        """
        judged = next(reversed(self.verdicts.line(entity).verdicts), -1)
        stages = self._marked.get(entity, ())
        at = bisect_right(stages, judged)
        return stages[at] if at < len(stages) else None

    def begin(self, start: Start) -> None:
        """Begin with how a live run stands."""
        self.line.begin(start.opened, start.run, start.standing, start.hash)
        self.went_on(start.opened)
        for stage in start.standing.newest:
            if stage.grown is not None:
                self.went_on(stage.grown)

    def went_on(self, decision: Decision) -> None:
        """Look up what a decision says that has just counted in `rounds`."""
        match decision:
            case RunOpened(configuration=run):
                self._strategy = chosen(run.strategy, run.switches, run.teacher)
                self._look_up_marks()
            case StageAdded():
                self._look_up_marks()
            case HeadGrown():
                self.expected = dict(decision.prototypes)
            case RoundOpened():
                self._look_up_round(decision)
            case RoundClosed() if self.strategy.groups is not None and not self.line.live:
                self.counted[decision.number] = dict(decision.counted)

    def _look_up_marks(self) -> None:
        if self.line.live:
            return
        marked = defaultdict[str, list[int]](list)
        for stage in range(self.line.total_stages):
            for entity in self.line.marked(stage):
                marked[entity].append(stage)
        self._marked = dict(marked)

    def _look_up_round(self, opened: RoundOpened) -> None:
        self.participants = {each.entity: each for each in opened.participants}
        self.answered = set()
        if self.configuration.slotted:
            expected = defaultdict[str, list[tuple[int, str]]](list)
            for entity, place, uid in self.line.expected_in(opened.stage, opened.round):
                expected[entity].append((place, uid))
            self.expected_in_round = dict(expected)


def bounded(configuration: Configuration) -> bool:
    """Whether the opening of a run speaks of `keep_images`.

    One of an older program does not: its twins have kept all, and its states were made so.
    """
    return "keep_images" in configuration.model_fields_set
