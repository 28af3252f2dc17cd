"""When an update may be counted: the twin that sends it asks in the same words as who reads it."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import Refused
from schemas.messages import Groups, Tensors
from schemas.tensors import Encoded, Rows, Spec, Values, check, unpacked, values_of

Expected = Mapping[str, Mapping[str, Spec]]
"""Group → tensor → what it must look like."""
NOTHING_TO_TRAIN_ON = "no image to train on"
"""Why an answer comes without content although no training failed."""


def checked_update(
    groups: Groups,
    base: Tensors,
    expected: Expected,
    total_weight: int,
    wire: str,
    *,
    reuse: bool = False,
    sizes: Mapping[str, float] | None = None,
) -> Mapping[str, Values]:
    """The values that an update means, when all of them may be counted.

    `total_weight` is W, the sum of the weights of the round. With `reuse` the values take the place
    of what the update carried, which nobody may need any more. `sizes` are those of the base's
    tensors (`size_of`), from who has them at hand. Raises Refused: wrong-shape, wrong-dtype,
    not-finite, out-of-range; and bomb or unreadable for what could not be decoded.
    """
    if groups.keys() != expected.keys():
        raise Refused("wrong-shape", f"groups {sorted(groups)}, expected {sorted(expected)}")
    values: dict[str, Values] = {}
    for group, tensors in groups.items():
        if group == "model" and wire != "fp32":  # there an update carries values
            values[group] = values_of(tensors, base, wire, reuse=reuse, sizes=sizes)
        elif Encoded in map(type, tensors.values()):
            values[group] = {name: unpacked(tensor) for name, tensor in tensors.items()}
        else:
            values[group] = tensors
    rows = {group: Rows(each) for group, each in values.items()}
    for group, specs in expected.items():
        check(rows[group], specs, total_weight)
    return rows


def expected_of(sent: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]) -> Expected:
    """What a strategy sends, as `checked_update` takes it."""
    return {
        group: {name: Spec(*spec) for name, spec in tensors.items()}
        for group, tensors in sent.items()
    }
