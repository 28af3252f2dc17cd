"""How a soak is judged: the memory of programs that lived through it, its models, and the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.live import Injected, Outcome, Standing
from experiments.scenario_progress import FILE
from schemas.line import RoundsLine
from schemas.topics import Names
from tests.distributed.soak import EVERY, Held, Memory, Played, _children, broken, longest
from tests.schemas.specimens import NORTH
from tests.schemas.test_heldout import FINE, WARD, WORSE, rounds, said
from tests.schemas.test_live_line import begins, closes, ends, grows, line, opens


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


def test_a_program_beside_the_scenario_is_looked_at_too(tmp_path: Path) -> None:
    """The standby decides while the aggregator is dead, and may go on with it."""
    ours = os.getpid()
    (tmp_path / FILE).write_text(json.dumps({"programs": {"aggregator-1": [ours, "now"]}}))
    memory = Memory(tmp_path, 0.0, beside={"aggregator-2": ours})

    memory.look()

    assert {f"aggregator-1 ({ours})", f"aggregator-2 ({ours})"} <= memory.found.keys()


def test_a_slope_is_told_for_an_hour() -> None:
    """38 MB an hour, over a quarter of one, are 9.5 MB."""
    held = seen(30, lambda hours: 140 + 38 * hours)

    assert held.an_hour == pytest.approx(38, abs=5)
    assert held.grown == pytest.approx(9.5, abs=1.5)


# --- models, and the rest -------------------------------------------------------------------------

Counts = Sequence[Sequence[int]]
POOR = [[40, 10, 0, 0], [10, 40, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]
"""Two old classes of which 80 % are known, as in WORSE, and two new ones."""


def scored(read: RoundsLine, counts: Mapping[int, Counts]) -> Standing:
    """A federation whose ward has said so much of some versions."""
    standing = Standing(Names("soak"), ["north"], read)
    for version, each in counts.items():
        standing.held_out.hear(f"held-out/{WARD}/{version}", said(version, each), version)
    assert standing.held_out.versions == list(counts)
    return standing


def played(
    standing: Standing,
    standby: int | None = None,
    standby_from: float | None = 8.0,
    **changes: Any,
) -> Played:
    """A soak of which all holds that has to, but for how it stands and these."""
    sums = sum(len(each.rounds) for each in standing.line.stages)
    outcome = Outcome(
        run="soak", entities={}, stages=1, rounds=sums, injected=[], detected=[], dead_letters=0,
        held_out_accuracy=None, held_out_version=None, held_out_images=0, held_out_entities=0,
        present_entities=1, worse=[], model_version=1, model_sha256="a", replay_sha256="a",
        summed=sums, different=[],
    )  # fmt: skip
    memory = Memory(Path(), 0.0)
    return Played(replace(outcome, **changes), memory, standing, [], standby, standby_from)


@pytest.mark.parametrize(
    ("counts", "row"),
    [
        ([FINE, FINE], 0),
        ([FINE, WORSE, WORSE, FINE], 2),
        ([FINE, WORSE, WORSE, FINE, WORSE, WORSE], 2),
        ([FINE, WORSE, WORSE, WORSE], 3),
        ([FINE, WORSE, None, WORSE, WORSE, FINE], 3),
    ],
)
def test_three_worse_versions_in_a_row_are_broken_and_two_are_not(
    counts: Sequence[Counts | None], row: int
) -> None:
    """80 % where the best before had 90. One as good as that ends a row; one that nobody has
    scored neither ends it nor counts."""
    told = {2 + i: each for i, each in enumerate(counts) if each is not None}
    standing = scored(rounds(len(counts)), told)

    assert longest(standing) == row
    found = [f"a model was worse than the best before it for {row} rounds"] if row > 2 else []
    assert broken(played(standing)) == found


def test_a_head_that_grows_ends_a_row() -> None:
    """Of four worse versions two come before a growth and two behind it. The grown one knows the
    old classes as badly, but nobody has trained it and it is no loss: the rows are of two each."""
    read = line(
        begins(1), grows(2),
        opens(3, 0, 0, 1), closes(4, 0, 0, 2), opens(5, 0, 1, 2), closes(6, 0, 1, 3),
        opens(7, 0, 2, 3), closes(8, 0, 2, 4), ends(9, 0, 4),
        begins(10, 1, [(NORTH, 3)]), grows(11, 1, 5, 2),
        opens(12, 1, 0, 5), closes(13, 1, 0, 6), opens(14, 1, 1, 6), closes(15, 1, 1, 7),
    )  # fmt: skip
    standing = scored(read, {2: FINE, 3: WORSE, 4: WORSE, 5: POOR, 6: POOR, 7: POOR})

    assert [each.version for each in standing.held_out.losses()] == [3, 4, 6, 7]
    assert longest(standing) == 2
    assert broken(played(standing)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"injected": [Injected(9, "north/ward", ("6", "7"), 80)], "detected": [["6"]]},
            "7 at north/ward not detected",
        ),
        ({"replay_sha256": "b", "different": ["version 3"]}, "the replay differs: version 3"),
        ({"summed": 1}, "1 of 2 sums redone"),
        ({"standby": 3}, "the standby ended with 3"),
        ({"standby_from": 1445.0}, "the standby began after 1445 s"),
        ({"standby_from": None}, "the standby never began"),
    ],
)
def test_what_else_may_not_happen_is_named(changes: dict[str, Any], words: str) -> None:
    """One of it at a time; all else holds."""
    standing = scored(rounds(2), {2: FINE, 3: FINE})

    assert broken(played(standing)) == []
    assert broken(played(standing, **changes)) == [words]


def test_a_program_that_grows_is_broken_when_it_is_judged() -> None:
    """Forty megabytes an hour: ten in the second half of half an hour, and nothing is said of who
    lived for seven minutes."""
    after = played(scored(rounds(1), {2: FINE}))
    for name, minutes in (("long (1)", 30), ("short (2)", 7)):
        looks = np.arange(0, 60 * minutes + 1, EVERY)
        after.memory.found[name] = [(float(at), 140 + 40 * at / 3600) for at in looks]

    assert broken(after) == ["long (1) grew by 10 MB in the second half of 30 minutes"]
