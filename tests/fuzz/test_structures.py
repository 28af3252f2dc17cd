"""Messages with the right hashes and the wrong contents: refused, or what they say they are."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import pack, piece, unpack
from schemas.errors import Refused
from schemas.messages import KINDS, Content, Message
from tests.fuzz.mutators import rewritten
from tests.schemas.specimens import every_kind

ROOM = 1024 * 1024
"""The limit on a message, in bytes."""
MOST = 4 * ROOM
"""Memory that reading may take besides: tensors and what they are decoded from, and a header."""
PAYLOADS = [bytes(piece(pack(message).pieces[0], ROOM).content) for message in every_kind()]


def read(payload: bytes) -> Message | Refused:
    """What becomes of a payload, and that it took no more memory than it may.

    Traced memory is the whole process's: what a payload takes it takes every time, what a cache or
    a collection in between took is gone the second time.
    """
    found, peak = traced(payload)
    if peak >= MOST:
        found, peak = traced(payload)
    assert peak < MOST
    return found


def traced(payload: bytes) -> tuple[Message | Refused, int]:
    """What becomes of a payload, and the most memory in bytes while it was read."""
    tracemalloc.start()
    try:
        found: Message | Refused = unpack(payload, ROOM)
    except Refused as refused:
        found = refused
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("examples", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_whatever_an_author_meant_a_reader_refuses_it_or_understands_it(examples: int) -> None:
    """One to three changes to any message: other types, sizes, dtypes, shapes, kinds, schemas,
    numbers that are huge or none, deep nests, repeats, bombs. Nothing but Refused comes of it.
    """
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(PAYLOADS), st.randoms(use_true_random=False))
    def rewrite(payload: bytes, chance: random.Random) -> None:
        found = read(rewritten(payload, chance).payload())
        if isinstance(found, Refused):
            seen[found.reason] += 1
            assert len(found.detail) < 1000
            return
        seen["understood"] += 1
        assert KINDS[found.kind()] is type(found)
        assert found.identity.startswith(found.kind())
        if isinstance(found, Content):
            tensors = [each for group in found.groups.values() for each in group.values()]
            assert sum(np.asarray(each).nbytes for each in tensors) <= ROOM

    rewrite()

    assert seen.total() >= examples
    assert {"unreadable", "unknown-kind", "newer-schema", "bomb", "understood"} <= seen.keys()
