"""A role as a program of its own: it begins, serves, tells that it lives, and ends.

It begins by waiting for RunOpened, for everything about a run stands in it. It ends with 0 when
the run is over; with the exit code of what went wrong, said in one line; or when it is told to
(SIGTERM, Ctrl-C): then it drops what is in work, writes nothing more, and says how to go on.
Whatever ends it, started again it goes on from the log.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from infra.memory import give_back, reuse
from infra.pieces import Pieces, gathered, may_be_passed_over
from infra.promises import Place, Result, Role, Start, Task, Workers
from infra.pulse import MOST_WAITS, Pulse, Stopped, last_words
from infra.serve import READ_BYTES, Surroundings, System
from infra.settings import COMPRESSIONS, DELIVERY, REQUEST, Settings
from infra.shelf import Shelf
from infra.stopping import STOPPED, WORDS
from infra.transport.base import Stored, Transport
from infra.vitals import Vitals
from schemas.codec import NotKnown, piece, unpack
from schemas.configuration import Configuration
from schemas.errors import FedtwinError, Refused, Stalled
from schemas.limits import LEAST_BYTES, largest_message
from schemas.messages import DataFacts, GlobalModel, Message, ModelUpdate, RunOpened
from schemas.plain import plain
from schemas.topics import Names

AWAITED = 5.0  # seconds after which it is told that a run is waited for
TIDY = 2.0  # seconds without a step after which free memory is given back, once
BUSY = 20.0  # seconds after which it is given back all the same: heartbeats are steps too
REST = 0.2  # seconds between two looks when there is nothing to do; what comes ends it
HELD_UP = 5.0  # seconds: a turn that took longer waited for a service that was away
EPILOG = """Addresses, names and secrets come from the environment (FEDTWIN_KAFKA,
FEDTWIN_SITE_KAFKA, FEDTWIN_REDIS, FEDTWIN_RUN, FEDTWIN_SITE, FEDTWIN_DATA_DIR), or from what
`make up` has written; everything else from the run itself. FEDTWIN_METRICS_HOST is the address at
which metrics are told, by default only on this machine (127.0.0.1).

Exit codes: 0 the run is over, 1 it failed, 2 wrong usage or configuration, 3 a service that cannot
be reached, 4 data missing or broken, 130 told to stop.
"""


class NoWorkers:
    """For a role that gives no tasks."""

    free = 0

    def submit(self, id: object, task: Task) -> None:
        """Raises ValueError: nobody is here to do it."""
        raise ValueError(f"{task.name} was given to a program without workers")

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        return []

    def close(self) -> None:
        """There is nothing to end."""


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C raise Stopped, wherever the program is; gives whether they did."""
    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            raise Stopped

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def ended(name: str, work: Callable[[], None]) -> int:
    """Do a program's work; its exit code. What ends it early is said in one line."""
    reuse()
    try:
        work()
    except Stopped:
        print(f"{name}: {WORDS}", file=sys.stderr)
        return STOPPED
    except FedtwinError as error:
        said = plain(str(error), "\n")  # it may quote what others have written
        print(f"{name}: {said}", file=sys.stderr)
        return error.exit_code
    return 0


