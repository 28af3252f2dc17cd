"""How far a scenario has been followed, kept beside what its programs say.

A runner that is killed leaves its programs running. Started again it ends those, starts its own,
and goes on with the events that are left.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.folder import write_whole
from schemas.errors import DataError

FILE = "progress.json"
ENDS = 8.0  # seconds in which a program ends that was asked to


@dataclass
class Progress:
    """What has been done of a scenario, in one federation."""

    folder: Path
    run: str = ""
    """Hash of RunOpened."""
    seconds: float = 0.0
    """Since its begin, when this was last kept."""
    done: set[int] = field(default_factory=set)
    """Events, by their place in the scenario."""
    programs: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name → process id and when it was started, as the system counts."""

    @classmethod
    def kept(cls, folder: Path) -> Progress | None:
        """What was kept last; None where nothing was. Raises DataError for a damaged file."""
        try:
            told = json.loads((folder / FILE).read_text())
            programs = {name: (int(pid), str(at)) for name, (pid, at) in told["programs"].items()}
            return cls(folder, told["run"], float(told["seconds"]), {*told["done"]}, programs)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder / FILE} cannot be read ({error!r}): --fresh begins anew"
            ) from None

    def keep(self, pids: dict[str, int] | None = None) -> None:
        """Write it down, as a whole; `pids` are the programs that run now."""
        if pids is not None:
            self.programs = {name: (pid, _started(pid)) for name, pid in pids.items()}
        told: dict[str, Any] = {
            "run": self.run,
            "seconds": self.seconds,
            "done": sorted(self.done),
            "programs": self.programs,
        }
        write_whole(self.folder / FILE, json.dumps(told).encode())

    def over(self) -> None:
        """Nobody goes on with it."""
        (self.folder / FILE).unlink(missing_ok=True)

    def end_programs(self) -> list[str]:
        """End the programs that a runner before us has left; gives their names."""
        left = dict(self._left())
        for pid in left.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + ENDS
        while time.monotonic() < until and dict(self._left()):
            time.sleep(0.05)
        for pid in dict(self._left()).values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return sorted(left)

    def _left(self) -> Iterator[tuple[str, int]]:
        for name, (pid, started) in self.programs.items():
            if started and _started(pid) == started:
                yield name, pid


def _started(pid: int) -> str:
    """When a process was started, in the system's ticks; empty for none, and for one that only
    waits to be buried. Another process under the same number was started at another time."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] == "Z" else told[19]
