"""What a run of a recipe is called, and which of a recipe's keys somebody has changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from learning.strategies.choice import installed
from learning.strategies.strategy import Objective
from schemas import recipes
from schemas.configuration import Configuration
from schemas.datasets import own_data
from schemas.errors import ConfigurationError
from schemas.recipes import ABOUT, PRESETS, RECIPES, Values

__all__ = ["ABOUT", "PRESETS", "RECIPES", "departures", "more_cautious", "recipe", "run_name"]

DEFINING = ("weight", "exponent", "sd_mode")
"""Switches that presets set and that tell one method from another (docs/method.md 7)."""
LONGEST_WORD = 40
"""Letters of a data set in a run's name, for there are limits to the names of topics."""


def recipe(name: str, preset: str | None = None, overrides: Values | None = None) -> Configuration:
    """A recipe's configuration, where `assignment` may also be a YAML file.

    What a preset says of FedKA's terms leaves other methods what they are.

    Raises ConfigurationError for an unknown name, preset or key.
    """
    own = dict(overrides or {})
    if isinstance(file := own.get("assignment"), str):
        own["assignment"] = _assignment(Path(file))
    strategy = str(own.get("strategy", RECIPES.get(name, {}).get("strategy", usual_strategy())))
    preset_keys = PRESETS.get(preset or "", {}).keys()
    defined = dict.fromkeys(preset_keys & _defined_by(strategy)) if preset_keys else {}
    return recipes.recipe(name, preset, defined | own)


def usual_strategy() -> str:
    """The method of a recipe that names none."""
    return str(Configuration.model_fields["strategy"].default)


def _defined_by(strategy: str) -> set[str]:
    """The switches in which a method departs from FedKA's terms by its own definition."""
    if strategy not in (known := installed()):
        return set()
    own, usual = known[strategy].objective, Objective()
    return {key for key in DEFINING if getattr(own, key) != getattr(usual, key)}


def run_name(own: Configuration) -> str:
    """What a run is called unless somebody names it: RECIPE-STRATEGY-SEED.

    Where other data stand in place of the recipe's own, they are named behind it, so that two data
    sets under one recipe are two runs.
    """
    usual = RECIPES.get(own.recipe, {}).get("dataset", own.dataset)
    data = [] if own.dataset == usual else [_as_word(own.dataset)]
    return "-".join([own.recipe, *data, own.strategy, str(own.seed)])


def _as_word(dataset: str) -> str:
    """A data set's name, or that of its file or folder, in the letters that a run's name takes."""
    _, path = own_data(dataset)
    name = Path(path).stem if path else dataset
    letters = re.sub("[^a-z0-9]+", "-", name.lower())[:LONGEST_WORD].strip("-")
    return letters or "data"


def departures(own: Configuration) -> dict[str, Any]:
    """The keys in which a configuration differs from its recipe: `recipe` makes it of them again.

    All keys that it sets where the recipe is not known by name.
    """
    whole = own.model_dump(mode="json")
    tail = {"organ_tail": True} if own.organ_tail else {}
    usual = (
        recipe(own.recipe, overrides=tail).model_dump(mode="json")
        if own.recipe in RECIPES
        else {"recipe": own.recipe}
    )
    return tail | {key: value for key, value in whole.items() if value != usual.get(key)}


def more_cautious(own: Configuration) -> float:
    """The learning rate to take where this one has diverged: a tenth, or the recipe's if lower."""
    tenth = float(f"{own.learning_rate / 10:.1g}")
    return min(tenth, recipe(own.recipe).learning_rate) if own.recipe in RECIPES else tenth


def _assignment(file: Path) -> dict[str, tuple[str, ...]]:
    """Entity → class uids from a YAML file of lists. Raises ConfigurationError."""
    try:
        read = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"assignment: {file} cannot be read: {error}") from None
    if not isinstance(read, dict) or not all(isinstance(uids, list) for uids in read.values()):
        raise ConfigurationError(
            f"assignment: {file} must map each entity to a list of classes, such as"
            " 'local/entity-000: [0, 3, 7]'"
        )
    return {str(entity): tuple(map(str, uids)) for entity, uids in read.items()}
