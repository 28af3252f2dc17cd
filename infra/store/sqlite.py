"""Old models in SQLite: in the run's own file, in another, or in memory.

A commit here does not wait for the disk: what a power cut takes is put back from the log.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from infra.sqlite import BUSY_SECONDS, InWords
from schemas.codec import plain, read_plain
from schemas.errors import DataError, Refused
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256

SCHEMA = """
CREATE TABLE IF NOT EXISTS old_models (
    version INTEGER NOT NULL, sha256 TEXT NOT NULL, stage INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (version, sha256))
"""


class SqliteStore:
    """The store for one machine; None keeps it in memory."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the store. Raises DataError when the file is no database."""
        self._in_words = InWords(path, "store of old models")
        with self._in_words:
            self._db = sqlite3.connect(
                ":memory:" if path is None else path, timeout=BUSY_SECONDS, isolation_level=None
            )
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute(SCHEMA)
            except sqlite3.Error:
                self._db.close()
                raise

    def put(self, model: ModelName, groups: Groups, stage: int) -> None:
        value = plain({"version": model.version}, groups)
        with self._in_words:
            self._db.execute(
                "INSERT OR REPLACE INTO old_models VALUES (?, ?, ?, ?)",
                (model.version, model.sha256, stage, value),
            )

    def get(self, model: ModelName) -> Groups:
        groups = self._read(model)
        if groups_sha256(groups) != model.sha256:
            raise LookupError(f"version {model.version} in the store is not what its hash says")
        return groups

    def list(self) -> list[ModelName]:
        with self._in_words:
            rows = self._db.execute(
                "SELECT version, sha256 FROM old_models ORDER BY version, sha256"
            )
            return [ModelName(version=version, sha256=sha256) for version, sha256 in rows]

    def forget(self, model: ModelName) -> None:
        with self._in_words:
            self._db.execute(
                "DELETE FROM old_models WHERE version = ? AND sha256 = ?",
                (model.version, model.sha256),
            )

    def close(self) -> None:
        self._db.close()

    def _read(self, model: ModelName) -> Groups:
        try:
            with self._in_words:
                row = self._db.execute(
                    "SELECT value FROM old_models WHERE version = ? AND sha256 = ?",
                    (model.version, model.sha256),
                ).fetchone()
            if row is not None:
                return read_plain(row[0])[1]
        except (DataError, Refused):
            raise LookupError(f"version {model.version} in the store is damaged") from None
        raise LookupError(f"version {model.version} is not in the store")
