"""The same as the command line, from Python: `run`, `resume` and `show` return what --json prints.

from experiments.api import run

told = run("smoke", seed=2022, rounds_per_stage=3)
print(told["average_accuracy"], told["model_sha256"])
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import runner
from experiments.estimate import Estimate
from experiments.folder import RunFolder
from experiments.recipes import recipe as configured
from experiments.recipes import run_name
from experiments.runner import PARTS, TEST, Local
from experiments.summary import Json, details, summary
from experiments.system import Watch
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError

DATA_DIR = Path("~/.cache/fedtwin")
"""Where data sets are looked for unless somebody names another folder."""
RUNS = Path("runs")


def run(
    recipe: str,
    *,
    preset: str | None = None,
    run_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    report_prototypes: bool | None = None,
    evaluate_on: str = TEST,
    fresh: bool = False,
    watch: Watch = lambda run: None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
    **overrides: Any,
) -> Json:
    """Run a recipe to its end, and return its summary.

    `overrides` are keys of the configuration (`**{"perturb.steps": 10}` for a nested one). The run
    goes into `run_dir` (`runs/RECIPE-STRATEGY-SEED`, behind RECIPE the data set where that is not
    the recipe's own), which must hold none unless `fresh`. So many
    trainings as `workers` go on side by side; any number gives the same model. Models are scored
    on the data set's test images, or with `evaluate_on="validation"` on those that choices are made
    on. Raises
    ConfigurationError, DataError and RunFailed, all of them FedtwinError.
    """
    configuration = configured(recipe, preset, overrides)
    folder = Path(run_dir) if run_dir else default_folder(configuration)
    local = local_of(configuration, data_dir, workers, report_prototypes, evaluate_on)
    runner.start(configuration, folder, local, fresh=fresh, watch=watch, announce=announce)
    return summary(folder)


def resume(
    run_dir: Path | str,
    *,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    watch: Watch = lambda run: None,
) -> Json:
    """Go on with a run that was stopped, killed or injected into, and return its summary.

    A run that is over already is left as it is. The data are looked for where the run found them,
    unless `data_dir` says otherwise. Raises what `run` raises.
    """
    folder = RunFolder(Path(run_dir))
    manifest = folder.read_manifest()
    if not folder.running and runner.over_already(folder):
        return summary(folder.path)  # also where neither its data nor its services are any more
    local = local_of(
        folder.configuration(),
        data_dir or manifest["data_dir"],
        workers,
        manifest.get("report_prototypes"),
        manifest.get("evaluate_on", TEST),
    )
    if manifest.get("transport") == "kafka":
        from experiments import distributed
        from experiments.processes import Asked, Wanted

        asked = Asked(**manifest.get("kafka", {}))
        federation = distributed.Federation.found(Wanted(**manifest["processes"]), asked)
        distributed.resume(folder.path, local, federation, watch=watch)
    else:
        runner.resume(folder.path, local, watch=watch)
    return summary(folder.path)


def show(run_dir: Path | str) -> Json:
    """The summary of a run, and where it stands; also while it goes on. Raises DataError."""
    return details(Path(run_dir))


def default_folder(configuration: Configuration) -> Path:
    """Where a run goes unless somebody names another folder."""
    return RUNS / run_name(configuration)


def local_of(
    configuration: Configuration,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    report_prototypes: bool | None = None,
    evaluate_on: str = TEST,
) -> Local:
    """This machine's part; as many workers as there are cores, and no more than a round can use.

    Raises ConfigurationError for less than one worker.
    """
    if workers is not None and not (isinstance(workers, int) and workers >= 1):
        raise ConfigurationError(f"workers is a number from 1 on, not {workers!r}")
    if report_prototypes not in (None, True, False):
        raise ConfigurationError(f"report_prototypes is true or false, not {report_prototypes!r}")
    if evaluate_on not in PARTS:
        raise ConfigurationError(f"evaluate_on is {' or '.join(PARTS)}, not {evaluate_on!r}")
    most = min(cores(), configuration.clients_per_round)
    return Local(
        Path(data_dir or DATA_DIR).expanduser().absolute(),
        workers=most if workers is None else workers,
        report_prototypes=report_prototypes,
        evaluate_on=evaluate_on,
    )


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
