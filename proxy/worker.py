"""A worker process of the proxy: `python -m proxy.worker [THREADS]`."""

from __future__ import annotations

import sys

from infra.workers import Function, serve_standard_pipes
from learning.repeatable import repeatable
from proxy.tasks import reconstruct, score_candidate

FUNCTIONS: dict[str, Function] = {"reconstruct": reconstruct, "score": score_candidate}

if __name__ == "__main__":
    repeatable(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    serve_standard_pipes(FUNCTIONS)
