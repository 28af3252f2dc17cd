"""Messages as bytes: pieces of records, each checked by hash before anything else is looked at.

A message is `header length (u32) | msgpack header | tensors`, little-endian throughout. It is cut
into pieces of at most 960 KiB; a record's value is

    magic (4) | index (u32) | count (u32) | message hash (32) | piece hashes (32 x count) | piece

where a piece's hash covers its index and its bytes, and the message's hash is the hash of the list
of piece hashes (BLAKE3). So each piece proves by itself that it belongs to its message, a foreign
piece is dropped alone, and pieces of a sender that died are completed by its successor's.

Memory is taken only within limits: for tensors that of the run, and for a header, whatever it says,
less than 128 MiB.
"""

from __future__ import annotations

import math
import reprlib
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import numpy as np
from blake3 import blake3
from pydantic import ValidationError

from schemas.errors import Reason, Refused
from schemas.lean import lean
from schemas.messages import KINDS, Content, Decision, Groups, Message, NotUnderstood
from schemas.tensors import (
    CHUNK,
    DTYPES,
    MAX_DIMENSIONS,
    Spec,
    Tensor,
    as_encoded,
    as_row,
    is_shape,
    unpack_tensor,
)

MAGIC = b"FTP1"
PIECE_BYTES = 960 * 1024  # a record of 1 MiB is refused by Kafka's client: key and headers count
HEAD = struct.Struct("<4sII32s")
LENGTH = struct.Struct("<I")
HASH_BYTES = 32
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_VALUES = 2**18  # in a header: a byte can become a mapping of 64 bytes, and a complaint of 400
MAX_COMPLAINTS = 20  # beyond it a header that does not fit is not described value by value
MAX_TENSORS = 4096
MAX_LAYOUT_BYTES = 32 * 1024  # of rows that are remembered: a model has a hundred of 50 bytes
INT8 = msgpack.packb("int8")  # as it stands in a packed row
TENSORS = "tensors"  # the last key of a header
NOTHING = msgpack.packb(None)
FEW_KEYS = 0x80  # msgpack's first byte of a mapping, but for how many keys, of which there are few
LAYOUTS = 16  # that are remembered: of the models that a program has to do with
ALIGNED = 8  # bytes: the largest number that travels
NEWEST = max(kind.schema_number for kind in KINDS.values())
"""The newest schema of all that this program reads."""
ROW = (str, str, str, tuple, str, int)
"""Types of a tensor's row in the header: group, name, dtype, shape, encoding, length in bytes."""

Bytes = bytes | memoryview
"""A payload: what is large is looked at where it lies."""
Unpack = Callable[[str, str, tuple[int, ...], memoryview], Tensor]
"""From a tensor's encoding, dtype, shape and bytes to what stands for it."""

FOLLOWS = {
    0xC4: (1, 0, 0), 0xC5: (2, 0, 0), 0xC6: (4, 0, 0),  # bytes
    0xD9: (1, 0, 0), 0xDA: (2, 0, 0), 0xDB: (4, 0, 0),  # text
    0xDC: (2, 0, 1), 0xDD: (4, 0, 1), 0xDE: (2, 0, 2), 0xDF: (4, 0, 2),  # lists, mappings
    0xCA: (0, 4, 0), 0xCB: (0, 8, 0),  # floats
    0xCC: (0, 1, 0), 0xCD: (0, 2, 0), 0xCE: (0, 4, 0), 0xCF: (0, 8, 0),  # numbers from 0
    0xD0: (0, 1, 0), 0xD1: (0, 2, 0), 0xD2: (0, 4, 0), 0xD3: (0, 8, 0),  # numbers with a sign
}  # fmt: skip
"""Of a value's first byte in msgpack: how many bytes tell its length or, where none do, the length;
and how many values follow for each of it, 0 where it counts bytes. `_follows` knows the rest."""
EXTENSIONS = frozenset((0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8))


