"""Workers are counted per machine: however many processes train, never more than cores at a time.

Each place to work is a file that whoever works has locked. The system takes a lock away from a
process that ends, however it ends. One that was stopped has its lock still, but no longer touches
its file: after a while somebody may work in its stead.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from infra.promises import Result, Task, Workers

UNATTENDED = 10.0  # seconds without a touch, after which whoever holds a place counts as stopped
STEADS = 8  # how many may work one in another's stead, should each of them be stopped in turn


def place_of_slots() -> Path:
    """The folder that all programs of one user on this machine share."""
    return Path(tempfile.gettempdir()) / f"fedtwin-workers-{os.getuid()}"


class Slots:
    """So many places to work on this machine."""

    def __init__(
        self, count: int, folder: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ValueError for fewer than one. `clock` is the file system's."""
        if count < 1:
            raise ValueError(f"{count} places to work; at least 1")
        self._folder = folder or place_of_slots()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._count = count
        self._clock = clock

    def take(self) -> int | None:
        """A place, as the open file that holds it; None when all are taken. `touch` it."""
        for number in range(self._count):
            for stead in range(STEADS):
                name = f"{number}.{stead}" if stead else str(number)
                file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    touched = os.fstat(file).st_mtime
                    os.close(file)
                    if self._clock() <= touched + UNATTENDED:
                        break
                else:
                    self.touch(file)
                    return file
        return None

    def touch(self, file: int) -> None:
        """Say that a place is worked at; often enough, or somebody works in its holder's stead."""
        os.utime(file, (self._clock(), self._clock()))

    @staticmethod
    def leave(file: int) -> None:
        """Let a place go."""
        os.close(file)


class Shared:
    """Workers of this process that take their turns with those of others on this machine."""

    def __init__(self, inner: Workers, slots: Slots) -> None:
        self._inner = inner
        self._slots = slots
        self._held: dict[object, int] = {}
        """What is in work → its place."""
        self._queue: deque[tuple[object, Task]] = deque()
        """Given to us, with no place to do it yet."""

    @property
    def free(self) -> int:
        """None while something waits for a place; so inputs are loaded late."""
        if self._queue or not self._inner.free:
            return 0
        place = self._slots.take()
        if place is None:
            return 0
        self._slots.leave(place)
        return 1

    def submit(self, id: object, task: Task) -> None:
        self._queue.append((id, task))
        self._begin()

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        self._begin()
        found = self._inner.finished(wait)
        for id, _ in found:
            self._slots.leave(self._held.pop(id))
        for place in self._held.values():
            self._slots.touch(place)
        return found

    def close(self) -> None:
        self._inner.close()
        for place in self._held.values():
            self._slots.leave(place)
        self._held = {}

    def _begin(self) -> None:
        while self._queue and self._inner.free and (place := self._slots.take()) is not None:
            id, task = self._queue.popleft()
            self._held[id] = place
            self._inner.submit(id, task)
