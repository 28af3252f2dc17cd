"""Tensors as they travel: bytes, hash, the three wires, and what may be counted."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import Refused
from schemas.tensors import (
    CHUNK,
    DTYPES,
    ENCODINGS,
    FEW,
    WIRES,
    Difference,
    Spec,
    Tensor,
    Tensors,
    Unfit,
    Values,
    check,
    decoded,
    dtype_of,
    encoding_of,
    groups_sha256,
    is_statistic,
    model_sha256,
    pack_tensor,
    specs,
    unpack_tensor,
    update_of,
    values_of,
)

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=FINITE)


def floats(*rows: Any) -> Tensor:
    """A float32 tensor."""
    return np.array(rows, np.float32)


def whole(values: Values) -> Tensors:
    """Values of which none travelled late: see tests/schemas/test_differences.py."""
    assert not any(isinstance(each, Difference) for each in values.values())
    return {name: each for name, each in values.items() if isinstance(each, np.ndarray)}


def there_and_back(tensor: Tensor, wire: str) -> Tensor:
    """What a reader gets."""
    encoding, payload = pack_tensor(tensor, wire)
    return unpack_tensor(encoding, dtype_of(tensor), tensor.shape, bytes(payload))


# --- names and hashes ---------------------------------------------------------------------------


def test_a_models_hash_is_that_of_its_tensors_in_name_order() -> None:
    """By hand: `b` NUL `<f4` NUL `2,1` NUL, 1.0 and -2.0; then `n` NUL `<i8` NUL NUL and 7."""
    tensors = {"n": np.array(7, np.int64), "b": floats([1.0], [-2.0])}

    by_hand = b"b\0<f4\x002,1\0" + bytes.fromhex("0000803f000000c0")
    by_hand += b"n\0<i8\0\0" + bytes.fromhex("0700000000000000")
    assert model_sha256(tensors) == hashlib.sha256(by_hand).hexdigest()


def test_a_head_without_rows_has_a_hash() -> None:
    """Version 0 has a head of shape 0,512 and a bias of shape 0: names and shapes, no bytes."""
    tensors = {"head.weight": np.zeros((0, 512), np.float32), "head.bias": floats()}

    by_hand = b"head.bias\0<f4\x000\0head.weight\0<f4\x000,512\0"
    assert model_sha256(tensors) == hashlib.sha256(by_hand).hexdigest()


def test_a_model_alone_is_named_as_its_tensors_are() -> None:
    """Also with a group that has no tensors, which nobody could send."""
    model = {"w": floats([1.0])}

    assert groups_sha256({"model": model}) == model_sha256(model)
    assert groups_sha256({"drift": {}, "model": model}) == model_sha256(model)


def test_a_name_covers_every_group_in_the_order_of_their_names() -> None:
    """By hand: `drift` NUL its hash NUL `model` NUL its hash NUL, in hexadecimal digits."""
    groups = {"model": {"w": floats([1.0])}, "drift": {"d": floats(2.0)}}

    hashes = {name: model_sha256(tensors) for name, tensors in groups.items()}
    by_hand = f"drift\0{hashes['drift']}\0model\0{hashes['model']}\0".encode()
    assert groups_sha256(groups) == hashlib.sha256(by_hand).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"w": floats([1.0])}},
        {"model": {"w": floats([1.0])}, "drift": {"d": floats(3.0)}},
        {"model": {"w": floats([1.0])}, "shift": {"d": floats(2.0)}},
        {"model": {"w": floats([1.0]), "d": floats(2.0)}},
        {"model": {"d": floats(2.0)}, "drift": {"w": floats([1.0])}},
        {"drift": {"d": floats(2.0)}},
        {},
    ],
)
def test_other_groups_have_another_name(other: Mapping[str, Tensors]) -> None:
    """One is missing, has other values, is called otherwise, or holds what another should."""
    groups = {"model": {"w": floats([1.0])}, "drift": {"d": floats(2.0)}}

    assert groups_sha256(other) != groups_sha256(groups)


def test_the_hash_is_of_values_not_of_how_they_lie_in_memory() -> None:
    """Transposed, strided and big-endian arrays of equal values have one hash."""
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    strided = np.repeat(plain, 2, axis=1)[:, ::2]

    hashes = {
        model_sha256({"w": tensor})
        for tensor in (plain, np.asfortranarray(plain), strided, plain.astype(">f4"))
    }

    assert len(hashes) == 1


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), hnp.arrays(np.float32, 2), max_size=4))
def test_the_hash_does_not_depend_on_the_order_of_a_dict(tensors: Tensors) -> None:
    """Names are sorted first."""
    backwards = dict(reversed(tensors.items()))

    assert model_sha256(backwards) == model_sha256(tensors)


@pytest.mark.parametrize("dtype", [np.float16, np.int16, np.bool_, np.complex64, object, "U3"])
def test_other_dtypes_do_not_travel(dtype: Any) -> None:
    """The list is closed: a reader knows what may come."""
    tensor = np.zeros(2, dtype)

    with pytest.raises(ValueError, match=r"do not travel, only <f4, <f8, <i8, <i4, \|u1"):
        pack_tensor(tensor, "fp32")
    with pytest.raises(ValueError, match="do not travel"):
        model_sha256({"t": tensor})


def test_a_fourth_wire_does_not_exist() -> None:
    """The recipe's validator would say so first."""
    with pytest.raises(ValueError, match="no wire is called 'fp16'; there are fp32, bf16, int8"):
        pack_tensor(floats(1.0), "fp16")


