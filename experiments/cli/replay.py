"""replay: fold a run's log again, and compare."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.logs import log_at, meant
from experiments.cli.words import SCHEMA, AsJson, Run, Workers, answer, command, facts, next_step
from schemas.errors import RunFailed

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.replay import Replay, Replayed


def replay(
    run: Run = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also repeat every training (keep_samples=true).")
    ] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make a run's decisions and sums anew from its log, and compare every model's hash.

    Sums are redone where the updates were kept: -o keep_rounds=all. A run over Kafka, and a live
    federation, is replayed from its topics. Exit code 1 where anything comes out otherwise.

    \b
    Examples:
      fedtwin replay runs/smoke-fedka-2021
      fedtwin replay spring
      fedtwin run tiny -o keep_rounds=all -o keep_samples=true
      fedtwin replay runs/tiny-fedka-2021 --retrain --json
    """
    from experiments.replay import Replay

    run = meant(run)
    with log_at(run) as (transport, names):
        folded = Replay(transport, names)
        found = folded.fold()
        if retrain:
            _retrain(folded, found, workers)
    told = {"schema": SCHEMA, **asdict(found), "equal": not found.different, "run_dir": str(run)}
    answer(told, as_json, lambda out: _shown(out, told))
    if found.different:
        raise RunFailed(f"the log comes to other bytes: {found.different[0]}")


def _retrain(folded: Replay, found: Replayed, workers: int | None) -> None:
    from experiments.api import cores
    from infra.forkserver import ForkServer
    from infra.workers import WorkerProcesses

    configuration = folded.opened.configuration
    count = workers or min(cores(), configuration.clients_per_round)
    start = ForkServer("experiments.worker", configuration.threads)
    with closing(WorkerProcesses(start, count)) as processes:
        folded.retrain(processes, found)


def _shown(out: Console, told: dict[str, Any]) -> None:
    facts(
        out,
        [
            ("run", told["run"]),
            ("decisions", f"{told['decisions']} made anew, {told['beaten']} came behind another of"
                          f" their number, {told['refused']} fit nowhere"),
            ("models", f"{told['versions']}: {told['grown']} grown anew, {told['summed']} averaged"
                       f" anew, {told['rolled_back']} gone back to, {told['read']} only read,"
                       f" {told['gone']} let go"),
            ("trainings", f"{told['trained']} repeated"),
            ("model", f"sha256 {told['model_sha256']}"),
            ("result", "equal" if told["equal"] else "; ".join(told["different"][:5])),
        ],
    )  # fmt: skip
    next_step(out, f"{command('show', told['run_dir'])}")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(replay)
