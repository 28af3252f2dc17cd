"""Large tensors of an update as int8: judged and summed without being put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.averaging import ExactMean
from schemas.codec import joined, pack, piece, unpack
from schemas.errors import Refused
from schemas.messages import ModelName, ModelUpdate
from schemas.tensors import (
    CHUNK,
    Difference,
    Encoded,
    Spec,
    Tensor,
    Tensors,
    Unfit,
    Values,
    as_encoded,
    check,
    decoded,
    encoded,
    pack_tensor,
    side_by_side,
    size_of,
    specs,
    unpacked,
    update_of,
    values_of,
)
from schemas.updates import checked_update

ROOM = 2**24
SHAPE = (257, 16, 4, 4)
"""Just above `CHUNK`, and so many rows that the last part is shorter than the others."""


def drawn(scale: float, seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Normal numbers."""
    chance = np.random.Generator(np.random.PCG64(seed))
    return (scale * chance.standard_normal(shape)).astype(np.float32)


def model(scale: float, seed: int) -> Tensors:
    """A large kernel, a small one, and a bias."""
    return {
        "large": drawn(scale, seed),
        "small": drawn(scale, seed + 1, (4, 3)),
        "bias": drawn(scale, seed + 2, (4,)),
    }


BASE = decoded(model(0.05, 1), "int8")


def travelled(update: Tensors, wire: str = "int8") -> Tensors:
    """What the aggregator gets of it."""
    name = ModelName(version=1, sha256="0" * 64)
    said = ModelUpdate(
        run="0" * 64, opened=2, entity="local/one", base=name, groups={"model": update}
    )
    payload = joined([piece(value, ROOM).content for value in pack(said, wire).pieces])
    heard = unpack(payload, ROOM)
    assert isinstance(heard, ModelUpdate)
    return heard.groups["model"]


def whole(values: Values) -> Tensors:
    """The values, put together."""
    return {
        name: side_by_side(values, [name]).reshape(each.base.shape)
        if isinstance(each, Difference)
        else each
        for name, each in values.items()
    }


def told(scales: Tensor, codes: Tensor) -> Encoded:
    """A tensor of `SHAPE` as anybody might write it."""
    from zstandard import ZstdCompressor

    body = scales.astype("<f4").tobytes() + codes.astype(np.int8).tobytes()
    return as_encoded("int8", Spec("<f4", SHAPE), ZstdCompressor().compress(body))


# --- what is read ---------------------------------------------------------------------------------


def test_only_large_tensors_of_an_update_stay_as_they_travelled() -> None:
    """The others are many and small, and are worked on side by side."""
    assert np.prod(SHAPE) > CHUNK
    heard = travelled(update_of(model(0.05, 7), BASE, "int8"))

    late = {name for name, tensor in heard.items() if isinstance(tensor, Encoded)}
    assert late == {"large"}
    assert not any(isinstance(t, Encoded) for t in travelled(model(1.0, 1), "bf16").values())


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-6, 1e3), st.integers(0, 1000))
def test_they_are_the_values_that_would_have_been_put_together(scale: float, seed: int) -> None:
    """Bit for bit; and so are the sums of three of them, with their weights."""
    late, early = (ExactMean(specs(BASE), 6) for _ in range(2))
    for weight in (1, 2, 3):
        update = update_of(model(scale, seed + weight), BASE, "int8")

        there = values_of(travelled(update), BASE, "int8")
        here = whole(values_of(update, BASE, "int8"))

        assert isinstance(there["large"], Difference)
        assert {n: t.tobytes() for n, t in whole(there).items()} == {
            n: t.tobytes() for n, t in here.items()
        }
        late.add(there, weight)
        early.add(here, weight)
    means = late.mean(), early.mean()
    assert all(means[0][name].tobytes() == means[1][name].tobytes() for name in BASE)


@pytest.mark.parametrize("wire", ["fp32", "bf16"])
def test_what_travelled_as_int8_though_the_run_does_not_is_put_together_first(wire: str) -> None:
    """As if it had been written as the run does: a reader looks at values, not at how they came."""
    update = update_of(model(0.05, 7), BASE, "int8")

    values = values_of(travelled(update), BASE, wire)

    expected = {n: t if wire == "fp32" or n == "bias" else t + BASE[n] for n, t in update.items()}
    assert {n: t.tobytes() for n, t in whole(values).items()} == {
        n: t.tobytes() for n, t in expected.items()
    }
    assert not any(isinstance(each, Difference) for each in values.values())


