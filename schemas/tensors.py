"""Tensors as they travel: their names, their bytes, their hash, and what they weigh on each wire.

Weights pass between the floors as a plain `dict[str, ndarray]`. A recipe's `wire` says how their
matrices and kernels (float32, two dimensions or more) become bytes:

    fp32   as they are, without loss
    bf16   the nearest bfloat16, half to even: half the bytes
    int8   round(value / scale), half to even, in [-127, 127], with one float32 scale for each row
           of the first axis, compressed by zstd: about a quarter of the bytes

Norms, biases, BatchNorm's buffers and integers are few and sensitive; they travel as they are on
every wire. A global model travels as values; an update, where the wire loses something, as its
difference to the base (`update_of`, `values_of`).

Whoever sends goes on from what its readers will hold (`decoded`). Packing that again gives the same
values: for int8 the scales keep only 17 significant bits, so that code times scale is exact in
float32. Without this, a head that grows by a row would shift its old rows.

Only elementwise IEEE operations are used: what is decoded has the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from schemas.errors import Refused

Tensor = NDArray[Any]
Tensors = dict[str, Tensor]

DTYPES = ("<f4", "<f8", "<i8", "<i4", "|u1")
"""What may travel, little-endian. The list is closed."""
FLOATS = ("<f4", "<f8")
"""Which of these know numbers that are not finite."""
WIRES = ("fp32", "bf16", "int8")
ENCODINGS = ("raw", "bf16", "int8")

MAX_DIMENSIONS = 8
MAX_NUMBERS = 2**40  # in one tensor, also where an axis of length 0 hides how long the others are
MAX_WEIGHT = 2**52
CHUNK = 65_536  # numbers worked on at a time: they and their scratch stay in a core's cache
PART = 32_768  # numbers of a difference at a time: what is made of them takes more room than they
FEW = 4096  # numbers: to copy so many costs less than to look at them where they lie
ZSTD_LEVEL = 3
ZSTD_WINDOW = 2**21  # bytes; what level 3 uses at most, so that a reader may refuse more
SCALE_BITS = np.uint32(0xFFFF_FF80)  # clears 7 of 24: a 17-bit scale times a 7-bit code is exact
SMALLEST_SCALE = np.finfo(np.float32).tiny  # below it lie the subnormals, which some programs flush
LARGEST = float(np.finfo(np.float32).max)
LITTLE = sys.byteorder == "little"
SHAPE, DTYPE = attrgetter("shape"), attrgetter("dtype")
QUIET_NAN = 0x7FC0  # one bfloat16 stands for every NaN, whose spare bits differ between processors


class Unfit(Refused, ValueError):
    """Tensors that may not be counted: a mistake of who sends them, refused by who reads them."""


class Spec(NamedTuple):
    """What one tensor must look like."""

    dtype: str
    """One of `DTYPES`."""
    shape: tuple[int, ...]


def specs(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    """Dtype and shape of each tensor. Raises ValueError for a dtype that does not travel."""
    return {name: Spec(dtype_of(tensor), tensor.shape) for name, tensor in tensors.items()}


def dtype_of(tensor: Tensor) -> str:
    """The tensor's dtype as it travels, such as `<f4`. Raises ValueError if it does not travel."""
    if isinstance(tensor, Encoded):
        raise ValueError("an encoded tensor is passed on, or decoded; its bytes are no values")
    return _called(tensor.dtype)


@cache
def _called(dtype: np.dtype[Any]) -> str:
    name = _little(dtype).str
    if name not in DTYPES:
        raise ValueError(f"tensors of {dtype} do not travel, only {', '.join(DTYPES)}")
    return name


@cache
def _dtype(name: str) -> np.dtype[Any]:
    """Of one of `DTYPES`; to look one up by its name costs numpy more than what is done with it."""
    return np.dtype(name)


@cache
def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


def model_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The name of a model's content: SHA-256 in hex over the tensors in the order of their names.

    Each adds its name in UTF-8, NUL, dtype such as `<f4`, NUL, shape such as `64,3,3`, NUL and its
    little-endian bytes. Take it of decoded values, which are what all readers hold.

    Raises ValueError for a dtype that does not travel.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{name}\0{dtype_of(tensor)}\0{shape}\0".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