class NotKnown(Refused):
    """An intact message of a schema or a kind that this program does not read: a later one wrote
    it, or one that is older than what is read still."""

    def __init__(self, reason: Reason, detail: str, body: object) -> None:
        super().__init__(reason, detail)
        self._body = body

    @property
    def decision(self) -> NotUnderstood | None:
        """What stands for it in an entity's line; None if it does not say in which, and where."""
        body = self._body if isinstance(self._body, dict) else {}
        says = {name: body.get(name) for name in ("run", "number", "entity")}
        try:
            return NotUnderstood.model_validate(says | {"detail": self.detail})
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class Record:
    """What a topic stores: a key, a value and headers that any tool can show."""

    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Packed:
    """A message ready to be written: its hash (hex) and the values of its records."""

    hash: str
    pieces: tuple[bytes, ...]


def pack(message: Message, wire: str = "fp32") -> Packed:
    """The message in pieces. `wire` encodes the group `model`; other groups travel as they are."""
    return cut(*_payload(message, wire))


def cut(*parts: Bytes) -> Packed:
    """A payload, given in parts one behind the other, in pieces that prove where they belong."""
    if len(parts) > 1 and sum(map(len, parts)) <= PIECE_BYTES:
        parts = (b"".join(parts),)  # a hundred small ones: once, and not each twice
    contents = list(_in_pieces(parts))
    hashes = b"".join(_piece_hash(index, *views) for index, views in enumerate(contents))
    whole = blake3(hashes).digest()
    pieces = tuple(
        b"".join((HEAD.pack(MAGIC, index, len(contents), whole), hashes, *views))
        for index, views in enumerate(contents)
    )
    return Packed(whole.hex(), pieces)


def _in_pieces(parts: Iterable[Bytes]) -> Iterator[list[memoryview]]:
    """What each piece consists of: at least one, if only of nothing."""
    views, room = list[memoryview](), PIECE_BYTES
    for part in parts:
        left = memoryview(part)
        while left:
            if not room:
                yield views
                views, room = [], PIECE_BYTES
            views.append(left[:room])
            left = left[room:]
            room -= len(views[-1])
    yield views


@dataclass(frozen=True, slots=True)
class Piece:
    """A checked piece of a message."""

    message: str
    index: int
    count: int
    content: memoryview
    """Of the record's own memory: a model is too large to be copied at each step."""


def piece(value: bytes, max_bytes: int) -> Piece:
    """Check a record's value against the hashes that it carries.

    Raises Refused: unreadable, too-large (the message would exceed `max_bytes`), bad-hash.
    """
    if len(value) < HEAD.size:
        raise Refused("unreadable", f"{len(value)} bytes are shorter than a record's head")
    magic, index, count, whole = HEAD.unpack_from(value)
    if magic != MAGIC:
        raise Refused("unreadable", f"begins with {magic!r}, not {MAGIC!r}")
    if index >= count:
        raise Refused("unreadable", f"piece {index} of {count}, counted from 0")
    if (count - 1) * PIECE_BYTES > max_bytes:
        raise Refused("too-large", f"{count} pieces; a message has at most {max_bytes} bytes")
    start = HEAD.size + count * HASH_BYTES
    hashes, content = value[HEAD.size : start], memoryview(value)[start:]
    if len(hashes) != count * HASH_BYTES or len(content) > PIECE_BYTES:
        raise Refused("unreadable", f"{len(value)} bytes do not fit {count} pieces")
    own = hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
    if blake3(hashes).digest() != whole or _piece_hash(index, content) != own:
        raise Refused("bad-hash", f"piece {index} of {count} is not what its hash says")
    return Piece(whole.hex(), index, count, content)


@dataclass(frozen=True, slots=True)
class Whole:
    """A message whose pieces are all there."""

    hash: str
    payload: Bytes
    offsets: tuple[int, ...]
    """Where its pieces lie, in order of their index."""


