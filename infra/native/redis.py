"""A real Redis server as a child process. The program comes from the system's packages."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from infra.native.programs import HOST, Program, settle, start
from schemas.errors import ServiceError


def start_redis(folder: Path, port: int) -> Program:
    """Start a server that keeps its data in `folder`, and wait until it answers.

    Raises ServiceError when there is no redis-server, or when it does not come up.
    """
    if (redis := shutil.which("redis-server")) is None:
        raise ServiceError(
            "no redis-server on the PATH. On Debian and Ubuntu: apt-get install redis-server"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [redis, "--bind", HOST, "--port", str(port), "--dir", str(folder.absolute())]
    program = start([*command, "--appendonly", "yes"], folder, (port,))
    settle(folder, lambda: answers(port))
    return program


def answers(port: int) -> bool:
    """Whether a server there answers PING; while it loads its data it answers something else."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64) == b"+PONG\r\n"
    except OSError:
        return False
