"""The log in one SQLite file, or in memory: everything that flowed, to be inspected with SQL.

Several processes may hold the file open: a run, an injector, a reader. A write is on the disk when
`append` returns (synchronous=FULL, write-ahead log), and what is let go is overwritten
(secure_delete), because samples and prototypes are or nearly are images.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.points import Hook, no_hook
from infra.transport.base import Stored, Trimmed
from schemas.codec import Record
from schemas.errors import DataError, DiskFull

VERSION = 1
TRIM_BYTES = 64 * 1024 * 1024
SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS records (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL,
    headers TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (topic, offset));
CREATE INDEX IF NOT EXISTS by_key ON records (topic, key);
"""


class Embedded:
    """The transport for one machine."""

    def __init__(self, path: Path | None = None, hook: Hook = no_hook) -> None:
        """Open or make the log; None keeps it in memory.

        Raises DataError when the file is no log, or one of another version.
        """
        self._hook = hook
        self._path = path
        self._ids: dict[str, int] = {}
        self._connection = sqlite3.connect(
            ":memory:" if path is None else path, timeout=30, isolation_level=None
        )
        try:
            self._set_up()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise DataError(
                f"{path} cannot be read as a log ({error}): restore it from a copy, or begin the run"
                " anew in another folder"
            ) from None

    def append(self, topic: str, records: Sequence[Record]) -> int:
        self._hook("append:before")
        with self._writing() as db:
            id = self._id(topic)
            (start,) = db.execute("SELECT next FROM topics WHERE id = ?", (id,)).fetchone()
            db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (
                    (id, start + i, each.key, json.dumps(dict(each.headers)), each.value)
                    for i, each in enumerate(records)
                ),
            )
            self._hook("append:written")
            db.execute("UPDATE topics SET next = ? WHERE id = ?", (start + len(records), id))
        self._hook("append:durable")
        return int(start)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        if (first := self.first(topic)) > place:
            raise Trimmed(topic, place, first)
        found: list[Stored] = []
        size = 0
        if (id := self._known(topic)) is None:
            return found
        rows = self._connection.execute(
            "SELECT offset, key, headers, value FROM records"
            " WHERE topic = ? AND offset >= ? ORDER BY offset",
            (id, place),
        )
        for offset, key, headers, value in rows:
            found.append(Stored(offset, Record(key, value, json.loads(headers))))
            size += len(value)
            if size >= max_bytes:
                break
        rows.close()
        return found

    def first(self, topic: str) -> int:
        if (id := self._known(topic)) is None:
            return 0
        row = self._connection.execute("SELECT first FROM topics WHERE id = ?", (id,)).fetchone()
        return int(row[0])

    def end(self, topic: str) -> int:
        if (id := self._known(topic)) is None:
            return 0
        row = self._connection.execute(
            "SELECT max(offset) FROM records WHERE topic = ?", (id,)
        ).fetchone()
        return self.first(topic) if row[0] is None else int(row[0]) + 1

    def topics(self) -> list[str]:
        rows = self._connection.execute("SELECT name FROM topics ORDER BY name")
        return [name for (name,) in rows]

    def forget(self, topic: str, key: str) -> None:
        if (id := self._known(topic)) is None:
            return
        with self._writing() as db:
            db.execute("DELETE FROM records WHERE topic = ? AND key = ?", (id, key))
        self._shrink()

    def trim(self, topic: str, before: int) -> None:
        """Records go in pieces of 64 MiB, so that a full log never needs a long pause."""
        before = min(before, self.end(topic))
        while self.first(topic) < before:
            self._hook("trim")
            with self._writing() as db:
                id = self._id(topic)
                upto = self._trim_to(id, before)
                db.execute("DELETE FROM records WHERE topic = ? AND offset < ?", (id, upto))
                db.execute("UPDATE topics SET first = max(first, ?) WHERE id = ?", (upto, id))
            self._shrink()

    def close(self) -> None:
        self._connection.close()

    def _set_up(self) -> None:
        db = self._connection
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            self._connection.close()
            raise DataError(
                f"{self._path} is a log of version {version}, this program reads version {VERSION}:"
                " use the program that wrote it"
            )
        if version == 0:
            db.execute("PRAGMA page_size = 16384")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._undo()
            if "full" in str(error) or "disk I/O" in str(error):
                raise DiskFull(
                    f"{self._path}: {error}. What was written stands: make room, then resume"
                ) from None
            raise
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _shrink(self) -> None:
        for _ in self._connection.execute("PRAGMA incremental_vacuum"):
            pass

    def _trim_to(self, id: int, before: int) -> int:
        size = 0
        rows = self._connection.execute(
            "SELECT offset, length(value) FROM records WHERE topic = ? AND offset < ?"
            " ORDER BY offset",
            (id, before),
        )
        for offset, length in rows:
            size += length
            if size >= TRIM_BYTES:
                rows.close()
                return int(offset) + 1
        return before

    def _known(self, topic: str) -> int | None:
        if topic not in self._ids:
            row = self._connection.execute(
                "SELECT id FROM topics WHERE name = ?", (topic,)
            ).fetchone()
            if row is None:
                return None
            self._ids[topic] = row[0]
        return self._ids[topic]

    def _id(self, topic: str) -> int:
        self._connection.execute("INSERT OR IGNORE INTO topics (name) VALUES (?)", (topic,))
        row = self._connection.execute("SELECT id FROM topics WHERE name = ?", (topic,)).fetchone()
        return int(row[0])
