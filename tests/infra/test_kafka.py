"""The transport on Kafka where no promise of all transports asks: brokers die, sleep and refuse.

That it keeps every promise of a transport is asked in tests/contracts/.
"""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from pydantic import SecretStr

import infra.transport.kafka as transport
from infra.kafka import KafkaSettings
from infra.native.kafka import Broker
from infra.native.programs import HOST, free_ports, running, stop
from infra.topics import Administration, Planned, configs_of
from infra.transport.base import Stored, Trimmed
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.errors import ConfigurationError, RunFailed, ServiceError
from schemas.topics import BY_SCOPE, Names
from tests.services import (
    ROOT,
    asleep,
    at_times,
    have,
    jars,
    kafka_address,
    killed,
    new_run,
    signalled,
    swept,
)

PLENTY = 1 << 24
QUICK = {"segment.ms": "100", "max.compaction.lag.ms": "200", "delete.retention.ms": "0"}
"""A broker looks at what may be compacted every 15 s; then it is due."""


def records(*keys: str) -> list[Record]:
    """One record for each key."""
    return [Record(key, key.encode(), {"ce_subject": key}) for key in keys]


def everything(log: Kafka, topic: str, place: int = 0) -> list[Stored]:
    """Read a topic to its end, as often as that takes."""
    found: list[Stored] = []
    while place < log.end(topic):
        found += log.read(topic, place, PLENTY)
        place = found[-1].offset + 1 if found else place
    return found


def insisted(log: Kafka, topic: str, place: int) -> list[Stored]:
    """Read until something is there, for ten seconds at most."""
    until = time.monotonic() + 10
    while not (found := log.read(topic, place, PLENTY)) and time.monotonic() < until:
        log.wait(0.05)
    return found


def keys(found: list[Stored]) -> list[str]:
    """What was read, in order."""
    return [each.record.key for each in found]


def last_places(found: list[Stored]) -> list[str]:
    """Each key once, in order of where it stands last."""
    return list(dict.fromkeys(reversed(keys(found))))[::-1]


