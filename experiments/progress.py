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

from experiments.numbers import clock, speed
from experiments.system import Watch, Watched
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
Show = Callable[["Standing"], None]


@dataclass(frozen=True)
class Standing:
    """Where a run stands at a moment."""

    stage: int
    stages: int
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
        now = (self._clock(), rounds + part, _images(run))
        if self._first is None or not self._begun:
            self._first = now  # until a stage begins, worker processes are starting
            self._begun = bool(line.stages)
        seconds, done, images = (b - a for a, b in zip(self._first, now, strict=True))
        stage = line.stage
        return Standing(
            stage=stage.index if stage else 0,
            stages=line.total_stages,
            rounds=rounds,
            of_rounds=of_rounds,
            part=part,
            doing=_doing(run),
            images_per_second=images / seconds if images and seconds else None,
            seconds_left=seconds * (of_rounds - rounds - part) / done if done else None,
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
        BarColumn(bar_width=None),
        TextColumn("{task.fields[rest]}"),
    )
    with Progress(*columns, console=out, transient=True, expand=True, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None, rest="")

        def show(now: Standing) -> None:
            told = f"stage {now.stage} of {now.stages}, {now.doing}"
            bar.update(
                task, description=told, total=now.of_rounds, completed=now.done, rest=now.rest
            )
            bar.refresh()

        bar.refresh()
        yield show


def _lines(out: Console) -> Show:
    told = -1

    def show(now: Standing) -> None:
        nonlocal told
        if now.rounds > told >= 0:
            told_as = f"stage {now.stage}: {now.rounds} of {now.of_rounds} rounds"
            out.print(f"{told_as}, {now.rest}" if now.rest else told_as, soft_wrap=True)
        told = now.rounds

    return show


def _doing(run: Watched) -> str:
    kinds = Counter(str(id[0]) for id in run.system.in_work)
    kind = next((kind for kind in DOING if kinds[kind]), None)
    if kind is None:
        return "deciding"
    twins = f"{kinds[kind]} twin{'s' if kinds[kind] > 1 else ''} "
    return f"{twins if kind == 'learn' else ''}{DOING[kind]}"


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
