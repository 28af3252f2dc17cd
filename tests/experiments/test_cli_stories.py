"""Whole afternoons at the command line, each command a process of its own. Slow: real trainings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from experiments.api import resume, run, show
from producers.datasets import load

pytestmark = pytest.mark.slow
PATIENCE = 600  # seconds for any one command, on a machine that is busy with others
TIMES = {"wall_seconds", "images_per_second", "seconds"}
SMALLER = [
    word
    for key in (
        "width=2", "images_per_class=30", "clients=4", "clients_per_round=2", "rounds_per_stage=2",
        "local_epochs=1", "memory=40", "recon_steps=20", "proto_per_class=1",
    )
    for word in ("-o", key)
]  # fmt: skip
"""Keys that make a run one of seconds."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which these afternoons are spent."""
    return tmp_path_factory.mktemp("afternoon")


def begin(place: Path, *words: str) -> subprocess.Popen[str]:
    """A command, as it goes on."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.cli", *words],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fedtwin(place: Path, *words: str) -> str:
    """What a command prints on stdout, once it has ended well."""
    process = begin(place, *words)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return out


def told(place: Path, *words: str) -> dict[str, Any]:
    """The one object that a command prints with --json."""
    (line,) = fedtwin(place, *words, "--json").splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Any]:
    """The recipe tiny, undisturbed."""
    return told(place, "run", "tiny")


def after_a_round(process: subprocess.Popen[str]) -> str:
    """What a run has said on stderr once its first round is closed."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "rounds" in line:
            return said
    raise AssertionError(f"the run ended before its first round: {said}")


def test_the_demo_says_the_same_twice(place: Path) -> None:
    """It begins anew each time, ends with a report, and only its times differ."""
    first, again = told(place, "demo", *SMALLER), told(place, "demo", *SMALLER)

    assert (place / again["report"]).read_text().startswith("<!doctype html>")
    assert first["status"] == again["status"] == "done"
    for key in TIMES:
        del first[key], again[key]
    assert first == again


def test_a_killed_run_ends_in_the_same_model(place: Path, whole: dict[str, Any]) -> None:
    """kill -9 after a round; nothing can be said then, and nothing is lost."""
    process = begin(place, "run", "tiny", "--run-dir", "killed")
    after_a_round(process)
    process.kill()
    process.communicate(timeout=PATIENCE)

    stopped = told(place, "show", "killed")
    resumed = told(place, "resume", "killed", "--workers", "1")

    assert process.returncode == -signal.SIGKILL
    assert stopped["status"] == "stopped"
    assert 1 <= stopped["rounds"] < whole["rounds"]
    assert resumed["model_sha256"] == whole["model_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(place: Path, number: signal.Signals) -> None:
    """Ctrl-C, or a machine that shuts down: exit code 130, and the command that goes on; a program
    gets the run's object as far as it is."""
    folder = f"ended-{number.name.lower()}"
    process = begin(place, "run", "tiny", "--run-dir", folder, "--json")
    after_a_round(process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=PATIENCE)

    stopped = told(place, "show", folder)

    assert process.returncode == 130
    found = json.loads(out)
    assert (found.pop("error"), found.pop("exit_code")) == (
        "interrupted; what was written stands",
        130,
    )
    assert {key: stopped[key] for key in found} == found
    assert errors.splitlines()[-1] == f"next: fedtwin resume {folder}"
    assert "Traceback" not in errors
    assert stopped["status"] == "stopped"


def test_a_run_learns_a_class_that_comes_later(place: Path) -> None:
    """One stage, then an injection of two further digits: resume goes on with one stage more,
    and the model that comes of it is asked about a picture and taken elsewhere."""
    before = told(place, "run", "tiny", "--run-dir", "later", "-o", "stages=1", *SMALLER)
    added = told(
        place, "inject", "later", "--entity", "entity-002", "--classes", "5,6", "--images", "60"
    )
    after = told(place, "resume", "later")
    digits = load("digits", place, image_size=16)
    Image.fromarray(digits.test.images[0, 0]).resize((40, 40)).save(place / "digit.png")
    asked = told(place, "predict", "later", "digit.png")
    taken = told(place, "export", "later", "--out", "mine")["exported"]
    again = told(place, "predict", "mine.safetensors", "digit.png")

    assert added["stage"] == 1
    assert [len(before["stages"]), len(after["stages"])] == [1, 2]
    assert after["stages"][1]["classes"] == ["5", "6"]
    assert after["untested_classes"] == []
    assert after["model_version"] > before["model_version"]
    assert asked["predictions"] == again["predictions"]
    assert asked["model_sha256"] == after["model_sha256"]
    assert [each["format"] for each in taken] == ["safetensors", "onnx"]
    assert all((place / each["facts"]).exists() for each in taken)


def test_python_returns_what_the_command_line_prints(place: Path) -> None:
    """The documented functions and --json tell one and the same object."""
    keys = {key: yaml.safe_load(value) for key, value in (e.split("=") for e in SMALLER[1::2])}
    folder = place / "from python"

    returned = run("tiny", run_dir=folder, workers=1, stages=1, **keys)

    assert resume(folder) == returned
    shown = told(place, "show", str(folder))
    assert {key: shown[key] for key in returned} == returned
    assert show(folder) == shown


def test_the_doctor_finds_this_machine_fit(place: Path) -> None:
    """These tests run here, so a run does; what is absent has its remedy."""
    found = told(place, "doctor")

    assert found["fit"]
    assert all(check["remedy"] for check in found["checks"] if not check["fine"])


TENSOR = r"(?:\w+\.)+(?:weight|bias|running_mean|running_var)"


def test_a_run_that_diverges_ends_with_1_and_is_remembered(place: Path) -> None:
    """A learning rate without measure: what, where, which tensor of whose, and a smaller one as the
    remedy, in a command that can be copied."""
    process = begin(place, "run", "tiny", "--run-dir", "wild", "-o", "learning_rate=1e30", *SMALLER)
    _, errors = process.communicate(timeout=PATIENCE)

    shown = told(place, "show", "wild")

    assert process.returncode == 1
    assert "diverged: stage 0, round 1, learning rate" in errors
    named = re.search(rf"\((local/entity-\d+): [a-z-]+: ({TENSOR})\[\d+\] is ", errors)
    assert named, errors
    assert errors.splitlines()[-1].startswith("next: fedtwin run tiny -o")
    assert errors.splitlines()[-1].endswith(" --run-dir wild --fresh")
    assert "-o learning_rate=0.5 " in errors.splitlines()[-1]
    assert shown["status"] == "diverged"
    assert "smaller learning_rate" in shown["why"]