def arguments(role: str, about: str | None) -> argparse.ArgumentParser:
    """The options that every role's program has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {role}",
        description=about,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", metavar="NAME", help="the run; otherwise FEDTWIN_RUN")
    parser.add_argument(
        "--process",
        metavar="NAME",
        default=f"{role}-{socket.gethostname().partition('.')[0].lower()}-{os.getpid()}",
        help="this program's name among those of the run; otherwise made of host and process",
    )
    parser.add_argument(
        "--whole-line",
        action="store_true",
        help="read all decisions of a live federation, and not from where it is told how it stood",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="tell Prometheus how it goes, at /metrics, and whoever asks whether it is well, at"
        " /healthz; otherwise FEDTWIN_METRICS_PORT, and without it nobody is told",
    )
    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        help="of what this program writes to Kafka (none: models are noise, images small already)",
    )
    parser.add_argument(
        "--delivery-timeout",
        type=float,
        default=DELIVERY,
        metavar="SECONDS",
        help="after which a record that Kafka has not acknowledged is sent anew; more on a slow"
        f" line ({DELIVERY:g})",
    )
    return parser


def on_kafka(given: argparse.Namespace) -> dict[str, Any]:
    """What the options say of Kafka, as fields of KafkaSettings."""
    return {
        "compression": given.compression,
        "delivery_timeout": given.delivery_timeout,
        "request_timeout": min(REQUEST, given.delivery_timeout),
    }


@contextmanager
def life(
    transport: Transport, names: Names, given: argparse.Namespace, settings: Settings, *, role: str
) -> Iterator[Vitals]:
    """What a program tells of itself inside: to Prometheus, if it is to, and with its last words.

    Raises ConfigurationError where the address for metrics cannot be had.
    """
    vitals = Vitals(names.run, role, given.process, transport)
    port = settings.metrics_port if given.metrics_port is None else given.metrics_port
    with last_words(transport, names, role=role, process=given.process), ExitStack() as held:
        if port is not None:
            from infra.exporter import served

            port = held.enter_context(served(vitals, settings.metrics_host, port))
            print(
                f"{role}: metrics at http://{settings.metrics_host}:{port}/metrics", file=sys.stderr
            )
        yield vitals


# --- beginning ------------------------------------------------------------------------------------


def run_opened(transport: Transport, names: Names) -> RunOpened:
    """The decision that opens the run, as soon as it is there."""
    return opened_as(transport, names)[0]


def opened_as(transport: Transport, names: Names) -> tuple[RunOpened, str]:
    """The same, and its hash, which names the run."""
    first, until = First(transport, names), time.monotonic() + AWAITED
    while (opened := first.look()) is None:
        transport.wait(REST)
        if time.monotonic() > until:
            until = math.inf
            print(_awaited(transport, names), file=sys.stderr, flush=True)
    return opened, first.hash


def _awaited(transport: Transport, names: Names) -> str:
    parts = (topic.split(".") for topic in transport.topics())
    there = sorted({part[1] for part in parts if part[2:3] == ["rounds"]} - {names.run})
    others = f"Kafka holds {', '.join(there[:5])}" if there else "Kafka holds no other"
    return f"waiting until the run {names.run} is opened; {others}"


class First:
    """Looks for the first decision of a run, as far as its line has come."""

    def __init__(self, transport: Transport, names: Names) -> None:
        self._transport = transport
        self._topic, self._place = names.federation("rounds"), 0
        self._pieces = Pieces()
        self.hash = ""
        """Of the decision, once it was found."""

    def look(self) -> RunOpened | None:
        """It, or None if it is not there yet."""
        while self._place < self._transport.end(self._topic):
            for stored in self._transport.read(self._topic, self._place, READ_BYTES):
                self._place = stored.offset + 1
                if (opened := self._opened(stored)) is not None:
                    return opened
        return None

    def _opened(self, stored: Stored) -> RunOpened | None:
        try:
            part = piece(stored.record.value, LEAST_BYTES)
            offsets = self._pieces.add(part, stored.offset)
            place = Place(self._topic, offsets or ())
            whole = gathered(self._transport, place, LEAST_BYTES) if offsets else None
            message = unpack(whole.payload, LEAST_BYTES) if whole else None
        except NotKnown as later:
            may_be_passed_over(later, self._topic, stored.offset)
            return None
        except Refused:
            return None  # the aggregator sets it aside
        if whole is None or not isinstance(message, RunOpened) or message.number != 0:
            return None
        self.hash = whole.hash
        return message


def patience_of(configuration: Configuration) -> float:
    """How long a program waits in vain, in seconds: in a run that does not end for ever, for there
    it is usual that nobody has anything new."""
    return math.inf if configuration.live else configuration.patience


def surroundings(
    configuration: Configuration, data: DataFacts, transport: Transport, names: Names, **more: Any
) -> Surroundings:
    """What the roles of a run share; `more` are further fields of Surroundings."""
    most = largest_message(configuration, data)
    shelf = Shelf(transport, names.federation("models"), most)
    return Surroundings(transport, shelf, most, wire_of(configuration.wire), **more)


def _begins(start: Start) -> str:
    return f"begins at decision {start.standing.number}, which tells how the federation stood"


def wire_of(wire: str) -> Callable[[Message], str]:
    """How each message travels: models and updates as the recipe says, all else as it is."""
    return lambda message: wire if isinstance(message, GlobalModel | ModelUpdate) else "fp32"


# --- serving --------------------------------------------------------------------------------------


def serve(
    role: Role,
    around: Surroundings,
    workers: Workers,
    names: Names,
    *,
    process: str,
    patience: float,
    vitals: Vitals | None = None,
    each_turn: Callable[[System], None] = lambda system: None,
    start: Start | None = None,
) -> System:
    """Step a role until it is over, from a Standing on if one is given; gives what stepped it.

    Raises Stalled when for `patience` seconds nothing came, nobody is heard to work, and something
    is missing. Time in which a service was away does not count.
    """
    if vitals is not None:
        vitals.tally, around.overhear = around.tally, vitals.overhear
    system = System([role], around, workers)
    if start is not None:
        system.begin(start)
        if vitals is not None:
            vitals.begin(start)
        print(f"{role.name}: {_begins(start)}", file=sys.stderr, flush=True)
    pulse = Pulse(system, around, names, role=role.name, process=process, vitals=vitals)
    around.hook("began")
    quiet_since = turn = moved_at = tidied_at = around.clock()
    tidy = False
    while not system.over:
        each_turn(system)
        moved = system.step()
        now = around.clock()
        pulse.beat(now)
        if moved:
            moved_at, tidy = now, False
        if not tidy and (now - moved_at > TIDY or now - tidied_at > BUSY):
            give_back()  # what a round took is free now, in pieces
            tidy, tidied_at = True, now
        if moved or system.in_work or pulse.somebody_works(now):
            quiet_since = now
        elif now - turn > HELD_UP:
            quiet_since += now - turn
        turn = now
        if now - quiet_since >= patience and (missing := system.waits()):
            waits = "; ".join(map(str, missing[:MOST_WAITS]))
            raise Stalled(f"for {patience:.0f} s nothing came and nobody worked: {waits}")
        if not moved and not system.in_work:
            around.transport.wait(REST)
    return system
