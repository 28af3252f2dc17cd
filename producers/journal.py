"""Which file has which number in a source: written, and on the disk, before anything is sent.

A line of JSON for each file, behind one that says whose it is. Numbers count from 0. A line that a
crash cut off is no line: nothing of it was sent.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError, DataError, DiskFull

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that has a number."""

    number: int
    file: str
    """Its path in the folder, with `/` between the parts; other bytes than UTF-8 as Python has
    them."""
    uid: str | None
    """The federation's name for its class; None where it cannot be sent."""
    reason: str | None = None
    """Why not."""
    state: tuple[int, int] | None = None
    """Bytes and time of a file that cannot be sent, in nanoseconds: another one may come under its
    name."""

    @property
    def line(self) -> dict[str, Any]:
        """As it is kept."""
        return {key: value for key, value in asdict(self).items() if key != "state" or value}


class Journal:
    """The numbers of one source, which one process at a time gives."""

    def __init__(
        self,
        path: Path,
        about: dict[str, str],
        source: str,
        *,
        point: Callable[[str], None] = lambda point: None,
    ) -> None:
        """Open it, or begin it for this source. `about` says whose it is: run, entity, folder.

        `point` is called before a number is given, when it is written, and when it is on the disk.
        Raises ConfigurationError where another process has it or it is somebody else's or nothing
        can be written there, DataError where it is damaged.
        """
        self.path = path
        self.files: set[str] = set()
        """Every file that has a number."""
        self.refused: dict[str, Entry] = {}
        """Those of them that cannot be sent, with their newest number."""
        self.count = 0
        self._point = point
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{path} is kept by another process: one follows a folder for an entity"
            ) from None
        except OSError as error:
            raise _not_written(path, error) from None
        self.source = source
        self._whole = 0
        """Bytes of all lines that are whole."""
        self._begin(about)

    def waiting(self, sent: int) -> list[Entry]:
        """The entries from a number on, which may not have been sent."""
        return [entry for entry in self._entries() if entry.number >= sent]

    def number(self, files: Sequence[tuple[Any, ...]]) -> list[Entry]:
        """Give files the next numbers: each with its class uid, the reason why it has none, and its
        state then.

        They are on the disk when this returns. Raises DiskFull and ConfigurationError where nothing
        can be written.
        """
        entries = [Entry(self.count + i, *each) for i, each in enumerate(files)]
        self._point("number:before")
        self._append([each.line for each in entries])
        self._point("number:durable")
        for each in entries:
            self._note(each)
        return entries

    def _note(self, entry: Entry) -> None:
        self.count += 1
        self.files.add(entry.file)
        self.refused.pop(entry.file, None)
        if entry.uid is None:
            self.refused[entry.file] = entry

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    # --- the file ---------------------------------------------------------------------------------

    def _begin(self, about: dict[str, str]) -> None:
        lines = self._lines()
        if not lines:
            self._append([{"schema": SCHEMA, **about, "source": self.source}])
            _settle(self.path.parent)
            return
        head = lines[0]
        if head.get("schema") != SCHEMA:
            raise DataError(
                f"{self.path} is a journal of schema {head.get('schema')}, this program keeps"
                f" schema {SCHEMA}: use the program that wrote it"
            )
        if other := [key for key, value in about.items() if head.get(key) != value]:
            raise ConfigurationError(
                f"{self.path} is of another {other[0]}: {head.get(other[0])}, not"
                f" {about[other[0]]}: name another --state"
            )
        self.source = str(head["source"])
        for entry in self._entries():
            if entry.number != self.count:
                raise DataError(
                    f"{self.path} goes from number {self.count - 1} to {entry.number}: restore it"
                )
            self._note(entry)

    def _entries(self) -> list[Entry]:
        try:
            return [_entry(line) for line in self._lines()[1:]]
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path} is damaged ({error}): restore it") from None

    def _lines(self) -> list[dict[str, Any]]:
        """All whole lines; what a crash cut off is taken away."""
        self._file.seek(0)
        content = self._file.readall()
        assert content is not None
        self._whole = content.rfind(b"\n") + 1
        if self._whole < len(content):
            self._file.truncate(self._whole)
        try:
            found = [json.loads(line) for line in content[: self._whole].splitlines()]
        except ValueError as error:
            raise DataError(f"{self.path} is damaged ({error}): restore it") from None
        if not all(isinstance(each, dict) for each in found):
            raise DataError(f"{self.path} is damaged: restore it")
        return found

    def _append(self, lines: Sequence[dict[str, Any]]) -> None:
        content = b"".join(json.dumps(each).encode("ascii") + b"\n" for each in lines)
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
            self._point("number:written")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._whole)  # half a line would join the next one
            raise _not_written(self.path, error) from None
        self._whole += len(content)


def _entry(line: dict[str, Any]) -> Entry:
    """Raises TypeError and ValueError for what is none."""
    if line.get("state") is not None:
        size, time = line["state"]
        line = line | {"state": (int(size), int(time))}
    return Entry(**line)


def _settle(folder: Path) -> None:
    """Have the disk remember that the folder holds a new file."""
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    except OSError:
        pass  # a network's disk may not know how
    finally:
        os.close(held)


def _not_written(path: Path, error: OSError) -> DiskFull | ConfigurationError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: {error.strerror}. What was written stands: make room")
    return ConfigurationError(
        f"{path} cannot be written to ({error.strerror}): --state names another folder"
    )
