"""A run over Kafka and Redis: each role is a process of its own; this one watches and reports.

The same recipe and seed end in the same model as in one process, byte for byte, however many
processes there are and whichever of them dies on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aggregator.aggregator import Opening
from aggregator.opening import write_opening
from experiments import runner
from experiments.estimate import Estimate, check_disk, estimated
from experiments.folder import LOGS, OPENING, RunFolder
from experiments.gallery import Gallery
from experiments.metrics import Metrics
from experiments.numbers import counted
from experiments.observer import Observer
from experiments.processes import Asked, Processes, Wanted
from experiments.recorded import Recorded
from experiments.runner import Local, Outcome
from experiments.system import SITE, WRITING, Watch, Watched
from infra.forkserver import ForkServer
from infra.program import serve, surroundings
from infra.serve import System
from infra.settings import Service, Settings, read_settings
from infra.slots import Shared, Slots
from infra.store.redis import RedisStore
from infra.topics import Administration, Cluster, plan
from infra.transport.clusters import connect, kafka_settings
from infra.workers import WorkerProcesses
from producers.datasets import placed
from producers.images import Dataset
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError, FedtwinError
from schemas.topics import Names

GONE = 30.0  # seconds in which topics that were taken away are gone


@dataclass(frozen=True)
class Federation:
    """What a run over Kafka needs besides a recipe and a folder."""

    settings: Settings
    wanted: Wanted
    asked: Asked

    @classmethod
    def found(cls, wanted: Wanted, asked: Asked) -> Federation:
        """With the services that the environment or `make up` names.

        Raises ServiceError, and ConfigurationError for what cannot be asked of Kafka.
        """
        settings = read_settings()
        kafka_settings(settings.kafka, **asdict(asked))
        _ = settings.site_kafka, settings.redis  # each says when it is missing
        return cls(settings, wanted, asked)


def start(
    configuration: Configuration,
    folder: Path,
    local: Local,
    federation: Federation,
    *,
    fresh: bool = False,
    watch: Watch = lambda run: None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
) -> Outcome:
    """Begin a run over Kafka and see it through. Raises what `runner.start` does, and ServiceError.

    The run's topics are made here; `fresh` takes away those of the run that the folder held, and no
    others of the same name.
    """
    runner.check_machine(configuration)
    place = placed(configuration.dataset, local.data_dir)
    dataset = runner.load_data(configuration, place, local)
    opening = runner.opened_with(configuration, dataset)
    estimate = estimated(configuration, opening, dataset)
    run_folder = RunFolder(folder)
    with run_folder.locked():
        if run_folder.exists and not fresh:
            raise ConfigurationError(
                f"{folder} holds a run already: `fedtwin resume {folder}` goes on with it, --fresh"
                " replaces it, --run-dir takes another folder"
            )
        manifest = runner.begun_with(configuration, dataset, place, local)
        manifest |= {"transport": "kafka", "processes": asdict(federation.wanted)}
        manifest |= {"kafka": asdict(federation.asked)}
        names = Names(str(manifest["run"]))
        check_disk(folder, estimate, run_folder.size)
        ours = fresh and _is_of(run_folder, names)
        _prepare(federation, names, opening, fresh=ours)
        announce(estimate)
        run_folder.remove_files()
        run_folder.write_manifest(manifest)
        return _run(run_folder, opening, dataset, local, federation, watch)


def resume(
    folder: Path, local: Local, federation: Federation, *, watch: Watch = lambda run: None
) -> Outcome:
    """Go on with a run from its topics. Raises what `start` raises."""
    run_folder = RunFolder(folder)
    manifest = run_folder.read_manifest()
    with run_folder.locked():
        if over := runner.over_already(run_folder):
            return over
        configuration = run_folder.configuration()
        runner.check_machine(configuration)
        place = run_folder.data_name(local.data_dir)
        dataset = runner.load_data(configuration, place, local)
        runner.check_data(place, dataset, manifest)
        opening = runner.opened_with(configuration, dataset)
        run_folder.write_manifest(runner.again(manifest))
        return _run(run_folder, opening, dataset, local, federation, watch)


def _is_of(folder: RunFolder, names: Names) -> bool:
    """Whether a folder holds a run over Kafka of this name, whose topics are so its own."""
    if not folder.exists:
        return False
    manifest = folder.read_manifest()
    return manifest.get("transport") == "kafka" and manifest["run"] == names.run


def _prepare(federation: Federation, names: Names, opening: Opening, *, fresh: bool) -> None:
    """Make the run's topics, in both clusters. Raises ConfigurationError where there are some."""
    settings = federation.settings
    if fresh:
        with closing(RedisStore(settings.redis, names.run, prefix=names.prefix)) as store:
            for model in store.list():
                store.forget(model)
    clusters: tuple[tuple[Cluster, Service], ...] = (
        ("federation", settings.kafka),
        ("site", settings.site_kafka),
    )
    for cluster, service in clusters:
        kafka = kafka_settings(service, **asdict(federation.asked))
        with closing(Administration(kafka)) as administration:
            if cluster == "federation" or settings.site_kafka != settings.kafka:
                _make_way(administration, names, service.address, fresh=fresh)
            administration.apply(plan(names, cluster, [SITE], opening.schedule.entities, kafka))


