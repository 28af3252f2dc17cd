"""Runs a recipe in one process, and goes on with one that was stopped, killed or added to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.estimate import Estimate, check_disk, estimated
from experiments.folder import RunFolder, has_bf16, software
from experiments.measures import Measures, measure
from experiments.metrics import write_metrics
from experiments.report import write_report
from experiments.system import Embedded, embedded, opening_of
from infra.points import Hook, no_hook
from infra.serve import Surroundings
from infra.store.sqlite import SqliteStore
from infra.telemetry import Stopwatch
from infra.workers import Worker, WorkerProcesses, spawned
from learning.strategies.choice import chosen
from producers.datasets import load
from producers.images import Dataset
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError, DataError, RunFailed
from schemas.topics import Names

Watch = Callable[[Embedded], None]
StartWorker = Callable[[], Worker]


@dataclass(frozen=True)
class Local:
    """What belongs to this machine and changes no model."""

    data_dir: Path
    workers: int = 2
    report_prototypes: bool | None = None
    """None shows rebuilt prototypes where the data is public, and only there."""
    hook: Hook = no_hook
    start_worker: StartWorker | None = None
    """How a worker process begins; None starts `python -m experiments.worker`."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    measures: Measures
    model_version: int
    model_sha256: str
    seconds: float


def start(
    configuration: Configuration,
    folder: Path,
    local: Local,
    *,
    fresh: bool = False,
    watch: Watch = lambda run: None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
) -> Outcome:
    """Begin a run in a folder and see it through.

    `fresh` replaces a run that is there. Raises ConfigurationError, DataError, RunFailed.
    """
    _check(configuration)
    dataset = load_data(configuration, local.data_dir)
    run_folder = RunFolder(folder)
    with run_folder.locked():
        if run_folder.exists and not fresh:
            raise ConfigurationError(
                f"{folder} holds a run already: `fedtwin resume {folder}` goes on with it, --fresh"
                " replaces it, --run-dir takes another folder"
            )
        run_folder.remove_files()
        estimate = estimated(configuration, _opening(configuration, dataset), dataset)
        check_disk(folder, estimate)
        announce(estimate)
        run_folder.write_manifest(
            {
                "run": f"{configuration.recipe}-{configuration.strategy}-{configuration.seed}",
                "configuration": configuration.model_dump(mode="json"),
                "data_dir": str(local.data_dir),
                "data": {"name": dataset.name, "sha256": dataset.sha256,
                         "version": dataset.version, "licence": dataset.licence},
                "software": software(),
                "threads": configuration.threads,
                "state": "begun",
            }
        )  # fmt: skip
        return _run(run_folder, configuration, dataset, local, watch)


def resume(folder: Path, local: Local, *, watch: Watch = lambda run: None) -> Outcome:
    """Go on with a run from its log, or say what it came to when it is over.

    Raises what `start` raises, and DataError when the data are not those that it began with.
    """
    run_folder = RunFolder(folder)
    manifest = run_folder.read_manifest()
    configuration = run_folder.configuration()
    _check(configuration)
    dataset = load_data(configuration, local.data_dir)
    if dataset.sha256 != manifest["data"]["sha256"]:
        raise DataError(
            f"the run began with {dataset.name} {manifest['data']['sha256'][:12]}, in"
            f" {local.data_dir} lies {dataset.sha256[:12]}: give the data that it began with"
        )
    with run_folder.locked():
        return _run(run_folder, configuration, dataset, local, watch)


def load_data(configuration: Configuration, data_dir: Path) -> Dataset:
    """The data set that a configuration names, at its size. Raises DataError."""
    return load(
        configuration.dataset,
        data_dir,
        image_size=configuration.image_size,
        organ_hflip=configuration.organ_hflip,
    )


