"""Which records travel together to Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.transport.sending import Outgoing, _bursts
from schemas.codec import PIECE_BYTES

KB = 1000


def outgoing(size: int) -> Outgoing:
    """A record of so many bytes."""
    return Outgoing(b"key", bytes(size), [])


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ([], []),
        ([400 * KB] * 5, [2, 2, 1]),  # models of `tiny`: a third would not fit
        ([PIECE_BYTES] * 3, [1, 1, 1]),  # of a large one
        ([200, 900 * KB, 200], [2, 1]),
        ([300 * KB, 300 * KB, 300 * KB, 300 * KB], [3, 1]),
        ([400 * KB, 700 * KB], [2]),
        ([1] * 1000, [1000]),
    ],
)
def test_records_that_fit_into_one_request_travel_together(
    sizes: list[int], together: list[int]
) -> None:
    """All of them, in order; those that do not fit after all the client parts."""
    records = [outgoing(size) for size in sizes]

    bursts = list(_bursts(records))

    assert [len(burst) for burst in bursts] == together
    assert [each for burst in bursts for each in burst] == records


def test_a_record_is_sent_before_the_one_behind_it_is_made() -> None:
    """Of large ones: while a broker takes the first, the second is hashed."""
    made: list[int] = []

    def make() -> Iterator[Outgoing]:
        for number in range(3):
            made.append(number)
            yield outgoing(PIECE_BYTES)

    next(_bursts(make()))

    assert made == [0]


def test_a_tombstone_has_no_size() -> None:
    """A thousand of them are one request."""
    assert [len(each) for each in _bursts([Outgoing(b"key", None, [])] * 1000)] == [1000]
