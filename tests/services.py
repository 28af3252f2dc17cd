"""Real services for tests: those that are there, or else our own for as long as the tests run."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from infra.native.kafka import Broker, fetch, find_java
from infra.native.programs import HOST, alone, free_ports, running, stop
from infra.native.redis import start_redis
from infra.settings import REDIS, Service, read_settings
from infra.store.redis import RedisStore, client
from schemas.errors import ServiceError

T = TypeVar("T")
ROOT = Path(__file__).parents[1]


def have(service: Callable[[], T]) -> T:
    """What the machine has; else the test is skipped with the reason, and in CI it fails."""
    try:
        return service()
    except ServiceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@cache
def some_redis() -> Service:
    """A server to put things into: what the environment or `make up` names, else one of our own.

    Raises ServiceError where none of them is to be had.
    """
    try:
        return read_settings().redis
    except ServiceError:
        return own_redis()


def own_redis() -> Service:
    """A server that ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-redis-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(stop, folder)  # what was registered last is done first
    return Service(REDIS, start_redis(folder, *free_ports(1)).address)


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
    """Kafka's jars, fetched once for the checkout."""
    find_java()
    with alone(ROOT / ".native"):
        return fetch(ROOT / ".native")


@cache
def kafka_address() -> str:
    """Of a broker that all tests share: each of them has topics of its own there."""
    try:
        return read_settings(ROOT).kafka.address
    except ServiceError:
        pass
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-kafka-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(stop, folder / "kafka")  # first: what is registered last is done first
    return Broker(folder / "kafka", have(jars), *free_ports(2)).start().address


def new_run() -> str:
    """A name that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"
