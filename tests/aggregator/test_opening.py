"""The file that a run is opened with, for whoever starts the aggregator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aggregator.aggregator import Opening
from aggregator.opening import read_opening, write_opening
from schemas.errors import ConfigurationError
from tests.schemas.specimens import facts, recipe, schedule

OPENING = Opening(recipe(), facts(), schedule())


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    """Configuration, data and schedule, each as it was; the file says its own schema."""
    write_opening(OPENING, tmp_path / "opening.json")

    assert read_opening(tmp_path / "opening.json") == OPENING
    assert json.loads((tmp_path / "opening.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [({"schema": 2}, "schema: "), ({"more": 1}, "more: "), ({"data": None}, "data: ")],
)
def test_a_file_that_opens_no_run_is_named_with_what_is_wrong(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Of a later schema, with something more, or without its data."""
    file = tmp_path / "opening.json"
    write_opening(OPENING, file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(ConfigurationError, match=f"opening.json opens no run: {said}"):
        read_opening(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the system's own words."""
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        read_opening(tmp_path / "none")


def test_what_is_no_json_opens_no_run(tmp_path: Path) -> None:
    """There is no place in it to name."""
    (tmp_path / "opening.json").write_text("{")

    with pytest.raises(ConfigurationError, match="opens no run: the file: "):
        read_opening(tmp_path / "opening.json")
