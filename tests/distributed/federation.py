"""A federation of real processes on real services, and ways to treat it badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from aggregator.aggregator import Opening
from aggregator.opening import write_opening
from experiments.recipes import recipe
from experiments.system import SITE, embedded, opening_of
from experiments.worker import FUNCTIONS
from infra.kafka import KafkaSettings
from infra.rights import AccessList
from infra.store.sqlite import SqliteStore
from infra.topics import Administration, plan
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.transport.kafka import Kafka
from infra.workers import Inline
from learning.repeatable import repeatable
from producers.datasets import load
from producers.images import Dataset
from schemas.codec import piece, unpack
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.limits import LEAST_BYTES
from schemas.line import RoundsLine
from schemas.messages import DeadLetter, Decision, RoundClosed, RoundOpened
from schemas.rights import grants
from schemas.schedule import Schedule
from schemas.topics import Names, parted
from tests.guarded import CREW, Guarded, user_of
from tests.services import have, kafka_address, new_run, some_redis

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0  # seconds that a whole run of `tiny` may take here, faults included
AGAIN = 0.02  # seconds between two looks
ROLES = ("aggregator", "producers", "twins", "proxy")


def tiny(**overrides: object) -> Configuration:
    """The recipe for crash tests; every update is kept, so that it can be counted."""
    return recipe("tiny", overrides={"keep_rounds": "all", "standby_after": 2.0, **overrides})


@cache
def digits() -> Dataset:
    """The bundled images, as `tiny` takes them."""
    return load("digits", Path(), image_size=16)


def dealt(configuration: Configuration, sites: Sequence[str]) -> Opening:
    """What RunOpened will say, with the entities of the recipe at these sites in turn."""
    opening = opening_of(configuration, digits())
    told = opening.schedule.model_dump_json()
    for number, entity in enumerate(opening.schedule.entities):
        told = told.replace(f'"{entity}"', f'"{sites[number % len(sites)]}/{parted(entity)[1]}"')
    return replace(opening, schedule=Schedule.model_validate_json(told))


@cache
def undisturbed(configuration: Configuration, sites: Sequence[str] = (SITE,)) -> str:
    """The last model's hash of the same recipe in one process."""
    repeatable(1)
    with closing(Log()) as log, closing(SqliteStore()) as store:
        opening = dealt(configuration, sites)
        run = embedded(opening, digits(), log, store, Inline(FUNCTIONS), run="alone")
        run.system.run()
        assert run.aggregator.line.model is not None
        return run.aggregator.line.model.sha256


class Zygote:
    """Starts programs quickly."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._answer()

    def ask(self, **told: Any) -> dict[str, Any]:
        """One question, one answer."""
        assert self._process.stdin is not None
        print(json.dumps(told), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """It goes when nobody asks any more."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@dataclass
class Program:
    """One process of a run."""

    role: str
    words: list[str]
    pid: int
    code: int | None = None
    ends: list[int] = field(default_factory=list)
    """Exit codes of those before it that were started with the same words."""


