"""A worker process of the twins: `python -m twins.worker [THREADS]`."""

from __future__ import annotations

import sys

from infra.workers import Function, serve_standard_pipes
from learning.repeatable import repeatable
from twins.learner import held_out, herd, judge, local_update, prototypes

FUNCTIONS: dict[str, Function] = {
    "judge": judge,
    "herd": herd,
    "learn": local_update,
    "prototypes": prototypes,
    "held-out": held_out,
}

if __name__ == "__main__":
    repeatable(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    serve_standard_pipes(FUNCTIONS)
