"""Real services for tests: those that are there, or else our own for as long as the tests run."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread, Timer
from typing import Any, TypeVar

import pytest
import redis

from experiments import examination
from infra.kafka import KafkaSettings
from infra.native.kafka import Broker, cluster, fetch, find_java, prepare, start_all
from infra.native.programs import HOST, alone, free_ports, running, stop
from infra.native.redis import start_redis
from infra.settings import KAFKA, REDIS, Service, Settings, read_settings
from infra.store.redis import RedisStore, client
from infra.topics import Administration
from infra.transport.base import Stored, Transport
from schemas.codec import Record
from schemas.errors import FedtwinError, ServiceError
from schemas.topics import PREFIX, Names
from tests import containers

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
NOT_ASKED = "no test asked for it"


def have(service: Callable[[], T]) -> T:
    """What the machine has; else the test is skipped with the reason, and in CI it fails."""
    try:
        return service()
    except ServiceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@cache
def named() -> Settings:
    """What the environment or `make up` names; read before a test changes the environment."""
    return read_settings(ROOT)


class Provided:
    """A service that all tests share, from the first place that has it.

    An address that somebody named, then a container, then our own as a child process; the last two
    end with the tests.
    """

    def __init__(
        self,
        variable: str,
        ways: Mapping[str, Callable[[], str]],
        version: Callable[[str], str],
    ) -> None:
        self._variable = variable
        self._ways = ways
        self._version = version
        self._how = ""
        self._address = ""
        self.missing: list[str] = []
        """Why it could not be had, way by way; once it was looked for in vain."""

    @property
    def asked(self) -> bool:
        """Whether a test has asked for it."""
        return bool(self._how or self.missing)

    def address(self) -> str:
        """Where it is. Raises ServiceError, each time, where it cannot be had."""
        if not self.asked:
            self._look()
        if not self._how:
            raise ServiceError("; ".join(self.missing))
        return self._address

    def told(self) -> str:
        """Which it was, and which version; or why there was none."""
        if not self.asked:
            return NOT_ASKED
        if not self._how:
            return f"none: {'; '.join(self.missing)}"
        try:
            version = self._version(self._address)
        except (FedtwinError, redis.RedisError) as error:
            return f"{self._how}, {self._address}: does not answer: {error}"
        return f"{version} ({self._how}, {self._address})"

    def _look(self) -> None:
        if service := named().services.get(self._variable):
            by_hand = os.environ.get(self._variable)
            self._how, self._address = "environment" if by_hand else "make up", service.address
            return
        for how, start in self._ways.items():
            try:
                self._address = start()
            except ServiceError as error:
                self.missing.append(f"{how}: {' '.join(str(error).split())}")
            else:
                self._how = how
                return


def _native_redis() -> str:
    """A server that ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-redis-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(stop, folder)  # what was registered last is done first
    return start_redis(folder, *free_ports(1)).address


def _native_kafka() -> str:
    """A broker that ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-kafka-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(stop, folder / "kafka")
    return Broker(folder / "kafka", jars(), *free_ports(2)).start().address


PROVIDED = {
    "kafka": Provided(
        KAFKA,
        {"container": containers.kafka, "native": _native_kafka},
        lambda address: examination.cluster(KafkaSettings(address)).version,
    ),
    "redis": Provided(
        REDIS,
        {"container": containers.redis, "native": _native_redis},
        lambda address: examination.server(Service(REDIS, address)).version,
    ),
}


def told() -> list[str]:
    """A line for each service: which it was, or why there was none."""
    lines = [f"{name}: {service.told()}" for name, service in PROVIDED.items()]
    if not containers.ANSWERED and not any(service.asked for service in PROVIDED.values()):
        return [*lines, f"docker: {NOT_ASKED}"]
    try:
        return [*lines, f"docker: {containers.engine()}"]
    except ServiceError as error:
        own = f"{containers.ANSWERED[-1]} (the tests' own)" if containers.ANSWERED else ""
        return [*lines, f"docker: {own or f'none: {error}'}"]


def merged(told: Iterable[Sequence[str]]) -> list[str]:
    """The lines of several processes as one for each service: each has what it started itself.

    That one found none is told where all did: the engine is had by whose tests start it.
    """
    answers: dict[str, list[str]] = {}
    for name, answer in (line.split(": ", 1) for lines in told for line in lines):
        answers.setdefault(name, []).append(answer)
    lines = []
    for name, each in answers.items():
        known = [*dict.fromkeys(answer for answer in each if answer != NOT_ASKED)]
        there = [answer for answer in known if not answer.startswith("none: ")]
        lines.append(f"{name}: {'; '.join(there or known) or NOT_ASKED}")
    return lines


def some_redis() -> Service:
    """A server to put things into. Raises ServiceError where there is none to be had."""
    return Service(REDIS, PROVIDED["redis"].address())


def kafka_address() -> str:
    """Of a broker that all tests share: each of them has topics of its own there.

    Raises ServiceError where there is none to be had.
    """
    return PROVIDED["kafka"].address()


@dataclass
class Server:
    """A server to be treated badly."""

    folder: Path
    port: int

    def start(self) -> None:
        """Start it, or start it again with what it had."""
        start_redis(self.folder, self.port)

    def end(self, patience: float = 5.0) -> None:
        """End it, whatever it is doing."""
        if running(self.folder):
            self.signal(signal.SIGCONT)
        stop(self.folder, patience=patience)

    def signal(self, what: signal.Signals) -> None:
        """Kill it, stop it, let it go on."""
        program = running(self.folder)
        assert program is not None
        os.kill(program.pid, what)
        if what is signal.SIGKILL:
            os.waitpid(program.pid, 0)

    @property
    def service(self) -> Service:
        """Where it is."""
        return Service(REDIS, f"{HOST}:{self.port}")

    def told(self, *command: str) -> Any:
        """What it answers its keeper."""
        with client(self.service) as keeper:
            return keeper.execute_command(*command)

    def store(self, service: Service | None = None, **more: Any) -> RedisStore:
        """A store there, impatient unless it is told otherwise."""
        return RedisStore(service or self.service, "spring", **{"timeout": 5.0, **more})


def jars() -> Path:
    """Kafka's jars, fetched once for the checkout, and the archive of their classes."""
    find_java()
    with alone(ROOT / ".native"):
        libs = fetch(ROOT / ".native")
    prepare(libs)
    return libs


