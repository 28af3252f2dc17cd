"""A study as it is stored, and as a page has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.numbers import NOTHING, percent
from schemas.configuration import Configuration

Values = Mapping[str, Any]
FIRST_SEED = 2021
CELL = "recall, false alarms per 10,000 samples, delay in samples"
"""What stands in a cell."""


def measured(
    configuration: Configuration, data_dir: Path, seeds: int, told: Callable[[str], None]
) -> dict[str, Any]:
    """A study with all that somebody needs to repeat it.

    Raises what `study` raises, and ConfigurationError for what this machine cannot do.
    """
    from experiments.detection.rules import PEERS_NEED
    from experiments.detection.study import study
    from experiments.folder import software
    from experiments.recipes import departures
    from experiments.runner import check_machine
    from learning.repeatable import repeatable

    check_machine(configuration)
    repeatable(configuration.threads)
    begun = time.perf_counter()
    found = study(configuration, data_dir, range(FIRST_SEED, FIRST_SEED + seeds), told)
    return {
        "recipe": configuration.recipe,
        "changed": departures(configuration),
        "software": {**software(), **{name: _version(name) for name in PEERS_NEED}},
        "seconds": round(time.perf_counter() - begun, 1),
        **found.as_json(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def columns(told: Values, right: str = "") -> list[str]:
    """The heading of each column; those of scenarios begin with `right`."""
    return ["rule", "number", *(f"{right}{name}" for name in told["lines"][0]["scores"])]


def cells(told: Values) -> list[Sequence[str]]:
    """A row for each rule with its number."""
    return [
        (line["rule"], _number(line), *(_cell(score) for score in line["scores"].values()))
        for line in told["lines"]
    ]


def page(told: Values) -> str:
    """The table as Markdown."""
    rows = [columns(told), ["---", "---", *("---:" for _ in columns(told)[2:])], *cells(told)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _number(line: Values) -> str:
    if line["number"] is None:
        return NOTHING
    return f"{line['setting']} {line['number']:g}{' *' if line['chosen'] else ''}"


def _cell(score: Values) -> str:
    rate, delay = score["false_alarms_per_10000"], score["delay"]
    parts = (
        percent(score["recall"]),
        NOTHING if rate is None else f"{rate:.1f}",
        NOTHING if delay is None else f"{delay:.0f}",
    )
    return ", ".join(parts)
