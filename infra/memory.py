"""Giving free memory back to the system, where its C library can be told to.

What is let go in pieces of a megabyte, while others of nearly that size are taken, leaves gaps that
the library keeps: twice what is held, and more the longer it goes on.
"""

from __future__ import annotations

import ctypes
from typing import Any

_TRIM: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc; others keep less, or have no such word."""


def give_back() -> None:
    """Takes some milliseconds. Changes nothing but how much memory this process holds."""
    if _TRIM is not None:
        _TRIM(0)
