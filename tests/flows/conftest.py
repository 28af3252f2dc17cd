"""What flows compare with, and where they keep their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.digits import learned, told_by_child
from tests.flows.federation import Outcome, finished, small
from tests.memory import in_memory


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test, in memory where there is one."""
    with in_memory(otherwise=tmp_path) as made:
        yield made


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