def test_this_module_needs_no_torch() -> None:
    """Importing torch costs seconds and hundreds of MB, and recovery must be quick."""
    modules = "schemas.tensors, schemas.seeds, schemas.schedule, aggregator.averaging"

    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert loaded == "False"


# --- how each tensor travels --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "shrinks"),
    [
        ("<f4", (64, 3, 3, 3), True),
        ("<f4", (10, 512), True),
        ("<f4", (64,), False),
        ("<f4", (), False),
        ("<f4", (0, 512), False),
        ("<f8", (4, 4), False),
        ("<i8", (4, 4), False),
        ("<i4", (4, 4), False),
        ("|u1", (4, 4), False),
    ],
)
def test_only_kernels_and_matrices_shrink(
    dtype: str, shape: tuple[int, ...], shrinks: bool
) -> None:
    """Norms, biases, buffers, integers and empty heads travel as they are on every wire."""
    spec = Spec(dtype, shape)

    assert encoding_of("fp32", spec) == "raw"
    assert encoding_of("bf16", spec) == ("bf16" if shrinks else "raw")
    assert encoding_of("int8", spec) == ("int8" if shrinks else "raw")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_does_not_shrink_loses_nothing(wire: str, dtype: str) -> None:
    """Any dtype of one dimension or none, on any wire."""
    for tensor in (np.arange(5).astype(dtype), np.array(3).astype(dtype), np.zeros((0, 2), dtype)):
        back = there_and_back(tensor, wire)

        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.tobytes() == tensor.tobytes()


@settings(deadline=None)
@given(hnp.arrays(np.uint32, hnp.array_shapes(), elements=st.integers(0, 2**32 - 1)))
def test_fp32_carries_every_bit(bits: Tensor) -> None:
    """NaNs with their spare bits, infinities, subnormals: validity is judged elsewhere."""
    assert there_and_back(bits.view(np.float32), "fp32").tobytes() == bits.tobytes()


def test_raw_bytes_are_not_copied() -> None:
    """45 MB are packed and read as views; copied are a few numbers, and bytes that lie askew."""
    tensor = np.arange(FEW + 1, dtype=np.float32)

    _, payload = pack_tensor(tensor, "fp32")
    straight = unpack_tensor("raw", "<f4", (FEW + 1,), payload)
    _, few = pack_tensor(tensor[:4], "fp32")
    askew = unpack_tensor("raw", "<f4", (4,), memoryview(b"." + few)[1:])

    assert np.shares_memory(straight, tensor)
    assert np.shares_memory(decoded({"few": tensor[:4]}, "fp32")["few"], tensor)
    assert askew.flags.aligned
    assert askew.tolist() == [0, 1, 2, 3]


