"""Programs that outlive the command which started them, and end only when we say so.

Each program has a folder. It inherits a lock on the file `program.json` there, which the system
takes away when the program ends, however it ends. So a pid is believed exactly while the lock is
held: a number that the system has since given to somebody else's process is never signalled.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import ServiceError

HOST = "127.0.0.1"
GONE = 30.0  # s in which the system has cleared away what was killed
POLL = 0.05  # s between two looks at a program that starts or ends


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs."""

    pid: int
    ports: tuple[int, ...]
    """The loopback ports it listens on; the first one is for clients."""

    @property
    def address(self) -> str:
        """Where clients find it, as host:port."""
        return f"{HOST}:{self.ports[0]}"


def start(command: Sequence[str], folder: Path, ports: tuple[int, ...]) -> Program:
    """Start a program in a session of its own; what it prints goes to `log.txt` in its folder.

    Raises ServiceError when the folder's program runs already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "program.json").open("a+") as file, (folder / "log.txt").open("wb") as log:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(f"the program of {folder} runs already; stop it first") from None
        file.truncate(0)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[file.fileno()],
            start_new_session=True,
        )
        program = Program(process.pid, ports)
        json.dump(asdict(program), file)
    return program


def running(folder: Path) -> Program | None:
    """The folder's program if it runs, whoever started it."""
    try:
        with (folder / "program.json").open() as file:
            if _lockable(file.fileno()):
                return None
            text = file.read()
            return _read(text) if text else None  # empty: it is just being started
    except FileNotFoundError:
        return None


def last_ports(folder: Path) -> tuple[int, ...]:
    """The ports of the folder's last program, running or not; empty if there was none."""
    try:
        return _read((folder / "program.json").read_text()).ports
    except (FileNotFoundError, ValueError):
        return ()


def stop(folder: Path, *, patience: float = 30.0) -> bool:
    """End the folder's program and wait until it is gone; False if it did not run.

    It is asked first (SIGTERM), and killed when it has not ended after `patience` seconds. A busy
    machine takes seconds to clear away what was killed.
    """
    asked = False
    for how, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, max(patience, GONE))):
        if (program := running(folder)) is None:
            return asked
        with suppress(ProcessLookupError):  # it ended meanwhile, a child of it still holds the lock
            os.kill(program.pid, how)
        asked = True
        if _within(wait, lambda: running(folder) is None):
            return True
    raise ServiceError(f"the program of {folder} cannot be ended, not even with SIGKILL")


def settle(folder: Path, answers: Callable[[], bool], *, patience: float = 60.0) -> None:
    """Wait until a program that was started answers.

    Raises ServiceError with its last words when it ended, or did not answer in `patience` seconds
    (it is ended then).
    """
    ready = _within(patience, lambda: answers() or running(folder) is None) and answers()
    if ready and running(folder):
        return
    fate = "did not answer in time" if stop(folder) else "has ended"
    words = (folder / "log.txt").read_text(errors="replace").splitlines()[-12:]
    raise ServiceError("\n    ".join([f"the program of {folder} {fate}. Its last words:", *words]))


def free_ports(count: int, wish: Sequence[int] = ()) -> tuple[int, ...]:
    """Loopback ports that nobody listens on: those wished for if all are free, else others."""
    for numbers in (list(wish), [0] * count):
        if len(numbers) == count and (found := _bindable(numbers)):
            return found
    raise ServiceError(f"{count} free ports were asked for on {HOST}, and the system gives none")


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Only one process at a time starts and stops what is under `home`; others wait here."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lockable(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(text: str) -> Program:
    value = json.loads(text)
    return Program(int(value["pid"]), tuple(map(int, value["ports"])))


def _within(patience: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(POLL)
    return False


def _bindable(numbers: Sequence[int]) -> tuple[int, ...]:
    """The ports when all could be had at once (0: any), else nothing."""
    sockets = [socket.socket() for _ in numbers]
    try:
        for each, number in zip(sockets, numbers, strict=True):
            # As servers do: a port whose last connections are just closing may be taken again.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((HOST, number))
        return tuple(each.getsockname()[1] for each in sockets)
    except OSError:
        return ()
    finally:
        for each in sockets:
            each.close()
