"""What a round costs in which nobody learns, beside a bare Kafka client that moves its records.

    python benchmarks/noop_round.py [--twins 8] [--width 64 6] [--wire fp32 int8] [--json]

Of a run the first round of each counts for nothing, then the median of 3, or of 23 where models are
small: what takes a twentieth of a second is measured more often.

Starts `python -m aggregator` and one process that hosts the twins, each with an image of every
class; their workers give back at once an update that was made before. Seconds are those between the
records of RoundOpened and RoundClosed. Then two processes with kafka-python alone move the same
records in the same order: RoundOpened, the base to the twins' side, an update of each twin, the
next model, RoundClosed. They do it twice: bare, where each record is read by the other side alone;
and reading back, where the server's side also reads what it wrote itself, as our aggregator does
before it acts on it. Updates are sent one behind the other, and acknowledged at the end. The median
of the ratios to the bare one is to be at most 1.5. Seconds of the processor are those of the two
programs on either side, without the broker's: they hold where others use the machine as well.
It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from federation import SITE, Run, cpu, dataset, load, ratio_of, recipe, run
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from infra.memory import reuse
from infra.program import NoWorkers, run_opened, serve, surroundings
from infra.promises import Result, Task
from infra.serve import System
from infra.settings import read_settings
from infra.topics import Administration, Planned
from infra.transport.clusters import connect, kafka_settings
from infra.transport.kafka import Kafka
from learning.shapes import first_model, grown
from producers.entity import Producers
from producers.images import Dataset
from schemas.configuration import Configuration
from schemas.messages import Tensors
from schemas.tensors import encoded, update_of
from schemas.topics import Names
from twins.twins import Twins

MOST = 1.5
ROUNDS = 4
"""The first of them warms everything up and is not counted."""
SMALL, OF_SMALL = 16, 24
"""Up to which width a model counts as small, and how many rounds there are of it."""
LEAST_TOLD = 0.5  # milliseconds
IMAGES = 1  # of each class: the bare client moves none, and nobody learns from them
UNDER_WAY = 16
"""Records that the bare client sends before the first of them is acknowledged."""
TOPICS = ("rounds", "models", "updates")
Tasks = Mapping[str, Callable[[Tensors, Task], Result]]


def main() -> None:
    """Measure and print, or one JSON object with `--json`; ends with 1 above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--twins", type=int, default=8)
    parser.add_argument("--width", type=int, nargs="+", default=[6, 64], help="6 is 0.4, 64 45 MB")
    parser.add_argument("--wire", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--repeat", type=int, default=3, help="runs; the median counts")
    parser.add_argument(
        "--threads",
        action="store_true",
        help="also what each thread of ours takes of the processor",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--host", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", choices=("site", "server"), help=argparse.SUPPRESS)
    parser.add_argument("--back", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.host:
        host()
    elif given.bare:
        bare(given.bare, given.rounds, reads_back=given.back)
    else:
        report(given)


def report(given: argparse.Namespace) -> None:
    """Every width on every wire."""
    found = []
    for width in given.width:
        for wire in given.wire:
            each = measure(given.twins, width, wire, given.repeat)
            found.append(each)
            if not given.json:
                print(
                    f"{each['megabytes']:7.1f} MB an update ({wire}): ours {each['ours']:6.3f} s;"
                    f" bare {each['bare']:6.3f} s, ratio {each['ratio']:5.2f};"
                    f" reading back {each['back']:6.3f} s, ratio {each['ratio_back']:5.2f};"
                    f" processor {each['cpu']:5.3f}, {each['bare_cpu']:5.3f},"
                    f" {each['back_cpu']:5.3f} s",
                    flush=True,
                )
            if given.threads and not given.json:
                told = "; ".join(f"{name} {ms:.1f}" for name, ms in each["threads"].items())
                print(f"        milliseconds of the processor a round: {told}", flush=True)
    if given.json:
        print(json.dumps({"schema": 1, "found": found}))
    else:
        print(f"the ratio to the bare one is to be at most {MOST}  ({load()})")
    sys.exit(any(each["ratio"] > MOST for each in found))


def measure(twins: int, width: int, wire: str, repeat: int) -> dict[str, Any]:
    """Seconds of a round, ours and of both clients: medians; and medians of the runs' ratios."""
    found: list[tuple[Taken, Taken, Taken]] = []
    rounds, size = OF_SMALL if width <= SMALL else ROUNDS, 0.0
    for _ in range(repeat):
        configuration = recipe(
            twins, width=width, wire=wire, rounds_per_stage=rounds + 1, keep_rounds=1, n_lab=IMAGES
        )
        with run(configuration, dataset(each=IMAGES)) as federation:
            federation.make_topics()
            mine = ours(federation, rounds)
            plain, again = (bare_twin(federation, rounds, reads_back=b) for b in (False, True))
            found.append((mine, plain, again))
            size = sum(len(each.value) for each in Spoken(federation.names).updates) / twins / 1e6
    seconds = [[each.seconds for each in run] for run in found]
    cpu, bare_cpu, back_cpu = (median(e.cpu for e in each) for each in zip(*found, strict=True))
    one, other, back = (median(each) for each in zip(*seconds, strict=True))
    return {
        "megabytes": size, "wire": wire, "ours": one, "bare": other, "back": back,
        "ratio": ratio_of([(run[0], run[1]) for run in seconds]),
        "ratio_back": ratio_of([(run[0], run[2]) for run in seconds]),
        "runs": seconds, "cpu": cpu, "bare_cpu": bare_cpu, "back_cpu": back_cpu,
        "threads": found[-1][0].threads,
    }  # fmt: skip


class Taken(NamedTuple):
    """What a round takes: the median of those that count, and the mean of the processor."""

    seconds: float
    cpu: float
    threads: dict[str, float]
    """Milliseconds of the processor that each of ours takes in a round, who takes most first."""


# --- ours -----------------------------------------------------------------------------------------


def ours(federation: Run, count: int) -> Taken:
    """A round of the real programs."""
    federation.start_aggregator()
    federation.start("twins", str(Path(__file__)), "--host")
    stream(federation, dataset(each=IMAGES))
    with closing(consumer(federation.names.federation("rounds"))) as rounds:
        told: list[Any] = []

        def closed(wanted: int) -> bool:
            told.extend(polled(rounds))
            return sum(kind_of(each) == "RoundClosed" for each in told) >= wanted

        def spent() -> float:
            return sum(cpu(program.pid) for program in federation.programs.values())

        federation.until(lambda: closed(1))
        before, threads = spent(), of_threads(federation)
        federation.until(lambda: closed(count))
        each = (spent() - before) / (count - 1)
        by_thread = {
            name: (ms - threads.get(name, 0)) / (count - 1)
            for name, ms in of_threads(federation).items()
        }
    for program in federation.programs.values():
        program.terminate()
        program.wait()
    federation.programs.clear()
    most = sorted(by_thread, key=lambda name: -by_thread[name])
    threads = {name: by_thread[name] for name in most if by_thread[name] >= LEAST_TOLD}
    return Taken(median(seconds_of_rounds(told)[1:count]), each, threads)


def of_threads(federation: Run) -> dict[str, float]:
    """Milliseconds of the processor that each thread of our programs has taken; the first of a
    program is the one that does our own work, the others are the client's."""
    found = {}
    for name, program in federation.programs.items():
        for number, thread in enumerate(sorted(Path(f"/proc/{program.pid}/task").iterdir())):
            taken = int((thread / "schedstat").read_text().split()[0]) / 1e6
            found[f"{name} {number}"] = taken
    return found


def seconds_of_rounds(told: Iterable[Any]) -> list[float]:
    """From each RoundOpened to its RoundClosed, by the records' own times."""
    found: list[float] = []
    opened = 0
    for each in told:
        if kind_of(each) == "RoundOpened":
            opened = each.timestamp
        elif kind_of(each) == "RoundClosed":
            found.append((each.timestamp - opened) / 1000)
    return found


def stream(federation: Run, data: Dataset) -> None:
    """Let the producers' role write every image of the run's only stage."""
    opening, names = federation.opening, federation.names
    with closing(Kafka(federation.settings)) as log:
        run_opened(log, names)
        around = surroundings(opening.configuration, opening.data, log, names)
        system = System([Producers(names, SITE, data, None)], around, NoWorkers())
        topics = [names.of_entity("samples", entity) for entity in federation.entities]
        while system.step() or not all(log.end(topic) for topic in topics):
            log.wait(0.01)


def host() -> None:
    """The process of the twins: real but for its workers."""
    reuse()
    settings = read_settings()
    names = Names(settings.run)
    with closing(connect(settings, site=True)) as transport:
        opened = run_opened(transport, names)
        around = surroundings(opened.configuration, opened.data, transport, names)
        twins = Twins(names, SITE, around.shelf)
        workers = Quick(update(opened.configuration, opened.data.channels), TASKS)
        serve(twins, around, workers, names, process="twins-1", patience=600.0)


def update(configuration: Configuration, channels: int) -> Tensors:
    """What every twin answers, as a worker gives it: another model, or its difference to the
    first."""
    chance = np.random.Generator(np.random.PCG64(2))
    classes = len(dataset().class_uids)
    base = grown(first_model(channels, configuration.width, chance), classes, chance, "default")
    other = {
        name: tensor + chance.normal(0, 1e-3, tensor.shape).astype(tensor.dtype)
        if tensor.ndim > 1
        else tensor
        for name, tensor in base.items()
    }
    return encoded(update_of(other, base, configuration.wire), configuration.wire)


class Quick:
    """Workers that are done at once."""

    free = 2

    def __init__(self, answer: Tensors, tasks: Tasks) -> None:
        self._answer = answer
        self._tasks = tasks
        self._done: deque[tuple[object, Result]] = deque()

    def submit(self, id: object, task: Task) -> None:
        """Have it done."""
        self._done.append((id, self._tasks[task.name](self._answer, task)))

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        done = list(self._done)
        self._done.clear()
        return done

    def close(self) -> None:
        """Nothing is left to end."""


def judge(answer: Tensors, task: Task) -> Result:
    """Entropies, in nats."""
    return Result({"entropy": 1.0, "reference": 0.5, "reason": None}, {})


def learn(answer: Tensors, task: Task) -> Result:
    """The update that was made before."""
    return Result({"measured": {"samples": 1.0}}, {"send/model": answer})


TASKS: Tasks = {"judge": judge, "learn": learn}


# --- kafka-python alone ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A record of a real round, to be moved again."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Spoken:
    """The records of the last round of a run, in the order in which they were written."""

    def __init__(self, names: Names) -> None:
        rounds = all_of(names.federation("rounds"))
        self.opened, self.closed = (
            next(each for each in reversed(rounds) if kind_of(each) == kind)
            for kind in ("RoundOpened", "RoundClosed")
        )
        models = all_of(names.federation("models"))
        self.model = models[-int(header(models[-1], "fedtwin_pieces")) :]
        updates = all_of(names.of_site("updates", SITE))
        number = header(updates[-1], "fedtwin_round")
        self.updates = [each for each in updates if header(each, "fedtwin_round") == number]


def bare_twin(federation: Run, count: int, *, reads_back: bool) -> Taken:
    """The same with kafka-python alone; each way has topics of its own."""
    names, way = federation.names, "back" if reads_back else "bare"
    words = ["--rounds", str(count), *(["--back"] if reads_back else [])]
    topics = [bare_topic(names, name, reads_back=reads_back) for name in TOPICS]
    with closing(Administration(federation.settings)) as administration:
        administration.apply([Planned(topic, {}) for topic in topics])
    programs = [
        federation.start(f"{way}-{who}", str(Path(__file__)), *words, "--bare", who)
        for who in ("site", "server")
    ]
    federation.until(lambda: all(program.poll() is not None for program in programs))
    federation.check()
    said = [(federation.folder / f"{way}-{who}.log").read_text() for who in ("site", "server")]
    each = sum(float(told.split()[-1]) for told in said) / (count - 1)
    return Taken(median(seconds_of_rounds(all_of(topics[0]))[1:]), each, {})


def bare(who: str, count: int, *, reads_back: bool) -> None:
    """One side of rounds without us: nothing is looked at, and every record is acknowledged.

    With `reads_back` the server's side waits for what it wrote to come back. Says at last what the
    rounds that count have taken of the processor, in seconds.
    """
    names = Names(read_settings().run)
    said = Spoken(names)
    producer = KafkaProducer(bootstrap_servers=servers(), acks="all")
    rounds, models, updates = (bare_topic(names, name, reads_back=reads_back) for name in TOPICS)
    for topic in (rounds, models, updates):
        producer.partitions_for(topic)
    size, before = len(said.model), 0.0
    if who == "server":
        with (
            closing(consumer(updates)) as heard,
            closing(consumer(rounds)) as back,
            closing(consumer(models)) as base,
        ):
            await_records(back, 1)  # the other side is there
            send(producer, models, said.model)
            await_records(base, size * reads_back)
            for number in range(count):
                before = before if number > 1 else time.process_time()
                send(producer, rounds, [said.opened])
                await_records(back, reads_back)
                await_records(heard, len(said.updates))
                send(producer, models, said.model)
                send(producer, rounds, [said.closed])
                await_records(back, reads_back)
                await_records(base, size * reads_back)
    else:
        with closing(consumer(models)) as base, closing(consumer(rounds)) as heard:
            send(producer, rounds, [said.closed])
            await_records(heard, 1)
            for number in range(count):
                before = before if number > 1 else time.process_time()
                await_records(heard, 1)
                await_records(base, size)
                send(producer, updates, said.updates)
                await_records(heard, 1)
    print(time.process_time() - before)
    producer.close()


def send(producer: KafkaProducer, topic: str, records: Iterable[Any]) -> None:
    """Write records one behind the other, some of them at a time, until all are acknowledged."""
    sent: deque[Any] = deque()
    for each in records:
        headers = list(each.headers)
        sent.append(producer.send(topic, each.value, key=each.key, partition=0, headers=headers))
        if len(sent) > UNDER_WAY:
            sent.popleft().get(60)
    for future in sent:
        future.get(60)


def await_records(reader: KafkaConsumer, count: int) -> None:
    """Read so many more, and leave what stands behind them."""
    while count:
        count -= len(polled(reader, 1000, count))


def polled(reader: KafkaConsumer, milliseconds: int = 0, most: int | None = None) -> list[Any]:
    """What has come."""
    came = reader.poll(timeout_ms=milliseconds, max_records=most)
    return [each for found in came.values() for each in found]


def all_of(topic: str) -> list[Any]:
    """Every record of a topic, but for tombstones."""
    with closing(consumer(topic)) as reader:
        partition = TopicPartition(topic, 0)
        end = reader.end_offsets([partition])[partition]
        found: list[Any] = []
        while reader.position(partition) < end:
            found += polled(reader, 1000)
    return [each for each in found if each.value is not None]


def consumer(topic: str) -> KafkaConsumer:
    """A reader of one topic, from where it begins."""
    made = KafkaConsumer(bootstrap_servers=servers(), enable_auto_commit=False)
    partition = TopicPartition(topic, 0)
    made.assign([partition])
    made.seek(partition, made.beginning_offsets([partition])[partition])
    return made


def servers() -> str:
    """Where the broker is."""
    return kafka_settings(read_settings().kafka).servers


def bare_topic(names: Names, topic: str, *, reads_back: bool) -> str:
    """Its name."""
    return f"{names.federation('models')}-{'back' if reads_back else 'bare'}-{topic}"


def kind_of(record: Any) -> str:
    """A message's kind, as its headers tell it."""
    return header(record, "ce_type").split(".")[1]


def header(record: Any, name: str) -> str:
    """One of a record's headers."""
    return str(dict(record.headers)[name].decode())


if __name__ == "__main__":
    main()
