"""Messages as bytes: pieces of records, each checked by hash before anything else is looked at.

A message is `header length (u32) | msgpack header | tensors`, little-endian throughout. It is cut into
pieces of at most 960 KiB; a record's value is

    magic (4) | index (u32) | count (u32) | message hash (32) | piece hashes (32 x count) | piece

where a piece's hash covers its index and its bytes, and the message's hash is the hash of the list of
piece hashes (BLAKE3). So each piece proves by itself that it belongs to its message, a foreign piece
is dropped alone, and pieces of a sender that died are completed by its successor's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from blake3 import blake3
from pydantic import ValidationError

from schemas.errors import Refused
from schemas.messages import KINDS, Content, Groups, Message
from schemas.tensors import DTYPES, pack_tensor, unpack_tensor

MAGIC = b"FTP1"
PIECE_BYTES = 960 * 1024  # a record of 1 MiB is refused by Kafka's client: key and headers count
HEAD = struct.Struct("<4sII32s")
LENGTH = struct.Struct("<I")
HASH_BYTES = 32
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8


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
    return cut(_payload(message, wire))


def cut(payload: bytes) -> Packed:
    """Any payload in pieces that prove where they belong."""
    parts = [payload[i : i + PIECE_BYTES] for i in range(0, max(len(payload), 1), PIECE_BYTES)]
    hashes = b"".join(_piece_hash(index, part) for index, part in enumerate(parts))
    whole = blake3(hashes).digest()
    pieces = tuple(
        HEAD.pack(MAGIC, index, len(parts), whole) + hashes + part
        for index, part in enumerate(parts)
    )
    return Packed(whole.hex(), pieces)


@dataclass(frozen=True, slots=True)
class Piece:
    """A checked piece of a message."""

    message: str
    index: int
    count: int
    content: bytes


def piece(value: bytes, max_bytes: int) -> Piece:
    """Check a record's value against the hashes that it carries.

    Raises Refused: unreadable, too-large (the message would exceed `max_bytes`), bad-hash.
    """
    if len(value) < HEAD.size:
        raise Refused("unreadable", f"{len(value)} bytes are shorter than a record's head")
    magic, index, count, whole = HEAD.unpack_from(value)
    if magic != MAGIC:
        raise Refused("unreadable", f"begins with {magic!r}, not {MAGIC!r}")
    if index >= count or (count - 1) * PIECE_BYTES > max_bytes:
        raise Refused("too-large", f"piece {index} of {count} exceeds {max_bytes} bytes a message")
    start = HEAD.size + count * HASH_BYTES
    hashes, content = value[HEAD.size : start], value[start:]
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
    payload: bytes
    offsets: tuple[int, ...]
    """Where its pieces lie, in order of their index."""


class Assembler:
    """Puts the pieces of one topic together, whoever wrote them and however often.

    A message is given once for each time that its last missing piece comes: a repeat that is written
    whole comes whole again.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open: dict[str, dict[int, tuple[int, bytes]]] = {}

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
        payload = b"".join(content for _, content in ordered)
        return Whole(part.message, payload, tuple(place for place, _ in ordered))

    @property
    def incomplete(self) -> int:
        """How many messages still lack a piece."""
        return len(self._open)


def unpack(payload: bytes, max_bytes: int) -> Message:
    """The message in a payload whose hash was checked. Its tensors are views of the payload.

    Raises Refused: unreadable, bomb, unknown-kind, newer-schema, wrong-dtype, wrong-shape.
    """
    header, start = _header(payload)
    kind = _kind(header)
    try:
        groups = _tensors(header.get("tensors", ()), payload, start, max_bytes)
        body = dict(header["body"])
        if issubclass(kind, Content):
            body["groups"] = groups
        elif groups:
            raise Refused("unreadable", f"{kind.kind()} carries tensors")
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused("unreadable", f"{kind.kind()}.{place}: {first['msg']}") from None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise Refused("unreadable", f"{kind.kind()}: {error}") from None


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


def plain(values: Mapping[str, Any], groups: Groups) -> bytes:
    """Values and tensors for a worker's pipe, in the layout of a message's payload."""
    return _joined({"values": dict(values)}, groups, "fp32")


def read_plain(payload: bytes) -> tuple[dict[str, Any], Groups]:
    """What `plain` wrote. Raises Refused when it is something else."""
    header, start = _header(payload)
    try:
        return dict(header["values"]), _tensors(header["tensors"], payload, start, len(payload))
    except (TypeError, ValueError, KeyError) as error:
        raise Refused("unreadable", f"not what a worker writes: {error}") from None


