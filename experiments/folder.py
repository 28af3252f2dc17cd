"""A run folder: everything about one run of the embedded system.

run.sqlite (everything that flowed), manifest.json, metrics.jsonl and .csv, TensorBoard events,
model.safetensors, report.html. One runner holds its lock; injectors and readers need none.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from infra.promises import Role
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.transport.embedded import Embedded as Log
from infra.workers import Inline
from schemas.configuration import Configuration, configuration
from schemas.errors import ConfigurationError, DataError
from schemas.messages import ModelName, Tensors
from schemas.topics import Names

VERSION = 1
FILES = (
    "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "manifest.json", "metrics.jsonl",
    "metrics.csv", "model.safetensors", "report.html",
)  # fmt: skip
LIBRARIES = ("torch", "numpy", "msgpack", "pydantic", "blake3", "zstandard")
DEFAULT_BYTES = 256 * 1024 * 1024
"""The largest message that a reader takes who has not read RunOpened yet."""


class RunFolder:
    """The files of a run, by what they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "run.sqlite"
        self.manifest = path / "manifest.json"
        self.model = path / "model.safetensors"
        self.report = path / "report.html"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.manifest.exists()

    def read_manifest(self) -> dict[str, Any]:
        """What is known of the run. Raises DataError when there is none, or of another version."""
        try:
            manifest = json.loads(self.manifest.read_text())
        except FileNotFoundError:
            raise DataError(
                f"{self.path} holds no run: `fedtwin ls` lists runs, `fedtwin run` begins one"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.manifest} cannot be read ({error}): restore it") from None
        if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
            found = manifest.get("version") if isinstance(manifest, dict) else "unknown"
            raise DataError(
                f"{self.path} is a run folder of version {found}, this program reads version"
                f" {VERSION}: use the program that wrote it"
            )
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest as a whole, so that it is never half written."""
        fresh = self.manifest.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump({"version": VERSION, **manifest}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.manifest)

    def configuration(self) -> Configuration:
        """The configuration that the run was begun with."""
        return configuration(self.read_manifest()["configuration"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one runner of this folder. Raises ConfigurationError when there is another."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(
                    f"{self.path} has a runner already: wait for it, or take another --run-dir"
                ) from None
            yield

    def remove_files(self) -> None:
        """Delete the files of a run, and nothing else that lies in the folder."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.glob("tensorboard/events.*"):
            events.unlink()

    def names(self) -> Names:
        """The names of the run's topics."""
        return Names(str(self.read_manifest()["run"]))

    def opened(self, readonly: bool = False) -> Log:
        """The log. Raises DataError when it is missing or broken."""
        if readonly and not self.log.exists():
            raise DataError(f"{self.log} is missing: restore it, or begin the run anew")
        return Log(self.log)

    def follow(self, role: Role, log: Log) -> Surroundings:
        """Let a role hear all that is in the log, without answering."""
        shelf = Shelf(log, self.names().federation("models"), DEFAULT_BYTES)
        letters = self.names().federation("dead-letters")
        around = Surroundings(log, shelf, DEFAULT_BYTES, letters)
        reader = System([_Listener(role)], around, Inline({}))
        while any(session.behind for session in reader.sessions):
            reader.step()
        return around

    def write_model(self, name: ModelName, tensors: Tensors, facts: Mapping[str, str]) -> None:
        """The model as safetensors, with its registry in the metadata."""
        arrays = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
        fresh = self.model.with_suffix(".new")
        save_file(
            arrays, str(fresh), {**facts, "version": str(name.version), "sha256": name.sha256}
        )
        fresh.replace(self.model)


class _Listener:
    """A role that only hears."""

    owns: tuple[str, ...] = ()
    over = False

    def __init__(self, role: Role) -> None:
        self._role = role
        self.name = role.name
        self.hear = role.hear
        self.done = role.done

    @property
    def lines(self) -> Any:
        return self._role.lines

    @property
    def topics(self) -> Any:
        return self._role.topics

    def answers(self) -> Iterator[Any]:
        yield from ()

    def waits(self) -> list[str]:
        return []


def software() -> dict[str, str]:
    """Versions of everything that the bytes of a model depend on, and the processor."""
    versions = {"fedtwin": _version("fedtwin"), "python": platform.python_version()}
    versions |= {name: _version(name) for name in LIBRARIES}
    return versions | {"sqlite": sqlite3.sqlite_version, "processor": processor()}


def processor() -> str:
    """The processor's name and the vector instructions that decide how floats are summed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = facts.get("flags", "").split()
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{facts.get('model name', platform.machine())} ({' '.join(vectors)})"


def has_bf16() -> bool:
    """Whether the processor computes in bfloat16 by itself."""
    return "bf16" in processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
