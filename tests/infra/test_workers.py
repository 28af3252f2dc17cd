"""Worker processes: tasks in, results out, whoever dies meanwhile.

Each story is told of workers that are forked and of ones that are started anew.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.forkserver import ForkServer
from infra.promises import Result, Task
from infra.workers import Inline, Start, TaskFailed, WorkerProcesses
from schemas.errors import RunFailed
from tests.infra.tasks import FUNCTIONS, STARTS

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds, after which a test gives up on what should have happened long ago


@pytest.fixture(scope="module", params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    """How a worker process begins."""
    return STARTS[request.param]()


@pytest.fixture(scope="module")
def two(start: Start) -> Iterator[WorkerProcesses]:
    """Two workers who live through several stories."""
    workers = WorkerProcesses(start, 2)
    yield workers
    workers.close()


@pytest.fixture
def mortal(start: Start) -> Iterator[WorkerProcesses]:
    """One worker who may be killed."""
    workers = WorkerProcesses(start, 1)
    yield workers
    workers.close()


def results(workers: WorkerProcesses, count: int) -> dict[object, Result]:
    """So many finished tasks, by their ids."""
    found: dict[object, Result] = {}
    end = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < end:
        found |= dict(workers.finished(1.0))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def becomes(true: Callable[[], bool]) -> bool:
    """Whether something becomes true before our patience ends."""
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        select.select([], [], [], 0.01)
    return true()


# --- tasks and results ----------------------------------------------------------------------------


def test_tasks_are_done_by_several_processes_and_come_back_under_their_ids(
    two: WorkerProcesses,
) -> None:
    """Six tasks for two workers, which are no threads of ours: each result is its own task's."""
    found: dict[object, Result] = {}
    waiting = list(range(6))
    while len(found) < 6:
        while waiting and two.free:
            number = waiting.pop()
            tensor = np.full((2, 3), number, np.float32)
            two.submit(("learn", number), Task("double", {"say": number}, {"a": {"b": tensor}}))
        found |= results(two, 1)

    assert {id: result.values["said"] for id, result in found.items()} == {
        ("learn", number): number for number in range(6)
    }
    for number in range(6):
        tensor = found["learn", number].groups["a"]["b"]
        assert np.array_equal(tensor, np.full((2, 3), 2 * number, np.float32))
    assert {result.values["pid"] for result in found.values()} == set(two.pids)
    assert os.getpid() not in two.pids


def test_sixty_megabytes_pass_in_both_directions(two: WorkerProcesses) -> None:
    """A model and its training images, to both workers at once, and back."""
    tensor = np.arange(15_000_000, dtype=np.float32)
    for number in range(2):
        two.submit(number, Task("double", {}, {"model": {"weight": tensor}}))

    found = results(two, 2)

    assert found.keys() == {0, 1}
    assert np.array_equal(found[1].groups["model"]["weight"], tensor * 2)


def test_who_waits_for_a_task_holds_nothing_of_the_last_one(mortal: WorkerProcesses) -> None:
    """60 MB come and go, and the worker is as large as before, within a third of that."""
    mortal.submit("small", Task("double", {}, {"x": {"a": np.ones(1, np.float32)}}))
    results(mortal, 1)
    (pid,) = mortal.pids
    before = resident(pid)
    mortal.submit("large", Task("double", {}, {"x": {"a": np.ones(15_000_000, np.float32)}}))
    results(mortal, 1)
    end = time.monotonic() + PATIENCE
    while (grown := resident(pid) - before) > 20e6 and time.monotonic() < end:
        time.sleep(0.05)

    assert grown <= 20e6


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_workers_take_turns_at_each_kind_of_task(two: WorkerProcesses) -> None:
    """Trainings and scorings that alternate, one at a time: soon both workers have done both."""
    done: dict[str, list[object]] = {"double": [], "chat": []}
    for name in ("double", "chat") * 2:
        two.submit(name, Task(name))
        done[name].append(results(two, 1)[name].values["pid"])

    assert {*done["double"]} == {*done["chat"]} == {*two.pids}


