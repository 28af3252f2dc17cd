"""Runs a recipe in one process, and goes on with one that was stopped, killed or added to."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aggregator.aggregator import Opening
from experiments.estimate import Estimate, check_disk, estimated
from experiments.folder import RunFolder, has_bf16, is_done, software
from experiments.gallery import Gallery
from experiments.measures import Measures, measure
from experiments.metrics import Metrics
from experiments.observer import Observer
from experiments.recipes import run_name
from experiments.registry import registry as of_model
from experiments.report import write_report
from experiments.system import WRITING, Embedded, Watched, embedded, opening_of
from infra.forkserver import ForkServer
from infra.points import Hook, no_hook
from infra.store.sqlite import SqliteStore
from infra.telemetry import Stopwatch
from infra.workers import Start, WorkerProcesses
from learning.devices import CPU, missing
from learning.strategies.choice import chosen
from producers.datasets import HELD_OUT_OF_CIFAR100, load, placed
from producers.images import Dataset
from schemas.configuration import LARGEST, Configuration
from schemas.errors import ConfigurationError, DataError, Diverged, FedtwinError
from schemas.topics import Names

Watch = Callable[[Embedded], None]
TEST, VALIDATION = "test", "validation"
PARTS = (TEST, VALIDATION)
"""Of a data set, those on which models may be scored."""
KEPT_EVERY = 5.0  # seconds of a session that a kill may lose


@dataclass(frozen=True)
class Local:
    """What belongs to this machine and changes no model."""

    data_dir: Path
    workers: int = 2
    report_prototypes: bool | None = None
    """None shows rebuilt prototypes where the data is public, and only there."""
    evaluate_on: str = TEST
    """Whose images score models: choices are made on `validation`, never on `test` (8)."""
    hook: Hook = no_hook
    tell: Callable[[str], None] = lambda text: None
    """Given a line when something happened that somebody should know, and nothing failed."""
    start_worker: Start | None = None
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

    `fresh` replaces a run that is there; nothing is touched before all else has been found right.
    Raises ConfigurationError, DataError, RunFailed.
    """
    check_machine(configuration)
    place = placed(configuration.dataset, local.data_dir)
    dataset = load_data(configuration, place, local)
    opening = opened_with(configuration, dataset)
    estimate = estimated(configuration, opening, dataset)
    run_folder = RunFolder(folder)
    with run_folder.locked():
        if run_folder.exists and not fresh:
            raise ConfigurationError(
                f"{folder} holds a run already: `fedtwin resume {folder}` goes on with it, --fresh"
                " replaces it, --run-dir takes another folder"
            )
        check_disk(folder, estimate, run_folder.size)
        announce(estimate)
        run_folder.remove_files()
        run_folder.write_manifest(begun_with(configuration, dataset, place, local))
        return _run(run_folder, opening, dataset, local, watch)


def resume(folder: Path, local: Local, *, watch: Watch = lambda run: None) -> Outcome:
    """Go on with a run from its log, or say what it came to when it is over.

    Its data are looked for where it found them, and before that in `local.data_dir` if that is
    another folder than then. Raises what `start` raises, and DataError when the data are not those
    that it began with.
    """
    run_folder = RunFolder(folder)
    manifest = run_folder.read_manifest()
    with run_folder.locked():
        if over := over_already(run_folder):
            return over
        configuration = run_folder.configuration()
        check_machine(configuration)
        place = run_folder.data_name(local.data_dir)
        dataset = load_data(configuration, place, local)
        check_data(place, dataset, manifest)
        data = manifest["data"]
        found = {"data_dir": str(local.data_dir), "data": {**data, "place": place}}
        run_folder.write_manifest(again(manifest) | found)
        return _run(run_folder, opened_with(configuration, dataset), dataset, local, watch)


