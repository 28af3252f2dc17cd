"""Half an hour of a live federation under a scenario, and under what services may do; as a page.

    python -m tests.distributed.soak [SCENARIO.yaml] [--minutes N] [--out FILE]

Kafka and Redis are this program's own. Beside the scenario a standby of the aggregator lives, the
broker is killed and started again, and Redis is emptied. Nobody helps. It has to end with every
injected class detected, no model worse for longer than two rounds, memory that does not grow, and
a log that replays to the same bytes. docs/soak.md says how each is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import numpy as np

from experiments.folder import LOGS, OPENING
from experiments.live import Outcome, Standing, live
from experiments.scenario import Scenario, read_scenario
from experiments.scenario_progress import FILE
from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, running, stop
from tests.services import ROOT, Server, jars

NAME = "soak"
EVERY = 5.0  # seconds between two looks at memory
WORSE = 2  # rounds for which a model may have lost more than `alarm_points`
BROKER, EMPTIED = 0.45, 0.62
"""When the broker is killed and Redis emptied, as parts of the time."""
KIBIBYTES = 1024.0
JUDGED = 600.0  # seconds that a program must have lived before its memory is judged
GROWN, SHARE = 5.0, 0.01
"""Megabytes, or of what it holds, by which a program may grow in the second half of its life."""
FLOOR = 60.0  # seconds of which the least counts: what a program works with comes and goes
SOON = 60.0  # seconds within which the standby has to live: whom it stands by for is killed later
FEWEST = 3  # of those that a line is put through; of who lived shortly they are shorter


class Held(NamedTuple):
    """What one program held while it lived."""

    seconds: float
    """How long it was seen."""
    last: float
    """Megabytes, as the two below."""
    most: float
    grown: float
    """In the second half of its life, by the straight line that fits each minute's least best."""

    @property
    def an_hour(self) -> float:
        """The slope of that line, in megabytes an hour."""
        return self.grown / (self.seconds / 2) * 3600

    @property
    def judged(self) -> bool:
        """Whether it lived long enough: what fills at the beginning is full by its second half."""
        return self.seconds >= JUDGED

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than a program does that only works."""
        return self.grown <= max(GROWN, SHARE * self.last)

    @property
    def verdict(self) -> str:
        """In a word."""
        if not self.judged:
            return f"not judged: {self.seconds / 60:.1f} minutes"
        return "flat" if self.flat else "**grows**"


@dataclass
class Memory:
    """What programs hold, and for themselves their worker processes."""

    folder: Path
    began: float
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Program → seconds and megabytes."""
    beside: dict[str, int] = field(default_factory=dict)
    """Programs of which the scenario knows nothing, and their process ids."""

    def look(self) -> None:
        """Once more, of each program that runs; a new start of one is another line's beginning."""
        try:
            programs = json.loads((self.folder / FILE).read_text())["programs"]
        except (OSError, ValueError):
            return
        pids = {name: int(pid) for name, (pid, _) in programs.items()} | self.beside
        for name, pid in pids.items():
            at = time.monotonic() - self.began
            alone, workers = _resident(pid), sum(map(_resident, _children(pid)))
            for what, held in ((name, alone), (f"{name}'s workers", workers)):
                if held:
                    self.found.setdefault(f"{what} ({pid})", []).append((at, held))

    def held(self) -> dict[str, Held]:
        """Program → what it held; not of one that was seen a few times only."""
        told = {}
        for name, seen in self.found.items():
            lived, (last, held) = seen[-1][0] - seen[0][0], seen[-1]
            minute = min(FLOOR, lived / 2 / FEWEST) or FLOOR
            floor: dict[int, float] = {}
            for at, megabytes in seen:
                back = int((last - at) // minute)  # counted from the end, where the last is whole
                if (back + 1) * minute <= lived / 2 + 1e-6:
                    floor[back] = min(megabytes, floor.get(back, megabytes))
            if len(floor) >= FEWEST:
                back_to, least = np.array(list(floor)), np.array(list(floor.values()))
                grown = -float(np.polyfit(back_to * minute, least, 1)[0]) * lived / 2
                told[name] = Held(lived, held, max(each for _, each in seen), grown)
        return told

    def floors(self, name: str) -> list[float]:
        """What a program held at the least in each minute of its life, from the first on."""
        found: dict[int, float] = {}
        seen = self.found[name]
        for at, megabytes in seen:
            minute = int((at - seen[0][0]) // FLOOR)
            found[minute] = min(megabytes, found.get(minute, megabytes))
        return list(found.values())


def _resident(pid: int) -> float:
    """Megabytes of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    held = sum(float(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return held * KIBIBYTES / 1e6


def _children(pid: int) -> list[int]:
    """All that a process has started, and what those have."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return [each for child in found for each in (child, *_children(child))]


@dataclass
class Played:
    """What came of it."""

    outcome: Outcome
    memory: Memory
    standing: Standing
    told: list[str]
    standby: int | None
    """Its exit code, None while it lives."""
    standby_from: float | None
    """After how many seconds it began; None if it never did."""


def play(scenario: Scenario, minutes: float, folder: Path, tell: Callable[[str], None]) -> Played:
    """All of it, on services of our own."""
    with ExitStack() as held:
        (port, controller), (redis_port,) = free_ports(2), free_ports(1)
        broker = Broker(folder / "kafka", jars(), port, controller)
        broker.start()
        held.callback(stop, broker.folder)
        server = Server(folder / "redis", redis_port)
        server.start()
        held.callback(server.end)
        os.environ["FEDTWIN_KAFKA"] = f"{HOST}:{port}"
        os.environ["FEDTWIN_REDIS"] = f"{HOST}:{redis_port}"
        place, began = folder / NAME, time.monotonic()
        memory, over, last = Memory(place, began), Event(), list[Standing]()
        standby = Standby(place, memory)
        held.callback(standby.end)
        faults = [
            (60 * minutes * BROKER, "the broker is killed, and started again", _restart(broker)),
            (60 * minutes * EMPTIED, "Redis is emptied", lambda: server.told("FLUSHALL")),
        ]
        beside = Thread(target=_beside, args=(memory, standby, over, faults, tell))
        beside.start()

        def seen(standing: Standing) -> bool:
            last[:] = [standing]  # when all events have been: before, nobody asks
            return False

        told: list[str] = []

        def say(text: str) -> None:
            told.append(text)
            tell(text)

        try:
            outcome = live(scenario, NAME, place, folder, minutes=minutes, tell=say, enough=seen)
        finally:
            over.set()
            beside.join()
        return Played(outcome, memory, last[0], told, standby.code, standby.began)


class Standby:
    """A second aggregator, as soon as there is something to begin it with."""

    NAME = "aggregator-2"

    def __init__(self, folder: Path, memory: Memory) -> None:
        self._folder = folder
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self.began: float | None = None
        """Seconds from the beginning on; None before."""

    def look(self) -> None:
        """Begin it, once; from then on it is looked at like the others."""
        if self._process is None and (self._folder / OPENING).exists():
            words = ("aggregator", "--standby", "--process", self.NAME)
            with (self._folder / LOGS / f"{self.NAME}.log").open("wb") as said:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *words],
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                    env=os.environ | {"FEDTWIN_RUN": NAME, "PYTHONPATH": str(ROOT)},
                )  # fmt: skip
            self._memory.beside[self.NAME] = self._process.pid
            self.began = time.monotonic() - self._memory.began

    @property
    def code(self) -> int | None:
        """None while it lives."""
        return self._process.poll() if self._process else None

    def end(self) -> None:
        """It is told to."""
        if self._process:
            self._process.terminate()
            self._process.wait(20)


