"""What a process that computes has to be told before it does: sums that come out the same."""

from __future__ import annotations

import torch


def repeatable(threads: int) -> None:
    """Sums must not depend on chance, or on how many threads share them."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
