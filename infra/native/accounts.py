"""A guarded broker for trials on one machine: an authority, and an account for whoever comes.

Everything lies under one folder:

    papers/ca.pem          whom to trust
    accounts/NAME          the password of somebody, made by chance; for its owner alone
    accounts/NAME.env      the environment in which its program comes: FEDTWIN_KAFKA and so on

The authority's key and the passwords lie on the machine of the broker: for trials. Who runs a
federation has an authority of its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion

from infra.kafka import KafkaSettings, connected
from infra.native.kafka import MECHANISM, Papers
from infra.native.programs import HOST
from infra.topics import in_words
from schemas.errors import ServiceError

DAYS = 365
NEW = "-newkey rsa:2048 -nodes"


def papers(folder: Path) -> Papers:
    """The certificate of the broker, and the authority that signed it; made if missing.

    Raises ServiceError without openssl.
    """
    found = Papers(folder / "kafka-all.pem", folder / "ca.pem")
    if found.own.exists():
        return found
    if shutil.which("openssl") is None:
        raise ServiceError(
            "no openssl on the PATH to make certificates with. On Debian and Ubuntu: apt-get"
            " install openssl"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "names.cnf").write_text(f"subjectAltName=IP:{HOST},DNS:localhost\n")
    for words in (
        f"req -x509 {NEW} -days {DAYS} -subj /CN=fedtwin -keyout ca.key -out ca.pem",
        f"req {NEW} -subj /CN=kafka -keyout kafka.key -out kafka.csr",
        f"x509 -req -in kafka.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {DAYS}"
        " -extfile names.cnf -out kafka.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    parts = [(folder / name).read_text() for name in ("kafka.key", "kafka.pem", "ca.pem")]
    _write(found.own, "".join(parts))
    return found


def open_accounts(
    folder: Path, users: Iterable[str], keeper: KafkaSettings, door: str, trusted: Path
) -> list[Path]:
    """Tell the broker the password of each, and write down how each comes in; gives those files.

    Who has a password keeps it. Raises ServiceError where the broker does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = [_account(folder, user, door, trusted) for user in users]
    wanted = [
        UserScramCredentialUpsertion(each.stem, MECHANISM, (folder / each.stem).read_text())
        for each in made
    ]
    with (
        closing(connected(keeper, KafkaAdminClient)) as admin,
        in_words("open accounts"),
    ):
        told = admin.alter_user_scram_credentials(wanted)
    if refused := {user: why for user, why in told.items() if why}:
        raise ServiceError(f"Kafka opened no account for {refused}")
    return made


def _account(folder: Path, user: str, door: str, trusted: Path) -> Path:
    secret = folder / user
    if not secret.exists():
        _write(secret, secrets.token_urlsafe(24))
    environment = {
        "FEDTWIN_KAFKA": door,
        "FEDTWIN_KAFKA_USER": user,
        "FEDTWIN_KAFKA_PASSWORD_FILE": secret.absolute(),
        "FEDTWIN_KAFKA_CA_FILE": trusted.absolute(),
    }
    told = folder / f"{user}.env"
    _write(told, "".join(f"{name}={value}\n" for name, value in environment.items()))
    return told


def _write(file: Path, text: str) -> None:
    """For its owner alone, and whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.touch(mode=0o600)
    part.write_text(text)
    os.replace(part, file)
