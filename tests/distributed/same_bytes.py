"""One recipe in one process, over Kafka in many ways, and replayed.

    python -m tests.distributed.same_bytes [--data-dir DIR] [--recipe NAME] [-o KEY=VALUE ...]

    --data-dir DIR   where CIFAR-100 lies (FEDTWIN_DATA_DIR)
    --recipe NAME    another recipe than cifar100-small, with its keys behind -o

Prints a hash a line, and ends with 1 unless all are one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FEDTWIN = Path(sys.executable).with_name("fedtwin")
KEYS = ["clients=3", "new_clients=0", "stages=2", "rounds_per_stage=2"]
MANY = ["--twins", "2", "--aggregators", "2", "--proxies", "2"]
KAFKA = ["--transport", "kafka", "--fresh"]
WAYS = {"one process": [], "a process for each role": KAFKA, "two of each": [*KAFKA, *MANY]}


def main() -> None:
    """Run it in each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--recipe", default="cifar100-small")
    parser.add_argument("-o", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    keys = [*(KEYS if given.recipe == "cifar100-small" else []), "keep_rounds=all", *given.o]
    words = ["run", given.recipe, *(word for key in keys for word in ("-o", key))]
    words += ["--data-dir", given.data_dir] if given.data_dir else []
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, more in WAYS.items():
            if more:
                told("topics", "rm", f"{given.recipe}-fedka-2021", "--yes")
            run = Path(folder) / way.replace(" ", "-")
            found[way] = told(*words, *more, "--run-dir", run)["model_sha256"]
            print(f"{found[way]}  {way}", flush=True)
        replayed = told("replay", run)
        summed = f"replayed from Kafka, {replayed['summed']} sums redone"
        found[summed] = replayed["model_sha256"] if replayed["equal"] else "other bytes"
        print(f"{found[summed]}  {summed}")
    sys.exit(len(set(found.values())) != 1)


def told(*words: Any) -> dict[str, Any]:
    """What a command says as JSON; its own words go to the screen."""
    command = [str(FEDTWIN), *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()
