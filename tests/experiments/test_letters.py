"""What was set aside can be looked at and handed in again, as long as it is there."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from experiments.letters import original, requeue
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record, records
from schemas.errors import DataError
from schemas.messages import DeadLetter, GlobalModel
from schemas.topics import Names

ROUNDS, MODELS = (Names("spring").federation(each) for each in ("rounds", "models"))
LIMIT = 2**24


def letter(topic: str, offset: int, hash: str = "") -> DeadLetter:
    """About what lies there."""
    return DeadLetter(
        run="", topic=topic, offset=offset, about="?", hash=hash, size=4,
        reason="unreadable", detail="no message",
    )  # fmt: skip


def test_what_nobody_could_read_is_handed_in_as_it_lies_there() -> None:
    """Byte for byte, behind what has come since."""
    with closing(Log()) as log:
        log.append(ROUNDS, [Record("a", b"junk"), Record("b", b"more")])
        place = requeue(log, letter(ROUNDS, 0), LIMIT)

        assert place == 2
        assert [each.record.value for each in log.read(ROUNDS, 0, 99)] == [
            b"junk",
            b"more",
            b"junk",
        ]


def test_a_message_in_pieces_is_found_whole_among_others() -> None:
    """Three pieces, with strangers between them: they come in their order."""
    model = GlobalModel(run="f" * 64, version=1, groups={"model": {"w": np.zeros(600_000, "<f4")}})
    hash, pieces = records(model, source="x", wire="fp32")
    assert len(pieces) == 3
    with closing(Log()) as log:
        for piece in reversed(pieces):
            log.append(MODELS, [piece, Record("other", b"junk")])
        found = original(log, letter(MODELS, 0, hash), LIMIT)

    assert [each.value for each in found] == [each.value for each in pieces]


def test_what_was_trimmed_cannot_be_handed_in_again() -> None:
    """It says where the topic begins now; and likewise of what was forgotten."""
    with closing(Log()) as log:
        log.append(ROUNDS, [Record("a", b"junk"), Record("b", b"more"), Record("c", b"last")])
        log.trim(ROUNDS, 1)
        log.forget(ROUNDS, "b")

        with pytest.raises(DataError, match="begins at 1 now"):
            requeue(log, letter(ROUNDS, 0), LIMIT)
        with pytest.raises(DataError, match="it was forgotten"):
            requeue(log, letter(ROUNDS, 1), LIMIT)
