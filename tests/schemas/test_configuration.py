"""A recipe's values: what they may be, and what is said of those that may not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from schemas.configuration import (
    SWITCHES,
    Configuration,
    Perturb,
    configuration,
    known_keys,
    nearest,
)
from schemas.errors import ConfigurationError

NEEDED: dict[str, object] = {"recipe": "mine", "dataset": "digits"}


def complaint(values: dict[str, object]) -> str:
    """What is said of a recipe with these values."""
    with pytest.raises(ConfigurationError) as caught:
        configuration(NEEDED | values)
    return str(caught.value)


def test_the_defaults_are_the_papers() -> None:
    """A recipe that says only what it is about is the preset `paper` (docs/method.md, 1 to 7)."""
    paper = configuration(NEEDED)

    assert (paper.stages, paper.rounds_per_stage, paper.clients, paper.seed) == (10, 10, 30, 2021)
    assert (paper.learning_rate, paper.family, paper.reduction) == (2.0, "bce", "mean")
    assert (paper.strategy, paper.detector, paper.entropy_threshold) == ("fedka", "hybrid", 1.2)
    assert paper.switches == {"family": "bce", "reduction": "mean"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stage": 3}, "unknown key 'stage' (did you mean 'stages'?)"),
        ({"Memory": 3}, "unknown key 'Memory' (did you mean 'memory'?)"),
        ({"perturb": {"stpes": 3}}, "unknown key 'perturb.stpes' (did you mean 'perturb.steps'?)"),
        ({"zzzzz": 1}, "unknown key 'zzzzz'"),
        ({"clients": 0}, "clients should be greater than or equal to 1, not 0"),
        ({"stages": "three"}, "stages should be a valid integer, not 'three'"),
        ({"threads": 2.5}, "threads should be a valid integer, not 2.5"),
        ({"iid": 1.5}, "iid should be less than or equal to 1, not 1.5"),
        ({"memory": None}, "memory should be a valid integer, not None"),
        ({"learning_rate": float("nan")}, "learning_rate should be a finite number, not nan"),
        ({"learning_rate": 0}, "learning_rate should be greater than 0, not 0"),
        ({"wire": "int4"}, "wire should be 'fp32', 'bf16' or 'int8', not 'int4'"),
        ({"cam_relu": "maybe"}, "cam_relu should be a valid boolean, not 'maybe'"),
        ({"keep_rounds": "some"}, "keep_rounds should be a valid integer or 'all', not 'some'"),
        (
            {"keep_rounds": 0},
            "keep_rounds should be greater than or equal to 1 or 'all', not 0",
        ),
        (
            {"classes_per_stage": "many"},
            "classes_per_stage should be a valid integer or a list, not 'many'",
        ),
        (
            {"stages": 2, "classes_per_stage": [5, 0]},
            "classes_per_stage.1 should be greater than or equal to 1, not 0",
        ),
        (
            {"seed": 2**53},
            "seed should be less than or equal to 9007199254740991, not 9007199254740992",
        ),
        ({"quirks": [2]}, "quirks.0 should be 1 or 14, not 2"),
        ({"bn": "recalibrate"}, "bn should be 'average', not 'recalibrate'"),
        ({"eval_head": "nme"}, "eval_head should be 'fc', not 'nme'"),
        ({"weight_clamp": [0.5]}, "weight_clamp.1 is missing"),
        ({"weight_clamp": "off"}, "weight_clamp should be a list or 'none', not 'off'"),
        (
            {"ad_layers": ["layer4", "layer5"]},
            "ad_layers.1 should be 'layer1', 'layer2', 'layer3' or 'layer4', not 'layer5'",
        ),
        (
            {"perturb": {"mode": "shake"}},
            "perturb.mode should be 'latent_noise', 'code' or 'none', not 'shake'",
        ),
        (
            {"stages": "x" * 500},
            "stages should be a valid integer, not 'xxxxxxxxxxxx...xxxxxxxxxxxxx'",
        ),
    ],
)
def test_a_value_that_may_not_be_is_named_in_one_clear_line(
    values: dict[str, object], said: str
) -> None:
    """The key, what it should be and what it is; for an unknown key the nearest one."""
    assert complaint(values) == said


def whole_numbers(model: type[BaseModel]) -> Iterator[str]:
    """The keys that take a whole number, nested ones with a dot."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{inner}" for inner in whole_numbers(field.annotation))
        elif "int" in re.findall(r"\w+", str(field.annotation)) or field.annotation is int:
            yield name


@pytest.mark.parametrize("number", [10**20 - 1, -(10**20) + 1, 2**53])
@pytest.mark.parametrize("key", list(whole_numbers(Configuration)))
def test_a_whole_number_that_no_message_holds_is_refused(key: str, number: int) -> None:
    """Beyond 64 bits nothing could be sent, which would show only once the run has begun."""
    outer, dot, inner = key.partition(".")
    value = {inner: number} if dot else number

    said = complaint({outer: value})

    assert said.startswith(f"{key} should be ")


def test_a_seed_may_be_any_number_that_is_not_too_large() -> None:
    """Also one below zero."""
    assert configuration(NEEDED | {"seed": -(2**53) + 1}).seed == -9007199254740991
    assert configuration(NEEDED | {"seed": -7, "encoder_seed": -7}).encoder_seed == -7


def test_all_that_is_wrong_is_said_at_once_in_one_line() -> None:
    """Nobody corrects one key to be told of the next."""
    said = complaint({"stages": -1, "family": "tree", "dataste": "digits"})

    assert said.split("; ") == [
        "stages should be greater than or equal to 1, not -1",
        "family should be 'bce' or 'softmax', not 'tree'",
        "unknown key 'dataste' (did you mean 'dataset'?)",
    ]


def test_a_recipe_says_what_it_is_and_on_which_data() -> None:
    """These two have no default."""
    with pytest.raises(ConfigurationError, match=r"^recipe is missing; dataset is missing$"):
        configuration({})


# --- combinations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bce", "softmax"])
def test_summed_losses_need_a_small_rate_in_either_family(family: str) -> None:
    """At 2.0 a summed loss never recovers; at 0.2 it learns as well as the mean (5.1)."""
    summed: dict[str, object] = {"reduction": "sum", "family": family}
    said = complaint(summed | {"learning_rate": 0.21})

    assert said.startswith("reduction=sum needs a learning_rate of at most 0.2, not 0.21")
    assert "\n" not in said
    assert "not 2.0" in complaint(summed)
    assert configuration(NEEDED | summed | {"learning_rate": 0.2}).learning_rate == 0.2
    assert configuration(NEEDED | {"reduction": "mean", "learning_rate": 2.0}).reduction == "mean"


def test_sizes_are_listed_for_every_stage_or_given_once() -> None:
    """Two sizes for three stages leave one without."""
    assert (
        complaint({"stages": 3, "classes_per_stage": [5, 5]})
        == "classes_per_stage lists 2 stages, stages is 3"
    )
    assert configuration(NEEDED | {"stages": 2, "classes_per_stage": (3, 4)}).stages == 2
    assert configuration(NEEDED | {"classes_per_stage": 7}).classes_per_stage == 7


# --- what follows from it -------------------------------------------------------------------------


def test_switches_are_what_the_recipe_sets_and_leaves_to_no_strategy() -> None:
    """None leaves a switch to the strategy; a clamp can be set, left, or taken away."""
    assert "weight_clamp" not in configuration(NEEDED).switches
    assert configuration(NEEDED | {"weight_clamp": "none"}).switches["weight_clamp"] is None
    assert configuration(NEEDED | {"weight_clamp": (0.1, 9)}).switches["weight_clamp"] == (0.1, 9.0)
    assert configuration(NEEDED | {"gamma": 0}).switches["gamma"] == 0.0
    assert set(SWITCHES) <= set(Configuration.model_fields)


@pytest.mark.parametrize(
    ("rounds", "warmup", "unscored"),
    [(10, None, 6), (2, None, 1), (1, None, 0), (4, None, 2), (10, 3, 3), (10, 99, 9), (1, 5, 0)],
)
def test_the_first_rounds_of_a_stage_are_not_scored(
    rounds: int, warmup: int | None, unscored: int
) -> None:
    """floor(0.6 R) unless it is set, and never so many that no model is left (6.6)."""
    mine = configuration(NEEDED | {"rounds_per_stage": rounds, "warmup": warmup})

    assert mine.warm_up == unscored


def test_a_configuration_is_a_value() -> None:
    """It cannot be changed, travels as JSON, and comes back equal; `perturb` is a part of it."""
    mine = configuration(NEEDED | {"perturb": {"steps": 7}, "quirks": [1, 14], "image_size": 16})

    assert Configuration.model_validate(mine.model_dump(mode="json")) == mine
    assert Configuration.model_validate_json(mine.model_dump_json()) == mine
    assert mine.perturb == Perturb(steps=7)
    with pytest.raises(ValueError, match="frozen"):
        mine.perturb.__setattr__("steps", 8)


def test_values_from_a_command_line_are_read_as_what_they_say() -> None:
    """`-o stages=3 -o cam_relu=false` are texts."""
    mine = configuration(NEEDED | {"stages": "3", "cam_relu": "false", "learning_rate": "1e-1"})

    assert (mine.stages, mine.cam_relu, mine.learning_rate) == (3, False, 0.1)


def test_every_key_that_can_be_set_is_known_by_name() -> None:
    """Nested keys with a dot, as the command line takes them."""
    keys = known_keys()

    assert {"stages", "perturb.steps", "perturb.mode"} <= set(keys)
    assert "perturb" not in keys
    assert nearest("stagse", keys) == " (did you mean 'stages'?)"
    assert nearest("q", keys) == ""
