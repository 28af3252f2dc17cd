"""Forks the worker processes of the proxy: `python -m proxy.worker THREADS`, for its program."""

from __future__ import annotations

import sys
from functools import partial

from infra.forkserver import serve
from infra.workers import Function
from learning.repeatable import repeatable
from proxy.tasks import reconstruct, score_candidate

FUNCTIONS: dict[str, Function] = {"reconstruct": reconstruct, "score": score_candidate}

if __name__ == "__main__":
    serve(FUNCTIONS, partial(repeatable, int(sys.argv[1])))
