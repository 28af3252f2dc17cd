"""What five hundred entities on one broker cost: their topics, their first words, and a round.

    python benchmarks/entities.py [--entities 500] [--width 6] [--json]

Each entity has a topic for its images and one for its twin's memory. Makes them, lets the producers
write every image (ten classes, eight of each), then starts one process that hosts all twins, whose
workers are done at once. Tells how long it takes until all have joined, until all have judged their
first window, and how long two rounds take in which every twin sends a model (width 6: 0.4 MB); and
what the processor and the memory of each program give for it. The broker's are told where it is
this checkout's own (`make up`). There is no bound on seconds: what is measured has to come to an
end. It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from federation import SITE, Run, cpu, dataset, load, memory, recipe, run
from noop_round import consumer, kind_of, polled, seconds_of_rounds, stream

from infra.settings import KAFKA, SERVICES_FILE, read_settings
from infra.transport.clusters import kafka_settings
from producers.images import Dataset
from schemas.messages import EntityJoined, Message, RoundClosed, WindowJudged

HOST = Path(__file__).with_name("noop_round.py")
ROUNDS = 2


def main() -> None:
    """Measure and print a table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--entities", type=int, default=500)
    parser.add_argument("--width", type=int, default=6, help="of the ResNet-18; 6 is 0.4 MB")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    configuration = recipe(
        given.entities, width=given.width, rounds_per_stage=ROUNDS + 1, keep_rounds=1
    )
    data = dataset(side=16, channels=1)
    with run(configuration, data) as federation:
        found = measure(federation, data)
    if given.json:
        print(json.dumps({"schema": 1, "entities": given.entities} | found))
        return
    print(f"{given.entities} entities, {found['topics']} topics")
    for phase in found["phases"]:
        taken = ", ".join(f"{who} {seconds:.1f}" for who, seconds in phase["cpu"].items())
        print(f"{phase['what']:<28}{phase['seconds']:8.1f} s   of processor: {taken or '?'}")
    print("a round, opened to closed:  " + ", ".join(f"{each:.1f} s" for each in found["rounds"]))
    peaks = ", ".join(f"{who} {peak:.0f} MB" for who, peak in found["megabytes"].items())
    print(f"memory at most: {peaks}  ({load()})")


def measure(federation: Run, data: Dataset) -> dict[str, Any]:
    """Bring a run to the end of its second round, phase by phase."""
    count = len(federation.entities)
    phases = Phases(federation)
    topics = federation.make_topics()
    phases.over("topics are made")
    federation.start_aggregator()
    stream(federation, data)
    phases.over("images are written")
    federation.start("twins", str(HOST), "--host")
    with closing(Watch(federation.names.of_site("classes", SITE))) as said:
        federation.until(lambda: said.of(EntityJoined) >= count)
        phases.over("all have joined")
        federation.until(lambda: said.of(WindowJudged) >= count)
        phases.over("all have judged")
    with closing(Watch(federation.names.federation("rounds"))) as decided:
        federation.until(lambda: decided.of(RoundClosed) >= ROUNDS)
        phases.over(f"{ROUNDS} rounds are closed")
        rounds = seconds_of_rounds(decided.heard)
    return {
        "topics": topics,
        "phases": phases.told,
        "rounds": rounds[:ROUNDS],
        "megabytes": {who: memory(pid) for who, pid in phases.programs().items()},
    }


class Phases:
    """Seconds, and what each program took of the processor, since the phase before."""

    def __init__(self, federation: Run) -> None:
        self.told: list[dict[str, Any]] = []
        self._federation = federation
        self._broker = brokers_pid()
        self._began = time.monotonic()
        self._taken = self._cpu()

    def over(self, what: str) -> None:
        """A phase has ended, and the next one begins."""
        now, taken = time.monotonic(), self._cpu()
        spent = {who: seconds - self._taken.get(who, 0.0) for who, seconds in taken.items()}
        self.told.append({"what": what, "seconds": now - self._began, "cpu": spent})
        self._began, self._taken = now, taken

    def programs(self) -> dict[str, int]:
        """Who takes part, and as which process."""
        ours = {name: program.pid for name, program in self._federation.programs.items()}
        return ours | ({"broker": self._broker} if self._broker else {})

    def _cpu(self) -> dict[str, float]:
        return {who: cpu(pid) for who, pid in self.programs().items()}


class Watch:
    """Counts what is said in a topic."""

    def __init__(self, topic: str) -> None:
        self.heard: list[Any] = []
        self._reader = consumer(topic)

    def of(self, kind: type[Message]) -> int:
        """How many messages of a kind have come."""
        self.heard += polled(self._reader)
        return sum(kind_of(each) == kind.__name__ for each in self.heard)

    def close(self) -> None:
        """Read no more."""
        self._reader.close()


def brokers_pid() -> int | None:
    """The process of this checkout's own broker, where it is that which is measured."""
    try:
        services = json.loads(SERVICES_FILE.read_text())
    except FileNotFoundError:
        return None
    if kafka_settings(read_settings().kafka).servers != services["addresses"].get(KAFKA):
        return None
    return int(services["processes"]["kafka"]["pid"])


if __name__ == "__main__":
    main()
