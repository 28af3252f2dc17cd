"""What a process that computes has to be told before it does: sums that come out the same."""

from __future__ import annotations

import torch


def repeatable(threads: int) -> None:
    """Sums must not depend on chance, or on how many threads share them.

    torch's public word for it imports torch's compiler as well, only to tell that too: three
    seconds in every worker process, and nothing here is compiled. So this says what the public word
    then says; where a version of torch lacks it, the public word it is.
    """
    torch.set_num_threads(threads)
    try:
        torch._C._set_deterministic_algorithms(True, warn_only=False)
    except (AttributeError, TypeError):
        torch.use_deterministic_algorithms(True)
