"""Whether a difference between two methods is larger than chance, seeds paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy.special import stdtrit  # scipy.stats has the same, and takes a second to be read

LEVEL = 0.95
LEAST = 2.0
"""Deviations of the paired differences under which one is not told apart (docs/method.md 8)."""
UNDER = "larger than chance, under two deviations"
"""Said of a difference whose interval leaves 0 out while seeds may well turn it round."""
Verdict = Literal["larger", "smaller", "not told apart"]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds."""

    count: int
    mean: float
    deviation: float | None
    """Of a sample (n - 1); None of a single seed."""


@dataclass(frozen=True)
class Difference:
    """One method's value less another's, seed by seed."""

    seeds: tuple[int, ...]
    """On which both ran."""
    mean: float
    deviation: float | None
    low: float | None
    """Of the interval that holds the true mean 95 times in 100, if seeds are a normal sample."""
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """Whether the whole interval lies on one side of 0, and the mean so far from it that seeds
        hardly ever turn the order round. Of a single seed nothing is told.

        With two or three seeds the interval asks for more, with four and more the deviation does.
        """
        if not self.beyond_chance or self._near:
            return "not told apart"
        return "larger" if self.mean > 0 else "smaller"

    @property
    def beyond_chance(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def remark(self) -> str:
        """Of what is not told apart, that it was by its deviation alone; else nothing."""
        return UNDER if self.beyond_chance and self._near else ""

    @property
    def _near(self) -> bool:
        return self.deviation is None or abs(self.mean) < LEAST * self.deviation


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of at least one value."""
    return Spread(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """`one` less `other` on the seeds that both have; None where there is none.

    Student's interval: mean -+ t * deviation / sqrt(n), t the quantile of n - 1 degrees of freedom.
    """
    seeds = tuple(sorted(one.keys() & other.keys()))
    if not seeds:
        return None
    paired = spread([one[seed] - other[seed] for seed in seeds])
    if paired.deviation is None:
        return Difference(seeds, paired.mean, None, None, None)
    quantile = float(stdtrit(paired.count - 1, (1 + LEVEL) / 2))
    half = quantile * paired.deviation / paired.count**0.5
    return Difference(seeds, paired.mean, paired.deviation, paired.mean - half, paired.mean + half)
