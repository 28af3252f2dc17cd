"""What the measurements over Kafka share: runs in which nobody learns, and the programs of a run.

It measures nothing by itself. It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.aggregator import Opening
from aggregator.opening import write_opening
from experiments.system import opening_of
from infra.kafka import KafkaSettings
from infra.settings import read_settings
from infra.topics import Administration, plan
from infra.transport.clusters import kafka_settings
from producers.images import Dataset, Part
from schemas.configuration import Configuration
from schemas.messages import Transforms
from schemas.topics import Names

ROOT = Path(__file__).parents[1]
SITE = "local"
CLASSES = tuple(f"class/{number}" for number in range(10))
WIDTH_OF = {"45": 64, "0.4": 6}
"""Megabytes of a ResNet-18 in float32 → its width."""
PATIENCE = 600.0  # seconds that anything may take here


def recipe(twins: int, **overrides: Any) -> Configuration:
    """One stage, in which every twin has all classes and takes part in every round."""
    told: dict[str, Any] = {
        "recipe": "bench",
        "dataset": "bench",
        "strategy": "fedavg",
        "stages": 1,
        "classes_per_stage": len(CLASSES),
        "rounds_per_stage": 2,
        "clients": twins,
        "new_clients": 0,
        "clients_per_round": twins,
        "iid": 1.0,
        "transition_fraction": 1.0,
        "memory": 0,
        "teacher": "none",
    }
    return Configuration(**told | overrides)


def dataset(side: int = 32, channels: int = 3, each: int = 8) -> Dataset:
    """Images that show nothing, `each` of a class."""
    chance = np.random.Generator(np.random.PCG64(0))

    def part(count: int) -> Part:
        labels = np.arange(count * len(CLASSES)) % len(CLASSES)
        shape = (len(labels), channels, side, side)
        return Part(chance.integers(0, 256, shape, dtype=np.uint8), labels)

    return Dataset(
        name="bench",
        train=part(each),
        validation=part(0),
        test=part(1),
        class_uids=CLASSES,
        class_names=CLASSES,
        transforms=Transforms(mean=(0.5,) * channels, std=(0.5,) * channels),
        encoder_classes=len(CLASSES),
        licence="",
        citation="",
        version="1",
        sha256="0" * 64,
        public=True,
    )


class Run:
    """A run's topics, its opening, and the programs that were started for it."""

    def __init__(self, configuration: Configuration, data: Dataset, folder: Path) -> None:
        self.settings: KafkaSettings = kafka_settings(read_settings().kafka)
        self.names = Names(f"bench-{uuid.uuid4().hex[:8]}")
        self.opening: Opening = opening_of(configuration, data)
        self.entities = self.opening.schedule.entities
        self.folder = folder
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self._opening = folder / "opening.json"
        write_opening(self.opening, self._opening)

    def make_topics(self) -> int:
        """Make the run's topics; gives how many."""
        planned = [
            each
            for cluster in ("federation", "site")
            for each in plan(self.names, cluster, [SITE], self.entities, self.settings)
        ]
        with closing(Administration(self.settings)) as administration:
            administration.apply(planned)
        return len(planned)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a Python program: `-m twins`, say, or a file; what it says goes into a file."""
        with (self.folder / f"{name}.log").open("wb") as said:
            self.programs[name] = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=os.environ | {"FEDTWIN_RUN": self.names.run, "OMP_NUM_THREADS": "1"},
                stdout=said,
                stderr=said,
            )
        return self.programs[name]

    def start_aggregator(self) -> subprocess.Popen[bytes]:
        """Start the program that opens the run."""
        words = ("-m", "aggregator", "--process", "aggregator-1", "--opening", str(self._opening))
        return self.start("aggregator", *words)

    def check(self) -> None:
        """Raises RuntimeError when a program has ended that should not have."""
        for name, program in self.programs.items():
            if program.poll() not in (None, 0):
                said = (self.folder / f"{name}.log").read_text()[-2000:]
                raise RuntimeError(f"{name} ended with {program.returncode}: {said}")

    def until(self, holds: Callable[[], bool], rest: float = 0.02) -> None:
        """Wait until something holds. Raises RuntimeError when a program fails, or for ever."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {PATIENCE:.0f} s")
            time.sleep(rest)

    def end(self) -> None:
        """End its programs and take its topics away."""
        for program in self.programs.values():
            program.kill()
            program.wait()
        with closing(Administration(self.settings)) as administration:
            administration.rm(self.names)


@contextmanager
def run(configuration: Configuration, data: Dataset) -> Iterator[Run]:
    """A run with its topics, which go with this context, and its programs with them."""
    with tempfile.TemporaryDirectory() as folder:
        made = Run(configuration, data, Path(folder))
        try:
            yield made
        finally:
            made.end()


def memory(pid: int, what: str = "VmHWM") -> float:
    """Megabytes that a process holds (VmRSS), or held at most (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024 / 1e6


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load() -> str:
    """What else the machine does, as one minute's load."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def ratio_of(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of the ratios of pairs that were measured one after the other."""
    return float(np.median([one / other for one, other in pairs]))
