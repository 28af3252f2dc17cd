"""Who is asked. A further transport or store is one function here and its line in the list.

Each function is given an empty folder and gives back how to open one and the same log (or store)
once more, as another process would. What needs a service carries its marker:

    pytest.param(kafka, id="kafka", marks=pytest.mark.kafka)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from infra.kafka import KafkaSettings
from infra.store.base import ModelStore
from infra.store.dispensable import Dispensable
from infra.store.redis import RedisStore
from infra.store.sqlite import SqliteStore
from infra.topics import Administration, Planned, configs_of
from infra.transport.base import Transport
from infra.transport.embedded import Embedded
from infra.transport.kafka import Kafka
from infra.transport.unkind import Unkind
from schemas.errors import DiskFull
from schemas.topics import BY_SCOPE, PREFIX, Names
from tests.services import InRun, addresses, have, kafka_address, new_run, some_redis, three_brokers

MADE = ("rounds", "models")
"""The topics in which every promise is asked."""
AFTERWARDS = ExitStack()
"""What is to be tidied up when a test is done with its log."""
OpenLog = Callable[[], Transport]
OpenStore = Callable[[], ModelStore]


def until_full(write: Callable[[int], object]) -> int:
    """Write 0, 1, 2 and so on until there is no room; gives how many were written."""
    for number in range(10_000):
        try:
            write(number)
        except DiskFull:
            return number
    raise AssertionError("the disk took 10,000 writes")


class Shared:
    """A log in memory that several hold: it ends with the test, not with who closes it first."""

    def __init__(self, inner: Transport) -> None:
        self.append, self.read, self.forget = inner.append, inner.read, inner.forget
        self.first, self.end, self.topics = inner.first, inner.end, inner.topics
        self.trim, self.wait = inner.trim, inner.wait

    def close(self) -> None:
        """The others go on."""


def memory(folder: Path) -> OpenLog:
    """SQLite in memory."""
    log = Shared(Embedded())
    return lambda: log


def file(folder: Path) -> OpenLog:
    """SQLite in a file, opened as often as anybody wants."""
    return lambda: Embedded(folder / "run.sqlite")


def unkind(folder: Path) -> OpenLog:
    """A file behind the test mode that repeats, delays and cuts."""
    chance = random.Random(1)
    return lambda: Unkind(Embedded(folder / "run.sqlite"), chance)


def kafka(folder: Path) -> OpenLog:
    """A real broker. The topics are there before anybody writes, and all kept like `models`."""
    return _on_kafka(have(kafka_address))


def replicated(folder: Path) -> OpenLog:
    """Three real brokers: of each record two must have a copy before it counts as written."""
    return _on_kafka(addresses(have(three_brokers)))


def _on_kafka(servers: str) -> OpenLog:
    settings, run = KafkaSettings(servers), new_run()
    administration = have(lambda: Administration(settings))
    AFTERWARDS.callback(administration.close)
    AFTERWARDS.callback(administration.rm, Names(run))
    configs = configs_of(BY_SCOPE["models", "federation"], settings)
    administration.apply([Planned(f"{PREFIX}.{run}.{name}", configs) for name in MADE])
    return lambda: InRun(Kafka(settings), run, called="run")


TRANSPORTS = [
    pytest.param(memory, id="memory"),
    pytest.param(file, id="file"),
    pytest.param(unkind, id="unkind"),
    pytest.param(kafka, id="kafka", marks=pytest.mark.kafka),
    pytest.param(replicated, id="three brokers", marks=pytest.mark.kafka),
]
LATER = {kafka, replicated}
"""Those of them that let go of what is forgotten in their own time."""
ON_DISK = [pytest.param(file, id="file"), pytest.param(unkind, id="unkind")]
"""Those of them whose disk can be full."""


class SharedStore:
    """A store in memory that several hold."""

    def __init__(self, inner: ModelStore) -> None:
        self.put, self.get, self.list, self.forget = inner.put, inner.get, inner.list, inner.forget
        self.score, self.about = inner.score, inner.about

    def close(self) -> None:
        """The others go on."""


def store_in_memory(folder: Path) -> OpenStore:
    """SQLite in memory."""
    store = SharedStore(SqliteStore())
    return lambda: store


def store_in_file(folder: Path) -> OpenStore:
    """SQLite in a file of its own."""
    return lambda: SqliteStore(folder / "old-models.sqlite")


def store_in_run(folder: Path) -> OpenStore:
    """SQLite in the file of a run, beside its log."""
    Embedded(folder / "run.sqlite").close()
    return lambda: SqliteStore(folder / "run.sqlite")


def store_on_redis(folder: Path) -> OpenStore:
    """Redis, under a prefix that nobody else has."""
    service, prefix = have(some_redis), f"contract-{uuid4().hex}"
    return lambda: RedisStore(service, "run", prefix=prefix)


def store_to_do_without(folder: Path) -> OpenStore:
    """The same server, which may go away; it does not."""
    opens = store_on_redis(folder)
    return lambda: Dispensable(opens(), lambda told: None)


STORES = [
    pytest.param(store_in_memory, id="memory"),
    pytest.param(store_in_file, id="file"),
    pytest.param(store_in_run, id="run"),
    pytest.param(store_on_redis, id="redis", marks=pytest.mark.redis),
    pytest.param(store_to_do_without, id="dispensable redis", marks=pytest.mark.redis),
]
STORES_ON_DISK = [pytest.param(store_in_file, id="file"), pytest.param(store_in_run, id="run")]


@pytest.fixture(params=TRANSPORTS)
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
    """Opens the same log again and again; what was opened is closed at the end."""
    opened: list[Transport] = []
    opens: OpenLog = request.param(tmp_path)

    def once_more() -> Transport:
        opened.append(opens())
        return opened[-1]

    yield once_more
    for log in opened:
        log.close()
    AFTERWARDS.close()


@pytest.fixture
def at_once(request: pytest.FixtureRequest) -> bool:
    """Whether this log lets go at once of what is forgotten."""
    return request.node.callspec.params["open_log"] not in LATER


@pytest.fixture
def log(open_log: OpenLog) -> Transport:
    """One holder of the log."""
    return open_log()


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same store again and again; what was opened is closed at the end."""
    opened: list[ModelStore] = []
    opens: OpenStore = request.param(tmp_path)

    def once_more() -> ModelStore:
        opened.append(opens())
        return opened[-1]

    yield once_more
    for name in opened[0].list() if opened else ():
        opened[0].forget(name)  # a server outlives its tests
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> ModelStore:
    """One holder of the store."""
    return open_store()
