"""A worker process of the embedded system: `python -m experiments.worker [THREADS]`."""

from __future__ import annotations

import sys

import torch

from experiments.evaluation import evaluate
from infra.workers import Function, serve_standard_pipes
from proxy.tasks import reconstruct, score_candidate
from twins.learner import herd, judge, local_update, prototypes

FUNCTIONS: dict[str, Function] = {
    "judge": judge,
    "herd": herd,
    "learn": local_update,
    "prototypes": prototypes,
    "reconstruct": reconstruct,
    "score": score_candidate,
    "evaluate": evaluate,
}


def set_up(threads: int) -> None:
    """Sums must not depend on chance or on how many threads share them."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


if __name__ == "__main__":
    set_up(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    serve_standard_pipes(FUNCTIONS)
