"""A run on Kafka, as somebody sees it who is no part of it: by its name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.folder import Listener, RunFolder
from experiments.live import Standing
from experiments.recorded import Recorded
from infra.program import First, surroundings
from infra.serve import Surroundings, System
from infra.settings import KAFKA, read_settings
from infra.transport.base import Transport
from infra.transport.clusters import connect
from infra.workers import Inline
from schemas.configuration import Configuration, nearest
from schemas.errors import ConfigurationError, DataError, Forbidden
from schemas.messages import RunOpened
from schemas.topics import NAME, Names, parted, table_row

RUNS = Path("runs")
LINES = ("rounds", "classes")
"""What it rests on: letters are for others, and lie in part where not everybody may read."""


@dataclass(frozen=True)
class Named:
    """A run on Kafka, by what somebody said."""

    names: Names
    folder: RunFolder | None
    """Its runner's, where that is on this machine; a live federation has none."""


def on_kafka(run: Path | None) -> Named | None:
    """The run that is meant, where it is one on Kafka: by its name, its folder, or FEDTWIN_RUN.

    None for any other folder or file, and where nobody says where Kafka is. Raises
    ConfigurationError where nobody says which run.
    """
    if run is None:
        return _by_name(read_settings().run)
    folder = RunFolder(run)
    if folder.exists:
        manifest = folder.read_manifest()
        kafka = manifest.get("transport") == "kafka"
        return Named(Names(str(manifest["run"])), folder) if kafka else None
    if run.is_file() or not NAME.fullmatch(str(run)) or KAFKA not in read_settings().services:
        return None
    return _by_name(str(run))


def _by_name(name: str) -> Named:
    folder = RunFolder(RUNS / name)
    if folder.exists:
        manifest = folder.read_manifest()
        if manifest.get("transport") == "kafka" and manifest["run"] == name:
            return Named(Names(name), folder)
    return Named(Names(name), None)


class Outside:
    """What everybody may read of it, as far as was looked."""

    def __init__(self, transport: Transport, names: Names, opened: RunOpened, run: str) -> None:
        """`run` is the hash of RunOpened."""
        self.transport, self.names, self.run, self.opened = transport, names, run, opened
        self.standing = Standing(names, opened.all_sites)
        self.around: Surroundings = surroundings(
            opened.configuration, opened.data, transport, names
        )
        lines = [each for each in self.standing.topics if table_row(each).name in LINES]
        listener = Listener(self.standing.hear, _readable(transport, lines))
        self._reader = System([listener], self.around, Inline({}))
        self.look()

    def look(self) -> None:
        """Read on, to the end."""
        while any(session.behind for session in self._reader.sessions):
            self._reader.step()

    @property
    def configuration(self) -> Configuration:
        """The run's."""
        return self.opened.configuration

    def entity(self, name: str, site: str) -> str:
        """The full name of an entity that takes part, from that or its short name.

        A short name is that of the site's entity, or else of the only one that is called so. Raises
        ConfigurationError, naming the nearest, for one that is not there.
        """
        known = self.entities
        if name in known:
            return name
        alike = [each for each in known if parted(each)[1] == name]
        if f"{site}/{name}" in alike:
            return f"{site}/{name}"
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise ConfigurationError(f"several entities are called {name}: {', '.join(alike)}")
        told = f"; it has {', '.join(known[:5])}" if known else ": nobody has joined yet"
        more = f" and {len(known) - 5} more" if len(known) > 5 else ""
        raise ConfigurationError(
            f"{self.names.run} has no entity {name!r}{nearest(name, list(known))}{told}{more}"
        )

    @property
    def entities(self) -> tuple[str, ...]:
        """Those of the schedule; of a live run those that have ever joined."""
        if self.configuration.live:
            return tuple(sorted(self.standing.verdicts.of))
        return self.standing.line.entities


def _readable(transport: Transport, topics: Sequence[str]) -> list[str]:
    """Those that we may read: a site's account sees no other's. Raises Forbidden if of no site."""
    found: list[str] = []
    refused: Forbidden | None = None
    for topic in topics:
        try:
            transport.read(topic, 0, 1)
        except Forbidden as error:
            refused = refused or error
        else:
            found.append(topic)
    if refused and not any(table_row(topic).scope == "site" for topic in found):
        raise refused
    return found


@contextmanager
def seen(named: Named, *, site: bool) -> Iterator[Outside]:
    """Look at a run; with its `site`'s cluster, or the federation's alone.

    Where its runner's folder is here and nobody runs it, what was decided since is copied there.
    Raises ServiceError, and DataError for a run that is not on Kafka.
    """
    settings = read_settings()
    with ExitStack() as held:
        transport: Transport = connect(settings, site=site)
        held.enter_context(closing(transport))
        first = First(transport, named.names)
        opened = first.look()
        if opened is None:
            raise DataError(
                f"Kafka at {settings.kafka} holds no run {named.names.run}: `fedtwin topics ls"
                f" {named.names.run}` lists its topics, and a live federation is brought up by"
                " python -m aggregator --live"
            )
        if named.folder and not named.folder.running:
            transport = Recorded(transport, held.enter_context(closing(named.folder.opened())))
        yield Outside(transport, named.names, opened, first.hash)
