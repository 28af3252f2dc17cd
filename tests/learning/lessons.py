"""Small lessons that the tests of this package share."""

from typing import Any

import numpy as np

from learning.augmentation import Transform
from learning.lesson import Lesson
from learning.shapes import Weights, first_model, grown
from learning.strategies import STRATEGIES
from learning.strategies.strategy import Strategy

OLD, NEW = 2, 2


def models(seed: int = 0, width: int = 2, channels: int = 1) -> tuple[Weights, Weights]:
    """A teacher that knows two classes, and the base that has grown by two more."""
    chance = np.random.default_rng(seed)
    teacher = grown(first_model(channels, width, chance), OLD, chance)
    return teacher, grown(teacher, NEW, chance)


def lesson(strategy: str | Strategy = "fedka", **changes: Any) -> Lesson:
    """A client's second stage: forty images of four classes, two of them old."""
    teacher, base = models()
    chance = np.random.default_rng(1)
    told: dict[str, Any] = {
        "strategy": STRATEGIES[strategy] if isinstance(strategy, str) else strategy,
        "base": base,
        "teacher": teacher,
        "images": chance.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8),
        "rows": np.arange(40) % (OLD + NEW),
        "stage_of_row": (0,) * OLD + (1,) * NEW,
        "stage": 1,
        "learned": OLD,
        "new": NEW,
        "transform": Transform((0.5,), (0.25,)),
        "generator": lambda purpose, epoch: np.random.default_rng([len(purpose), epoch]),
        "learning_rate": 0.1,
        "batch_size": 16,
        "epochs": 2,
    }
    return Lesson(**{**told, **changes})


def first_stage(strategy: str | Strategy, **changes: Any) -> Lesson:
    """A lesson of stage 0: nothing was learned before, nobody teaches."""
    newcomer = {"teacher": None, "stage_of_row": (0,) * 4, "stage": 0, "learned": 0, "new": 4}
    return lesson(strategy, **{**newcomer, **changes})


def same(one: Weights, other: Weights) -> bool:
    """Whether two models are equal byte for byte."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )
