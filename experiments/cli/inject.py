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
    command,
    console,
    data_dir,
    facts,
    next_step,
)

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.bursts import Burst
    from experiments.injection import Injection


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
            help="What the run calls these classes: in the order of --classes, or as CLASS=UID.",
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
    to the run's size. What was injected before is not added again.

    \b
    Examples:
      fedtwin inject runs/smoke-fedka-2021 --entity entity-000 --classes 5,6 --images 60
      fedtwin inject RUN --entity entity-002 --folder scans --as left=L --as right=R
      fedtwin inject RUN --entity entity-001 --npz cells.npz --classes 0,3 --as 10,11
    """
    from experiments.bursts import Wanted, burst
    from experiments.folder import RunFolder
    from experiments.injection import inject as injected
    from experiments.injection import rest

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
        "run_dir": str(run),
        "status": "running" if run_folder.running else "stopped",
    }
    _note_waiting(run_folder.decided().opened, made)
    answer(told, as_json, lambda out: _told(out, done, run, told["status"]))


def _listed(*given: str | None) -> list[str]:
    return [word.strip() for each in given if each for word in each.split(",") if word.strip()]


def _note_waiting(opened: Any, made: Burst) -> None:
    """Classes with too few images are not announced: they wait for more."""
    few = [uid for uid, count in made.counts.items() if count < opened.configuration.n_lab]
    if few:
        console(stderr=True).print(
            f"note: {', '.join(few)}: fewer than {opened.configuration.n_lab} images (n_lab), so"
            " a class that the entity does not know yet is not announced but waits for more",
            soft_wrap=True,
        )


def _told(out: Console, done: Injection, run: Path, status: str) -> None:
    facts(
        out,
        [
            ("entity", done.entity),
            ("source", done.source + ("" if done.added else ": the run has it already")),
            ("images", f"{done.images} of {', '.join(done.classes)}"),
            ("stage", str(done.stage)),
        ],
    )
    going = "the runner takes it up; once it has ended: " if status == "running" else ""
    next_step(out, f"{going}{command('resume', run)}")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(inject)
