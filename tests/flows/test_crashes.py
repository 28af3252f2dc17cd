"""Killed at any moment, a run goes on to the same model, and trains nothing twice that was done."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from infra.points import POINTS
from infra.transport.embedded import Embedded as Log
from tests.flows.digits import TINY, digits, learned, told_by_child
from tests.flows.federation import NAMES, Outcome, Told, finished, in_file, outcome, small
from tests.flows.lives import KILLED, Fuse, answered, begun, lived, messages

FEW, MANY = range(3), range(300, 325)
MOMENTS = 900
"""About as many moments at which a hook is called as the small federation's run has."""


@pytest.fixture(scope="module")
def quiet() -> Outcome:
    """What the small federation comes to when nothing disturbs it."""
    return finished(small())


def _killed_over_and_over(seed: int, quiet: Outcome, folder: Path) -> None:
    """Kill a run at random moments until a life sees its end, then ask what it came to."""
    chance, path, told = random.Random(seed), folder / "run.sqlite", Told(copies=1 + seed % 2)
    ends = []
    while not ends or ends[-1] == KILLED:
        done = answered(path)
        fuse = Fuse(chance.randint(1, MOMENTS * told.copies))
        ends.append(lived(small(), path, told, fuse))
        trained = begun(path)

        assert not trained.keys() & done, f"killing {seed}: trained again what was in the log"
        assert max(trained.values(), default=0) <= told.copies
    assert ends[-1] == 0
    assert outcome(in_file(small(), path)) == quiet, f"killing {seed}: another run after {ends}"


@pytest.mark.parametrize("seed", FEW)
def test_killed_at_random_moments_it_ends_the_same(quiet: Outcome, folder: Path, seed: int) -> None:
    """Up to the last moment, again and again, and with every role twice."""
    _killed_over_and_over(seed, quiet, folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_killed_at_many_more_moments_it_ends_the_same(
    quiet: Outcome, folder: Path, seed: int
) -> None:
    """Twenty-five such runs, each killed once or more often."""
    _killed_over_and_over(seed, quiet, folder)


@pytest.mark.parametrize("point", POINTS)
def test_killed_where_it_hurts_most_it_ends_the_same(
    quiet: Outcome, folder: Path, point: str
) -> None:
    """At each named point, the second time that a run comes by."""
    path = folder / "run.sqlite"
    end = lived(small(), path, Told(), Fuse(2, point))
    done = answered(path)
    resumed = lived(small(), path, Told(), Fuse(-1))

    assert (end, resumed) == (KILLED, 0)
    assert not begun(path).keys() & done
    assert outcome(in_file(small(), path)) == quiet


def _left(path: Path) -> dict[str, Counter[str]]:
    """What a log still holds of states and models, by topic and key."""
    log = Log(path)
    try:
        return {
            topic: Counter(stored.record.key for stored in log.read(topic, log.first(topic), 2**30))
            for topic in log.topics()
            if ".twin-state." in topic or ".models" in topic or ".prototypes." in topic
        }
    finally:
        log.close()


@pytest.mark.parametrize("point", ["forgotten", "trim", "append:durable"])
def test_what_is_to_be_forgotten_is_forgotten_after_a_crash(folder: Path, point: str) -> None:
    """States, exemplars, models and prototypes: a killed run leaves behind what any run does."""
    whole, broken = folder / "whole.sqlite", folder / "broken.sqlite"
    in_file(small(), whole)
    for nth in (3, 6, 9):
        lived(small(), broken, Told(), Fuse(nth, point))
    in_file(small(), broken)

    left, expected = _left(broken), _left(whole)
    assert {topic: set(keys) for topic, keys in left.items()} == {
        topic: set(keys) for topic, keys in expected.items()
    }


def test_a_twin_that_was_killed_sends_the_update_that_is_in_the_log_to_nobody_again(
    folder: Path,
) -> None:
    """Killed right after its first update was written: the log never holds a second one."""
    path = folder / "run.sqlite"
    lived(small(keep_rounds="all"), path, Told(), Fuse(1, "task:done"))
    while not answered(path):
        lived(small(keep_rounds="all"), path, Told(), Fuse(12, "said"))
    in_file(small(keep_rounds="all"), path)

    log = Log(path)
    sent = Counter(each.identity for each, _ in messages(log, NAMES.of_site("updates", "local")))
    log.close()
    assert len(sent) == 12
    assert set(sent.values()) == {1}


# --- the recipe `tiny`, with real nets ------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What `tiny` comes to when nothing disturbs it."""
    return told_by_child(learned, tmp_path_factory.mktemp("tiny"))


def _tiny(path: Path, folder: Path) -> Outcome:
    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        return outcome(in_file(TINY, path, Told(functions=FUNCTIONS), dataset=digits()))

    return told_by_child(run, folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_tiny_killed_by_the_clock_ends_the_same(trained: Outcome, folder: Path, seed: int) -> None:
    """In the middle of a training, as likely as not: by another process, after some seconds."""
    path, chance = folder / "run.sqlite", random.Random(seed)
    victim = os.fork()
    if victim == 0:
        try:
            _life_of_tiny(path)
        finally:
            os._exit(0)
    time.sleep(chance.uniform(0.2, 6.0))
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)

    assert _tiny(path, folder) == trained


def _life_of_tiny(path: Path) -> None:
    from experiments.worker import FUNCTIONS, set_up

    set_up(1)
    in_file(TINY, path, Told(functions=FUNCTIONS), dataset=digits())
