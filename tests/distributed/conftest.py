"""One process that has imported everything serves all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.configuration import Configuration
from tests.distributed.federation import Federation, Zygote, tiny

Found = Callable[..., Federation]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Ends with the tests."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture
def found(zygote: Zygote, tmp_path: Path) -> Iterator[Found]:
    """Makes federations, whose programs and topics end with the test."""
    made: list[Federation] = []

    def make(configuration: Configuration | None = None, **services: str) -> Federation:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Federation(zygote, folder, configuration or tiny(), **services))
        return made[-1]

    yield make
    for each in made:
        each.end()
