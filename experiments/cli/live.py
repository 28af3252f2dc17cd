"""live: a federation that does not end, for as long as a scenario says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.words import SCHEMA, AsJson, DataDir, Quiet, answer, console, data_dir, facts
from schemas.errors import RunFailed

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.live import Outcome


def live(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A YAML file.")],
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="In place of the scenario's.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The federation's. Otherwise the file's."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Replace a federation of this name.")
    ] = False,
    data: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Bring a live federation up as processes, do what a scenario tells, and replay its log.

    Entities join, find new classes, train and leave as the scenario says; rounds open by
    themselves. The services are those that `make up` started or the environment names. What the
    programs say goes to runs/NAME/logs.

    \b
    Examples:
      fedtwin live examples/first.yaml
      fedtwin live examples/first.yaml --minutes 1 --fresh --json
    """
    from experiments.live import live as lived
    from experiments.scenario import read_scenario

    told = read_scenario(scenario)
    run = name or scenario.stem
    out = console(stderr=True)

    def tell(text: str) -> None:
        if not quiet:
            out.print(text, soft_wrap=True)

    ended = lived(
        told, run, Path("runs") / run, data_dir(data), minutes=minutes, tell=tell, fresh=fresh
    )
    values = {"schema": SCHEMA, **asdict(ended), "equal": not ended.different}
    answer(values, as_json, lambda out: _shown(out, ended))
    if ended.different:
        raise RunFailed(f"the log comes to other bytes: {ended.different[0]}")


def _shown(out: Console, ended: Outcome) -> None:
    noticed = [
        f"{', '.join(each.classes)} at {each.entity}: {', '.join(found) or 'nothing'} detected"
        for each, found in zip(ended.injected, ended.detected, strict=True)
    ]
    facts(
        out,
        [
            ("federation", ended.run),
            ("entities", ", ".join(f"{e} ({len(c)} classes)" for e, c in ended.entities.items())),
            ("rounds", f"{ended.rounds} in {ended.stages} stages"),
            ("injected", "; ".join(noticed) or "nothing"),
            ("held out", _accuracy(ended)),
            ("worse", _worse(ended)),
            ("dead letters", str(ended.dead_letters)),
            ("model", f"version {ended.model_version}, sha256 {ended.model_sha256}"),
            ("replayed", f"sha256 {ended.replay_sha256}, {ended.summed} sums redone"),
        ],
    )


def _accuracy(ended: Outcome) -> str:
    """How good the model is, and by whose count."""
    from experiments.numbers import counted, percent

    if ended.held_out_version is None:
        return "nobody has scored a model"
    return (
        f"{percent(ended.held_out_accuracy)} of {counted(ended.held_out_images, 'image')} held out"
        f" at the sites: version {ended.held_out_version}, scored by {ended.held_out_entities} of"
        f" {counted(ended.present_entities, 'entity', 'entities')}"
    )


def _worse(ended: Outcome) -> str:
    """The newest model that lost too much, and how many did."""
    if len(ended.worse) < 2:
        return "".join(ended.worse)
    return f"{ended.worse[-1]}; and {len(ended.worse) - 1} before it"


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(live)
