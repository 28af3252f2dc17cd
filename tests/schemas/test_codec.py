"""Messages as bytes and back, and all the ways in which bytes can be wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.codec import (
    HEAD,
    LENGTH,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    MAX_VALUES,
    PIECE_BYTES,
    Assembler,
    NotKnown,
    Packed,
    cut,
    pack,
    piece,
    plain,
    read_plain,
    records,
    unpack,
)
from schemas.errors import Refused
from schemas.messages import KINDS, GlobalModel, Message, ModelUpdate, StreamMarked
from schemas.tensors import WIRES, Encoded, encoded, model_sha256, update_of
from tests.schemas.specimens import RUN, every_kind, specimen, weights

ROOM = 8 * 1024 * 1024  # the run's limit on a message, in bytes
Row = list[Any]


def payload(header: object, content: bytes = b"") -> bytes:
    """A message's bytes around any header."""
    packed = msgpack.packb(header)
    return LENGTH.pack(len(packed)) + packed + content


def model_with(*rows: Row, content: bytes = b"") -> bytes:
    """A GlobalModel that claims to hold these tensors."""
    header = {"kind": "GlobalModel", "schema": 1, "body": {"run": RUN, "version": 1}}
    return payload(header | {"tensors": list(rows)}, content)


def mark_with(**changes: object) -> bytes:
    """A StreamMarked with other fields; None takes one away."""
    fields = {"run": RUN, "source": "camera", "count": 3, "stage": 0} | changes
    body = {name: value for name, value in fields.items() if value is not None}
    return payload({"kind": "StreamMarked", "schema": 1, "body": body, "tensors": []})


def refusal(content: bytes, room: int = ROOM) -> str:
    """Why a payload is refused."""
    with pytest.raises(Refused) as caught:
        unpack(content, room)
    return str(caught.value)


def big() -> Message:
    """A model of three pieces."""
    noise = np.random.Generator(np.random.PCG64(5)).integers(0, 256, 2 * PIECE_BYTES + 10, "|u1")
    return GlobalModel(run=RUN, version=1, groups={"model": {"noise": noise}})


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("message", every_kind(), ids=lambda message: message.kind())
def test_every_kind_comes_back_as_it_went(message: Message) -> None:
    """What is read packs to the same bytes, and says the same of itself."""
    packed = pack(message)
    (value,) = packed.pieces
    read = unpack(piece(value, ROOM).content, ROOM)

    assert type(read) is type(message)
    assert read.header() == message.header()
    assert read.identity == message.identity
    assert pack(read) == packed


def test_there_is_a_specimen_of_every_kind() -> None:
    """A kind without one would be tested by nobody."""
    assert [message.kind() for message in every_kind()] == list(KINDS)


def test_equal_facts_are_equal_bytes_in_whatever_order_they_were_noted() -> None:
    """Mappings travel in the order of their keys."""
    verdict = every_kind()[3]
    turned = verdict.model_copy(update={"images": {"1": 1, "0": 1}})

    assert pack(turned) == pack(verdict)


def test_the_hash_of_a_message_never_changes() -> None:
    """Decisions name content by hash, and old logs are read again: the layout is frozen."""
    mark, first_model = specimen(StreamMarked), specimen(GlobalModel)

    assert pack(mark).hash == "fea6157d9c74cd2f28af191080dd1fd8549f8d53d72179a373ad0bd059d521e4"
    assert pack(first_model).hash == (
        "b6c096f87229ef1a839b35af30b08442bcd5c364d0368ddcf657fc36a7ff7f8f"
    )


def test_tensors_are_views_of_the_payload_and_cannot_be_changed() -> None:
    """45 MB are not copied to be read."""
    content = piece(
        pack(GlobalModel(run=RUN, version=1, groups={"model": weights()})).pieces[0], ROOM
    )
    read = unpack(content.content, ROOM)

    assert isinstance(read, GlobalModel)
    assert not read.groups["model"]["fc.bias"].flags.writeable


