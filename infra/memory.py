"""How much memory this process holds; and giving back what is free, where its C library can.

What is let go in pieces of a megabyte, while others of nearly that size are taken, leaves gaps that
the library keeps: twice what is held, and more the longer it goes on.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_TRIM: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc; others keep less, or have no such word."""


def give_back() -> None:
    """Takes some milliseconds. Changes nothing but how much memory this process holds."""
    if _TRIM is not None:
        _TRIM(0)


def held() -> int:
    """Bytes of memory in which this process has something; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):  # of Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
