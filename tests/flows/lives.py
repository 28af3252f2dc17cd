"""A run that is killed: each life of it is a process of its own, forked from the test's.

Only what these functions have forked is ever killed, and by its own hand: a hook counts the moments
of a run and kills the process at one of them, so that a seed tells again what happened.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from infra.points import Hook
from infra.promises import Result, Task
from infra.transport.embedded import Embedded as Log
from infra.workers import Function
from schemas.configuration import Configuration
from schemas.errors import RunFailed
from schemas.messages import ModelUpdate, RoundClosed, RoundOpened
from schemas.topics import Names
from tests.flows.federation import NAMES, Told, decided, in_file, messages

KILLED = -signal.SIGKILL
MOST_LIVES = 60
Training = tuple[int, int, str]
"""Stage, round, entity."""


@dataclass
class Fuse:
    """Kills the process at the so-many-th moment, of one kind if it is given."""

    left: int
    point: str | None = None

    def __call__(self, point: str) -> None:
        if self.point in (None, point):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def forked(life: Callable[[], int]) -> int:
    """Live in a child; gives its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        _live(life)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def struck(life: Callable[[Hook], int], moments: int, pause: float) -> int:
    """Live in a child that is killed from outside, whatever it does just then.

    So many moments of its run are waited for, then so many seconds. Gives its exit code if it has
    ended by itself before that, or minus the signal that ended it.
    """
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _live(lambda: life(lambda point: _beat(its)))
    os.close(its)
    with os.fdopen(ours, "rb") as beats:
        beats.read(moments)
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _beat(pipe: int) -> None:
    os.write(pipe, b".")


def _live(life: Callable[[], int]) -> NoReturn:
    code = 70
    try:
        code = life()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def until_the_end(live: Callable[[int], int]) -> int:
    """Life after life, each told its number, until one is not killed; gives how that ended."""
    for number in range(MOST_LIVES):
        end = live(number)
        if end != KILLED:
            return end
    raise AssertionError(f"{MOST_LIVES} lives, and it still has not come to its end")


def lived(configuration: Configuration, path: Path, told: Told, hook: Hook) -> int:
    """Begin a run, or go on with it, in a process of its own; gives its exit code."""
    diary = path.with_suffix(".trained")

    def life() -> int:
        functions = noting(told.functions, diary)
        try:
            in_file(configuration, path, replace(told, functions=functions, hook=hook))
        except RunFailed as failure:
            return failure.exit_code
        return 0

    diary.write_text("")
    return forked(life)


def noting(functions: Mapping[str, Function], diary: Path) -> Mapping[str, Function]:
    """The same functions; which training begins is written down first."""

    def learn(task: Task) -> Result:
        stage, round, entity = (task.values[name] for name in ("stage", "round", "entity"))
        with diary.open("a") as file:
            file.write(f"{stage} {round} {entity}\n")
        return functions["learn"](task)

    return {**functions, "learn": learn}


def begun(path: Path) -> Counter[Training]:
    """The trainings that the last life began."""
    lines = [line.split() for line in path.with_suffix(".trained").read_text().splitlines()]
    return Counter((int(stage), int(round), entity) for stage, round, entity in lines)


def answered(path: Path, names: Names = NAMES) -> set[Training]:
    """The trainings whose answer is in the log, or was counted."""
    log = Log(path)
    try:
        line, found = decided(log, names), set()
        for message, _ in messages(log, names.of_site("updates", "local")):
            assert isinstance(message, ModelUpdate)
            opened = line.decisions[message.opened]
            assert isinstance(opened, RoundOpened)
            found.add((opened.stage, opened.round, message.entity))
        for closed in line.decisions.values():
            if isinstance(closed, RoundClosed):
                found |= {(closed.stage, closed.round, entity) for entity, _ in closed.counted}
        return found
    finally:
        log.close()
