"""How far a run is, told from what the observer heard and a clock of our own."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from rich.console import Console

from experiments.observer import Observer
from experiments.progress import Pace, Standing, shown
from experiments.system import WRITING, Embedded
from tests.experiments.told import EAST, EVERYONE, NORTH, Told, story

TERMS = {"samples": 100.0, "steps": 4.0}


@dataclass
class Working:
    """Workers that do what we say."""

    in_work: list[tuple[str | int, ...]] = field(default_factory=list)


@dataclass
class Run:
    """A run in which nothing moves but what is told."""

    observer: Observer
    system: Working = field(default_factory=Working)
    finishing: str = ""


def run_of(told: Told, *in_work: tuple[str | int, ...]) -> Embedded:
    return cast(Embedded, Run(told.observer, Working(list(in_work))))


def clock(*seconds: float) -> Callable[[], float]:
    ticks: Iterator[float] = iter(seconds)
    return lambda: next(ticks)


def begun() -> Told:
    """Two stages of two rounds, the first one open for its first round."""
    told = Told(("a", "b"), ("c", "d"), rounds=2)
    for entity in EVERYONE:
        told.judges(entity, {"a": 50, "b": 50}, classes=("a", "b"), first_contact=True)
    return told


def test_time_left_follows_from_the_rounds_since_the_first_look() -> None:
    """One of four rounds took 10 s, so three more take 30; its 200 images were 20 a second."""
    told = begun()
    pace = Pace(clock(100.0, 110.0))
    told.grows("a", "b")

    before = pace.standing(run_of(told))
    told.round([[9, 1], [1, 9]], counted={NORTH: TERMS, EAST: TERMS})
    after = pace.standing(run_of(told))

    assert before is not None
    assert after is not None
    assert (before.rounds, before.of_rounds, before.seconds_left) == (0, 4, None)
    assert (after.rounds, after.seconds_left, after.images_per_second) == (1, 30.0, 20.0)
    assert after.rest == "20 images/s, 0:30 left"


def test_the_time_until_a_stage_begins_is_not_counted() -> None:
    """A minute in which processes start says nothing about the pace of rounds."""
    told = begun()
    pace = Pace(clock(0.0, 60.0, 70.0))
    pace.standing(run_of(told))
    told.grows("a", "b")

    pace.standing(run_of(told))
    told.round([[9, 1], [1, 9]], counted={NORTH: TERMS, EAST: TERMS})
    after = pace.standing(run_of(told))

    assert after is not None
    assert after.seconds_left == 30.0


@pytest.mark.parametrize(
    ("in_work", "doing"),
    [
        ([], "deciding"),
        ([("learn", "a", 3)], "1 twin training"),
        ([("evaluate", 2), ("learn", "a", 3), ("learn", "b", 3)], "2 twins training"),
        ([("reconstruct", 0, 1), ("evaluate", 2)], "rebuilding prototypes"),
        ([("evaluate", 2)], "testing"),
    ],
)
def test_what_is_in_work_is_said_aloud(in_work: list[tuple[str | int, ...]], doing: str) -> None:
    """Training first, whatever else goes on beside it."""
    standing = Pace(clock(0.0)).standing(run_of(begun(), *in_work))

    assert standing is not None
    assert standing.doing == doing


def test_nothing_is_told_before_a_run_is_opened() -> None:
    """There is no schedule yet."""
    told = begun()
    told.observer.line.opened = None

    assert Pace(clock(0.0)).standing(run_of(told)) is None


@pytest.mark.parametrize(
    ("speed", "left", "rest"),
    [
        (None, None, ""),
        (99.6, None, "100 images/s"),
        (None, 59.7, "1:00 left"),
        (5.0, 3725.0, "5 images/s, 1:02:05 left"),
    ],
)
def test_what_is_not_known_is_not_told(speed: float | None, left: float | None, rest: str) -> None:
    """Speed and time left, as far as there are any."""
    assert Standing("round 0.0", "", 0, 4, 0.0, "training", speed, left).rest == rest


def test_a_log_file_gets_a_line_for_each_round() -> None:
    """No bar, no control characters; the last round is told, too."""
    out = io.StringIO()
    told = begun()
    told.grows("a", "b")

    with shown(Console(file=out, width=120)) as watch:
        watch(run_of(told))
        for _ in range(3):
            watch(run_of(story()))

    (line,) = out.getvalue().splitlines()
    assert line.startswith("round 1.1 closed, 4 of 4 rounds, ")
    assert not line.endswith(" left")
    assert line.isprintable()


def test_a_round_is_called_by_its_stage_and_its_number_there() -> None:
    """Both from 0, as in the report and in `show`; where none is open, the stage is named."""
    told = begun()
    told.grows("a", "b")
    told.opens()

    open_now = Pace(clock(0.0)).standing(run_of(told))
    over = Pace(clock(0.0)).standing(run_of(story()))

    assert open_now is not None
    assert over is not None
    assert (open_now.at, open_now.closed) == ("round 0.0", "")
    assert (over.at, over.closed) == ("stage 1", "round 1.1")


def test_what_others_do_is_told_from_their_decisions() -> None:
    """Over Kafka nothing is in work here: twins train, or the proxy chooses, in their processes."""
    told = begun()
    told.grows("a", "b")
    told.opens()
    training = Pace(clock(0.0)).standing(run_of(told))
    between = begun()
    between.grows("a", "b")
    between.round([[9, 1], [1, 9]])
    between.round([[9, 1], [1, 9]])
    between.ends()
    choosing = Pace(clock(0.0)).standing(run_of(between))
    between.teaches(3)
    judging = Pace(clock(0.0)).standing(run_of(between))

    assert training is not None
    assert choosing is not None
    assert judging is not None
    assert judging.doing == "waiting for 4 verdicts"
    assert training.doing == "waiting for 2 twins"
    assert choosing.doing == "choosing a teacher"


def test_there_is_no_quiet_gap_behind_the_last_round() -> None:
    """Rebuilding prototypes and writing the report may take minutes: each is told once, by name."""
    out = io.StringIO()
    told = begun()
    told.grows("a", "b")
    told.round([[9, 1], [1, 9]])
    over = run_of(story())
    over.finishing = WRITING

    with shown(Console(file=out, width=120)) as watch:
        for each in (run_of(told, ("reconstruct", 0, 1)), over, over):
            watch(each)

    assert out.getvalue().splitlines()[-1] == "stage 1, writing model and report"
    assert out.getvalue().count("writing") == 1


def test_a_terminal_gets_a_bar_that_fits() -> None:
    """60 columns: whatever is shown stays on its line, and goes away at the end."""
    out = io.StringIO()
    screen = Console(file=out, width=60, force_terminal=True, color_system=None)

    with shown(screen) as watch:
        watch(run_of(story(), ("learn", "a", 3), ("learn", "b", 3)))

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    frames = re.split(r"[\r\n]", plain)
    assert any(frame.startswith("stage 1, 2 twins training") for frame in frames)
    assert max(map(len, frames)) <= 60


def test_quiet_is_quiet() -> None:
    """--quiet leaves standard error alone."""
    out = io.StringIO()

    with shown(Console(file=out), quiet=True) as watch:
        watch(run_of(story()))

    assert out.getvalue() == ""