# --- what is judged -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.floats(2**-20, 2**40, width=32),
    st.floats(0, 2**40, width=32),
    st.sampled_from([-128, -127, 127]),
    st.sampled_from([-1, 1]),
    st.sampled_from([1, 8, 40_000]),
)
def test_what_is_passed_by_its_largest_scale_alone_is_within(
    scale: float, base: float, code: int, sign: int, total_weight: int
) -> None:
    """Also with the code that no writer of ours uses, and a negative scale. What is not passed so
    is looked at value by value, and told of in the same words as any tensor."""
    scales = np.full(257, sign * scale, np.float32)
    scales[1:] /= 2
    values = {"large": np.full(SHAPE, np.float32(base))}
    update: Tensors = {"large": told(scales, np.full(SHAPE, code))}

    late = values_of(update, values, "int8")
    expected = {"large": Spec("<f4", SHAPE)}
    words = []
    for each in (late, whole(late)):
        try:
            check(each, expected, total_weight)
            words.append("")
        except Unfit as error:
            words.append(str(error))

    assert words[0] == words[1]
    difference = late["large"]
    assert isinstance(difference, Difference)
    largest = size_of(whole(late)["large"])
    assert not difference.within(2**32 / total_weight) or largest < 2**32 / total_weight


@pytest.mark.parametrize(("wrong", "reason"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_a_scale_that_is_not_finite_is_told_of_with_its_first_value(
    wrong: float, reason: str
) -> None:
    """Row 200 begins at 200 x 256 = 51,200."""
    scales, base = np.ones(257, np.float32), {"large": np.zeros(SHAPE, np.float32)}
    scales[200] = wrong

    late = values_of({"large": told(scales, np.ones(SHAPE))}, base, "int8")

    with pytest.raises(Unfit, match=rf"not-finite: large\[51200\] is {reason}"):
        check(late, specs(base), 8)


def test_what_float32_cannot_hold_is_not_passed_where_there_is_no_range() -> None:
    """127 x 3e38 is infinite in float32, and below it in float64."""
    base = {"bn.running_var": np.zeros(SHAPE, np.float32)}
    scales = np.full(257, 3e38, np.float32)

    late = values_of({"bn.running_var": told(scales, np.full(SHAPE, 127))}, base, "int8")

    with pytest.raises(Unfit, match=r"not-finite: bn.running_var\[0\] is inf"):
        check(late, specs(base), 8)


def test_what_cannot_be_decoded_is_refused_when_it_is_judged() -> None:
    """A frame that is broken, and one that claims more than its shape; one of another shape."""
    expected = {"model": specs(BASE)}
    heard = travelled(update_of(model(0.05, 7), BASE, "int8"))
    large = heard["large"]
    assert isinstance(large, Encoded)
    broken = as_encoded("int8", large.tensor, large.tobytes()[:-5])
    other = as_encoded("int8", Spec("<f4", (257, 256)), large.tobytes())
    longer = as_encoded("int8", large.tensor, pack_tensor(drawn(1.0, 1, (999, 256)), "int8")[1])

    for tensor, reason in ((broken, "unreadable"), (longer, "bomb"), (other, "wrong-shape")):
        with pytest.raises(Refused, match=f"^{reason}"):
            checked_update({"model": {**heard, "large": tensor}}, BASE, expected, 8, "int8")


def test_in_another_group_nothing_is_a_difference() -> None:
    """What a strategy sends besides travels as it is; whoever packs it is taken at its values."""
    drift = drawn(1.0, 3)
    sent = encoded({"drift": drift}, "int8")
    expected = {"model": specs(BASE), "more": {"drift": Spec("<f4", SHAPE)}}
    groups = {"model": travelled(update_of(BASE, BASE, "int8")), "more": sent}

    values = checked_update(groups, BASE, expected, 8, "int8")

    assert isinstance(values["model"]["large"], Difference)
    there = values["more"]["drift"]
    assert isinstance(there, np.ndarray)
    assert there.tobytes() == unpacked(sent["drift"]).tobytes()
