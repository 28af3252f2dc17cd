"""A run folder: everything about one run of the embedded system.

run.sqlite (everything that flowed), manifest.json, metrics.jsonl and .csv, TensorBoard events,
model.safetensors, report.html. One runner holds its lock; injectors and readers need none.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from safetensors.numpy import save

import learning
import schemas
import twins
from experiments.observer import Observer
from infra.promises import Answer, Arrived, Result, Role
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.transport.embedded import Embedded as Log
from infra.workers import Inline
from producers.datasets import moved, placed
from producers.entity import SOURCE
from schemas.configuration import Configuration, configuration
from schemas.datasets import own_data
from schemas.errors import ConfigurationError, DataError, DiskFull, FedtwinError
from schemas.line import RoundsLine
from schemas.messages import Decision, ImageBatch, ModelName, StreamMarked, Tensors, TwinState
from schemas.schedule import SITE
from schemas.tensors import model_sha256
from schemas.topics import Names

VERSION = 1
EVENTS = "tensorboard/events.*"
PROTOTYPES = "prototypes-*.safetensors*"
"""With a star at the end for one that was being written when its runner was killed."""
LOCK_TRIES, LOCK_WAIT = 5, 0.05
"""A look at the lock holds it for a moment, so a runner asks more than once; seconds."""
OPENING, LOGS = "opening.json", "logs"
"""Of a run over Kafka: what it was opened with, and what its programs said."""
FILES = (
    "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "manifest.json", "metrics.jsonl",
    "metrics.csv", "model.safetensors", "report.html", OPENING,
)  # fmt: skip
CPUINFO = Path("/proc/cpuinfo")
BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions of which either computes in bfloat16."""
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
        """Replace the manifest as a whole, so that it is never half written.

        Raises DiskFull, and ConfigurationError where the folder cannot be written to.
        """
        text = json.dumps({"version": VERSION, **manifest}, indent=2)
        write_whole(self.manifest, text.encode())

    def configuration(self) -> Configuration:
        """The configuration that the run was begun with."""
        return configuration(self.read_manifest()["configuration"])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one runner of this folder. Raises ConfigurationError when there is another."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise cannot_write(self.path, error) from None
        with lock:
            if not _taken(lock):
                raise ConfigurationError(
                    f"{self.path} has a runner already: wait for it, or take another --run-dir"
                )
            yield

    @property
    def running(self) -> bool:
        """Whether a runner holds the lock now. Raises DataError where nobody can tell."""
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise DataError(
                f"{self.path / 'lock'} cannot be read ({error.strerror}), so nobody can tell"
                " whether the run goes on: have its owner let you read it"
            ) from None
        return False

    @property
    def size(self) -> int:
        """Bytes that the files of the run take."""
        return sum(file.stat().st_size for file in self._files() if file.exists())

    def remove_files(self) -> None:
        """Delete the files of a run, and nothing else that lies in the folder."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        several = [
            file
            for form in (EVENTS, PROTOTYPES, f"{LOGS}/*.log")
            for file in sorted(self.path.glob(form))
        ]
        begun = [self.path / f"{name}.new" for name in FILES]  # by who was killed while writing it
        return [self.path / name for name in FILES] + begun + several

    def names(self) -> Names:
        """The names of the run's topics."""
        return Names(str(self.read_manifest()["run"]))

    def data_name(self, data_dir: Path) -> str:
        """By which name `load` finds the data that the run began with.

        In a data folder other than the run's own, a file or folder of one's own that lies there
        comes first: it was moved. Raises DataError when it is neither there nor where it was.
        """
        manifest = self.read_manifest()
        name = manifest["configuration"]["dataset"]
        began_in = Path(manifest["data_dir"])
        place = manifest["data"].get("place") or placed(name, began_in)
        if data_dir != began_in:
            place = moved(place, name, data_dir)
        _, path = own_data(place)
        if path and not Path(path).exists():
            raise DataError(
                f"{path} is gone, where the run found its data: put it back, or name the folder"
                " that holds it now with --data-dir"
            )
        return place

    def opened(self) -> Log:
        """The log, made if it is not there. Raises DataError when it is broken."""
        return Log(self.log)

    def observed(self) -> Observer:
        """All that is in the log, as an observer without test images hears it; needs no lock.

        Raises DataError when the log is broken. A run that has no log yet was not opened.
        """
        observer = Observer(self.names(), SITE, None)
        if self.log.exists():
            with closing(self.opened()) as log:
                self._tell(observer, log)
        return observer

    def decided(self) -> RoundsLine:
        """The decisions of `rounds` alone: quick, also where much was sent. Raises DataError."""
        line = RoundsLine()

        def hear(arrived: Arrived) -> None:
            if isinstance(arrived.message, Decision):
                line.hear(arrived.message, arrived.hash)

        self._listen(hear, self.names().federation("rounds"))
        return line

    def streamed(self, entity: str, stage: int) -> bool:
        """Whether all that a scheduled stage streams to an entity is in its topic, mark and all."""
        marks = set(range(len(self.decided().stages)))
        if stage in marks:
            return True  # it has begun, so every mark of it was judged

        def hear(arrived: Arrived) -> None:
            match arrived.message:
                case StreamMarked(source=source, stage=int() as marked) if source == SOURCE:
                    marks.add(marked)
                case TwinState() as state:  # of a stream that was trimmed, its twin remembers them
                    marks.update(marked for marked, _, _ in state.marks)

        names = self.names()
        self._listen(hear, *(names.of_entity(each, entity) for each in ("samples", "twin-state")))
        return stage in marks

    def sources(self, entity: str) -> set[str]:
        """The sources of all that ever streamed to an entity, whole or in part."""
        found: set[str] = set()

        def hear(arrived: Arrived) -> None:
            match arrived.message:
                case ImageBatch(source=source):
                    found.add(source)
                case TwinState(sources=sources):  # also of what was trimmed since
                    found.update(sources)

        names = self.names()
        self._listen(hear, *(names.of_entity(each, entity) for each in ("samples", "twin-state")))
        return found

    def _listen(self, hear: Callable[[Arrived], None], *topics: str) -> None:
        if self.log.exists():
            with closing(self.opened()) as log:
                self._tell(Listener(hear, topics), log)

    def _tell(self, role: Role, log: Log) -> None:
        """Let a role that answers nothing hear all that is in the log."""
        shelf = Shelf(log, self.names().federation("models"), DEFAULT_BYTES)
        reader = System([role], Surroundings(log, shelf, DEFAULT_BYTES), Inline({}))
        while any(session.behind for session in reader.sessions):
            reader.step()

    def write_model(self, name: ModelName, tensors: Tensors, facts: Mapping[str, str]) -> None:
        """The model as safetensors, with its registry in the metadata.

        Its `sha256` there is that of these tensors, without what a strategy keeps beside them.
        Raises DiskFull, and ConfigurationError where the folder cannot be written to.
        """
        # not ascontiguousarray, which makes a row of a single number
        arrays = {key: np.asarray(array, order="C") for key, array in tensors.items()}
        own = {"version": str(name.version), "sha256": model_sha256(tensors)}
        write_whole(self.model, as_safetensors(arrays, {**facts, **own}))


