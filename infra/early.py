"""Processes that are begun before their program has imported anything, with Python's own library.

A program imports for a second before it can say what it wants. What it will want for certain, and
what takes longest, begins here first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import NamedTuple


class Begun(NamedTuple):
    """A process, and our end of the line that is its standard input."""

    process: subprocess.Popen[bytes]
    line: socket.socket


_waiting: dict[tuple[str, int], Begun] = {}


def begin(module: str, threads: int) -> None:
    """Start `python -m MODULE THREADS`, and keep it for whoever asks for it."""
    _waiting[module, threads] = _started(module, threads)


def started(module: str, threads: int) -> Begun:
    """The one that waits, or a new one."""
    return _waiting.pop((module, threads), None) or _started(module, threads)


def _started(module: str, threads: int) -> Begun:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(threads)],
            stdin=its.fileno(),
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            process_group=0,
        )
    return Begun(process, ours)
