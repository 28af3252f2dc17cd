"""What flows compare with, and where they keep their files: in memory where a machine can.

`kill -9` takes nothing from a file in memory that it would leave on a disk, and hundreds of appends
that each wait for a disk would tell nothing about order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.digits import learned, told_by_child
from tests.flows.federation import Outcome, finished, small

IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test."""
    if not os.access(IN_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def quiet() -> Outcome:
    """What the small federation comes to when nothing disturbs it."""
    return finished(small())


@pytest.fixture(scope="session")
def shorter() -> Outcome:
    """The same with two stages."""
    return finished(small(stages=2))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the recipe `tiny` comes to, with real nets, when nothing disturbs it."""
    return told_by_child(learned, tmp_path_factory.mktemp("tiny"))
