"""What the programs of a live federation hold after very many rounds.

    python benchmarks/live_memory.py [--seconds 240] [--width 6] [--images 0] [--json]

Starts `python -m aggregator`, a process that hosts four twins and one with the proxy; their workers
are done at once, so several rounds pass in a second, all in one stage. What each program holds is
told every 20 s, with the rounds that have closed by then; at last the bytes by which each has grown
for each round of the second half. With `--images` so many more of known classes come to each twin
at each look. It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from federation import CLASSES, ROOT, SITE, dataset, load, memory, recipe
from noop_round import TASKS, Quick, Tasks, update

from aggregator.aggregator import Opening
from aggregator.opening import write_opening
from infra.beginning import newest_start
from infra.memory import reuse
from infra.program import opened_as, run_opened, serve, surroundings
from infra.promises import Result, Role, Task
from infra.serve import System
from infra.settings import read_settings
from infra.store.sqlite import SqliteStore
from infra.topics import Administration, make_topics
from infra.transport.base import Transport
from infra.transport.clusters import connect, kafka_settings
from learning.shapes import HEAD_BIAS
from producers.entity import image_batch
from proxy.proxy import Proxy
from schemas.codec import records
from schemas.messages import Tensors
from schemas.schedule import Schedule
from schemas.topics import Names
from twins.twins import Twins

ENTITIES = tuple(f"{SITE}/entity-{number}" for number in range(4))
ROLES = ("aggregator", "twins", "proxy")
LOOK = 20.0  # seconds
AT_FIRST = 20  # images of each class
Programs = Mapping[str, subprocess.Popen[bytes]]


def main() -> None:
    """Measure and print, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--width", type=int, default=6, help="of the ResNet-18: 6 is 0.4 MB")
    parser.add_argument("--images", type=int, default=0, help="more for each twin at each look")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--host", choices=ROLES[1:], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.host:
        host(given.host)
        return
    found = []
    for seen in measure(given.seconds, given.width, given.images):
        found.append(seen)
        if not given.json:
            told = ", ".join(f"{role} {seen[role]:6.1f} MB" for role in ROLES)
            print(f"{seen['seconds']:5.0f} s, {seen['rounds']:5.0f} rounds: {told}", flush=True)
    growth = {role: grown(found, role) for role in ROLES}
    if given.json:
        print(json.dumps({"schema": 1, "seen": found, "bytes_a_round": growth}))
    else:
        told = ", ".join(f"{role} {size:.0f}" for role, size in growth.items())
        print(f"bytes a round, second half: {told}  ({load()})")


def grown(seen: list[dict[str, float]], role: str) -> float:
    """Bytes for each round, by the straight line that fits the second half best."""
    half = seen[len(seen) // 2 :]
    rounds, held = ([each[what] for each in half] for what in ("rounds", role))
    return float(np.polyfit(rounds, held, 1)[0]) * 1e6


def measure(seconds: float, width: int, images: int) -> Iterator[dict[str, float]]:
    """Seconds, rounds, and what each program holds, in megabytes, at each look."""
    names, closed = Names(f"bench-{uuid.uuid4().hex[:8]}"), 0
    with begun(names, width) as programs, closing(connect(read_settings(), site=True)) as log:
        _, run = opened_as(log, names)
        sent = dict.fromkeys(ENTITIES, 0)
        stream(log, names, run, sent, AT_FIRST * len(CLASSES))
        began, place = time.monotonic(), 0
        while time.monotonic() < began + seconds:
            time.sleep(LOOK)
            if images:
                stream(log, names, run, sent, images)
            log.wait(0.01)
            for stored in log.read(names.federation("rounds"), place, 2**30):
                place = stored.offset + 1
                closed += ".RoundClosed." in stored.record.headers.get("ce_type", "")
            if ended := [role for role, program in programs.items() if program.poll() is not None]:
                raise RuntimeError(f"{ended[0]} has ended")
            held = {role: memory(program.pid, "VmRSS") for role, program in programs.items()}
            yield {"seconds": time.monotonic() - began, "rounds": closed, **held}


@contextmanager
def begun(names: Names, width: int) -> Iterator[Programs]:
    """The programs of a federation, which go with this context, and its topics with them."""
    settings = kafka_settings(read_settings().kafka)
    data = dataset()
    configuration = recipe(
        len(ENTITIES), width=width, live=True, lr_schedule="constant", rounds_per_stage=10**6,
        n_min=AT_FIRST,
    )  # fmt: skip
    for cluster in ("federation", "site"):
        make_topics(settings, names, cluster, [SITE], ENTITIES)
    programs = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "opening.json"
        opening = Opening(configuration, data.facts(data.class_uids), Schedule(stages=()), (SITE,))
        write_opening(opening, file)
        aggregator = ("-m", "aggregator", "--process", "aggregator-1", "--opening", str(file))
        words = {role: (str(Path(__file__)), "--host", role) for role in ROLES[1:]}
        try:
            for role, told in {"aggregator": aggregator, **words}.items():
                environment = os.environ | {"FEDTWIN_RUN": names.run, "OMP_NUM_THREADS": "1"}
                programs[role] = subprocess.Popen(
                    [sys.executable, *told], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
                )
            yield programs
        finally:
            for program in programs.values():
                program.kill()
                program.wait()
            with closing(Administration(settings)) as administration:
                administration.rm(names)


def stream(log: Transport, names: Names, run: str, sent: dict[str, int], count: int) -> None:
    """So many images, of all classes, come to each twin."""
    for entity, first in sent.items():
        chance = np.random.Generator(np.random.PCG64(first))
        uids = tuple(CLASSES[number * len(CLASSES) // count] for number in range(count))
        images = chance.integers(0, 256, (count, 3, 32, 32), np.uint8)
        message = image_batch(run, "camera", first, images, uids)
        log.append(names.of_entity("samples", entity), records(message, source="bench")[1])
        sent[entity] = first + count


def host(role: str) -> None:
    """The process of a role: real but for its workers."""
    reuse()
    settings = read_settings()
    names = Names(settings.run)
    with closing(connect(settings, site=True)) as transport:
        opened = run_opened(transport, names)
        configuration = opened.configuration
        around = surroundings(configuration, opened.data, transport, names, store=SqliteStore())
        proxy, twins = Proxy(names, [SITE]), Twins(names, SITE, around.shelf, ENTITIES)
        hosted: Role = twins if role == "twins" else proxy
        workers = Quick(update(configuration, opened.data.channels), LIVE)

        def stood(system: System) -> None:
            around.shelf.stand(twins.standing if role == "twins" else proxy.line.standing)

        serve(
            hosted, around, workers, names, process=f"{role}-1", patience=float("inf"),
            each_turn=stood, start=newest_start(transport, names, around.max_bytes),
        )  # fmt: skip


def herd(answer: Tensors, task: Task) -> Result:
    """What is kept apart comes back."""
    return Result({"entropy": None}, {n: t for n, t in task.groups.items() if n == "apart"})


def held_out(answer: Tensors, task: Task) -> Result:
    """Everything is taken for the first class."""
    classes = len(task.groups["model"][HEAD_BIAS])
    counts = np.zeros((classes, classes), np.int64)
    each = {f"counts/{i}": {"counts": counts} for i in range(len(task.values["rows"]))}
    return Result({}, each)


LIVE: Tasks = {
    **TASKS, "herd": herd, "held-out": held_out,
}  # fmt: skip


if __name__ == "__main__":
    main()
