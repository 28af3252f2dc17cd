"""What a program holds of decisions for as long as it lives."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from schemas import lean as sharing
from schemas.codec import pack, piece, unpack
from schemas.lean import lean
from schemas.messages import Decision, Message, Participant, RoundClosed, RoundOpened
from tests.schemas.specimens import NORTH, RUN, every_kind, model, specimen

ROUNDS = 200
TWINS = tuple(f"a/entity-{number}" for number in range(4))


@pytest.mark.parametrize("message", every_kind(), ids=lambda each: each.kind())
def test_a_lean_decision_is_the_same_decision(message: Message) -> None:
    """Equal, of the same fields, and packed to the same bytes; and it cannot be changed."""
    if not isinstance(message, Decision):
        return
    same = lean(message)

    assert same == message
    assert same.model_fields_set == message.model_fields_set
    assert pack(same) == pack(message)
    with pytest.raises(ValueError, match="frozen"):
        same.number = 7


def test_rounds_share_what_they_repeat() -> None:
    """Two rounds on the same positions name the same twins, and the model that one made."""
    first, second = (read(*each) for each in list(spoken(2)))

    assert isinstance(first[0], RoundOpened)
    assert isinstance(second[0], RoundOpened)
    assert isinstance(first[1], RoundClosed)
    assert all(a is b for a, b in zip(first[0].participants, second[0].participants, strict=True))
    assert second[0].base is first[1].model


def test_a_round_takes_less_than_three_kilobytes() -> None:
    """Four twins, who answer with a hash each: it was 7 kB while each decision held its own."""
    packed = list(spoken(ROUNDS))
    read(*packed[0])
    gc.collect()
    tracemalloc.start()

    held = [read(*each) for each in packed[1:]]

    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / len(held)
    tracemalloc.stop()
    assert 1000 < each < 3000


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand positions of a twin are not remembered here."""
    monkeypatch.setattr(sharing, "MOST", 100)
    opened = specimen(RoundOpened)
    assert isinstance(opened, RoundOpened)

    for position in range(1000):
        part = Participant(entity=NORTH, weight=1, position=position)
        lean(opened.model_copy(update={"participants": (part,)}))

    assert len(sharing._values) <= 101


def spoken(rounds: int) -> list[tuple[bytes, bytes]]:
    """Both decisions of each round, as they travel."""
    told = []
    for number in range(rounds):
        opened = RoundOpened(
            run=RUN, number=2 * number, stage=0, round=number, base=model(number), teacher=None,
            learning_rate=0.1,
            participants=tuple(
                Participant(entity=each, weight=1, position=30) for each in TWINS
            ),
        )  # fmt: skip
        closed = RoundClosed(
            run=RUN, number=2 * number + 1, opened=2 * number, stage=0, round=number,
            counted=tuple((each, f"{number}{i}".rjust(64, "0")) for i, each in enumerate(TWINS)),
            withheld=(), model=model(number + 1),
        )  # fmt: skip
        told.append((pack(opened).pieces[0], pack(closed).pieces[0]))
    return told


def read(*values: bytes) -> list[Message]:
    """Messages of one piece each."""
    return [unpack(piece(value, 2**20).content, 2**20) for value in values]
