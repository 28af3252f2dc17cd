"""How good each version of a live federation's model is: held out at the sites (docs/method.md 8).

Each twin counts true against predicted rows on images that no training saw, and says so in
`metrics`. Here the counts are added up, and models are compared as far as they can be: on the
entities that scored both, and on the classes that the older one knew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.line import RoundsLine
from schemas.messages import HeadGrown, Measured, RolledBack, RoundClosed

NAME = "held-out"
"""Of each measurement: held-out/<site>/<entity>/<version>."""
WORDS = "held out at the sites"
"""What the accuracy is called wherever it is shown."""


class Share(NamedTuple):
    """Images that were told rightly, of all that were asked about."""

    right: int
    images: int

    @property
    def percent(self) -> float | None:
        """None where there was no image."""
        return 100 * self.right / self.images if self.images else None


@dataclass(frozen=True)
class Counted:
    """What one entity said of one version: per class, in the order of rows."""

    classes: tuple[str, ...]
    shares: Mapping[str, Share]


@dataclass(frozen=True)
class Loss:
    """A model that is worse than the best before it."""

    version: int
    before: int
    """The version that was better."""
    points: float
    """By so much, in percent of the images of both."""
    accuracy: float
    better: float
    """Percent of both, of the older model's classes."""

    @property
    def words(self) -> str:
        """As a line for people."""
        return (
            f"version {self.version} has lost {self.points:.1f} points {WORDS}:"
            f" {self.accuracy:.1f} % where version {self.before} has {self.better:.1f} %"
        )


@dataclass
class HeldOut:
    """All that twins have said of models."""

    by_version: dict[int, dict[str, Counted]] = field(default_factory=dict)
    """Version → entity → what it said first."""

    def hear(self, measured: Measured) -> bool:
        """Take a measurement, if it is one of these and the first under its name; says so."""
        named, counted = _named(measured.name), _counted(measured.values)
        if named is None or counted is None:
            return False
        entity, version = named
        scored = self.by_version.setdefault(version, {})
        return scored.setdefault(entity, counted) is counted

    @property
    def versions(self) -> list[int]:
        """Those that anybody scored, in their order."""
        return sorted(self.by_version)

    def entities(self, version: int) -> Collection[str]:
        """Who scored a version."""
        return self.by_version.get(version, {}).keys()

    def share(self, version: int) -> Share:
        """Of all who scored it."""
        return _sum(self.by_version.get(version, {}).values())

    def newest(self, present: Collection[str]) -> int | None:
        """The newest version that all who are present scored; otherwise the newest of any."""
        whole = [each for each in self.versions if set(present) <= set(self.entities(each))]
        return max(whole or self.versions, default=None)

    def losses(self, line: RoundsLine) -> list[Loss]:
        """Each model that is worse than the best before it by more than `alarm_points`.

        Not a model whose head has just grown, which nobody has trained yet.
        """
        fresh = grown(line)
        found = (self._loss(v, best, line) for v, best in self._with_best() if v not in fresh)
        return [loss for loss in found if loss is not None]

    def loss(self, version: int, line: RoundsLine) -> Loss | None:
        """Whether this version is such a model."""
        if version in grown(line):
            return None
        found = (best for each, best in self._with_best() if each == version)
        return self._loss(version, next(found, []), line)

    def _with_best(self) -> Iterator[tuple[int, list[int]]]:
        """Each version, and before it the best of each size of a head."""
        best: dict[int, tuple[float, int]] = {}
        for version in self.versions:
            yield version, [before for _, before in best.values()]
            percent = self.share(version).percent
            if percent is not None:
                size = max(len(each.classes) for each in self.by_version[version].values())
                best[size] = max(best.get(size, (-1.0, 0)), (percent, version))

    def _loss(self, version: int, best: Iterable[int], line: RoundsLine) -> Loss | None:
        assert line.opened is not None
        found = [loss for before in best if (loss := self._compared(version, before))]
        worst = max(found, key=lambda loss: loss.points, default=None)
        return worst if worst and worst.points > line.opened.configuration.alarm_points else None

    def _compared(self, version: int, before: int) -> Loss | None:
        new, old = self.by_version[version], self.by_version[before]
        both = sorted(set(new) & set(old))
        classes = {uid for entity in both for uid in old[entity].classes}
        now = _sum((new[entity] for entity in both), classes).percent
        then = _sum((old[entity] for entity in both), classes).percent
        if now is None or then is None:
            return None
        return Loss(version, before, then - now, now, then)


def grown(line: RoundsLine) -> set[int]:
    """Versions whose head has just grown."""
    decisions = line.decisions.values()
    return {each.model.version for each in decisions if isinstance(each, HeadGrown)}


def origins(line: RoundsLine) -> dict[int, str]:
    """Version → where it comes from, in words."""
    found = {0: "the first weights"}
    for each in line.decisions.values():
        match each:
            case HeadGrown(stage=stage, rows=rows, model=model):
                found[model.version] = f"stage {stage} grows by {', '.join(rows)}"
            case RoundClosed(stage=stage, round=round, counted=counted, model=model) if counted:
                found[model.version] = f"round {stage}.{round}"
            case RolledBack(to=to, model=model):
                found[model.version] = f"back to version {to.version}"
    return found


def _named(name: str) -> tuple[str, int] | None:
    """Entity and version of a measurement's name, if it is one of these."""
    match name.split("/"):
        case [first, site, entity, version] if first == NAME and version.isdecimal():
            return f"{site}/{entity}", int(version)
    return None


def _counted(values: Mapping[str, Any]) -> Counted | None:
    """Per class what a matrix says; None for what is none."""
    classes, counts = values.get("classes"), values.get("counts")
    if not isinstance(classes, list | tuple) or not isinstance(counts, list | tuple):
        return None
    if len(classes) != len(counts) or not all(_is_row(row, len(classes)) for row in counts):
        return None
    shares = {str(uid): Share(row[i], sum(row))
              for i, (uid, row) in enumerate(zip(classes, counts, strict=True))}  # fmt: skip
    return Counted(tuple(shares), shares)


def _is_row(row: object, size: int) -> bool:
    return (
        isinstance(row, list | tuple)
        and len(row) == size
        and all(type(each) is int and each >= 0 for each in row)
    )


def _sum(counted: Iterable[Counted], classes: Collection[str] | None = None) -> Share:
    """All of them together; of these classes alone, if some are named."""
    right = images = 0
    for each in counted:
        for uid, share in each.shares.items():
            if classes is None or uid in classes:
                right, images = right + share.right, images + share.images
    return Share(right, images)