# --- bf16 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "packed"),
    [
        (0x3F80_0000, 0x3F80),
        (0x3F80_8000, 0x3F80),
        (0x3F81_8000, 0x3F82),
        (0x3F80_8001, 0x3F81),
        (0x3F80_7FFF, 0x3F80),
        (0x3FFF_FFFF, 0x4000),
        (0x8000_0001, 0x8000),
        (0x0000_8001, 0x0001),
        (0x7F7F_FFFF, 0x7F80),
        (0xFF80_0000, 0xFF80),
        (0x7F80_0001, 0x7FC0),
        (0xFFFF_FFFF, 0x7FC0),
    ],
)
def test_bf16_rounds_to_the_nearest_half_to_even(bits: int, packed: int) -> None:
    """Upper 16 bits, plus one where the lower exceed 0x8000 or equal it with an odd bit above.

    1.0 stays; a half above 0x3f80 goes down to even, above 0x3f81 up to even; 1.99... becomes 2;
    the largest float32 becomes infinity; every NaN becomes one.
    """
    tensor = np.array([[bits]], np.uint32).view(np.float32)

    encoding, payload = pack_tensor(tensor, "bf16")

    assert encoding == "bf16"
    assert bytes(payload) == struct.pack("<H", packed)
    back = unpack_tensor("bf16", "<f4", (1, 1), payload)
    assert back.tobytes() == struct.pack("<I", packed << 16)


@settings(deadline=None)
@given(MATRICES)
def test_bf16_is_off_by_at_most_one_part_in_256(tensor: Tensor) -> None:
    """Eight significant bits: half a unit in the last place is 2^-9 of the value's power of two."""
    normal = np.where(np.abs(tensor) < 1e-30, 0, np.clip(tensor, -1e38, 1e38)).astype(np.float32)

    back = there_and_back(normal, "bf16")

    assert np.all(np.abs(back - normal) <= np.abs(normal) / 256)


# --- int8 ---------------------------------------------------------------------------------------


