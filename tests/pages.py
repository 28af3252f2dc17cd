"""What a page of docs/ tells its reader to type: blocks of `sh`, in order, in one shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.test_floors import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS = 280.0  # for a whole page
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".native", ".services.json", "runs", "__pycache__", ".*_cache", ".hypothesis"
)


def blocks(page: Path) -> list[str]:
    """The commands of a page, as they stand there. What it printed stands in blocks of `text`."""
    return BLOCK.findall(page.read_text())


def checkout(folder: Path) -> Path:
    """A checkout of its own, whose .venv is ours: what a reader has after the first `make`."""
    copy = folder / "fedtwin"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    (copy / ".venv").symlink_to((ROOT / ".venv").resolve())
    for made_from in ("pyproject.toml", "constraints.txt"):
        os.utime(copy / made_from, (0, 0))  # or `make` would install the copy into our .venv
    return copy


def typed(commands: list[str], folder: Path) -> tuple[int, str]:
    """Type them into one shell that stops at the first that fails; its exit code and words.

    The shell knows no address: what services a page needs, it brings up itself.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FEDTWIN_")
    }
    environment["PATH"] = f"{folder / '.venv/bin'}{os.pathsep}{environment['PATH']}"
    told = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return told.returncode, told.stdout


def leave(folder: Path) -> None:
    """End what services a page has left running, in the checkout or in a folder of it."""
    down = [str(folder / ".venv/bin/python"), "-m", "infra.native", "down"]
    for services in folder.rglob(".services.json"):
        home = {**os.environ, "PYTHONPATH": str(folder)}
        subprocess.run(down, cwd=services.parent, env=home, check=True, timeout=60)
