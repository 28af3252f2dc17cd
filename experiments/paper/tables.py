"""What each table and figure of the paper compares, and the recipe that it is at each scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from experiments.recipes import recipe
from learning.strategies import STRATEGIES
from schemas.configuration import Configuration, nearest
from schemas.errors import ConfigurationError

Scale = Literal["paper", "bench", "smoke"]
SCALES: tuple[Scale, ...] = ("paper", "bench", "smoke")
Metric = Literal["accuracy", "macro_f1"]
Values = Mapping[str, Any]

EVERY = "methods"
"""The table of all methods there are."""
REFERENCE = "fedka"
"""The method that every other one is compared with."""
FIVE = ("icarl", "lwm", "glfc", "lga", "fedka")
ABLATIONS = ("fedka-no-cbl", "fedka-no-sdl", "fedka-no-adl", "fedka-no-wadl")
LABELS = {
    "icarl": "icarl+FL", "lwm": "lwm+FL", "glfc": "GLFC", "lga": "LGA", "fedka": "FedKA",
    "fedka-no-cbl": "FedKA (w/oCBL)", "fedka-no-sdl": "FedKA (w/oSDL)",
    "fedka-no-adl": "FedKA (w/oADL)", "fedka-no-wadl": "FedKA (w/oWADL)",
}  # fmt: skip
"""As the paper calls them; others go by their own names."""

TWENTY: dict[Scale, Values] = {
    "paper": {"stages": 20, "classes_per_stage": 5},
    "bench": {"stages": 10, "classes_per_stage": 2, "iid": 1.0},
    "smoke": {"stages": 5, "classes_per_stage": 2, "iid": 1.0},
}
"""More stages of fewer classes. Of two classes a share of 0.8 would be one: a twin gets both."""
CIFAR: dict[Scale, str] = {"paper": "cifar100", "bench": "bench", "smoke": "smoke"}
ORGAN_BENCH: Values = {"stages": 3, "classes_per_stage": 3, "iid": 0.67, "entropy_threshold": 0.4}
HOSPITAL: Values = {"stages": 2, "classes_per_stage": 4, "iid": 0.75}
LEVELS: dict[Scale, tuple[float, ...]] = {
    "paper": (0.4, 0.5, 0.6, 0.7),
    "bench": (0.4, 0.6, 0.8, 1.0),
    "smoke": (0.4, 0.6, 0.8, 1.0),
}
"""Shares of a stage's classes that a twin gets: 4 to 7 of the paper's 10, 2 to 5 of 5 elsewhere."""


@dataclass(frozen=True)
class Printed:
    """A row as the paper prints it, in percent."""

    average: float
    stages: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method in one setting."""

    strategy: str
    overrides: Values
    """Of the recipe, besides strategy and seed."""
    column: str = ""
    """Which of the table's settings it is; empty where there is one."""
    printed: Printed | None = None

    @property
    def label(self) -> str:
        return LABELS.get(self.strategy, self.strategy)


@dataclass(frozen=True)
class Table:
    """A table or figure at one scale."""

    name: str
    title: str
    scale: Scale | None
    """None of runs that belong to no table."""
    metric: Metric
    recipe: str
    rows: tuple[Row, ...]
    own: Values = field(default_factory=dict)
    """What somebody changed for all of its rows."""

    def configuration(self, row: Row, seed: int) -> Configuration:
        """The run that a row is at a seed. Raises ConfigurationError."""
        values = {**row.overrides, **self.own, "strategy": row.strategy, "seed": seed}
        return recipe(self.recipe, overrides=values)

    def joined_by(self, methods: Iterable[str]) -> Table:
        """The table of all methods with those of other packages behind ours; any other as it is."""
        if self.name != EVERY:
            return self
        there = {*STRATEGIES, *(row.strategy for row in self.rows)}
        more = [Row(name, {}) for name in dict.fromkeys(methods) if name not in there]
        return replace(self, rows=(*self.rows, *more))

    def columns(self) -> list[str]:
        """Its settings, in order."""
        return list(dict.fromkeys(row.column for row in self.rows))


