"""demo, run and resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import tables
from experiments.cli.logs import by_name, meant
from experiments.cli.words import (
    BEGUN,
    AsJson,
    DataDir,
    InSync,
    Quiet,
    Replication,
    Run,
    Workers,
    anew,
    answer,
    command,
    console,
    data_dir,
    next_step,
    overrides,
)
from experiments.numbers import counted, roughly, size
from schemas.errors import ConfigurationError, DataError, Diverged

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.estimate import Estimate
    from experiments.processes import Asked, Wanted
    from experiments.system import Watch

RECIPES = (
    "demo, smoke, tiny, cifar100-small, bench, cifar100, organamnist, organcmnist or organsmnist."
)
EMBEDDED = "embedded"
TRANSPORTS = (EMBEDDED, "kafka")
LOCAL_KEYS = ("workers", "report_prototypes", "evaluate_on")
"""Keys that -o takes and that change no model."""

Strategy = Annotated[
    str | None,
    typer.Option("--strategy", metavar="NAME", help="The method; `fedtwin methods` lists them."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Decides everything that is drawn.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="cpu, cuda or mps: where twins train. Only cpu promises the same bytes again.",
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="KEY=VALUE", help="Change a key of the recipe; repeat for more."),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="The run's folder. Otherwise runs/RECIPE-STRATEGY-SEED; with -o dataset=OTHER,"
        " runs/RECIPE-OTHER-STRATEGY-SEED.",
    ),
]


def demo(
    ctx: typer.Context,
    strategy: Strategy = None,
    seed: Seed = None,
    device: Device = None,
    override: Override = None,
    run_dir: RunDir = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a small federation in about a minute, to its report.

    Twins learn handwritten digits, five classes and then five more. It needs no network and no
    service, and begins anew each time; only a demo's own folder is replaced.

    \b
    Examples:
      fedtwin demo
      fedtwin demo --strategy fedavg     # the same without anything against forgetting
      fedtwin demo --seed 7 --json
    """
    keys = _keys(override, strategy=strategy, seed=seed, device=device)
    machine = {"data_dir": data_dir(None), "workers": workers}
    _start(ctx, "demo", None, keys, machine, run_dir, fresh=None, quiet=quiet, as_json=as_json)


def run(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=f"One of {RECIPES}")],
    strategy: Strategy = None,
    seed: Seed = None,
    device: Device = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Keys of literal, lineage_compat or smoke on"
            " top; paper is every key's default and changes nothing.",
        ),
    ] = None,
    override: Override = None,
    run_dir: RunDir = None,
    data: DataDir = None,
    workers: Workers = None,
    transport: Annotated[
        str,
        typer.Option(
            "--transport",
            metavar="NAME",
            help="embedded: all in this process; kafka: each role a process of its own.",
        ),
    ] = EMBEDDED,
    twins: Annotated[
        int,
        typer.Option(
            "--twins", min=1, metavar="N", help="Over Kafka: processes that share the twins."
        ),
    ] = 1,
    aggregators: Annotated[
        int,
        typer.Option(
            "--aggregators", min=1, metavar="N", help="Over Kafka: one, and its standbys."
        ),
    ] = 1,
    proxies: Annotated[
        int,
        typer.Option("--proxies", min=1, metavar="N", help="Over Kafka: one, and its standbys."),
    ] = 1,
    compression: Annotated[
        str | None,
        typer.Option(
            "--compression", metavar="NAME", help="Over Kafka: gzip or zstd, of what is written."
        ),
    ] = None,
    replication: Replication = None,
    min_insync: InSync = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Replace the run that the folder holds.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from its first image to its report.

    The estimate comes first. What was written is never lost: a run that was interrupted or killed
    goes on with `fedtwin resume`, to the same model.

    \b
    Examples:
      fedtwin run smoke
      fedtwin run smoke --strategy fedavg --seed 7
      fedtwin run smoke -o stages=1 -o "classes_per_stage=[5]"
      fedtwin run cifar100-small --data-dir ~/data -o rounds_per_stage=3
      fedtwin run smoke -o dataset=npz:cells.npz -o image_size=28 -o classes_per_stage=4
      make up && fedtwin run smoke --transport kafka --twins 2 --aggregators 2
    """
    keys = _keys(override, strategy=strategy, seed=seed, device=device)
    machine = {"data_dir": data_dir(data), "workers": workers}
    wanted = _wanted(transport, twins, aggregators, proxies)
    asked = _asked(transport, compression, replication, min_insync)
    _start(
        ctx, recipe, preset, keys, machine, run_dir,
        fresh=fresh, quiet=quiet, as_json=as_json, wanted=wanted, asked=asked,
    )  # fmt: skip


def resume(
    ctx: typer.Context,
    run: Run = None,
    data: DataDir = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, killed, or injected into.

    The data are looked for where the run found them, unless --data-dir names another folder. A
    run that is done is left as it is.

    \b
    Examples:
      fedtwin resume runs/smoke-fedka-2021
      fedtwin resume runs/cifar100-fedka-2021 --workers 8
    """
    from experiments import api
    from experiments.summary import glance

    run = meant(run)
    if by_name(run):
        raise DataError(
            f"no folder of a run {run} is here: a run over Kafka goes on where its runner's folder"
            " is, and a live federation when its programs are started again"
        )
    folder = data_dir(data) if data else None
    was_done = glance(run)["status"] == "done"
    ctx.meta[BEGUN] = run
    with _going_on(run), _watched(quiet or was_done) as (watch, _):
        told = api.resume(run, data_dir=folder, workers=workers, watch=watch)
    answer(told, as_json, lambda out: _ended(out, told, was_done=was_done))


