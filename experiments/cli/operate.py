"""What an operator sees of a live federation, and decides in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.logs import log_at, meant, name_of
from experiments.cli.words import (
    SCHEMA,
    AsJson,
    AsOption,
    Run,
    answer,
    command,
    facts,
    moment,
    next_step,
    table,
)
from experiments.numbers import counted, lost, percent
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

Which = Annotated[
    list[str],
    typer.Argument(
        metavar="[RUN] VERSION",
        help="The federation's name, otherwise FEDTWIN_RUN; and a version of its model.",
    ),
]
Who = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN] [ENTITY]",
        show_default=False,
        help="The federation's name, otherwise FEDTWIN_RUN; and site and name of an entity, as in"
        " north/ward, else everybody.",
    ),
]


def rollback(words: Which, run: AsOption = None, as_json: AsJson = False) -> None:
    """Make an earlier version of a live federation's model the newest one again.

    Its values get a row for each class that has one by now, and a version of their own. A round
    that is open ends uncounted, and the next begins on that model. It needs no program to be up.
    The version must be there still: those of the newest two stages are, and of earlier ones the
    best and the last; `fedtwin show RUN` lists what each is worth.

    \b
    Examples:
      fedtwin rollback first 14
      fedtwin rollback 14 --json            # of the federation that FEDTWIN_RUN names
    """
    from experiments.operators import operating
    from experiments.operators import rollback as go_back

    *named, last = words
    federation = _federation(named, run)
    if not last.isdecimal():
        raise ConfigurationError(f"VERSION is a number, as in `fedtwin rollback first 14`: {last}")
    with operating(federation) as operator:
        decided = go_back(operator, int(last))
        told = {
            "schema": SCHEMA,
            "run": operator.names.run,
            "decision": decided.number,
            "back_to": decided.to.version,
            "model_version": decided.model.version,
            "model_sha256": decided.model.sha256,
            "ended_round": decided.closes is not None,
        }
    answer(told, as_json, lambda out: _gone_back(out, told))


def _gone_back(out: Console, told: dict[str, Any]) -> None:
    facts(
        out,
        [
            ("federation", told["run"]),
            ("back to", f"version {told['back_to']}, which is version {told['model_version']} now"),
            ("round", "the open one ended uncounted" if told["ended_round"] else ""),
            ("model", f"sha256 {told['model_sha256']}"),
        ],
    )
    next_step(out, command("show", told["run"]))


def pause(words: Who = None, run: AsOption = None, as_json: AsJson = False) -> None:
    """Let an entity of a live federation rest, or everybody: no round asks for it.

    What it streams is kept. A round that is open already ends as it would have. While everybody
    rests no head grows, either.

    \b
    Examples:
      fedtwin pause first north/ward
      fedtwin pause first                  # the whole federation
    """
    _rest(words, run, as_json, rests=True)


def unpause(words: Who = None, run: AsOption = None, as_json: AsJson = False) -> None:
    """Let an entity of a live federation go on, or everybody.

    \b
    Examples:
      fedtwin unpause first north/ward
      fedtwin unpause first
    """
    _rest(words, run, as_json, rests=False)


def _rest(words: list[str] | None, run: Path | None, as_json: bool, *, rests: bool) -> None:
    from experiments.operators import operating
    from experiments.operators import pause as paused

    entities = [each for each in words or () if "/" in each]
    if len(entities) > 1:
        raise ConfigurationError(f"one entity at a time, not {' and '.join(entities)}")
    entity = entities[0] if entities else None
    federation = _federation([each for each in words or () if each not in entities], run)
    with operating(federation, everything=entity is not None) as operator:
        decided = paused(operator, entity, rests=rests)
        told = {
            "schema": SCHEMA,
            "run": operator.names.run,
            "entity": entity,
            "rests": rests,
            "decision": decided.number if decided else None,
        }
    answer(told, as_json, lambda out: _rested(out, told))


def _rested(out: Console, told: dict[str, Any]) -> None:
    who = told["entity"] or told["run"]
    state = "is paused" if told["rests"] else "goes on"
    done = "" if told["decision"] is None else f", by decision {told['decision']}"
    out.print(f"{who} {state}{done or ', as before'}", soft_wrap=True)
    other = "unpause" if told["rests"] else "show"
    words = [told["entity"]] if told["entity"] and told["rests"] else []
    next_step(out, command(other, told["run"], *words))


def history(
    run: Run = None,
    option: AsOption = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, metavar="N", help="Only so many, the newest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the decisions of a federation or of a run: when, by whom, and what.

    Each stands in a line, where its number is its name: `rounds` is the aggregator's and the
    operators', `teachers` the proxy's, and each entity's is its twin's. Under `forgotten` stands
    what sites were asked to forget.

    \b
    Examples:
      fedtwin history first --last 20
      fedtwin history runs/smoke-fedka-2021 --json | jq '.decisions[-1]'
    """
    from experiments.history import history as decided

    named = meant(run, option)
    with log_at(named, site=False) as (transport, names):
        entries = decided(transport, names)
    shown = entries if last is None else entries[-last:]
    told = {
        "schema": SCHEMA,
        "run": names.run,
        "decisions": [asdict(each) for each in shown],
        "of": len(entries),
    }
    answer(told, as_json, lambda out: _listed(out, told, named))


def _listed(out: Console, told: dict[str, Any], named: Path) -> None:
    table(
        out,
        ("line", ">number", "when", "by", "what"),
        (
            (each["line"], str(each["number"]), moment(each["at"]), each["by"], each["what"])
            for each in told["decisions"]
        ),
    )
    if len(told["decisions"]) < told["of"]:
        out.print(f"the newest {len(told['decisions'])} of {told['of']}")
    next_step(out, command("show", named))


def _federation(words: list[str], option: Path | None) -> str:
    """The federation that was named: before anything else, by --run, or by FEDTWIN_RUN."""
    if len(words) > 1:
        raise ConfigurationError(
            f"one federation at a time, not {' and '.join(words)};"
            " an entity is named with its site, as in north/ward"
        )
    return name_of(meant(Path(words[0]) if words else None, option))


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
            ("held out*", accuracy(told)),
            ("dead letters", str(told["dead_letters"])),
            ("model", f"version {told['model_version']}, sha256 {told['model_sha256']}"),
        ],
    )
    out.print()
    table(
        out,
        ("entity", ">classes", ">images judged", ">forgotten*", "state"),
        (
            (
                each["entity"],
                str(len(each["classes"])),
                str(each["judged_images"]),
                str(each["forgotten_images"]),
                "paused" if each["paused"] else "here" if each["here"] else "has left",
            )
            for each in told["entities"]
        ),
    )
    out.print()
    table(
        out,
        (">version", "from", ">held out at the sites*", ">images*", ">entities*", "lost*"),
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
    out.print(
        "\n* as it is told in metrics, where every account of the federation may write: unverified",
        soft_wrap=True,
    )
    back = command("rollback", told["run"], "VERSION")
    next_step(out, f"{back} where one was better")


def accuracy(told: dict[str, Any]) -> str:
    """The accuracy of the newest version that was scored, and what it rests on."""
    if told["held_out_version"] is None:
        return "nobody has scored a model yet"
    return (
        f"{percent(told['held_out_accuracy'])} of {counted(told['held_out_images'], 'image')} held"
        f" out at the sites, version {told['held_out_version']}"
    )


def add_to(app: typer.Typer) -> None:
    """The commands of this module; `show` is where it also shows a run's folder."""
    app.command()(pause)
    app.command()(unpause)
    app.command()(rollback)
    app.command()(history)
