"""The second thread: what it makes, in which order it is given, and what it raises."""

from __future__ import annotations

import threading

import pytest

from aggregator.beside import MUCH, beside, shared


def test_of_few_numbers_nothing_is_given_to_the_second_thread() -> None:
    """To hand over costs more than it saves."""
    here = threading.get_ident()

    assert beside(threading.get_ident, MUCH - 1).result() == here
    assert beside(threading.get_ident, MUCH).result() != here
    assert shared(lambda item: threading.get_ident(), [1, 2], MUCH - 1) == [here, here]


def test_both_threads_take_of_the_same_work_and_what_they_make_keeps_its_order() -> None:
    """Each waits for the other at its first item, so that neither could have done all."""
    both = threading.Barrier(2, timeout=10)
    known: set[int] = set()

    def work(item: int) -> tuple[int, int]:
        thread = threading.get_ident()
        if thread not in known:
            known.add(thread)
            both.wait()
        return item * item, thread

    made = shared(work, range(20), MUCH)

    assert [square for square, _ in made] == [item * item for item in range(20)]
    assert len({thread for _, thread in made}) == 2


def test_the_first_item_that_fails_is_told_whichever_thread_met_it() -> None:
    """The others are made all the same: who is told is decided by their order alone."""
    made: list[int] = []

    def work(item: int) -> int:
        if item % 3 == 2:
            raise ValueError(f"item {item}")
        made.append(item)
        return item

    with pytest.raises(ValueError, match=r"^item 2$"):
        shared(work, range(9), MUCH)
    assert sorted(made) == [0, 1, 3, 4, 6, 7]
