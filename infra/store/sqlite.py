"""Old models in SQLite: in the run's own file, in another, or in memory.

A commit here does not wait for the disk: what a power cut takes is put back from the log.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from infra.sqlite import BUSY_SECONDS, InWords
from infra.store.base import About
from schemas.codec import plain, read_plain
from schemas.errors import DataError, Refused
from schemas.messages import Groups, ModelName
from schemas.tensors import groups_sha256

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS old_models (
        version INTEGER NOT NULL, sha256 TEXT NOT NULL, stage INTEGER NOT NULL, value BLOB NOT NULL,
        round INTEGER NOT NULL DEFAULT -1, PRIMARY KEY (version, sha256))
    """,
    """
    CREATE TABLE IF NOT EXISTS old_scores (
        version INTEGER NOT NULL, sha256 TEXT NOT NULL, stage INTEGER NOT NULL, score REAL NOT NULL,
        PRIMARY KEY (version, sha256, stage))
    """,
)
PUT = """
INSERT INTO old_models (version, sha256, stage, round, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (version, sha256) DO UPDATE SET value = excluded.value,
    stage = iif(excluded.stage < 0, stage, excluded.stage),
    round = iif(excluded.round < 0, round, excluded.round)
"""
SCORE = """
INSERT OR REPLACE INTO old_scores (version, sha256, stage, score)
SELECT version, sha256, ?, ? FROM old_models WHERE version = ? AND sha256 = ?
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
                self._lay_out()
            except sqlite3.Error:
                self._db.close()
                raise

    def put(self, model: ModelName, groups: Groups, stage: int, round: int = -1) -> None:
        value = plain({"version": model.version}, groups)
        with self._in_words:
            self._db.execute(PUT, (model.version, model.sha256, stage, round, value))

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
            for table in ("old_scores", "old_models"):  # no score outlives its model
                self._db.execute(
                    f"DELETE FROM {table} WHERE version = ? AND sha256 = ?",
                    (model.version, model.sha256),
                )

    def score(self, model: ModelName, stage: int, score: float) -> None:
        with self._in_words:
            self._db.execute(SCORE, (stage, score, model.version, model.sha256))

    def about(self, model: ModelName) -> About:
        with self._in_words:
            stage, round = self._row("stage, round", model)
            scores = self._db.execute(
                "SELECT stage, score FROM old_scores WHERE version = ? AND sha256 = ?",
                (model.version, model.sha256),
            ).fetchall()
        return About(stage, round, dict(scores))

    def close(self) -> None:
        self._db.close()

    def _lay_out(self) -> None:
        for table in SCHEMA:
            self._db.execute(table)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(old_models)")}
        if "round" not in columns:  # a run that was begun before rounds were told
            self._db.execute("ALTER TABLE old_models ADD COLUMN round INTEGER NOT NULL DEFAULT -1")

    def _read(self, model: ModelName) -> Groups:
        try:
            with self._in_words:
                (value,) = self._row("value", model)
            return read_plain(value)[1]
        except (DataError, Refused):
            raise LookupError(f"version {model.version} in the store is damaged") from None

    def _row(self, columns: str, model: ModelName) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._db.execute(
            f"SELECT {columns} FROM old_models WHERE version = ? AND sha256 = ?",
            (model.version, model.sha256),
        ).fetchone()
        if row is None:
            raise LookupError(f"version {model.version} is not in the store")
        return row