def test_int8_rounds_to_steps_of_its_rows_scale() -> None:
    """Row 0: scale 254 / 127 = 2, so 3 / 2 = 1.5 -> 2 and 5 / 2 = 2.5 -> 2 (half to even), -254 ->
    -127. Row 1: scale 127 / 127 = 1. Row 2 is zero: scale 0, codes 0."""
    tensor = floats([3.0, 5.0, -254.0], [127.0, 0.4, -0.6], [0.0, -0.0, 0.0])

    encoding, payload = pack_tensor(tensor, "int8")

    body = zstandard.ZstdDecompressor().decompress(payload)
    assert encoding == "int8"
    assert struct.unpack("<3f9b", body) == (2.0, 1.0, 0.0, 2, 2, -127, 127, 0, -1, 0, 0, 0)
    back = unpack_tensor("int8", "<f4", (3, 3), payload)
    assert back.tolist() == [[4.0, 4.0, -254.0], [127.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


@settings(deadline=None)
@given(MATRICES)
def test_what_is_held_is_byte_for_byte_what_readers_unpack(tensor: Tensor) -> None:
    """Also where a small negative value is rounded to zero: whole numbers know no -0.0."""
    for held in (tensor, -tensor, np.sign(tensor) * np.float32(0.2) + (tensor == tensor.max()) * 9):
        told = decoded({"w": held.astype(np.float32)}, "int8")["w"]

        assert told.tobytes() == there_and_back(held.astype(np.float32), "int8").tobytes()


def test_an_updates_memory_is_taken_only_where_it_may_be() -> None:
    """A reader's decoded differences become the values; what is a view of the message stays."""
    base = {"w": floats([1.0, 2.0]), "b": np.array([5.0], np.float32)}
    update = update_of({"w": floats([1.5, 2.5]), "b": base["b"] + 1}, base, "bf16")
    kept = {name: tensor.copy() for name, tensor in update.items()}

    apart = whole(values_of(update, base, "bf16"))
    assert {name: t.tobytes() for name, t in update.items()} == {
        n: t.tobytes() for n, t in kept.items()
    }
    taken = whole(values_of(update, base, "bf16", reuse=True))

    assert taken["w"] is update["w"]
    assert {name: t.tolist() for name, t in taken.items()} == {
        n: t.tolist() for n, t in apart.items()
    }
    assert base["w"].tolist() == [[1.0, 2.0]]


def test_a_scale_keeps_17_bits() -> None:
    """0.1f = 0x3dcccccd; / 127 = 0x3a4e69a0 in float32; its lowest seven bits cleared: 0x3a4e6980.

    So 127 times the scale needs at most 24 bits and is exact.
    """
    _, payload = pack_tensor(floats([0.1, 0.0]), "int8")

    body = zstandard.ZstdDecompressor().decompress(payload)
    assert np.float32(0.1).view(np.uint32) == 0x3DCCCCCD
    assert (np.float32(0.1) / np.float32(127)).view(np.uint32) == 0x3A4E69A0
    assert struct.unpack("<I2b", body) == (0x3A4E6980, 127, 0)


@settings(deadline=None)
@given(MATRICES)
def test_int8_is_off_by_at_most_half_a_step(tensor: Tensor) -> None:
    """Half of largest / 127 in each row, and a part in 2^16 for the shortened scale."""
    normal = np.where(np.abs(tensor) < 1e-30, 0, tensor).astype(np.float64)
    rows = normal.reshape(len(normal), -1)

    back = there_and_back(normal.astype(np.float32), "int8").astype(np.float64)

    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(back.reshape(rows.shape) - rows) <= step * (0.5 + 127 * 2**-16))


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 5), elements=FINITE), st.sampled_from(WIRES))
def test_what_was_decoded_is_decoded_to_itself(tensor: Tensor, wire: str) -> None:
    """A model that is published again, or grows by a row, keeps its bytes."""
    once = decoded({"w": tensor}, wire)

    again = decoded(once, wire)

    assert again["w"].tobytes() == once["w"].tobytes()


@settings(deadline=None)
@given(hnp.arrays(np.float32, (4, 6), elements=FINITE), st.sampled_from(WIRES))
def test_a_head_grows_without_shifting_its_old_rows(tensor: Tensor, wire: str) -> None:
    """The grown model travels like any other; each row stands for itself."""
    old = decoded({"w": tensor[:3]}, wire)["w"]

    grown = decoded({"w": np.concatenate([old, tensor[3:]])}, wire)["w"]

    assert grown[:3].tobytes() == old.tobytes()


