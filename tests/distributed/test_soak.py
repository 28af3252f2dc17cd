"""How the memory of programs is judged that lived through a soak."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.soak import EVERY, Held, Memory, _children


def seen(minutes: float, megabytes: Callable[[float], float]) -> Held:
    """A program that lived so long, looked at every five seconds, with a megabyte of noise."""
    memory, chance = Memory(Path(), 0.0), np.random.default_rng(1)
    for at in np.arange(0, 60 * minutes + 1, EVERY):
        held = megabytes(at / 3600) + chance.normal(0, 1)
        memory.found.setdefault("role (1)", []).append((float(at), held))
    return memory.held()["role (1)"]


@pytest.mark.parametrize(
    ("megabytes", "verdict"),
    [
        (lambda hours: 150.0, "flat"),
        (lambda hours: 100 + min(3000 * hours, 64), "flat"),  # a cache that fills in a minute
        (lambda hours: 150 + 2.5 * (hours > 0.4), "flat"),  # one more batch is held at last
        (lambda hours: 150 + 37.5 * hours, "**grows**"),
        (lambda hours: 100 + min(130 * hours, 64), "**grows**"),  # one that fills in half an hour
        (lambda hours: 1200 + 30 * hours, "flat"),  # workers: less than a hundredth of that
        (lambda hours: 1200 + 80 * hours, "**grows**"),
    ],
)
def test_half_an_hour_tells_what_grows_from_what_was_filled(
    megabytes: Callable[[float], float], verdict: str
) -> None:
    """Five megabytes, or a hundredth, are nothing; what goes on in the second half is told."""
    assert seen(30, megabytes).verdict == verdict


def test_each_minutes_least_is_told() -> None:
    """Three minutes that end in a step: what came and went within a minute is not in it."""
    memory = Memory(Path(), 0.0)
    memory.found["role (1)"] = [(5, 90), (40, 99), (70, 91), (100, 99), (130, 97), (180, 98)]

    assert memory.floors("role (1)") == [90, 91, 97]


def test_a_program_that_was_killed_early_is_told_and_not_judged() -> None:
    """Seven minutes: its caches were filling, and no line through that says anything."""
    held = seen(7, lambda hours: 100 + 400 * hours)

    assert held.verdict == "not judged: 7.0 minutes"
    assert held.an_hour == pytest.approx(400, rel=0.1)


def test_what_workers_have_started_counts_with_them() -> None:
    """A process that starts one which starts another: both are found, whoever's child they are."""
    last = "import time; time.sleep(60)"
    second = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {last!r}])"
    first = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {second!r}])"
    with subprocess.Popen([sys.executable, "-c", first]) as program:
        until = time.monotonic() + 20
        while len(found := _children(program.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        for each in (program.pid, *found):
            os.kill(each, signal.SIGKILL)

    assert len(found) == 2


def test_a_slope_is_told_for_an_hour() -> None:
    """38 MB an hour, over a quarter of one, are 9.5 MB."""
    held = seen(30, lambda hours: 140 + 38 * hours)

    assert held.an_hour == pytest.approx(38, abs=5)
    assert held.grown == pytest.approx(9.5, abs=1.5)
