"""Forks the worker processes of the twins: `python -m twins.worker THREADS`, for its program."""

from __future__ import annotations

import sys
from functools import partial

from infra.forkserver import serve
from infra.workers import Function
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
    serve(FUNCTIONS, partial(repeatable, int(sys.argv[1])))
