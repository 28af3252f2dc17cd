"""How large a message of a run may be: checked before memory is taken for it."""

from __future__ import annotations

from schemas.configuration import Configuration
from schemas.messages import DataFacts

LEAST_BYTES = 32 * 1024 * 1024
"""Of any run, and of one that is not known yet: RunOpened itself is smaller."""
MODELS = 4
"""A message may be as large as so many models: what a strategy sends beside its own."""
MOST_ADDED = 1000
"""How often stages may be added to a run: so that a number can be told that no decision ever has.

A StageAdded adds at most one stage, for it names an entity once (docs/decisions/0011).
"""


def largest_message(configuration: Configuration, data: DataFacts) -> int:
    """The most bytes that a message of this run may have: four models with every row."""
    rows = configuration.encoder_classes or data.encoder_classes
    numbers = model_numbers(data.channels, configuration.width, max(rows, len(data.classes)))
    return max(LEAST_BYTES, MODELS * 4 * numbers)


def model_numbers(channels: int, width: int, classes: int) -> int:
    """Numbers in a ResNet-18 for small images, statistics and counters among them (method.md 2).

    Convolutions have 9 w c + 2,724 w^2, the 20 normalisations 4 for each of 75 w channels and a
    counter each, the head 8 w + 1 for each class.
    """
    convolutions = 9 * channels * width + 2724 * width**2
    return convolutions + 300 * width + 20 + (8 * width + 1) * classes
