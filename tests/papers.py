"""Certificates for the loopback interface, good for a day, made with openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.native.programs import HOST
from schemas.errors import ServiceError


@dataclass(frozen=True)
class Papers:
    """A certificate of somebody, by an authority."""

    ca: Path
    """Whom to trust; a file in PEM, as the others."""
    cert: Path
    key: Path

    @property
    def in_one(self) -> Path:
        """Key, certificate and authority in one file, as Java wants them."""
        file = self.key.with_name(f"{self.key.stem}-all.pem")
        file.write_text("".join(each.read_text() for each in (self.key, self.cert, self.ca)))
        return file


class Authority:
    """Signs certificates for 127.0.0.1 in a folder of its own."""

    def __init__(self, folder: Path, name: str = "house") -> None:
        """Raises ServiceError without openssl."""
        if shutil.which("openssl") is None:
            raise ServiceError(
                "no openssl on the PATH to make certificates with. On Debian and Ubuntu:"
                " apt-get install openssl"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = folder / "ca.key"
        self.ca = folder / "ca.pem"
        _openssl(f"req -x509 {NEW} -days 1 -subj /CN={name} -keyout {self._key} -out {self.ca}")

    def papers(self, name: str, subject: str = "") -> Papers:
        """A certificate for whoever is called this; `subject` is `/CN=<name>` if it is not told."""
        made = Papers(self.ca, self._folder / f"{name}.pem", self._folder / f"{name}.key")
        asked, more = self._folder / f"{name}.csr", self._folder / "more.cnf"
        more.write_text(f"subjectAltName=IP:{HOST}\n")
        keys = f"req {NEW} -keyout {made.key} -out {asked} -subj"
        _openssl(keys, subject or f"/CN={name}")
        _openssl(
            f"x509 -req -in {asked} -CA {self.ca} -CAkey {self._key} -CAcreateserial -days 1"
            f" -extfile {more} -out {made.cert}"
        )
        return made


NEW = "-newkey rsa:2048 -nodes"


def _openssl(words: str, *more: str) -> None:
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