def test_only_the_model_shrinks_on_a_lossy_wire() -> None:
    """A strategy's own groups travel as they are; the model's matrices take a quarter or so."""
    matrix = np.random.Generator(np.random.PCG64(6)).standard_normal((64, 64)).astype("<f4")
    message = GlobalModel(run=RUN, version=1, groups={"model": {"m": matrix}, "own": {"m": matrix}})
    exact, small = pack(message), pack(message, "int8")
    read = unpack(piece(small.pieces[0], ROOM).content, ROOM)

    assert isinstance(read, GlobalModel)
    assert len(small.pieces[0]) < len(exact.pieces[0]) - matrix.nbytes // 2
    assert read.groups["own"]["m"].tobytes() == matrix.tobytes()
    assert np.abs(read.groups["model"]["m"] - matrix).max() <= np.abs(matrix).max() / 127


def test_a_dtype_that_does_not_travel_is_the_senders_mistake() -> None:
    """Complex numbers are in no model."""
    message = GlobalModel(run=RUN, version=1, groups={"model": {"c": np.zeros(2, complex)}})

    with pytest.raises(ValueError, match="complex128"):
        pack(message)


def test_headers_let_any_tool_show_what_flows() -> None:
    """Who, what, about whom, in which round: in the manner of CloudEvents."""
    update = specimen(ModelUpdate)
    hash, (record,) = records(update, source="twins")

    assert record.key == "ModelUpdate/2/local/north/0"
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_id": hash,
        "ce_type": "fedtwin.ModelUpdate.v1",
        "ce_source": "twins",
        "ce_subject": "local/north",
        "fedtwin_identity": "ModelUpdate/2/local/north",
        "fedtwin_round": "2",
        "fedtwin_piece": "0",
        "fedtwin_pieces": "1",
    }


def test_a_key_of_ones_own_names_each_piece() -> None:
    """Models are kept by version and hash, and let go piece by piece."""
    _, written = records(big(), source="aggregator", key="1/abc")

    assert [record.key for record in written] == ["1/abc/0", "1/abc/1", "1/abc/2"]
    assert all("ce_subject" not in record.headers for record in written)


def test_a_workers_pipe_carries_values_and_tensors() -> None:
    """In the layout of a message's payload, and as strictly read."""
    values, groups = read_plain(plain({"name": "learn", "rows": [1, 2]}, {"model": weights()}))

    assert values == {"name": "learn", "rows": (1, 2)}
    assert model_sha256(groups["model"]) == model_sha256(weights())
    with pytest.raises(Refused, match="values is None, not a dict"):
        read_plain(payload({"tensors": []}))


# --- pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_encoded_once_is_passed_on_as_it_is(wire: str) -> None:
    """A worker encodes its update; pipe and message carry those bytes, also where they share a name
    with others: the message is the one of the values."""
    values = update_of(weights(), {n: t * 0 for n, t in weights().items()}, wire)
    sent = {"model": encoded(values, wire), "own": {"x": np.ones(2, "<f4")}}

    _, passed = read_plain(plain({}, sent))
    of_values, of_bytes = (
        pack(GlobalModel(run=RUN, version=1, groups=groups), wire)
        for groups in ({"model": values, "own": sent["own"]}, passed)
    )

    assert of_bytes == of_values
    assert len(plain({}, passed)) == len(plain({}, sent))
    lossy = {name for name, tensor in passed["model"].items() if isinstance(tensor, Encoded)}
    assert lossy == ({n for n, t in values.items() if t.ndim > 1} if wire != "fp32" else set())


def test_a_large_message_travels_in_pieces_of_any_order_and_writer() -> None:
    """Two senders wrote the same message and died in the middle: together they wrote it whole."""
    first, second, third = pack(big()).pieces
    puts = Assembler(ROOM)

    assert puts.add(7, third) is None
    assert puts.add(9, first) is None
    assert puts.add(12, first) is None
    whole = puts.add(13, second)
    assert whole is not None
    assert whole.offsets == (12, 13, 7)
    assert pack(unpack(whole.payload, ROOM)).pieces == (first, second, third)


def test_a_repeat_that_is_written_whole_comes_whole_again() -> None:
    """Its reader knows by id and hash that it is one."""
    pieces, puts = pack(big()).pieces, Assembler(ROOM)

    given = [puts.add(offset, value) for offset, value in enumerate((*pieces, *pieces))]

    offsets = [whole.offsets if whole else None for whole in given]
    assert offsets == [None, None, (0, 1, 2), None, None, (3, 4, 5)]


