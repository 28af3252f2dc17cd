"""How far a run is: a bar where somebody looks at it, otherwise a line for each round.

The loop calls `watch` on every turn, so it looks at the clock first and mostly goes no further.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from experiments.numbers import clock, counted, name_of, speed
from experiments.system import WRITING, Watch, Watched
from schemas.line import RoundsLine

LOOKS_PER_SECOND = 4
"""How often the bar may change; between two looks a turn costs one look at the clock."""
DOING = {
    "learn": "training",
    "judge": "looking for new classes",
    "herd": "choosing exemplars",
    "prototypes": "making prototypes",
    "reconstruct": "rebuilding prototypes",
    "score": "scoring old models",
    "evaluate": "testing",
}
"""What the workers' tasks are called aloud; of several, the first here is told."""
CHOOSING = "choosing a teacher"
BETWEEN_ROUNDS = (DOING["reconstruct"], DOING["score"], CHOOSING, WRITING)
"""What may take long while no round is closed, and is told also where there is no bar."""
Show = Callable[["Standing"], None]


@dataclass(frozen=True)
class Standing:
    """Where a run stands at a moment."""

    at: str
    """The open round, or the stage where none is open."""
    closed: str
    """The round that was closed last; empty before the first."""
    rounds: int
    """Closed rounds of all stages."""
    of_rounds: int
    part: float
    """Of the open round's answers, in [0, 1]."""
    doing: str
    images_per_second: float | None
    seconds_left: float | None

    @property
    def done(self) -> float:
        """Rounds, the open one in part."""
        return self.rounds + self.part

    @property
    def rest(self) -> str:
        """Speed and time left, as far as they are known."""
        fast = speed(self.images_per_second) if self.images_per_second else ""
        left = f"{clock(self.seconds_left)} left" if self.seconds_left is not None else ""
        return ", ".join(each for each in (fast, left) if each)


class Pace:
    """Tells where a run stands, and how fast it has gone since it was first asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float, int] | None = None
        self._begun = False

    def standing(self, run: Watched) -> Standing | None:
        """Where the run stands; None before it is opened."""
        line = run.observer.line
        if line.opened is None:
            return None
        part = _part(run)
        rounds, of_rounds = _rounds(line)
        left = of_rounds - rounds - part
        now = (self._clock(), rounds + part, _images(run))
        if self._first is None or not self._begun:
            self._first = now  # until a stage begins, worker processes are starting
            self._begun = bool(line.stages)
        seconds, done, images = (b - a for a, b in zip(self._first, now, strict=True))
        return Standing(
            at=_at(line),
            closed=_last_closed(line),
            rounds=rounds,
            of_rounds=of_rounds,
            part=part,
            doing=_doing(run),
            images_per_second=images / seconds if images and seconds else None,
            seconds_left=seconds * left / done if done and left else None,
        )


@contextmanager
def shown(out: Console, *, quiet: bool = False) -> Iterator[Watch]:
    """A watch for the runner that shows on `out` how far the run is; a bar only on a terminal."""
    if quiet:
        yield lambda run: None
    elif out.is_terminal:
        with _bar(out) as show:
            yield _watch(show)
    else:
        yield _watch(_lines(out))


def _watch(show: Show) -> Watch:
    pace, due = Pace(), 0.0

    def watch(run: Watched) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due or run.observer.line.over:
            due = now + 1 / LOOKS_PER_SECOND
            if standing := pace.standing(run):
                show(standing)

    return watch


@contextmanager
def _bar(out: Console) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, finished_style="green"),
        TextColumn("{task.fields[rest]}"),
    )
    with Progress(*columns, console=out, transient=True, expand=True, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None, rest="")

        def show(now: Standing) -> None:
            told = f"{now.at}, {now.doing}"
            bar.update(
                task, description=told, total=now.of_rounds, completed=now.done, rest=now.rest
            )
            bar.refresh()

        bar.refresh()
        yield show


def _lines(out: Console) -> Show:
    """A line for each round, and one for what is done once a stage's rounds are over."""
    rounds, last = -1, ""

    def show(now: Standing) -> None:
        nonlocal rounds, last
        if now.rounds > rounds >= 0:
            of_all = f"{now.rounds} of {counted(now.of_rounds, 'round')}"
            parts = (f"{now.closed} closed", of_all, now.rest)
            out.print(", ".join(part for part in parts if part), soft_wrap=True)
        rounds = now.rounds
        told = f"{now.at}, {now.doing}"
        if now.closed and now.doing in BETWEEN_ROUNDS and told != last:
            out.print(told, soft_wrap=True)
            last = told

    return show


def _at(line: RoundsLine) -> str:
    if line.open_round:
        return name_of(line.open_round)
    return f"stage {line.stage.index if line.stage else 0}"


def _last_closed(line: RoundsLine) -> str:
    closed = [each.closed for stage in line.stages for each in stage.rounds if each.closed]
    return name_of(closed[-1]) if closed else ""


def _doing(run: Watched) -> str:
    if run.finishing:
        return run.finishing
    kinds = Counter(str(id[0]) for id in run.system.in_work)
    kind = next((kind for kind in DOING if kinds[kind]), None)
    if kind is None:
        return _awaited(run)
    return f"{counted(kinds[kind], 'twin')} training" if kind == "learn" else DOING[kind]


def _awaited(run: Watched) -> str:
    """What others do, as far as decisions tell: over Kafka they are processes of their own."""
    line, opened = run.observer.line, run.observer.line.open_round
    if opened is not None:
        silent = len(opened.participants) - len(run.observer.answered.get(opened.number, ()))
        return f"waiting for {counted(silent, 'twin')}" if silent else "deciding"
    if line.over:
        return "ending"
    begun = len(line.stages)
    between = line.stage is None or line.stage.closed is not None
    if begun and between and run.observer.teachers.of(begun) is None:
        return CHOOSING
    silent = sum(run.observer.verdicts.verdict(each, begun) is None for each in line.marked(begun))
    return f"waiting for {counted(silent, 'verdict')}" if silent and between else "deciding"


def _rounds(line: RoundsLine) -> tuple[int, int]:
    """Closed rounds, and all that there will be."""
    assert line.opened is not None
    closed = sum(each.closed is not None for stage in line.stages for each in stage.rounds)
    return closed, line.total_stages * line.opened.configuration.rounds_per_stage


def _part(run: Watched) -> float:
    """The share of the open round's participants that have answered."""
    opened = run.observer.line.open_round
    if opened is None:
        return 0.0
    return len(run.observer.answered.get(opened.number, ())) / len(opened.participants)


def _images(run: Watched) -> int:
    """Images trained on so far, each time counted."""
    opened = run.observer.line.opened
    assert opened is not None
    samples = (
        values.get("samples", 0)
        for name, values in run.observer.measured.items()
        if name.startswith("update/")
    )
    return int(sum(samples)) * opened.configuration.local_epochs
