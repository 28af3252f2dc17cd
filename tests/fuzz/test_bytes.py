"""Noise on the wire: whatever happens to a record's bytes, it is refused, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from schemas import codec
from schemas.codec import Assembler, pack, piece
from schemas.errors import Refused
from tests.fuzz.mutators import damaged
from tests.schemas.specimens import every_kind

ROOM = 32 * 1024 * 1024
REASONS = {"unreadable", "bad-hash", "too-large"}


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """One message of every kind in one piece, and in pieces of 100 bytes so that all have many."""
    whole = [value for message in every_kind() for value in pack(message).pieces]
    with monkeypatch.context() as small:
        small.setattr(codec, "PIECE_BYTES", 100)
        pieces = [value for message in every_kind() for value in pack(message).pieces]
    assert len(pieces) > 3 * len(whole)
    return [*whole, *pieces]


def mutations(records: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """So many damaged records, none of which is an intact one."""
    chance, intact, given = random.Random(seed), set(records), 0
    while given < count:
        value = damaged(chance.choice(records), records, chance)
        if value not in intact:
            given += 1
            yield value


def test_a_hundred_thousand_damaged_records_are_all_refused(records: list[bytes]) -> None:
    """Flips, cuts, insertions, swaps, splices: each for one of three reasons, and nothing else."""
    reasons = dict.fromkeys(REASONS, 0)
    for value in mutations(records, 100_000, seed=2021):
        with pytest.raises(Refused) as caught:
            piece(value, ROOM)
        reasons[caught.value.reason] += 1

    assert reasons.keys() == REASONS
    assert sum(reasons.values()) == 100_000
    assert min(reasons.values()) > 100


def test_damaged_pieces_between_the_true_ones_cost_no_message(records: list[bytes]) -> None:
    """Each is dropped alone; what was written is put together in whatever order it comes."""
    chance = random.Random(7)
    noise = list(mutations(records, 5_000, seed=7))
    true = [(offset, value) for offset, value in enumerate(records)]
    come = [*true, *((len(records) + i, value) for i, value in enumerate(noise))]
    chance.shuffle(come)

    puts, payloads = Assembler(ROOM), []
    for offset, value in come:
        try:
            whole = puts.add(offset, value)
        except Refused:
            continue
        if whole:
            payloads.append(bytes(whole.payload))

    honest = [bytes(piece(pack(message).pieces[0], ROOM).content) for message in every_kind()]
    assert sorted(payloads) == sorted(honest * 2)