def _restart(broker: Broker) -> Callable[[], None]:
    def restart() -> None:
        program = running(broker.folder)
        assert program is not None
        os.kill(program.pid, signal.SIGKILL)
        while running(broker.folder):
            time.sleep(0.05)
        broker.start()

    return restart


def _beside(
    memory: Memory,
    standby: Standby,
    over: Event,
    faults: list[tuple[float, str, Callable[[], object]]],
    tell: Callable[[str], None],
) -> None:
    """Begin the standby, look at memory, and do to services what is due."""
    while not over.wait(EVERY):
        standby.look()
        memory.look()
        while faults and time.monotonic() >= memory.began + faults[0][0]:
            at, what, strike = faults.pop(0)
            tell(f"{at:6.1f} s  {what}")
            strike()


# --- what has to hold -----------------------------------------------------------------------------


def broken(played: Played) -> list[str]:
    """What did not hold, in words."""
    outcome, found = played.outcome, []
    for each, detected in zip(outcome.injected, outcome.detected, strict=True):
        if missed := set(each.classes) - set(detected):
            found.append(f"{', '.join(sorted(missed))} at {each.entity} not detected")
    if outcome.different or outcome.replay_sha256 != outcome.model_sha256:
        found.append(f"the replay differs: {', '.join(outcome.different)}")
    if outcome.summed != (summed := _with_answers(played.standing)):
        found.append(f"{outcome.summed} of {summed} sums redone")
    if (worse := longest(played.standing)) > WORSE:
        found.append(f"a model was worse than the best before it for {worse} rounds")
    if played.standby is not None:
        found.append(f"the standby ended with {played.standby}")
    if played.standby_from is None:
        found.append("the standby never began")
    elif played.standby_from > SOON:
        found.append(f"the standby began after {played.standby_from:.0f} s")
    found += [
        f"{name} grew by {held.grown:.0f} MB in the second half of {held.seconds / 60:.0f} minutes"
        for name, held in sorted(played.memory.held().items())
        if held.judged and not held.flat
    ]
    return found


