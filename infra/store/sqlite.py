"""Old models in a SQLite file beside the log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from schemas.codec import plain, read_plain
from schemas.errors import DiskFull, Refused
from schemas.messages import ModelName, Tensors
from schemas.tensors import model_sha256

SCHEMA = """
CREATE TABLE IF NOT EXISTS old_models (
    version INTEGER NOT NULL, sha256 TEXT NOT NULL, stage INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (version, sha256))
"""


class SqliteStore:
    """The store for one machine; None keeps it in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._db = sqlite3.connect(
            ":memory:" if path is None else path, timeout=30, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(SCHEMA)

    def put(self, model: ModelName, tensors: Tensors, stage: int) -> None:
        value = plain({"version": model.version}, {"model": tensors})
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO old_models VALUES (?, ?, ?, ?)",
                (model.version, model.sha256, stage, value),
            )
        except sqlite3.OperationalError as error:
            raise DiskFull(f"the store of old models: {error}. Make room, then resume") from None

    def get(self, model: ModelName) -> Tensors:
        row = self._db.execute(
            "SELECT value FROM old_models WHERE version = ? AND sha256 = ?",
            (model.version, model.sha256),
        ).fetchone()
        if row is None:
            raise LookupError(f"version {model.version} is not in the store")
        try:
            tensors = read_plain(row[0])[1]["model"]
        except (Refused, KeyError):
            raise LookupError(f"version {model.version} in the store is damaged") from None
        if model_sha256(tensors) != model.sha256:
            raise LookupError(f"version {model.version} in the store is not what its hash says")
        return tensors

    def list(self) -> list[ModelName]:
        rows = self._db.execute("SELECT version, sha256 FROM old_models ORDER BY version, sha256")
        return [ModelName(version=version, sha256=sha256) for version, sha256 in rows]

    def forget(self, model: ModelName) -> None:
        self._db.execute(
            "DELETE FROM old_models WHERE version = ? AND sha256 = ?", (model.version, model.sha256)
        )

    def close(self) -> None:
        """Let the file go."""
        self._db.close()
