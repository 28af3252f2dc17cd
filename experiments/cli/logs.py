"""Which run is meant, and where its log is, for commands that read it or write into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli.words import command
from schemas.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from experiments.folder import RunFolder
    from infra.transport.base import Transport
    from schemas.topics import Names

RUNS = Path("runs")
"""Where a run's folder is looked for by its name."""


def meant(run: Path | None, option: Path | None = None) -> Path:
    """The run that somebody means: its folder, where one is here, or its name alone.

    It is named as an argument, as an option, or by FEDTWIN_RUN. Raises ConfigurationError where
    nobody names one, or two are named.
    """
    from experiments.folder import OPENING, RunFolder
    from infra.settings import read_settings

    if run is not None and option is not None and run != option:
        raise ConfigurationError(f"which run, {run} or --run {option}? Name one of them")
    found = run or option or Path(read_settings().run)
    if RunFolder(found).exists:
        return found
    if (found / OPENING).exists():  # what the programs of a live federation have said
        return Path(found.name)
    here = RunFolder(RUNS / found)
    if is_name(found) and here.exists:
        over_kafka = here.read_manifest().get("transport") == "kafka"
        if over_kafka or not kafka_is_known():
            return here.path
    return found


def is_name(run: Path) -> bool:
    """Whether it could be the name of a run on Kafka."""
    from schemas.topics import NAME

    return NAME.fullmatch(str(run)) is not None


def kafka_is_known() -> bool:
    """Whether the environment, or `make up`, says where Kafka is."""
    from infra.settings import KAFKA, read_settings

    return KAFKA in read_settings().services


def by_name(run: Path) -> bool:
    """Whether a run that is meant is to be looked for on Kafka, by its name alone."""
    from experiments.folder import RunFolder

    return not RunFolder(run).exists and is_name(run) and kafka_is_known()


def name_of(run: Path) -> str:
    """The name under which a run that is meant is on Kafka."""
    from experiments.folder import RunFolder

    folder = RunFolder(run)
    return folder.names().run if folder.exists else str(run)


@contextmanager
def log_at(run: Path, *, site: bool = True) -> Iterator[tuple[Transport, Names]]:
    """The log of a run that is meant, and its names; on Kafka also its `site`'s cluster.

    Raises DataError where there is none, ServiceError where Kafka cannot be reached.
    """
    from experiments.folder import RunFolder

    if not by_name(run):
        folder = RunFolder(run)
        with log_of(folder, site=site) as log:
            yield log, folder.names()
        return
    from experiments.operators import services
    from schemas.topics import Names

    names = Names(str(run))
    with services(site=site) as transport:
        begin = names.federation("rounds")
        if begin not in transport.topics():
            raise DataError(
                f"the log holds no run {names.run}: it was not opened yet, or this is another"
                " broker: `fedtwin ls` lists what it holds"
            )
        yield transport, names


@contextmanager
def log_of(folder: RunFolder, *, site: bool = True) -> Iterator[Transport]:
    """The log of a run: in its folder, or the topics of a run over Kafka.

    Raises DataError for a run without one, ServiceError where Kafka cannot be reached.
    """
    if folder.read_manifest().get("transport") == "kafka":
        from infra.settings import read_settings
        from infra.transport.clusters import connect

        with closing(connect(read_settings(), site=site)) as transport:
            yield transport
        return
    if not folder.log.exists():
        raise DataError(f"{folder.path} holds no log yet: `{command('resume', folder.path)}`")
    with closing(folder.opened()) as log:
        yield log
