"""The main promise to a researcher: FedKA learns new classes and keeps the old ones."""

from __future__ import annotations

import pytest

from experiments.api import run
from experiments.folder import RunFolder
from experiments.measures import Measures, measure

SEEDS = (2021, 2022, 2023)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Measures]:
    """The smoke recipe by both strategies, three seeds each, on equal schedules."""
    found = {}
    for strategy in ("fedka", "fedavg"):
        for seed in SEEDS:
            folder = tmp_path_factory.mktemp("runs") / f"{strategy}-{seed}"
            run("smoke", run_dir=folder, strategy=strategy, seed=seed)
            found[strategy, seed] = measure(RunFolder(folder).observed(), {}, 0.0)
    return found


def known(share: float | None) -> float:
    """A share in percent that must be there."""
    assert share is not None
    return share


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fedka_learns_and_keeps(measured: dict[tuple[str, int], Measures], seed: int) -> None:
    """At least 90 % in stage 0, and 85 % of it kept on the old classes."""
    fedka = measured["fedka", seed]

    first = known(fedka.stages[0].accuracy)
    assert first >= 90
    assert known(fedka.stages[-1].old_accuracy) >= 0.85 * first


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fedka_ends_above_fine_tuning(measured: dict[tuple[str, int], Measures], seed: int) -> None:
    """By 30 points at least, on all classes."""
    fedka, fedavg = measured["fedka", seed], measured["fedavg", seed]

    assert known(fedka.stages[-1].accuracy) >= known(fedavg.stages[-1].accuracy) + 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_fine_tuning_forgets(measured: dict[tuple[str, int], Measures], seed: int) -> None:
    """The lower bound loses more than half of stage 0 on the old classes."""
    fedavg = measured["fedavg", seed]

    first, last = known(fedavg.stages[0].accuracy), known(fedavg.stages[-1].old_accuracy)
    assert last < 0.5 * first


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_proxy_chooses_among_several(
    measured: dict[tuple[str, int], Measures], seed: int
) -> None:
    """Two versions were scored before one teacher was chosen for the one stage that has one."""
    fedka = measured["fedka", seed]

    (teacher,) = fedka.teachers
    assert len(teacher.candidates) == 2
    assert teacher.prototypes > 0
    assert {each.teacher for each in fedka.rounds if each.stage == 1} == {teacher.version}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_that_came_was_found(
    measured: dict[tuple[str, int], Measures], seed: int
) -> None:
    """Each class of the schedule has a row, nobody waits, and nothing was set aside."""
    fedka = measured["fedka", seed]

    assert len(fedka.classes) == 10
    assert not fedka.waiting_classes
    assert not fedka.dead_letters