class Assembler:
    """Puts the pieces of one topic together, whoever wrote them and however often.

    A message is given once for each time that its last missing piece comes: a repeat that is
    written whole comes whole again.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open: dict[str, dict[int, tuple[int, memoryview]]] = {}

    def add(self, offset: int, value: bytes) -> Whole | None:
        """The message that this piece completes, if it does. Raises Refused as `piece` does."""
        part = piece(value, self._max_bytes)
        if part.count == 1:
            return Whole(part.message, part.content, (offset,))
        parts = self._open.setdefault(part.message, {})
        parts[part.index] = (offset, part.content)
        if len(parts) < part.count:
            return None
        del self._open[part.message]
        ordered = [parts[index] for index in range(part.count)]
        payload = joined([content for _, content in ordered])
        return Whole(part.message, payload, tuple(place for place, _ in ordered))


def unpack(payload: Bytes, max_bytes: int) -> Message:
    """The message in a payload whose hash was checked. Its tensors are views of the payload.

    `max_bytes` is the most that its tensors may take when they are decoded.

    Raises Refused: unreadable, bomb, wrong-dtype, wrong-shape; and NotKnown: unknown-kind,
    newer-schema, or unreadable for one too old.
    """
    header, start = _header(payload)
    kind = _kind(header)
    late = issubclass(kind, Content) and kind.unpacked_late
    groups = _tensors(header, payload, start, max_bytes, _late if late else unpack_tensor)
    body = _lifted(kind, header["schema"], _of_type(header, "body", dict))
    if issubclass(kind, Content):
        body = body | {"groups": groups}
    elif groups:
        raise Refused("unreadable", f"{kind.kind()} carries tensors")
    try:
        message = kind.model_validate(body)
    except ValidationError as error:
        raise Refused("unreadable", f"{kind.kind()}{_complaint(error)}") from None
    return lean(message) if isinstance(message, Decision) else message


def record_headers(message: Message, packed: Packed, index: int, source: str) -> dict[str, str]:
    """Headers in the manner of CloudEvents, so that any Kafka tool shows what flows."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": packed.hash,
        "ce_type": f"fedtwin.{message.kind()}.v{message.schema_number}",
        "ce_source": source,
        "fedtwin_identity": message.identity,
        "fedtwin_piece": str(index),
        "fedtwin_pieces": str(len(packed.pieces)),
    }
    if message.subject:
        headers["ce_subject"] = message.subject
    if (number := getattr(message, "opened", None)) is not None and isinstance(number, int):
        headers["fedtwin_round"] = str(number)
    return headers


def records(
    message: Message, *, source: str, key: str | None = None, wire: str = "fp32"
) -> tuple[str, list[Record]]:
    """The message's hash and its records. Each is keyed `<key>/<piece>`.

    `key` is the message's identity unless given.
    """
    packed = pack(message, wire)
    stem = message.identity if key is None else key
    return packed.hash, [
        Record(f"{stem}/{index}", value, record_headers(message, packed, index, source))
        for index, value in enumerate(packed.pieces)
    ]


def plain(values: Mapping[str, Any], groups: Groups) -> memoryview:
    """Values and tensors for a worker's pipe, in the layout of a message's payload.

    What is `Encoded` passes as it is.
    """
    return joined(_laid_out({"values": dict(values)}, groups, "fp32"))


def read_plain(payload: Bytes) -> tuple[dict[str, Any], Groups]:
    """What `plain` wrote. Raises Refused when it is something else."""
    header, start = _header(payload)
    groups = _tensors(header, payload, start, sys.maxsize, _passed_on)  # none is made larger
    return _of_type(header, "values", dict), groups


def _payload(message: Message, wire: str) -> list[Bytes]:
    header = {
        "kind": message.kind(),
        "schema": message.schema_number,
        "body": _ordered(message.header()),
    }
    return _laid_out(header, message.groups if isinstance(message, Content) else {}, wire)


def _laid_out(header: dict[str, Any], groups: Groups, wire: str) -> list[Bytes]:
    """The parts of a payload, which follow each other."""
    listed, contents = [], list[Bytes]()
    for group, tensors in groups.items():
        own = wire if group == "model" else "fp32"
        for name, tensor in tensors.items():
            dtype, shape, encoding, content = as_row(tensor, own)
            listed.append((group, name, dtype, shape, encoding, len(content)))
            contents.append(content)
    packed = msgpack.packb(header | {TENSORS: listed}, use_bin_type=True)
    return [LENGTH.pack(len(packed)), packed, *contents]


def joined(parts: Sequence[Bytes]) -> memoryview:
    """The parts one behind the other, each copied once.

    Many bytes in numpy's memory: for tens of megabytes it asks the system for large pages, and what
    that takes is less than the copying itself.
    """
    if (length := sum(map(len, parts))) < PIECE_BYTES:
        return memoryview(b"".join(parts))
    room, size = np.empty(length, np.uint8).data, 0
    for part in parts:
        room[size : size + len(part)] = part
        size += len(part)
    return room.toreadonly()


