"""Accuracy held out at the sites: what twins say of images that they keep apart, summed.

Each twin scores each new model on them and says how many images of each class it took for which, as
a `Measured` named `held-out/<site>/<entity>/<version>`. The accuracy of a version is a sum over
entities, so it weighs every image alike. Two models are compared as far as they can be: on the
entities that scored both, and on the classes that the older one knew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from schemas.line import RoundsLine
from schemas.messages import HeadGrown
from schemas.topics import NAME

PREFIX = "held-out"
WORDS = "held out at the sites"
"""What the accuracy is called wherever it is shown."""
APART = 50
"""Images of a class that an entity keeps apart: the first ones. No count can be larger."""
MOST = 256
"""Versions that are remembered: the newest, and of each size of the head the best."""
EARLY = 4096
"""Words that are remembered of versions which nobody has decided yet: metrics may be read first."""
LAST = 3
"""Versions among which the one is looked for that most have scored."""


class Share(NamedTuple):
    """Images that were told rightly, of all that were asked about."""

    right: int
    images: int

    @property
    def percent(self) -> float | None:
        """None where there was no image."""
        return 100 * self.right / self.images if self.images else None


NOTHING = Share(0, 0)


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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class _Said:
    """One entity's word on one model."""

    offset: int
    sha256: str
    shares: Mapping[str, Share]
    """By class, in the order of rows."""

    @property
    def share(self) -> Share:
        return _sum(self.shares.values())


@dataclass(slots=True)
class _Scored:
    """All words on one model that was decided."""

    said: dict[str, _Said] = field(default_factory=dict)
    share: Share = NOTHING
    """Of all of them."""
    classes: int = 0
    """Rows of its head."""

    def add(self, entity: str, said: _Said) -> None:
        """What lies last counts."""
        before = self.said.get(entity)
        if before is not None and before.offset > said.offset:
            return
        gone, come = before.share if before else NOTHING, said.share
        self.said[entity] = said
        self.classes = max(self.classes, len(said.shares))
        self.share = Share(
            self.share.right - gone.right + come.right,
            self.share.images - gone.images + come.images,
        )


