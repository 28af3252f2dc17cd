"""A real broker with a lock on its door (SCRAM over TLS) and an access list, and those who come."""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from pydantic import SecretStr

from infra.kafka import KafkaSettings
from infra.native import kafka as native
from infra.native.programs import HOST, free_ports, stop
from schemas.rights import Principals
from tests.papers import Authority
from tests.services import have, jars

CREW = Principals()
RULES = "RULE:^CN=([^,]+),O=fedtwin$/$1/,DEFAULT"
"""What the door for certificates makes of a subject: of our own organisation's, the name alone."""
KEEPER = "User:keeper"
"""A super user who comes with a certificate."""
BOSS = "boss"
"""Who is given every right, where a test is not about rights."""


def name_of(principal: str) -> str:
    """The user that a broker calls so."""
    return principal.removeprefix("User:")


def crew(sites: Sequence[str]) -> list[str]:
    """The users of a run with these sites."""
    of_sites = [each for site in sites for each in (CREW.twins(site), CREW.producing(site))]
    return [name_of(each) for each in (CREW.aggregator, CREW.proxy, CREW.operator, *of_sites)]


def user_of(role: str, site: str) -> str:
    """As whom a program of a role comes."""
    found = {
        "aggregator": CREW.aggregator,
        "proxy": CREW.proxy,
        "twins": CREW.twins(site),
        "producers": CREW.producing(site),
    }
    return name_of(found[role])


def telling(secrets: Mapping[str, str], what: bytes | str) -> list[str]:
    """Names of the secrets that stand in something, as they are or in base64."""
    text = what.encode() if isinstance(what, str) else what
    return [
        name
        for name, secret in secrets.items()
        if secret.encode() in text or base64.b64encode(secret.encode()) in text
    ]


class Guarded:
    """The broker. Its other door is its keeper's: a super user, without a lock."""

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        """Start it. Skips the test where the machine has no Kafka or no openssl."""
        self.authority = have(lambda: Authority(folder / "papers"))
        self.former = Authority(folder / "former", "former")
        """Another one whose certificates it takes, until it is told not to (`trusts`)."""
        self._trusted = folder / "trusted.pem"
        self.trusts(self.authority, self.former)
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        for user in users:
            self._write(user, f"pass-of-{user}")
        ports = free_ports(4)
        own = self.authority.papers("kafka")
        self.broker = native.Broker(
            folder / "kafka",
            have(jars),
            *ports[:2],
            doors=[
                native.Door("SASL_SSL", ports[2]),
                native.Door("SSL", ports[3], mutual=True),
            ],
            papers=native.Papers(own.in_one, self._trusted),
            users={user: self.password(user) for user in users},
            guarded=True,
            more={
                "listener.name.ssl_mutual.ssl.principal.mapping.rules": RULES,
                "super.users": f"{native.ANYBODY};{KEEPER}",
            },
        )
        have(self.broker.start)
        self.keeper = KafkaSettings(self.broker.address)
        self.door = f"{HOST}:{ports[2]}"
        self.mutual = f"{HOST}:{ports[3]}"
        """The door that wants to see a certificate instead of a password."""

    def password(self, user: str) -> str:
        """What stands in the file of a user."""
        return (self.secrets / user).read_text()

    def settings(self, user: str) -> KafkaSettings:
        """How somebody comes in."""
        return replace(
            self.keeper,
            servers=self.door,
            user=user,
            password=SecretStr(self.password(user)),
            ca_file=self.authority.ca,
        )

    def environment(self, user: str) -> dict[str, str]:
        """The same, as a program is told it."""
        return {
            "FEDTWIN_KAFKA": self.door,
            "FEDTWIN_KAFKA_USER": user,
            "FEDTWIN_KAFKA_PASSWORD_FILE": str(self.secrets / user),
            "FEDTWIN_KAFKA_CA_FILE": str(self.authority.ca),
        }

    def exchange(self, user: str, password: str) -> None:
        """From now on the broker knows a user by another password; its file says the old one."""
        with closing(KafkaAdminClient(**self.keeper.client())) as admin:
            told = admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(user, native.MECHANISM, password)]
            )
        assert not any(told.values()), told

    def hand_out(self, user: str, password: str) -> None:
        """And from now on the file says the other one."""
        self._write(user, password)

    def trusts(self, *authorities: Authority) -> None:
        """Whose certificates it takes from its next start on."""
        self._trusted.write_text("".join(each.ca.read_text() for each in authorities))

    def shown(self, file: Path) -> dict[str, str]:
        """The environment of a program that comes with a key and its certificate, in one file."""
        return {
            "FEDTWIN_KAFKA": self.mutual,
            "FEDTWIN_KAFKA_CERT_FILE": str(file),
            "FEDTWIN_KAFKA_KEY_FILE": str(file),
            "FEDTWIN_KAFKA_CA_FILE": str(self.authority.ca),
            "FEDTWIN_KAFKA_USER": "",
            "FEDTWIN_KAFKA_PASSWORD_FILE": "",
        }

    def restart(self) -> None:
        """Every connection ends, and whoever wants one proves anew who it is."""
        stop(self.broker.folder)
        self.broker.start()

    @contextmanager
    def slammed(self) -> Iterator[list[object]]:
        """The broker is away, and whoever comes to its door for certificates is reset at once.

        Gives a list that grows by each who came. At the end the broker is back.
        """
        stop(self.broker.folder)
        came: list[object] = []
        over = Event()
        host, port = self.mutual.split(":")
        with socket.create_server((host, int(port))) as door:
            door.settimeout(0.1)
            porter = Thread(target=_slam, args=(door, came, over))
            porter.start()
            try:
                yield came
            finally:
                over.set()
                porter.join()
        self.broker.start()

    def said(self) -> str:
        """The broker's log."""
        return (self.broker.folder / "log.txt").read_text(errors="replace")

    def end(self) -> None:
        """It ends with the tests."""
        stop(self.broker.folder)

    def _write(self, user: str, password: str) -> None:
        part = self.secrets / f"{user}.part"
        part.touch(mode=0o600)
        part.write_text(password)
        part.rename(self.secrets / user)


def _slam(door: socket.socket, came: list[object], over: Event) -> None:
    """Reset each connection as soon as it is there, until it is over."""
    while not over.is_set():
        with suppress(TimeoutError):
            connection, who = door.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            came.append(who)
