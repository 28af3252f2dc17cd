"""The test mode is as unkind as it says, and never dishonest: what it tells is true.

That it keeps every promise of a transport is asked in tests/contracts/.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from infra.transport.embedded import Embedded
from infra.transport.unkind import Unkind
from schemas.codec import Record

TOPIC = "fedtwin.run.rounds"
PLENTY = 1 << 24


def records(*keys: str) -> list[Record]:
    """One record for each key."""
    return [Record(key, b"value") for key in keys]


def unkind(seed: int, trouble: float = 0.5) -> tuple[Unkind, Embedded]:
    """The test mode, and the log behind it."""
    inner = Embedded()
    return Unkind(inner, random.Random(seed), trouble), inner


def keys(log: Embedded) -> list[str]:
    """Everything that stands in the log."""
    return [each.record.key for each in log.read(TOPIC, 0, PLENTY)]


def test_some_appends_are_repeated_from_the_failed_record_on() -> None:
    """Of 200 appends of four many are written twice; what was not missing is not written again."""
    log, inner = unkind(1)
    for i in range(200):
        log.append(TOPIC, records(*(f"{i}/{j}" for j in range(4))))

    there = keys(inner)
    often = Counter(there)
    assert set(often.values()) == {1, 2}
    assert len(often) == 800
    for i in range(200):
        last = [key for key in there if key.startswith(f"{i}/")][::-1]
        assert list(dict.fromkeys(last))[::-1] == [f"{i}/{j}" for j in range(4)]
    assert any(often[f"{i}/0"] < often[f"{i}/3"] for i in range(200))


def test_append_tells_where_its_first_record_stands() -> None:
    """Also where that was written twice, or only after the others."""
    log, inner = unkind(2)
    places = [log.append(TOPIC, records(f"{i}/a", f"{i}/b"))[0] for i in range(200)]

    found = {place: inner.read(TOPIC, place, 1)[0].record.key for place in places}
    assert list(found.values()) == [f"{i}/a" for i in range(200)]


def test_reads_give_nothing_yet_or_a_part_and_never_something_else() -> None:
    """Asked 300 times for the same ten records: nothing, each number of them, always the first."""
    log, inner = unkind(3)
    inner.append(TOPIC, records(*"abcdefghij"))

    read = [log.read(TOPIC, 0, PLENTY) for _ in range(300)]

    whole = inner.read(TOPIC, 0, PLENTY)
    assert all(each == whole[: len(each)] for each in read)
    assert {len(each) for each in read} == set(range(11))
    assert log.end(TOPIC) == 10


def test_equal_records_are_told_apart_by_their_place() -> None:
    """The same record four times in one append: it stands there at least four times, every time."""
    for seed in range(50):
        log, inner = unkind(seed, trouble=0.9)
        log.append(TOPIC, records("same", "same", "same", "same"))

        assert 4 <= len(keys(inner)) <= 8


def test_the_same_chance_is_unkind_in_the_same_way() -> None:
    """A schedule that failed can be played again from its seed."""
    logs = [unkind(7) for _ in range(2)]
    for log, _ in logs:
        for i in range(50):
            log.append(TOPIC, records(f"{i}/a", f"{i}/b"))

    assert keys(logs[0][1]) == keys(logs[1][1])


def test_without_trouble_it_is_the_transport_that_it_wraps() -> None:
    """With a probability of 0 nothing is repeated or delayed; with 1 nothing would ever be read."""
    log, inner = unkind(1, trouble=0.0)
    log.append(TOPIC, records("a"))

    assert keys(inner) == ["a"]
    assert log.read(TOPIC, 0, PLENTY) == inner.read(TOPIC, 0, PLENTY)
    with pytest.raises(ValueError, match=r"trouble 1\.0"):
        Unkind(inner, random.Random(0), 1.0)
