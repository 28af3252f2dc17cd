"""How soon a program that was killed with SIGKILL goes on, in seconds from its new start.

    python benchmarks/recovery.py [--kills 5] [--width 6] [--json]

`tiny` with four twins over Kafka, each program as a person starts it (`python -m ROLE`), so that
its imports count. A program is killed while a round is open:

- the aggregator; when all updates of the round are in the log it is started again, and is to write
  its next decision within 5 s.
- the twins, once as a program that was given their names, once as one that its group deals them to;
  started again at once, it is to write its next update within 3 s of its start, or of the moment
  when the group has dealt. A training is part of that, and is shown for itself besides.

The worst of all kills counts. Wider nets (`--width 64`: 45 MB) are measured and bound to nothing.
It needs a broker and a Redis: `make up`, or FEDTWIN_KAFKA and FEDTWIN_REDIS. Measure when nothing
else runs; the load is told.
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
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kafka import KafkaAdminClient

from aggregator.opening import write_opening
from experiments.recipes import recipe
from experiments.system import SITE, opening_of
from infra.kafka import KafkaSettings, connected
from infra.settings import read_settings
from infra.topics import Administration, plan
from infra.transport.clusters import kafka_settings
from infra.transport.kafka import Kafka
from producers.datasets import load
from schemas.codec import piece, unpack
from schemas.errors import Refused
from schemas.limits import LEAST_BYTES
from schemas.line import RoundsLine
from schemas.messages import Decision
from schemas.topics import Names

MOST = {"aggregator": 5.0, "twins by name": 3.0, "twins in a group": 3.0}
TINY = 6  # the width to which these bounds belong
TWINS = tuple(f"entity-{number:03d}" for number in range(4))
ROUNDS = 400  # of a stage: more than are needed
LOOK = 0.01  # seconds between two looks
PATIENCE = 300.0  # seconds for anything
READ_BYTES = 4 * 1024 * 1024
QUIET = 3.0  # seconds without an update, after which all that were asked for are there


def main() -> None:
    """Measure and print, or one JSON object with `--json`; ends with 1 over a bound."""
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5, help="of each kind (5)")
    parser.add_argument("--width", type=int, default=TINY, help="of the nets (6)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        seconds = measured(Run(Path(folder), given.width), given.kills)
    bound = MOST if given.width == TINY else {}
    if given.json:
        print(json.dumps({"schema": 1, "width": given.width, "seconds": seconds}))
    else:
        print(f"width {given.width}, load before {load_before:.1f}, seconds")
        for what, found in seconds.items():
            told = " ".join(f"{each:6.2f}" for each in sorted(found))
            print(f"{what:<30}{told}" + (f"   at most {bound[what]:g}" if what in bound else ""))
    sys.exit(any(max(seconds[what]) > most for what, most in bound.items()))


class Run:
    """A run over Kafka, whose programs are killed and started again."""

    def __init__(self, folder: Path, width: int) -> None:
        self.settings = read_settings()
        self.kafka: KafkaSettings = kafka_settings(self.settings.kafka)
        self.names = Names(f"recovery-{uuid.uuid4().hex[:8]}")
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        keys = {"width": width, "rounds_per_stage": ROUNDS}
        configuration = recipe("tiny", overrides=keys)
        data = load("digits", folder, image_size=configuration.image_size)
        opening = opening_of(configuration, data)
        write_opening(opening, folder / "opening.json")
        with closing(Administration(self.kafka)) as administration:
            for cluster in ("federation", "site"):
                entities = opening.schedule.entities
                planned = plan(self.names, cluster, [SITE], entities, self.kafka)
                administration.apply(planned)
        self._log = Kafka(self.kafka)
        self._line, self._place = RoundsLine(), 0

    def start(self, name: str, *words: str) -> None:
        """Start `python -m WORDS`."""
        with (self.folder / f"{name}.log").open("ab") as said:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *words, "--process", name],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=os.environ | {
                    "FEDTWIN_RUN": self.names.run,
                    "FEDTWIN_KAFKA": self.settings.kafka.address,
                    "FEDTWIN_REDIS": self.settings.redis.address,
                },
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """End it without a word."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End every program, and take the topics away."""
        for name in list(self._running):
            self.kill(name)
        self._log.close()
        with closing(Administration(self.kafka)) as administration:
            administration.rm(self.names)

    def until(self, holds: Callable[[], bool]) -> float:
        """Wait until something holds; gives the seconds. RuntimeError when a program failed."""
        began = time.monotonic()
        while not holds():
            for name, process in self._running.items():
                if process.poll() or time.monotonic() > began + PATIENCE:
                    words = (self.folder / f"{name}.log").read_text()[-2000:]
                    raise RuntimeError(f"{name}, exit code {process.poll()}: {words}")
            time.sleep(LOOK)
        return time.monotonic() - began

    def decided(self) -> int:
        """The number of the last decision."""
        topic = self.names.federation("rounds")
        self._log.wait(0)
        for stored in self._log.read(topic, self._place, READ_BYTES):
            self._place = stored.offset + 1
            try:
                part = piece(stored.record.value, LEAST_BYTES)
                message = unpack(part.content, LEAST_BYTES)
            except Refused:
                continue
            if isinstance(message, Decision):
                self._line.hear(message, part.message)
        return self._line.number

    def updates(self) -> int:
        """How far the updates reach."""
        self._log.wait(0)
        return self._log.end(self.names.of_site("updates", SITE))

    def new_round(self) -> None:
        """Wait until one round is closed and another is open."""
        before = self.decided()
        self.until(lambda: self.decided() > before and self._line.open_round is not None)

    def answered(self) -> float:
        """Seconds until an update comes that was not there."""
        before = self.updates()
        return self.until(lambda: self.updates() > before)

    def quiet(self) -> None:
        """Wait until no update has come for a while."""
        end, since = self.updates(), time.monotonic()
        while time.monotonic() < since + QUIET:
            if (now := self.updates()) != end:
                end, since = now, time.monotonic()
            time.sleep(LOOK)