class Place:
    """Topics of a run of its own on a broker, and logs that are closed at the end."""

    def __init__(self, address: str) -> None:
        self.settings = KafkaSettings(address, request_timeout=2, delivery_timeout=3)
        self.names = Names(new_run())
        self.topic = self.names.federation("rounds")
        self.administration = have(lambda: Administration(self.settings))
        self._opened: list[Kafka] = []

    def make(self, *topics: str, **configs: str) -> None:
        """Make topics, kept as `models` are."""
        kept = {**configs_of(BY_SCOPE["models", "federation"], self.settings), **configs}
        self.administration.apply([Planned(topic, kept) for topic in topics or (self.topic,)])

    def open(
        self,
        hook: Callable[[str], None] = lambda point: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Kafka:
        """Another holder of the log."""
        self._opened.append(Kafka(self.settings, stopped=stopped, hook=hook))
        return self._opened[-1]

    def close(self) -> None:
        """Everything is as it was before."""
        for log in self._opened:
            log.close()
        self.administration.close()
        swept(self.settings, self.names)


@pytest.fixture
def place() -> Iterator[Place]:
    """On the broker that all tests share."""
    found = Place(have(kafka_address))
    yield found
    found.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of our own, to be killed and put to sleep."""
    own = Broker(tmp_path_factory.mktemp("broker") / "kafka", have(jars), *free_ports(2))
    have(own.start)
    yield own
    stop(own.folder)


@pytest.fixture
def troubled(broker: Broker) -> Iterator[Place]:
    """On the broker of our own."""
    found = Place(f"{HOST}:{broker.port}")
    found.make()
    yield found
    found.close()


# --- waiting --------------------------------------------------------------------------------------


class Model:
    """Something large."""


def test_who_waits_in_vain_keeps_nothing_of_what_he_had_in_hand(place: Place) -> None:
    """The client keeps the error of such a wait, and by its trace the frames of all who called: an
    aggregator had models of 45 MB in memory that it had published long before."""
    place.make()
    log = place.open()
    log.read(place.topic, 0, PLENTY)

    def wait() -> weakref.ref[Model]:
        model = Model()
        log.wait(0.02)
        return weakref.ref(model)

    gc.disable()
    try:
        gone = [wait()() is None for _ in range(5)]
    finally:
        gc.enable()

    assert gone == [True] * 5


@pytest.mark.kafka
def test_a_broker_that_is_asked_already_is_not_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many short waits in a quiet topic few ask; and what is written meanwhile ends the next."""
    place.make()
    log, writer = place.open(), place.open()
    log.read(place.topic, 0, PLENTY)
    log.wait(0.3)
    fetcher = log._followed._consumer._fetcher
    ask, asked = fetcher.send_fetches, 0

    def counted() -> object:
        nonlocal asked
        asked += 1
        return ask()

    monkeypatch.setattr(fetcher, "send_fetches", counted)
    for _ in range(40):
        log.wait(0.01)  # a broker answers after 0.2 s
    writer.append(place.topic, records("a"))
    log.wait(5)

    assert asked <= 10
    assert keys(log.read(place.topic, 0, PLENTY)) == ["a"]


@pytest.mark.kafka
def test_records_that_go_together_wake_the_client_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next ones again: nothing is left lying for a thread that sleeps."""
    place.make()
    log = place.open()
    log.append(place.topic, records("a"))
    assert log._sender._producer is not None
    client = log._sender._producer._sender._client
    wake, woken = client.wakeup, 0

    def counted() -> None:
        nonlocal woken
        woken += 1
        wake()

    monkeypatch.setattr(client, "wakeup", counted)
    log.append(place.topic, records("b", "c", "d"))
    log.append(place.topic, records("e"))

    assert woken == 2
    assert keys(everything(log, place.topic)) == ["a", "b", "c", "d", "e"]


# --- getting there --------------------------------------------------------------------------------


def test_without_the_fast_checksum_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pure Python takes thirty times as long: rather it is said at once, with the remedy."""
    monkeypatch.setitem(sys.modules, "crc32c", None)

    with pytest.raises(ConfigurationError, match=r"crc32c is missing.*pip install"):
        Kafka(KafkaSettings(f"{HOST}:1"))


def test_a_broker_that_is_not_there_is_told_with_the_reason() -> None:
    """The client says only "unable to bootstrap"; what it knows stands in its log."""
    address = f"{HOST}:{free_ports(1)[0]}"

    with pytest.raises(ServiceError, match=rf"{address} cannot be reached.*ECONNREFUSED") as told:
        Kafka(KafkaSettings(address, start_timeout=0.5))

    assert told.value.exit_code == 3
    assert "\n" not in str(told.value)


@pytest.mark.kafka
def test_a_broker_that_does_not_let_us_in_is_told_with_the_reason() -> None:
    """User and password for a broker that asks for none: the client's own words are shown."""
    settings = KafkaSettings(
        have(kafka_address), user="north", password=SecretStr("hush"), start_timeout=1
    )

    with pytest.raises(ServiceError, match=r"\(SASL_PLAINTEXT\): .*SaslState") as told:
        Kafka(settings)

    assert "hush" not in str(told.value) + repr(settings)


def test_settings_become_the_clients_arguments() -> None:
    """Encrypted with files and a password; without them neither is spoken of."""
    settings = KafkaSettings(
        "a:1,b:2",
        user="north",
        password=SecretStr("hush"),
        mechanism="SCRAM-SHA-256",
        ca_file=Path("ca.pem"),
    )

    given = settings.client()

    assert given["bootstrap_servers"] == ["a:1", "b:2"]
    assert given["security_protocol"] == "SASL_SSL"
    assert given["sasl_mechanism"] == "SCRAM-SHA-256"
    assert given["sasl_plain_password"].now() == "hush"
    assert given["ssl_cafile"] == "ca.pem"
    plain = KafkaSettings("a:1").client()
    assert plain["security_protocol"] == "PLAINTEXT"
    assert not [name for name in plain if name.startswith(("sasl", "ssl"))]
    assert KafkaSettings("a:1", encrypted=True).protocol == "SSL"


# --- topics that are not there, and records that are refused --------------------------------------


@pytest.mark.kafka
def test_a_topic_that_nobody_made_cannot_be_written_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is told what makes it, instead of waiting for ever."""
    monkeypatch.setattr(transport, "MADE", 0.1)

    with pytest.raises(ConfigurationError, match=r"is not there.*fedtwin topics apply"):
        place.open().append(place.topic, records("a"))


@pytest.mark.kafka
def test_a_topic_that_is_made_later_is_noticed(place: Place) -> None:
    """A reader looks when there is none; soon after it was made and written to, it reads."""
    reader = place.open()
    assert reader.read(place.topic, 0, PLENTY) == []
    place.make()
    place.open().append(place.topic, records("a"))

    assert keys(insisted(reader, place.topic, 0)) == ["a"]


@pytest.mark.kafka
def test_a_record_that_is_too_large_is_refused_at_once(place: Place) -> None:
    """By the client beyond 1 MiB, by the broker beyond what the topic takes: then life goes on."""
    place.make(**{"max.message.bytes": "10000"})
    log = place.open()

    for size in (1 << 20, 20_000):
        with pytest.raises(ConfigurationError, match=r"too large.*max\.message\.bytes"):
            log.append(place.topic, [Record("large", bytes(size))])
    log.append(place.topic, records("small"))

    assert keys(everything(log, place.topic)) == ["small"]


@pytest.mark.kafka
def test_what_foreigners_write_is_read_as_it_is(place: Place) -> None:
    """No key, a key and a header that are no text, a mark: given as far as they are records."""
    place.make(**{"cleanup.policy": "delete"})
    foreign = KafkaProducer(bootstrap_servers=place.settings.servers)
    foreign.send(place.topic, b"1").get(10)
    foreign.send(place.topic, None, key=b"\xff").get(10)
    foreign.send(place.topic, b"2", key=b"\xff", headers=[("h", b"\xfe")]).get(10)
    foreign.close()

    found = everything(place.open(), place.topic)

    assert [each.offset for each in found] == [0, 2]
    assert [each.record.key for each in found] == ["", "\N{REPLACEMENT CHARACTER}"]


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.kafka
def test_a_reader_that_follows_is_told_when_it_was_overtaken_by_a_trim(place: Place) -> None:
    """It looked when the topic was empty; then five records came and three were trimmed."""
    place.make()
    reader, writer = place.open(), place.open()
    assert (reader.end(place.topic), reader.read(place.topic, 0, PLENTY)) == (0, [])
    writer.append(place.topic, records(*"abcde"))
    writer.trim(place.topic, 3)

    with pytest.raises(Trimmed) as told:
        insisted(reader, place.topic, 0)

    assert told.value.first == 3
    assert keys(everything(reader, place.topic, 3)) == ["d", "e"]


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_no_silence(place: Place) -> None:
    """A reader behind its end would wait for ever for what it believes to have read."""
    place.make()
    place.open().append(place.topic, records("a"))

    with pytest.raises(RunFailed, match="ends at 1 and was read to 7"):
        insisted(place.open(), place.topic, 7)


@pytest.mark.kafka
def test_readers_at_different_places_do_not_disturb_each_other(place: Place) -> None:
    """Two topics, three readers of each through one transport: everybody gets everything."""
    topics = [place.topic, place.names.federation("models")]
    place.make(*topics)
    log, wanted = place.open(), [str(i) for i in range(300)]
    places = {(topic, reader): 0 for topic in topics for reader in range(3)}
    seen: dict[tuple[str, int], list[str]] = {each: [] for each in places}
    until = time.monotonic() + 20

    for begun, upto in ((0, 200), (200, 300)):
        for topic in topics:
            log.append(topic, records(*wanted[begun:upto]))
        while time.monotonic() < until and any(len(each) < upto for each in seen.values()):
            for (topic, reader), at in places.items():
                found = log.read(topic, at, 10 ** (reader + 1))
                seen[topic, reader] += keys(found)
                places[topic, reader] = found[-1].offset + 1 if found else at

    assert all(each == wanted for each in seen.values())


@pytest.mark.kafka
def test_what_comes_while_we_ask_for_more_holds_nothing_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two topics that are followed one gets a record after the client has looked and before it
    asks: it is given at once, and so is the next one, though a broker that has nothing may hold
    its answer back for 30 s."""
    monkeypatch.setattr(transport, "FETCH", 30.0)
    monkeypatch.setattr(transport, "ANSWER", 60.0)
    quiet = place.names.federation("models")
    place.make(place.topic, quiet)
    reader, writer = place.open(), place.open()
    assert reader.read(quiet, 0, PLENTY) == reader.read(place.topic, 0, PLENTY) == []
    reader.wait(0.01)
    writer.append(quiet, records("a"))  # what was on its way ends, and the next asks for both
    assert keys(insisted(reader, quiet, 0)) == ["a"]
    fetcher = reader._followed._consumer._fetcher
    until = time.monotonic() + 20
    while not fetcher.in_flight_fetches() and time.monotonic() < until:
        reader.wait(0.01)
    assert fetcher.in_flight_fetches()
    look, meanwhile, begun = fetcher.fetched_records, iter("b"), time.monotonic()

    def looked(*told: object, **more: object) -> object:
        found = look(*told, **more)
        for name in meanwhile:
            writer.append(place.topic, records(name))
            while not fetcher._completed_fetches and time.monotonic() < begun + 20:
                time.sleep(0.001)
        return found

    monkeypatch.setattr(fetcher, "fetched_records", looked)
    reader.wait(30)
    found = insisted(reader, place.topic, 0)
    writer.append(place.topic, records("c"))
    found += insisted(reader, place.topic, 1)

    assert keys(found) == ["b", "c"]
    assert time.monotonic() - begun < 20


@pytest.mark.kafka
def test_more_than_is_kept_is_read_in_order_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for three records: a reader that comes back for the first gets it from the broker."""
    monkeypatch.setattr("infra.transport.following.AHEAD_BYTES", 300_000)
    place.settings = KafkaSettings(place.settings.servers, keep_bytes=300_000)
    place.make()
    reader, writer = place.open(), place.open()
    assert reader.read(place.topic, 0, PLENTY) == []
    wanted = [f"{i:02}" for i in range(30)]
    for name in wanted:
        writer.append(place.topic, [Record(name, name.encode() * 50_000)])

    found = everything(reader, place.topic)

    assert keys(found) == wanted
    assert keys(reader.read(place.topic, 0, 1)) == ["00"]
    assert keys(everything(reader, place.topic, 15)) == wanted[15:]


@pytest.mark.kafka
def test_what_is_forgotten_goes_and_leaves_gaps(place: Place) -> None:
    """A compacted topic, a minute at most: the forgotten is gone, and the rest is where it was."""
    place.make(**QUICK)
    log = place.open()
    log.append(place.topic, records("a"))
    log.append(place.topic, records("b"))
    (kept,) = log.append(place.topic, records("c"))
    log.forget(place.topic, "a", "b")
    until = time.monotonic() + 60

    while "a" in keys(found := everything(place.open(), place.topic)):
        assert time.monotonic() < until
        time.sleep(1)
        log.append(place.topic, records("d"))  # what is written to last is never compacted

    assert keys(found)[0] == "c"
    assert found[0].offset == kept
    late = place.open()
    assert keys(late.read(place.topic, 0, 1)) == ["c"]
    assert late.first(place.topic) == 0


# --- brokers that die and sleep -------------------------------------------------------------------


@pytest.mark.kafka
def test_a_broker_that_is_killed_while_we_write_loses_nothing(
    broker: Broker, troubled: Place
) -> None:
    """Killed twice, each time with five records on their way: all there, the last ones in order."""
    log = troubled.open(hook=at_times("append:written", (4, 8), lambda: killed(broker)))
    reader = troubled.open()
    wanted = [f"{i}/{j}" for i in range(10) for j in range(5)]

    places = [log.append(troubled.topic, records(*wanted[i : i + 5]))[0] for i in range(0, 50, 5)]

    found = everything(reader, troubled.topic)
    assert last_places(found) == wanted
    at = {each.offset: each.record.key for each in found}
    assert [at[offset] for offset in places] == [f"{i}/0" for i in range(10)]
    assert last_places(everything(log, troubled.topic)) == wanted


@pytest.mark.kafka
def test_a_broker_that_sleeps_longer_than_we_wait_for_it_loses_nothing(
    broker: Broker, troubled: Place
) -> None:
    """Given up after 3 s, and sent again when it wakes: repeats, but every last place in order."""
    log = troubled.open(hook=at_times("append:written", (2,), lambda: asleep(broker, 11)))
    large = [Record(f"{i}", bytes(900_000)) for i in range(4)]
    log.append(troubled.topic, records("before"))

    first, *_ = log.append(troubled.topic, large)
    log.append(troubled.topic, records("after"))

    found = everything(troubled.open(), troubled.topic)
    assert last_places(found) == ["before", "0", "1", "2", "3", "after"]
    assert {each.offset: each.record.key for each in found}[first] == "0"


@pytest.mark.kafka
def test_quiet_topics_are_read_without_asking_the_broker(broker: Broker, troubled: Place) -> None:
    """Two hundred of them: even while the broker sleeps they are found quiet in no time."""
    topics = [troubled.names.of_site("updates", f"site-{i}") for i in range(200)]
    troubled.make(*topics)
    log = troubled.open()
    assert [log.end(topic) for topic in topics] == [0] * 200
    assert [log.read(topic, 0, PLENTY) for topic in topics] == [[]] * 200
    log.wait(1)

    signalled(broker, signal.SIGSTOP)
    begun = time.monotonic()
    found = [log.read(topic, 0, PLENTY) for topic in topics * 5]
    took = time.monotonic() - begun
    signalled(broker, signal.SIGCONT)

    assert found == [[]] * 1000
    assert took < 1


@pytest.mark.kafka
def test_who_is_told_to_stop_does_not_wait_for_a_broker(broker: Broker, troubled: Place) -> None:
    """An append that waits for a sleeping broker ends soon after its program was told to end."""
    until = [float("inf")]
    log = troubled.open(stopped=lambda: time.monotonic() > until[0])
    log.append(troubled.topic, records("a"))
    signalled(broker, signal.SIGSTOP)
    until[0] = time.monotonic() + 1
    try:
        begun = time.monotonic()
        with pytest.raises(ServiceError, match="was away when the program was told to stop"):
            log.append(troubled.topic, records("b"))
        took = time.monotonic() - begun
    finally:
        signalled(broker, signal.SIGCONT)

    assert took < 4


GIVES_UP = """
import os, signal, sys, time
from infra.kafka import KafkaSettings
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.errors import ServiceError
address, pid, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3]
begun = time.monotonic()
settings = KafkaSettings(address, request_timeout=1, delivery_timeout=1)
log = Kafka(settings, stopped=lambda: time.monotonic() > begun + 9)
log.append(topic, [Record("a", b"1")])
os.kill(pid, signal.SIGSTOP)
try:
    log.append(topic, [Record("b", bytes(900_000))] * 3)
except ServiceError:
    print("told to stop", flush=True)
log.close()
print(f"{time.monotonic():.3f}", flush=True)
"""


@pytest.mark.kafka
def test_a_program_that_gave_up_a_producer_ends_at_once_and_in_silence(
    broker: Broker, troubled: Place
) -> None:
    """The client would flush it for seconds and complain at the very end of the program."""
    program = running(broker.folder)
    assert program is not None
    try:
        done = subprocess.run(
            [sys.executable, "-c", GIVES_UP, program.address, str(program.pid), troubled.topic],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        ended = time.monotonic()
    finally:
        signalled(broker, signal.SIGCONT)

    said, closed = done.stdout.splitlines()
    assert (said, done.returncode) == ("told to stop", 0)
    assert ended - float(closed) < 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1  # that Kafka is away, once