def test_what_a_task_prints_is_not_taken_for_its_result(mortal: WorkerProcesses) -> None:
    """Libraries print; the result comes all the same, and the next task's, too."""
    mortal.submit("chat", Task("chat"))
    assert results(mortal, 1).keys() == {"chat"}

    mortal.submit("double", Task("double"))
    assert results(mortal, 1).keys() == {"double"}


def test_a_third_task_for_two_workers_is_a_mistake(two: WorkerProcesses) -> None:
    """Who gives tasks looks first whether somebody is free; there have to be workers at all."""
    for number in range(2):
        two.submit(number, Task("double"))
    assert two.free == 0

    with pytest.raises(ValueError, match="2 workers, and none of them is free"):
        two.submit(2, Task("double"))
    assert results(two, 2).keys() == {0, 1}
    with pytest.raises(ValueError, match="0 workers; at least 1"):
        WorkerProcesses(STARTS["forked"](), 0)


def test_a_task_that_raises_ends_the_run_with_its_trace(two: WorkerProcesses) -> None:
    """The text ends in what the worker saw: the task, the line and the mistake."""
    two.submit("fail", Task("fail"))

    with pytest.raises(TaskFailed) as told:
        results(two, 1)

    assert str(told.value).startswith("fail: Traceback")
    assert "in fail" in str(told.value)
    assert str(told.value).rstrip().endswith("ZeroDivisionError: no images to divide by")
    assert told.value.exit_code == 1
    assert two.free == 2


# --- workers that die -----------------------------------------------------------------------------


def test_a_worker_that_is_killed_in_a_task_is_replaced_and_the_task_done_again(
    mortal: WorkerProcesses, tmp_path: Path
) -> None:
    """Killed once, the task is tried twice; its result comes from a process that was not there."""
    before = mortal.pids
    mortal.submit("fall", Task("fall", {"tried": str(tmp_path / "tried"), "through": 2}))

    found = results(mortal, 1)

    assert (tmp_path / "tried").read_bytes() == b".."
    assert [found["fall"].values["pid"]] == mortal.pids != before
    assert mortal.free == 1


def test_a_task_that_kills_two_workers_ends_the_run_with_a_remedy(
    mortal: WorkerProcesses, tmp_path: Path
) -> None:
    """Twice is no accident: the line says what was being done, how it ended, and the remedy."""
    mortal.submit("fall", Task("fall", {"tried": str(tmp_path / "tried"), "through": 9}))

    with pytest.raises(RunFailed) as told:
        results(mortal, 1)

    assert (tmp_path / "tried").read_bytes() == b".."
    assert str(told.value) == (
        "two worker processes ended (the last with code -9) during 'fall':"
        " is there enough memory? Then resume"
    )


@pytest.mark.parametrize("noticed", [True, False])
def test_a_worker_that_is_killed_while_idle_is_replaced_when_it_is_needed(
    mortal: WorkerProcesses, noticed: bool
) -> None:
    """Whether or not somebody looked before the next task, that is done all the same."""
    (before,) = mortal.pids
    os.kill(before, signal.SIGKILL)
    assert becomes(lambda: not alive(before))
    if noticed:
        assert mortal.finished(PATIENCE) == []

    mortal.submit("double", Task("double"))

    assert results(mortal, 1)["double"].values["pid"] != before


def test_a_fork_server_that_is_killed_takes_its_workers_along_and_another_begins(
    tmp_path: Path,
) -> None:
    """The kernel may choose it when memory runs out: the task in work is done again."""
    workers = WorkerProcesses(ForkServer("tests.infra.tasks", 1), 1)
    (before,) = workers.pids
    server = int(Path(f"/proc/{before}/stat").read_text().rpartition(")")[2].split()[1])
    workers.submit("wait", Task("await", {"told": str(tmp_path / "told")}))
    os.kill(server, signal.SIGKILL)
    assert becomes(lambda: not alive(before))
    (tmp_path / "told").touch()

    assert results(workers, 1)["wait"].values["pid"] == workers.pids[0] != before
    workers.close()


