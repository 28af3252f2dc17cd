"""What a thousand twins cost that have nothing to do: megabytes of the process that hosts them.

    python benchmarks/idle_twins.py [--twins 1000] [--json]

A run of two stages is brought to the first round of the second one: each twin has 300 images of
16x16 pixels in its log, and a memory of 100 exemplars. All roles do their real work, but nobody
learns: the tasks of the workers give back at once something of the right shape. Then a fresh
process hosts the twins alone and reads what they need. Its resident memory is measured before they
move in, when they have nothing to do, and after each has trained once; to be at most 50 MB more.
Takes some minutes, nearly all of them before the measurement.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from experiments.system import SITE, embedded, opening_of
from infra.promises import Result, Task
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.store.sqlite import SqliteStore
from infra.transport.embedded import Embedded
from producers.images import Dataset, Part
from schemas.configuration import Configuration
from schemas.limits import largest_message
from schemas.messages import Transforms
from schemas.tensors import update_of
from schemas.topics import Names
from twins.twins import Twins

IMAGES, MEMORY, SIDE = 300, 100, 16
CLASSES = tuple(f"class/{number}" for number in range(10))
MOST_MEGABYTES = 50.0
RUN = "idle"
IN_MEMORY = Path("/dev/shm")  # the disk would only slow down what comes before the measurement


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`; 1 where it is over the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--twins", type=int, default=1000, help="how many twins there are")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.twins)
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "run.sqlite"
        again = [sys.executable, __file__, "--prepare", str(path), "--twins", str(arguments.twins)]
        subprocess.run(again, check=True)
        megabytes = measure(path, arguments.twins)
    before = megabytes["before"]
    worst = max(megabytes.values()) - before
    told = f"{arguments.twins} twins add {worst:.1f} MB; to be at most {MOST_MEGABYTES:g} for 1000"
    if arguments.json:
        print(json.dumps({"schema": 1, "twins": arguments.twins, "megabytes": megabytes}))
    else:
        for what, size in megabytes.items():
            print(f"{what:<28}{size:9.1f} MB {size - before:+9.1f} MB")
        print(told)
    if worst > MOST_MEGABYTES * arguments.twins / 1000:
        sys.exit(told)


class Quick:
    """Workers that give a result at once; what `held` says is begun and never ends."""

    def __init__(self, held: Callable[[Task], bool] = lambda task: False) -> None:
        self.most = 0
        """How many tasks it takes at a time."""
        self.trained: list[int] = []
        """How many images each training was given."""
        self._held = held
        self._done: deque[tuple[object, Result]] = deque()

    @property
    def free(self) -> int:
        return self.most - len(self._done)

    def submit(self, id: object, task: Task) -> None:
        if not self._held(task):
            self._done.append((id, TASKS[task.name](task)))
            if task.name == "learn":
                self.trained.append(len(task.values["rows"]))

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        done = list(self._done)
        self._done.clear()
        return done

    def close(self) -> None:
        """Nothing is left to end."""


def judge(task: Task) -> Result:
    """Entropies, in nats."""
    return Result({"entropy": 1.0, "reference": 0.5, "reason": None}, {})


def herd(task: Task) -> Result:
    """The first images of each class."""
    groups = {}
    for name, tensors in task.groups.items():
        if name.startswith("class/"):
            chosen = np.arange(len(tensors["images"]))[: task.values["most"]]
            groups[name] = {"chosen": chosen, "images": tensors["images"][chosen]}
    return Result({}, groups)


def learn(task: Task) -> Result:
    """The base, as if it had been trained."""
    if len(task.groups["data"]["images"]) != len(task.values["rows"]):
        raise RuntimeError("images and labels do not fit each other")
    base = task.groups["model"]
    return Result({"measured": {"samples": 1.0}}, {"send/model": update_of(base, base, "fp32")})


def evaluate(task: Task) -> Result:
    """A confusion matrix of nothing."""
    rows = len(task.groups["model"]["fc.bias"])
    return Result({}, {"confusion": {"confusion": np.zeros((rows, rows), np.int64)}})


TASKS: Mapping[str, Callable[[Task], Result]] = {
    "judge": judge,
    "herd": herd,
    "learn": learn,
    "evaluate": evaluate,
}


def recipe(twins: int) -> Configuration:
    """Two stages of five classes, of which every twin gets all images, and one round each."""
    return Configuration(
        recipe=RUN,
        dataset=RUN,
        stages=2,
        classes_per_stage=len(CLASSES) // 2,
        rounds_per_stage=1,
        clients=twins,
        new_clients=0,
        clients_per_round=twins,
        iid=1.0,
        transition_fraction=1.0,
        memory=MEMORY,
        teacher="last",
        width=1,
    )


def dataset() -> Dataset:
    """Images that show nothing."""
    chance = np.random.Generator(np.random.PCG64(0))
    each = 2 * IMAGES // len(CLASSES)

    def part(count: int) -> Part:
        labels = np.arange(count * len(CLASSES)) % len(CLASSES)
        shape = (len(labels), 1, SIDE, SIDE)
        return Part(chance.integers(0, 256, shape, dtype=np.uint8), labels)

    return Dataset(
        name=RUN,
        train=part(each),
        validation=part(0),
        test=part(1),
        class_uids=CLASSES,
        class_names=CLASSES,
        transforms=Transforms(mean=(0.5,), std=(0.5,)),
        encoder_classes=len(CLASSES),
        licence="",
        citation="",
        version="1",
        sha256="0" * 64,
        public=True,
    )


def prepare(path: Path, twins: int) -> None:
    """Bring a run to where every twin is asked to train in the second stage, and leave it there."""
    configuration = recipe(twins)
    data = dataset()
    log, store = Embedded(path), SqliteStore(path)
    workers = Quick(held=lambda task: task.name == "learn" and task.values["stage"] == 1)
    workers.most = twins
    run = embedded(opening_of(configuration, data), data, log, store, workers, run=RUN)
    while run.system.step():
        pass
    asked = [id for id in run.system.in_work if id[0] == "learn"]
    if len(asked) != twins:
        raise RuntimeError(f"{len(asked)} of {twins} twins were asked to train")
    store.close()
    log.close()


def measure(path: Path, twins: int) -> dict[str, float]:
    """Resident megabytes before the twins move in, when they are idle, and when all trained."""
    log = Embedded(path)
    names = Names(RUN)
    most = largest_message(recipe(twins), dataset().facts())
    shelf = Shelf(log, names.federation("models"), most)
    around = Surroundings(log, shelf, most)
    workers = Quick()
    found = {"before": resident()}
    system = System([Twins(names, SITE, shelf)], around, workers)
    settle(system)
    found["idle"] = resident()
    workers.most = 2
    settle(system)
    found["all have trained once"] = resident()
    if workers.trained != [IMAGES + MEMORY] * twins:
        raise RuntimeError(
            f"{len(workers.trained)} twins trained, on {set(workers.trained)} images"
        )
    log.close()
    return found


def settle(system: System) -> None:
    """Go on until nobody can take a step."""
    while system.step() or any(session.behind for session in system.sessions):
        pass


def resident() -> float:
    """Megabytes of memory that this process holds, without what it could give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
