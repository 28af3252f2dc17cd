"""What SQLite complains of, in the words of our own tree of errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from schemas.errors import DataError, DiskFull, FedtwinError, RunFailed

BUSY_SECONDS = 30.0
"""How long a writer waits for another one; each of ours writes for milliseconds."""
UNREADABLE = {
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
}
UNREACHABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}


def in_words(error: sqlite3.Error, path: Path | None, what: str) -> FedtwinError | sqlite3.Error:
    """Our error for one of SQLite's; a mistake of our own code stays what it is.

    `what` says what the file should be, such as "log".
    """
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if code in UNREADABLE or primary in UNREADABLE:
        return DataError(
            f"{path} cannot be read as a {what} ({error}): restore it from a copy, or begin the"
            " run anew in another folder"
        )
    if primary in UNREACHABLE:
        return DataError(
            f"{path} cannot be opened to read and write ({error}): is the folder there, and is it"
            " yours to write in?"
        )
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DiskFull(f"{path}: {error}. What was written stands: make room, then resume")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunFailed(
            f"{path}: another program has not let go of it for {BUSY_SECONDS:g} s ({error}): end"
            " that one, then resume"
        )
    return error
