"""Looks at the machine: what a run of the embedded system needs, and what else is there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.api import RUNS, cores
from experiments.check import Check
from experiments.folder import has_bf16, processor
from infra.native.kafka import JAVA as OLDEST_JAVA
from infra.native.kafka import find_java
from infra.transport.embedded import Embedded as Log
from producers.datasets import holdings
from schemas.codec import Record
from schemas.errors import FedtwinError, ServiceError

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)
NEEDED_MEMORY = 2 * 10**9
NEEDED_DISK = 10**9
"""Bytes for the smaller recipes; `run` says what a larger one takes."""
ASK_TORCH = """
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "threads": torch.get_num_threads(),
    "instructions": torch.backends.cpu.get_cpu_capability(),
}))
"""
TORCH_SECONDS = 120


def checks(data_dir: Path) -> Iterator[Check]:
    """Look at everything, one after the other."""
    yield _python()
    yield _torch()
    yield _bf16()
    yield Check("cores", f"{cores()}: so many trainings side by side", True, True)
    yield _memory()
    yield _disk()
    yield _log()
    yield from _data(data_dir)
    yield from _services()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check(
        "python", version, fine, True, "" if fine else f"{wanted} or newer is needed",
        "" if fine else f"install Python {wanted} and make a new environment with it",
    )  # fmt: skip


def _torch() -> Check:
    """In a process of its own, as trainings are: what is broken there breaks nothing here."""
    remedy = "install it anew: pip install --force-reinstall torch"
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK_TORCH],
            capture_output=True, text=True, timeout=TORCH_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check("torch", "no answer", False, True, f"silent for {TORCH_SECONDS} s", remedy)
    if done.returncode != 0:
        cause = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("torch", "cannot be imported", False, True, cause, remedy)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found = f"{told['version']}, {told['instructions']}, up to {told['threads']} threads"
    if tuple(int(part) for part in told["version"].split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return Check("torch", found, False, True, f"{oldest} or newer is needed",
                     "pip install --upgrade torch")  # fmt: skip
    return Check("torch", found, True, True)


def _bf16() -> Check:
    if has_bf16():
        return Check("bf16", f"yes: {processor()}", True, False)
    return Check("bf16", f"no: {processor()}", False, False,
                 "the processor has no bf16 instructions", "leave precision at fp32")  # fmt: skip


def _memory() -> Check:
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Check("memory", "unknown on this system", True, True)
    fine = whole >= NEEDED_MEMORY
    return Check(
        "memory", _gigabytes(whole), fine, True,
        "" if fine else f"a small run takes about {_gigabytes(NEEDED_MEMORY)}",
        "" if fine else "take --workers 1, or a larger machine",
    )  # fmt: skip


def _disk() -> Check:
    folder = RUNS.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    fine = free >= NEEDED_DISK
    return Check(
        "disk", f"{_gigabytes(free)} free in {folder}", fine, True,
        "" if fine else f"a small run takes up to {_gigabytes(NEEDED_DISK)}",
        "" if fine else "make room, or name another folder with --run-dir",
    )  # fmt: skip


def _log() -> Check:
    """Whether a log can be written and read here; some network folders cannot."""
    found = f"sqlite {sqlite3.sqlite_version}"
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=Path.cwd()) as folder:
            log = Log(Path(folder) / "run.sqlite")
            log.append("fedtwin.doctor.metrics", [Record("key", b"value")])
            held = log.read("fedtwin.doctor.metrics", 0, 1)
            log.close()
    except (FedtwinError, sqlite3.Error, OSError) as error:
        return Check("log", found, False, True, f"no log can be written here: {error}",
                     "run in a folder on a local disk that you may write to")  # fmt: skip
    fine = [each.record.value for each in held] == [b"value"]
    return Check("log", found, fine, True, "" if fine else "what was written is not what was read",
                 "" if fine else "run in a folder on a local disk")  # fmt: skip


def _data(data_dir: Path) -> Iterator[Check]:
    for each in holdings(data_dir):
        needed = each.where is None
        found = f"in {each.where}" if each.where and each.present else "with the installation"
        if each.present:
            yield Check(f"data {each.name}", found, True, needed)
        else:
            yield Check(f"data {each.name}", "not here", False, needed,
                        f"{each.where} does not exist", each.remedy)  # fmt: skip


def _services() -> Iterator[Check]:
    """What only runs over Kafka use."""
    yield _java()
    where = shutil.which("redis-server")
    cause = "redis-server is not on the path"
    yield _optional("redis-server", where, cause, "install Redis, or name a server elsewhere")
    missing = [name for name in ("kafka", "crc32c", "redis") if not importlib.util.find_spec(name)]
    cause = f"not installed: {', '.join(missing)}"
    there = None if missing else "kafka-python with crc32c, redis"
    yield _optional("clients", there, cause, "pip install 'fedtwin[kafka]'")
    if not missing:
        from experiments.services import services

        yield from services()


def _java() -> Check:
    """Only `make up` needs it; looked for where that looks, which is JAVA_HOME first."""
    remedy = f"install a Java runtime of version {OLDEST_JAVA} or newer, where JAVA_HOME leads"
    try:
        java = find_java()
    except ServiceError as error:
        return Check("java", "not here", False, False, str(error).partition(". ")[0], remedy)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    return Check("java", f"{said.splitlines()[0]}: {java}", True, False)


def _optional(name: str, found: str | None, cause: str, remedy: str) -> Check:
    if found:
        return Check(name, found, True, False)
    return Check(name, "not here", False, False, cause, remedy)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
