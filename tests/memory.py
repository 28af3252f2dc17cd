"""Folders whose files lie in memory, on a machine that has such a place.

`kill -9` takes nothing from a file in memory that it would leave on a disk, and hundreds of appends
that each wait for a disk would tell nothing about order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A new folder in memory, gone afterwards; where there is no room for any, the other one."""
    if not os.access(MEMORY, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)