def test_a_message_of_one_piece_is_whole_at_once() -> None:
    """Each time that it comes."""
    (value,), puts = pack(every_kind()[1]).pieces, Assembler(ROOM)

    for offset in (3, 4):
        whole = puts.add(offset, value)
        assert whole is not None
        assert (whole.hash, whole.offsets) == (pack(every_kind()[1]).hash, (offset,))


def test_an_empty_payload_is_one_empty_piece() -> None:
    """Nothing is cut into something, so that it can be written."""
    assert bytes(piece(cut(b"").pieces[0], ROOM).content) == b""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2 * PIECE_BYTES), max_size=6))
def test_how_a_payload_is_given_in_parts_changes_nothing(lengths: list[int]) -> None:
    """They are neither joined first nor copied twice."""
    content = bytes(range(256)) * (sum(lengths) // 256 + 1)
    content = content[: sum(lengths)]
    parts, place = [], 0
    for length in lengths:
        parts.append(content[place : place + length])
        place += length

    assert cut(*parts) == cut(content)


def repacked(packed: Packed, at: int, **changes: object) -> bytes:
    """A piece with another head."""
    magic, index, count, whole = HEAD.unpack_from(packed.pieces[at])
    head = {"magic": magic, "index": index, "count": count, "whole": whole} | changes
    rest = packed.pieces[at][HEAD.size :]
    return HEAD.pack(head["magic"], head["index"], head["count"], head["whole"]) + rest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": b"FTP2"}, "unreadable: begins with b'FTP2'"),
        ({"index": 3}, "unreadable: piece 3 of 3"),
        ({"index": 1}, "bad-hash"),
        ({"count": 0}, "unreadable: piece 0 of 0"),
        ({"count": 2}, "unreadable: 983180"),
        ({"count": 10}, "too-large: 10 pieces"),
        ({"count": 2**32 - 1}, "too-large"),
        ({"whole": bytes(32)}, "bad-hash"),
    ],
)
def test_a_piece_with_another_head_is_dropped_alone(
    changes: dict[str, object], reason: str
) -> None:
    """Whatever its head says, the hashes behind it say which piece of what it is."""
    packed = pack(big())

    with pytest.raises(Refused) as caught:
        piece(repacked(packed, 0, **changes), ROOM)
    assert str(caught.value).startswith(reason)


def test_what_is_too_short_or_too_long_for_a_piece_is_no_piece() -> None:
    """No hash is taken of it."""
    (value,) = pack(every_kind()[1]).pieces

    for wrong in (b"", value[: HEAD.size - 1], value[: HEAD.size + 31], value + bytes(PIECE_BYTES)):
        with pytest.raises(Refused, match="unreadable"):
            piece(wrong, ROOM)


# --- what a payload may say ---------------------------------------------------------------------


