"""What noise, accidents and other people's programs do to bytes and to messages.

Every change is drawn from a `random.Random`, so that a seed, or hypothesis, repeats it.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import zstandard

from schemas.codec import LENGTH, Packed, cut
from schemas.messages import KINDS

# --- bytes --------------------------------------------------------------------------------------


def damaged(value: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A record's bytes after one to three accidents. They may come out as they were."""
    data = bytearray(value)
    for _ in range(chance.randint(1, 3)):
        chance.choice(ACCIDENTS)(data, chance.choice(others), chance)
    return bytes(data)


def _flip(data: bytearray, other: bytes, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, other: bytes, chance: random.Random) -> None:
    start, stop = _range(data, chance)
    data[start:stop] = chance.randbytes(stop - start)


def _cut_off(data: bytearray, other: bytes, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    if chance.random() < 0.5:
        del data[place:]
    else:
        del data[:place]


def _take_out(data: bytearray, other: bytes, chance: random.Random) -> None:
    start, stop = _range(data, chance)
    del data[start:stop]


def _put_in(data: bytearray, other: bytes, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.randbytes(chance.randint(1, 40))


def _repeat(data: bytearray, other: bytes, chance: random.Random) -> None:
    start, stop = _range(data, chance)
    place = chance.randrange(len(data) + 1)
    data[place:place] = data[start:stop]


def _swap(data: bytearray, other: bytes, chance: random.Random) -> None:
    places = sorted(chance.randrange(len(data) + 1) for _ in range(4))
    a, b, c, d = places
    data[a:d] = data[c:d] + data[b:c] + data[a:b]


def _splice(data: bytearray, other: bytes, chance: random.Random) -> None:
    start, stop = _range(bytearray(other), chance)
    data[start:stop] = other[start:stop]


def _head(data: bytearray, other: bytes, chance: random.Random) -> None:
    """Another index or count: the two numbers behind the magic."""
    place = chance.choice((4, 8))
    data[place : place + 4] = chance.choice((0, 1, 2, 3, 2**31, 2**32 - 1)).to_bytes(4, "little")


def _range(data: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.randint(1, 64))


ACCIDENTS: Sequence[Callable[[bytearray, bytes, random.Random], None]] = (
    _flip, _flip, _overwrite, _cut_off, _take_out, _put_in, _repeat, _swap, _splice, _head,
)  # fmt: skip


# --- messages -----------------------------------------------------------------------------------

DEEP: Any = 7
for _ in range(300):
    DEEP = [DEEP]
VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**53, 2**53 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 0.5, 1e308, math.nan, math.inf, -math.inf,
    "", "a", "0", "local/north", "local/entity-000", "../etc/passwd", "\0", "\N{SNOWMAN}" * 30,
    "x" * 300, "f" * 64, "F" * 64, b"", b"bytes", [], [[]], {}, {"a": 1}, [1, 2, 3], DEEP,
    ["local/entity-000", 0], [["local/entity-000", "f" * 64]], [None] * 50, {"": None},
    [10**6, 10**6], [0, 2**40], [-1], [1.5], ["0", "0"], "<f4", "|u1", "raw", "int8", "bf16",
)  # fmt: skip
"""What a field may be found to hold."""
SIZES = (0, 1, 8, 100, 2**20, 2**30, 2**40, 2**62)


@dataclass
class Draft:
    """A message as its parts, before it is written: any part may be anything."""

    header: dict[str, Any]
    content: bytes
    done: list[str] = field(default_factory=list)
    """What was changed, in words."""

    def payload(self) -> bytes:
        """A message's bytes, as if an author had meant them."""
        packed = msgpack.packb(self.header, use_bin_type=True)
        return LENGTH.pack(len(packed)) + packed + self.content

    def packed(self) -> Packed:
        """Pieces with the right hashes."""
        return cut(self.payload())


def draft(payload: bytes) -> Draft:
    """An honest message, taken apart."""
    (length,) = LENGTH.unpack_from(payload)
    start = LENGTH.size + length
    header = msgpack.unpackb(payload[LENGTH.size : start], raw=False, use_list=True)
    return Draft(header, payload[start:])


def rewritten(payload: bytes, chance: random.Random) -> Draft:
    """An honest message with one to three of its parts changed."""
    found = draft(payload)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice(CHANGES)
        if change(found, chance):
            found.done.append(change.__name__.strip("_"))
    return found


def _any_value(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(VALUES))


def _value(found: Draft, chance: random.Random) -> bool:
    """Some field, at any depth, holds something else."""
    place, key = chance.choice(_places(found.header))
    place[key] = _any_value(chance)
    return True


def _near(found: Draft, chance: random.Random) -> bool:
    """Some number is a little larger or smaller."""
    places = [(place, key) for place, key in _places(found.header) if type(place[key]) is int]
    if not places:
        return False
    place, key = chance.choice(places)
    place[key] = min(max(place[key] + chance.choice((-2, -1, 1, 2, 10)), -(2**63)), 2**64 - 1)
    return True


def _missing(found: Draft, chance: random.Random) -> bool:
    place, key = chance.choice(_places(found.header))
    del place[key]
    return True


def _more(found: Draft, chance: random.Random) -> bool:
    place, key = chance.choice(_places(found.header))
    if isinstance(place, dict):
        place[chance.choice(("extra", "groups", "entity", "run"))] = _any_value(chance)
    else:
        place.append(place[key])
    return True


def _kind(found: Draft, chance: random.Random) -> bool:
    found.header["kind"] = chance.choice((*KINDS, "Secret", "object", "Message", "Decision"))
    return True


def _schema(found: Draft, chance: random.Random) -> bool:
    found.header["schema"] = chance.choice((0, 2, 3, -1, 1.0, "1", 2**60))
    return True


def _row(found: Draft, chance: random.Random) -> bool:
    """A tensor is of another dtype, shape, encoding or length."""
    rows = found.header.get("tensors")
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], list):
        return False
    row = chance.choice(rows)
    if not isinstance(row, list) or len(row) != 6:
        return False
    column = chance.randrange(6)
    row[column] = (
        lambda: chance.choice(("model", "images", "gradient", "own", "")),
        lambda: chance.choice(("fc.bias", "images", "fc.weight\0<f4", "")),
        lambda: chance.choice(
            ("<f4", "<f8", "<i8", "<i4", "|u1", "<f2", ">f4", "|O", "<U9", "|V8")
        ),
        lambda: [chance.choice(SIZES) for _ in range(chance.randint(0, 9))],
        lambda: chance.choice(("raw", "bf16", "int8", "zip", "")),
        lambda: chance.choice((0, 1, 4, -1, 2**20, 2**40, 2**64 - 1)),
    )[column]()
    return True