@cache
def three_brokers() -> list[Broker]:
    """A cluster that the tests of a file share. Who ends one of them starts it again (`whole`)."""
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-kafka-"))
    brokers = cluster(folder, have(jars))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for broker in brokers:  # the last one waits for the others to let it go, which they cannot
        atexit.register(stop, broker.folder, patience=1)
    start_all(brokers)
    return brokers


def rest() -> None:
    """End the cluster, if there is one, until a test asks for it again.

    Each of three brokers takes some hundredths of a processor also while nobody needs it.
    """
    if three_brokers.cache_info().currsize:
        for broker in three_brokers():
            stop(broker.folder, patience=1)
        three_brokers.cache_clear()


def addresses(brokers: Sequence[Broker]) -> str:
    """Where a cluster is."""
    return ",".join(broker.address for broker in brokers)


def whole(brokers: Sequence[Broker]) -> None:
    """All of them run."""
    ended = [broker for broker in brokers if not running(broker.folder)]
    start_all(ended)


def new_run() -> str:
    """A name that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


def swept(settings: KafkaSettings, names: Names) -> None:
    """A run is taken away, by a connection that knows nothing of what its broker went through."""
    administration = Administration(settings)
    administration.rm(names)
    administration.close()


class InRun:
    """A log of a run of its own, which the test knows by another name: all share one broker."""

    def __init__(self, inner: Transport, run: str, *, called: str) -> None:
        self._inner = inner
        self._own, self._called = f"{PREFIX}.{run}.", f"{PREFIX}.{called}."
        self.wait, self.close = inner.wait, inner.close

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        return self._inner.append(self._there(topic), records)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        return self._inner.read(self._there(topic), place, max_bytes)

    def first(self, topic: str) -> int:
        return self._inner.first(self._there(topic))

    def end(self, topic: str) -> int:
        return self._inner.end(self._there(topic))

    def topics(self) -> list[str]:
        names = [name for name in self._inner.topics() if name.startswith(self._own)]
        return [name.replace(self._own, self._called) for name in names]

    def forget(self, topic: str, *keys: str) -> None:
        self._inner.forget(self._there(topic), *keys)

    def trim(self, topic: str, before: int) -> None:
        self._inner.trim(self._there(topic), before)

    def _there(self, topic: str) -> str:
        return topic.replace(self._called, self._own)


# --- a broker of a test's own ---------------------------------------------------------------------


def signalled(broker: Broker, how: signal.Signals) -> None:
    """A broker is sent a signal, if it runs."""
    if program := running(broker.folder):
        os.kill(program.pid, how)


def killed(broker: Broker) -> None:
    """A broker is killed, and begins anew at once."""
    signalled(broker, signal.SIGKILL)
    while running(broker.folder):
        time.sleep(0.01)
    Thread(target=broker.start).start()


def asleep(broker: Broker, seconds: float) -> None:
    """A broker sleeps for a while."""
    signalled(broker, signal.SIGSTOP)
    Timer(seconds, signalled, [broker, signal.SIGCONT]).start()


def at_times(
    point: str, numbers: tuple[int, ...], act: Callable[[], None]
) -> Callable[[str], None]:
    """A hook that acts when a point is passed for the nth time."""
    seen: list[str] = []

    def hook(passed: str) -> None:
        if passed == point:
            seen.append(passed)
            if len(seen) in numbers:
                act()

    return hook