F4 = np.float32(1.5).tobytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable: no header"),
        (LENGTH.pack(5) + b"abc", "unreadable: a header of 5 bytes in 7 bytes"),
        (LENGTH.pack(MAX_HEADER_BYTES + 1), "bomb: a header of 8388609 bytes"),
        (payload([1]), "unreadable: the header is a tuple"),
        (LENGTH.pack(1) + b"\xc1", "unreadable: header: "),
        (LENGTH.pack(1) + b"\x92", "unreadable: header: "),
        (LENGTH.pack(3) + b"\xa2\xff\xfe", "unreadable: header: UnicodeDecodeError"),
        (payload({1: 2}), "unreadable: header: ValueError"),
        (payload(msgpack.ExtType(5, b"x")), "unreadable: header: ValueError: extension 5"),
        (payload({"kind": "StreamMarked"}), "unreadable: schema is None"),
        (payload({"kind": 3, "schema": 1}), "unreadable: kind is 3"),
        (payload({"kind": "StreamMarked", "schema": True}), "unreadable: schema is True"),
        (
            payload({"kind": "Secret", "schema": 2}),
            "unknown-kind: 'Secret' of schema 2; this program knows no such kind, and schemas up",
        ),
        (
            payload({"kind": "StreamMarked", "schema": 2}),
            "newer-schema: StreamMarked of schema 2; this program reads schema 1",
        ),
        (payload({"kind": "StreamMarked", "schema": 0}), "unreadable: StreamMarked of schema 0"),
        (payload({"kind": "StreamMarked", "schema": 1}), "unreadable: tensors is None"),
        (
            payload({"kind": "StreamMarked", "schema": 1, "tensors": [], "body": [["run", RUN]]}),
            "unreadable: body is",
        ),
        (mark_with(count=-1), "unreadable: StreamMarked.count: "),
        (mark_with(count=2**53), "unreadable: StreamMarked.count: "),
        (mark_with(count="3"), "unreadable: StreamMarked.count: "),
        (mark_with(count=float("nan")), "unreadable: StreamMarked.count: "),
        (mark_with(source=""), "unreadable: StreamMarked.source: "),
        (mark_with(source="x" * 201), "unreadable: StreamMarked.source: "),
        (mark_with(source=None), "unreadable: StreamMarked.source: Field required"),
        (mark_with(run="A" * 64), "unreadable: StreamMarked.run: "),
        (mark_with(run=RUN + "\n"), "unreadable: StreamMarked.run: "),
        (mark_with(colour="red"), "unreadable: StreamMarked.colour: "),
        (mark_with(groups={}), "unreadable: StreamMarked.groups: "),
        (
            payload(
                {
                    "kind": "StreamMarked",
                    "schema": 1,
                    "body": {"run": RUN, "source": "camera", "count": 3, "stage": 0},
                    "tensors": [["model", "w", "<f4", [1], "raw", 4]],
                },
                F4,
            ),
            "unreadable: StreamMarked carries tensors",
        ),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    """The text names the place; nothing but Refused comes out."""
    assert refusal(content).startswith(reason)


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release whose marks are of schema 3, and which reads those of 2, where a count was called
    a total, but none of 1."""

    def of_two(body: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name != "total"} | {
            "count": body["total"]
        }

    monkeypatch.setattr(StreamMarked, "schema_number", 3)
    monkeypatch.setattr(StreamMarked, "lifts", (of_two,))


def marked(schema: int, **body: object) -> bytes:
    """A mark of any schema."""
    said = {"run": RUN, "source": "camera", "stage": 0} | body
    return payload({"kind": "StreamMarked", "schema": schema, "body": said, "tensors": []})


@pytest.mark.usefixtures("third")
def test_an_older_schema_that_is_known_is_read_as_the_newest() -> None:
    """And the newest as it is; what is written is of the newest."""
    mark = StreamMarked(run=RUN, source="camera", count=3, stage=0)

    assert unpack(marked(2, total=3), ROOM) == unpack(marked(3, count=3), ROOM) == mark
    assert records(mark, source="x")[1][0].headers["ce_type"] == "fedtwin.StreamMarked.v3"


@pytest.mark.usefixtures("third")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (marked(4), "newer-schema: StreamMarked of schema 4; this program reads schemas 2 to 3"),
        (marked(1), "unreadable: StreamMarked of schema 1; this program reads schemas 2 to 3"),
        (marked(0), "unreadable: StreamMarked of schema 0; this program reads schemas 2 to 3"),
        (marked(2, count=3), "unreadable: StreamMarked of schema 2: KeyError: \"'total'\""),
        (marked(2, total="3"), "unreadable: StreamMarked.count: Input should be a valid integer"),
    ],
)
def test_what_no_lift_is_known_for_is_refused(content: bytes, said: str) -> None:
    """Too new, too old, never there, or junk under an older number."""
    assert refusal(content) == said


@pytest.mark.usefixtures("third")
def test_a_schema_too_old_is_told_from_junk() -> None:
    """Somebody has written it and others have counted it: it may not be passed over in a line."""
    with pytest.raises(NotKnown):
        unpack(marked(1), ROOM)


@pytest.mark.parametrize(("kind", "schema"), [("WindowJudged", 2), ("EntityMoved", 1)])
def test_of_a_later_programs_decision_entity_and_number_can_be_told(kind: str, schema: int) -> None:
    """Whatever else it says: these, and the run, every schema keeps."""
    body = {"run": RUN, "number": 7, "entity": "local/north", "mood": [1, 2]}
    with pytest.raises(NotKnown) as caught:
        unpack(payload({"kind": kind, "schema": schema, "body": body, "tensors": []}), ROOM)

    decision = caught.value.decision
    assert decision is not None
    assert (decision.run, decision.number, decision.entity) == (RUN, 7, "local/north")
    assert decision.detail == caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        None,
        "a text",
        {},
        {"run": RUN, "number": 7},
        {"run": RUN, "number": -1, "entity": "local/north"},
        {"run": RUN, "number": True, "entity": "local/north"},
        {"run": RUN, "number": 7, "entity": "north"},
        {"run": "winter", "number": 7, "entity": "local/north"},
    ],
)
def test_what_does_not_say_where_it_stands_stands_in_no_line(body: object) -> None:
    """It is refused as ever, and stops nobody."""
    with pytest.raises(NotKnown) as caught:
        unpack(payload({"kind": "EntityMoved", "schema": 1, "body": body, "tensors": []}), ROOM)

    assert caught.value.decision is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["model", "w", "<f4", [1], "raw"], "unreadable: ('model', 'w'"),
        (["model", "w", "<f4", 1, "raw", 4], "unreadable: ('model', 'w'"),
        (["model", 7, "<f4", [1], "raw", 4], "unreadable: ('model', 7"),
        (["model", "w", "<f4", [1], "raw", True], "unreadable: ('model', 'w'"),
        (["model", "w\0<f4\0001\0", "<f4", [1], "raw", 4], "unreadable: the name 'w"),
        (["model\0", "w", "<f4", [1], "raw", 4], "unreadable: the name 'model"),
        (["model", "w", "<f2", [2], "raw", 4], "wrong-dtype: '<f2'"),
        (["model", "w", ">f4", [1], "raw", 4], "wrong-dtype"),
        (["model", "w", "|O", [1], "raw", 4], "wrong-dtype"),
        (["model", "w", "<f4", [-1], "raw", 4], "wrong-shape"),
        (["model", "w", "<f4", [1.0], "raw", 4], "wrong-shape"),
        (["model", "w", "<f4", [True], "raw", 4], "wrong-shape"),
        (["model", "w", "<f4", [1] * 9, "raw", 4], "wrong-shape"),
        (["model", "w", "<f4", [2**62, 0], "raw", 0], "wrong-shape"),
        (["model", "w", "<f4", [2**21 + 1], "raw", 4], "bomb: tensors of more than"),
        (["model", "w", "<f4", [2**62, 2**62], "raw", 4], "bomb: tensors of more than"),
        (["model", "w", "<f4", [1], "raw", -4], "unreadable: tensor 'w' reaches beyond"),
        (["model", "w", "<f4", [1], "raw", 5], "unreadable: tensor 'w' reaches beyond"),
        (["model", "w", "<f4", [1], "raw", 2**63], "unreadable: tensor 'w' reaches beyond"),
        (["model", "w", "<f4", [2], "raw", 4], "unreadable: 4 bytes where the shape needs 8"),
        (["model", "w", "<f4", [0], "raw", 0], "unreadable: 4 bytes behind the last tensor"),
        (["model", "w", "<f4", [1], "zip", 4], "unreadable: 'zip'"),
        (["model", "w", "<f4", [1], "int8", 4], "unreadable: 'int8'"),
        (["model", "w", "<f4", [1, 1], "int8", 4], "unreadable: not what zstd wrote"),
        (["model", "w", "<f4", [1, 1], "bf16", 4], "unreadable: 4 bytes where"),
        ("abcdef", "unreadable: 'abcdef'"),
    ],
)
def test_a_tensor_that_is_not_what_its_row_says_is_refused(row: Row, reason: str) -> None:
    """Sizes are reckoned before memory is taken."""
    assert refusal(model_with(row, content=F4)).startswith(reason)


@pytest.mark.parametrize(
    ("shape", "length", "reason"),
    [([1.0], 4, "wrong-shape"), ([True], 4, "wrong-shape"), ([1], 4.0, "unreadable: ('model'")],
)
def test_rows_that_python_takes_for_equal_are_judged_apart(
    shape: list[object], length: object, reason: str
) -> None:
    """How tensors lie is remembered; 1, 1.0 and True are equal, but only one is a length."""
    good = model_with(["model", "w", "<f4", [1], "raw", 4], content=F4)
    bad = model_with(["model", "w", "<f4", shape, "raw", length], content=F4)

    for _ in range(2):
        assert isinstance(unpack(good, ROOM), GlobalModel)
        assert refusal(bad).startswith(reason)


@pytest.mark.parametrize(
    ("rows", "content", "reason"),
    [
        ([["model", "w", "<f4", [2**62, 0], "raw", 0]], b"", "wrong-shape"),
        (
            [["model", "w", "<f4", [1], "raw", -4], ["model", "v", "<f4", [2], "raw", 8]],
            F4,
            "unreadable: tensor 'w' reaches beyond",
        ),
    ],
)
def test_rows_whose_bytes_add_up_are_judged_all_the_same(
    rows: list[Row], content: bytes, reason: str
) -> None:
    """As many bytes as all say together; but one says what no tensor is."""
    assert refusal(model_with(*rows, content=content)).startswith(reason)


@pytest.mark.parametrize("depth", [500, 600, 1000])
def test_rows_nested_without_end_are_refused(depth: int) -> None:
    """Deeper than what is remembered can be written down again."""
    deep = msgpack.packb([])
    for _ in range(depth):
        deep = b"\x91" + deep
    head = msgpack.packb({"kind": "GlobalModel", "schema": 1, "body": {"run": RUN, "version": 1}})
    packed = b"\x84" + head[1:] + msgpack.packb("tensors") + b"\x91" + deep

    assert refusal(LENGTH.pack(len(packed)) + packed).startswith("unreadable")


def test_an_encoding_that_carries_no_such_tensor_passes_no_pipe() -> None:
    """A worker's answer is not decoded on its way; what nobody could decode is refused."""
    for row in (
        ["send/model", "w", "<f4", [1, 1], "zip", 4],
        ["send/model", "w", "|u1", [4, 1], "int8", 4],
        ["send/model", "w", "<f4", [2**40, 2], "bf16", 4],
    ):
        with pytest.raises(Refused):
            read_plain(payload({"values": {}, "tensors": [row]}, F4))


