"""The file that a run is opened with, for whoever starts the aggregator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aggregator.aggregator import Opening
from aggregator.opening import differences, live_opening, read_opening, write_opening
from schemas.errors import ConfigurationError
from schemas.federation import Federation
from schemas.messages import RunOpened
from tests.schemas.specimens import facts, model, recipe, schedule

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


# --- a live federation ----------------------------------------------------------------------------

LIVE = Federation.model_validate(
    {
        "recipe": "smoke",
        "seed": 7,
        "keys": {"quorum": 2},
        "entities": {"ward": {"site": "north", "dataset": "digits", "classes": ["0"]}},
    }
)


def opened(federation: Federation) -> RunOpened:
    """As somebody has opened it."""
    opening = live_opening(federation)
    return RunOpened(
        run="",
        number=0,
        configuration=opening.configuration,
        data=opening.data,
        schedule=opening.schedule,
        sites=opening.sites,
        model=model(0),
    )


def test_a_federation_is_joined_by_who_would_open_the_same() -> None:
    """No schedule, its sites, and nothing in which two differ who read the same file."""
    opening = live_opening(LIVE)

    assert opening.sites == ("north",)
    assert not opening.schedule.stages
    assert differences(opening, opened(LIVE)) == []


def test_what_differs_is_named_with_both_values() -> None:
    """A key, a class, a site."""
    other = LIVE.model_dump(by_alias=True) | {"seed": 8, "classes": ["0", "bladder"]}
    other["entities"]["icu"] = {"site": "south", "dataset": "digits", "classes": ["0"]}
    told = differences(live_opening(Federation.model_validate(other)), opened(LIVE))

    assert told[0] == "seed is 7 there and 8 here"
    assert any(each.startswith("classes is ['0', '1',") for each in told)
    assert told[-1] == "sites is north there and north, south here"


def test_a_live_federation_cannot_be_pooled() -> None:
    """The oracle is one node of a recipe, whose schedule says what it gets."""
    pooled = LIVE.model_dump(by_alias=True)
    pooled["keys"]["strategy"] = "oracle"

    with pytest.raises(ConfigurationError, match="strategy oracle is one node"):
        live_opening(Federation.model_validate(pooled))
