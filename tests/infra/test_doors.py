"""Who comes to a guarded broker with the wrong papers is told so in a line; with the right ones
it may do what an access list says, and no more.

The real broker has three doors with locks: a password (SCRAM-SHA-512), the same over TLS, and
certificates on both sides. Its fourth, without a lock, is its keeper's.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from pydantic import SecretStr

from experiments.services import services
from infra.kafka import KafkaSettings, connected
from infra.native import kafka as native
from infra.native.programs import HOST, free_ports, stop
from infra.topics import Administration, plan
from infra.transport.base import Stored
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.errors import Forbidden, ServiceError
from schemas.topics import Names
from tests.experiments.hands import fedtwin
from tests.papers import Authority, Papers
from tests.services import have, jars

pytestmark = pytest.mark.kafka

NAMES = Names("trial")
PASSWORD, WRONG = "n0rth", "hush"
RIGHTS = {
    "rounds": (ACLOperation.READ, ACLOperation.WRITE),
    "teachers": (ACLOperation.DESCRIBE,),
}
"""Of north: it may read and write `rounds`, and see `teachers`."""
SECONDS = 5.0  # in which a refusal is told, whatever time a broker has to answer


@dataclass(frozen=True)
class House:
    """The doors of the broker, and the papers of those who come."""

    keeper: KafkaSettings
    """By the door without a lock."""
    password: KafkaSettings
    """Of north, at the door that asks for it; and so on."""
    encrypted: KafkaSettings
    mutual: KafkaSettings
    stranger: Papers
    """Certificates of an authority that nobody here knows."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The broker runs as long as these tests do."""
    folder = tmp_path_factory.mktemp("house")
    authority = have(lambda: Authority(folder / "house"))
    own, north = authority.papers("kafka"), authority.papers("north")
    ports = free_ports(5)
    broker = native.Broker(
        folder / "kafka",
        have(jars),
        *ports[:2],
        doors=[
            native.Door("SASL_PLAINTEXT", ports[2]),
            native.Door("SASL_SSL", ports[3]),
            native.Door("SSL", ports[4], mutual=True),
        ],
        papers=native.Papers(own.in_one, authority.ca),
        users={"north": PASSWORD},
        guarded=True,
    )
    have(broker.start)
    there = [KafkaSettings(f"{HOST}:{port}") for port in (ports[0], *ports[2:])]
    secret = SecretStr(PASSWORD)
    found = House(
        there[0],
        replace(there[1], user="north", password=secret),
        replace(there[2], user="north", password=secret, ca_file=authority.ca),
        replace(there[3], ca_file=authority.ca, cert_file=north.cert, key_file=north.key),
        Authority(folder / "elsewhere").papers("north"),
    )
    with closing(Administration(found.keeper)) as administration:
        administration.apply(plan(NAMES, "federation", [], [], found.keeper))
    _grant(found.keeper, "User:north", "User:CN=north")
    yield found
    stop(broker.folder)


def _grant(keeper: KafkaSettings, *who: str) -> None:
    with closing(KafkaAdminClient(**keeper.client())) as admin:
        admin.create_acls(
            [
                ACL(
                    each,
                    "*",
                    right,
                    ACLPermissionType.ALLOW,
                    ResourcePattern(ResourceType.TOPIC, NAMES.federation(topic)),
                )
                for each in who
                for topic, rights in RIGHTS.items()
                for right in rights
            ]
        )


# --- who comes with the right papers --------------------------------------------------------------


@pytest.mark.parametrize("door", ["password", "encrypted", "mutual"])
def test_who_is_known_writes_and_reads(house: House, door: str) -> None:
    """By a password, by the same over TLS, and by a certificate: a record, and it is there."""
    topic = NAMES.federation("rounds")
    with closing(Kafka(getattr(house, door))) as log:
        (place,) = log.append(topic, [Record(door, b"1")])
        assert [each.record.key for each in _insisted(log, topic, place)] == [door]


def test_what_one_has_no_right_to_is_no_silence(house: House) -> None:
    """To Kafka's consumer a forbidden topic is one in which nothing ever comes."""
    with closing(Kafka(house.password)) as log:
        for topic in (NAMES.federation(each) for each in ("teachers", "models")):
            with pytest.raises(Forbidden, match=f"no right to .*{topic}"):
                _insisted(log, topic, 0)
            with pytest.raises(Forbidden, match=f"no right to .*{topic}"):
                log.append(topic, [Record("a", b"1")])


def _insisted(log: Kafka, topic: str, place: int) -> Sequence[Stored]:
    until = time.monotonic() + 10
    while not (found := log.read(topic, place, 1 << 20)) and time.monotonic() < until:
        log.wait(0.05)
    return found


# --- and with the wrong ones ----------------------------------------------------------------------