@cache
def printed() -> dict[str, Any]:
    """Every number of the paper's tables."""
    text = files("experiments.paper").joinpath("printed.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


TITLES: dict[str, tuple[str, Metric]] = {
    "table2": ("CIFAR-100, 10 new classes a stage", "accuracy"),
    "table3": ("CIFAR-100, 5 new classes a stage", "accuracy"),
    "table4": ("OrganAMNIST, accuracy", "accuracy"),
    "table5": ("OrganCMNIST, accuracy", "accuracy"),
    "table6": ("OrganSMNIST, accuracy", "accuracy"),
    "table7": ("OrganAMNIST, macro F1", "macro_f1"),
    "table8": ("OrganCMNIST, macro F1", "macro_f1"),
    "table9": ("OrganSMNIST, macro F1", "macro_f1"),
    "table10": ("CIFAR-100, heterogeneity", "accuracy"),
    "table11": ("CIFAR-100, ablations", "accuracy"),
    "figure4": ("CIFAR-100, 10 new classes a stage, by stage", "accuracy"),
    "figure5": ("CIFAR-100, 5 new classes a stage, by stage", "accuracy"),
    "methods": ("CIFAR-100, every method here", "accuracy"),
    "hospital": ("A hospital's images: `-o dataset=npz:FILE`, 8 classes", "accuracy"),
}
"""The paper's, and two of our own."""
TABLES = tuple(TITLES)


def table(name: str, scale: Scale, own: Values | None = None) -> Table:
    """A table at a scale, with what somebody changes for all of it.

    Raises ConfigurationError for a name or scale that there is not.
    """
    if name not in TITLES:
        known = ", ".join(TABLES)
        raise ConfigurationError(
            f"no table is called {name!r}; there are {known}{nearest(name, list(TABLES))}"
        )
    if scale not in SCALES:
        raise ConfigurationError(f"a scale is {', '.join(SCALES)}, not {scale!r}")
    title, metric = TITLES[name]
    return Table(name, title, scale, metric, _recipe(name, scale), _rows(name, scale), own or {})


def _recipe(name: str, scale: Scale) -> str:
    organs = {"4": "organamnist", "5": "organcmnist", "6": "organsmnist"}
    organs |= {"7": "organamnist", "8": "organcmnist", "9": "organsmnist"}
    if scale == "paper" and (organ := organs.get(name.removeprefix("table"))):
        return organ
    return CIFAR[scale]


def _rows(name: str, scale: Scale) -> tuple[Row, ...]:
    if name == "table10":
        levels = zip(LEVELS[scale], printed()[name].items(), strict=True)
        return tuple(
            Row(method, {"iid": level}, _level(level, theirs), _printed(rows, method))
            for level, (theirs, rows) in levels
            for method in ("lga", "fedka")
        )
    if name == "figure4":
        theirs = {**printed()["table2"], **printed()["table10"]["0.60"]}
    else:
        theirs = printed().get("table3" if name == "figure5" else name, {})
    return tuple(
        Row(method, _overrides(name, scale), printed=_printed(theirs, method))
        for method in _methods(name)
    )


def _level(level: float, theirs: str) -> str:
    """A setting of table 10; where the paper's level is another one, with it."""
    own = f"iid {level:g}"
    return own if level == float(theirs) else f"{own} (paper {float(theirs):g})"


def _methods(name: str) -> tuple[str, ...]:
    own = {
        "table11": (*ABLATIONS, "fedka"),
        "methods": tuple(STRATEGIES),
        "hospital": ("fedavg", *FIVE),
    }
    return own.get(name, FIVE)


def _overrides(name: str, scale: Scale) -> Values:
    if name in ("table3", "figure5"):
        return TWENTY[scale]
    if name == "hospital":
        return HOSPITAL
    number = name.removeprefix("table")
    if scale == "paper" or number not in "456789":
        return {}
    data = {"dataset": _recipe(name, "paper"), "image_size": 28} if scale == "bench" else {}
    return {**ORGAN_BENCH, **data}


def _printed(rows: Values, method: str) -> Printed | None:
    if method not in rows:
        return None
    return Printed(rows[method]["average"], tuple(rows[method].get("stages", ())))
