"""predict and export: what a model says, and how to take it elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.logs import meant
from experiments.cli.words import SCHEMA, AsJson, answer, changes, command, next_step, table

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.messages import DataFacts

KINDS = (
    "A run's folder, or the name of a run or live federation on Kafka, or a model.safetensors alone"
)
Version = Annotated[
    int | None,
    typer.Option(
        "--version",
        min=0,
        metavar="N",
        help="That version of a run's model, if it is kept. Otherwise the one that it ended with,"
        " and of a live federation the newest.",
    ),
]


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=f"{KINDS}.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="PNG or JPEG files, or npz of images.")
    ],
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Say which class each image shows, and how surely.

    Also whether it is unlike anything known: then its class is only the nearest guess. Images are
    brought to the size and colour that the model was trained on, and how many were is told.

    \b
    Examples:
      fedtwin predict runs/smoke-fedka-2021 scan.png
      fedtwin predict model.safetensors *.jpg --json
      fedtwin predict spring scan.png --version 12
    """
    from experiments.current import model_of
    from experiments.prediction import read_pictures

    model = model_of(meant(run), version)
    called, pictures = read_pictures(images, model.data)
    said = model.predictions(pictures.images)
    told = {
        "schema": SCHEMA,
        "model_version": int(model.registry["version"]),
        "model_sha256": model.registry["sha256"],
        "family": model.family,
        "entropy_limit": model.limit,
        "resized": int(pictures.resized.sum()),
        "recoloured": int(pictures.recoloured.sum()),
        "predictions": [
            {"image": image, **asdict(each)} for image, each in zip(called, said, strict=True)
        ],
    }
    answer(told, as_json, lambda out: _said(out, told, model.data))


def _said(out: Console, told: dict[str, Any], data: DataFacts) -> None:
    table(
        out,
        ("image", "class", ">probability", ">entropy", ""),
        (
            (
                each["image"],
                each["name"],
                f"{100 * each['probability']:.1f} %",
                f"{each['entropy']:.2f}",
                "unlike anything known" if each["unlike_anything_known"] else "",
            )
            for each in told["predictions"]
        ),
    )
    out.print(
        f"\nentropy in nats; above {told['entropy_limit']:.2f} an image is unlike anything known",
        soft_wrap=True,
    )
    out.print(f"model version {told['model_version']}, sha256 {told['model_sha256']}")
    if changed := changes(told, data):
        out.print(f"as the model takes them: {changed}", soft_wrap=True)
    next_step(out, "fedtwin inject --help tells how a run is taught new classes")


def export(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", show_default=False, help=f"{KINDS}; otherwise FEDTWIN_RUN."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="safetensors or onnx. Otherwise both."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to; the format's ending is added where it lacks. Otherwise fedtwin.FORMAT"
            " here.",
        ),
    ] = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's model for others.

    As safetensors, and as ONNX where the extra fedtwin[onnx] is installed. Beside each goes a JSON
    with all that they have to know: classes, input, output, hash, licence.

    \b
    Examples:
      fedtwin export runs/smoke-fedka-2021 --out digits
      fedtwin export runs/smoke-fedka-2021 --format onnx --out digits.onnx
      fedtwin export spring --out newest
    """
    from experiments import export as to
    from experiments.current import model_at
    from experiments.prediction import read_model

    with model_at(meant(run), version) as model:
        if format is None:
            written, missing = to.export_all(model, out or Path("fedtwin")), to.lacking()
        else:
            written, missing = [to.export(model, out or Path(f"fedtwin.{format}"), format)], None
        registry = read_model(model).registry
    files = [asdict(each) for each in written]
    told = {
        "schema": SCHEMA,
        "model_version": int(registry["version"]),
        "model_sha256": registry["sha256"],
        "exported": files,
        "missing": missing,
    }
    answer(told, as_json, lambda out: _exported(out, told))


def _exported(out: Console, told: dict[str, Any]) -> None:
    out.print(f"model version {told['model_version']}, sha256 {told['model_sha256']}")
    for each in told["exported"]:
        out.print(f"{each['model']}, and {each['facts']}: classes, input, output", soft_wrap=True)
    if told["missing"]:
        out.print(f"not written: {told['missing']}", soft_wrap=True)
    first = told["exported"][0]
    if first["format"] == "safetensors":
        next_step(out, f"{command('predict', first['model'])} IMAGE")
    else:
        next_step(out, f"read {first['facts']}, then give {first['model']} uint8 images")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(predict)
    app.command()(export)