def measured(run: Run, kills: int) -> dict[str, list[float]]:
    """What is measured → seconds, one for each kill."""
    found: dict[str, list[float]] = {}
    twins = ("twins", "--workers", "2")
    aggregator = ("aggregator", "--opening", str(run.folder / "opening.json"))
    with closing(run):
        run.start("aggregator-1", *aggregator)
        run.start("producers-1", "producers", "--data-dir", str(run.folder))
        run.start("proxy-1", "proxy")
        run.start("twins-1", *twins, *TWINS)
        for _ in range(kills):
            run.new_round()
            found.setdefault("an update, nobody killed", []).append(run.answered())
        for _ in range(kills):
            run.new_round()
            run.kill("aggregator-1")
            run.quiet()
            found.setdefault("aggregator", []).append(_again(run, "aggregator-1", *aggregator))
        for _ in range(kills):
            run.new_round()
            run.kill("twins-1")
            began = time.monotonic()
            run.start("twins-1", *twins, *TWINS)
            run.answered()
            found.setdefault("twins by name", []).append(time.monotonic() - began)
        run.kill("twins-1")
        run.start("twins-1", *twins)
        with closing(connected(run.kafka, KafkaAdminClient)) as admin:
            for _ in range(kills):
                run.new_round()
                before = _members(admin, run)
                run.kill("twins-1")
                began = time.monotonic()
                run.start("twins-1", *twins)
                run.until(lambda old=before: _members(admin, run) not in (old, []))  # type: ignore[misc]
                dealt = time.monotonic()
                run.answered()
                over = time.monotonic()
                found.setdefault("twins in a group", []).append(over - dealt)
                found.setdefault("their start until then", []).append(dealt - began)
    return found


def _again(run: Run, name: str, *words: str) -> float:
    """Seconds from the start of a program until the next decision."""
    before = run.decided()
    began = time.monotonic()
    run.start(name, *words)
    run.until(lambda: run.decided() > before)
    return time.monotonic() - began


def _members(admin: KafkaAdminClient, run: Run) -> list[str]:
    """Who is in the twins' group; nobody while it deals."""
    group = run.names.group(SITE)
    told = admin.describe_groups([group])[group]
    stable = told["group_state"] == "Stable"
    return [each["member_id"] for each in told["members"]] if stable else []


if __name__ == "__main__":
    main()
