"""A process is told that sums must come out the same, and that takes it no time."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from learning.repeatable import repeatable

TOLD = """
import sys, torch
from learning.repeatable import repeatable
repeatable(1)
print(torch.are_deterministic_algorithms_enabled(), end=" ")
print(torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_num_threads(), end=" ")
print("torch._inductor" in sys.modules)
"""


@pytest.mark.slow
def test_it_is_told_without_torchs_compiler() -> None:
    """In a fresh process: repeatable sums or an error, one thread, and no seconds of imports."""
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "False", "1", "False"]


@pytest.mark.parametrize("missing", [AttributeError, TypeError])
def test_a_torch_that_lacks_the_private_word_is_told_by_the_public_one(
    monkeypatch: pytest.MonkeyPatch, missing: type[Exception]
) -> None:
    """Slowly, but it is told."""
    told: list[bool] = []

    def lacks(mode: bool, *, warn_only: bool) -> None:
        raise missing

    monkeypatch.setattr(torch._C, "_set_deterministic_algorithms", lacks)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", told.append)
    repeatable(torch.get_num_threads())

    assert told == [True]