def _start(
    ctx: typer.Context,
    recipe: str,
    preset: str | None,
    keys: dict[str, Any],
    machine: dict[str, Any],
    run_dir: Path | None,
    *,
    fresh: bool | None,
    quiet: bool,
    as_json: bool,
    wanted: Wanted | None = None,
    asked: Asked | None = None,
) -> None:
    """Begin a run and see it through. `fresh` of None replaces a demo, and nothing else; `wanted`
    are the processes of a run over Kafka, `asked` is what it asks of the cluster."""
    from experiments import api, runner
    from experiments.recipes import recipe as configured
    from experiments.summary import summary

    machine = {
        **{key: keys.pop(key) for key in LOCAL_KEYS if key in keys},
        **{key: value for key, value in machine.items() if value is not None},
    }
    configuration = configured(recipe, preset, keys)
    local = api.local_of(configuration, **machine)
    folder = run_dir or api.default_folder(configuration)
    fresh = _is_a_demo(folder) if fresh is None else fresh
    with _going_on(folder), _watched(quiet) as (watch, notes):

        def announce(estimate: Estimate) -> None:
            ctx.meta[BEGUN] = folder
            if not quiet:
                _announce(notes, folder, estimate, local.workers, wanted)

        more: dict[str, Any] = {"fresh": fresh, "watch": watch, "announce": announce}
        if wanted is None:
            runner.start(configuration, folder, local, **more)
        else:
            from experiments import distributed
            from experiments.processes import Asked

            local = replace(local, tell=lambda text: notes.print(f"note: {text}", soft_wrap=True))
            federation = distributed.Federation.found(wanted, asked or Asked())
            distributed.start(configuration, folder, local, federation, **more)
    told = summary(folder)
    answer(told, as_json, lambda out: _ended(out, told))


def _is_a_demo(folder: Path) -> bool:
    """Whether a demo's run is to be replaced. Raises ConfigurationError for any other run."""
    from experiments.folder import RunFolder

    if not RunFolder(folder).exists:
        return False
    recipe = RunFolder(folder).configuration().recipe
    if recipe != "demo":
        raise ConfigurationError(
            f"{folder} holds a run of {recipe}, and a demo begins anew only in place of a demo:"
            f" `fedtwin resume {folder}` goes on with that run, --run-dir takes another folder"
        )
    return True


def _wanted(transport: str, twins: int, aggregators: int, proxies: int) -> Wanted | None:
    """The processes of a run over Kafka; None for one in this process."""
    from experiments.processes import Wanted

    if transport not in TRANSPORTS:
        raise ConfigurationError(f"--transport is {' or '.join(TRANSPORTS)}, not {transport!r}")
    wanted = Wanted(twins, aggregators, proxies)
    if transport != EMBEDDED:
        return wanted
    if wanted != Wanted():
        raise ConfigurationError("--twins, --aggregators and --proxies need --transport kafka")
    return None


def _asked(
    transport: str, compression: str | None, replication: int | None, min_insync: int | None
) -> Asked:
    """What a run asks of Kafka; one in this process may ask nothing."""
    from experiments.processes import Asked

    asked = Asked(compression, replication, min_insync)
    if transport == EMBEDDED and asked != Asked():
        raise ConfigurationError(
            "--compression, --replication and --min-insync need --transport kafka"
        )
    return asked


def _keys(override: list[str] | None, **named: Any) -> dict[str, Any]:
    """Keys of the recipe that were given, an option of its own before -o."""
    return overrides(override or ()) | {k: value for k, value in named.items() if value is not None}


@contextmanager
def _watched(quiet: bool) -> Iterator[tuple[Watch, Console]]:
    """The runner's watch, and where notes go."""
    from experiments.progress import shown

    notes = console(stderr=True)
    with shown(notes, quiet=quiet) as watch:
        yield watch, notes


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Whatever ends a run, say how to go on with it."""
    try:
        yield
    except Diverged as ended:
        ended.add_note(f"next: {anew(folder)}")
        raise
    except (ConfigurationError, DataError):
        raise  # their text says what to do
    except (Exception, KeyboardInterrupt) as ended:
        if _is_begun(folder):
            ended.add_note(f"next: {command('resume', folder)}")
        raise


def _is_begun(folder: Path) -> bool:
    from experiments.folder import RunFolder

    return RunFolder(folder).exists and RunFolder(folder).read_manifest()["state"] != "done"


def _announce(
    notes: Console, folder: Path, estimate: Estimate, workers: int, wanted: Wanted | None
) -> None:
    """What the run will take, before it begins. Nobody knows how far a broker is away, so of a run
    over Kafka the time is that of one process, and said to be."""
    seconds, busy = roughly(estimate.seconds(workers)), counted(workers, "worker")
    disk = f"{size(estimate.disk_bytes)} of disk"
    if wanted is None:
        needs = f"about {seconds} with {busy}, {disk}, {size(estimate.memory(workers))} of memory"
    else:
        memory = estimate.memory(wanted.workers(workers), wanted.programs)
        needs = (
            f"more than the {seconds} that one process with {busy} would take, as"
            f" {wanted.programs} programs start and their messages travel; {disk}, most of it the"
            " broker's;"
            f" {size(memory)} of memory"
        )
    training = f"{counted(estimate.images, 'image')} in {counted(estimate.steps, 'step')}"
    notes.print(f"{folder}: {needs}; {training}", soft_wrap=True)


def _ended(out: Console, told: dict[str, Any], *, was_done: bool = False) -> None:
    if was_done:
        out.print(f"nothing to do: {told['run']} is done\n", soft_wrap=True)
    tables.run(out, told)
    next_step(out, f"open {told['report']}, or {command('show', told['run_dir'])}")


def add_to(app: typer.Typer) -> None:
    """The commands of this module."""
    app.command()(demo)
    app.command()(run)
    app.command()(resume)
