"""A process that has imported everything, and forks the programs of a run: torch alone takes 3 s.

It is spoken to in lines of JSON, one question and one answer each:

    {"start": "twins", "words": ["--workers", "2"],
     "environment": {}, "log": "l", "kill": ["said", 3], "slow": 60, "clock": 3600}
        gives {"pid": 17}; `kill` names a point (infra/points.py) and how often it is passed before
        the program kills itself there, or does to another process what stands behind it: [pid,
        signal]; `slow`, how many seconds longer each training of the run's first round takes; its
        clock goes wrong by `clock` seconds
    {"poll": 17}   gives {"code": null}, or its exit code, negative for a signal
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka.record.default_records import DefaultRecordBatchBuilder as Builder

import aggregator.__main__
import producers.__main__
import proxy.__main__
import twins.__main__
from infra.points import Hook, no_hook
from infra.promises import Result, Task
from infra.workers import Forked, Function
from learning.repeatable import repeatable
from proxy import worker as of_the_proxy
from twins import worker as of_the_twins

MAINS: Mapping[str, Callable[..., int]] = {
    "aggregator": aggregator.__main__.main,
    "producers": producers.__main__.main,
    "proxy": proxy.__main__.main,
    "twins": twins.__main__.main,
}
FUNCTIONS: Mapping[str, Mapping[str, Function]] = {
    "proxy": of_the_proxy.FUNCTIONS,
    "twins": of_the_twins.FUNCTIONS,
}


def striking(point: str, times: int, pid: int = 0, what: int = signal.SIGKILL) -> Hook:
    """A hook that kills its process where a point is passed for the nth time; or, with a process
    id, sends that one a signal there."""
    passed = 0

    def hook(here: str) -> None:
        nonlocal passed
        if here == point:
            passed += 1
            if passed == times:
                os.kill(pid or os.getpid(), what)

    return hook


def slowed(functions: Mapping[str, Function], seconds: float) -> Mapping[str, Function]:
    """The same functions, but in the run's first round a training takes so many seconds longer."""

    def learn(task: Task) -> Result:
        if task.values["stage"] == task.values["round"] == 0:
            time.sleep(seconds)
        return functions["learn"](task)

    return {**functions, "learn": learn}


def start(told: Mapping[str, Any]) -> int:
    """Fork a program; gives its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        said = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        quiet = os.open(os.devnull, os.O_RDONLY)
        for file, number in ((quiet, 0), (said, 1), (said, 2)):
            os.dup2(file, number)
        os.environ.update(told["environment"])
        kill = told.get("kill")
        if told.get("clock"):
            wrong_clock(told["clock"])
        more: dict[str, Any] = {"hook": striking(*kill) if kill else no_hook}
        if told["start"] in FUNCTIONS:
            functions = FUNCTIONS[told["start"]]
            slow = told.get("slow")
            more["start_worker"] = Forked(slowed(functions, slow) if slow else functions)
        code = MAINS[told["start"]](told["words"], **more)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wrong_clock(off: float) -> None:
    """This process lives so many seconds ahead of the others; its records say so."""
    true_time, append = time.time, Builder.append
    time.time = lambda: true_time() + off

    def stamped(self: Builder, offset: int, timestamp: int | None, *more: Any, **named: Any) -> Any:
        assert timestamp is None  # so the client looks at a clock, which it knows by another name
        return append(self, offset, round(1000 * time.time()), *more, **named)

    Builder.append = stamped


def poll(pid: int) -> int | None:
    """The exit code of a program, negative for a signal; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def serve() -> None:
    """Answer until nobody asks any more."""
    importlib.import_module("kafka.coordinator.assignors.cooperative_sticky")
    repeatable(1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        answer = {"pid": start(told)} if "start" in told else {"code": poll(told["poll"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
