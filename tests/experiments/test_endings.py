"""Whatever a run comes to, programs read one object with the same keys, and people a way on."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from experiments import runner
from experiments.cli.runs import _announce
from experiments.estimate import Estimate
from experiments.folder import RunFolder
from experiments.processes import Wanted
from experiments.recipes import departures, recipe
from infra.workers import Forked, Function
from tests.experiments.hands import fedtwin, told
from tests.flows.learner import FAKES, silent

pytestmark = pytest.mark.usefixtures("blank_figures")

KEYS = {
    "schema", "run", "status", "stages", "average_accuracy", "forgetting", "detector", "teachers",
    "rounds", "bytes_up", "bytes_down", "images_per_second", "wall_seconds", "model_sha256",
    "run_dir",
}  # fmt: skip
"""What every ending of demo, run, resume and show promises to programs."""
SMALLER = [
    word
    for key in (
        "width=1", "image_size=8", "images_per_class=12", "clients=3", "clients_per_round=2",
        "classes_per_stage=3", "iid=0.67", "rounds_per_stage=2", "memory=12",
    )
    for word in ("-o", key)
]  # fmt: skip
MUTE: Mapping[str, Function] = {**FAKES, "learn": silent}
"""Every training comes to nothing, so that a run diverges in its second round."""
Learner = Callable[[Mapping[str, Function]], None]


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """Whose word it is which learner works behind the command line; at first one that learns
    nothing, quickly. The story is in a folder of its own."""

    def take(functions: Mapping[str, Function]) -> None:
        monkeypatch.setattr(runner, "ForkServer", lambda module, threads: Forked(functions))

    monkeypatch.chdir(tmp_path)
    take(FAKES)
    return take


def object_of(answered: Result) -> dict[str, Any]:
    """The one object on stdout."""
    (line,) = answered.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def beginning(command: str) -> list[str]:
    """The words that begin a small run in the folder `run`."""
    first = ["demo"] if command == "demo" else ["run", "tiny"]
    return [*first, "--run-dir", "run", *SMALLER]


@pytest.mark.usefixtures("learner")
@pytest.mark.parametrize("command", ["demo", "run"])
def test_every_command_about_a_run_promises_the_same_keys(command: str) -> None:
    """Begun by either, gone on with and looked at: one object, and the same."""
    begun = told(*beginning(command))
    resumed, shown = told("resume", "run"), told("show", "run")

    assert begun.keys() >= KEYS
    assert begun["status"] == "done"
    assert resumed == begun
    assert {key: shown[key] for key in begun} == begun


@pytest.mark.parametrize("command", ["demo", "run"])
def test_a_run_that_diverged_is_told_with_the_same_keys(learner: Learner, command: str) -> None:
    """Also when it is gone on with, which ends the same, and when somebody looks at it."""
    learner(MUTE)
    ended = [fedtwin(*beginning(command), "--json"), fedtwin("resume", "run", "--json")]
    shown = told("show", "run")

    for each in ended:
        found = object_of(each)
        assert found.keys() >= KEYS | {"error", "exit_code"}
        assert (each.exit_code, found["exit_code"], found["status"]) == (1, 1, "diverged")
        assert found["error"] == found["why"]
        assert found["rounds"] == 2
    assert shown.keys() >= KEYS
    assert shown["status"] == "diverged"


def test_a_run_that_failed_otherwise_is_told_with_the_same_keys(learner: Learner) -> None:
    """A worker that breaks ends it: failed, with the command that goes on, and done by that."""
    learner({**FAKES, "learn": _broken})

    ended = fedtwin(*beginning("run"), "--json")
    learner(FAKES)
    after = told(*shlex.split(ended.stderr.splitlines()[-1].removeprefix("next: fedtwin ")))

    found = object_of(ended)
    assert found.keys() >= KEYS | {"error", "exit_code"}
    assert (ended.exit_code, found["exit_code"], found["status"]) == (1, 1, "failed")
    assert after["status"] == "done"


def _broken(task: object) -> Any:
    raise RuntimeError("no such luck")


@pytest.mark.usefixtures("learner")
def test_a_second_runner_is_told_of_the_run_that_goes_on() -> None:
    """Exit code 2, and the object of the run that it wanted to go on with."""
    told(*beginning("run"))

    with RunFolder(Path("run")).locked():
        answered = fedtwin("resume", "run", "--json")

    found = object_of(answered)
    assert found.keys() >= KEYS | {"error", "exit_code"}
    assert (answered.exit_code, found["exit_code"], found["status"]) == (2, 2, "running")


@pytest.mark.usefixtures("learner")
def test_a_run_that_never_began_is_not_mixed_up_with_the_one_that_is_there() -> None:
    """The folder's run is done, which is not what came of the one that was refused."""
    told(*beginning("run"))

    found = object_of(fedtwin(*beginning("run"), "--json"))

    assert found.keys() == {"schema", "status", "error", "exit_code"}
    assert (found["status"], found["exit_code"]) == ("failed", 2)