def _header(payload: Bytes) -> tuple[dict[str, Any], int]:
    if len(payload) < LENGTH.size:
        raise Refused("unreadable", "no header")
    (length,) = LENGTH.unpack_from(payload)
    start = LENGTH.size + length
    if length > MAX_HEADER_BYTES:
        raise Refused("bomb", f"a header of {length} bytes; at most {MAX_HEADER_BYTES}")
    if start > len(payload):
        raise Refused("unreadable", f"a header of {length} bytes in {len(payload)} bytes")
    packed = bytes(payload[LENGTH.size : start])
    if len(packed) > MAX_VALUES:  # a value takes a byte at least
        _count_values(packed)
    header = _known(packed)
    if header is None:
        try:
            header = _unpacked(packed)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise Refused("unreadable", f"header: {type(error).__name__}: {error}") from None
    if not isinstance(header, dict):
        raise Refused("unreadable", f"the header is a {type(header).__name__}")
    return header, start


def _unpacked(packed: bytes) -> Any:
    return msgpack.unpackb(packed, raw=False, use_list=False, ext_hook=_no_extension)


def _known(packed: bytes) -> dict[str, Any] | None:
    """A header that ends with rows which are remembered, with their layout in place of them.

    These are nearly all of it, and alike in all that carry the same model. The bytes before them
    are read with nothing instead: only where that is the last of a mapping's different keys are
    they the rows, and not a part of something else.
    """
    for layout in _LAYOUTS.known():
        if not packed.endswith(layout.ending):
            continue
        try:
            header = _unpacked(packed[: -len(layout.packed)] + NOTHING)
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        if not isinstance(header, dict) or packed[0] != FEW_KEYS | len(header):
            return None
        if next(reversed(header.values())) is not None:  # the last byte; before it the key stands
            return None
        return header | {TENSORS: layout}
    return None


def _no_extension(code: int, content: bytes) -> None:
    raise ValueError(f"extension {code} of msgpack, which no message uses")


def _count_values(packed: Bytes) -> None:
    """Refuse more values than any message has, before memory is taken for them."""
    place, due, seen = 0, 1, 0
    while due and place < len(packed):
        told, length, each = _follows(packed[place])
        start = place + 1 + told
        count = length or int.from_bytes(packed[place + 1 : start], "big")
        place = start if each else start + count
        due += each * count - 1
        seen += 1
        if seen + due > MAX_VALUES:
            raise Refused("bomb", f"a header of more than {MAX_VALUES} values")


def _follows(first: int) -> tuple[int, int, int]:
    """What a value's first byte announces, as the rows of `FOLLOWS` do."""
    if first in EXTENSIONS:
        raise Refused("unreadable", f"an extension ({first:#x}) of msgpack, which no message uses")
    if first in FOLLOWS:
        return FOLLOWS[first]
    if 0x80 <= first < 0xA0:
        return 0, first & 0x0F, 2 if first < 0x90 else 1
    return 0, first & 0x1F if 0xA0 <= first < 0xC0 else 0, 0