@pytest.mark.parametrize("largest", [1e-45, 1e-38, 1.4e-36, 3.4028235e38])
def test_int8_meets_the_ends_of_float32(largest: float) -> None:
    """A row whose scale would be below the smallest normal number (127 * 1.18e-38 = 1.49e-36) is
    zero: some programs flush such numbers. The largest number of all does not overflow."""
    back = there_and_back(floats([largest, -largest]), "int8")

    if largest < 1.49e-36:
        assert back.tolist() == [[0.0, 0.0]]
    else:
        assert np.allclose(back, [[largest, -largest]], rtol=2**-16, atol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_refuses_what_is_not_finite(value: float) -> None:
    """No scale could carry it; the tensor is named."""
    tensors = {"layer1.weight": floats([1.0, value])}

    with pytest.raises(ValueError, match=r"layer1\.weight: .* does not travel as int8") as caught:
        decoded(tensors, "int8")
    assert isinstance(caught.value, Unfit)
    assert caught.value.reason == "not-finite"


def test_the_bytes_of_each_wire_are_known() -> None:
    """A stored model, its hash on each wire: another machine or library that differs shows here."""
    numbers = np.arange(-54, 54, dtype=np.float32) / np.float32(7)
    model = {
        "conv.weight": numbers.reshape(4, 3, 3, 3),
        "norm.running_var": numbers[-4:],
        "norm.num_batches_tracked": np.array(12, np.int64),
    }

    hashes = {wire: model_sha256(decoded(model, wire))[:16] for wire in WIRES}

    assert hashes == {
        "fp32": "af6a0bff8bd3d5d2",
        "bf16": "fe8f839b13f2183f",
        "int8": "d5f6cb1999022e01",
    }


def test_smaller_wires_take_fewer_bytes() -> None:
    """100,000 weights: 400 kB, 200 kB, and at most 100 kB and a scale for each of 100 rows."""
    tensor = np.random.default_rng(0).normal(size=(100, 1000)).astype(np.float32)

    sizes = {wire: len(pack_tensor(tensor, wire)[1]) for wire in WIRES}

    assert (sizes["fp32"], sizes["bf16"]) == (400_000, 200_000)
    assert sizes["int8"] < 100_400


# --- what a reader refuses ----------------------------------------------------------------------


def read(encoding: str, dtype: str, shape: tuple[int, ...], payload: bytes) -> Tensor | str:
    """The tensor, or the reason for which it is refused."""
    try:
        return unpack_tensor(encoding, dtype, shape, payload)
    except Refused as refused:
        return refused.reason


def frame(size: int, level: int = 3, **parameters: Any) -> bytes:
    """A zstd frame of that many zeros."""
    made = zstandard.ZstdCompressionParameters.from_level(level, **parameters)
    return zstandard.ZstdCompressor(compression_params=made).compress(bytes(size))


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape", "payload", "reason"),
    [
        ("raw", "<f2", (2,), b"1234", "wrong-dtype"),
        ("raw", ">f4", (1,), b"1234", "wrong-dtype"),
        ("raw", "<f4", (-1, -1), b"1234", "wrong-shape"),
        ("raw", "<f4", (True,), b"1234", "wrong-shape"),
        ("raw", "<f4", (1.0,), b"1234", "wrong-shape"),
        ("raw", "<f4", (1,) * 9, b"1234", "wrong-shape"),
        ("raw", "<f4", (0, 2**41), b"", "wrong-shape"),
        ("raw", "<f4", (2,), b"1234", "unreadable"),
        ("bf16", "<f4", (2, 2), b"1234", "unreadable"),
        ("bf16", "<f4", (2,), b"1234", "unreadable"),
        ("bf16", "<i4", (1, 2), b"1234", "unreadable"),
        ("fp32", "<f4", (1, 1), b"1234", "unreadable"),
        ("int8", "<f4", (8,), frame(8), "unreadable"),
        ("int8", "<f4", (2**30, 0), frame(8), "unreadable"),
        ("int8", "<f4", (1, 4), b"12345678", "unreadable"),
        ("int8", "<f4", (1, 4), b"", "unreadable"),
        ("int8", "<f4", (1, 4), frame(8) + b"more", "unreadable"),
        ("int8", "<f4", (1, 4), frame(8)[:-1], "unreadable"),
        ("int8", "<f4", (1, 4), frame(9), "bomb"),
        ("int8", "<f4", (1, 4), frame(50_000_000), "bomb"),
        ("int8", "<f4", (1, 4), frame(8, write_content_size=False), "bomb"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    encoding: str, dtype: str, shape: tuple[int, ...], payload: bytes, reason: str
) -> None:
    """With the reason under which they are counted, before memory is taken."""
    assert read(encoding, dtype, shape, payload) == reason


def test_a_window_that_no_sender_needs_is_a_bomb() -> None:
    """5 MB of zeros fit their shape, but the frame asks its reader for a window of 128 MB."""
    shape, size = (1000, 5000), 4 * 1000 + 5_000_000
    sized = frame(size)
    wide = bytearray(sized)
    wide[5] = (27 - 10) << 3  # RFC 8878: the byte behind magic and descriptor is the window's

    assert unpack_tensor("int8", "<f4", shape, sized).shape == shape
    assert read("int8", "<f4", shape, bytes(wide)) == "bomb"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ENCODINGS),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=3),
    st.binary(max_size=40),
)
def test_any_bytes_are_read_or_refused(
    encoding: str, dtype: str, shape: list[int], payload: bytes
) -> None:
    """Nothing else comes out: a tensor of that shape and dtype, or a reason."""
    result = read(encoding, dtype, tuple(shape), payload)

    if isinstance(result, str):
        assert result in {"unreadable", "bomb"}
    else:
        assert (result.shape, dtype_of(result)) == (tuple(shape), dtype)