def _make_way(administration: Administration, names: Names, address: str, *, fresh: bool) -> None:
    there = administration.ls(names)
    if there and not fresh:
        raise ConfigurationError(
            f"Kafka at {address} holds {counted(len(there), 'topic')} of a run {names.run} that"
            " this folder did not begin: take another --seed, or go on where it lies; if nobody"
            f" needs it, `fedtwin topics rm {names.run}`"
        )
    until = time.monotonic() + GONE
    while administration.rm(names) and time.monotonic() < until:
        time.sleep(0.2)


def _run(
    folder: RunFolder,
    opening: Opening,
    dataset: Dataset,
    local: Local,
    federation: Federation,
    watch: Watch,
) -> Outcome:
    """Watch until the run is over and every model was scored; then write down what it came to."""
    spent, names = runner.Spent(folder.read_manifest()), folder.names()
    configuration, observer = opening.configuration, Observer(names, SITE, dataset)
    gallery, metrics = Gallery(folder, shown=False), Metrics(folder.path)
    start_worker = local.start_worker or ForkServer("experiments.worker", configuration.threads)
    with (
        closing(
            connect(
                federation.settings,
                site=True,
                hook=local.hook,
                compression=federation.asked.compression,
            )
        ) as transport,
        closing(folder.opened()) as log,
        closing(Shared(WorkerProcesses(start_worker, 1), Slots(local.workers))) as workers,
        _programs(folder, names, opening, local, federation) as programs,
    ):
        around = surroundings(configuration, opening.data, Recorded(transport, log), names)

        def each_turn(system: System) -> None:
            programs.look()
            metrics.look(observer)
            spent.look(folder)
            watch(Watched(system, observer, around.shelf))

        try:
            system = serve(
                observer,
                around,
                workers,
                names,
                process="runner",
                patience=configuration.patience,
                each_turn=each_turn,
            )
            programs.settle()
            watched = Watched(system, observer, around.shelf)
            watched.finishing = WRITING
            watch(watched)
            return runner.finish(folder, watched, dataset, gallery, metrics, spent, local.hook)
        except (FedtwinError, KeyboardInterrupt) as ended:
            runner.note_ending(folder, ended, spent, metrics)
            raise


@contextmanager
def _programs(
    folder: RunFolder, names: Names, opening: Opening, local: Local, federation: Federation
) -> Iterator[Processes]:
    """Every role's processes, which end with this context."""
    file = folder.path / OPENING
    write_opening(opening, file)
    compression = federation.asked.compression
    always = ("--compression", compression) if compression else ()
    programs = Processes(folder.path / LOGS, names.run, local.tell, always)
    place = folder.data_name(local.data_dir)
    data = ("--data-dir", str(local.data_dir), "--dataset", place)
    workers = ("--workers", str(local.workers))
    wanted = federation.wanted
    try:
        for number in range(wanted.aggregators):
            standby = ("--standby",) if number else ()
            name = f"aggregator-{number + 1}"
            programs.start(name, "aggregator", "--opening", str(file), *standby)
        programs.start("producers-1", "producers", *data)
        for number in range(wanted.twins):
            programs.start(f"twins-{number + 1}", "twins", *workers)
        for number in range(wanted.proxies):
            standby = ("--standby",) if number else ()
            programs.start(f"proxy-{number + 1}", "proxy", *workers, *standby)
        yield programs
    finally:
        programs.end()