class Federation:
    """One run, on services that other tests use as well."""

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        configuration: Configuration,
        *,
        kafka: str | None = None,
        site_kafka: str | None = None,
        redis: str | None = None,
        guarded: Guarded | None = None,
        sites: Sequence[str] = (SITE,),
    ) -> None:
        """With a `guarded` broker each role comes as itself, and may do what it must."""
        self.sites = tuple(sites)
        self._zygote = zygote
        self._folder = folder
        self.configuration = configuration
        self.names = Names(new_run())
        self._guarded = guarded
        self.kafka = guarded.keeper.servers if guarded else kafka or have(kafka_address)
        self.environment = {
            "FEDTWIN_KAFKA": self.kafka,
            "FEDTWIN_REDIS": redis or have(some_redis).address,
            "FEDTWIN_RUN": self.names.run,
        }
        if site_kafka:
            self.environment["FEDTWIN_SITE_KAFKA"] = site_kafka
        self.site_kafka = site_kafka or self.kafka
        self.programs: dict[str, Program] = {}
        opening = dealt(configuration, sites)
        self._opening = folder / "opening.json"
        write_opening(opening, self._opening)
        self._topics: list[str] = []
        for cluster, address in (("federation", self.kafka), ("site", self.site_kafka)):
            settings = KafkaSettings(address)
            self.entities = entities = opening.schedule.entities
            planned = plan(self.names, cluster, sites, entities, settings)  # type: ignore[arg-type]
            self._topics += [each.name for each in planned]
            with closing(Administration(settings)) as administration:
                administration.apply(planned)
            if guarded:
                rights = grants(self.names, cluster, sites, entities, CREW)  # type: ignore[arg-type]
                with closing(AccessList(settings)) as access:
                    access.apply(rights)

    # --- programs -------------------------------------------------------------------------------

    def start(
        self,
        role: str,
        *words: str,
        name: str = "",
        kill: tuple[str, int] | tuple[str, int, int, int] | None = None,
        slow: float | None = None,
        environment: Mapping[str, str] | None = None,
        clock: float = 0,
    ) -> Program:
        """Start a program of a role.

        `kill` is a point, and how often it is passed before; with a process id and a signal
        behind them it is not itself that is struck. `slow`, the seconds more that a training of the
        first round takes. Its clock goes wrong by `clock` seconds.
        """
        name = name or f"{role}-1"
        every = [*words, "--process", name]
        if role == "aggregator":
            every += ["--opening", str(self._opening)]
        if role == "producers":
            every += ["--data-dir", str(self._folder)]
        if role == "twins":
            every += ["--workers", "2"]
        more = {"kill": kill, "slow": slow, "clock": clock}
        self.programs[name] = self._begin(role, every, name, environment or {}, **more)
        return self.programs[name]

    def start_all(self, *besides: str, kill: Mapping[str, tuple[str, int]] | None = None) -> None:
        """One program of each role, but for those named."""
        for role in ROLES:
            if role not in besides:
                self.start(role, kill=(kill or {}).get(role))

    def again(self, name: str) -> None:
        """Start a program that has ended, with the same words and without a hook."""
        old = self.programs[name]
        assert old.code is not None
        fresh = self._begin(old.role, old.words, name, {})
        fresh.ends = [*old.ends, old.code]
        self.programs[name] = fresh

    def signal(self, name: str, what: signal.Signals) -> None:
        """Send one of our own programs a signal."""
        os.kill(self.programs[name].pid, what)

    def look(self) -> None:
        """See which programs have ended."""
        for program in self.programs.values():
            if program.code is None:
                program.code = self._zygote.ask(poll=program.pid)["code"]

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
        """Wait until something holds; gives the seconds. Fails with what the programs said."""
        began = time.monotonic()
        while not holds():
            self.look()
            if time.monotonic() > began + seconds:
                raise AssertionError(f"not within {seconds:.0f} s. {self.said()}")
            time.sleep(AGAIN)
        return time.monotonic() - began

    def finish(self, *, seconds: float = PATIENCE) -> None:
        """Start again whoever was killed, until all have ended with 0."""
        until = time.monotonic() + seconds
        while any(program.code != 0 for program in self.programs.values()):
            self.look()
            for name, program in self.programs.items():
                if program.code is not None and program.code < 0:
                    self.again(name)
                elif program.code:
                    raise AssertionError(f"{name} ended with {program.code}. {self.said()}")
            if time.monotonic() > until:
                raise AssertionError(f"not over within {seconds:.0f} s. {self.said()}")
            time.sleep(AGAIN)

    def end(self) -> None:
        """Kill what still runs, and take the topics away."""
        self.look()
        for program in self.programs.values():
            if program.code is None:
                with suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)
        for address in {self.kafka, self.site_kafka}:
            with closing(Administration(KafkaSettings(address))) as administration:
                administration.rm(self.names)
            if self._guarded:
                with closing(AccessList(KafkaSettings(address))) as access:
                    access.rm(self.names)

    def said(self) -> str:
        """The last words of every program."""
        files = sorted(self._folder.glob("*.log"))
        return "; ".join(f"{file.stem}: {file.read_text()[-1500:]}" for file in files)

    def words(self, name: str) -> list[str]:
        """What a program has said, a line each."""
        return (self._folder / f"{name}.log").read_text().splitlines()

    def _begin(
        self,
        role: str,
        words: Sequence[str],
        name: str,
        environment: Mapping[str, str],
        **more: object,
    ) -> Program:
        told = self._zygote.ask(
            start=role,
            words=list(words),
            environment={**self.environment, **self._own(role), **environment},
            log=str(self._folder / f"{name}.log"),
            **more,
        )
        return Program(role, list(words), told["pid"])

    def _own(self, role: str) -> dict[str, str]:
        """What a program of a role is told besides: who it is."""
        return self._guarded.environment(user_of(role, SITE)) if self._guarded else {}

    # --- what came of it --------------------------------------------------------------------------

    @contextmanager
    def log(self, address: str | None = None) -> Iterator[Transport]:
        """The run's topics, read by nobody's rules."""
        with closing(Kafka(KafkaSettings(address or self.kafka))) as transport:
            yield transport

    def topics(self) -> list[str]:
        """Every topic of the run, in both clusters."""
        return self._topics

    def decided(self) -> RoundsLine:
        """The decisions, as a reader folds them."""
        line = RoundsLine()
        with self.log() as log:
            for message, hash in messages(log, self.names.federation("rounds")):
                if isinstance(message, Decision):
                    line.hear(message, hash)
        return line

    def letters(self) -> list[DeadLetter]:
        """What was set aside."""
        found = []
        topics = [self.names.federation("dead-letters")]
        with self.log() as log:
            found += [each for each, _ in messages(log, topics[0])]
        with self.log(self.site_kafka) as log:
            for site in self.sites:
                topic = self.names.of_site("dead-letters", site)
                found += [each for each, _ in messages(log, topic)]
        return [each for each in found if isinstance(each, DeadLetter)]


def messages(log: Transport, topic: str) -> Iterator[tuple[Any, str]]:
    """Every message of one record in a topic, with its hash."""
    place = 0
    while place < log.end(topic):
        for stored in log.read(topic, place, 2**22):
            place = stored.offset + 1
            try:
                part = piece(stored.record.value, LEAST_BYTES)
                yield unpack(part.content, LEAST_BYTES), part.message
            except Refused:
                continue


def of_kind(run: Federation, kind: type) -> int:
    """How many decisions of a kind there are."""
    return sum(isinstance(each, kind) for each in run.decided().decisions.values())


def ended_as_undisturbed(federation: Federation) -> None:
    """The undisturbed model; and in each round each participant was counted exactly once."""
    line = federation.decided()
    assert line.over
    assert line.model is not None
    assert line.model.sha256 == undisturbed(federation.configuration, federation.sites)
    closed = [each for each in line.decisions.values() if isinstance(each, RoundClosed)]
    assert (
        len(closed) == federation.configuration.stages * federation.configuration.rounds_per_stage
    )
    for each in closed:
        opened = line.decisions[each.opened]
        assert isinstance(opened, RoundOpened)
        counted = [entity for entity, _ in each.counted]
        assert sorted(counted) == sorted(part.entity for part in opened.participants)