# --- updates ------------------------------------------------------------------------------------


def test_an_update_carries_differences_where_the_wire_loses_something() -> None:
    """100.25 - 100 = 0.25 is exact in bf16, where 100.25 itself would become 100."""
    base = {"w": floats([100.0]), "norm.bias": floats(100.0), "n": np.array(3, np.int64)}
    values = {"w": floats([100.25]), "norm.bias": floats(100.25), "n": np.array(4, np.int64)}

    update = update_of(values, base, "bf16")
    back = whole(values_of(update, base, "bf16"))

    assert (update["w"].item(), update["norm.bias"].item(), update["n"].item()) == (0.25, 100.25, 4)
    assert (back["w"].item(), back["norm.bias"].item(), back["n"].item()) == (100.25, 100.25, 4)
    assert decoded(values, "bf16")["w"].item() == 100.0


@settings(deadline=None)
@given(*[hnp.arrays(np.float32, (2, 3), elements=FINITE)] * 2)
def test_fp32_updates_carry_the_values(values: Tensor, base: Tensor) -> None:
    """Subtracting and adding again would lose bits; fp32 loses none."""
    update = update_of({"w": values}, {"w": base}, "fp32")

    assert update["w"].tobytes() == values.tobytes()
    assert whole(values_of(update, {"w": base}, "fp32"))["w"].tobytes() == values.tobytes()


@settings(deadline=None)
@given(*[hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e9, 1e9, width=32))] * 2)
def test_a_sender_sees_what_its_readers_will_judge(values: Tensor, base: Tensor) -> None:
    """Whatever the wire does to an update, it has already done to the sender's own copy."""
    for wire in WIRES:
        update = update_of({"w": values}, {"w": base}, wire)

        received = {"w": there_and_back(update["w"], wire)}

        own, theirs = (
            whole(values_of(each, {"w": base}, wire))["w"] for each in (update, received)
        )
        assert own.tobytes() == theirs.tobytes()


def test_an_update_must_be_like_its_base() -> None:
    """A head of another size belongs to another stage."""
    update, base = {"head": floats([1.0])}, {"head": floats([1.0], [2.0])}

    with pytest.raises(Unfit, match=r"head has shape \(1, 1\), expected \(2, 1\)"):
        values_of(update, base, "bf16")


# --- what may be counted ------------------------------------------------------------------------

EXPECTED = {"w": Spec("<f4", (2,)), "norm.running_var": Spec("<f4", (1,)), "n": Spec("<i8", ())}


def model(**changes: Tensor) -> Tensors:
    """Tensors as expected, but for the changes."""
    own = {"w": floats(1.0, -2.0), "norm.running_var": floats(1.0), "n": np.array(2, np.int64)}
    return own | {name.replace("_var", "norm.running_var"): t for name, t in changes.items()}


