"""The moments at which a crash hurts most, by name; a hook lets tests kill a process there.

Roles do not know the hook: it is given to the transport and to the loop.
"""

from __future__ import annotations

from collections.abc import Callable

Hook = Callable[[str], None]

POINTS = (
    "append:before",
    "append:written",
    "append:durable",
    "trim",
    "heard",
    "said",
    "forgotten",
    "task:prepared",
    "task:done",
    "store:put",
    "caught-up",
)
PROGRAMS = ("began", "beat")
ENDS = ("finish:model", "finish:metrics", "finish:report", "finish:manifest")
FOLLOWS = ("number:before", "number:written", "number:durable")
"""append: before anything is written, inside the transaction, after it; trim: before a piece goes;
heard: a message was folded; said: an answer was appended; forgotten: a key was let go; task: its
inputs are loaded, its result is there; store: an old model was kept; caught-up: what was decided
before us was read. Of programs (`PROGRAMS`), began: the run is known, nothing was read yet; beat: a
heartbeat was said. finish (`ENDS`, of who sees a
run through): all has been decided, and this is what is written next. number (`FOLLOWS`, of who
follows a folder): before a file gets its number, when that is written, when it is on the disk."""


def no_hook(point: str) -> None:
    """Nothing happens at any point."""
