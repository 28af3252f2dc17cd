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
_SET: Any = getattr(ctypes.CDLL(None), "mallopt", None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # as glibc's malloc.h calls them
LARGE = 32 * 1024 * 1024  # bytes; the largest that may be a piece of the heap
UNUSED = 2 * LARGE  # bytes at the heap's end that are kept for what comes next


def reuse() -> None:
    """Keep what is let go for what is taken next, until `give_back`. To be called before a thread
    begins.

    Each round takes and lets go the same megabytes. By itself the library returns them to the
    system, which clears each page when it is taken again (docs/benchmarks.md). These are the bounds
    that it comes to by itself where one piece of 32 MiB was let go. All threads take from one heap:
    of one that a thread has to itself, only what is above the bound is ever given back.
    """
    if _SET is not None:
        _SET(_ARENA_MAX, 1)
        _SET(_MMAP_THRESHOLD, LARGE)
        _SET(_TRIM_THRESHOLD, UNUSED)


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
