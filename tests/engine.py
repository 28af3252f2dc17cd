"""An engine of the tests' own, where continuous integration has none that answers.

On a person's machine nothing is started that could be in the way of something else: there an engine
answers, or tests that need one are skipped. A machine whose kernel forbids an engine is no mistake
of ours either, so this too is a skip, with the engine's last words.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra.deploy import images
from infra.native.programs import settle, start, stop
from schemas.errors import ServiceError
from tests import containers

ROOT = Path(__file__).parents[1]
LOCAL = {"FEDTWIN_KAFKA_IMAGE": images.KAFKA, "FEDTWIN_REDIS_IMAGE": images.REDIS}


def in_ci() -> bool:
    """Whether this is continuous integration."""
    return os.environ.get("CI") == "true"


@contextmanager
def some_engine(folder: Path) -> Iterator[None]:
    """Inside, an engine answers where programs look for one; else the test is skipped."""
    try:
        containers.engine()
    except ServiceError as missing:
        if not in_ci():
            pytest.skip(str(missing))
        with _own(folder):
            yield
    else:
        yield


def local_images() -> dict[str, str]:
    """Which images to use, by their variable: those that somebody named; in CI our own.

    Raises ServiceError when these cannot be made.
    """
    named = {name: os.environ[name] for name in LOCAL if os.environ.get(name)}
    if not in_ci() or len(named) == len(LOCAL):
        return named
    made = subprocess.run(
        [sys.executable, "-m", "infra.deploy"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if made.returncode:
        raise ServiceError(f"images cannot be made: {made.stdout}{made.stderr}")
    return LOCAL | named


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """An engine that ends, and whose images go, with this context."""
    dockerd = shutil.which("dockerd")
    if dockerd is None:
        pytest.skip("no dockerd here: make ci-setup installs one as root on Debian")
    door = folder / "docker.sock"
    address = f"unix://{door}"
    words = [dockerd, "--host", address, "--data-root", str(folder / "data")]
    words += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
    start(words, folder / "program", ())
    before = os.environ.get("DOCKER_HOST")
    try:
        settle(folder / "program", lambda: _opens(door))
        os.environ["DOCKER_HOST"] = address
        containers.engine.cache_clear()
        containers.engine()
    except ServiceError as error:
        pytest.skip(f"this machine cannot run an engine: {error}")
    else:
        yield
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before
        containers.engine.cache_clear()
        stop(folder / "program")
        shutil.rmtree(folder, ignore_errors=True)


def _opens(door: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(door))
        return True
    return False
