"""Accuracy held out at the sites: what twins say of images that they keep apart, summed.

Each twin scores each new model on them and says how many images of each class it took for which, as
a `Measured` named `held-out/<site>/<entity>/<version>`. The accuracy of a version is a sum over
entities, so it weighs every image alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from schemas.messages import ModelName
from schemas.topics import NAME

PREFIX = "held-out"
MOST = 256
"""Versions that are remembered: the newest."""
LAST = 3
"""Versions among which the one is looked for that most have scored."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of one model, on what the twins have kept apart."""

    version: int
    right: int
    images: int
    entities: int
    """How many have said something of it."""

    @property
    def percent(self) -> float:
        """Of the images, those taken for what they are."""
        return 100 * self.right / self.images


class HeldOut:
    """What was said of each version; what is said first under a name counts."""

    def __init__(self) -> None:
        self._said: dict[int, dict[str, tuple[int, str, int, int]]] = {}
        """Version → entity → where it was said, of which model, right and all images."""

    def hear(self, name: str, values: Mapping[str, Any], offset: int) -> bool:
        """Take what lies at an offset of `metrics`, if it is of this kind; says whether it is.

        Anybody may write there: what has another form is passed over.
        """
        match name.split("/"):
            case [kind, site, entity, version] if kind == PREFIX and version.isdecimal():
                counts = _counted(values)
            case _:
                return False
        if not (NAME.fullmatch(site) and NAME.fullmatch(entity) and counts):
            return False
        said = self._said.setdefault(int(version), {})
        before = said.get(f"{site}/{entity}")
        if before is None or offset < before[0]:
            said[f"{site}/{entity}"] = (offset, *counts)
        while len(self._said) > MOST:
            del self._said[min(self._said)]
        return True

    def of(self, model: ModelName) -> Accuracy | None:
        """The accuracy of a model; None when nobody has said anything of it, or had no image."""
        said = list(self._said.get(model.version, {}).values())
        said = [each for each in said if each[1] == model.sha256]
        images = sum(each[3] for each in said)
        if not images:
            return None
        return Accuracy(model.version, sum(each[2] for each in said), images, len(said))

    def newest(self, models: Iterable[ModelName]) -> Accuracy | None:
        """Of these models, the newest first, the one that tells where the federation stands.

        Twins say what they see one after the other: of the last few that anybody has scored it is
        the newest of those that most have. Who left is missed for so many versions.
        """
        scored = (each for each in map(self.of, models) if each)
        return max(islice(scored, LAST), key=lambda each: each.entities, default=None)

    def at(self, entity: str, model: ModelName) -> float | None:
        """The percent of one entity's images that a model takes for what they are."""
        said = self._said.get(model.version, {}).get(entity)
        known = said is not None and said[1] == model.sha256 and said[3] > 0
        return 100 * said[2] / said[3] if said and known else None


def _counted(values: Mapping[str, Any]) -> tuple[str, int, int] | None:
    """The model's hash, images that were taken for what they are, and all of them."""
    match values:
        case {"model": str(model), "counts": [*rows] | (*rows,)}:
            pass
        case _:
            return None
    right = every = 0
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            return None
        for j, count in enumerate(row):
            if type(count) is not int or count < 0:
                return None
            every += count
            right += count if i == j else 0
    return model, right, every
