"""The mean of many models, exactly: any order, any grouping, the same bytes.

Float sums depend on their order, so nothing here adds floats. Parameters are rounded once to
multiples of 2^-30 and summed with integer weights in 64 bits; BatchNorm's running means and
variances, which have no range, are summed exactly as well, the odd ones as Python integers. Of
integer buffers, the largest counts. A mean is one division in float64, rounded once to float32
(docs/method.md 1.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from aggregator.beside import shared
from schemas.tensors import (
    CHUNK,
    Spec,
    Tensors,
    Values,
    check,
    in_parts,
    is_statistic,
    largest_size,
    side_by_side,
    together,
)

UNIT = 2**30  # parameters are counted in 1/UNIT; below 2^32 / W the weighted sum stays below 2^62
SIGNIFICAND = 24  # bits of a float32, so that it is a whole number times a power of two
FINEST = 149 + SIGNIFICAND  # the smallest float32 is 2^-149; these are 24 bits of it

Objects = NDArray[np.object_]


class ExactMean:
    """Sums models as they come, one at a time; its memory does not grow with their number.

    It takes 8 bytes for each parameter, whatever is added. `total_weight` is W, the sum of the
    weights of all who may be counted; the mean divides by the weights of those who were.
    """

    def __init__(self, expected: Mapping[str, Spec], total_weight: int) -> None:
        """Nothing is counted yet. Raises ValueError for float64 and for W below 1 or above 2^52."""
        largest_size(total_weight)  # refuses a W that leaves no range
        self.total_weight = total_weight
        self.weight = 0
        """The weights counted so far."""
        self._expected = dict(expected)
        self._sums = [
            _Row(names, _sum_of({name: self._expected[name] for name in names}, total_weight))
            for names in together(self._expected)
        ]

    def add(self, tensors: Values, weight: int = 1, *, checked: bool = False) -> Self:
        """Count one model `weight` times; `checked` tells that `check` has passed it already.

        Raises what `check` raises, and ValueError for a weight that is not positive or exceeds what
        is left of W; the sums are as before then.
        """
        self._room_for(weight)
        if not checked:
            check(tensors, self._expected, self.total_weight)
        for names, total in self._sums:
            if isinstance(total, _Parameters):
                total.add(in_parts(tensors, names), weight)
            else:
                total.add(side_by_side(tensors, names), weight)
        self.weight += weight
        return self

    def merge(self, part: ExactMean) -> Self:
        """Count all that another sum of the same W has counted, such as a site's.

        Raises ValueError if the two expect different tensors or W, or count more than W together.
        """
        if (part.total_weight, part._expected) != (self.total_weight, self._expected):
            raise ValueError(
                f"a sum for {len(part._expected)} tensors and weights to {part.total_weight} is "
                f"not like one for {len(self._expected)} and {self.total_weight}, or shapes differ"
            )
        if part.weight == 0:
            return self
        self._room_for(part.weight)
        for own, other in zip(self._sums, part._sums, strict=True):
            own.sum.merge(other.sum.total)
        self.weight += part.weight
        return self

    def mean(self) -> Tensors:
        """The weighted mean of all that was counted. Raises ValueError when nothing was."""
        if self.weight == 0:
            raise ValueError(f"the mean of 0 models (weights 0 of {self.total_weight})")
        rows = shared(self._mean_of, self._sums, numbers_of(self._expected))
        means = {name: mean for row in rows for name, mean in row.items()}
        return {name: means[name] for name in self._expected}

    def _mean_of(self, row: _Row) -> Tensors:
        shapes = [self._expected[name].shape for name in row.names]
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        means = zip(row.names, shapes, np.split(row.sum.mean(self.weight), ends), strict=True)
        return {name: mean.reshape(shape) for name, shape, mean in means}

    def _room_for(self, weight: int) -> None:
        if weight < 1:
            raise ValueError(f"a model cannot count {weight} times, only 1 or more")
        if self.weight + weight > self.total_weight:
            raise ValueError(
                f"weights {self.weight} + {weight} exceed {self.total_weight}, for which the range "
                "of the sums was chosen"
            )


class _Parameters:
    """Float32 in units of 2^-30, half to even, summed in int64."""

    def __init__(self, size: int) -> None:
        self.total = np.empty(size, np.int64)
        self._begun = False
        """Whether anything was counted: what is first is written down, not added to zeros."""

    def add(self, parts: Iterable[tuple[slice, NDArray[Any]]], weight: int) -> None:
        scaled, units = np.empty(0, np.float32), np.empty(0, np.int64)
        for piece, values in parts:
            here, total = slice(values.size), self.total[piece]
            if scaled.size < values.size:
                scaled, units = np.empty(values.size, np.float32), np.empty(values.size, np.int64)
            np.multiply(values, np.float32(UNIT), out=scaled[here])  # exact: a power of two
            np.rint(scaled[here], out=scaled[here])
            counted = units[here] if self._begun else total
            np.copyto(counted, scaled[here], casting="unsafe")
            if weight != 1:
                np.multiply(counted, weight, out=counted)
            if self._begun:
                np.add(total, counted, out=total)
        self._begun = True

    def merge(self, total: NDArray[Any]) -> None:
        if self._begun:
            self.total += total
        else:
            self.total[:] = total
        self._begun = True

    def mean(self, weight: int) -> NDArray[Any]:
        mean, exact = np.empty(self.total.size, np.float32), np.empty(CHUNK)
        for piece in _pieces(mean.size):
            here = slice(piece.stop - piece.start)
            mean[piece] = np.divide(self.total[piece], np.float64(UNIT * weight), out=exact[here])
        return mean


class _Statistics:
    """Float32 summed exactly, without a range: nothing is lost.

    Values of usual size are two whole numbers of 64 bits, counted in 2^-30 and 2^-62; the others
    are Python integers in units of 2^-173.
    """

    def __init__(self, size: int, total_weight: int) -> None:
        self._high, self._low = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._far: Objects = np.full(size, 0, object)
        # weighted, the high ones stay below 2^61 and the low ones, each below 2^32, below 2^62
        self._usual = 2**31 / total_weight if total_weight <= UNIT else 0.0

    def add(self, values: NDArray[Any], weight: int) -> None:
        scaled = values.astype(np.float64) * UNIT  # as all that follows up to the sums: exact
        high = np.trunc(scaled)  # not floor: of a tiny negative number a part would be rounded
        low = (scaled - high) * 2**32
        usual = (np.abs(scaled) < self._usual * UNIT) & (low == np.trunc(low))
        if not usual.all():
            self._far[~usual] += _whole(values[~usual]) * weight
            high, low = np.where(usual, high, 0), np.where(usual, low, 0)
        self._high += high.astype(np.int64) * weight
        self._low += low.astype(np.int64) * weight

    @property
    def total(self) -> Objects:
        """In units of 2^-173."""
        high, low = self._high.astype(object), self._low.astype(object)
        return self._far + (high << FINEST - 30) + (low << FINEST - 62)

    def merge(self, total: NDArray[Any]) -> None:
        self._far += total

    def mean(self, weight: int) -> NDArray[Any]:
        divisor = weight << FINEST  # Python divides whole numbers to the nearest float64
        return np.array([total / divisor for total in self.total], np.float64).astype(np.float32)


def _whole(values: NDArray[Any]) -> Objects:
    """Float32 as whole numbers of 2^-173."""
    fractions, exponents = np.frexp(values.astype(np.float64))
    whole = np.ldexp(fractions, SIGNIFICAND).astype(np.int64).astype(object)
    shifted: Objects = whole << (exponents.astype(np.int64) + FINEST - SIGNIFICAND).astype(object)
    return shifted


class _Largest:
    """The largest of each integer: counters of batches, which no mean should shorten."""

    def __init__(self, size: int, dtype: str) -> None:
        self.total = np.full(size, np.iinfo(np.dtype(dtype)).min, dtype)

    def add(self, values: NDArray[Any], weight: int) -> None:
        np.maximum(self.total, values, out=self.total)

    def merge(self, total: NDArray[Any]) -> None:
        np.maximum(self.total, total, out=self.total)

    def mean(self, weight: int) -> NDArray[Any]:
        return self.total.copy()


def numbers_of(expected: Mapping[str, Spec]) -> int:
    """How many numbers such tensors hold."""
    return sum(math.prod(spec.shape) for spec in expected.values())


class _Row(NamedTuple):
    """Tensors whose numbers are summed side by side."""

    names: Sequence[str]
    sum: _Parameters | _Statistics | _Largest


def _sum_of(row: Mapping[str, Spec], total_weight: int) -> _Parameters | _Statistics | _Largest:
    name, spec = next(iter(row.items()))
    size = sum(math.prod(each.shape) for each in row.values())
    if spec.dtype == "<f8":
        raise ValueError(f"{name} is <f8; exact sums are made of <f4 and integers")
    if spec.dtype != "<f4":
        return _Largest(size, spec.dtype)
    return _Statistics(size, total_weight) if is_statistic(name) else _Parameters(size)


def _pieces(size: int) -> Iterator[slice]:
    for start in range(0, size, CHUNK):
        yield slice(start, min(start + CHUNK, size))