class HeldOut:
    """What was said of each version that a line has decided.

    Of what an entity says twice the last counts, whatever is read first: in a compacted topic that
    is what stays.
    """

    def __init__(self, line: RoundsLine, most: int | None = MOST) -> None:
        """Remember so many versions of the line's models; all of them with None."""
        self._line = line
        self._most = most
        self._scored: dict[int, _Scored] = {}
        self._early: dict[int, dict[tuple[str, str], _Said]] = {}
        """Version that is not decided → entity and model."""
        self._size = 0
        """Words in there."""

    # --- hearing ----------------------------------------------------------------------------------

    def hear(self, name: str, values: Mapping[str, Any], offset: int) -> bool:
        """Take what lies at an offset of `metrics`, if it is of this kind; says whether it is.

        Anybody may write there, so a word is what somebody says and no more. What has another form
        is passed over, and so is more than APART images of a class. What is said of models or rows
        that the line has not, or of entities of no site, is never counted.
        """
        match name.split("/"):
            case [kind, site, entity, number] if kind == PREFIX and number.isdecimal():
                said = _said(values, offset)
            case _:
                return False
        if said is None or not (NAME.fullmatch(site) and NAME.fullmatch(entity)):
            return False
        version, entity = int(number), f"{site}/{entity}"
        self._settle()
        if version > self._newest:
            self._wait(version, entity, said)
        else:
            self._take(version, entity, said)
        return True

    @property
    def _newest(self) -> int:
        return self._line.model.version if self._line.model else -1

    def _take(self, version: int, entity: str, said: _Said) -> None:
        model = self._line.named(version)
        if model is None or model.sha256 != said.sha256 or not self._line.knows(entity):
            return
        if any(self._line.rows.get(uid) != row for row, uid in enumerate(said.shares)):
            return
        self._scored.setdefault(version, _Scored()).add(entity, said)
        if self._most is not None and len(self._scored) > self._most:
            best = {version for _, version in self._best(self._scored).values()}
            del self._scored[min(self._scored.keys() - best, default=min(self._scored))]

    def _wait(self, version: int, entity: str, said: _Said) -> None:
        words = self._early.setdefault(version, {})
        before = words.get((entity, said.sha256))
        if before is None or before.offset < said.offset:
            words[entity, said.sha256] = said
        self._size += before is None
        while self._size > EARLY:  # the highest: the line comes to the lowest first
            self._size -= len(self._early.pop(max(self._early)))

    def _settle(self) -> None:
        """Count what was said of models before they were decided."""
        for version in sorted(each for each in self._early if each <= self._newest):
            words = self._early.pop(version)
            self._size -= len(words)
            for (entity, _), said in words.items():
                self._take(version, entity, said)

    # --- how good a version is --------------------------------------------------------------------

    @property
    def versions(self) -> list[int]:
        """Those that anybody scored, in their order."""
        self._settle()
        return sorted(self._scored)

    def entities(self, version: int) -> Collection[str]:
        """Who scored a version."""
        self._settle()
        return self._scored[version].said.keys() if version in self._scored else ()

    def of(self, version: int) -> Accuracy | None:
        """The accuracy of a model; None when nobody has said anything of it, or had no image."""
        self._settle()
        scored = self._scored.get(version)
        if scored is None or not scored.share.images:
            return None
        return Accuracy(version, *scored.share, entities=len(scored.said))

    def all(self) -> Iterator[Accuracy]:
        """Of each version that was scored, the newest first."""
        return (each for each in map(self.of, reversed(self.versions)) if each)

    def newest(self) -> Accuracy | None:
        """The newest that tells where the federation stands.

        Twins say what they see one after the other: of the last few that anybody has scored it is
        the newest of those that most have. Who left is missed for so many versions.
        """
        return max(islice(self.all(), LAST), key=lambda each: each.entities, default=None)

    def newest_of(self, present: Collection[str]) -> int | None:
        """The newest version that all who are present scored; otherwise the newest of any."""
        whole = [each for each in self.versions if set(present) <= set(self.entities(each))]
        return max(whole or self.versions, default=None)

    def at(self, entity: str) -> float | None:
        """Percent of an entity's images, by the newest model that it has scored."""
        for version in reversed(self.versions):
            said = self._scored[version].said.get(entity)
            if said is not None and said.share.percent is not None:
                return said.share.percent
        return None

    # --- whether it is worse ----------------------------------------------------------------------

    def losses(self) -> list[Loss]:
        """Each model that is worse than the best before it by more than `alarm_points`.

        Not a model whose head has just grown, which nobody has trained yet.
        """
        return [loss for loss in map(self.loss, self.versions) if loss]

    def loss(self, version: int) -> Loss | None:
        """Whether this version is such a model."""
        self._settle()
        opened = self._line.opened
        if opened is None or version not in self._scored or self._is_fresh(version):
            return None
        best = self._best(each for each in self._scored if each < version)
        found = [loss for _, before in best.values() if (loss := self._compared(version, before))]
        worst = max(found, key=lambda loss: loss.points, default=None)
        return worst if worst and worst.points > opened.configuration.alarm_points else None

    def _is_fresh(self, version: int) -> bool:
        grown = (stage.grown for stage in self._line.stages)
        return any(isinstance(g, HeadGrown) and g.model.version == version for g in grown)

    def _best(self, versions: Iterable[int]) -> dict[int, tuple[float, int]]:
        """Size of a head → accuracy and version of the first that is the best of that size.

        Of those that were scored on more than half as many images as any of that size: one lucky
        entity would hide that the others have lost.
        """
        best: dict[int, tuple[float, int]] = {}
        most: dict[int, int] = {}
        listed = sorted(versions)
        for scored in map(self._scored.__getitem__, listed):
            most[scored.classes] = max(scored.share.images, most.get(scored.classes, 0))
        for version in listed:
            scored = self._scored[version]
            percent = scored.share.percent
            if percent is None or 2 * scored.share.images <= most[scored.classes]:
                continue
            if percent > best.get(scored.classes, (-1.0, 0))[0]:
                best[scored.classes] = (percent, version)
        return best

    def _compared(self, version: int, before: int) -> Loss | None:
        new, old = self._scored[version].said, self._scored[before].said
        both = new.keys() & old.keys()
        classes = {uid for entity in both for uid in old[entity].shares}
        now = _sum(_of(new, both, classes)).percent
        then = _sum(_of(old, both, classes)).percent
        if now is None or then is None:
            return None
        return Loss(version, before, then - now, now, then)


def _of(
    said: Mapping[str, _Said], entities: Collection[str], classes: Collection[str]
) -> Iterator[Share]:
    for entity in entities:
        for uid, share in said[entity].shares.items():
            if uid in classes:
                yield share


def _sum(shares: Iterable[Share]) -> Share:
    right = images = 0
    for share in shares:
        right, images = right + share.right, images + share.images
    return Share(right, images)


def _said(values: Mapping[str, Any], offset: int) -> _Said | None:
    """What a matrix of true by predicted rows says of each class; None for what is none."""
    model, classes, counts = (values.get(key) for key in ("model", "classes", "counts"))
    if not isinstance(model, str) or not isinstance(classes, list | tuple):
        return None
    if not isinstance(counts, list | tuple) or len(counts) != len(classes):
        return None
    if not all(_is_row(row, len(classes)) for row in counts):
        return None
    shares = {str(uid): Share(row[i], sum(row))
              for i, (uid, row) in enumerate(zip(classes, counts, strict=True))}  # fmt: skip
    if len(shares) < len(classes) or any(share.images > APART for share in shares.values()):
        return None
    return _Said(offset, model, shares)


def _is_row(row: object, size: int) -> bool:
    return (
        isinstance(row, list | tuple)
        and len(row) == size
        and all(type(each) is int and each >= 0 for each in row)
    )
