"""What a Kafka node takes to start with the archive of its classes, and without.

    python benchmarks/node_start.py [--repeat 5] [--json]

A node on an empty folder is formatted, started and ended, in turns on jars that have an archive
(`infra.native.kafka.prepare` makes it anew first, and the seconds of that are told) and on the same
jars elsewhere. Beside the seconds of it all stand those of the processor that the node had taken
when it served. The ratios are of medians. It needs Java, and Maven the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from infra.native.kafka import Broker, archive, fetch, find_java, prepare
from infra.native.programs import alone, free_ports, stop
from schemas.errors import ServiceError

HOME = Path(".native")


def main() -> None:
    """Measure and print, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    try:
        find_java()
        with alone(HOME):
            libs = fetch(HOME)
    except ServiceError as error:  # the broker is somewhere else
        print(f"nothing to measure here: {error}")
        return
    archive(libs).unlink(missing_ok=True)
    began = time.monotonic()
    prepare(libs)
    made = time.monotonic() - began
    if not archive(libs).exists():
        raise SystemExit("this Java makes no archive of classes: there is nothing to compare")
    took: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory(dir=HOME) as name:  # of one disk: the jars are linked
        home = Path(name)
        shutil.copytree(libs, home / "libs", copy_function=os.link)
        for number in range(given.repeat):
            for way, jars in (("without", home / "libs"), ("with", libs)):
                took[way].append(started(home / f"{way}-{number}", jars))
    seconds, processor = ({way: middle(took[way], place) for way in took} for place in (0, 1))
    if given.json:
        print(json.dumps({"made": round(made, 2), "seconds": seconds, "processor": processor}))
        return
    print(f"the archive was made in {made:.1f} s")
    for what, of in (("seconds", seconds), ("of the processor", processor)):
        ratio = of["with"] / of["without"]
        print(f"{what}: {of['with']:.2f} with, {of['without']:.2f} without: {ratio:.2f} of it")


def started(folder: Path, jars: Path) -> tuple[float, float]:
    """Seconds until it served, and those that it then had taken of the processor."""
    began = time.monotonic()
    try:
        node = Broker(folder, jars, *free_ports(2)).start()
        seconds = time.monotonic() - began
        of = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    finally:
        stop(folder)
    return seconds, (int(of[11]) + int(of[12])) / os.sysconf("SC_CLK_TCK")


def middle(took: list[tuple[float, float]], place: int) -> float:
    """Of one of the two, over the repetitions."""
    return round(median(each[place] for each in took), 2)


if __name__ == "__main__":
    main()
