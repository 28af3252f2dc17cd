"""Workers that are forked from one process which has imported for all of them.

To import torch takes seconds of a core, and workers that did it each for itself would take the
cores from one another and from their program. Forked, they share one import and most of its memory.
It is another process than the program, whose threads and connections no fork should carry on.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from infra.early import started
from infra.workers import Function, Worker, work

NUMBER = struct.Struct("<q")
"""Asked: 0 for a fork, which is sent its ends of the pipes, or the id of one that has ended.
Answered: the id of the new one, or the exit code of the other."""


class ForkServer:
    """Starts `python -m MODULE THREADS`, which calls `serve`, and lets it fork.

    It and its workers are no part of our process group, so that Ctrl-C in a terminal is the
    runner's alone. Should it die, its workers end too, and the next that begins has another.
    """

    def __init__(self, module: str, threads: int) -> None:
        self._module = module
        self._threads = threads
        self._process: _Process | None = None

    def __call__(self) -> Worker:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        try:
            child = self._fork(to_read, from_write)
        finally:
            os.close(to_read)
            os.close(from_write)
        into, out = os.fdopen(to_write, "wb"), os.fdopen(from_read, "rb")
        return Worker(child.whose, into, out, child.wait, child.end)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _fork(self, *pipes: int) -> _Child:
        if self._process is not None:
            with suppress(OSError):
                return self._process.fork(*pipes)
            self._process.close()
        self._process = _Process(self._module, self._threads)
        return self._process.fork(*pipes)


class _Process:
    """One process that forks. Answers come in the order in which it was asked."""

    def __init__(self, module: str, threads: int) -> None:
        self._popen, self._line = started(module, threads)
        self._unborn: deque[_Child] = deque()

    def fork(self, *pipes: int) -> _Child:
        """Ask for a worker; it begins when what it needs is imported. OSError if we are dead."""
        socket.send_fds(self._line, [NUMBER.pack(0)], pipes)
        self._unborn.append(_Child(self))
        return self._unborn[-1]

    def births(self, child: _Child, wait: bool) -> None:
        """See who was born, and wait until this one is, or never will be."""
        while child in self._unborn:
            answer = self._hear(wait)
            if answer is None:
                return
            self._unborn.popleft().pid = answer

    def exit_code(self, child: _Child) -> int:
        """Of one that was told to end, or did by itself."""
        self.births(child, wait=True)
        if child.pid is None:
            return self.close()
        while self._unborn:
            self.births(self._unborn[-1], wait=True)
        with suppress(OSError):
            self._line.send(NUMBER.pack(child.pid))
            if (code := self._hear(wait=True)) is not None:
                return code
        return -signal.SIGKILL  # with the process that would know

    def close(self) -> int:
        """End, and all workers with it; gives the exit code."""
        self._popen.kill()
        self._line.close()
        return self._popen.wait()

    def _hear(self, wait: bool) -> int | None:
        """The next answer; None if there is none, or will be none."""
        try:
            answer = self._line.recv(NUMBER.size, 0 if wait else socket.MSG_DONTWAIT)
        except OSError:
            return None
        return int(NUMBER.unpack(answer)[0]) if answer else None


@dataclass(eq=False)
class _Child:
    """A worker, as the program knows it."""

    process: _Process
    pid: int | None = None

    def whose(self) -> int:
        """Its id. RuntimeError if it was never born."""
        self.process.births(self, wait=True)
        if self.pid is None:
            raise RuntimeError("a worker process never began")
        return self.pid

    def end(self) -> None:
        """Kill it; one that is not born yet, before it is."""
        self.process.births(self, wait=False)
        if self.pid is None:
            self.process.close()
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended; gives its exit code, negative for a signal."""
        return self.process.exit_code(self)


def serve(functions: Mapping[str, Function], prepare: Callable[[], None] = lambda: None) -> None:
    """Fork workers as the line on standard input asks, until whoever asks has ended.

    `prepare` is called in each. Whatever anybody prints goes to standard error.
    """
    line = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            asked, pipes, _, _ = socket.recv_fds(line, NUMBER.size, 2)
        except ConnectionResetError:
            return
        if not asked:
            return
        (number,) = NUMBER.unpack(asked)
        answer = _code(number) if number else _forked(functions, prepare, line, *pipes)
        with suppress(BrokenPipeError):
            line.send(NUMBER.pack(answer))


def _code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _forked(
    functions: Mapping[str, Function],
    prepare: Callable[[], None],
    line: socket.socket,
    into: int,
    out: int,
) -> int:
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            line.close()
            prepare()
            work(functions, os.fdopen(into, "rb"), os.fdopen(out, "wb"), parent)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    with suppress(PermissionError, ProcessLookupError):  # it was quicker, and may be gone
        os.setpgid(pid, pid)  # before anybody hears of it: Ctrl-C is not for it
    os.close(into)
    os.close(out)
    return pid
