"""What a live federation is opened with follows from its file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.yaml_file import read_yaml
from producers.datasets import load
from schemas.datasets import KNOWN
from schemas.errors import ConfigurationError
from schemas.federation import Federation
from schemas.recipes import recipe

DIGITS = {"site": "north", "dataset": "digits", "classes": ["0", "1"]}
ORGANS = {"site": "south", "dataset": "organamnist", "classes": ["10"]}
CELLS = {"site": "south", "dataset": "folder:/data/cells", "classes": ["left", "right"]}


def federation(*entities: dict[str, Any], **more: Any) -> Federation:
    """Of these entities, called a, b and so on."""
    named = dict(zip("abc", entities, strict=False))
    return Federation.model_validate({"recipe": "smoke", "entities": named, **more})


def test_the_table_says_of_digits_what_their_images_say(tmp_path: Path) -> None:
    """Size, colour, classes and preparation, at their own size and at another."""
    for side in (16, 28):
        told = federation(DIGITS, keys={"image_size": side}).data()
        found = load("digits", tmp_path, image_size=side).facts()

        assert told.classes == found.classes
        assert (told.channels, told.height, told.width) == (1, side, side)
        assert told.transforms == found.transforms
        assert told.name == "digits"


def test_a_model_in_use_learns_slowly() -> None:
    """Whatever its recipe says; its own file has the last word."""
    bold = federation(DIGITS, keys={"learning_rate": 0.5})

    assert recipe("smoke").learning_rate == 0.5
    assert federation(DIGITS).configuration().learning_rate == 0.1
    assert bold.configuration().learning_rate == 0.5


def test_the_crop_grows_with_the_images() -> None:
    """CIFAR-100's padding of 4 at 32 pixels is 2 at 16."""
    photos = {"site": "north", "dataset": "cifar100", "classes": ["7"]}
    told = federation(photos, keys={"image_size": 16}).data()

    assert told.transforms.crop_padding == 2
    assert told.channels == 3
    assert len(told.classes) == 100


def test_several_data_sets_have_one_size_one_colour_and_all_their_classes() -> None:
    """Digits and organs under names of their own: 10 digits, 11 organs of which one is renamed."""
    told = federation(DIGITS, ORGANS | {"as": {"10": "spleen"}}).data()

    assert told.name == "digits+organamnist"
    assert (told.channels, told.height) == (1, 16)
    assert told.classes == (*map(str, range(10)), "spleen")
    assert told.transforms.mean == (0.5,)
    assert federation(DIGITS, CELLS).data().classes == (*map(str, range(10)), "left", "right")


def test_two_that_call_different_things_alike_are_told_so() -> None:
    """0 is a digit here and a bladder there; two sets of organs mean the same by it."""
    with pytest.raises(ValidationError, match="class 0 is 0 in digits and bladder in organamnist"):
        federation(DIGITS, ORGANS | {"classes": ["0"]})
    federation(DIGITS, ORGANS | {"classes": ["0"], "as": {"0": "bladder"}})
    federation(ORGANS, {"site": "east", "dataset": "organcmnist", "classes": ["10"]})


def test_classes_that_all_agree_on_are_the_only_ones() -> None:
    """In natural order; one that is not among them is named with who streams it."""
    agreed = ["1", "0", "tumour"]

    assert federation(DIGITS, classes=agreed).data().classes == ("0", "1", "tumour")
    with pytest.raises(ConfigurationError, match=r"b: class '10' is not among `classes`"):
        federation(DIGITS, ORGANS, classes=agreed).data()


def test_of_ones_own_data_colour_and_size_have_to_be_said() -> None:
    """Their place is nobody's business; beside digits their colour follows."""
    told = federation(CELLS, channels=3).data()

    assert told.name == "folder:cells"
    assert told.classes == ("left", "right")
    assert (told.channels, told.height) == (3, 16)
    with pytest.raises(ConfigurationError, match="channels: 1 for gray or 3 for colour"):
        federation(CELLS).data()
    with pytest.raises(ConfigurationError, match="image_size has to be said"):
        federation(CELLS, channels=3, keys={"image_size": None}).data()


def test_the_same_file_is_the_same_federation() -> None:
    """Another entity at a site changes nothing that all share; another class does."""
    one = federation(DIGITS, ORGANS | {"as": {"10": "spleen"}})
    more = federation(DIGITS, ORGANS | {"as": {"10": "spleen"}}, DIGITS | {"classes": ["5"]})

    assert (one.data(), one.configuration()) == (more.data(), more.configuration())
    assert one.data() != federation(DIGITS).data()
    assert one.sites == ("north", "south")
    assert one.full("b") == "south/b"


@pytest.mark.parametrize("file", ["examples/live.yaml", "infra/deploy/federation.yaml"])
def test_what_does_not_end_keeps_the_updates_of_one_round(file: str) -> None:
    """Or its disk would be full one day; who wants every sum made again says so."""
    read: Federation = read_yaml(Path(__file__).parents[2] / file, Federation)
    told = federation(DIGITS, keys={"keep_rounds": "all"}).configuration()

    assert read.configuration().keep_rounds == 1
    assert told.keep_rounds == "all"


def test_a_file_with_events_is_for_fedtwin_live() -> None:
    """Which is said, for nobody would follow them."""
    with pytest.raises(ValidationError, match="which `fedtwin live` follows"):
        federation(DIGITS, events=[])


def test_every_known_data_set_can_be_opened() -> None:
    """By its name alone, at its own size."""
    for name, known in KNOWN.items():
        entity = {"site": "north", "dataset": name, "classes": ["0"]}
        told = federation(entity, keys={"image_size": None}).data()
        assert (told.channels, told.height, len(told.classes)) == (
            known.channels,
            known.side,
            known.classes,
        )


def test_the_example_is_a_federation() -> None:
    """Of two sites, with a class more than its data set has."""
    read: Federation = read_yaml(Path(__file__).parents[2] / "examples" / "live.yaml", Federation)

    assert read.sites == ("north", "south")
    assert read.data().classes == (*map(str, range(10)), "tumour")
