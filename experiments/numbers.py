"""How numbers are written for people: one way, in plain ASCII, for any page and any terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.messages import RoundClosed, RoundOpened

NOTHING = "-"
"""Stands where nothing was measured."""


def name_of(round: RoundOpened | RoundClosed) -> str:
    """What a round is called wherever people read of it: its stage and its number, from 0 both."""
    return f"round {round.stage}.{round.round}"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """1 round, 2 rounds; `things` is the plural of what does not simply take an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def percent(share: float | None) -> str:
    """93.7 %, or a dash."""
    return NOTHING if share is None else f"{share:.1f} %"


def points(difference: float | None) -> str:
    """+1.5 points, or a dash: a difference of two shares in percent."""
    return NOTHING if difference is None else f"{difference:+.1f} points"


def lost(difference: float | None) -> str:
    """1.5 points: of what is counted as a loss."""
    return points(difference).lstrip("+")


def nats(entropy: float | None) -> str:
    """0.69, or a dash."""
    return NOTHING if entropy is None else f"{entropy:.2f}"


def size(count: float) -> str:
    """Bytes in three digits: 999 B, 18.5 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """What was measured: 3.2 s, 45 s, 4 min 05 s, 2 h 10 min."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def roughly(seconds: float) -> str:
    """What was only estimated: 45 s, 4 min, 2.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """What is counted down: 0:45, 4:05, 2:10:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def speed(images_per_second: float) -> str:
    """1267 images/s."""
    return f"{images_per_second:.0f} images/s"
