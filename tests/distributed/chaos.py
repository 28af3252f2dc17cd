"""Every role killed at every point, as a table: python -m tests.distributed.chaos [--out FILE].

One run of `tiny` for each pair. It has to end in the undisturbed model, each update counted once.
What a role never comes by is told as such. The faults of services are in
tests/distributed/test_faults.py, which `make chaos` runs as well.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from infra.points import POINTS, PROGRAMS
from tests.distributed.federation import (
    ROLES,
    Federation,
    Zygote,
    ended_as_undisturbed,
    tiny,
    undisturbed,
)

TIMES = 2
"""How often a point is passed before; where it is passed once only, that once."""


class Case(NamedTuple):
    """What became of one kill."""

    point: str
    role: str
    outcome: str
    """`same bytes`, `not passed`, or what went wrong."""
    seconds: float


def cases(zygote: Zygote, folder: Path) -> Iterator[Case]:
    """One after the other."""
    for point in (*PROGRAMS, *POINTS):
        for role in ROLES:
            began = time.monotonic()
            outcome = "not passed"
            for times in (TIMES, 1):
                place = folder / f"{role}-{point.replace(':', '-')}-{times}"
                outcome = _killed(zygote, place, role, point, times)
                if outcome != "not passed":
                    break
            yield Case(point, role, outcome, time.monotonic() - began)


def _killed(zygote: Zygote, folder: Path, role: str, point: str, times: int) -> str:
    folder.mkdir()
    run = Federation(zygote, folder, tiny())
    try:
        run.start_all(kill={role: (point, times)})
        run.finish()
        ended_as_undisturbed(run)
    except AssertionError as failed:
        return f"FAILED: {failed}"
    finally:
        run.end()
    return "same bytes" if run.programs[f"{role}-1"].ends == [-signal.SIGKILL] else "not passed"


def table(found: list[Case]) -> str:
    """The outcomes, a point a line."""
    lines = [f"| killed at | {' | '.join(ROLES)} |", f"|---|{'---|' * len(ROLES)}"]
    for point in (*PROGRAMS, *POINTS):
        told = {case.role: case.outcome for case in found if case.point == point}
        lines.append(f"| `{point}` | {' | '.join(told.get(role, '') for role in ROLES)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; ends with 1 where a run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to write the table besides")
    arguments = parser.parse_args()
    undisturbed(tiny())
    found: list[Case] = []
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(zygote, Path(folder)):
            print(f"{case.role} at {case.point}: {case.outcome}, {case.seconds:.0f} s", flush=True)
            found.append(case)
    zygote.close()
    text = table(found)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    sys.exit(any(case.outcome.startswith("FAILED") for case in found))


if __name__ == "__main__":
    main()
