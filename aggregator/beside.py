"""A second thread of this program, for work on many numbers.

numpy, zstd and the hashes leave Python's lock to others while they work, so that an update is added
while the next one is read, and two processors share what nobody else has anything to do in. What is
done in which order changes no byte: sums are exact (aggregator/averaging.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MUCH = 2**20
"""Numbers: for fewer a second thread costs more than it saves."""

_POOL = ThreadPoolExecutor(1, thread_name_prefix="beside")


def beside(work: Callable[[], R], numbers: int) -> Future[R]:
    """What the second thread makes meanwhile; of few numbers it is made at once."""
    if numbers >= MUCH:
        return _POOL.submit(work)
    done = Future[R]()
    done.set_result(work())
    return done


def shared(work: Callable[[T], R], items: Sequence[T], numbers: int) -> list[R]:
    """What `work` makes of each of the items, in their order; both threads take one by one.

    Raises what `work` raised of the first item that it failed for.
    """
    if numbers < MUCH:
        return [work(item) for item in items]
    found: dict[int, R] = {}
    failed: dict[int, Exception] = {}
    left = iter(range(len(items)))

    def take() -> None:
        for index in left:
            try:
                found[index] = work(items[index])
            except Exception as error:
                failed[index] = error

    other: Future[Any] = _POOL.submit(take)
    take()
    other.result()
    if failed:
        raise failed[min(failed)]
    return [found[index] for index in range(len(items))]