def _of_type(header: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = header.get(name)
    if type(value) is not kind:  # a truth value is no number
        raise Refused("unreadable", f"{name} is {_short(value)}, not a {kind.__name__}")
    return value


def _complaint(error: ValidationError) -> str:
    """The first value that does not fit; very many are not listed, which would take memory."""
    if error.error_count() > MAX_COMPLAINTS:
        return f": {error.error_count()} values do not fit"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return "".join(f".{part}" for part in first["loc"])[:200] + f": {first['msg'][:200]}"


def _short(value: object) -> str:
    """A value in a few words: what a message holds may be long, or nested deeper than repr goes."""
    return reprlib.repr(value)


def _kind(header: Mapping[str, Any]) -> type[Message]:
    name, schema = _of_type(header, "kind", str), _of_type(header, "schema", int)
    body = header.get("body")
    if name not in KINDS:
        known = f"this program knows no such kind, and schemas up to {NEWEST}"
        raise NotKnown("unknown-kind", f"{_short(name)} of schema {schema}; {known}", body)
    kind = KINDS[name]
    oldest, newest = _oldest(kind), kind.schema_number
    reads = f"schema {newest}" if oldest == newest else f"schemas {oldest} to {newest}"
    detail = f"{name} of schema {schema}; this program reads {reads}"
    if schema > newest:
        raise NotKnown("newer-schema", detail, body)
    if schema < 1:  # nobody ever wrote it
        raise Refused("unreadable", detail)
    if schema < oldest:
        raise NotKnown("unreadable", detail, body)
    return kind


def _oldest(kind: type[Message]) -> int:
    """The oldest schema of a kind that this program reads."""
    return kind.schema_number - len(kind.lifts)


def _lifted(kind: type[Message], schema: int, body: dict[str, Any]) -> dict[str, Any]:
    """A body of any schema that is read, as one of the newest."""
    for lift in kind.lifts[schema - _oldest(kind) :]:
        try:
            body = lift(body)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            short = f"{type(error).__name__}: {_short(str(error))}"
            raise Refused("unreadable", f"{kind.kind()} of schema {schema}: {short}") from None
    return body


def _passed_on(encoding: str, dtype: str, shape: tuple[int, ...], content: memoryview) -> Tensor:
    """The tensor, or what is only passed on as it is."""
    if encoding == "raw":
        return unpack_tensor(encoding, dtype, shape, content)
    return as_encoded(encoding, Spec(dtype, shape), content)


def _late(encoding: str, dtype: str, shape: tuple[int, ...], content: memoryview) -> Tensor:
    """The tensor, or what is to be unpacked later: a large one as int8."""
    if encoding == "int8" and is_shape(shape) and math.prod(shape) > CHUNK:
        return as_encoded(encoding, Spec(dtype, shape), content)
    return unpack_tensor(encoding, dtype, shape, content)


def _tensors(
    header: Mapping[str, Any],
    payload: Bytes,
    start: int,
    max_bytes: int,
    unpacked: Unpack = unpack_tensor,
) -> Groups:
    layout = header.get(TENSORS)
    if not isinstance(layout, Layout):
        rows = _of_type(header, TENSORS, tuple)
        layout = _layout(rows)
        if layout is None:
            return _tensors_one_by_one(rows, payload, start, max_bytes, unpacked)
    if layout.taken > max_bytes or layout.length != len(payload) - start:
        rows = msgpack.unpackb(layout.packed, use_list=False)
        return _tensors_one_by_one(rows, payload, start, max_bytes, unpacked)
    content = memoryview(payload)[start:]
    room = np.frombuffer(content, np.uint8)
    if layout.small and room.ctypes.data % ALIGNED:
        room = room.copy()  # once, and not each of a hundred tensors by itself
        room.flags.writeable = False
    address = room.ctypes.data
    if layout.plain and not address % ALIGNED and layout.aligned:
        return {
            group: {
                name: np.ndarray(shape, dtype, room, begins)
                for name, dtype, shape, _, begins, _ in places
            }
            for group, places in layout.groups.items()
        }
    groups: Groups = {}
    for group, places in layout.groups.items():
        groups[group] = tensors = {}
        for name, dtype, shape, encoding, begins, length in places:
            if layout.plain and not (address + begins) % dtype.itemsize:
                tensors[name] = np.ndarray(shape, dtype, room, begins)
            else:
                own = content[begins : begins + length]
                tensors[name] = unpacked(encoding, dtype.str, shape, own)
    return groups


class Place(NamedTuple):
    """Where a tensor lies in a message."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    encoding: str
    begins: int
    length: int
    """Bytes."""


class Layout(NamedTuple):
    """Where the tensors of a message lie: alike in all that carry the same model, but as int8."""

    packed: bytes
    """The rows that say so, as they stand in a header."""
    ending: bytes
    """The end of such a header: the key, and these."""
    groups: Mapping[str, tuple[Place, ...]]
    taken: int
    """Bytes of all of them when they are decoded."""
    length: int
    """Bytes of all of them in the message."""
    plain: bool
    """Whether all travel as they are, each with as many bytes as its shape needs."""
    aligned: bool
    """Whether each of these lies well if the first does."""
    small: bool
    """Whether to copy all of them costs less than to look at each; pixels need it nowhere."""


class _Layouts:
    """The layouts that were met last. A thread may miss what another remembers just then."""

    def __init__(self) -> None:
        self._known: tuple[Layout, ...] = ()

    def known(self) -> tuple[Layout, ...]:
        """The one that was met last is the first."""
        return self._known

    def met(self, packed: bytes) -> Layout | None:
        """What rows describe; None where they are for `_tensors_one_by_one` to judge."""
        known = self._known
        found = next((each for each in known if each.packed == packed), None) or _described(packed)
        if found is not None:
            others = (each for each in known if each is not found)
            self._known = (found, *others)[:LAYOUTS]
        return found


_LAYOUTS = _Layouts()


def _layout(rows: tuple[Any, ...]) -> Layout | None:
    """What the rows of a header describe; None where they are for `_tensors_one_by_one` to judge.

    They are told apart by their bytes: to Python 1, 1.0 and True are equal. What is compressed has
    another length each time, and is not remembered.
    """
    try:
        packed = msgpack.packb(rows)
    except ValueError:  # nested without end
        return None
    if len(packed) > MAX_LAYOUT_BYTES or INT8 in packed:
        return None
    return _LAYOUTS.met(packed)


def _described(packed: bytes) -> Layout | None:
    groups: dict[str, dict[str, Place]] = {}
    taken, begins, count = 0, 0, 0
    try:
        for row in msgpack.unpackb(packed, use_list=False):
            group, name, dtype, shape, encoding, length = _row(row)
            taken += _size(dtype, shape)
            place = Place(name, np.dtype(dtype), shape, encoding, begins, length)
            groups.setdefault(group, {})[name] = place
            begins, count = begins + length, count + 1
    except Refused:
        return None
    places = [place for group in groups.values() for place in group.values()]
    if len(places) < count or any(e.length < 0 or not is_shape(e.shape) for e in places):
        return None
    plain = all(
        each.encoding == "raw" and each.length == math.prod(each.shape) * each.dtype.itemsize
        for each in places
    )
    return Layout(
        packed,
        msgpack.packb(TENSORS) + packed,
        {group: tuple(named.values()) for group, named in groups.items()},
        taken,
        begins,
        plain,
        plain and all(each.begins % each.dtype.itemsize == 0 for each in places),
        plain and begins < PIECE_BYTES and any(each.dtype.itemsize > 1 for each in places),
    )


def _tensors_one_by_one(
    rows: tuple[Any, ...], payload: Bytes, start: int, max_bytes: int, unpacked: Unpack
) -> Groups:
    if len(rows) > MAX_TENSORS:
        raise Refused("bomb", f"{len(rows)} tensors; at most {MAX_TENSORS}")
    groups: Groups = {}
    taken, view = 0, memoryview(payload)
    for row in rows:
        group, name, dtype, shape, encoding, length = _row(row)
        taken += _size(dtype, shape)
        if taken > max_bytes:
            raise Refused("bomb", f"tensors of more than {max_bytes} bytes")
        if not 0 <= length <= len(payload) - start:
            raise Refused("unreadable", f"tensor {_short(name)} reaches beyond the message")
        tensors = groups.setdefault(group, {})
        if name in tensors:
            raise Refused("unreadable", f"tensor {_short(name)} comes twice")
        tensors[name] = unpacked(encoding, dtype, shape, view[start : start + length])
        start += length
    if start != len(payload):
        raise Refused("unreadable", f"{len(payload) - start} bytes behind the last tensor")
    return groups


def _row(row: object) -> tuple[Any, ...]:
    """A tensor's group, name, dtype, shape, encoding and length in bytes, each of its type."""
    if not isinstance(row, tuple) or tuple(map(type, row)) != ROW:
        raise Refused("unreadable", f"{_short(row)} describes no tensor")
    for name in row[:2]:
        if "\0" in name:  # the hash of a model closes each name with it
            raise Refused("unreadable", f"the name {_short(name)} of a tensor or group holds a NUL")
    return row


def _size(dtype: str, shape: tuple[Any, ...]) -> int:
    if dtype not in DTYPES:
        raise Refused("wrong-dtype", f"{_short(dtype)}; known are {', '.join(DTYPES)}")
    if len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise Refused("wrong-shape", f"{_short(shape)} is not the shape of a tensor that travels")
    return math.prod(shape) * np.dtype(dtype).itemsize


def _piece_hash(index: int, *views: memoryview) -> bytes:
    digest = blake3(LENGTH.pack(index))
    for view in views:
        digest.update(view)
    return digest.digest()


def _ordered(value: Any) -> Any:
    """The value with every mapping in the order of its keys: equal facts are equal bytes."""
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value
