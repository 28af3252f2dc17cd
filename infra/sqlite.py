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


class InWords:
    """Whatever SQLite complains of inside this context is told in our words.

    `what` says what the file should be, such as "log". Held and entered as often as anybody likes:
    reading goes through it, and a context made anew each time would cost more than the query.
    """

    def __init__(self, path: Path | None, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        told = in_words(error, self._path, self._what) if isinstance(error, sqlite3.Error) else None
        if told is not None:
            raise told from None


def in_words(error: sqlite3.Error, path: Path | None, what: str) -> FedtwinError | None:
    """Our error for one of SQLite's; None for a mistake of our own code."""
    where = path or f"the {what} in memory"
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if code in UNREADABLE or primary in UNREADABLE:
        return DataError(
            f"{where} cannot be read as a {what} ({error}): restore it from a copy, or begin the"
            " run anew in another folder"
        )
    if primary in UNREACHABLE:
        return DataError(
            f"{where} cannot be opened to read and write ({error}): is the folder there, and is it"
            " yours to write in?"
        )
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DiskFull(f"{where}: {error}. What was written stands: make room, then resume")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunFailed(
            f"{where}: another program has not let go of it for {BUSY_SECONDS:g} s ({error}): end"
            " that one, then resume"
        )
    return None
