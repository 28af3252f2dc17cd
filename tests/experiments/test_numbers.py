"""Numbers for people: the same on a page and on a terminal."""

from __future__ import annotations

from experiments.numbers import (
    NOTHING,
    clock,
    counted,
    duration,
    lost,
    nats,
    percent,
    points,
    roughly,
    size,
    speed,
)


def test_shares_have_one_decimal_and_a_unit() -> None:
    """What is lost has no plus before it; what is not known is a dash."""
    assert (percent(93.66), points(1.5), points(-30.0)) == ("93.7 %", "+1.5 points", "-30.0 points")
    assert (lost(1.5), lost(-1.5)) == ("1.5 points", "-1.5 points")
    assert nats(0.693) == "0.69"
    assert {percent(None), points(None), lost(None), nats(None)} == {NOTHING}


def test_bytes_have_three_digits() -> None:
    """The unit is the largest that leaves a number above 1, also once it is rounded."""
    assert [size(n) for n in (0, 999, 999.6, 18_500_000, 7.64e9, 4.5e14)] == [
        "0 B", "999 B", "1 kB", "18.5 MB", "7.64 GB", "450 TB",
    ]  # fmt: skip


def test_what_was_measured_is_told_to_the_second() -> None:
    """A tenth below ten seconds, and never sixty seconds or sixty minutes."""
    assert [duration(s) for s in (0.0, 3.21, 9.97, 58.2, 59.7, 245.0, 3599.9, 7805.0)] == [
        "0.0 s", "3.2 s", "10 s", "58 s", "1 min 00 s", "4 min 05 s", "1 h 00 min", "2 h 10 min",
    ]  # fmt: skip


def test_what_is_estimated_is_told_roughly() -> None:
    """Seconds, minutes or hours, one of them."""
    assert [roughly(s) for s in (4.4, 89, 90, 600, 7200)] == [
        "4 s", "89 s", "2 min", "10 min", "2.0 h",
    ]  # fmt: skip


def test_a_bar_counts_down_like_a_clock() -> None:
    """Beside it stands the speed."""
    assert [clock(s) for s in (45, 245, 7805)] == ["0:45", "4:05", "2:10:05"]
    assert speed(1267.4) == "1267 images/s"


def test_one_is_no_plural() -> None:
    """Also of a word that does not simply take an s."""
    assert [counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert [counted(n, "miss", "misses") for n in (1, 1200)] == ["1 miss", "1,200 misses"]
