"""forget: images of an entity of a live federation, for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.words import SCHEMA, AsJson, answer, command, console, facts, next_step
from experiments.numbers import counted
from schemas.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.forgetting import Done, Federation
    from infra.settings import Settings

WAIT = 900.0  # seconds: a training in work, Kafka's own five minutes between two looks, and a rest


def forget(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            show_default=False,
            help="The name of a live federation; otherwise FEDTWIN_RUN.",
        ),
    ] = None,
    *,
    entity: Annotated[
        str, typer.Option("--entity", metavar="NAME", help="Whose images, such as north/ward.")
    ],
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="SOURCE/NUMBER",
            help="One image: its number in its source, from 0. Otherwise all that was streamed.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--class", metavar="UID", help="Or every image of this class."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=1.0, metavar="SECONDS", help="How long to wait for the end."),
    ] = WAIT,
    as_json: AsJson = False,
) -> None:
    """Take images away at their site: from the stream, the memory and what is held out.

    It is asked of the entity's twin, in its own topic, and stands there for ever. The twin uses
    them for nothing from then on, writes down what else it needs of its stream, and lets go of the
    rest; this command waits until the bytes are gone from the broker's disk. Said again it looks
    again.

    What comes later under the same source and number stays forgotten. A new image of a forgotten
    class is a new image. What models have learned stays learned, and files that were streamed are
    whose they are: docs/forgetting.md says what else there may be.

    It needs the twins program of the site, and comes with the site's own account.

    \b
    Examples:
      fedtwin forget spring --entity north/ward --image camera/17
      fedtwin forget spring --entity north/ward --class 7
      fedtwin forget spring --entity north/ward                    # everything that it ever saw
      fedtwin forget spring --entity north/ward --class 7 --json | jq .images
    """
    from experiments.forgetting import forget as ask
    from experiments.forgetting import held, request
    from infra.erasing import Disk
    from infra.settings import read_settings
    from infra.transport.clusters import connect, kafka_settings

    if image is not None and label is not None:
        raise ConfigurationError("an image or a class: say one of --image and --class")
    settings = read_settings()
    with _federation(run, settings) as federation:
        full = federation.entity(entity, settings.site)
        there = held(federation.transport, federation, full)
        asked = request(federation, full, there, image, label)
        notes = console(stderr=True)
        with closing(Disk(kafka_settings(settings.site_kafka))) as disk:
            done = ask(
                federation,
                asked,
                disk,
                there=there,
                again=lambda: closing(connect(settings, site=True)),
                wait=wait,
                tell=lambda text: None if as_json else notes.print(text, soft_wrap=True),
            )
    told = _told(done)
    answer(told, as_json, lambda out: _shown(out, told))


@contextmanager
def _federation(run: Path | None, settings: Settings) -> Iterator[Federation]:
    """The live federation that is meant. Raises ConfigurationError for any other run."""
    from experiments.forgetting import Federation
    from experiments.outside import on_kafka
    from infra.program import First
    from infra.transport.clusters import connect

    named = on_kafka(run)
    if named is None and run is not None and not run.exists():
        _ = settings.kafka  # where nobody names a broker, that is what is missing
    if named is None:
        raise ConfigurationError(
            f"{run} is no live federation: a run in a folder needs every image of its schedule, and"
            " to take its folder away forgets them all"
        )
    with closing(connect(settings, site=True)) as transport:
        first = First(transport, named.names)
        opened = first.look()
        if opened is None:
            raise DataError(
                f"Kafka at {settings.kafka} holds no run {named.names.run}: `fedtwin topics ls"
                f" {named.names.run}` lists its topics"
            )
        if not opened.configuration.live:
            raise ConfigurationError(
                f"{named.names.run} is a run of the recipe {opened.configuration.recipe}: it needs"
                " every image of its schedule, and `fedtwin topics rm` forgets them all"
            )
        yield Federation(transport, named.names, first.hash)


def _told(done: Done) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "run": done.run,
        "entity": done.entity,
        "asked": done.asked,
        "images": done.images,
        "request": done.request,
        "seconds": done.seconds,
        "gone_from_disk": done.seen,
        "promised_seconds": done.promised,
        "words": done.words,
    }


def _shown(out: Console, told: dict[str, Any]) -> None:
    facts(
        out,
        [
            ("federation", told["run"]),
            ("entity", told["entity"]),
            ("forgotten", f"{told['asked']}, of which it held {counted(told['images'], 'image')}"),
            ("request", told["request"]),
            ("bytes", told["words"]),
        ],
    )
    next_step(out, command("history", "--run", told["run"]))


def add_to(app: typer.Typer) -> None:
    """The command of this module."""
    app.command()(forget)
