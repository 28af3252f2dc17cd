"""The real services that tests speak to: those of the environment, of the checkout, or our own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Thread, Timer
from typing import TypeVar

import pytest

from infra.kafka import KafkaSettings
from infra.native.kafka import Broker, fetch, find_java
from infra.native.programs import alone, free_ports, running, stop
from infra.topics import Administration
from infra.transport.base import Stored, Transport
from schemas.codec import Record
from schemas.errors import ServiceError
from schemas.topics import PREFIX, Names

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


def jars() -> Path:
    """Kafka's jars, fetched once for the checkout."""
    find_java()
    with alone(ROOT / ".native"):
        return fetch(ROOT / ".native")


@cache
def kafka_address() -> str:
    """Of a broker that all tests share: each of them has topics of its own there."""
    if told := os.environ.get("FEDTWIN_KAFKA"):
        return told
    services = ROOT / ".services.json"
    if services.exists():
        return str(json.loads(services.read_text())["addresses"]["FEDTWIN_KAFKA"])
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-kafka-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(stop, folder / "kafka")  # first: what is registered last is done first
    return Broker(folder / "kafka", have(jars), *free_ports(2)).start().address


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

    def append(self, topic: str, records: Sequence[Record]) -> int:
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
