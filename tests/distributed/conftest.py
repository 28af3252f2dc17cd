"""One process that has imported everything serves all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.system import SITE
from schemas.configuration import Configuration
from tests.distributed.federation import Federation, Zygote, tiny
from tests.guarded import BOSS, Guarded, crew

Found = Callable[..., Federation]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Ends with the tests."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker with a lock and an access list; ends with the tests of a file."""
    started = Guarded(tmp_path_factory.mktemp("guarded"), [*crew([SITE, "locality"]), BOSS])
    yield started
    started.end()


@pytest.fixture
def found(zygote: Zygote, tmp_path: Path) -> Iterator[Found]:
    """Makes federations, whose programs and topics end with the test."""
    made: list[Federation] = []

    def make(configuration: Configuration | None = None, **services: Any) -> Federation:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Federation(zygote, folder, configuration or tiny(), **services))
        return made[-1]

    yield make
    for each in made:
        each.end()