def test_what_is_encoded_is_nobodys_values() -> None:
    """Its bytes are no tensor: neither it nor a copy of it is hashed or packed as one."""
    sent = encoded({"w": np.ones((2, 2), "<f4")}, "int8")["w"]

    for each in (sent, sent.copy(), sent[:]):
        with pytest.raises(ValueError, match="encoded tensor"):
            model_sha256({"w": each})


@pytest.mark.parametrize("padding", range(9))
def test_tensors_are_read_wherever_their_bytes_lie(padding: int) -> None:
    """Behind a header of any length, or an odd number of bytes: they are aligned."""
    rows = [["model", "w", "<f4", [2], "raw", 8], ["model", "b", "|u1", [3], "raw", 3]]
    rows += [["model", "n", "<i8", [], "raw", 8], ["model", "none", "<f4", [0, 7], "raw", 0]]
    content = np.array([1.5, -2.5], "<f4").tobytes() + b"\1\2\3" + np.int64(-7).tobytes()
    whole = memoryview(bytes(padding) + model_with(*rows, content=content))[padding:]

    read = unpack(whole, ROOM)

    assert isinstance(read, GlobalModel)
    tensors = read.groups["model"]
    assert [each.tolist() for each in tensors.values()] == [[1.5, -2.5], [1, 2, 3], -7, []]
    assert all(each.flags.aligned for each in tensors.values())
    assert not tensors["w"].flags.writeable
    assert tensors["none"].shape == (0, 7)


