"""What a live federation's file may say, and what is said to one that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.scenario import Scenario, read_scenario
from schemas.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
GOOD = """
recipe: smoke
seed: 7
minutes: 1
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
  icu: {site: south, dataset: digits, classes: ["2"]}
events:
  - {at: 5, entity: ward, inject: {classes: ["3"], images: 40, as: {"3": three}}}
  - {at: 6, join: icu}
  - {at: 7, leave: ward}
  - {at: 8, kill: twins}
"""


def read(text: str, folder: Path) -> Scenario:
    """A scenario of this text."""
    file = folder / "scenario.yaml"
    file.write_text(text)
    return read_scenario(file)


def test_a_scenario_tells_who_takes_part_and_what_happens(tmp_path: Path) -> None:
    """Its entities' full names, those who come later, and a configuration that does not end."""
    scenario = read(GOOD, tmp_path)

    assert scenario.sites == ("north", "south")
    assert scenario.full("ward") == "north/ward"
    assert scenario.later == {"icu"}
    assert [event.about for event in scenario.events] == ["ward", "icu", "ward", None]
    inject = scenario.events[0].inject
    assert inject is not None
    assert inject.under == {"3": "three"}
    configuration = scenario.configuration()
    assert configuration.live
    assert (configuration.seed, configuration.encoder_classes) == (7, 256)
    assert configuration.width == 8
    assert configuration.keep_rounds == "all"  # its log is replayed, with every sum


def test_the_example_is_a_scenario_of_at_most_three_minutes() -> None:
    """New classes arrive twice in it, to entities that it knows."""
    scenario = read_scenario(ROOT / "examples" / "first.yaml")
    scenario.configuration()

    assert scenario.minutes <= 3
    assert sum(event.inject is not None for event in scenario.events) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("join: icu", "join: nobody"),
            "at 6 s: no entity is called 'nobody'; there are ward, icu",
        ),
        (("kill: twins", "kill: kafka"), "kill names a role: aggregator, proxy, twins"),
        (
            ("kill: twins", "kill: producers"),
            "at 8 s: no program of producers runs, for who follows",
        ),
        (("kill: twins", "kill: twins, leave: icu"), "one of inject, join, leave and kill"),
        (("entity: ward, inject", "inject"), "`entity` says who gets what `inject` tells"),
        (("minutes: 1", "minutes: 0"), "minutes: Input should be greater than 0"),
        (("minutes: 1", "minutes: 1\ncolour: red"), "colour: Extra inputs are not permitted"),
        (("site: north", "site: North"), "entities.ward.site"),
        (('classes: ["2"]', "classes: []"), "entities.icu.classes"),
        (("recipe: smoke", "recipe: ["), "is no YAML"),
    ],
)
def test_what_is_no_scenario_is_refused_with_its_place(
    change: tuple[str, str], said: str, tmp_path: Path
) -> None:
    """One line that names the file, the place and what is wrong."""
    with pytest.raises(ConfigurationError) as refused:
        read(GOOD.replace(*change), tmp_path)

    assert said in str(refused.value)
    assert "scenario.yaml" in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml cannot be read"):
        read_scenario(tmp_path / "nowhere.yaml")


def test_keys_that_a_live_run_cannot_have(tmp_path: Path) -> None:
    """The refusal is the configuration's own."""
    scenario = read(GOOD.replace("minutes: 1", "minutes: 1\nkeys: {quorom: 2}"), tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean 'quorum'"):
        scenario.configuration()
    scenario = read(GOOD.replace("minutes: 1", "minutes: 1\nkeys: {lr_schedule: step}"), tmp_path)
    with pytest.raises(ConfigurationError, match="does not know its last round"):
        scenario.configuration()
