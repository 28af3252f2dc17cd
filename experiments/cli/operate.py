"""What an operator sees of a live federation, and decides in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.words import SCHEMA, answer, command, facts, next_step, table
from experiments.numbers import counted, lost, percent

if TYPE_CHECKING:
    from rich.console import Console


def federation_of(run: Path) -> str | None:
    """The live federation that RUN names: by its name, or by the folder of its programs' words.

    None for a run's folder, and where nobody names a broker.
    """
    from experiments.folder import OPENING, RunFolder
    from infra.settings import read_settings
    from schemas.errors import ServiceError
    from schemas.topics import NAME

    if RunFolder(run).exists:
        return None
    named = run.name if (run / OPENING).exists() else str(run)
    if not NAME.fullmatch(named):
        return None
    try:
        _ = read_settings().kafka
    except ServiceError:
        return None
    return named


def show(run: str, as_json: bool) -> None:
    """How a live federation stands."""
    from experiments.operators import operating, overview

    with operating(run, everything=True) as operator:
        told = {"schema": SCHEMA, **overview(operator)}
    answer(told, as_json, lambda out: _shown(out, told))


def _shown(out: Console, told: dict[str, Any]) -> None:
    facts(
        out,
        [
            ("federation", told["run"]),
            ("now", told["doing"]),
            ("rounds", f"{told['rounds']} in {told['stages']} stages"),
            ("classes", ", ".join(told["classes"])),
            ("held out", accuracy(told)),
            ("dead letters", str(told["dead_letters"])),
            ("model", f"version {told['model_version']}, sha256 {told['model_sha256']}"),
        ],
    )
    out.print()
    table(
        out,
        ("entity", ">classes", ">images judged", "state"),
        (
            (
                each["entity"],
                str(len(each["classes"])),
                str(each["judged_images"]),
                "paused" if each["paused"] else "here" if each["here"] else "has left",
            )
            for each in told["entities"]
        ),
    )
    out.print()
    table(
        out,
        (">version", "from", ">held out at the sites", ">images", ">entities", "lost"),
        (
            (
                str(each["version"]),
                each["from"],
                percent(each["accuracy"]),
                str(each["images"]),
                str(each["entities"]),
                f"{lost(each['lost_points'])} against version {each['lost_against']}"
                if each["lost_points"] is not None
                else "",
            )
            for each in told["versions"]
        ),
    )
    next_step(out, f"{command('show', told['run'])} again")


def accuracy(told: dict[str, Any]) -> str:
    """The accuracy of the newest version that was scored, and what it rests on."""
    if told["held_out_version"] is None:
        return "nobody has scored a model yet"
    return (
        f"{percent(told['held_out_accuracy'])} of {counted(told['held_out_images'], 'image')} held"
        f" out at the sites, version {told['held_out_version']}"
    )
