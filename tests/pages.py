"""What a page tells its reader to type: blocks of `sh`, in order, in one shell.

Commands that take an engine, an hour or a reader's own files stand in blocks of `shell`: nobody
types them here, but each is taken apart, and what it names has to be there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import typer

from experiments.cli.app import app
from schemas.errors import ServiceError
from tests.services import jars
from tests.test_floors import ROOT

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS = 900.0  # for a whole page: three to four minutes, on a machine that is slow and busy more
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".native", ".services.json", "runs", ".*_cache", ".hypothesis",
    "*.pyc.*",  # which is just being written
)  # fmt: skip


def blocks(page: Path, language: str = "sh") -> list[str]:
    """The commands of a page, as they stand there. What it printed stands in blocks of `text`."""
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def languages(page: Path) -> list[str]:
    """What a page says of each of its blocks; nothing where it says nothing."""
    return [found for found, _ in BLOCK.findall(page.read_text())]


# --- typed ----------------------------------------------------------------------------------------


def checkout(folder: Path, *, services: bool) -> Path:
    """A checkout of its own, whose .venv is ours; for `services` with Kafka's jars, where we can
    have them.

    A reader has the first after the first `make`, the second after the first `make up`.
    """
    copy = folder / "fedtwin"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    (copy / ".venv").symlink_to((ROOT / ".venv").resolve())
    if services:
        with suppress(ServiceError):
            libs = jars()
            (copy / ".native").mkdir()
            (copy / ".native" / "libs").symlink_to(libs.resolve())
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


# --- taken apart ----------------------------------------------------------------------------------

SAID = re.compile(r"\w+=.*")
USAGE: Any = typer.BadParameter.__mro__[1]
"""What typer says of words that it does not take."""
MARKS, ASIDE = set("();<>|&"), set("<>")
BEFORE = {"do", "then", "else", "if", "while", "!", "{"}
"""Words of the shell behind which a command may stand."""


def wrong(block: str) -> list[str]:
    """What could not be typed in a block of `shell`: its grammar, targets, programs, options."""
    read = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    found = [read.stderr] if read.returncode else []
    for line in block.replace("\\\n", " ").splitlines():
        found += [f"{line}: {each}" for words in _parts(line) for each in _wrong(words)]
    return found


def _parts(line: str) -> Iterator[list[str]]:
    """The commands of a line, between its operators; what is read or written aside is left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    aside = False
    for token in lexer:
        if set(token) <= ASIDE or token in (">&", "&>"):
            aside = True
            if words and words[-1].isdigit():
                words.pop()  # 2>&1
        elif set(token) <= MARKS:
            yield words
            words = []
        elif aside:
            aside = False
        else:
            words.append(token)
    yield words


def _wrong(words: list[str]) -> Iterator[str]:
    while words and (SAID.fullmatch(words[0]) or words[0] in BEFORE):
        words = words[1:]
    match words:
        case ["make", *rest]:
            yield from _no_target(rest)
        case ["fedtwin", *rest]:
            yield from _no_command(rest)
        case ["python", "-m", role, *rest] if (ROOT / role / "__main__.py").exists():
            options = [each.partition("=")[0] for each in rest if each.startswith("--")]
            yield from (f"{role} has no {o}" for o in options if f'"{o}"' not in _program(role))


def _no_target(words: list[str]) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text()
    stack = (ROOT / "infra" / "deploy" / "compose.yaml").read_text()
    for word in words:
        name, said, value = word.partition("=")
        if not said and not re.search(rf"(?m)^{name}:", makefile):
            yield f"make has no target {name}"
        if said and f"$({name})" not in makefile and f"${{{name}:-" not in stack:
            yield f"nobody reads {name}"
        if name == "ARGS" and "compose-cli" in words:
            yield from _no_command(shlex.split(value))


def _no_command(words: list[str]) -> Iterator[str]:
    command = _commands()
    while words and (others := getattr(command, "commands", None)):
        if words[0] not in others:
            yield f"fedtwin has no command {words[0]}"
            return
        command, words = others[words[0]], words[1:]
    try:
        command.make_context("fedtwin", list(words))
    except typer.Exit:
        pass  # --help
    except USAGE as error:
        yield str(error)


@cache
def _commands() -> Any:
    return typer.main.get_command(app)


@cache
def _program(role: str) -> str:
    """What says the options of a role's program."""
    return (ROOT / role / "__main__.py").read_text() + (ROOT / "infra" / "program.py").read_text()
