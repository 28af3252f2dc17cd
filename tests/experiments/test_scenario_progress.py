"""How far a scenario is outlives who follows it, and so do its programs, until they are ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.scenario_progress import FILE, Progress
from schemas.errors import DataError


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A program that would run for long."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield program
    program.kill()
    program.wait()


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    """Nothing at first, and nothing when it is over."""
    assert Progress.kept(tmp_path) is None

    Progress(tmp_path, "a" * 64, 12.5, {0, 2}).keep({})
    assert Progress.kept(tmp_path) == Progress(tmp_path, "a" * 64, 12.5, {0, 2})

    Progress(tmp_path).over()
    assert Progress.kept(tmp_path) is None


def test_programs_that_were_left_are_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """By number and by when they were started."""
    Progress(tmp_path).keep({"twins-north": sleeper.pid})
    kept = Progress.kept(tmp_path)
    assert kept is not None

    assert kept.end_programs() == ["twins-north"]
    assert sleeper.wait(5) < 0
    assert kept.end_programs() == []


def test_who_has_the_number_of_one_that_is_gone_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """It was started at another time."""
    progress = Progress(tmp_path, programs={"twins-north": (sleeper.pid, "1")})

    assert progress.end_programs() == []
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "[]", '{"run": "a"}', '{"programs": {"a": 1}}'])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    """Nobody guesses what was done."""
    (tmp_path / FILE).write_text(text)

    with pytest.raises(DataError, match="--fresh begins anew"):
        Progress.kept(tmp_path)