@pytest.mark.parametrize("total_weight", [1, 3, 5, 40_000])
def test_a_parameter_must_be_smaller_than_2_to_the_32_by_w(total_weight: int) -> None:
    """The float32 next below 2^32 / W passes, the one at or next above does not, in both signs."""
    limit = np.float32(2**32 / total_weight)
    if float(limit) * total_weight < 2**32:
        limit = np.nextafter(limit, np.float32(np.inf))
    below = np.nextafter(limit, np.float32(0))

    check(model(w=floats(below, -below)), EXPECTED, total_weight)
    for value in (limit, -limit):
        with pytest.raises(ValueError, match=r"w\[1\] is .* below 2\^32 / W") as caught:
            check(model(w=floats(0.0, value)), EXPECTED, total_weight)
        assert isinstance(caught.value, Unfit)
        assert caught.value.reason == "out-of-range"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w", "_var"])
def test_what_is_not_finite_is_not_counted(name: str, value: float) -> None:
    """Neither in a parameter nor in BatchNorm's statistics."""
    size = 2 if name == "w" else 1

    with pytest.raises(Unfit, match=r"\[0\] is -?(nan|inf)") as caught:
        check(model(**{name: floats(*[value] * size)}), EXPECTED, 5)
    assert caught.value.reason == "not-finite"


def test_statistics_of_batchnorm_know_no_range() -> None:
    """Variances of 25,000 were seen in training; 1e30 is finite and therefore counted."""
    check(model(_var=floats(1e30)), EXPECTED, 40_000)

    assert is_statistic("layer1.0.bn1.running_mean")
    assert is_statistic("running_var")
    assert not is_statistic("layer1.0.bn1.weight")
    assert not is_statistic("running_var.scale")


def test_a_value_far_inside_a_large_tensor_is_found() -> None:
    """Its place counts through the whole tensor, not through the piece that was looked at."""
    values = np.zeros(2 * CHUNK, np.float32)
    values[CHUNK + 5] = np.nan

    with pytest.raises(Unfit, match=rf"w\[{CHUNK + 5}\] is nan"):
        check({"w": values}, {"w": Spec("<f4", values.shape)}, 1)


@pytest.mark.parametrize(
    ("tensors", "reason", "text"),
    [
        ({"w": floats(1.0)}, "wrong-shape", r"missing tensors \['n', 'norm.running_var'\]"),
        (model(extra=floats(1.0)), "wrong-shape", r"unknown \['extra'\]"),
        (model(w=floats(1.0)), "wrong-shape", r"w has shape \(1,\), expected \(2,\)"),
        (model(w=np.ones(2)), "wrong-dtype", "w is <f8, expected <f4"),
        (model(n=np.array(2, np.int32)), "wrong-dtype", "n is <i4, expected <i8"),
    ],
)
def test_tensors_of_another_kind_are_not_counted(tensors: Tensors, reason: str, text: str) -> None:
    """Names, shapes and dtypes are those of the base."""
    with pytest.raises(Unfit, match=text) as caught:
        check(tensors, EXPECTED, 5)
    assert caught.value.reason == reason


@pytest.mark.parametrize("total_weight", [0, -1, 2**52 + 1])
def test_weights_leave_a_range(total_weight: int) -> None:
    """Nobody to count, or so many that nothing fits."""
    with pytest.raises(ValueError, match=rf"weights sum to {total_weight}"):
        check(model(), EXPECTED, total_weight)


def test_a_model_has_the_specs_of_its_tensors() -> None:
    """What `check` expects is taken from the base itself."""
    assert specs(model()) == EXPECTED
    check(model(), specs(model()), 5)


def test_how_a_broken_tensor_is_told_of_depends_on_nothing_that_came_before() -> None:
    """Two copies of a program write the same letter, whatever either has met."""
    broken = bytes.fromhex("28b52ffd200f9a0000c694f328b4ce084532fccbe00d8213")
    _, whole = pack_tensor(np.ones((1, 11), "<f4"), "int8")

    def told(content: bytes) -> str:
        with pytest.raises(Refused) as caught:
            unpack_tensor("int8", "<f4", (1, 11), content)
        return str(caught.value)

    first = told(broken)
    for cut in range(1, len(whole)):
        told(bytes(whole)[:cut])

    assert told(broken) == first