# --- what to do next ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["demo", "run"])
def test_the_way_on_from_a_run_that_diverged_can_be_copied(learner: Learner, command: str) -> None:
    """The same run in the same place with a tenth of the rate, whoever is asked."""
    learner(MUTE)
    private = ["-o", "report_prototypes=false", "--seed", "7"]
    errors = fedtwin(*beginning(command), *private).stderr.splitlines()
    shown = fedtwin("show", "run").stdout.splitlines()
    before = RunFolder(Path("run")).read_manifest()

    learner(FAKES)
    again = told(*shlex.split(errors[-1].removeprefix("next: fedtwin ")))

    after = RunFolder(Path("run")).read_manifest()
    assert errors[-1] == shown[-1]
    assert again["status"] == "done"
    assert after["configuration"] == before["configuration"] | {"learning_rate": 0.05}
    assert after["report_prototypes"] is False


@pytest.mark.parametrize(
    ("name", "preset", "keys"),
    [
        ("smoke", None, {}),
        ("tiny", "literal", {"perturb.steps": 3, "keep_rounds": "all", "encoder_classes": 12}),
        ("organamnist", None, {"organ_tail": True, "seed": 5}),
    ],
)
def test_a_recipe_and_what_departs_from_it_make_the_same_again(
    name: str, preset: str | None, keys: dict[str, object]
) -> None:
    """Only what departs is named: nothing of a recipe as it is."""
    own = recipe(name, preset, keys)

    found = departures(own)

    assert recipe(name, overrides=found) == own
    assert bool(found) == bool(preset or keys)


# --- what a run will take -------------------------------------------------------------------------


def announced(wanted: Wanted | None) -> str:
    """What is said before a run of 100 s on one core begins, with two workers."""
    out = io.StringIO()
    estimate = Estimate(10, 1, 100.0, 5_000_000, 100_000_000, 400_000_000)
    _announce(Console(file=out, width=300), Path("run"), estimate, 2, wanted)
    return out.getvalue().strip()


def test_an_estimate_says_what_it_is_of() -> None:
    """Over Kafka the time is that of one process, and said to be; memory is that of all programs:
    five (twins, aggregator, proxy, producers, and the one that reports), and five workers."""
    assert announced(None) == (
        "run: about 70 s with 2 workers, 5 MB of disk, 900 MB of memory; 1 image in 10 steps"
    )
    assert announced(Wanted()) == (
        "run: more than the 70 s that one process with 2 workers would take, as 5 programs start"
        " and their messages travel; 5 MB of disk, most of it the broker's; 2.5 GB of memory;"
        " 1 image in 10 steps"
    )


# --- what a demo replaces -------------------------------------------------------------------------


@pytest.mark.usefixtures("learner")
def test_a_demo_replaces_a_demo_and_no_other_run() -> None:
    """In a folder of a run of its own kind it begins anew; any other run is somebody's work."""
    told("demo", "--run-dir", "mine", *SMALLER)
    again = told("demo", "--run-dir", "mine", "--seed", "7", *SMALLER)
    told(*beginning("run"))
    model = Path("run/model.safetensors").read_bytes()

    refused = fedtwin(*beginning("demo"))

    assert again["seed"] == 7
    assert refused.exit_code == 2
    assert "holds a run of tiny" in refused.stderr
    assert refused.stderr.splitlines()[-1] == "next: fedtwin resume run"
    assert Path("run/model.safetensors").read_bytes() == model


@pytest.mark.usefixtures("learner")
def test_an_option_comes_before_the_same_key_of_o() -> None:
    """`--workers 2` is what somebody types behind a command that a script has written."""
    answered = fedtwin(*beginning("run"), "-o", "workers=4", "--workers", "2")

    assert answered.exit_code == 0
    assert "with 2 workers" in answered.stderr
