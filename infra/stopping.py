"""Told to stop while a program still imports: it says so, and ends as it would later.

To import what a role needs takes a second of a core, and until then nobody would answer to SIGTERM
and Ctrl-C. So this comes first in a role's `__main__`, and needs nothing itself.
"""

import os
import signal
import sys

STOPPED = 130
"""The exit code of a program that was told to stop."""
WORDS = "stopped; what was written stands. Start it again to go on"


def stoppable_from_the_start(name: str) -> None:
    """Where this module runs as a program (`name` is its `__name__`), stop as soon as it is told
    to; `infra.program.stoppable` takes over once there is something to let go of."""
    if name != "__main__":
        return
    role = os.path.basename(os.path.dirname(sys.argv[0]))

    def stop(number: int, frame: object) -> None:
        os.write(2, f"{role}: {WORDS}\n".encode())
        os._exit(STOPPED)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
