"""dlq: what was set aside, why, and how to hand it in again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.logs import by_name, log_at, meant
from experiments.cli.words import (
    SCHEMA,
    AsJson,
    Needed,
    Run,
    answer,
    command,
    facts,
    next_step,
    table,
)
from experiments.numbers import size
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from infra.transport.base import Transport
    from schemas.messages import DeadLetter
    from schemas.topics import Names

group = typer.Typer(
    name="dlq",
    help="Dead letters: messages that were set aside, with the reason.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="Where it lies, as `dlq ls` says.")]
Offset = Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Its place there.")]


@group.command()
def ls(run: Run = None, as_json: AsJson = False) -> None:
    """List what was set aside in a run.

    \b
    Examples:
      fedtwin dlq ls runs/smoke-fedka-2021
      fedtwin dlq ls spring                 # a live federation
    """
    run = meant(run)
    letters = [_told(each) for each in _letters(run)]
    told = {"schema": SCHEMA, "run_dir": str(run), "dead_letters": letters}
    answer(told, as_json, lambda out: _listed(out, told))


@group.command()
def show(run: Needed, topic: Topic, offset: Offset, as_json: AsJson = False) -> None:
    """Show one: what it is about, why it was set aside, and whether the original is still there.

    \b
    Examples:
      fedtwin dlq show runs/smoke-fedka-2021 fedtwin.smoke-fedka-2021.updates.local 17
      fedtwin dlq show spring fedtwin.spring.samples.north.ward 3
    """
    from experiments.letters import original
    from schemas.errors import DataError
    from schemas.limits import LEAST_BYTES

    run = meant(run)
    letter = _one(run, topic, offset)
    with log_at(run) as (transport, _):
        try:
            found = original(transport, letter, max(LEAST_BYTES, letter.size))
            there, said = True, f"{len(found)} record{'s' if len(found) > 1 else ''}"
        except DataError as gone:
            there, said = False, str(gone)
    told = {"schema": SCHEMA, **_told(letter), "original": said, "there": there}
    told["run_dir"] = str(run)
    answer(told, as_json, lambda out: _shown(out, told))


@group.command()
def requeue(run: Needed, topic: Topic, offset: Offset, as_json: AsJson = False) -> None:
    """Put the original into its topic again, to be judged anew by whoever reads it.

    It is read by its reference; where that was trimmed meanwhile, this says so (exit code 4).

    \b
    Examples:
      fedtwin dlq requeue runs/smoke-fedka-2021 fedtwin.smoke-fedka-2021.updates.local 17
    """
    from experiments.letters import requeue as put_again
    from schemas.errors import DataError
    from schemas.limits import LEAST_BYTES

    run = meant(run)
    letter = _one(run, topic, offset)
    with log_at(run) as (transport, names):
        try:
            place = put_again(transport, letter, max(LEAST_BYTES, letter.size))
        except DataError as gone:
            gone.add_note(f"next: {command('dlq', 'ls', run)}")
            raise
        over = _is_over(transport, names)
    told = {"schema": SCHEMA, "topic": topic, "offset": place, "run_dir": str(run), "over": over}
    told["next"] = "watch" if by_name(run) else "show" if over else "resume"
    answer(told, as_json, lambda out: _requeued(out, told))


def _letters(run: Path) -> list[DeadLetter]:
    from experiments.folder import RunFolder
    from experiments.letters import letters

    if by_name(run):
        with log_at(run) as (transport, names):
            return letters(transport, names)
    folder = RunFolder(run)
    folder.read_manifest()
    found = folder.observed().dead_letters
    return [found[key] for key in sorted(found)]


def _is_over(transport: Transport, names: Names) -> bool:
    """Whether nobody reads it before another stage is added."""
    from experiments.outside import Outside
    from infra.program import First

    first = First(transport, names)
    opened = first.look()
    return opened is not None and Outside(transport, names, opened, first.hash).standing.line.over


def _one(run: Path, topic: str, offset: int) -> DeadLetter:
    for letter in _letters(run):
        if (letter.topic, letter.offset) == (topic, offset):
            return letter
    raise ConfigurationError(
        f"no dead letter is about {topic} at {offset}: `{command('dlq', 'ls', run)}` lists them"
    )


def _told(letter: DeadLetter) -> dict[str, Any]:
    return letter.model_dump(mode="json", exclude={"run"})


def _listed(out: Console, told: dict[str, Any]) -> None:
    rows = [
        (each["topic"], str(each["offset"]), each["reason"], each["about"], size(each["size"]))
        for each in told["dead_letters"]
    ]
    if rows:
        table(out, ("topic", ">offset", "reason", "about", ">size"), rows)
    else:
        out.print("nothing was set aside")
    next_step(out, "fedtwin dlq show RUN TOPIC OFFSET says more of one" if rows
              else command("show", told["run_dir"]))  # fmt: skip


def _shown(out: Console, told: dict[str, Any]) -> None:
    names = ("topic", "offset", "about", "reason", "detail", "hash", "original")
    facts(out, [(name, str(told[name])) for name in names])
    if told["there"]:
        words = ("dlq", "requeue", told["run_dir"], told["topic"], str(told["offset"]))
        next_step(out, command(*words))
    else:
        next_step(out, command("dlq", "ls", told["run_dir"]))


def _requeued(out: Console, told: dict[str, Any]) -> None:
    out.print(f"appended to {told['topic']} at {told['offset']}")
    if told["over"]:
        out.print("the run is over: nobody reads it before another stage is added")
    next_step(out, command(told["next"], told["run_dir"]))


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.add_typer(group)
