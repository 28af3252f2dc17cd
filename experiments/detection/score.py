"""Recall, false alarms and delay of a rule: what it said, held against what was in the stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PER = 10_000
"""Samples to which false alarms are counted."""


@dataclass(frozen=True)
class Trial:
    """What a rule made of one stream."""

    known: int
    """Samples before the first of a new class; all of them where there is none."""
    false_alarms: int
    """Alarms among those."""
    new: bool
    """Whether a new class comes."""
    delay: int | None
    """Samples from the first of a new class to the alarm, 0 being that sample itself; None where
    no alarm came, or no new class."""


@dataclass(frozen=True)
class Score:
    """What a rule made of several streams."""

    streams: int
    """Those in which a new class comes."""
    found: int
    """Of these, those in which an alarm came."""
    known: int
    """Samples before a new class, in all streams."""
    false_alarms: int
    """Alarms among those."""
    delay: float | None
    """Mean over what was found, in samples; None where nothing was."""

    @property
    def recall(self) -> float | None:
        """Percent of the new classes that were found; None where none came."""
        return 100 * self.found / self.streams if self.streams else None

    @property
    def false_alarm_rate(self) -> float | None:
        """False alarms per 10,000 samples; None without a sample in which one could be."""
        return PER * self.false_alarms / self.known if self.known else None


def tried(new: Sequence[bool], alarms: Iterable[int]) -> Trial:
    """Hold a rule's alarms against a stream.

    `new` says of each sample whether its class is new, `alarms` are positions of samples: the last
    that the rule had seen when it spoke. What comes behind the first alarm in time is not looked
    at, for a twin would be learning by then.

    Raises ValueError for an alarm outside the stream.
    """
    heard = sorted(alarms)
    if heard and not 0 <= heard[0] <= heard[-1] < len(new):
        raise ValueError(f"alarms from {heard[0]} to {heard[-1]} in a stream of {len(new)} samples")
    known = next((place for place, is_new in enumerate(new) if is_new), len(new))
    in_time = next((place for place in heard if place >= known), None)
    return Trial(
        known=known,
        false_alarms=sum(place < known for place in heard),
        new=known < len(new),
        delay=None if in_time is None else in_time - known,
    )


def scored(trials: Sequence[Trial]) -> Score:
    """Several trials of one rule, together."""
    delays = [trial.delay for trial in trials if trial.delay is not None]
    return Score(
        streams=sum(trial.new for trial in trials),
        found=len(delays),
        known=sum(trial.known for trial in trials),
        false_alarms=sum(trial.false_alarms for trial in trials),
        delay=sum(delays) / len(delays) if delays else None,
    )
