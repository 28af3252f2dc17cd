"""Rebuilt prototypes outlive the process that rebuilt them where they may be seen, only there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import runner
from experiments.folder import PROTOTYPES, RunFolder
from experiments.recipes import PRESETS
from experiments.runner import Local
from experiments.system import Embedded
from experiments.worker import FUNCTIONS
from infra.workers import Forked, Function
from schemas.configuration import Configuration
from tests.experiments.hands import Interrupted, interrupted_after, local, two_stages
from tests.flows.learner import FAKES

pytestmark = pytest.mark.usefixtures("blank_figures")

THREE = two_stages(stages=3, classes_per_stage=3)
SLOTS = two_stages(
    **{**PRESETS["lineage_compat"], "perturb": {"mode": "none"}},
    stages=3, recon_steps=2, recon_init="grey", entropy_threshold=0.5,
)  # fmt: skip


def kept(folder: Path) -> list[str]:
    """The files that hold prototypes."""
    return sorted(file.name for file in folder.glob(PROTOTYPES))


def shown(folder: Path) -> list[str]:
    """Class and picture of each prototype in the report, in order."""
    page = (folder / "report.html").read_text()
    return re.findall(r'<img src="([^"]+" alt="rebuilt prototype of class [^"]+)"', page)


@pytest.mark.parametrize(
    ("configuration", "learns", "rounds"),
    [
        pytest.param(THREE, FAKES, (3, 5), id="stage by stage"),
        pytest.param(SLOTS, FUNCTIONS, (1, 3), id="round by round", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_interrupted_shows_what_it_would_have_shown(
    tmp_path: Path,
    configuration: Configuration,
    learns: Mapping[str, Function],
    rounds: Sequence[int],
) -> None:
    """Interrupted twice, after so many rounds: the pictures are those of a run left alone."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    machine = Local(tmp_path, workers=1, start_worker=Forked(learns))
    runner.start(configuration, whole, machine)

    with pytest.raises(Interrupted):
        runner.start(configuration, broken, machine, watch=interrupted_after(rounds[0]))
    with pytest.raises(Interrupted):
        runner.resume(broken, machine, watch=interrupted_after(rounds[1]))
    runner.resume(broken, machine)

    assert len(kept(whole)) > 1
    assert shown(broken) == shown(whole)
    assert kept(broken) == kept(whole)


def test_they_are_kept_before_the_choice_that_rests_on_them(tmp_path: Path) -> None:
    """Whoever is killed after it would not rebuild them again."""
    folder = tmp_path / "run"
    chosen: list[int] = []

    def watch(run: Embedded) -> None:
        if kept(folder):
            chosen.append(len(run.observer.teachers.chosen))

    runner.start(two_stages(rounds_per_stage=4), folder, local(folder), watch=watch)

    assert chosen[0] == 0
    assert chosen[-1] == 1


def test_where_they_may_not_be_seen_nothing_reaches_the_folder(tmp_path: Path) -> None:
    """Asked for by report_prototypes=false; the report says that it shows none."""
    folder = tmp_path / "run"
    seen: set[str] = set()
    private = replace(local(folder), report_prototypes=False)

    def watch(run: Embedded) -> None:
        if run.proxy.rebuilt:
            seen.update(kept(folder), {"rebuilt"})

    runner.start(two_stages(), folder, private, watch=watch)

    assert seen == {"rebuilt"}
    assert shown(folder) == []
    assert "Not shown. A prototype is nearly the image" in (folder / "report.html").read_text()


def test_what_was_kept_goes_when_the_switch_is_off(tmp_path: Path) -> None:
    """A run that showed them is resumed by somebody who may not; also what was half written."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=interrupted_after(3))
    (folder / f"{kept(folder)[0]}.new").write_bytes(b"half")

    runner.resume(folder, replace(local(folder), report_prototypes=False))

    assert kept(folder) == []
    assert shown(folder) == []


def test_a_fresh_run_begins_with_an_empty_gallery(tmp_path: Path) -> None:
    """Its prototypes are its own: other images than those of the run before."""
    folder = tmp_path / "run"
    runner.start(two_stages(), folder, local(folder))
    before = shown(folder)

    RunFolder(folder).remove_files()

    assert before
    assert kept(folder) == []


def test_a_damaged_file_is_told_of_in_the_report(tmp_path: Path) -> None:
    """It costs its pictures and nothing else: the page names the stage that it lacks."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=interrupted_after(3))
    (file,) = folder.glob(PROTOTYPES)
    file.write_bytes(file.read_bytes()[:40])

    runner.resume(folder, local(folder))

    assert "Not shown for stage 0" in (folder / "report.html").read_text()
    assert shown(folder) == []
