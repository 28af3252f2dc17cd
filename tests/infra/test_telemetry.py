"""Where the seconds went: a phase inside another counts for itself only."""

from __future__ import annotations

import pytest

from infra.telemetry import Stopwatch


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_inside_another_counts_for_itself_only() -> None:
    """A role answers for 1 s, of which the log takes 3 s and the codec inside that 5 s more."""
    clock = Clock()
    watch = Stopwatch(clock)

    with watch("twins"):
        clock.now += 0.5
        with watch("log"):
            clock.now += 3.0
            with watch("codec"):
                clock.now += 5.0
        clock.now += 0.5

    assert watch.seconds == {"twins": 1.0, "log": 3.0, "codec": 5.0}
    assert watch.calls == {"twins": 1, "log": 1, "codec": 1}


def test_phases_add_up_over_calls_and_over_processes() -> None:
    """Twice two seconds here, and seven that a worker measured."""
    clock = Clock()
    watch = Stopwatch(clock)

    for _ in range(2):
        with watch("learn"):
            clock.now += 2.0
    watch.add("learn", 7.0)

    assert (watch.seconds["learn"], watch.calls["learn"]) == (11.0, 3)


def test_a_phase_that_fails_is_counted_all_the_same() -> None:
    """What was spent was spent, and the phase around it still counts for itself only."""
    clock = Clock()
    watch = Stopwatch(clock)

    def fail() -> None:
        with watch("log"):
            clock.now += 2.0
            raise OSError("no room")

    with watch("twins"), pytest.raises(OSError, match="no room"):
        fail()

    assert watch.seconds == {"twins": 0.0, "log": 2.0}
