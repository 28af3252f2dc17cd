"""What a process that computes has to be told before it does: sums that come out the same."""

from __future__ import annotations

import os

import torch


def repeatable(threads: int) -> None:
    """Sums must not depend on chance, or on how many threads share them.

    torch's public word for it imports torch's compiler as well, only to tell that too: three
    seconds in every worker process, and nothing here is compiled. So this says what the public word
    then says; where a version of torch lacks it, the public word it is.
    """
    torch.set_num_threads(threads)
    # What a graphics card has to be told as well; on the processor neither says anything.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False
    try:
        torch._C._set_deterministic_algorithms(True, warn_only=False)
    except (AttributeError, TypeError):
        torch.use_deterministic_algorithms(True)