KNOWN: Row = ["model", "w", "<f4", [1], "raw", 4]
END = msgpack.packb("tensors") + msgpack.packb([KNOWN])
KIND = b"".join(map(msgpack.packb, ["kind", "GlobalModel", "schema", 1]))
X, TENSORS, NIL = msgpack.packb("x"), msgpack.packb("tensors"), msgpack.packb(None)
BODY = msgpack.packb("body") + msgpack.packb({"run": RUN, "version": 1})


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x84" + KIND + TENSORS + NIL + msgpack.packb("body") + b"\x81" + END, "tensors is None"),
        (b"\x85" + X + NIL + KIND + TENSORS + NIL + X + b"\x81" + END, "tensors is None"),
        (b"\x84" + KIND + BODY + TENSORS + b"\x81" + END, "tensors is {'tensors': "),
        (b"\x84" + KIND + BODY + TENSORS + b"\xc4" + bytes([len(END)]) + END, "tensors is b'"),
        (b"\x84" + KIND + BODY + TENSORS + b"\x92" + END, "'tensors' describes no tensor"),
        (b"\x84" + KIND + BODY + TENSORS + NIL, "tensors is None"),
    ],
)
def test_rows_that_were_met_before_count_only_as_rows(header: bytes, reason: str) -> None:
    """A header may end with the very bytes of a known one, where these are a part of another value:
    of the body, of a key that comes twice, of what should be the rows, of bytes or of a list."""
    known = unpack(model_with(KNOWN, content=F4), ROOM)

    told = refusal(LENGTH.pack(len(header)) + header + F4)

    assert isinstance(known, GlobalModel)
    assert told.startswith(f"unreadable: {reason}")