def again(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that somebody goes on with: however it ended before is over."""
    kept = {key: value for key, value in manifest.items() if key != "why"}
    return {**kept, "state": "begun"}


def check_data(place: str, dataset: Dataset, manifest: Mapping[str, Any]) -> None:
    """Raises DataError when these are not the data that a run began with."""
    if dataset.sha256 != manifest["data"]["sha256"]:
        raise DataError(
            f"{place} has changed: its images and labels have the SHA-256 {dataset.sha256}, the"
            f" run began with {manifest['data']['sha256']}; give the data that it began with, by"
            " --data-dir if they lie elsewhere"
        )


def load_data(configuration: Configuration, place: str, local: Local) -> Dataset:
    """The data set of a configuration, by the name under which it is found.

    Raises DataError for what is missing, and where models are to be scored on validation images
    and there are none; ConfigurationError where a recipe trains on them.
    """
    validated = local.evaluate_on == VALIDATION
    own = validated and configuration.dataset == "cifar100"
    if own and (configuration.images_per_class or LARGEST) > HELD_OUT_OF_CIFAR100[0]:
        raise ConfigurationError(
            f"{configuration.recipe} trains on the images that {VALIDATION} would score: choices"
            f" are made with images_per_class of at most {HELD_OUT_OF_CIFAR100[0]}"
        )
    dataset = load(
        place,
        local.data_dir,
        image_size=configuration.image_size,
        organ_hflip=configuration.organ_hflip,
        hold_out=own,
    )
    if not validated:
        return dataset
    if not len(dataset.validation):
        raise DataError(f"{place} has no validation images: leave evaluate_on at {TEST}")
    return replace(dataset, test=dataset.validation)


def begun_with(
    configuration: Configuration, dataset: Dataset, place: str, local: Local
) -> dict[str, Any]:
    """The manifest of a run that begins."""
    return {
        "run": run_name(configuration),
        "configuration": configuration.model_dump(mode="json"),
        "data_dir": str(local.data_dir),
        "report_prototypes": local.report_prototypes,
        "evaluate_on": local.evaluate_on,
        "data": {
            "name": dataset.name,
            "place": place,
            "sha256": dataset.sha256,
            "version": dataset.version,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "class_names": dict(zip(dataset.class_uids, dataset.class_names, strict=True)),
        },
        "software": software(),
        "threads": configuration.threads,
        "state": "begun",
    }


def over_already(folder: RunFolder) -> Outcome | None:
    """What a run came to that was finished and has had nothing injected since."""
    manifest = folder.read_manifest()
    if manifest["state"] != "done":
        return None
    seen = folder.observed()
    if seen.line.model is None or not is_done(manifest, seen.line):
        return None
    wall = manifest["wall_seconds"]
    measures = measure(seen, manifest["seconds"], wall, manifest["trainings"])
    return Outcome(folder.path, measures, seen.line.model.version, seen.line.model.sha256, wall)


def _run(
    folder: RunFolder, opening: Opening, dataset: Dataset, local: Local, watch: Watch
) -> Outcome:
    spent = Spent(folder.read_manifest())
    gallery = Gallery(folder, shown=_shows(dataset, local))
    metrics = Metrics(folder.path)
    start_worker = local.start_worker or ForkServer(
        "experiments.worker", opening.configuration.threads
    )
    with (
        closing(folder.opened()) as log,
        closing(SqliteStore(folder.log)) as store,
        closing(WorkerProcesses(start_worker, local.workers)) as workers,
    ):
        try:
            run = embedded(
                opening,
                dataset,
                log,
                store,
                workers,
                run=folder.names().run,
                around=lambda same: replace(same, stopwatch=spent.stopwatch, hook=local.hook),
            )

            def after_each_step() -> None:
                gallery.look(run)
                metrics.look(run.observer)
                spent.look(folder)
                watch(run)

            run.system.run(after_each_step)
            run.finishing = WRITING
            watch(run)
            return finish(folder, run, dataset, gallery, metrics, spent, local.hook)
        except (FedtwinError, KeyboardInterrupt) as ended:
            note_ending(folder, ended, spent, metrics)
            raise


def note_ending(folder: RunFolder, ended: BaseException, spent: Spent, metrics: Metrics) -> None:
    """Write down how far a run came that was not seen through."""
    with suppress(FedtwinError):  # a full disk must not hide what happened
        folder.write_manifest({**folder.read_manifest(), **_ending(ended), **spent.so_far()})
        metrics.last()


def _ending(ended: BaseException) -> dict[str, str]:
    """The manifest's state of a run that was not seen through, and why if it was not a person."""
    match ended:
        case Diverged():
            return {"state": "diverged", "why": str(ended)}
        case FedtwinError():
            return {"state": "failed", "why": str(ended)}
        case _:
            return {"state": "stopped"}


def _shows(dataset: Dataset, local: Local) -> bool:
    """Whether the report may show rebuilt prototypes (docs/method.md 6.7)."""
    return dataset.public if local.report_prototypes is None else local.report_prototypes


class Spent:
    """Seconds and trainings of a run, those of earlier sessions included.

    They are written down again and again, so that a session that is killed loses its last seconds
    only.
    """

    def __init__(
        self, manifest: Mapping[str, Any], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`clock` gives seconds since any moment."""
        self.stopwatch = Stopwatch(clock)
        self._before = manifest
        self._clock = clock
        self._began = self._kept = clock()

    def look(self, folder: RunFolder) -> None:
        """Write them into the manifest if it is time to; quick, for it is asked every turn.

        Raises DiskFull, and ConfigurationError where the folder cannot be written to.
        """
        if self._clock() >= self._kept + KEPT_EVERY:
            folder.write_manifest({**folder.read_manifest(), **self.so_far()})
            self._kept = self._clock()

    def so_far(self) -> dict[str, Any]:
        """The manifest's `seconds` by phase, `wall_seconds` and `trainings`."""
        seconds = Counter(self._before.get("seconds", {}))
        seconds.update(self.stopwatch.seconds)
        wall = self._clock() - self._began
        return {
            "seconds": {phase: round(each, 3) for phase, each in sorted(seconds.items())},
            "wall_seconds": round(self._before.get("wall_seconds", 0.0) + wall, 3),
            "trainings": self._before.get("trainings", 0) + self.stopwatch.calls["learn"],
        }


def finish(
    folder: RunFolder,
    run: Watched,
    dataset: Dataset,
    gallery: Gallery,
    metrics: Metrics,
    spent: Spent,
    hook: Hook,
) -> Outcome:
    """Write down what the run came to; the manifest last, for it says that the rest is there."""
    line = run.observer.line
    assert line.model is not None
    assert line.opened is not None
    hook("finish:model")
    folder.write_model(line.model, run.shelf.model(line.model), registry(run.observer, dataset))
    past = spent.so_far()
    measures = measure(run.observer, past["seconds"], past["wall_seconds"], past["trainings"])
    manifest = folder.read_manifest() | past
    manifest |= {
        "schedule_sha256": _sha256(line.opened.schedule.model_dump_json()),
        "configuration_sha256": _sha256(line.opened.configuration.model_dump_json()),
        "run_hash": line.run,
        "model_version": line.model.version,
        "model_sha256": line.model.sha256,
        "state": "done",
    }
    hook("finish:metrics")
    metrics.write(measures)
    hook("finish:report")
    write_report(folder.path, measures, manifest, gallery.prototypes)
    hook("finish:manifest")
    folder.write_manifest(manifest)
    wall = past["wall_seconds"]
    return Outcome(folder.path, measures, line.model.version, line.model.sha256, wall)


def registry(observer: Observer, dataset: Dataset) -> dict[str, str]:
    """What whoever uses the model has to know: classes, images, family, and what is new to it."""
    return of_model(
        observer.line,
        observer.verdicts,
        dict(zip(dataset.class_uids, dataset.class_names, strict=True)),
        licence=dataset.licence,
        citation=dataset.citation,
    )


def opened_with(configuration: Configuration, dataset: Dataset) -> Opening:
    """What a run of these is opened with. Raises ConfigurationError for data too small."""
    try:
        return opening_of(configuration, dataset)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def check_machine(configuration: Configuration) -> None:
    """What the configuration alone cannot know."""
    try:
        chosen(configuration.strategy, configuration.switches, configuration.teacher)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    Names(run_name(configuration))
    if reason := missing(configuration.device):
        raise ConfigurationError(reason)
    if configuration.precision == "bf16" and configuration.device == CPU and not has_bf16():
        raise ConfigurationError(
            "precision=bf16 needs a processor with bf16 instructions, which this one lacks:"
            " take precision=fp32"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
