"""How large a message of a run may be, and how many classes it may have room for.

Both follow from RunOpened alone, so whoever checks them comes to the same (docs/decisions/0027).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from schemas.configuration import Configuration
from schemas.messages import DataFacts, RunOpened
from schemas.schedule import sorted_uids

LEAST_BYTES = 32 * 1024 * 1024
"""Of any run, and of one that is not known yet: RunOpened itself is smaller."""
MODELS = 4
"""A message may be as large as so many models: what a strategy sends beside its own."""
MOST_COUNTED = 4096
"""Of how many classes a verdict may count images: whatever labels strayed into a window."""
MOST_ADDED = 1000
"""How often stages may be added to a run: so that a number can be told that no decision ever has.

A StageAdded adds at most one stage, for it names an entity once (docs/decisions/0011).
"""


def largest_message(configuration: Configuration, data: DataFacts) -> int:
    """The most bytes that a message of this run may have: four models with every row."""
    numbers = model_numbers(data.channels, configuration.width, most_rows(configuration, data))
    return max(LEAST_BYTES, MODELS * 4 * numbers)


def most_classes(configuration: Configuration, data: DataFacts) -> int:
    """Rows of the encoder, which no prototype goes beyond."""
    return configuration.encoder_classes or data.encoder_classes


def most_rows(configuration: Configuration, data: DataFacts) -> int:
    """How many rows a head can have: the encoder's, and never fewer than classes are agreed on.

    Methods without prototypes need no encoder, and are not held to its rows.
    """
    return max(most_classes(configuration, data), len(data.classes))


def with_room(opened: RunOpened, having: Collection[str], more: Iterable[str]) -> tuple[str, ...]:
    """Of more classes, in order of uid, those that have a row or for which there is room for one.

    Beside those that have one already. Every class that the run's data name keeps its own row:
    what nobody has agreed on takes none of those. Only in a live run does anybody announce what
    no schedule names: elsewhere there is room for all.
    """
    if not opened.configuration.live:
        return sorted_uids({*more})
    most, agreed = most_rows(opened.configuration, opened.data), {*opened.data.classes}
    left = most - len(having)
    strange = max(0, most - len(agreed)) - sum(uid not in agreed for uid in having)
    found = []
    for uid in sorted_uids({*more}):
        if uid not in having:
            if left <= 0 or (uid not in agreed and strange <= 0):
                continue
            left, strange = left - 1, strange - (uid not in agreed)
        found.append(uid)
    return tuple(found)


def rows_in_words(opened: RunOpened) -> str:
    """How many rows there are for classes, and for which."""
    most, agreed = most_rows(opened.configuration, opened.data), len(opened.data.classes)
    return (
        f"there are rows for {most} classes, {max(0, most - agreed)} of them for other than the"
        f" {agreed} that were agreed on"
    )


def model_numbers(channels: int, width: int, classes: int) -> int:
    """Numbers in a ResNet-18 for small images, statistics and counters among them (method.md 2).

    Convolutions have 9 w c + 2,724 w^2, the 20 normalisations 4 for each of 75 w channels and a
    counter each, the head 8 w + 1 for each class.
    """
    convolutions = 9 * channels * width + 2724 * width**2
    return convolutions + 300 * width + 20 + (8 * width + 1) * classes
