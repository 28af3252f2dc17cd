"""The programs of a run are started, started again, believed and ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.processes import STARTS, Processes, Wanted
from schemas.errors import ConfigurationError, DataError, Diverged, FedtwinError, RunFailed

OBEDIENT = "tests.experiments.obedient"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Processes]:
    """They end with the test."""
    started = Processes(tmp_path / "logs", "spring")
    yield started
    started.end()


def test_who_is_killed_is_started_again(programs: Processes, tmp_path: Path) -> None:
    """Once, and then it ends by itself; that it was lost is told, and stands in its file."""
    told: list[str] = []
    programs.tell = told.append
    programs.start("twins-1", OBEDIENT, "once", str(tmp_path / "been"))
    programs.settle()

    assert (tmp_path / "been").exists()
    assert not programs.pids()
    assert told == ["twins-1 was ended by SIGKILL and is started again"]
    assert told[0] in (tmp_path / "logs" / "twins-1.log").read_text()


def test_who_is_killed_again_and_again_is_given_up(programs: Processes) -> None:
    """Six times by SIGKILL is no accident."""
    programs.start("twins-1", OBEDIENT, "killed")

    with pytest.raises(RunFailed, match=f"twins-1 was ended {STARTS} times.*SIGKILL"):
        programs.settle()


@pytest.mark.parametrize(
    ("code", "words", "kind", "said"),
    [
        ("2", "no key is called stags", ConfigurationError, "twins-1: no key is called stags"),
        ("4", "digits are broken", DataError, "twins-1: digits are broken"),
        ("1", "diverged: stage 0", Diverged, "diverged: stage 0"),
        ("70", "nobody knows", RunFailed, "twins-1: nobody knows"),
    ],
)
def test_who_ends_by_itself_has_said_why(
    programs: Processes, code: str, words: str, kind: type[FedtwinError], said: str
) -> None:
    """Its exit code is what kind of failure the run has, and its last line the reason."""
    programs.start("twins-1", OBEDIENT, code, words)

    with pytest.raises(kind) as caught:
        programs.settle()
    assert str(caught.value) == said


def test_all_end_with_the_run(programs: Processes) -> None:
    """Asked politely they go at once, and none is left."""
    programs.start("twins-1", OBEDIENT, "sleeps")
    programs.start("twins-2", OBEDIENT, "sleeps")
    pids = programs.pids()
    assert pids.keys() == {"twins-1", "twins-2"}
    began = time.monotonic()
    programs.end()

    assert time.monotonic() < began + 5
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_each_role_has_at_least_one() -> None:
    """A run without a proxy would wait for its first teacher for ever."""
    with pytest.raises(ConfigurationError, match="at least one"):
        Wanted(proxies=0)


def test_programs_of_one_machine_tell_metrics_at_a_port_each(
    programs: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the one on that the environment names; one that is started again keeps its own."""
    monkeypatch.setenv("FEDTWIN_METRICS_PORT", "9400")
    been = tmp_path / "been"
    programs.start("twins-1", OBEDIENT, "once", str(been), "FEDTWIN_METRICS_PORT")
    programs.start("twins-2", OBEDIENT, "0", "FEDTWIN_METRICS_PORT")
    programs.settle()

    said = [(tmp_path / "logs" / f"twins-{n}.log").read_text().splitlines() for n in (1, 2)]
    assert [each[-1] for each in said] == ["FEDTWIN_METRICS_PORT=9400", "FEDTWIN_METRICS_PORT=9401"]
    assert said[0].count("FEDTWIN_METRICS_PORT=9400") == 2
