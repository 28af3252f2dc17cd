"""Tasks for worker processes, harmless and harmful; `python -m tests.infra.tasks 1` forks them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.forkserver import ForkServer, serve
from infra.promises import Result, Task
from infra.workers import Forked, Function, Start


def double(task: Task) -> Result:
    """Every tensor twice, and who did it."""
    groups = {
        group: {name: tensor * 2 for name, tensor in tensors.items()}
        for group, tensors in task.groups.items()
    }
    return Result({"pid": os.getpid(), "said": task.values.get("say")}, groups)


def fall(task: Task) -> Result:
    """End the process, as the kernel does when memory runs out; the n-th time go through with it.

    What was tried before is counted in a file, a byte for each try.
    """
    tried = Path(task.values["tried"])
    with tried.open("ab") as file:
        file.write(b".")
    if tried.stat().st_size < task.values["through"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return Result({"pid": os.getpid()}, {})


def fail(task: Task) -> Result:
    """A mistake in a task."""
    raise ZeroDivisionError("no images to divide by")


def burn(task: Task) -> Result:
    """Work that does not end."""
    Path(task.values["began"]).write_text(str(os.getpid()))
    while True:
        sum(range(1000))


def wait(task: Task) -> Result:
    """Wait until something is told."""
    while not Path(task.values["told"]).exists():
        time.sleep(0.01)
    return Result({"pid": os.getpid()}, {})


def chat(task: Task) -> Result:
    """Print to standard output, as libraries do."""
    print("a library says hello", flush=True)
    return Result({"pid": os.getpid()}, {})


FUNCTIONS: Mapping[str, Function] = {
    "double": double,
    "fall": fall,
    "fail": fail,
    "burn": burn,
    "await": wait,
    "chat": chat,
}
STARTS: Mapping[str, Callable[[], Start]] = {
    "forked": lambda: Forked(FUNCTIONS),
    "fork server": lambda: ForkServer("tests.infra.tasks", 1),
}
"""Both ways in which a worker that knows these tasks begins."""


if __name__ == "__main__":
    serve(FUNCTIONS)
