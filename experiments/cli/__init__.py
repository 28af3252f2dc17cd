"""The command line: reads words and environment, calls the roof, and tells what came of it.

Imports all, but late: a command imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import signal
from types import FrameType


def main() -> None:
    """The program `fedtwin`."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup has it ignore
        signal.signal(signal.SIGHUP, _interrupt)
    from experiments.cli.app import app

    app(prog_name="fedtwin")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: unfinished trainings are dropped, what was written stands."""
    raise KeyboardInterrupt
