"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    fine: bool
    needed: bool
    """By the embedded system; what is not needed is told for information."""
    cause: str = ""
    remedy: str = ""
    away: bool = False
    """A service whose address is known, and that cannot be reached there."""
