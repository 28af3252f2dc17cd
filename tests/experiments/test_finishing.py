"""The end of a run: killed while it is written down, on a full disk; and what is there before."""

from __future__ import annotations

import ast
import fcntl
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import runner
from experiments.folder import RunFolder
from experiments.metrics import CSV, EVENTS, JSONL, TENSORBOARD
from experiments.summary import summary
from experiments.system import Embedded
from infra.points import ENDS
from infra.workers import Forked, Function
from schemas.errors import ConfigurationError, DiskFull, Diverged
from tests.experiments.hands import (
    Interrupted,
    goes_on,
    interrupted_after,
    local,
    ran,
    told,
    two_stages,
)
from tests.flows import lives
from tests.flows.learner import FAKES, silent
from tests.flows.lives import KILLED, Fuse

pytestmark = pytest.mark.usefixtures("blank_figures")

SEVEN = ("--entity", "entity-000", "--classes", "7", "--images", "10")
MUTE: Mapping[str, Function] = {**FAKES, "learn": silent}
"""Every training comes to nothing, so that a run diverges in its second round."""
OF_ITS_OWN = {"wall_seconds", "images_per_second", "seconds", "run_dir", "report"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a story's run is to live."""
    return tmp_path / "run"


def life(folder: Path, fuse: Fuse) -> int:
    """Begin or go on with a run in a process of its own; how that ends."""
    machine = replace(local(folder), hook=fuse)

    def live() -> int:
        if RunFolder(folder).exists:
            runner.resume(folder, machine)
        else:
            runner.start(two_stages(), folder, machine)
        return 0

    end = lives.forked(live)
    with (folder / "lock").open() as lock:  # its workers, forked too, hold it a moment longer
        fcntl.flock(lock, fcntl.LOCK_EX)
    return end


def written(folder: Path) -> dict[str, Any]:
    """What a run leaves behind, but for places and what was measured in seconds."""
    page, costs, _ = (folder / "report.html").read_text().partition("Shares of the work")
    assert costs
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "report": re.sub(r"It took</p><strong>.*?</small>", "", page, flags=re.DOTALL),
        "metrics": (folder / JSONL).read_text() + (folder / CSV).read_text(),
        "told": {key: value for key, value in summary(folder).items() if key not in OF_ITS_OWN},
    }


# --- seconds --------------------------------------------------------------------------------------


def test_a_killed_session_loses_its_last_seconds_only(folder: Path) -> None:
    """Killed after 62 s, of which 60 stand in the manifest; the next session adds its own 10."""
    run, now = RunFolder(folder), [100.0]
    folder.mkdir()
    run.write_manifest({"run": "told", "wall_seconds": 1.0, "trainings": 2, "seconds": {}})

    killed = runner.Spent(run.read_manifest(), clock=lambda: now[0])
    for seconds in (2.0, 58.0, 1.0, 1.0):
        killed.stopwatch.add("learn", seconds)
        now[0] += seconds
        killed.look(run)
    next_one = runner.Spent(run.read_manifest(), clock=lambda: now[0])
    now[0] += 10.0

    assert next_one.so_far() == {
        "seconds": {"learn": 60.0},
        "wall_seconds": 71.0,
        "trainings": 4,
    }


# --- killed while the end is written down ---------------------------------------------------------


def test_every_end_has_a_name_in_the_list_and_every_name_an_end() -> None:
    """What the runner calls its moments is what infra/points.py lists, in their order."""
    tree = ast.parse(Path(runner.__file__).read_text())
    called = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hook"
        if isinstance(node.args[0], ast.Constant)
    ]

    assert tuple(called) == ENDS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is written after two stages, and after the third that an injection adds."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    before = written(ran(folder).path)
    told("inject", folder, *SEVEN)
    return [before, written(goes_on(folder).path)]


@pytest.mark.parametrize("point", ENDS)
def test_killed_while_its_end_is_written_a_run_is_not_done(
    undisturbed: list[dict[str, Any]], folder: Path, point: str
) -> None:
    """At its end and again at that of an injected stage: resume writes what was still to be."""
    for whole in undisturbed:
        ended = life(folder, Fuse(1, point))
        between = summary(folder)["status"]
        gone_on = life(folder, Fuse(-1))

        assert (ended, between, gone_on) == (KILLED, "stopped", 0)
        assert written(folder) == whole
        told("inject", folder, *SEVEN)


def test_a_manifest_that_is_older_than_the_log_is_not_believed(folder: Path) -> None:
    """It says done, and names the model before an injection whose stage is closed by now."""
    before = ran(folder).read_manifest()
    told("inject", folder, *SEVEN)
    whole = written(goes_on(folder).path)
    RunFolder(folder).write_manifest(before)
    (folder / "model.safetensors").unlink()

    stale = summary(folder)["status"]
    goes_on(folder)

    assert stale == "stopped"
    assert written(folder)["model"] == whole["model"]


