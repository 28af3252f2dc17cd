"""Recipes by name, presets, and what is said on the command line on top of them."""

from pathlib import Path

import pytest

from experiments.recipes import ABOUT, PRESETS, RECIPES, recipe
from experiments.system import opening_of
from learning.strategies.choice import chosen
from producers.datasets import load
from schemas.errors import ConfigurationError


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_configuration(name: str) -> None:
    """Also under every preset, and each has a line for people."""
    assert recipe(name).recipe == name
    assert all(recipe(name, preset) for preset in PRESETS)
    assert ABOUT[name]


def test_the_paper_s_setting_is_what_no_key_changes() -> None:
    """Section 3 of the paper: 10 stages of 10, 30 + 5 clients, 5 a round, 5 epochs, rate 2."""
    paper = recipe("cifar100")

    assert (paper.stages, paper.classes_per_stage, paper.rounds_per_stage) == (10, 10, 10)
    assert (paper.clients, paper.new_clients, paper.clients_per_round) == (30, 5, 5)
    assert (paper.local_epochs, paper.batch_size, paper.learning_rate) == (5, 32, 2.0)
    assert (paper.memory, paper.entropy_threshold, paper.iid, paper.seed) == (2000, 1.2, 0.6, 2021)
    assert paper.threshold_mode == "absolute"


def test_an_unknown_recipe_names_the_nearest() -> None:
    """`smok` is not far from `smoke`."""
    with pytest.raises(ConfigurationError, match="did you mean 'smoke'"):
        recipe("smok")


def test_an_unknown_preset_names_those_that_exist() -> None:
    """There are few enough to name all."""
    with pytest.raises(ConfigurationError, match="there are paper, literal, smoke"):
        recipe("smoke", "papper")


@pytest.mark.parametrize(
    ("preset", "method", "weight", "exponent", "semantic"),
    [
        ("lineage_compat", "fedka", "cumulative", "stage", "block"),
        ("lineage_compat", "lga", "cumulative", "stage", "bce"),
        ("lineage_compat", "glfc", "old_new", "one", "bce"),
        ("literal", "fedka", "stage", "client", "slice_onehot"),
        ("literal", "glfc", "old_new", "one", "joint"),
        ("literal", "icarl", "none", "client", "joint"),
        ("literal", "lwm", "none", "client", "joint"),
    ],
)
def test_a_preset_leaves_other_methods_what_they_are(
    preset: str, method: str, weight: str, exponent: str, semantic: str
) -> None:
    """GLFC compares old with new under any; what somebody says counts all the same."""
    own = recipe("smoke", preset, {"strategy": method})
    objective = chosen(method, own.switches, own.teacher).objective
    said = recipe("smoke", preset, {"strategy": method, "sd_mode": "slice"})

    assert (objective.weight, objective.exponent) == (weight, exponent)
    assert objective.sd_mode == semantic
    assert said.sd_mode == "slice"


def test_an_override_reaches_into_a_part() -> None:
    """`perturb.steps` changes one number and leaves the others."""
    changed = recipe("smoke", overrides={"perturb.steps": 3}).perturb

    assert (changed.steps, changed.mode) == (3, "latent_noise")


def test_with_fewer_clients_than_a_round_samples_all_of_them_are() -> None:
    """cifar100-small samples 4 of 8; of three clients it takes three, unless somebody says four."""
    three: dict[str, object] = {"clients": 3, "new_clients": 0}

    assert recipe("cifar100-small", overrides=three).clients_per_round == 3
    assert recipe("cifar100-small").clients_per_round == 4
    assert (
        recipe("cifar100-small", overrides=three | {"clients_per_round": 4}).clients_per_round == 4
    )
    assert recipe("cifar100", overrides={"clients": 3}).clients_per_round == 3


def test_organs_have_a_fourth_stage_on_request() -> None:
    """Three stages of three leave two of eleven classes over."""
    tail = recipe("organamnist", overrides={"organ_tail": True})

    assert (tail.stages, tail.classes_per_stage) == (4, (3, 3, 3, 2))


@pytest.mark.parametrize(
    ("name", "more"),
    [("cifar100", {}), ("organamnist", {"stages": 2}), ("organamnist", {"classes_per_stage": 5})],
)
def test_nothing_else_has_one(name: str, more: dict[str, object]) -> None:
    """Other data have no two classes left over, and other stages are what somebody asked for."""
    with pytest.raises(ConfigurationError, match="organ_tail makes a fourth stage"):
        recipe(name, overrides={"organ_tail": True, **more})


def test_the_encoder_has_a_row_for_every_class_of_the_schedule(tmp_path: Path) -> None:
    """`smoke` has ten classes; an encoder of nine rows could not tell the last."""
    digits = load("digits", tmp_path, image_size=16)

    with pytest.raises(ValueError, match="encoder_classes is 9, the schedule has 10"):
        opening_of(recipe("smoke", overrides={"encoder_classes": 9}), digits)
    opening_of(recipe("smoke", overrides={"encoder_classes": 10}), digits)


@pytest.mark.parametrize(
    ("keys", "most"),
    [
        ({"images_per_class": 5}, 5),
        ({"images_per_class": 12, "n_lab": 13}, 12),
        ({"images_per_class": 10, "image_share": "disjoint", "iid": 1.0}, 3),
    ],
)
def test_a_recipe_in_which_nobody_can_ever_announce_a_class_is_refused(
    tmp_path: Path, keys: dict[str, object], most: int
) -> None:
    """n_lab is 8 unless it is said; of 10 images that four clients share one gets at most 3."""
    digits = load("digits", tmp_path, image_size=8)

    with pytest.raises(ConfigurationError) as caught:
        opening_of(recipe("tiny", overrides=keys), digits)
    assert f"n_lab is {keys.get('n_lab', 8)}, and no entity gets more than {most}" in str(
        caught.value
    )
    opening_of(recipe("tiny", overrides=keys | {"n_lab": most}), digits)
    opening_of(recipe("tiny", overrides=keys | {"detector": "entropy"}), digits)


def test_classes_can_be_assigned_by_a_file(tmp_path: Path) -> None:
    """Numbers in the file are class uids; the schedule follows it and draws nothing."""
    file = tmp_path / "classes.yaml"
    file.write_text("local/entity-000: [0, 1, 5]\nlocal/entity-001: [2, 3]\n")
    given = recipe(
        "tiny", overrides={"assignment": str(file), "clients": 2, "clients_per_round": 1}
    )
    schedule = opening_of(given, load("digits", tmp_path, image_size=16)).schedule

    assert schedule.stages[0].streams == {
        "local/entity-000": ("0", "1"),
        "local/entity-001": ("2", "3"),
    }
    assert schedule.stages[1].streams == {"local/entity-000": ("5",), "local/entity-001": ()}


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "local/entity-000: 3\n", "{a: [1}"])
def test_a_file_that_assigns_nothing_is_refused(tmp_path: Path, content: str) -> None:
    """It is named, and what is wrong with it."""
    file = tmp_path / "classes.yaml"
    file.write_text(content)

    with pytest.raises(ConfigurationError, match=r"classes\.yaml"):
        recipe("tiny", overrides={"assignment": str(file)})


def test_other_packages_are_looked_through_only_for_a_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table asks for hundreds of configurations, and reading what is installed takes a while."""
    asked: list[str] = []

    def installed() -> dict[str, object]:
        asked.append("once")
        return {}

    monkeypatch.setattr("experiments.recipes.installed", installed)

    recipe("bench", overrides={"strategy": "lga"})
    assert not asked
    recipe("bench", "literal", {"strategy": "lga"})
    assert asked == ["once"]
