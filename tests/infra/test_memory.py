"""What is let go is taken again, and given back when that is asked for."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

ROUNDS = 50
SPENT = f"""
import resource, threading
from infra.memory import give_back, held, reuse
if {{reused}}:
    reuse()
def turn():
    pieces = [bytes(2_000_000) for _ in range(8)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    turn()
before = faults()
for _ in range({ROUNDS}):
    turn()
spent, kept = faults() - before, held()
give_back()
back = kept - held()
before = held()
for _ in range(3):
    thread = threading.Thread(target=turn)
    thread.start()
    thread.join()
give_back()
print(spent, back, held() - before)
"""
pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)


def spent(*, reused: bool) -> tuple[int, int, int]:
    """Pages that rounds of 16 MB took of the system, bytes that were given back at last, and bytes
    that are held when threads have done the same."""
    told = subprocess.run(
        [sys.executable, "-c", SPENT.format(reused=reused)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    pages, back, threads = map(int, told.stdout.split())
    return pages, back, threads


def test_a_round_takes_the_memory_of_the_one_before() -> None:
    """Fifty rounds of 16 MB: without it each takes all its pages of the system anew."""
    without, *_ = spent(reused=False)
    pages, *_ = spent(reused=True)

    assert pages < without / 10


def test_what_is_kept_for_the_next_round_is_given_back_when_asked_for() -> None:
    """All of it, but for a megabyte here and there; also what threads have let go."""
    _, back, threads = spent(reused=True)

    assert back > 14_000_000
    assert threads < 2_000_000