def test_a_failure_is_over_when_somebody_goes_on(folder: Path) -> None:
    """It diverged; resumed by a learner that learns and killed then, it is stopped, without why."""
    with pytest.raises(Diverged):
        runner.start(two_stages(), folder, replace(local(folder), start_worker=Forked(MUTE)))
    failed = summary(folder)

    ended = life(folder, Fuse(1, "heard"))

    assert (failed["status"], ended) == ("diverged", KILLED)
    assert "learning rate" in failed["why"]
    after = summary(folder)
    assert (after["status"], after["why"]) == ("stopped", None)


# --- no room --------------------------------------------------------------------------------------


def test_a_disk_that_is_full_at_the_end_takes_nothing(small_disk: Path) -> None:
    """The model finds no room: a full disk in one line, no half file, and resume ends the run."""
    folder, ballast = small_disk / "run", small_disk / "ballast"

    def fill(point: str) -> None:
        if point == "finish:model":
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(DiskFull, match="make room, then resume"):
        runner.start(two_stages(), folder, replace(local(folder), hook=fill))
    left = sorted(file.name for file in folder.rglob("*.new"))
    ballast.unlink()

    assert left == []
    assert summary(folder)["status"] == "stopped"
    assert summary(goes_on(folder).path)["status"] == "done"


@pytest.mark.parametrize("name", ["model.safetensors", "prototypes-000-000.safetensors"])
def test_what_lies_in_the_way_of_tensors_is_named(folder: Path, name: str) -> None:
    """Somebody's folder where a file is to be written first: exit code 2, and the run stands."""

    def watch(run: Embedded) -> None:
        (folder / f"{name}.new").mkdir(exist_ok=True)

    with pytest.raises(ConfigurationError, match="cannot be written to"):
        runner.start(two_stages(), folder, local(folder), watch=watch)
    (folder / f"{name}.new").rmdir()

    assert summary(folder)["status"] == "failed"
    assert summary(goes_on(folder).path)["status"] == "done"


# --- metrics while it goes on ---------------------------------------------------------------------


def rounds(folder: Path) -> dict[str, int]:
    """Of how many rounds each file of metrics tells."""
    shown = EventAccumulator(str(folder / TENSORBOARD)).Reload()
    tags = shown.Tags()["scalars"]
    return {
        JSONL: len((folder / JSONL).read_text().splitlines()),
        CSV: len((folder / CSV).read_text().splitlines()) - 1,
        TENSORBOARD: len(shown.Scalars("test/accuracy")) if "test/accuracy" in tags else 0,
    }


def test_a_round_is_in_the_metrics_as_soon_as_it_was_scored(folder: Path) -> None:
    """Who watches sees four rounds come, one after the other, in every file."""
    seen: list[dict[str, int]] = []

    def watch(run: Embedded) -> None:
        if run.observer.line.opened and (now := rounds(folder)) not in seen:
            seen.append(now)

    runner.start(two_stages(), folder, local(folder), watch=watch)

    assert seen == [{JSONL: n, CSV: n, TENSORBOARD: n} for n in range(5)]


def test_who_reads_on_in_the_metrics_sees_what_comes(folder: Path) -> None:
    """As TensorBoard and `tail -f` do: a file that only grows stays the same file."""
    held: list[IO[bytes]] = []

    def watch(run: Embedded) -> None:
        file = folder / TENSORBOARD / EVENTS
        if not held and file.exists():
            held.append(file.open("rb"))

    runner.start(two_stages(stages=1, rounds_per_stage=4), folder, local(folder), watch=watch)

    with held[0] as reader:
        assert reader.read() == (folder / TENSORBOARD / EVENTS).read_bytes()


@pytest.mark.parametrize("closed", [1, 2, 3, 4])
def test_a_run_that_was_interrupted_has_metrics_and_ends_with_those_of_any(
    undisturbed: list[dict[str, Any]], folder: Path, closed: int
) -> None:
    """Interrupted when so many rounds were closed; resumed, it tells what any run tells."""
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=interrupted_after(closed))
    between = rounds(folder)

    goes_on(folder)

    assert between[JSONL] == between[CSV] == closed
    assert written(folder)["metrics"] == undisturbed[0]["metrics"]


def test_a_run_that_diverged_has_metrics(folder: Path) -> None:
    """Both rounds that came to nothing are in every file."""
    with pytest.raises(Diverged):
        runner.start(two_stages(), folder, replace(local(folder), start_worker=Forked(MUTE)))

    assert rounds(folder)[JSONL] == rounds(folder)[CSV] == 2