def test_rows_that_were_met_before_describe_other_content() -> None:
    """Each message has its own numbers, wherever in its header the other keys stand; and too few of
    them are refused, known or not."""
    unpack(model_with(KNOWN, content=F4), ROOM)
    header = b"\x84" + BODY + KIND + END
    other = np.float32(-2.5).tobytes()

    read = unpack(LENGTH.pack(len(header)) + header + other, ROOM)

    assert isinstance(read, GlobalModel)
    assert read.groups["model"]["w"].tolist() == [-2.5]
    assert "reaches beyond" in refusal(LENGTH.pack(len(header)) + header + other[1:])
    assert refusal(LENGTH.pack(len(header)) + header + other, room=3).startswith("bomb")


def test_a_tensor_that_comes_twice_is_refused() -> None:
    """Which of the two would count?"""
    row = ["model", "w", "<f4", [1], "raw", 4]

    assert refusal(model_with(row, row, content=F4 * 2)).startswith("unreadable: tensor 'w' comes")
    assert isinstance(unpack(model_with(row, ["own", *row[1:]], content=F4 * 2), ROOM), GlobalModel)


def test_tensors_are_weighed_together() -> None:
    """Each fits the limit, all of them do not; nor do more than any model has."""
    first = ["model", "a", "<f4", [ROOM // 8], "raw", ROOM // 2]
    second = ["model", "b", "<f4", [ROOM // 8 + 1], "raw", ROOM // 2 + 4]
    none = [["model", str(i), "<f4", [0], "raw", 0] for i in range(MAX_TENSORS + 1)]

    assert isinstance(unpack(model_with(first, content=bytes(ROOM // 2)), ROOM), GlobalModel)
    assert isinstance(unpack(model_with(second, content=bytes(ROOM // 2 + 4)), ROOM), GlobalModel)
    assert refusal(model_with(first, second, content=bytes(ROOM + 4))).startswith("bomb")
    assert refusal(model_with(*none)) == "bomb: 4097 tensors; at most 4096"


def test_a_deep_value_is_told_of_in_a_few_words() -> None:
    """Lists nested 500 deep would be more than repr dares; a name of a megabyte is cut short."""
    deep: object = 0
    for _ in range(500):
        deep = [deep]

    assert len(refusal(model_with(["model", deep, "<f4", [1], "raw", 4]))) < 200
    assert len(refusal(model_with(["model", "n" * 10**6, "<f4", [1], "raw", 4]))) < 200
    assert len(refusal(payload({"kind": "k" * 10**6, "schema": 1}))) < 200
    assert len(refusal(mark_with(**{"x" * 10**6: 1}))) < 500


# --- memory ---------------------------------------------------------------------------------------


MOST = MAX_HEADER_BYTES - 10
WIDE = b"\xdd" + MOST.to_bytes(4, "big")
MANY_FAULTS = {"run": RUN, "source": "s", "first": 0, "classes": [7] * (MAX_VALUES - 20)}
BOMBS: Mapping[str, Callable[[], bytes]] = {
    "empty mappings": lambda: WIDE + b"\x80" * MOST,
    "mappings of one": lambda: WIDE + b"\x81\xa0\xc0" * (MOST // 3),
    "lists that claim all that is left": lambda: WIDE * 400 + b"\x90" * (MOST - 2000),
    "an extension of all": lambda: b"\xc9" + MOST.to_bytes(4, "big") + b"\x05" + bytes(MOST),
    "values that do not fit": lambda: msgpack.packb(
        {"kind": "ImageBatch", "schema": 1, "tensors": [], "body": MANY_FAULTS}
    ),
}
"""Headers of up to 8 MiB that would become far more when they are read."""


def reason_of(content: bytes) -> str:
    """In one word, why a payload is refused."""
    return refusal(content, room=1).partition(":")[0]


def test_a_bomb_is_called_a_bomb() -> None:
    """Unless it is something that no message holds, or that fits no message."""
    reasons = {name: make() for name, make in BOMBS.items()}

    assert {name: reason_of(LENGTH.pack(len(bomb)) + bomb) for name, bomb in reasons.items()} == {
        "empty mappings": "bomb",
        "mappings of one": "bomb",
        "lists that claim all that is left": "bomb",
        "an extension of all": "unreadable",
        "values that do not fit": "unreadable",
    }


def test_very_many_faults_are_counted_and_not_listed() -> None:
    """A few are named by the first of them."""
    fault, fields = 7, {"run": RUN, "source": "s", "first": 0}
    few, many = (
        {
            "kind": "ImageBatch",
            "schema": 1,
            "tensors": [],
            "body": fields | {"classes": [fault] * n},
        }
        for n in (3, 30)
    )

    assert refusal(payload(few)).startswith("unreadable: ImageBatch.classes.0: ")
    assert refusal(payload(many)) == "unreadable: ImageBatch: 30 values do not fit"


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "empty mappings" else pytest.mark.slow) for n in BOMBS],
)
def test_no_header_takes_more_memory_than_a_header_may(name: str) -> None:
    """A process of its own reads it, and tells by how much it grew at most: less than 128 MiB."""
    bomb = BOMBS[name]()
    content = LENGTH.pack(len(bomb)) + bomb
    program = (
        "import sys, resource\n"
        "from schemas.codec import unpack\n"
        "from schemas.errors import Refused\n"
        "content = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    unpack(content, 1)\n"
        "except Refused as refused:\n    print(refused.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], input=content, capture_output=True, check=True
    )

    reason, kib = done.stdout.decode().split()
    assert reason == reason_of(content)
    assert int(kib) < 128 * 1024


def test_a_header_of_many_values_is_read_all_the_same() -> None:
    """200,000 classes of every length and form of msgpack: long, and not too long."""
    values: list[object] = [None, True, -1, 200, -200, 2**40, -(2**40), 0.5, "a" * 40, "b" * 300]
    values += ["c" * 70_000, b"d" * 40, b"e" * 300, b"f" * 70_000, {"g": []}, [[]] * 20, {}]
    values += [{str(i): i for i in range(20)}, [0] * 70_000, {str(i): 0 for i in range(70_000)}]
    many = payload({"values": {"all": values * 1}, "tensors": []})

    assert len(many) > MAX_VALUES
    assert read_plain(many)[0]["all"][9] == "b" * 300
    with pytest.raises(Refused, match="bomb: a header of more than 262144 values"):
        read_plain(payload({"values": {"all": values * 2}, "tensors": []}))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(JSON)
def test_any_values_pass_through_a_pipe_unchanged(values: object) -> None:
    """What a worker is given is what was meant, but for lists that come as tuples."""

    def frozen(value: object) -> object:
        if isinstance(value, list):
            return tuple(map(frozen, value))
        if isinstance(value, dict):
            return {key: frozen(inner) for key, inner in value.items()}
        return value

    read, _ = read_plain(plain({"all": values}, {}))

    assert repr(read["all"]) == repr(frozen(values))


ARRAYS: st.SearchStrategy[NDArray[Any]] = st.tuples(
    st.sampled_from(["<f4", "<f8", "<i8", "<i4", "|u1"]),
    st.lists(st.integers(0, 3), max_size=4),
).map(lambda each: np.arange(np.prod(each[1], dtype=int)).astype(each[0]).reshape(each[1]))


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5).filter(lambda n: "\0" not in n), ARRAYS, max_size=4))
def test_any_tensors_come_back_bit_for_bit(tensors: dict[str, NDArray[Any]]) -> None:
    """Every dtype that travels, in up to four dimensions, also without a single number."""
    message = GlobalModel(run=RUN, version=1, groups={"model": tensors} if tensors else {})
    read = unpack(piece(pack(message).pieces[0], ROOM).content, ROOM)

    assert isinstance(read, GlobalModel)
    assert model_sha256(read.groups.get("model", {})) == model_sha256(tensors)
