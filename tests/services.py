"""Real services for tests: those that are there, or else our own for as long as the tests run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from infra.native.programs import free_ports, stop
from infra.native.redis import start_redis
from infra.settings import REDIS, Service, read_settings
from schemas.errors import ServiceError

T = TypeVar("T")


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
