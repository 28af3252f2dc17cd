"""What a narrower wire saves, and what it costs in accuracy.

    python benchmarks/wires.py [--recipe smoke] [--seeds 2021 2022 2023] [--json]

Runs a recipe on each wire with each seed, embedded: a wire changes what travels, not how. Prints
the accuracy after each stage, means over the seeds and how far the wire's is from fp32's at the
same seed; the bytes of one update as it lies in the log, and of all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.api import run
from infra.transport.base import Transport
from infra.transport.embedded import Embedded
from schemas.tensors import WIRES
from schemas.topics import table_row

READ_BYTES = 4 * 1024 * 1024


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2021, 2022, 2023])
    parser.add_argument("--wire", nargs="+", default=list(WIRES), choices=WIRES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    found = []
    for seed in given.seeds:
        for wire in given.wire:
            found.append(measure(given.recipe, wire, seed))
            if not given.json:
                stages = "  ".join(f"{each:6.2f}" for each in found[-1]["accuracy"])
                print(f"seed {seed}, {wire}: {stages} %", flush=True)
    if given.json:
        print(json.dumps({"schema": 1, "found": found}))
    else:
        for wire in given.wire:
            print(told(wire, found))


def measure(recipe: str, wire: str, seed: int) -> dict[str, Any]:
    """One run: accuracy after each stage (%), and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        summary = run(recipe, run_dir=Path(folder), seed=seed, wire=wire)
        with closing(Embedded(Path(folder) / "run.sqlite")) as log:
            each = update_bytes(log)
    return {
        "wire": wire,
        "seed": seed,
        "accuracy": [stage["accuracy"] for stage in summary["stages"]],
        "update": each,
        "bytes_up": summary["bytes_up"],
        "bytes_down": summary["bytes_down"],
    }


def update_bytes(log: Transport) -> float:
    """What the updates that a run has left take in the log, each on average."""
    sizes: dict[str, int] = {}
    for topic in log.topics():
        if table_row(topic).name != "updates":
            continue
        place, end = log.first(topic), log.end(topic)
        while place < end:
            for stored in log.read(topic, place, READ_BYTES):
                place = stored.offset + 1
                update = stored.record.key.rpartition("/")[0]
                sizes[update] = sizes.get(update, 0) + len(stored.record.value)
    return mean(sizes.values())


def told(wire: str, found: Sequence[dict[str, Any]]) -> str:
    """A wire's line: means over the seeds."""
    runs = {each["seed"]: each for each in found if each["wire"] == wire}
    plain = {each["seed"]: each for each in found if each["wire"] == "fp32"}
    stages = list(zip(*(each["accuracy"] for each in runs.values()), strict=True))
    line = f"{wire}: " + ", ".join(f"stage {i} {mean(each):.2f} %" for i, each in enumerate(stages))
    if plain.keys() >= runs.keys():
        apart = [runs[seed]["accuracy"][-1] - plain[seed]["accuracy"][-1] for seed in runs]
        line += f" (to fp32 {mean(apart):+.2f}, from {min(apart):+.2f} to {max(apart):+.2f})"
    each, up = (mean(run[what] for run in runs.values()) for what in ("update", "bytes_up"))
    return f"{line}; an update {each / 1e3:.1f} kB, all {up / 1e6:.2f} MB up"


if __name__ == "__main__":
    main()