def _payload(message: Message, wire: str) -> bytes:
    header = {
        "kind": message.kind(),
        "schema": message.schema_number,
        "body": _ordered(message.header()),
    }
    return _joined(header, message.groups if isinstance(message, Content) else {}, wire)


def _joined(header: dict[str, Any], groups: Groups, wire: str) -> bytes:
    listed, contents = [], []
    for group, tensors in groups.items():
        for name, array in tensors.items():
            encoding, content = pack_tensor(array, wire if group == "model" else "fp32")
            listed.append([group, name, _dtype(array), list(array.shape), encoding, len(content)])
            contents.append(content)
    packed = msgpack.packb(header | {"tensors": listed}, use_bin_type=True)
    return b"".join([LENGTH.pack(len(packed)), packed, *contents])


def _header(payload: bytes) -> tuple[dict[str, Any], int]:
    if len(payload) < LENGTH.size:
        raise Refused("unreadable", "no header")
    (length,) = LENGTH.unpack_from(payload)
    start = LENGTH.size + length
    if length > MAX_HEADER_BYTES:
        raise Refused("bomb", f"a header of {length} bytes; at most {MAX_HEADER_BYTES}")
    if start > len(payload):
        raise Refused("unreadable", f"a header of {length} bytes in {len(payload)} bytes")
    try:
        header = msgpack.unpackb(payload[LENGTH.size : start], raw=False, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Refused("unreadable", f"header: {type(error).__name__}: {error}") from None
    if not isinstance(header, dict):
        raise Refused("unreadable", f"the header is a {type(header).__name__}")
    return header, start


def _kind(header: Mapping[str, Any]) -> type[Message]:
    name, schema = header.get("kind"), header.get("schema")
    if not isinstance(name, str) or not isinstance(schema, int):
        raise Refused("unreadable", "the header names no kind and schema")
    if name not in KINDS:
        raise Refused("unknown-kind", f"{name[:80]!r} (schema {schema})")
    kind = KINDS[name]
    if schema != kind.schema_number:
        raise Refused(
            "newer-schema" if schema > kind.schema_number else "unreadable",
            f"{name} of schema {schema}; this program reads schema {kind.schema_number}",
        )
    return kind


def _tensors(listed: Iterable[Any], payload: bytes, start: int, max_bytes: int) -> Groups:
    groups: Groups = {}
    rows = list(listed)
    if len(rows) > MAX_TENSORS:
        raise Refused("bomb", f"{len(rows)} tensors; at most {MAX_TENSORS}")
    taken, view = 0, memoryview(payload)
    for group, name, dtype, shape, encoding, length in rows:
        taken += _size(dtype, shape)
        if taken > max_bytes:
            raise Refused("bomb", f"tensors of more than {max_bytes} bytes")
        if not isinstance(length, int) or length < 0 or start + length > len(payload):
            raise Refused("unreadable", f"tensor {name!r} reaches beyond the message")
        if not isinstance(group, str) or not isinstance(name, str):
            raise Refused("unreadable", "a tensor without a name")
        content = view[start : start + length]
        tensors = groups.setdefault(group, {})
        if name in tensors:
            raise Refused("unreadable", f"tensor {group}/{name} comes twice")
        tensors[name] = unpack_tensor(encoding, dtype, tuple(shape), content)
        start += length
    if start != len(payload):
        raise Refused("unreadable", f"{len(payload) - start} bytes behind the last tensor")
    return groups


def _size(dtype: object, shape: object) -> int:
    if dtype not in DTYPES:
        raise Refused("wrong-dtype", f"{dtype!r}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise Refused("wrong-shape", f"{str(shape)[:80]}")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in shape):
        raise Refused("wrong-shape", f"{str(shape)[:80]}")
    return math.prod(shape) * np.dtype(dtype).itemsize


def _dtype(array: np.ndarray) -> str:
    name = array.dtype.newbyteorder("<").str
    if name not in DTYPES:
        raise ValueError(
            f"a tensor of {array.dtype} does not travel; known are {', '.join(DTYPES)}"
        )
    return name


def _piece_hash(index: int, content: bytes) -> bytes:
    return blake3(LENGTH.pack(index) + content).digest()


def _ordered(value: Any) -> Any:
    """The same value with every mapping in the order of its keys, so that equal facts are equal bytes."""
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value