def _with_answers(standing: Standing) -> int:
    """Rounds in which somebody was counted: of the others there is no sum."""
    closed = [each.closed for stage in standing.line.stages for each in stage.rounds]
    return sum(bool(each and each.counted) for each in closed)


def longest(standing: Standing) -> int:
    """For how many versions in a row the accuracy was below the best by more than the margin."""
    lost = {each.version for each in standing.held_out.losses()}
    most = row = 0
    for version in standing.held_out.versions:
        row = row + 1 if version in lost else 0
        most = max(most, row)
    return most


def page(scenario: Path, played: Played, seconds: float) -> str:
    """As it stands in docs/soak.md."""
    outcome, bad = played.outcome, broken(played)
    accuracy = (
        "not known" if outcome.held_out_accuracy is None else f"{outcome.held_out_accuracy:.1f} %"
    )
    injected = "; ".join(
        f"{', '.join(each.classes)} at {each.entity} after {each.at:.0f} s"
        f" ({', '.join(found) or 'none'} detected)"
        for each, found in zip(outcome.injected, outcome.detected, strict=True)
    )
    rows = {
        "scenario": f"`{scenario.name}`, {seconds / 60:.1f} minutes with its replay",
        "entities": f"{len(outcome.entities)}, {outcome.present_entities} of them there at the end",
        "rounds": f"{outcome.rounds} in {outcome.stages} stages",
        "injected": injected,
        "held out at the sites": f"{accuracy} of {outcome.held_out_images} images,"
        f" version {outcome.held_out_version}",
        "worse than the best before": f"for at most {longest(played.standing)} versions in a row;"
        f" {'; '.join(outcome.worse) or 'none'}",
        "standby": "none"
        if played.standby_from is None
        else f"{Standby.NAME}, from {played.standby_from:.0f} s on",
        "dead letters": str(outcome.dead_letters),
        "model": f"version {outcome.model_version}, `{outcome.model_sha256}`",
        "replay": f"`{outcome.replay_sha256}`, {outcome.summed} sums redone",
        "broken": "; ".join(bad) or "nothing",
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {told} |" for name, told in rows.items())]
    lines += ["", "| program (process) | minutes | MB at last | at most | grown in the second half"]
    lines[-1] += " | MB an hour there | memory |"
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | {held.seconds / 60:.1f} | {held.last:.0f} | {held.most:.0f}"
        f" | {held.grown:+.1f} | {held.an_hour:+.0f} | {held.verdict} |"
        for name, held in sorted(played.memory.held().items())
    ]
    lines += ["", "| program (process) | each minute's least, MB |", "|---|---|"]
    lines += [
        f"| {name} | {', '.join(f'{each:.0f}' for each in played.memory.floors(name))} |"
        for name, held in sorted(played.memory.held().items())
        if held.judged
    ]
    lines += ["", "| version | held out at the sites |", "|---|---|"]
    held = played.standing.held_out
    for version in held.versions:
        found = held.of(version)
        lines.append(
            f"| {version} | {found.percent if found else 0:.1f} %"
            f" of {found.images if found else 0},"
            f" {len(held.entities(version))} entities |"
        )
    return "\n".join([*lines, "", "```text", *played.told, "```", ""])


def _stretched(scenario: Scenario, factor: float) -> Scenario:
    """The same in another time."""
    events = tuple(each.model_copy(update={"at": each.at * factor}) for each in scenario.events)
    return scenario.model_copy(update={"events": events})


def main() -> None:
    """Print the page; ends with 1 where something did not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="?", type=Path, default=ROOT / "examples/soak.yaml")
    parser.add_argument("--minutes", type=float, help="other than the scenario's: events move too")
    parser.add_argument("--out", type=Path, help="where to write the page besides")
    given = parser.parse_args()
    scenario, began = read_scenario(given.scenario), time.monotonic()
    minutes = given.minutes or scenario.minutes
    scenario = _stretched(scenario, minutes / scenario.minutes)
    with tempfile.TemporaryDirectory() as folder:
        played = play(scenario, minutes, Path(folder), lambda text: print(text, flush=True))
    text = page(given.scenario, played, time.monotonic() - began)
    print(text)
    if given.out:
        given.out.write_text(text)
    sys.exit(bool(broken(played)))


if __name__ == "__main__":
    main()
