"""Where things lie on a machine when nobody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def usual_data_dir(environment: Mapping[str, str]) -> Path:
    """The folder of data sets in the user's cache."""
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(f"{cache}/fedtwin").expanduser().absolute()
