"""The same recipe and seed end in the same model, byte for byte, however the run went."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from infra import shelf
from infra.forkserver import ForkServer
from infra.transport.embedded import Embedded as Log
from infra.workers import Forked, WorkerProcesses
from schemas.configuration import Configuration
from tests.flows.digits import TINY, digits, learned, told_by_child
from tests.flows.federation import (
    Outcome,
    Told,
    disturbed,
    finished,
    in_file,
    letters,
    outcome,
    put_together,
    small,
)
from tests.flows.junk import Littered
from tests.flows.learner import FAKES

FEW, MORE, MANY = range(3), range(3, 10), range(100, 164)


def test_twice_the_same(quiet: Outcome) -> None:
    """Three stages, six rounds, two teachers: every decision has the same hash again."""
    assert finished(small()) == quiet
    assert (len(quiet.rounds), len(quiet.teachers), len(quiet.verdicts)) == (19, 2, 5)


def test_another_seed_is_another_run(quiet: Outcome) -> None:
    """So the equalities of this file are not those of runs in which nothing happens."""
    other = finished(small(seed=7))

    assert other.model != quiet.model
    assert not set(other.rounds) & set(quiet.rounds)


def test_in_a_file_as_in_memory(quiet: Outcome, folder: Path) -> None:
    """The log on a disk is the same log."""
    assert outcome(in_file(small(), folder / "run.sqlite")) == quiet


@pytest.mark.parametrize("count", [1, 2])
def test_however_many_workers(quiet: Outcome, count: int) -> None:
    """One worker process or two: they answer in another order."""
    workers = WorkerProcesses(Forked(FAKES), count)
    try:
        assert finished(small(), Told(workers=workers)) == quiet
    finally:
        workers.close()


def test_a_finished_run_has_nothing_left_to_do(quiet: Outcome, folder: Path) -> None:
    """Gone on with, it does no work (there is nobody who could) and comes to the same."""
    path = folder / "run.sqlite"
    in_file(small(), path)

    assert outcome(in_file(small(), path, Told(functions={}))) == quiet


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two that hold what flows: the shelf's newest models, and which topics are quiet.

    Workers hold nothing from one task to the next. What roles have computed once (rebuilt
    prototypes, sums of a round) is state, which a second copy computes for itself.
    """
    monkeypatch.setattr(shelf, "HELD", 0)
    monkeypatch.setattr(Log, "_nothing_since", lambda log, topic, place: False)


@pytest.mark.usefixtures("no_cache")
def test_with_every_cache_off(quiet: Outcome) -> None:
    """The shelf loads every model anew, and the log looks again where nothing was."""
    assert finished(small()) == quiet


def _unmoved_by(seed: int, configuration: Configuration, quiet: Outcome) -> None:
    run = disturbed(configuration, seed, copies=1 + seed % 3)

    assert outcome(run) == quiet, f"schedule {seed} forked the run"
    assert not letters(run), f"schedule {seed}: something true was set aside"


@pytest.mark.parametrize(
    "seed", [*FEW, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE)]
)
def test_whatever_the_schedule(shorter: Outcome, seed: int) -> None:
    """Roles step in any order, sleep, and read topics merged at random, with repeats and delays.

    Of each three schedules one runs every role twice and one thrice.
    """
    _unmoved_by(seed, small(stages=2), shorter)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_whatever_of_many_schedules(quiet: Outcome, seed: int) -> None:
    """The same with three stages, for sixty-four more."""
    _unmoved_by(seed, small(), quiet)


# --- the recipe `tiny`, with real nets ------------------------------------------------------------


@pytest.mark.slow
def test_real_trainings_are_the_same_twice(trained: Outcome, tmp_path: Path) -> None:
    """In another process, later."""
    assert told_by_child(learned, tmp_path) == trained


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_real_trainings_do_not_depend_on_workers(trained: Outcome, count: int) -> None:
    """Worker processes that were started anew, one or two."""
    workers = WorkerProcesses(ForkServer("experiments.worker", 1), count)
    try:
        assert learned(Told(workers=workers)) == trained
    finally:
        workers.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_real_trainings_do_not_depend_on_the_schedule(
    trained: Outcome, tmp_path: Path, seed: int
) -> None:
    """Every role twice, in any order, over a transport that delays and repeats."""

    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        return outcome(disturbed(TINY, seed, copies=2, dataset=digits(), functions=FUNCTIONS))

    assert told_by_child(run, tmp_path) == trained


@pytest.mark.slow
@pytest.mark.usefixtures("no_cache")
def test_real_trainings_are_the_same_with_every_cache_off(trained: Outcome, folder: Path) -> None:
    """Neither the shelf nor the log remembers anything, in a file and with real nets."""

    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        told = Told(functions=FUNCTIONS)
        return outcome(in_file(TINY, folder / "run.sqlite", told, dataset=digits()))

    assert told_by_child(run, folder) == trained


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_real_trainings_do_not_depend_on_junk(trained: Outcome, tmp_path: Path, seed: int) -> None:
    """Junk under honest names around every record: the same decisions, teachers and model.

    What is set aside is junk, and there was some.
    """

    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        log = Littered(Log(), random.Random(seed), 0.3)
        run = put_together(TINY, log, Told(functions=FUNCTIONS), dataset=digits())
        run.system.run()
        aside = {(letter.topic, letter.offset) for letter in letters(run)}
        assert len(aside) > 20
        assert aside <= log.junk
        return outcome(run)

    assert told_by_child(run, tmp_path) == trained