REFUSALS: dict[str, tuple[Callable[[House], KafkaSettings], str]] = {
    "a wrong password": (
        lambda house: replace(house.password, password=SecretStr(WRONG)),
        r"\(SASL_PLAINTEXT\): user or password is wrong .*invalid credentials",
    ),
    "a wrong password over TLS": (
        lambda house: replace(house.encrypted, password=SecretStr(WRONG)),
        r"\(SASL_SSL\): user or password is wrong",
    ),
    "a user that nobody knows": (
        lambda house: replace(house.password, user="south"),
        "user or password is wrong",
    ),
    "another way to prove a password": (
        lambda house: replace(house.password, mechanism="PLAIN"),
        "it takes no password by PLAIN; _MECHANISM names another",
    ),
    "a password where none is asked for": (
        lambda house: replace(house.password, servers=house.keeper.servers),
        "it asks nobody for user and password at this port",
    ),
    "another authority": (
        lambda house: replace(house.encrypted, ca_file=house.stranger.ca),
        "its certificate is by no authority that we trust",
    ),
    "another host": (
        lambda house: replace(
            house.encrypted, servers=house.encrypted.servers.replace(HOST, "localhost")
        ),
        "its certificate is for another host",
    ),
    "no TLS": (
        lambda house: replace(house.mutual, ca_file=None, cert_file=None, key_file=None),
        r"\(PLAINTEXT\): it speaks TLS at this port, and we do not",
    ),
    "no TLS and a password": (
        lambda house: replace(house.encrypted, ca_file=None),
        r"\(SASL_PLAINTEXT\): it speaks TLS at this port, and we do not",
    ),
    "nobody": (
        lambda house: replace(house.password, user="", password=None),
        "it wants a user and a password, and we have none",
    ),
    "nobody over TLS": (
        lambda house: replace(house.encrypted, user="", password=None),
        r"\(SSL\): it wants a user and a password, and we have none",
    ),
    "no certificate": (
        lambda house: replace(house.mutual, cert_file=None, key_file=None),
        "it wants to see a certificate, and we have none",
    ),
    "a stranger's certificate": (
        lambda house: replace(
            house.mutual, cert_file=house.stranger.cert, key_file=house.stranger.key
        ),
        "it does not trust our certificate",
    ),
    "another's key": (
        lambda house: replace(house.mutual, key_file=house.stranger.key),
        "our key is not the one of our certificate",
    ),
}


@pytest.mark.parametrize("who", REFUSALS)
def test_who_is_refused_is_told_why_in_one_line(house: House, who: str) -> None:
    """With the cause first, soon, and without a word of what is secret; that is exit code 3."""
    changed, words = REFUSALS[who]
    settings = changed(house)
    began = time.monotonic()

    with pytest.raises(ServiceError, match=words) as told:
        connected(settings, KafkaAdminClient)

    assert time.monotonic() - began < SECONDS < settings.start_timeout
    assert told.value.exit_code == 3
    assert "\n" not in str(told.value)
    assert not [each for each in (PASSWORD, WRONG) if each in str(told.value) + repr(settings)]


@pytest.fixture
def mistaken(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment with a wrong password in it."""
    secret = tmp_path / "secret"
    secret.write_text(WRONG)
    for name, value in {
        "KAFKA": house.password.servers,
        "KAFKA_USER": "north",
        "KAFKA_PASSWORD_FILE": str(secret),
        "REDIS": f"{HOST}:1",
        "RUN": NAMES.run,
    }.items():
        monkeypatch.setenv(f"FEDTWIN_{name}", value)


@pytest.mark.parametrize("role", ["aggregator", "producers", "proxy", "twins"])
def test_a_program_that_is_refused_ends_with_3_and_a_line(
    mistaken: None, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every role's: its name, where it was refused, and why."""
    code = importlib.import_module(f"{role}.__main__").main([])

    (line,) = capsys.readouterr().err.splitlines()
    assert code == 3
    assert line.startswith(f"{role}: Kafka at {HOST}:")
    assert "user or password is wrong" in line
    assert WRONG not in line


def test_a_command_that_is_refused_ends_with_3_and_says_what_helps(mistaken: None) -> None:
    """One line that says why, and one that says what to do next."""
    answered = fedtwin("topics", "ls", NAMES.run)

    why, way_on = answered.stderr.splitlines()
    assert answered.exit_code == 3
    assert "user or password is wrong" in why
    assert way_on.startswith("next: ")
    assert WRONG not in answered.output


def test_the_doctor_names_what_lets_us_in(mistaken: None) -> None:
    """A wrong password; then the right one, whose account may look at nothing: both are told."""
    refused = {check.name: check for check in services()}["kafka"]
    Path(os.environ["FEDTWIN_KAFKA_PASSWORD_FILE"]).write_text(PASSWORD)
    blind = {check.name: check for check in services()}["kafka"]

    assert "user or password is wrong" in refused.cause
    assert "FEDTWIN_KAFKA with _USER, _PASSWORD_FILE, _CA_FILE" in refused.remedy
    assert "may not ask how it is set up (DESCRIBE_CONFIGS" in blind.cause
    assert not refused.fine
    assert not blind.fine
