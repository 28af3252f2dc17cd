"""The real services that tests speak to: those of the environment, of the checkout, or our own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from infra.native.kafka import Broker, fetch, find_java
from infra.native.programs import alone, free_ports, stop
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
