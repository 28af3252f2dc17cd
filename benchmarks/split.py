"""Where a run's time went: the share of each kind of work, read from its folder.

    python benchmarks/split.py [RUN ...] [--json]

Of a run of `cifar100-small`, log, codec, aggregation, detection and evaluation together are to take
under 10 % of all measured work, and reconstruction at most 10 %; a run's report shows the same
shares. Workers work side by side, so the work may be more than the wall time: both are printed.

Without a RUN the demo is run, in a folder that goes away again: it is to end within 60 s on two
cores. Its shares are only printed, for its recipe reconstructs longer and trains less; that those
of `cifar100-small` were not looked at is said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.folder import RunFolder
from experiments.measures import measure

BOUND, MOST_PERCENT = "cifar100-small", {"bookkeeping": 10.0, "reconstruction": 10.0}
DEMO, MOST_SECONDS = "demo", 60.0


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`; exit with 1 if over a bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()

    found = [split(run) for run in arguments.runs] or [of_a_demo()]
    if arguments.json:
        print(json.dumps({"schema": 1, "runs": found}))
    else:
        for each in found:
            show(each)
        if not arguments.runs:
            print(f"the bounds of {BOUND} were not looked at: name a finished run of it")
    if over := [reason for each in found for reason in too_much(each)]:
        sys.exit("; ".join(over))


def of_a_demo() -> dict[str, Any]:
    """The split of a demo that is run for it, by a process of its own as a person's would be."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "demo"
        fedtwin = Path(sys.executable).with_name("fedtwin")
        subprocess.run(
            [fedtwin, "demo", "--run-dir", folder, "--json"], check=True, stdout=subprocess.DEVNULL
        )
        return split(folder)


def split(run: Path) -> dict[str, Any]:
    """A run's wall time, its measured work in seconds, and the percent of it by kind."""
    folder = RunFolder(run)
    manifest = folder.read_manifest()
    seconds, wall = manifest.get("seconds") or {}, manifest.get("wall_seconds") or 0.0
    return {
        "run": manifest["run"],
        "recipe": manifest["configuration"]["recipe"],
        "wall_seconds": wall,
        "work_seconds": sum(seconds.values()),
        "shares": measure(folder.observed(), seconds, wall, manifest.get("trainings")).shares,
    }


def show(found: dict[str, Any]) -> None:
    """One run as a small table."""
    print(
        f"{found['run']}: {found['wall_seconds']:.1f} s, {found['work_seconds']:.1f} s of work"
        + ("" if found["shares"] else "; nothing was measured yet")
    )
    for kind, percent in found["shares"].items():
        bounded = found["recipe"] == BOUND and kind in MOST_PERCENT
        bound = f"   to be at most {MOST_PERCENT[kind]:g} %" if bounded else ""
        print(f"  {kind:<16}{percent:6.1f} %{bound}")


def too_much(found: dict[str, Any]) -> list[str]:
    """What is over its bound, in words."""
    if found["recipe"] == DEMO and found["wall_seconds"] > MOST_SECONDS:
        return [f"the demo took {found['wall_seconds']:.1f} s; to be at most {MOST_SECONDS:g} s"]
    if found["recipe"] != BOUND:
        return []
    return [
        f"{kind} took {found['shares'][kind]:.1f} % of {found['run']}; at most {most:g} %"
        for kind, most in MOST_PERCENT.items()
        if found["shares"].get(kind, 0.0) > most
    ]


if __name__ == "__main__":
    main()