def groups_sha256(groups: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The name of all that a global model's message holds, in hex.

    With the group `model` alone it is `model_sha256` of that. With others it is SHA-256 over the
    groups in the order of their names, each as its name in UTF-8, NUL, `model_sha256` of its
    tensors, NUL. A group without tensors does not travel, and is passed over.

    Raises ValueError for a dtype that does not travel.
    """
    hashes = {name: model_sha256(tensors) for name, tensors in groups.items() if tensors}
    if hashes.keys() == {"model"}:
        return hashes["model"]
    listed = "".join(f"{name}\0{hashes[name]}\0" for name in sorted(hashes))
    return hashlib.sha256(listed.encode()).hexdigest()


# --- one tensor as bytes ------------------------------------------------------------------------


def encoding_of(wire: str, spec: Spec) -> str:
    """How a tensor travels on a wire: one of `ENCODINGS`. Raises ValueError for other wires."""
    if wire not in WIRES:
        raise ValueError(f"no wire is called {wire!r}; there are {', '.join(WIRES)}")
    return wire if wire != "fp32" and _shrinks(spec) else "raw"


def pack_tensor(tensor: Tensor, wire: str) -> tuple[str, bytes | memoryview]:
    """A tensor's encoding and bytes on a wire; raw ones are a view of its memory, above `FEW`.

    Values that are not finite pass on fp32 and bf16 (NaN as one quiet NaN), for others judge them.

    Raises Unfit (not-finite) where int8 meets one, ValueError for other dtypes and wires.
    """
    dtype = dtype_of(tensor)
    if wire == "fp32":
        return "raw", _raw(tensor)
    encoding = encoding_of(wire, Spec(dtype, tensor.shape))
    if encoding == "bf16":
        return encoding, _to_bf16(tensor)
    if encoding == "int8":
        return encoding, _to_int8(tensor)
    return encoding, _raw(tensor)


def as_row(tensor: Tensor, wire: str) -> tuple[str, tuple[int, ...], str, bytes | memoryview]:
    """A tensor's dtype, shape, encoding and bytes; of one that is `Encoded` as it travelled.

    Raises what `pack_tensor` raises.
    """
    if isinstance(tensor, Encoded):
        return *tensor.tensor, tensor.encoding, tensor.data
    if wire == "fp32":
        return _called(tensor.dtype), tensor.shape, "raw", _raw(tensor)
    return dtype_of(tensor), tensor.shape, *pack_tensor(tensor, wire)


def unpack_tensor(
    encoding: str, dtype: str, shape: tuple[int, ...], payload: bytes | memoryview
) -> Tensor:
    """The tensor that `pack_tensor` packed. A raw one is a read-only view of the payload.

    The size in memory follows from dtype and shape and is the reader's to limit; a payload of any
    other size is refused before memory is taken.

    Raises Refused: wrong-dtype, wrong-shape, unreadable, or bomb (compressed bytes claim a size or
    a window that their shape does not need).
    """
    if dtype not in DTYPES:
        raise Refused(
            "wrong-dtype", f"{str(dtype)[:80]!r} does not travel, only {', '.join(DTYPES)}"
        )
    if not is_shape(shape):
        raise Refused("wrong-shape", f"{str(shape)[:80]} is not the shape of a tensor that travels")
    if encoding == "raw":
        _expect(len(payload), math.prod(shape) * np.dtype(dtype).itemsize)
        tensor = np.frombuffer(payload, dtype).reshape(shape)
        return tensor if tensor.flags.aligned else tensor.copy()
    _expect_encoding(encoding, Spec(dtype, shape))
    return _from_bf16(shape, payload) if encoding == "bf16" else _from_int8(shape, payload)


class Encoded(np.ndarray[Any, Any]):
    """A tensor as it travels, for who only passes it on: nobody need encode it again.

    As an array it is its bytes: uint8, one dimension.
    """

    tensor: Spec
    """What it is when it is decoded."""
    encoding: str
    """One of `ENCODINGS`, but not raw."""


def as_encoded(encoding: str, spec: Spec, content: bytes | memoryview) -> Encoded:
    """Such a tensor around its bytes, which it shares; what they hold is seen by who decodes them.

    Raises Refused (unreadable, wrong-shape) for an encoding that does not carry such a tensor.
    """
    if not is_shape(spec.shape):
        raise Refused("wrong-shape", f"{str(spec.shape)[:80]} is no shape of a tensor that travels")
    _expect_encoding(encoding, spec)
    held = np.frombuffer(content, np.uint8).view(Encoded)
    held.tensor, held.encoding = spec, encoding
    return held


def unpacked(tensor: Tensor) -> Tensor:
    """The tensor, of one that may still be as it travelled. Raises what `unpack_tensor` raises."""
    if not isinstance(tensor, Encoded):
        return tensor
    return unpack_tensor(tensor.encoding, *tensor.tensor, tensor.data)


def encoded(tensors: Mapping[str, Tensor], wire: str) -> Tensors:
    """The tensors as they will travel; those that the wire leaves as they are share their memory.

    Raises what `pack_tensor` raises.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        encoding, content = pack_tensor(tensor, wire)
        spec = Spec(dtype_of(tensor), tensor.shape)
        found[name] = tensor if encoding == "raw" else as_encoded(encoding, spec, content)
    return found


def decoded(tensors: Mapping[str, Tensor], wire: str) -> Tensors:
    """What the readers of these tensors will hold; decoding that again changes nothing.

    What travels as it is shares its memory with the tensors given.

    Raises Unfit (not-finite) with the tensor's name, ValueError for other dtypes and wires.
    """
    held = {}
    for name, tensor in tensors.items():
        try:
            held[name] = _held(tensor, wire)
        except Unfit as error:
            raise Unfit(error.reason, f"{name}: {error.detail}") from None
    return held


def _held(tensor: Tensor, wire: str) -> Tensor:
    encoding = encoding_of(wire, Spec(dtype_of(tensor), tensor.shape))
    if encoding == "int8":
        return _values(*_rounded(tensor), tensor.shape)  # to compress and expand changes nothing
    if encoding == "bf16":
        return _from_bf16(tensor.shape, _to_bf16(tensor))
    return np.ascontiguousarray(tensor, _dtype(dtype_of(tensor))).reshape(tensor.shape)


# --- updates ------------------------------------------------------------------------------------


def update_of(values: Tensors, base: Tensors, wire: str) -> Tensors:
    """What an update carries: where the wire loses something differences to the base, else values.

    Small differences lose little where large values would lose much. Lossless tensors stay values
    because float32 would round their difference. All are as their readers will decode them, so that
    `values_of` tells the sender what its readers will judge.

    Raises Unfit: wrong-shape, wrong-dtype if the two are not alike, not-finite where int8 meets it.
    """
    return decoded(_against(np.subtract, values, base, wire), wire)


class Difference(NamedTuple):
    """What an update tells as int8 of a large tensor: each value is that of the base, and a code
    times the scale of its row.

    It takes a quarter of the memory of its values, which `parts` gives some rows at a time: to
    write them all down, and read them again to judge and to add them, costs as much as to make
    them.
    """

    scales: Tensor
    """Of each row, float32 (rows,)."""
    codes: Tensor
    """Int8 (rows, columns)."""
    base: Tensor
    """Float32, of the tensor's own shape."""
    largest: float
    """The size of the base's largest value."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.base.dtype

    def within(self, limit: float) -> bool:
        """Whether the largest scale alone tells that each value is smaller than this in size."""
        reach = 128 * float(np.abs(self.scales).max()) + self.largest
        most = min(limit, LARGEST)  # beyond it float32 is infinite
        return reach * (1 + 2**-20) < most  # float32 rounds twice; NaN fails every comparison

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The values, float32 in one dimension, and where they stand among all of the tensor's.

        The memory of what was given is used again for what comes next.
        """
        columns = self.codes.shape[1]
        base, scratch = self.base.reshape(self.codes.shape), np.empty(0, np.float32)
        for rows in _few(self.codes.shape, PART):
            here = slice(rows.start * columns, rows.stop * columns)
            if not scratch.size:  # the first are as many as any
                scratch = np.empty(here.stop, np.float32)
            flat = scratch[: here.stop - here.start]
            values = flat.reshape(-1, columns)
            with np.errstate(over="ignore", invalid="ignore"):  # not finite is judged by `check`
                np.copyto(values, self.codes[rows])
                values *= self.scales[rows, None]
                values += base[rows]
            yield here, flat


Values = Mapping[str, Tensor | Difference]
"""Tensors by name, of which some are not put together yet."""


class Rows(dict[str, Tensor | Difference]):
    """Such tensors, which nobody changes any more, with the rows of small ones that were put side
    by side: to judge them, and then to add them."""

    def __init__(self, tensors: Values) -> None:
        super().__init__(tensors)
        self.made: dict[tuple[str, ...], Tensor] = {}
        """Names → their numbers."""


def size_of(tensor: Tensor) -> float:
    """How large the largest value of a tensor is."""
    return max(float(tensor.max()), -float(tensor.min()))


def values_of(
    update: Tensors,
    base: Tensors,
    wire: str,
    *,
    reuse: bool = False,
    sizes: Mapping[str, float] | None = None,
) -> Values:
    """The values that an update means, from what it carried: the reverse of `update_of`.

    What is still as it travelled as int8 is not put together. With `reuse` they take the place of
    what it carried, where that can be written to. `sizes` are those of the base's tensors
    (`size_of`), from who has them at hand.

    Raises Unfit (wrong-shape, wrong-dtype) if update and base are not alike, and Refused (bomb,
    unreadable) for what cannot be decoded.
    """
    late: dict[str, Difference] = {}
    for name, tensor in update.items():
        if wire == "int8" and isinstance(tensor, Encoded) and tensor.encoding == "int8":
            below = base.get(name)
            if below is not None and tensor.tensor == Spec(dtype_of(below), below.shape):
                scales, codes = _told(below.shape, tensor.data)
                size = size_of(below) if sizes is None or name not in sizes else sizes[name]
                late[name] = Difference(scales, codes, below, size)
    carried = {name: unpacked(tensor) for name, tensor in update.items() if name not in late}
    others = {name: tensor for name, tensor in base.items() if name not in late}
    values = _against(np.add, carried, others, wire, reuse=reuse)
    return {name: late[name] if name in late else values[name] for name in update}


def _against(
    ufunc: np.ufunc, tensors: Tensors, base: Tensors, wire: str, *, reuse: bool = False
) -> Tensors:
    expected = specs(base)
    alike(tensors, expected)
    if wire == "fp32":
        return dict(tensors)
    with np.errstate(over="ignore", invalid="ignore"):  # not finite is judged by `check`
        return {
            name: tensor
            if encoding_of(wire, expected[name]) == "raw"
            else ufunc(tensor, base[name], out=tensor if reuse and tensor.flags.writeable else None)
            for name, tensor in tensors.items()
        }


# --- what may be counted ------------------------------------------------------------------------


def check(tensors: Values, expected: Mapping[str, Spec], total_weight: int) -> None:
    """Whether these tensors may be counted in a mean whose weights sum to `total_weight` at most.

    Sender and reader ask the same, of the values that the reader will hold: names, dtypes and
    shapes as expected; floats finite; and, but for BatchNorm's means and variances, smaller in size
    than 2^32 / `total_weight`, so that exact sums in units of 2^-30 fit 64 bits.

    Raises Unfit (wrong-shape, wrong-dtype, not-finite, out-of-range), a ValueError with the
    tensor's name and the value; ValueError for a `total_weight` below 1 or above 2^52.
    """
    largest = largest_size(total_weight)
    alike(tensors, expected)
    for names in together(expected):
        if expected[names[0]].dtype not in FLOATS:
            continue
        limit = math.inf if is_statistic(names[0]) else largest
        if len(names) > 1 and _within(side_by_side(tensors, names), limit):
            continue
        for name in names:
            _check_values(name, tensors[name], limit)


def alike(tensors: Values, expected: Mapping[str, Spec]) -> None:
    """Whether names, dtypes and shapes are the expected ones; raises Unfit where they are not."""
    if tensors.keys() != expected.keys():
        missing, foreign = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
        raise Unfit("wrong-shape", f"missing tensors {sorted(missing)}, unknown {sorted(foreign)}")
    in_order = [tensors[name] for name in expected]
    shapes, dtypes = _columns(tuple(expected.values()))
    if [*map(SHAPE, in_order)] == shapes and [*map(DTYPE, in_order)] == dtypes:
        return  # all at once, which is nearly always enough
    for name, spec in expected.items():
        tensor = tensors[name]
        if tensor.shape != spec.shape:
            raise Unfit("wrong-shape", f"{name} has shape {tensor.shape}, expected {spec.shape}")
        if tensor.dtype != _dtype(spec.dtype):
            raise Unfit("wrong-dtype", f"{name} is {tensor.dtype.str}, expected {spec.dtype}")


@lru_cache(16)
def _columns(expected: tuple[Spec, ...]) -> tuple[list[tuple[int, ...]], list[np.dtype[Any]]]:
    """Shapes and dtypes, each in a row."""
    return [spec.shape for spec in expected], [_dtype(spec.dtype) for spec in expected]


def together(expected: Mapping[str, Spec]) -> tuple[tuple[str, ...], ...]:
    """The names of tensors that are worked on in one go: small ones of a dtype together, in rows of
    at most `CHUNK` numbers, statistics in rows of their own; large ones alone.

    A call of numpy costs as much as a thousand numbers, and a model has a hundred small tensors.
    """
    return _rows_of(tuple(expected.items()))


@lru_cache(16)  # of the models that a program has to do with: each round asks for every update
def _rows_of(expected: tuple[tuple[str, Spec], ...]) -> tuple[tuple[str, ...], ...]:
    rows: list[list[str]] = []
    open: dict[tuple[str, bool], tuple[list[str], int]] = {}
    for name, spec in expected:
        size, kind = math.prod(spec.shape), (spec.dtype, is_statistic(name))
        row, taken = open.get(kind, ([], CHUNK))
        if size > CHUNK:
            rows.append([name])
            continue
        if taken + size > CHUNK or not row:
            row, taken = [], 0
            rows.append(row)
        row.append(name)
        open[kind] = row, taken + size
    return tuple(map(tuple, rows))


def side_by_side(tensors: Values, names: Sequence[str]) -> Tensor:
    """Their numbers, one tensor behind the other; a view where it is only one."""
    if len(names) == 1:
        return _flat(tensors[names[0]])
    if not isinstance(tensors, Rows):
        return _joined([tensors[name] for name in names])
    row = tuple(names)
    if row not in tensors.made:
        tensors.made[row] = _joined([tensors[name] for name in names])
    return tensors.made[row]


def _joined(tensors: Sequence[Any]) -> Tensor:
    if Difference in map(type, tensors):
        tensors = [_flat(tensor) for tensor in tensors]
    return np.concatenate(tensors, axis=None)  # which makes each one flat


def _flat(tensor: Tensor | Difference) -> Tensor:
    if not isinstance(tensor, Difference):
        return tensor.reshape(-1)
    return np.concatenate([values.copy() for _, values in tensor.parts()])


def in_parts(tensors: Values, names: Sequence[str]) -> Iterator[tuple[slice, Tensor]]:
    """The same numbers, about `CHUNK` at a time, and where these stand among all of them.

    The memory of what was given may be used again for what comes next.
    """
    first = tensors[names[0]]
    if len(names) == 1 and isinstance(first, Difference):
        yield from first.parts()
        return
    values = side_by_side(tensors, names)
    for start in range(0, values.size, CHUNK):
        here = slice(start, min(start + CHUNK, values.size))
        yield here, values[here]


def largest_size(total_weight: int) -> float:
    """2^32 / W: what the size of a parameter must stay below when the weights sum to W at most.

    Raises ValueError for a W below 1 or above 2^52.
    """
    if not 1 <= total_weight <= MAX_WEIGHT:
        raise ValueError(f"weights sum to {total_weight}, which is not from 1 to 2^52")
    return 2**32 / total_weight


def is_statistic(name: str) -> bool:
    """Whether a tensor holds BatchNorm's running means or variances, which know no range."""
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def _check_values(name: str, values: Tensor | Difference, limit: float) -> None:
    if isinstance(values, Difference) and values.within(limit):
        return
    for here, piece in in_parts({name: values}, [name]):
        if not _within(piece, limit):
            _complain(name, piece, here.start, limit)


def _within(values: Tensor, limit: float) -> bool:
    if not values.size:
        return True
    with np.errstate(invalid="ignore"):
        low, high = float(values.min()), float(values.max())  # float32 would round the limit
    return -limit < low and high < limit  # NaN fails every comparison


def _complain(name: str, piece: Tensor, start: int, limit: float) -> None:
    finite = np.isfinite(piece)
    if not finite.all():
        place = int(np.argmin(finite))
        raise Unfit("not-finite", f"{name}[{start + place}] is {piece[place]}")
    place = int(np.argmax(np.abs(piece)))
    raise Unfit(
        "out-of-range",
        f"{name}[{start + place}] is {piece[place]}, its size must stay below 2^32 / W = {limit:g}",
    )


# --- the wires ----------------------------------------------------------------------------------


def _raw(tensor: Tensor) -> bytes | memoryview:
    if LITTLE and tensor.dtype.isnative:
        if tensor.size <= FEW:
            return tensor.tobytes()
        if tensor.flags.c_contiguous:
            return tensor.data.cast("B")
    little = np.ascontiguousarray(tensor, _little(tensor.dtype))
    return little.reshape(-1).view(np.uint8).data


def _to_bf16(tensor: Tensor) -> bytes | memoryview:
    bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1  # of two neighbours equally near, half to even takes the even one
    nearest = ((bits + 0x7FFF + odd) >> 16).astype("<u2")
    nearest[np.isnan(tensor)] = QUIET_NAN
    return _raw(nearest)


def _from_bf16(shape: tuple[int, ...], payload: bytes | memoryview) -> Tensor:
    _expect(len(payload), 2 * math.prod(shape))
    bits = np.frombuffer(payload, "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(shape)


class _Zstd(threading.local):
    """What compresses, one for each thread: to make one costs as much as its work on a small
    tensor, and changes no byte. What expands is made anew each time: one that has met a broken
    frame holds memory for it, and tells of the next in other words."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(ZSTD_LEVEL)


_ZSTD = _Zstd()


def _to_int8(tensor: Tensor) -> bytes:
    scales, codes = _rounded(tensor)
    body = scales.astype("<f4").tobytes() + codes.tobytes()
    return _ZSTD.compressor.compress(body)


def _rounded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (rows,) in float32 and codes (rows, columns) in int8."""
    rows = np.ascontiguousarray(tensor, np.float32).reshape(_rows(tensor.shape))
    scales, codes = np.empty(len(rows), np.float32), np.empty(rows.shape, np.int8)
    for part in _few(rows.shape):
        values = rows[part]
        scales[part] = _scales(values)
        divisors = np.where(scales[part] > 0, scales[part], np.float32(1))  # below 1: code 0
        scaled = values / divisors[:, None]
        np.copyto(codes[part], np.rint(scaled, out=scaled), casting="unsafe")
    return scales, codes


def _scales(rows: Tensor) -> Tensor:
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    if not np.isfinite(largest).all():
        value = largest[~np.isfinite(largest)][0]
        raise Unfit("not-finite", f"a value of size {value} does not travel as int8")
    scales = ((largest / np.float32(127)).view(np.uint32) & SCALE_BITS).view(np.float32)
    scales[scales < SMALLEST_SCALE] = 0.0
    return scales


def _few(shape: tuple[int, int], most: int = CHUNK) -> Iterator[slice]:
    """Rows of about so many numbers at a time."""
    rows, columns = shape
    step = max(1, most // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _from_int8(shape: tuple[int, ...], payload: bytes | memoryview) -> Tensor:
    return _values(*_told(shape, payload), shape)


def _told(shape: tuple[int, ...], payload: bytes | memoryview) -> tuple[Tensor, Tensor]:
    """Scales (rows,) in float32 and codes (rows, columns) in int8."""
    rows, columns = _rows(shape)
    body = _decompressed(payload, 4 * rows + rows * columns)
    scales = np.frombuffer(body, "<f4", rows).astype(np.float32)
    return scales, np.frombuffer(body, np.int8, offset=4 * rows).reshape(rows, columns)


def _values(scales: Tensor, codes: Tensor, shape: tuple[int, ...]) -> Tensor:
    values = np.empty(codes.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a scale that is not finite: see `check`
        for part in _few(codes.shape):
            np.copyto(values[part], codes[part])
            values[part] *= scales[part, None]
    return values.reshape(shape)


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _decompressed(payload: bytes | memoryview, size: int) -> bytes:
    # The library takes the memory that a frame's header claims, whatever limit it is given.
    try:
        claim = zstandard.get_frame_parameters(payload)
        if claim.content_size != size or claim.window_size > max(size, ZSTD_WINDOW):
            raise Refused(
                "bomb",
                f"claims {claim.content_size} bytes (window {claim.window_size}), its shape {size}",
            )
        return zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused("unreadable", f"not what zstd wrote: {error}") from None


def _expect_encoding(encoding: str, spec: Spec) -> None:
    if encoding not in ENCODINGS or not _shrinks(spec):
        raise Refused(
            "unreadable",
            f"{str(encoding)[:80]!r} does not carry {spec.dtype} of shape {spec.shape}",
        )


def _expect(length: int, expected: int) -> None:
    if length != expected:
        raise Refused("unreadable", f"{length} bytes where the shape needs {expected}")


def is_shape(shape: tuple[int, ...]) -> bool:
    """Whether these may be the lengths of a tensor's axes, however few numbers it holds."""
    if len(shape) > MAX_DIMENSIONS:
        return False
    numbers = 1
    for length in shape:
        if type(length) is not int or length < 0:
            return False
        numbers *= length or 1
    return numbers <= MAX_NUMBERS


def _shrinks(spec: Spec) -> bool:
    # One without numbers stays raw: int8 would claim scales for as many rows as its shape names.
    return spec.dtype == "<f4" and len(spec.shape) >= 2 and 0 not in spec.shape
