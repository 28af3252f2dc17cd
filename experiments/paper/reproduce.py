"""Runs what a table still lacks: side by side, each a process of its own, stored when it ends.

A run lies in a folder of its own until its line is stored. Whatever stops this in its midst, the
next time it goes on with what is there; a run whose line is stored is never repeated.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from experiments.folder import RunFolder
from experiments.memo import MEMORY
from experiments.paper.results import Result, add, identity, of_folder, read
from experiments.paper.tables import Table
from experiments.recipes import departures, run_name
from schemas.configuration import Configuration
from schemas.errors import FedtwinError, RunFailed

LOOK = 0.5  # seconds between two looks at the processes
PATIENCE = 30.0  # seconds that a run has to end when it is told to


@dataclass(frozen=True)
class Planned:
    """A run that some row of a table asks for."""

    configuration: Configuration
    evaluate_on: str = "test"

    @property
    def identity(self) -> str:
        return identity(self.configuration, self.evaluate_on)

    @property
    def name(self) -> str:
        """Of its folder: its run's, and what tells it from others of that name."""
        return f"{run_name(self.configuration)}-{self.identity[:8]}"


def planned(tables: Iterable[Table], seeds: Sequence[int], evaluate_on: str) -> list[Planned]:
    """Every run of these tables, each once: all methods at one seed before the next seed."""
    found: dict[str, Planned] = {}
    tables = list(tables)
    for seed in seeds:
        for table in tables:
            for row in table.rows:
                run = Planned(table.configuration(row, seed), evaluate_on)
                found.setdefault(run.identity, run)
    return list(found.values())


@dataclass
class Machine:
    """Where runs are made, and how many at a time."""

    folder: Path
    """Holds a folder for each run that is not stored yet."""
    data_dir: Path
    jobs: int
    tell: Callable[[str], None]
    keep: bool = False
    """Keep the folders of stored runs, and trainings that nobody waits for."""
    _running: dict[Path, tuple[Planned, subprocess.Popen[bytes]]] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)
    """Locks of trainings, by seed: who has one may still ask for what lies there."""

    def run(self, runs: Sequence[Planned], store: Path) -> Iterator[Result]:
        """See the runs through, and give each once it is stored.

        One that fails stops no other; RunFailed at the end names those that did.
        """
        waiting, failed = deque(runs), list[str]()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    self._begin(waiting.popleft(), store)
                time.sleep(LOOK)
                for folder, (run, process) in list(self._running.items()):
                    if process.poll() is None:
                        continue
                    del self._running[folder]
                    result = self._ended(folder, run, process, store)
                    if result:
                        yield result
                    else:
                        failed.append(run.name)
                    self._let_go(run.configuration.seed, waiting)
        finally:
            self._stop()
        if failed:
            raise RunFailed(
                f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; what each said is"
                f" in {self.folder}/NAME.log, and the same command goes on with them"
            )

    def _begin(self, run: Planned, store: Path) -> None:
        folder = self.folder / run.name
        if run.identity in {each.identity for each in read(store)}:
            self.tell(f"stored meanwhile: {run.name}")
            return
        if RunFolder(folder).running:
            self.tell(f"left to who runs it already: {run.name}")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "experiments.cli", *_words(run, folder, self.data_dir)]
        with (self.folder / f"{run.name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MEMORY: str(self._trainings(run.configuration.seed))},
                start_new_session=True,  # Ctrl-C reaches this program, which tells them in turn
            )
        self._running[folder] = run, process
        self.tell(f"begun: {run.name}")

    def _ended(
        self, folder: Path, run: Planned, process: subprocess.Popen[bytes], store: Path
    ) -> Result | None:
        try:
            result = of_folder(folder)
        except FedtwinError as error:
            self.tell(f"failed: {run.name} (exit {process.returncode}): {error}")
            return None
        add(store, result)
        if not self.keep:
            shutil.rmtree(folder)
            (self.folder / f"{run.name}.log").unlink(missing_ok=True)
        return result

    def _trainings(self, seed: int) -> Path:
        """Where runs at a seed find the trainings that they have in common; locked from here on."""
        trainings = self.folder / "trainings" / str(seed)
        if seed not in self._held:
            trainings.parent.mkdir(parents=True, exist_ok=True)
            self._held[seed] = os.open(trainings.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._held[seed], fcntl.LOCK_SH)
        return trainings

    def _let_go(self, seed: int, waiting: Iterable[Planned]) -> None:
        """Delete the trainings of a seed of which no run is left; one that failed trains anew.

        Where another `reproduce` in this folder still has runs at the seed, that one deletes them.
        """
        left = [*waiting, *(run for run, _ in self._running.values())]
        if any(run.configuration.seed == seed for run in left) or seed not in self._held:
            return
        with suppress(BlockingIOError):
            fcntl.flock(self._held[seed], fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.keep:
                shutil.rmtree(self._trainings(seed), ignore_errors=True)
        os.close(self._held.pop(seed))

    def _stop(self) -> None:
        """End what goes on; each run can be gone on with."""
        for _, process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()  # not SIGINT, which a shell may have them ignore
        for _, process in self._running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        while self._held:
            os.close(self._held.popitem()[1])


def _words(run: Planned, folder: Path, data_dir: Path) -> list[str]:
    """The command of a run that begins, or goes on."""
    same = ["--data-dir", str(data_dir), "--workers", "1", "--quiet"]
    if RunFolder(folder).exists:
        return ["resume", str(folder), *same]
    keys = departures(run.configuration) | {"evaluate_on": run.evaluate_on}
    own = [word for key, value in keys.items() for word in ("-o", f"{key}={json.dumps(value)}")]
    return ["run", run.configuration.recipe, *own, "--run-dir", str(folder), *same]
