"""inject: images of new classes into a run that is there."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import (
    SCHEMA,
    AsJson,
    DataDir,
    answer,
    changes,
    command,
    console,
    data_dir,
    facts,
    next_step,
)
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.bursts import Burst, Wanted
    from experiments.outside import Named
    from schemas.messages import DataFacts, RunOpened


def inject(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="A run's folder, or the name of a run over Kafka or of a live federation;"
            " otherwise FEDTWIN_RUN.",
        ),
    ] = None,
    *,
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
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=0.001,
            metavar="PER_SECOND",
            help="Over Kafka: so many images a second. Otherwise at once.",
        ),
    ] = None,
    delay: Annotated[
        float,
        typer.Option(
            "--delay", min=0.0, metavar="SECONDS", help="Over Kafka: begin so much later."
        ),
    ] = 0.0,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stream new images to one entity of a run.

    They become one more stage of it; in a live federation its twin judges them when they have come.
    A run may be over, stopped or going on. Images are brought to the run's size and colour, and how
    many were is told. The same words again add nothing, so what was interrupted is simply said
    once more; other numbers of images are another stream, whose images come again. Without
    --classes a folder or file is taken whole: --as then has to name every class in it, or none.

    \b
    Examples:
      fedtwin inject runs/smoke-fedka-2021 --entity entity-000 --classes 5,6 --images 60
      fedtwin inject runs/smoke-fedka-2021 --entity entity-002 --folder scans --as left=L,right=R
      fedtwin inject runs/smoke-fedka-2021 --entity entity-001 --npz cells.npz --classes 0 --as 10
      fedtwin inject spring --entity north/ward --classes 6,7 --images 120 --rate 20
    """
    from experiments.bursts import Wanted
    from experiments.outside import on_kafka

    wanted = Wanted(dataset, folder, npz, _listed(classes), _listed(*(renamed or ())), images)
    if named := on_kafka(run):
        _over_kafka(named, entity, wanted, source, rate, delay, data, as_json)
        return
    assert run is not None
    if rate is not None or delay:
        raise ConfigurationError(
            "--rate and --delay are over Kafka alone: a run in one process takes what comes when it"
            " is resumed"
        )
    _into_folder(run, entity, wanted, source, data, as_json)


def _into_folder(
    run: Path, entity: str, wanted: Wanted, source: str | None, data: Path | None, as_json: bool
) -> None:
    from experiments.bursts import burst
    from experiments.folder import RunFolder
    from experiments.injection import inject as injected
    from experiments.injection import opened_in, rest
    from experiments.summary import glance

    run_folder = RunFolder(run)
    own = run_folder.read_manifest()["data_dir"]
    used = data_dir(data) if data or wanted.dataset else Path(own)
    opened = opened_in(run_folder.decided(), run)
    made = burst(opened, wanted, used, lambda: run_folder.data_name(used))

    def pause(turn: int) -> None:
        if turn == 0:
            _note_schedule(entity)
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
    _note_waiting(opened, made)
    answer(told, as_json, lambda out: _told(out, told, opened.data))


def _over_kafka(
    named: Named,
    entity: str,
    wanted: Wanted,
    source: str | None,
    rate: float | None,
    delay: float,
    data: Path | None,
    as_json: bool,
) -> None:
    from experiments.bursts import burst, own_data_of
    from experiments.feeding import feed
    from experiments.injection import rest
    from experiments.outside import seen
    from infra.settings import read_settings

    def pause(turn: int) -> None:
        if turn == 0:
            _note_schedule(entity)
        rest(turn)

    def running() -> bool:
        return named.folder is None or named.folder.running

    with seen(named, site=True) as outside:
        full = outside.entity(entity, read_settings().site)
        used = data_dir(data)
        made = burst(outside.opened, wanted, used, lambda: own_data_of(outside.opened))
        _note_waiting(outside.opened, made)
        _note_unknown(outside.opened, made)
        time.sleep(delay)
        done = feed(
            outside,
            full,
            made.images,
            made.uids,
            source=source,
            rate=rate,
            pause=pause,
            running=running,
        )
        told = {
            "schema": SCHEMA,
            **asdict(done),
            "classes": list(done.classes),
            "added": done.new_images > 0,
            "resized": made.resized,
            "recoloured": made.recoloured,
            "run_dir": str(named.folder.path) if named.folder else None,
        }
        answer(told, as_json, lambda out: _told_over_kafka(out, told, outside.opened.data))


def _note_schedule(entity: str) -> None:
    text = f"the schedule still streams to {entity}; the injection follows behind it"
    console(stderr=True).print(f"note: {text}", soft_wrap=True)


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


def _note_unknown(opened: RunOpened, made: Burst) -> None:
    """A typing error would be a class of its own, for ever."""
    from schemas.schedule import sorted_uids

    if not opened.configuration.live:
        return
    if strange := sorted_uids(set(made.uids) - set(opened.data.classes)):
        console(stderr=True).print(
            f"note: {', '.join(strange)}: not among the classes that {opened.data.name} was opened"
            " with, so this federation gets a class that nobody had agreed on",
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


def _told_over_kafka(out: Console, told: dict[str, Any], data: DataFacts) -> None:
    of_classes = f"{told['images']:,} of {', '.join(told['classes'])}"
    stage = [("stage", str(told["stage"]))] if told["stage"] is not None else []
    facts(
        out,
        [
            ("entity", told["entity"]),
            ("source", told["source"]),
            ("images", f"{of_classes}; {told['new_images']:,} of them new"),
            ("changed", changes(told, data)),
            *stage,
        ],
    )
    out.print(f"\nwhat happens now: {told['next']}", soft_wrap=True)
    if told["stage"] is not None and told["run_dir"]:
        next_step(out, command("resume", told["run_dir"]))
    elif told["stage"] is not None:
        next_step(out, "fedtwin resume, where the run's folder is")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(inject)