def _again(found: Draft, chance: random.Random) -> bool:
    """A tensor is there twice."""
    rows = found.header.get("tensors")
    if not isinstance(rows, list) or not rows:
        return False
    row = chance.choice(rows)
    rows.append(row)
    if isinstance(row, list) and row and isinstance(row[-1], int) and 0 <= row[-1] <= 2**20:
        found.content += bytes(row[-1])
    return True


def _bomb(found: Draft, chance: random.Random) -> bool:
    """A few compressed bytes that claim, or are, very many."""
    numbers = bytes(chance.choice((100, 10**5, 10**7)))
    body = bytearray(zstandard.ZstdCompressor(3).compress(numbers))
    if chance.random() < 0.3:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    shape = [chance.choice((1, 8, 4096, 2**20)), chance.choice((1, 96, 4096))]
    found.header["tensors"] = [["model", "fc.weight", "<f4", shape, "int8", len(body)]]
    found.content = bytes(body)
    return True


def _content(found: Draft, chance: random.Random) -> bool:
    """Tensors of any bits: numbers that are none among them; also too few and too many."""
    data = bytearray(found.content)
    chance.choice(ACCIDENTS)(data, chance.randbytes(64), chance)
    found.content = bytes(data)
    return True


def _nan(found: Draft, chance: random.Random) -> bool:
    """Numbers that are none, somewhere in the tensors."""
    place = 4 * chance.randrange(len(found.content) // 4 + 1)
    found.content = found.content[:place] + b"\0\0\xc0\x7f" + found.content[place + 4 :]
    return True


def _many(found: Draft, chance: random.Random) -> bool:
    """More of something than anybody needs."""
    place, key = chance.choice(_places(found.header))
    place[key] = chance.choice(
        ([0] * 10_000, ["a"] * 10_000, {str(i): i for i in range(5000)}, [{}] * 10_000, "x" * 10**5)
    )
    return True


CHANGES: Sequence[Callable[[Draft, random.Random], bool]] = (
    _value, _value, _value, _value, _near, _near, _missing, _more, _kind, _schema,
    _row, _row, _again, _bomb, _content, _nan, _many,
)  # fmt: skip


def _places(header: Any) -> list[tuple[Any, Any]]:
    """Every place in a header that holds a value: container and key."""
    found: list[tuple[Any, Any]] = []
    waiting = [header]
    while waiting and len(found) < 500:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found