def _run(
    folder: RunFolder, configuration: Configuration, dataset: Dataset, local: Local, watch: Watch
) -> Outcome:
    began = time.perf_counter()
    stopwatch = Stopwatch()
    spawn = local.start_worker or spawned("experiments.worker", configuration.threads)
    log = folder.opened()
    workers = WorkerProcesses(spawn, local.workers)
    store = SqliteStore(folder.log)
    try:
        run = embedded(
            _opening(configuration, dataset),
            dataset,
            log,
            store,
            workers,
            run=folder.names().run,
            around=lambda same: _with(same, stopwatch, local.hook),
        )
        run.system.run(lambda: watch(run))
        seconds = time.perf_counter() - began
        with stopwatch("report"):
            return _finish(folder, run, dataset, local, stopwatch, seconds)
    except RunFailed as failure:
        folder.write_manifest({**folder.read_manifest(), "state": "failed", "why": str(failure)})
        raise
    finally:
        workers.close()
        store.close()
        log.close()


def _with(around: Surroundings, stopwatch: Stopwatch, hook: Hook) -> Surroundings:
    return replace(around, stopwatch=stopwatch, hook=hook)


def _finish(
    folder: RunFolder,
    run: Embedded,
    dataset: Dataset,
    local: Local,
    stopwatch: Stopwatch,
    seconds: float,
) -> Outcome:
    """Write down what the run came to."""
    line = run.observer.line
    assert line.model is not None
    assert line.opened is not None
    measures = measure(run.observer, stopwatch.seconds, seconds)
    folder.write_model(line.model, run.shelf.model(line.model), registry(run))
    manifest = folder.read_manifest()
    manifest["seconds"] = {**manifest.get("seconds", {}), **_rounded(stopwatch), "wall": seconds}
    manifest |= {
        "state": "done",
        "schedule_sha256": _sha256(line.opened.schedule.model_dump_json()),
        "configuration_sha256": _sha256(line.opened.configuration.model_dump_json()),
        "run_hash": line.run,
        "model_version": line.model.version,
        "model_sha256": line.model.sha256,
    }
    manifest.pop("why", None)
    folder.write_manifest(manifest)
    write_metrics(folder.path, measures)
    show = dataset.public if local.report_prototypes is None else local.report_prototypes
    write_report(folder.path, measures, manifest, run.proxy.prototypes() if show else None)
    return Outcome(folder.path, measures, line.model.version, line.model.sha256, seconds)


def registry(run: Embedded) -> dict[str, str]:
    """What whoever uses the model has to know: its classes, its images, and what is new to it."""
    line = run.observer.line
    assert line.opened is not None
    uids = sorted(line.rows, key=lambda uid: line.rows[uid])
    verdicts = [
        verdict
        for each in run.observer.verdicts.of.values()
        for stage, verdict in each.verdicts.items()
        if stage == len(line.stages) - 1 and not verdict.first_contact
    ]
    references = [v.reference for v in verdicts if v.reference is not None]
    reference = sum(references) / len(references) if references else 0.0
    threshold = max((v.threshold for v in verdicts), default=0.0)
    import json

    return {
        "classes": json.dumps(uids),
        "data": line.opened.data.model_dump_json(),
        "width": str(line.opened.configuration.width),
        "reference_entropy": repr(reference),
        "entropy_threshold": repr(threshold),
    }


def _opening(configuration: Configuration, dataset: Dataset) -> Any:
    try:
        return opening_of(configuration, dataset)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _check(configuration: Configuration) -> None:
    """What the configuration alone cannot know."""
    try:
        chosen(configuration.strategy, configuration.switches, configuration.teacher)
        Names(f"{configuration.recipe}-{configuration.strategy}-{configuration.seed}")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if configuration.precision == "bf16" and not has_bf16():
        raise ConfigurationError(
            "precision=bf16 needs a processor with bf16 instructions, which this one lacks:"
            " take precision=fp32"
        )


def _rounded(stopwatch: Stopwatch) -> dict[str, float]:
    return {phase: round(seconds, 3) for phase, seconds in stopwatch.seconds.items()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
