"""The log in one SQLite file, or in memory: everything that flowed, to be inspected with SQL.

Several processes may hold the file open: a run, an injector, a reader. A write is on the disk when
`append` returns (synchronous=FULL, write-ahead log). What is let go is gone from the file and from
the write-ahead log when `trim` or `forget` returns, because samples and prototypes are or nearly
are images; what a disk keeps below its files is beyond us.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.points import Hook, no_hook
from infra.sqlite import BUSY_SECONDS, InWords
from infra.transport.base import Stored, Trimmed
from schemas.codec import Record
from schemas.errors import DataError

APPLICATION = 0x46545457  # "FTTW", by which `file` and we know our own files
VERSION = 1
TRIM_BYTES = 64 * 1024 * 1024
TIME = "at"
"""Among a record's headers in the file: when it was appended, in seconds since 1970."""
LOT_BYTES = 64 * 1024 * 1024  # written at a time: whoever else writes waits so long
LETTERS = 100_000  # dead letters in a topic: some 50 MB, as much as on a broker
LOOK_SECONDS = 0.05
WIPE_MILLISECONDS = 200  # a reader in another process may hold us up, but not for long
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS records (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL,
    headers TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (topic, offset));
CREATE INDEX IF NOT EXISTS by_key ON records (topic, key);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Embedded:
    """The transport for one machine."""

    def __init__(self, path: Path | None = None, hook: Hook = no_hook) -> None:
        """Open or make the log; None keeps it in memory.

        Raises DataError when the file is no log, one of another version, or cannot be written.
        """
        self._hook = hook
        self._path = path
        self._in_words = InWords(path, "log")
        self._ids: dict[str, int] = {}
        self._read_up: dict[str, int] = {}
        """Topic → place behind which nothing was when we looked, and nothing came since."""
        self._others = -1
        self._unwiped = False
        with self._in_words:
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path, timeout=BUSY_SECONDS, isolation_level=None
            )
            try:
                self._set_up()
            except BaseException:
                self._connection.close()
                raise

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        return [offset for lot in _lots(records) for offset in self._append(topic, lot)]

    def _append(self, topic: str, records: Sequence[Record]) -> Sequence[int]:
        self._hook("append:before")
        at = round(time.time(), 3)
        with self._writing() as db:
            id = self._made(topic)
            (start,) = db.execute("SELECT next FROM topics WHERE id = ?", (id,)).fetchone()
            db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (
                    (id, start + i, each.key, json.dumps({**each.headers, TIME: at}), each.value)
                    for i, each in enumerate(records)
                ),
            )
            self._hook("append:written")
            db.execute("UPDATE topics SET next = ? WHERE id = ?", (start + len(records), id))
        self._read_up.pop(topic, None)
        self._hook("append:durable")
        if topic.split(".")[2:3] == ["dead-letters"]:
            self._let_old_letters_go(topic)
        return range(start, start + len(records))

    def _let_old_letters_go(self, topic: str) -> None:
        """Kept by size, as a broker does by itself; a fifth at a time, so that it is seldom."""
        end = self.end(topic)
        if end - self.first(topic) > LETTERS * 5 // 4:
            self.trim(topic, end - LETTERS)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        with self._in_words:
            if self._nothing_since(topic, place):
                return []
            found = self._from(topic, place, max_bytes)
            if (first := self.first(topic)) > place:  # asked last: it may have been trimmed between
                raise Trimmed(topic, place, first)
            if not found:
                self._read_up[topic] = place
            return found

    def first(self, topic: str) -> int:
        if (id := self._known(topic)) is None:
            return 0
        return self._number("SELECT first FROM topics WHERE id = ?", id) or 0

    def end(self, topic: str) -> int:
        if (id := self._known(topic)) is None:
            return 0
        last = self._number("SELECT max(offset) FROM records WHERE topic = ?", id)
        return self.first(topic) if last is None else last + 1

    def topics(self) -> list[str]:
        with self._in_words:
            rows = self._connection.execute("SELECT name FROM topics ORDER BY name")
            return [name for (name,) in rows]

    def forget(self, topic: str, *keys: str) -> None:
        if (id := self._known(topic)) is None:
            return
        with self._writing() as db:
            db.executemany(
                "DELETE FROM records WHERE topic = ? AND key = ?", ((id, key) for key in keys)
            )
            self._shrink()
        self._wipe()

    def trim(self, topic: str, before: int) -> None:
        """Records go in pieces of 64 MiB, so that nobody else has to wait long."""
        before = min(before, self.end(topic))
        if self.first(topic) >= before:
            return
        while self.first(topic) < before:
            self._hook("trim")
            with self._writing() as db:
                id = self._made(topic)
                upto = self._piece_end(id, before)
                db.execute("DELETE FROM records WHERE topic = ? AND offset < ?", (id, upto))
                db.execute("UPDATE topics SET first = max(first, ?) WHERE id = ?", (upto, id))
                self._shrink()
        self._wipe()

    def wait(self, seconds: float) -> None:
        """Another process may write at any moment, and nobody tells us: so never for long."""
        time.sleep(min(seconds, LOOK_SECONDS))

    def close(self) -> None:
        if self._unwiped:
            self._wipe()
        self._connection.close()

    # --- the file ---------------------------------------------------------------------------------

    def _set_up(self) -> None:
        db = self._connection
        if fresh := not self._number("SELECT count(*) FROM sqlite_master"):
            db.execute("PRAGMA page_size = 16384")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        else:
            self._check_version()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        if fresh:
            db.executescript(SCHEMA)

    def _check_version(self) -> None:
        if self._number("PRAGMA application_id") != APPLICATION:
            raise DataError(f"{self._path} is a database, but no log of a run: name another file")
        version = self._number("PRAGMA user_version")
        if version != VERSION:
            raise DataError(
                f"{self._path} is a log of version {version}, this program reads version {VERSION}:"
                " use the program that wrote it"
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing: also when we are killed half-way."""
        with self._in_words:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _shrink(self) -> None:
        """Give free pages back, in the transaction that freed them: so they are not written."""
        for _ in range(self._number("PRAGMA freelist_count") or 0):
            self._connection.execute("PRAGMA incremental_vacuum")  # a page each: Python steps once

    def _wipe(self) -> None:
        """Empty the write-ahead log, in which what was let go still stands.

        Where another process is reading just then, it is done the next time, or when the last
        process closes the file.
        """
        if self._path is None:
            return
        with self._in_words:
            self._connection.execute(f"PRAGMA busy_timeout = {WIPE_MILLISECONDS}")
            busy = self._number("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_SECONDS)}")
            self._unwiped = bool(busy)

    # --- rows -------------------------------------------------------------------------------------

    def _from(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
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
            told = json.loads(headers)
            at = told.pop(TIME, None)
            found.append(Stored(offset, Record(key, value, told), at))
            size += len(value)
            if size >= max_bytes:
                break
        rows.close()
        return found

    def _nothing_since(self, topic: str, place: int) -> bool:
        """Whether nothing can be there: a thousand quiet topics should cost next to nothing."""
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()
        if others != self._others:
            self._others = others
            self._read_up.clear()
        return self._read_up.get(topic) == place

    def _piece_end(self, id: int, before: int) -> int:
        """Up to where to trim at once."""
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
        """The number of a topic that was written to."""
        if topic not in self._ids:
            id = self._number("SELECT id FROM topics WHERE name = ?", topic)
            if id is None:
                return None
            self._ids[topic] = id
        return self._ids[topic]

    def _made(self, topic: str) -> int:
        """The number of a topic, which begins with this transaction where there was none."""
        if (id := self._known(topic)) is not None:
            return id
        made = self._connection.execute("INSERT INTO topics (name) VALUES (?)", (topic,))
        assert made.lastrowid is not None
        return made.lastrowid

    def _number(self, query: str, *values: str | int) -> int | None:
        """The first number that a query gives, if it gives one."""
        with self._in_words:
            row = self._connection.execute(query, values).fetchone()
            return None if row is None else row[0]


def _lots(records: Iterable[Record]) -> Iterator[list[Record]]:
    lot: list[Record] = []
    size = 0
    for each in records:
        lot.append(each)
        size += len(each.value)
        if size >= LOT_BYTES:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot
