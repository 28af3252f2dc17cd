"""Services in containers, where an engine answers and has their images or can get them.

The public images, unless FEDTWIN_KAFKA_IMAGE and FEDTWIN_REDIS_IMAGE name others; an image of Kafka
must take its settings from the environment, as `apache/kafka` does. What is started here ends with
the process.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Mapping
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


@cache
def engine() -> str:
    """The version of the engine. Raises ServiceError when none answers."""
    # Its own tidying container would be one more image; ours end by atexit.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        import docker

        with docker.from_env(timeout=ASKED) as client:
            return str(client.version()["Version"])
    except ImportError:
        raise ServiceError("testcontainers is not installed: pip install testcontainers") from None
    except Exception as error:
        reason = str(error).partition("(")[0].strip() or type(error).__name__
        raise ServiceError(f"no container engine answers: {reason}") from None


def kafka() -> str:
    """The address of a broker in a container. Raises ServiceError when there is none to be had."""
    (port,) = free_ports(1)
    more = {
        "listeners": f"PLAINTEXT://:{PORTS[0]},CONTROLLER://:{PORTS[1]}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
    }
    broker = Broker(Path("/tmp/fedtwin"), Path(), *PORTS, more=more)  # the same as without one
    settings = (line.split("=", 1) for line in broker.properties.splitlines())
    environment = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings}
    container = _started(KAFKA_IMAGE, {PORTS[0]: port}, environment)
    _until(container, lambda: b"Kafka Server started" in container.get_logs()[0])
    return f"{HOST}:{port}"


def redis() -> str:
    """The address of a Redis server in a container. Raises ServiceError likewise."""
    (port,) = free_ports(1)
    container = _started(REDIS_IMAGE, {6379: port}, {}, "redis-server --appendonly yes")
    _until(container, lambda: answers(port))
    return f"{HOST}:{port}"


def _started(
    image: str, ports: Mapping[int, int], environment: Mapping[str, str], command: str = ""
) -> Any:
    engine()
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image)
    for inside, outside in ports.items():
        container.with_bind_ports(inside, outside)
    for name, value in environment.items():
        container.with_env(name, value)
    if command:
        container.with_command(command)
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
