"""inject: images of new classes into a run that is there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    Run,
    answer,
    changes,
    command,
    console,
    data_dir,
    facts,
    next_step,
)

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.bursts import Burst
    from schemas.messages import DataFacts, RunOpened


def inject(
    run: Run,
    entity: Annotated[
        str,
        typer.Option("--entity", metavar="NAME", help="Whose stream it is, such as entity-000."),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="A data set of `fedtwin data ls`. Otherwise the run's own.",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Or images as DIR/CLASS/*.")
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option("--npz", metavar="FILE", help="Or train_images and train_labels of a file."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", metavar="A,B", help="Only these classes of it. Needed with a data set."
        ),
    ] = None,
    renamed: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="UID,UID",
            help="What the run calls these classes: in the order of --classes, or as CLASS=UID;"
            " without --classes, all of them.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, metavar="N", help="At most so many images of each class."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="The stream's name. Otherwise a hash of its images."
        ),
    ] = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stream new images to one entity of a run.

    They become one more stage of it. The run may be over, stopped or going on. Images are brought
    to the run's size and colour, and how many were is told. What was injected before is not added
    again. Without --classes a folder or file is taken as a whole: --as then has to name every class
    in it, or none.

    \b
    Examples:
      fedtwin inject runs/smoke-fedka-2021 --entity entity-000 --classes 5,6 --images 60
      fedtwin inject runs/smoke-fedka-2021 --entity entity-002 --folder scans --as left=L,right=R
      fedtwin inject runs/smoke-fedka-2021 --entity entity-001 --npz cells.npz --classes 0 --as 10
    """
    from experiments.bursts import Wanted, burst
    from experiments.folder import RunFolder
    from experiments.injection import inject as injected
    from experiments.injection import rest
    from experiments.summary import glance

    wanted = Wanted(dataset, folder, npz, _listed(classes), _listed(*(renamed or ())), images)
    run_folder = RunFolder(run)
    own = run_folder.read_manifest()["data_dir"]
    used = data_dir(data) if data or dataset else Path(own)
    made = burst(run_folder, wanted, used)

    def pause(turn: int) -> None:
        if turn == 0:
            text = f"the schedule still streams to {entity}; the injection follows behind it"
            console(stderr=True).print(f"note: {text}", soft_wrap=True)
        rest(turn)

    done = injected(run, entity, made.images, made.uids, source=source, pause=pause)
    told = {
        "schema": SCHEMA,
        **asdict(done),
        "classes": list(done.classes),
        "new_images": done.images if done.added else 0,
        "resized": made.resized,
        "recoloured": made.recoloured,
        "run_dir": str(run),
        "status": glance(run)["status"],
    }
    opened = run_folder.decided().opened
    assert opened is not None
    _note_waiting(opened, made)
    answer(told, as_json, lambda out: _told(out, told, opened.data))


def _listed(*given: str | None) -> list[str]:
    return [word.strip() for each in given if each for word in each.split(",") if word.strip()]


def _note_waiting(opened: RunOpened, made: Burst) -> None:
    """Classes with too few images are not announced: they wait for more."""
    few = [uid for uid, count in made.counts.items() if count < opened.configuration.n_lab]
    if few:
        console(stderr=True).print(
            f"note: {', '.join(few)}: fewer than {opened.configuration.n_lab} images (n_lab), so"
            " a class that the entity does not know yet is not announced but waits for more",
            soft_wrap=True,
        )


def _told(out: Console, told: dict[str, Any], data: DataFacts) -> None:
    there = "" if told["added"] else "; none is new: this very injection was there already"
    of_classes = f"{told['images']:,} of {', '.join(told['classes'])}"
    facts(
        out,
        [
            ("entity", told["entity"]),
            ("source", told["source"]),
            ("images", f"{of_classes}{there or ', all of them new'}"),
            ("changed", changes(told, data)),
            ("stage", str(told["stage"])),
        ],
    )
    if told["status"] == "done":
        next_step(out, f"{command('show', told['run_dir'])}; the run has learned from it already")
        return
    running = told["status"] == "running"
    going = "the runner takes it up; once it has ended: " if running else ""
    next_step(out, f"{going}{command('resume', told['run_dir'])}")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(inject)
