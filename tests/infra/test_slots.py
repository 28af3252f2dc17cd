"""Several processes of one machine share its places to work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.promises import Result, Task
from infra.slots import UNATTENDED, Shared, Slots
from infra.workers import Inline


def answered(task: Task) -> Result:
    """Whatever is asked."""
    return Result({"done": task.values["what"]}, {})


def workers(folder: Path, count: int = 1) -> Shared:
    """One process's workers."""
    return Shared(Inline({"ask": answered}), Slots(count, folder))


def ask(what: int) -> Task:
    """A task."""
    return Task("ask", {"what": what})


def test_a_place_is_taken_once(tmp_path: Path) -> None:
    """Two places, whoever asks: the third gets none until one is left."""
    ours, theirs = Slots(2, tmp_path), Slots(2, tmp_path)
    first, second = ours.take(), theirs.take()

    assert first is not None
    assert second is not None
    assert ours.take() is None

    theirs.leave(second)
    again = ours.take()
    assert again is not None
    for place in (first, again):
        ours.leave(place)


def test_no_place_is_no_worker(tmp_path: Path) -> None:
    """A second process has free workers and is told of none while the first works."""
    first, second = workers(tmp_path), workers(tmp_path)
    first.submit("a", ask(1))

    assert second.free == 0

    assert [result.values for _, result in first.finished(0)] == [{"done": 1}]
    assert second.free == 1


def test_what_was_given_when_the_last_place_went_is_done_when_one_is_left(tmp_path: Path) -> None:
    """Both saw the one place free; the second waits its turn, and is told of no free worker."""
    first, second = workers(tmp_path), workers(tmp_path)
    assert first.free == second.free == 1
    first.submit("a", ask(1))
    second.submit("b", ask(2))

    assert second.finished(0) == []
    assert second.free == 0

    first.finished(0)
    assert [(id, result.values) for id, result in second.finished(0)] == [("b", {"done": 2})]


def test_a_process_that_is_killed_leaves_its_place(tmp_path: Path) -> None:
    """The system takes the lock away from whoever holds it no longer."""
    program = (
        "import sys, time; from pathlib import Path; from infra.slots import Slots;"
        "Slots(1, Path(sys.argv[1])).take(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert Slots(1, tmp_path).take() is None

    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()

    assert Slots(1, tmp_path).take() is not None


def test_a_process_that_is_stopped_is_stood_in_for(tmp_path: Path) -> None:
    """It keeps its lock, and does not touch its place: whoever waits for it would wait for ever."""
    now = 1000.0
    ours, theirs = Slots(1, tmp_path, lambda: now), Slots(1, tmp_path, lambda: now)
    stopped = ours.take()
    assert stopped is not None

    now += UNATTENDED
    assert theirs.take() is None

    now += 1
    instead = theirs.take()
    assert instead is not None
    assert theirs.take() is None

    theirs.leave(instead)
    ours.touch(stopped)
    assert theirs.take() is None
    ours.leave(stopped)


def test_who_works_on_touches_its_place(tmp_path: Path) -> None:
    """However long a training takes, nobody works in its stead."""
    now = 1000.0

    def clock() -> float:
        return now

    training = Shared(Never(), Slots(1, tmp_path, clock))
    training.submit("a", ask(1))
    for _ in range(5):
        now += UNATTENDED / 2
        assert training.finished(0) == []
        assert Slots(1, tmp_path, clock).take() is None
    training.close()


class Never(Inline):
    """A worker that does not finish."""

    def __init__(self) -> None:
        super().__init__({"ask": answered})

    def finished(self, wait: float) -> list[tuple[object, Result]]:
        return []


def test_there_is_at_least_one_place(tmp_path: Path) -> None:
    """A machine without any would never train."""
    with pytest.raises(ValueError, match="0 places"):
        Slots(0, tmp_path)
