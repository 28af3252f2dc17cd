"""Recipes: data, schedule and preset by name (docs/method.md, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.configuration import Configuration, configuration, nearest
from schemas.errors import ConfigurationError

Values = Mapping[str, object]

PRESETS: dict[str, Values] = {
    "paper": {},
    "literal": {
        "family": "softmax",
        "reduction": "sum",
        "learning_rate": 0.1,
        "sd_mode": "slice_onehot",
        "weight_clamp": "none",
    },
    "smoke": {
        "stages": 2,
        "classes_per_stage": 5,
        "clients": 6,
        "new_clients": 0,
        "transition_fraction": 1.0,  # a tenth of six twins would be one of six: decision 0008
        "iid": 0.8,
        "clients_per_round": 3,
        "rounds_per_stage": 4,
        "local_epochs": 2,
        "batch_size": 32,
        "learning_rate": 0.5,
        "memory": 160,
        "width": 8,
        "threshold_mode": "relative",
    },
    "lineage_compat": {
        "quirks": (1, 14),
        "detector": "lineage",
        "entropy_head": "post_growth",
        "threshold_mode": "absolute",
        "teacher": "slots",
        "proto_upload": "sampled_only",
        "proto_model": "local",
        "perturb": {"mode": "code"},
        "weight": "cumulative",
        "exponent": "stage",
        "lr_schedule": "lineage",
    },
}
"""What a recipe takes from a preset; `paper` is the default of every key."""

SMOKE: Values = {"dataset": "digits", "image_size": 16, **PRESETS["smoke"]}
ORGAN: Values = {
    "stages": 3,
    "classes_per_stage": 3,
    "iid": 0.67,
    "memory": 1000,
    "entropy_threshold": 0.4,
    "recon_batch": 24,
}

RECIPES: dict[str, Values] = {
    "demo": {**SMOKE, "recon_steps": 1000},
    "smoke": SMOKE,
    "tiny": {
        **SMOKE,
        "width": 6,
        "transition_fraction": 0.9,
        "clients": 4,
        "clients_per_round": 2,
        "rounds_per_stage": 2,
        "local_epochs": 1,
        "memory": 40,
        "proto_per_class": 1,
        "recon_steps": 50,
    },
    "cifar100-small": {
        "dataset": "cifar100",
        "stages": 4,
        "classes_per_stage": 5,
        "width": 16,
        "clients": 8,
        "new_clients": 2,
        "iid": 0.8,
        "clients_per_round": 4,
        "rounds_per_stage": 6,
        "local_epochs": 2,
        "learning_rate": 0.2,
        "memory": 300,
        "threshold_mode": "relative",
        "recon_batch": 15,
    },
    "bench": {
        "dataset": "cifar100",
        "stages": 4,
        "classes_per_stage": 5,
        "images_per_class": 150,
        "width": 16,
        "iid": 0.8,
        "clients": 6,
        "new_clients": 0,
        "transition_fraction": 1.0,  # as in `smoke`: decision 0008
        "clients_per_round": 3,
        "rounds_per_stage": 4,
        "local_epochs": 2,
        "learning_rate": 0.5,
        "memory": 120,
        "threshold_mode": "relative",
        "recon_batch": 15,
    },
    "cifar100": {"dataset": "cifar100", "recon_batch": 30},
    "organamnist": {"dataset": "organamnist", **ORGAN},
    "organcmnist": {"dataset": "organcmnist", **ORGAN},
    "organsmnist": {"dataset": "organsmnist", **ORGAN},
}

ABOUT: dict[str, str] = {
    "demo": "handwritten digits, 2 stages of 5 classes, 6 twins; under a minute",
    "smoke": "as demo, with the full budget for rebuilding prototypes",
    "tiny": "digits with a model of 0.4 MB that does not learn; for tests of crashes",
    "cifar100-small": "CIFAR-100, 4 stages of 5 classes, 8 to 14 twins, narrow net",
    "bench": "20 classes of CIFAR-100 in 4 stages, 6 twins, narrow net: for comparing methods",
    "cifar100": "CIFAR-100, 10 stages of 10 classes, 30 to 75 twins: the paper's setting",
    "organamnist": "OrganAMNIST, 3 stages of 3 classes: the paper's setting",
    "organcmnist": "OrganCMNIST, 3 stages of 3 classes: the paper's setting",
    "organsmnist": "OrganSMNIST, 3 stages of 3 classes: the paper's setting",
}


def recipe(name: str, preset: str | None = None, overrides: Values | None = None) -> Configuration:
    """A recipe's configuration. Raises ConfigurationError for an unknown name, preset or key."""
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise ConfigurationError(f"no recipe is called {name!r}; there are {known}{_near(name)}")
    if preset is not None and preset not in PRESETS:
        raise ConfigurationError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    values = {"recipe": name, **RECIPES[name], **(PRESETS[preset] if preset else {})}
    return configuration(_spelled_out(_fewer(_merged(values, overrides or {}), overrides or {})))


def _fewer(values: dict[str, object], overrides: Values) -> dict[str, object]:
    """With fewer clients than the recipe samples in a round all of them are, unless somebody says
    how many."""
    usual = Configuration.model_fields["clients_per_round"].default
    clients, sampled = values.get("clients"), values.get("clients_per_round", usual)
    if "clients_per_round" in overrides or not isinstance(clients, int) or clients < 1:
        return values
    if isinstance(sampled, int) and clients < sampled:
        values["clients_per_round"] = clients
    return values


def _spelled_out(values: dict[str, object]) -> dict[str, object]:
    """What stands for more than one key: the fourth stage of organs."""
    return values | _with_tail(values) if values.get("organ_tail") else values


def _with_tail(values: Values) -> dict[str, object]:
    """Four stages of organs in place of three. Raises ConfigurationError for anything else."""
    planned = {key: values.get(key) for key in ("stages", "classes_per_stage")}
    if not str(values["dataset"]).startswith("organ") or planned != {
        "stages": ORGAN["stages"],
        "classes_per_stage": ORGAN["classes_per_stage"],
    }:
        raise ConfigurationError(
            "organ_tail makes a fourth stage of the two classes that three stages of three organs"
            " leave over: it needs a recipe of organs, with its own stages and classes_per_stage"
        )
    return {"stages": 4, "classes_per_stage": (3, 3, 3, 2)}


def _near(name: str) -> str:
    return nearest(name, list(RECIPES))


def _merged(values: Values, overrides: Values) -> dict[str, object]:
    """Overrides on top; `perturb.steps` goes into `perturb`."""
    merged = dict(values)
    for key, value in overrides.items():
        outer, dot, inner = key.partition(".")
        if dot:
            nested = merged.get(outer)
            merged[outer] = {**(nested if isinstance(nested, dict) else {}), inner: value}
        else:
            merged[key] = value
    return merged
