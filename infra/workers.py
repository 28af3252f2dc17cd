"""Worker processes: started once, fed through pipes with our own layout of bytes, never objects.

How they begin is told by whoever makes them: `Forked` here, or `infra.forkserver`.

A worker trains with as many threads as the recipe says, one by default, and the cores are filled by
several workers. So bytes depend neither on the number of cores nor on who works for whom.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Protocol

from infra.memory import give_back
from infra.promises import Result, Task
from schemas.codec import Bytes, plain, read_plain
from schemas.errors import RunFailed

Function = Callable[[Task], Result]
FRAME = struct.Struct("<Q")
TRIES = 2
ORPHANED = 0.5  # seconds between two looks whether the parent still lives


class TaskFailed(RunFailed):
    """A task that raised; its text ends in the worker's own trace."""


@dataclass(eq=False)
class Worker:
    """One process and the two ends of its pipes."""

    whose: Callable[[], int]
    """The process's id, as soon as it is known."""
    into: IO[bytes]
    out: IO[bytes]
    wait: Callable[[], int]
    """Wait until it has ended; gives its exit code, negative for a signal."""
    end: Callable[[], None]
    id: object | None = None
    task: Task | None = None
    tries: int = 0
    """How many processes, this one included, have been given the task."""
    turns: dict[str, int] = field(default_factory=dict)
    """Task's name → when it was last given one of these, by the count of all that were given."""
    gone: bool = False
    reads: bool = False
    """Whether it has answered once. Before, it may be importing for seconds, and read nothing."""

    def bury(self) -> int:
        """End the process if it has not ended, and let its pipes go; gives its exit code."""
        self.gone = True
        self.end()
        code = self.wait()
        for pipe in (self.into, self.out):
            with suppress(BrokenPipeError):  # what it did not read any more
                pipe.close()
        return code


class Start(Protocol):
    """How a worker process begins."""

    def __call__(self) -> Worker: ...

    def close(self) -> None:
        """Nobody is to begin any more, and those who began have ended."""


