"""What all tests have in common."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.native.programs import free_ports
from schemas.errors import FedtwinError
from tests.services import Server, have, merged, named, rest, told

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

TOLD: list[list[str]] = []
"""What each of the processes that share the tests out has said of its services."""


def pytest_configure() -> None:
    """The services that somebody named are noted before a test changes the environment.

    Of several processes each has a folder for temporary files of its own: programs of one machine
    find each other there, and share its places to train in (infra/slots.py).
    """
    if os.environ.get("PYTEST_XDIST_WORKER"):
        own = tempfile.mkdtemp(prefix="fedtwin-tests-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        tempfile.tempdir = os.environ["TMPDIR"] = own
    try:
        named()
    except FedtwinError as error:
        pytest.exit(str(error), error.exit_code)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes tells the first which services its tests had."""
    if (answer := getattr(session.config, "workeroutput", None)) is not None:
        answer["services"] = told()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """And the first hears it."""
    if lines := getattr(node, "workeroutput", {}).get("services"):  # else it has crashed
        TOLD.append(lines)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Behind all else: a line for each service, which it was and which version, or why none."""
    yield
    terminalreporter.section("services")
    for line in merged(TOLD) if TOLD else told():
        terminalreporter.write_line(line)


FIRST = (
    "flows/test_same_bytes.py", "flows/test_privacy.py", "flows/test_strategies.py",
    "tests/test_pages.py", "distributed/test_faults.py", "distributed/test_crashes.py",
    "flows/test_learns.py", "distributed/test_containers.py", "distributed/test_guarded.py",
    "experiments/test_cli_stories.py", "distributed/test_methods.py", "distributed/test_live.py",
    "experiments/test_reproducing.py", "distributed/test_same_bytes.py",
)  # fmt: skip
"""Files whose children train, which torch forbids to a child of who has trained itself; then those
that take longest, for of several who share the files out one would end alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These files first; all else stays in its order."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(f"{item.path.parent.name}/{item.path.name}", len(order)))


def pytest_collection_finish() -> None:
    """What holds from the first test on, when all that tests need has been imported."""
    learn_in_one_thread()
    keep_what_was_imported()


def learn_in_one_thread() -> None:
    """As every training of a run does (docs/method.md 5.9), and whatever else the machine does.

    Torch's threads wait for each other at every step of a tiny net: beside another program that has
    a core to itself they wait for seconds.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def keep_what_was_imported() -> None:
    """Keep what was imported out of every later garbage collection.

    Torch, scikit-learn and the tests are a million objects that live as long as the process:
    going through them again and again costs a tenth of all the time, here and in forked workers.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """What the tests of a file have shared ends with its last one."""
    yield
    if nextitem is None or nextitem.path != item.path:
        rest()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, in memory; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk: that takes root on Linux")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis server of the test's own, to be treated badly; ended with the test."""
    mine = Server(tmp_path / "redis", *free_ports(1))
    have(mine.start)
    yield mine
    mine.end()
