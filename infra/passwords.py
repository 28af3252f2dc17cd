"""Passwords that lie in files, read anew for each connection: one may be exchanged in mid-run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr


class Password:
    """What somebody proves who it is with: what a file holds, or what we were told."""

    def __init__(self, told: SecretStr | None, file: Path | None) -> None:
        """`told` is what it was when the program began; it stands while the file is not there."""
        self._known = told or SecretStr("")
        self._file = file

    def now(self) -> str:
        """The password as it is now."""
        if self._file is not None:
            with suppress(OSError, ValueError):  # it is just being exchanged
                self._known = SecretStr(written(self._file))
        return self._known.get_secret_value()

    def __repr__(self) -> str:
        return f"Password({self._file})"


def written(file: Path) -> str:
    """What a file holds but for the end of its line, which editors put there.

    Raises OSError where it cannot be read, ValueError where it holds nothing or no text.
    """
    text = file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("is empty")
    return text
