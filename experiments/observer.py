"""The observer: sees what everybody may see, and scores each round's model on test images.

It decides nothing and nobody waits for it, so a run's model is the same without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from infra.promises import Answer, Arrived, Do, Library, Result, Say, Task
from producers.images import Dataset
from schemas.line import RoundsLine
from schemas.messages import (
    DeadLetter,
    Decision,
    Groups,
    Measured,
    ModelUpdate,
    RoundClosed,
    TeacherChosen,
    TwinDecision,
)
from schemas.teachers import TeachersLine
from schemas.topics import Names
from schemas.verdicts import VerdictLines


class Observer:
    """A role at the roof: it evaluates, and remembers what a report shows."""

    name = "observer"

    def __init__(self, names: Names, site: str, dataset: Dataset | None) -> None:
        """Without a data set it only reads: for `show` and `ls`."""
        self._names = names
        self._site = site
        self._dataset = dataset
        self.line = RoundsLine()
        self.teachers = TeachersLine(self.line)
        self.verdicts = VerdictLines(self.line)
        self.measured: dict[str, dict[str, Any]] = {}
        """First values under each name."""
        self.dead_letters: dict[tuple[str, int], DeadLetter] = {}
        self.answered: dict[int, set[str]] = {}
        self._begun: set[str] = set()
        self._gone: set[int] = set()
        """Versions that were let go before they could be scored, because the run was stopped."""
        self._metrics = names.federation("metrics")
        self._fresh: list[Answer] = []
        self.lines = (
            names.federation("rounds"),
            names.federation("teachers"),
            names.of_site("classes", site),
            self._metrics,
        )
        self.topics = (
            *self.lines,
            names.of_site("updates", site),
            names.federation("dead-letters"),
            names.of_site("dead-letters", site),
        )
        self.owns = ()

    @property
    def over(self) -> bool:
        """The run is over, and every model that closed a round was scored, if that is to be."""
        return self.line.over and not (self._dataset and self._unscored())

    def hear(self, arrived: Arrived) -> None:
        match arrived.message:
            case Measured() as measured:
                self.measured.setdefault(measured.name, measured.values)
            case DeadLetter() as letter:
                self.dead_letters.setdefault((letter.topic, letter.offset), letter)
            case TwinDecision() as verdict:
                self.verdicts.hear(self._site, verdict)
            case TeacherChosen() as choice:
                self.teachers.hear(choice)
            case ModelUpdate() as update:
                self._note(update)
            case Decision() as decision:
                if self.line.hear(decision, arrived.hash):
                    self.verdicts.again()
                    self.teachers.again()

    def _note(self, update: ModelUpdate) -> None:
        self.answered.setdefault(update.opened, set()).add(update.entity)
        name = f"update/{update.opened}/{update.entity}"
        if self._dataset is not None and name not in self.measured and name not in self._begun:
            self._begun.add(name)
            values = {**update.measured, "reason": update.reason}
            self._fresh.append(self._say(name, values))

    def _say(self, name: str, values: dict[str, Any]) -> Say:
        return Say(self._metrics, Measured(run="", name=name, values=values))

    def answers(self) -> Iterator[Answer]:
        fresh, self._fresh = self._fresh, []
        yield from fresh
        if self._dataset is None:
            return
        for closed in self._unscored():
            name = f"model/{closed.model.version}"
            if name not in self._begun:
                self._begun.add(name)
                yield Do(("evaluate", closed.number), partial(self._task, closed=closed))

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        closed = self.line.decisions[int(id[1])]
        assert isinstance(closed, RoundClosed)
        confusion = result.groups["confusion"]["confusion"].tolist()
        values = {"stage": closed.stage, "round": closed.round, "confusion": confusion}
        yield self._say(f"model/{closed.model.version}", values)

    def waits(self) -> list[str]:
        return []

    def _unscored(self) -> list[RoundClosed]:
        closed = [each.closed for stage in self.line.stages for each in stage.rounds if each.closed]
        return [
            each
            for each in closed
            if f"model/{each.model.version}" not in self.measured
            and each.model.version not in self._gone
        ]

    def _task(self, library: Library, closed: RoundClosed) -> Task:
        """Test images of every class that has a row in this model."""
        assert self._dataset is not None
        assert self.line.opened is not None
        try:
            model = library.model(closed.model)
        except LookupError:
            self._gone.add(closed.model.version)
            raise
        stages = self.line.stage_of_row
        rows = {u: r for u, r in self.line.rows.items() if stages[r] <= closed.stage}
        test, uids = self._dataset.test, self._dataset.class_uids
        row_of_label = np.array([rows.get(uid, -1) for uid in uids], np.int64)
        true = row_of_label[test.labels]
        groups: Groups = {
            "model": model,
            "test": {"images": test.images[true >= 0], "rows": true[true >= 0]},
        }
        values = {
            "data": self.line.opened.data.model_dump(mode="json"),
            "device": self.line.opened.configuration.device,
        }
        return Task("evaluate", values, groups)
