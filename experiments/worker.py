"""A worker process of the embedded system: `python -m experiments.worker [THREADS]`."""

from __future__ import annotations

import sys

from experiments.evaluation import evaluate
from infra.workers import Function, serve_standard_pipes
from learning.repeatable import repeatable
from proxy import worker as of_the_proxy
from twins import worker as of_the_twins

FUNCTIONS: dict[str, Function] = {
    **of_the_twins.FUNCTIONS,
    **of_the_proxy.FUNCTIONS,
    "evaluate": evaluate,
}

if __name__ == "__main__":
    repeatable(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    serve_standard_pipes(FUNCTIONS)
