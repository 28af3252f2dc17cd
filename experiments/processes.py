"""The programs of a run over Kafka, started, watched and ended by whoever began the run.

Each role is a process of its own, with its words in a file of the run folder. One that is killed is
started again: it goes on from the log. One that ends by itself with an exit code has said why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import (
    ConfigurationError,
    DataError,
    Diverged,
    FedtwinError,
    RunFailed,
    ServiceError,
)

STARTS = 6
"""How often a program is started before its end is believed."""
METRICS_PORT = "FEDTWIN_METRICS_PORT"
PATIENCE = 8.0  # seconds in which a program that was asked to end should have
ERRORS: Mapping[int, type[FedtwinError]] = {
    kind.exit_code: kind for kind in (RunFailed, ConfigurationError, ServiceError, DataError)
}


@dataclass(frozen=True)
class Wanted:
    """How many programs of each role."""

    twins: int = 1
    aggregators: int = 1
    proxies: int = 1

    def __post_init__(self) -> None:
        if min(self.twins, self.aggregators, self.proxies) < 1:
            raise ConfigurationError("each role needs at least one process")

    @property
    def programs(self) -> int:
        """All of them, with the producers and whoever watches and reports."""
        return self.twins + self.aggregators + self.proxies + 2

    def workers(self, count: int) -> int:
        """Worker processes when each program that trains or rebuilds may have so many busy."""
        return (self.twins + self.proxies) * count + 1


@dataclass(frozen=True)
class Asked:
    """What a run asks of Kafka. Raises ConfigurationError where it is first used."""

    compression: str | None = None
    """Of what its programs write."""
    replication: int | None = None
    min_insync: int | None = None
    """Of the topics that it makes."""


@dataclass
class Program:
    """A program of the run, which may have been started several times."""

    name: str
    words: Sequence[str]
    """Its module, and its arguments."""
    process: subprocess.Popen[bytes]
    starts: int = 1
    over: bool = False


@dataclass
class Processes:
    """All programs of one run on this machine."""

    folder: Path
    """For what they say: a file each."""
    run: str
    tell: Callable[[str], None] = lambda text: None
    """Given a line when a program was lost."""
    always: Sequence[str] = ()
    """Words for each of them."""
    _programs: list[Program] = field(default_factory=list)
    _ports: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        """Start `python -m WORDS --process NAME`, with the words for each of them."""
        words = (*words, *self.always, "--process", name)
        self._programs.append(Program(name, words, self._begin(name, words)))

    def look(self) -> None:
        """Start again what was killed. Raises what a program ended with by itself."""
        for program in self._programs:
            code = program.process.poll()
            if code is None or program.over:
                continue
            if code == 0:
                program.over = True
            elif code < 0 and program.starts < STARTS:
                program.starts += 1
                self._note(program, code)
                program.process = self._begin(program.name, program.words)
            else:
                raise self._error(program, code)

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until all have ended by themselves, for the run is over. Raises as `look` does."""
        until = time.monotonic() + seconds
        while not all(each.over for each in self._programs) and time.monotonic() < until:
            self.look()
            time.sleep(0.02)

    def end(self) -> None:
        """End all that still run: asked first, then killed."""
        running = [each.process for each in self._programs if each.process.poll() is None]
        for process in running:
            process.terminate()
        until = time.monotonic() + PATIENCE
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def pids(self) -> dict[str, int]:
        """Name → process id, of those that run."""
        found = [each for each in self._programs if each.process.poll() is None]
        return {each.name: each.process.pid for each in found}

    def _begin(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | {"FEDTWIN_RUN": self.run} | self._metrics(name),
                process_group=0,  # Ctrl-C in a terminal is the runner's alone
            )

    def _metrics(self, name: str) -> dict[str, str]:
        """Programs on one machine have a port each for their metrics: those from the first on."""
        first = os.environ.get(METRICS_PORT)
        if not first or not first.isdecimal() or not int(first):
            return {}
        self._ports.setdefault(name, int(first) + len(self._ports))
        return {METRICS_PORT: str(self._ports[name])}

    def _note(self, program: Program, code: int) -> None:
        """That a program was lost stands in its own file, and is told at once."""
        text = f"{program.name} was ended by {signal.Signals(-code).name} and is started again"
        with self._log(program.name).open("a") as said:
            said.write(f"runner: {text}\n")
        self.tell(text)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _error(self, program: Program, code: int) -> FedtwinError:
        """What a program ended with, in its own last words."""
        lines = self._log(program.name).read_text(errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        if code < 0:
            name = signal.Signals(-code).name
            return RunFailed(
                f"{program.name} was ended {program.starts} times, the last time by {name}: is"
                f" there enough memory? {self._log(program.name)} holds its words"
            )
        text = said.partition(": ")[2] if said.startswith(f"{program.words[0]}: ") else said
        kind = Diverged if text.startswith("diverged") else ERRORS.get(code, RunFailed)
        return kind(f"{program.name}: {text}" if kind is not Diverged else text)
