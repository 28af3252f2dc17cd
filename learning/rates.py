"""How the learning rate moves over the rounds of a stage (docs/method.md 5.8)."""

import math
from typing import Literal, get_args

RateSchedule = Literal["lineage", "step", "constant", "cosine"]

# GLFC's and LGA's released code builds a new optimiser in every round, so that of its three
# intended drops only those survive which fall on the first local epoch of a round.
_LINEAGE = (1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 0.008)
# What the same group's HFC (ICCV 2023) uses.
_STEP = (1.0,) * 7 + (0.1,) * 2 + (0.01,)

LARGEST_RATE_OF_SUMS = 0.2
"""Above it an objective whose terms are sums diverges instead of learning (docs/method.md 5.1)."""


def multiplier(schedule: RateSchedule, round: int, rounds: int) -> float:
    """What the learning rate is multiplied by in `round` (from 0) of a stage of `rounds`.

    `lineage` and `step` are tables of ten; other stages are read from their end, so that the last
    round is always annealed. A stage of one round keeps the full rate under every schedule.

    Raises ValueError if the schedule is unknown or the stage has no such round.
    """
    if not 0 <= round < rounds:
        raise ValueError(f"a stage of {rounds} rounds has no round {round}; they count from 0")
    if schedule not in get_args(RateSchedule):
        raise ValueError(f"a rate schedule is {', '.join(get_args(RateSchedule))}, not {schedule}")
    if schedule == "constant" or rounds == 1:
        return 1.0
    if schedule == "cosine":
        return (1 + math.cos(math.pi * round / rounds)) / 2
    table = _LINEAGE if schedule == "lineage" else _STEP
    return table[9 - 10 * (rounds - 1 - round) // rounds]


def warm_up(rounds: int) -> int:
    """The first rounds of a stage whose models cannot become a teacher: floor(0.6 * rounds).

    As in LGA's released code, which skips 6 of 10. In whole numbers: 0.6 is no binary fraction.
    """
    return 6 * rounds // 10


def check_rate(learning_rate: float, reduction: str) -> None:
    """Refuse a learning rate with which the objective is known to collapse.

    Raises ValueError if the rate is not positive and finite, or if `reduction` is `sum` and the
    rate is above 0.2.
    """
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"a learning rate is positive and finite, not {learning_rate}")
    if reduction == "sum" and learning_rate > LARGEST_RATE_OF_SUMS:
        raise ValueError(
            f"with reduction sum the learning rate is at most {LARGEST_RATE_OF_SUMS}, "
            f"not {learning_rate}: take a smaller one, or reduction mean"
        )
