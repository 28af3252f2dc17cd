"""A program that is told to stop while it still imports what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.stopping import STOPPED, WORDS, stoppable_from_the_start

ROOT = Path(__file__).parents[2]
ROLES = ("aggregator", "producers", "proxy", "twins")
STATUS = Path("/proc/self/status")


def caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(mask, 16) & 1 << (number - 1))


@pytest.mark.skipif(not STATUS.exists(), reason="asks Linux which signals a process catches")
@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_still_imports_says_that_it_is_stopped(role: str, tmp_path: Path) -> None:
    """As it says later, and with that exit code. Nobody has told it of a Kafka, so it would have
    ended with another one before it catches signals otherwise."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FEDTWIN_")}
    program = subprocess.Popen(
        [sys.executable, "-m", role, "--run", "spring"],
        env=clean | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while program.poll() is None and not caught(program.pid, signal.SIGTERM):
        time.sleep(0.005)
    program.terminate()

    assert program.communicate(timeout=60)[1] == f"{role}: {WORDS}\n"
    assert program.returncode == STOPPED


def test_who_only_imports_a_role_keeps_its_own_signals() -> None:
    """Tests and runners do."""
    before = signal.getsignal(signal.SIGTERM)
    stoppable_from_the_start("aggregator.__main__")

    assert signal.getsignal(signal.SIGTERM) is before
