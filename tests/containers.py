"""Services in containers, where an engine answers and has their images or can get them.

The public images, unless FEDTWIN_KAFKA_IMAGE and FEDTWIN_REDIS_IMAGE name others; an image of Kafka
must take its settings from the environment, as `apache/kafka` does. What is started here ends with
the process.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports
from infra.native.redis import answers
from schemas.errors import ServiceError

KAFKA_IMAGE = os.environ.get("FEDTWIN_KAFKA_IMAGE") or "apache/kafka:4.3.1"
REDIS_IMAGE = os.environ.get("FEDTWIN_REDIS_IMAGE") or "redis:7"
PATIENCE = 60  # seconds for a service to come up, when its image is there
ASKED = 5  # seconds for an engine to answer
PORTS = (9092, 9093)  # of a broker inside its container
NETWORK = "bridge"
"""The engine's own, in which containers are that name none."""
REDIS = ("redis-server", "--appendonly", "yes", "--protected-mode", "no")
"""A server that is reached from outside its container; the port is open on the loopback alone."""

ANSWERED: list[str] = []
"""Versions of the engines that have answered."""


@cache
def engine() -> str:
    """The version of the engine. Raises ServiceError when none answers."""
    # Its own tidying container would be one more image; ours end by atexit.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        import docker

        with closing(docker.from_env(timeout=ASKED)) as client:
            version = str(client.version()["Version"])
            ANSWERED.append(version)
            return version
    except ImportError:
        raise ServiceError("testcontainers is not installed: pip install testcontainers") from None
    except docker.errors.DockerException:  # whose own words are about its parts
        where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        raise ServiceError(f"no container engine answers at {where}") from None


@dataclass(frozen=True)
class Contained:
    """A service in a container."""

    address: str
    container: Any
    """As testcontainers has it."""

    def stop(self) -> None:
        """End it, and take its container away."""
        atexit.unregister(self.container.stop)
        self.container.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, none of its processes takes a step, and nobody is told."""
        own = self.container.get_wrapped_container()
        own.pause()
        try:
            yield
        finally:
            own.unpause()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Inside, it has no network."""
        own = self.container.get_wrapped_container()
        network = own.client.networks.get(NETWORK)
        network.disconnect(own)
        try:
            yield
        finally:
            network.connect(own)


def broker(image: str = "") -> Contained:
    """A broker in a container. Raises ServiceError when there is none to be had."""
    (port,) = free_ports(1)
    more = {
        "listeners": f"PLAINTEXT://:{PORTS[0]},CONTROLLER://:{PORTS[1]}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
    }
    node = Broker(Path("/tmp/fedtwin"), Path(), *PORTS, more=more)  # the same as without one
    settings = (line.split("=", 1) for line in node.properties.splitlines())
    environment = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings}
    container = _started(image or KAFKA_IMAGE, {PORTS[0]: port}, environment)
    _until(container, lambda: b"Kafka Server started" in container.get_logs()[0])
    return Contained(f"{HOST}:{port}", container)


def server(image: str = "") -> Contained:
    """A Redis server in a container. Raises ServiceError likewise."""
    (port,) = free_ports(1)
    container = _started(image or REDIS_IMAGE, {6379: port}, {}, REDIS)
    _until(container, lambda: answers(port))
    return Contained(f"{HOST}:{port}", container)


def kafka() -> str:
    """The address of a broker in a container of its own, which ends with the process."""
    return broker().address


def redis() -> str:
    """The address of a server likewise."""
    return server().address


def _started(
    image: str,
    ports: Mapping[int, int],
    environment: Mapping[str, str],
    command: Sequence[str] = (),
) -> Any:
    engine()
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    published: Any = container.ports  # it is typed for ports of every interface
    for inside, outside in ports.items():
        published[inside] = (HOST, outside)
    for name, value in environment.items():
        container.with_env(name, value)
    if command:
        container.with_command(list(command))
    try:
        container.start()
    except Exception as error:
        raise ServiceError(f"no container of {image}: {error}") from None
    atexit.register(container.stop)
    return container


def _until(container: Any, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            words = container.get_logs()[0].decode(errors="replace").splitlines()[-5:]
            raise ServiceError("\n    ".join(["the container does not come up:", *words]))
        time.sleep(0.1)