def is_done(manifest: Mapping[str, Any], line: RoundsLine) -> bool:
    """Whether a run is over, and its folder tells of all that it came to.

    A manifest may be older than the log: one that was done before an injection, say.
    """
    if manifest["state"] != "done" or not line.over or line.model is None:
        return False
    return bool(manifest["model_sha256"] == line.model.sha256)


class Listener:
    """A role that hears some topics, and says nothing."""

    name = "reader"
    owns = ()
    over = False

    def __init__(self, heard: Callable[[Arrived], None], topics: Sequence[str]) -> None:
        self._heard = heard
        self.lines = self.topics = topics

    def hear(self, arrived: Arrived) -> None:
        self._heard(arrived)

    def answers(self) -> Iterator[Answer]:
        yield from ()

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        yield from ()

    def waits(self) -> list[str]:
        return []


def as_safetensors(tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> bytes:
    """Tensors and what is to be known of them, as the same bytes whenever they are the same.

    By itself the library writes its metadata in another order each time.
    """
    content = save(dict(tensors), dict(facts))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, so that it is never half written, not even when the power goes.

    Raises DiskFull, and ConfigurationError where the folder cannot be written to.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _settle(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()  # half a file takes room that somebody has to make
        raise cannot_write(path.parent, error) from None


def add_to(path: Path, content: bytes) -> None:
    """Write on at the end of a file. Raises what `write_whole` raises."""
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path.parent, error) from None


def _settle(folder: Path) -> None:
    """Have the disk remember which files a folder holds."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's disk may not know how
            os.fsync(held)
    finally:
        os.close(held)


def cannot_write(path: Path, error: OSError) -> FedtwinError:
    """What to tell of a file or folder that could not be written: a full disk, or a wrong place."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{path}: {error.strerror}. What was written stands: make room, then resume"
        )
    why = error.strerror or str(error)
    return ConfigurationError(f"{path} cannot be written to ({why}): name another place")


def _taken(lock: IO[str]) -> bool:
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_WAIT)
        else:
            return True
    return False


@cache
def code() -> str:
    """The hash of our own code that trains: `learning`, `schemas` and the twins' learner."""
    own = [file for each in (learning, schemas) for file in Path(each.__path__[0]).rglob("*.py")]
    files = sorted([*own, Path(twins.__path__[0]) / "learner.py"])
    return blake3(b"".join(file.read_bytes() for file in files)).hexdigest()


def software() -> dict[str, str]:
    """Versions of everything that the bytes of a model depend on, own code, and the processor."""
    versions = {"fedtwin": _version("fedtwin"), "python": platform.python_version()}
    versions |= {name: _version(name) for name in LIBRARIES}
    versions["code"] = code()
    return versions | {"sqlite": sqlite3.sqlite_version, "processor": processor()}


def processor() -> str:
    """The processor's name and the vector instructions that decide how floats are summed."""
    told = _cpuinfo()
    if not told:
        return platform.processor() or platform.machine()
    flags = told.get("flags", "").split()
    vectors = [flag for flag in ("avx2", "avx512f", *BF16) if flag in flags]
    return f"{told.get('model name', platform.machine())} ({' '.join(vectors)})"


def has_bf16() -> bool:
    """Whether the processor computes in bfloat16 by itself."""
    return not set(BF16).isdisjoint(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the last processor; nothing elsewhere."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
