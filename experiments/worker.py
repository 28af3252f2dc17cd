"""Forks the worker processes of a run: `python -m experiments.worker THREADS`, for its program."""

from __future__ import annotations

import os
import sys
from functools import partial

from experiments.evaluation import evaluate
from experiments.memo import MEMORY, remembering
from infra.forkserver import serve
from infra.workers import Function
from learning.repeatable import repeatable
from proxy import worker as of_the_proxy
from twins import worker as of_the_twins

FUNCTIONS: dict[str, Function] = {
    **of_the_twins.FUNCTIONS,
    **of_the_proxy.FUNCTIONS,
    "evaluate": evaluate,
}

if __name__ == "__main__":
    serve(remembering(FUNCTIONS, os.environ.get(MEMORY)), partial(repeatable, int(sys.argv[1])))
