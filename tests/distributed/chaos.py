"""A run killed at every point, and all that its services may do, as tables.

    python -m tests.distributed.chaos [points] [services] [long] [--out FILE]

Of points and services each line is one run of `tiny`, or several. It has to end in the undisturbed
model, each update counted once; what a role never comes by is told as such. `long` is one training
of twenty minutes in a program that has to look at its group every 200 seconds. Without a word,
points and services.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from infra.native.kafka import Broker
from infra.native.programs import free_ports, stop
from infra.points import POINTS, PROGRAMS
from infra.transport.group import SESSION
from tests.distributed.faults import (
    Found,
    Own,
    aggregator_paused,
    long_training,
    redis,
    twins_paused,
    went_on_as_undisturbed,
)
from tests.distributed.federation import (
    ROLES,
    Federation,
    Zygote,
    ended_as_undisturbed,
    tiny,
    undisturbed,
)
from tests.services import Server, jars

TIMES = 2
"""How often a point is passed before; where it is passed once only, that once."""
TABLES = ("points", "services", "long")
LONG = 200.0
"""Seconds in which a program must look at its group, while it trains for six times as many."""
Story = Callable[[], str]
"""Gives what came of it; raises AssertionError where that is not as it must be."""


class Case(NamedTuple):
    """What became of one fault."""

    what: str
    role: str
    """Of a kill."""
    outcome: str
    """`same bytes`, `not passed`, or what went wrong."""
    seconds: float


# --- killed at every point ------------------------------------------------------------------------


def points(zygote: Zygote, folder: Path) -> Iterator[Case]:
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


# --- what services may do -------------------------------------------------------------------------


def services(zygote: Zygote, folder: Path) -> Iterator[Case]:
    """One after the other, on a broker and a Redis of our own."""
    with ExitStack() as held:
        ports, (port, controller_port), (redis_port,) = (free_ports(n) for n in (2, 2, 1))
        door = ports[0], ports[1]
        broker = Broker(folder / "kafka", jars(), port, controller_port, door=door)
        server = Server(folder / "redis", redis_port)
        broker.start()
        held.callback(stop, broker.folder)
        server.start()
        held.callback(server.end)
        yield from _told(stories(_finder(zygote, folder, held), broker, door, server))


def stories(
    found: Found, broker: Broker, ports: tuple[int, int], server: Server
) -> Mapping[str, Story]:
    """By what happens. The producers' delivery timeout is 30 s, the twins' session 6 s."""
    own = Own(found, broker, ports)
    runs: Mapping[str, Callable[[], Federation]] = {
        "broker killed, started again at once": own.killed,
        "broker killed, away for 60 s": partial(own.killed, 60),
        "broker paused for 10 s": partial(own.paused, 10),
        "broker paused for 40 s": partial(own.paused, 40),
        "broker paused for 60 s": partial(own.paused, 60),
        "wire between twins and broker cut for 8 s": partial(own.cut, SESSION + 2),
        "wire between twins and broker cut for 40 s": partial(own.cut, 40),
        "Redis killed, started again at once": partial(redis, found, server, "killed"),
        "Redis emptied": partial(redis, found, server, "emptied"),
        "Redis killed for good": partial(redis, found, server, "gone"),
        "twins paused past their session": partial(twins_paused, found),
        "aggregator paused until its standby closed the round": partial(aggregator_paused, found),
        "training of 60 s, a look at the group due every 10 s": partial(long_training, found, 10),
    }
    ends: Mapping[str, Story] = {
        f"all told to stop while the broker is {what}, {when}": partial(
            _ended, own, how, when == "in mid-stream"
        )
        for what, how in (("killed", signal.SIGKILL), ("paused", signal.SIGSTOP))
        for when in ("in mid-stream", "between rounds")
    }
    return {**{what: partial(_same_bytes, play) for what, play in runs.items()}, **ends}


def _same_bytes(play: Callable[[], Federation]) -> str:
    went_on_as_undisturbed(play())
    return "same bytes"


def _ended(own: Own, how: signal.Signals, streaming: bool) -> str:
    took = own.stopped(how, streaming=streaming)
    return f"same bytes; ended after {max(took.values()):.1f} s at most"


def long(zygote: Zygote, folder: Path) -> Iterator[Case]:
    """One training that takes twenty minutes."""
    with ExitStack() as held:
        play = partial(long_training, _finder(zygote, folder, held), LONG)
        what = f"training of {6 * LONG / 60:.0f} min, a look at the group due every {LONG:.0f} s"
        yield from _told({what: partial(_same_bytes, play)})


def _finder(zygote: Zygote, folder: Path, held: ExitStack) -> Found:
    """Makes federations whose programs and topics end with `held`."""

    def found(configuration: object = None, **services: str) -> Federation:
        place = Path(tempfile.mkdtemp(dir=folder))
        run = Federation(zygote, place, configuration or tiny(), **services)  # type: ignore[arg-type]
        held.callback(run.end)
        return run

    return found


def _told(stories: Mapping[str, Story]) -> Iterator[Case]:
    for what, play in stories.items():
        began = time.monotonic()
        try:
            outcome = play()
        except AssertionError as failed:
            outcome = f"FAILED: {failed}"
        yield Case(what, "", outcome, time.monotonic() - began)


# --- as tables ------------------------------------------------------------------------------------


def table_of_points(found: list[Case]) -> str:
    """The outcomes, a point a line."""
    lines = [f"| killed at | {' | '.join(ROLES)} |", f"|---|{'---|' * len(ROLES)}"]
    for point in (*PROGRAMS, *POINTS):
        told = {case.role: case.outcome for case in found if case.what == point}
        lines.append(f"| `{point}` | {' | '.join(told.get(role, '') for role in ROLES)} |")
    return "\n".join(lines)


def table_of_stories(found: list[Case]) -> str:
    """The outcomes, a story a line, with the seconds of the whole run."""
    lines = ["| what happens | outcome | s |", "|---|---|---|"]
    lines += [f"| {case.what} | {case.outcome} | {case.seconds:.0f} |" for case in found]
    return "\n".join(lines)


def main() -> None:
    """Print the tables; ends with 1 where a run ended otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="*", choices=TABLES, metavar="TABLE", help=", ".join(TABLES)
    )
    parser.add_argument("--out", type=Path, help="where to write the tables besides")
    arguments = parser.parse_args()
    undisturbed(tiny())
    texts: list[str] = []
    bad = False
    play = {"points": points, "services": services, "long": long}
    for name in arguments.tables or TABLES[:2]:
        zygote, found = Zygote(), []
        with tempfile.TemporaryDirectory() as folder:
            for case in play[name](zygote, Path(folder)):
                place = f"{case.role} at {case.what}" if case.role else case.what
                print(f"{place}: {case.outcome}, {case.seconds:.0f} s", flush=True)
                found.append(case)
        zygote.close()
        texts.append((table_of_points if name == "points" else table_of_stories)(found))
        bad |= any(case.outcome.startswith("FAILED") for case in found)
    print(text := "\n\n".join(texts))
    if arguments.out:
        arguments.out.write_text(text + "\n")
    sys.exit(bad)


if __name__ == "__main__":
    main()
