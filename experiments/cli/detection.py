"""detection: how well new classes are noticed, by our rules and by others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    Quiet,
    answer,
    data_dir,
    facts,
    in_a_line,
    next_step,
    overrides,
    table,
)
from experiments.numbers import counted, duration, percent

if TYPE_CHECKING:
    from rich.console import Console


def detection(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Whose data, net, rates and thresholds; smoke for digits."
        ),
    ] = "smoke",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, metavar="N", help="So many models; the first is 2021.")
    ] = 3,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", metavar="KEY=VALUE", help="Change a key of the recipe; repeat for more."
        ),
    ] = None,
    data: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write detection.md and detection.json there as well."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score the rules that notice new classes, beside river's detectors of drift.

    For each seed a model learns some classes of a recipe's data; then streams run past it into
    which a new class comes: all at once, trickling in, and after an old one has come back. Numbers
    of rules are chosen on other images and other new classes than those that are scored. The
    peers take the extra fedtwin[detection].

    \b
    Examples:
      fedtwin detection                                              # digits, half a minute
      fedtwin detection cifar100-small -o images_per_class=150 --out found
      fedtwin detection cifar100-small -o dataset=npz:cells.npz --seeds 5 --json
    """
    import json

    from experiments.detection.pages import measured, page
    from experiments.folder import write_whole
    from experiments.recipes import recipe as configured

    configuration = configured(recipe, overrides=overrides(override or []))
    silent = quiet or as_json or not sys.stderr.isatty()
    found = measured(
        configuration,
        data_dir(data),
        seeds,
        lambda text: None if silent else print(text, file=sys.stderr),
    )
    told: dict[str, Any] = {"schema": SCHEMA, **found}
    if out:
        write_whole(out / "detection.md", page(told).encode())
        write_whole(out / "detection.json", (json.dumps(told, indent=1) + "\n").encode())
    answer(told, as_json, lambda console: _told(console, told, out))


def _told(out: Console, told: dict[str, Any], written: Path | None) -> None:
    from experiments.detection.pages import CELL, cells, columns

    table(out, columns(told, right=">"), cells(told))
    out.print(f"\n{CELL}; * was chosen on other streams")
    accuracies = ", ".join(percent(each) for each in told["accuracies"])
    about = [
        (
            "data",
            f"{told['data']}, {counted(told['known_classes'], 'known class', 'known classes')}",
        ),
        ("models", f"{accuracies} of test images right"),
        ("time", duration(told["seconds"])),
        ("missing", in_a_line(told["missing"] or "")),
        ("written", "" if written is None else f"{written / 'detection.md'}, detection.json"),
    ]
    facts(out, about)
    next_step(out, "docs/detection.md tells how to read this")


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command()(detection)