def test_workers_that_are_still_importing_are_closed_at_once(tmp_path: Path) -> None:
    """A program that is told to end in its first second does not wait for torch."""
    open_before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "slow_import.py").write_text("import time; time.sleep(60)")
    began = time.monotonic()
    server = ForkServer("slow_import", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        workers = WorkerProcesses(server, 2)
        workers.submit("double", Task("double"))
    workers.close()

    assert time.monotonic() - began < PATIENCE
    assert becomes(lambda: len(os.listdir("/proc/self/fd")) == open_before)


def test_workers_that_cannot_begin_end_the_run_instead_of_beginning_for_ever() -> None:
    """A program that is not there: two processes end at once, and that is enough."""
    workers = WorkerProcesses(ForkServer("tests.infra.no_such_program", 1), 1)
    workers.submit("double", Task("double"))

    with pytest.raises(RunFailed, match=r"two worker processes ended \(the last with code 1\)"):
        results(workers, 1)

    workers.close()


# --- the end --------------------------------------------------------------------------------------


def test_close_ends_the_workers_also_in_the_middle_of_a_task(start: Start, tmp_path: Path) -> None:
    """Ctrl-C drops an unfinished training; no process and no open pipe is left behind."""
    open_before = len(os.listdir("/proc/self/fd"))
    workers = WorkerProcesses(start, 2)
    pids = workers.pids
    workers.submit("burn", Task("burn", {"began": str(tmp_path / "began")}))
    assert becomes((tmp_path / "began").exists)

    workers.close()

    assert not any(alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == open_before


RUNNER = """
import signal, sys, time
from infra.promises import Task
from infra.workers import WorkerProcesses
from tests.infra.tasks import STARTS

workers = WorkerProcesses(STARTS[sys.argv[1]](), 2)
workers.submit("burn", Task("burn", {"began": sys.argv[2]}))
print(*workers.pids, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted, and the workers live:", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=STARTS)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A runner in a group of its own, as in a terminal; one of its two workers is at work."""
    command = [sys.executable, "-c", RUNNER, request.param, str(tmp_path / "began")]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert becomes(lambda: (tmp_path / "began").exists() or process.poll() is not None)
        yield process
        process.kill()


def test_workers_end_with_a_runner_that_is_killed(runner: subprocess.Popen[str]) -> None:
    """kill -9 lets nobody tidy up: the idle worker and the one at work end by themselves."""
    assert runner.stdout is not None
    pids = [int(pid) for pid in runner.stdout.readline().split()]
    assert all(alive(pid) for pid in pids)

    runner.kill()

    assert becomes(lambda: not any(alive(pid) for pid in pids))


def test_ctrl_c_is_the_runners_business(runner: subprocess.Popen[str]) -> None:
    """A terminal interrupts the whole group: the runner hears it, the workers go on."""
    assert runner.stdout is not None
    pids = [int(pid) for pid in runner.stdout.readline().split()]

    os.killpg(runner.pid, signal.SIGINT)

    assert runner.stdout.readline() == "interrupted, and the workers live:\n"
    assert all(alive(pid) for pid in pids)
    assert all(os.getpgid(pid) == pid for pid in pids)  # so it cannot come before they are ready


# --- in this process ------------------------------------------------------------------------------


def test_inline_does_tasks_here_one_at_a_time_through_the_same_bytes() -> None:
    """For tests: results come in the order of the tasks, and no tensor is shared with the task."""
    inline = Inline(FUNCTIONS)
    tensor = np.ones(3, np.float32)
    for number in range(2):
        inline.submit(number, Task("double", {"say": number}, {"a": {"b": tensor}}))
    assert inline.free == 0
    with pytest.raises(ValueError, match="two tasks are waiting already"):
        inline.submit(2, Task("double"))

    ((first, result),) = inline.finished(0.0)
    assert (first, result.values["said"], result.values["pid"]) == (0, 0, os.getpid())
    assert np.array_equal(result.groups["a"]["b"], [2, 2, 2])
    assert [id for id, _ in inline.finished(0.0)] == [1]
    assert inline.finished(0.0) == []