class WorkerProcesses:
    """Several worker processes, each with one task at a time.

    They take turns at each kind of task, also where one would do: a first training fills tens of
    megabytes, and how much memory a program needs should show in its first minutes.
    """

    def __init__(self, start: Start, count: int) -> None:
        """`start` begins a process, and is closed with us; ValueError for fewer than one."""
        if count < 1:
            raise ValueError(f"{count} workers; at least 1")
        self._start = start
        self._selector = selectors.DefaultSelector()
        self._workers = [self._begin() for _ in range(count)]
        self._given = 0

    @property
    def free(self) -> int:
        return sum(worker.id is None for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [worker.whose() for worker in self._workers]

    def submit(self, id: object, task: Task) -> None:
        """Begin a task. Raises ValueError when no worker is free."""
        free = [each for each in self._workers if each.id is None]
        if not free:
            raise ValueError(f"{len(self._workers)} workers, and none of them is free")
        self._give(min(free, key=lambda each: each.turns.get(task.name, 0)), id, task, tries=1)

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        return [
            done
            for key, _ in self._selector.select(wait)
            if (done := self._receive(key.data)) is not None
        ]

    def close(self) -> None:
        living = [worker for worker in self._workers if not worker.gone]
        for worker in living:
            worker.end()
        for worker in living:
            worker.bury()
        self._start.close()
        self._selector.close()
        self._workers = []

    def _begin(self) -> Worker:
        worker = self._start()
        self._selector.register(worker.out, selectors.EVENT_READ, worker)
        return worker

    def _give(self, worker: Worker, id: object, task: Task, tries: int) -> None:
        """Send a task to a worker; one that ended while it had nothing to do is replaced first."""
        if worker.gone:
            fresh = self._begin()
            self._workers[self._workers.index(worker)] = fresh
            worker = fresh
        self._given += 1
        worker.id, worker.task, worker.tries = id, task, tries
        worker.turns[task.name] = self._given
        payload = plain({"name": task.name, "values": task.values}, task.groups)
        if worker.reads:
            _hand(worker.into, payload)
        else:  # a pipe holds little, and our loop has others to see to meanwhile
            threading.Thread(target=_hand, args=(worker.into, payload), daemon=True).start()

    def _receive(self, worker: Worker) -> tuple[object, Result] | None:
        payload = _read(worker.out)
        if payload is None:
            self._mourn(worker)
            return None
        worker.reads = True
        values, groups = read_plain(payload)
        id, worker.id, worker.task = worker.id, None, None
        if "error" in values:
            raise TaskFailed(str(values["error"]))
        return id, Result(values["values"], groups, values["seconds"])

    def _mourn(self, dead: Worker) -> None:
        """The task of a worker that died is done once more, by a new one."""
        self._selector.unregister(dead.out)
        code = dead.bury()
        if dead.task is None:
            return
        if dead.tries >= TRIES:
            raise RunFailed(
                f"two worker processes ended (the last with code {code}) during {dead.task.name!r}:"
                " is there enough memory? Then resume"
            )
        self._give(dead, dead.id, dead.task, dead.tries + 1)


class Inline:
    """Carries tasks out in this process, one when asked for what has finished; for tests."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._waiting: list[tuple[object, Task]] = []

    @property
    def free(self) -> int:
        return 2 - len(self._waiting)

    def submit(self, id: object, task: Task) -> None:
        """Take a task. Raises ValueError when two are waiting."""
        if not self.free:
            raise ValueError("two tasks are waiting already")
        self._waiting.append((id, task))

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        if not self._waiting:
            return []
        id, task = self._waiting.pop(0)
        values, groups = read_plain(plain(task.values, task.groups))
        return [(id, self._functions[task.name](Task(task.name, values, groups)))]

    def close(self) -> None:
        self._waiting = []


class Forked:
    """Workers by fork from this process, which has imported what they need already.

    It must have no other threads, which a fork would leave behind in the middle of something.
    """

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._ours: list[IO[bytes]] = []
        """A worker that held an older one's pipe would hide our death from it."""

    def __call__(self) -> Worker:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        into, out = os.fdopen(to_write, "wb"), os.fdopen(from_read, "rb")
        self._ours = [pipe for pipe in (*self._ours, into, out) if not pipe.closed]
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            for pipe in self._ours:
                os.close(pipe.fileno())
            try:
                work(self._functions, os.fdopen(to_read, "rb"), os.fdopen(from_write, "wb"))
            finally:
                os._exit(0)
        with suppress(PermissionError, ProcessLookupError):  # it was quicker, and may be gone
            os.setpgid(pid, pid)  # before anybody hears of it: Ctrl-C is not for it
        os.close(to_read)
        os.close(from_write)
        kill = partial(os.kill, pid, signal.SIGKILL)
        return Worker(lambda: pid, into, out, partial(_reaped, pid), kill)

    def close(self) -> None:
        """Nothing is left of it."""


def _reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def work(
    functions: Mapping[str, Function], into: IO[bytes], out: IO[bytes], parent: int | None = None
) -> None:
    """A worker's life: tasks in, results out, until the pipe ends or the parent does.

    `parent` is who has forked it, if somebody noted that before: it may be gone by now.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's business
    until = into.fileno(), parent or os.getppid()
    threading.Thread(target=_leave_with_parent, args=until, daemon=True).start()
    while (payload := _read(into)) is not None:
        answer = _answer(functions, payload)
        del payload
        try:
            _write(out, answer)
        except BrokenPipeError:
            return
        del answer
        give_back()  # who waits for a task holds nothing of the last one


def _answer(functions: Mapping[str, Function], payload: bytes) -> Bytes:
    values, groups = read_plain(payload)
    start = time.perf_counter()
    try:
        task = Task(values["name"], values["values"], groups)
        result = functions[task.name](task)
        seconds = time.perf_counter() - start
        return plain({"values": result.values, "seconds": seconds}, result.groups)
    except Exception:
        return plain({"error": f"{values['name']}: {traceback.format_exc()}"}, {})


def _leave_with_parent(pipe: int, parent: int) -> None:
    """End with the parent, also in the middle of a task: an orphan must not burn a core.

    The other end of our pipe closes when it dies, unless somebody else holds that too; then we are
    given another parent.
    """
    hang_up = select.poll()
    hang_up.register(pipe, 0)
    while not hang_up.poll(1000 * ORPHANED) and os.getppid() == parent:
        pass
    os._exit(1)


def _hand(pipe: IO[bytes], payload: Bytes) -> None:
    """Write to a worker, if it lives: its end shows at the next reading."""
    with suppress(BrokenPipeError, ValueError):  # closed by its reader, or by us
        _write(pipe, payload)


def _write(pipe: IO[bytes], payload: Bytes) -> None:
    pipe.write(FRAME.pack(len(payload)))
    pipe.write(payload)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    (length,) = FRAME.unpack(head)
    payload = pipe.read(length)
    return payload if len(payload) == length else None
