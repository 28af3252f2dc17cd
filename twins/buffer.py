"""What a twin has seen: positions and classes of its stream, and where pixels lie. Never pixels.

An image is taken strictly by its number in its source, from 0: ahead of a gap it is passed over,
behind it is a repeat. Its *position* counts the images taken so far from all sources.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from infra.promises import Library, Place
from schemas.messages import ImageBatch
from twins.apart import is_tenth

NO_IMAGE = 2**32 - 1
"""Label code of a number whose image could not be sent."""
MOVED = -1
"""Offset of an image that lies in its twin's own topic, for its stream was let go."""


class Labels:
    """Class uids as small numbers, shared by all twins of a process."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._uids: list[str] = []

    def code(self, uid: str | None) -> int:
        """The number of a uid; NO_IMAGE for none."""
        if uid is None:
            return NO_IMAGE
        if uid not in self._codes:
            self._codes[uid] = len(self._uids)
            self._uids.append(uid)
        return self._codes[uid]

    def uid(self, code: int) -> str:
        """The uid behind a number."""
        return self._uids[code]


class Image(NamedTuple):
    """One image of the stream, by reference."""

    position: int
    label: str
    source: str
    number: int
    offset: int
    row: int
    """Its row among the images of its batch that have content."""
    tenth: bool = False
    """Whether it is one of those that a live twin keeps apart, unless it has enough of them."""
    gone: bool = False
    """Whether it is forgotten."""


Forgets = Callable[[str, int, str | None], bool]
"""Whether an image is forgotten, by its source, number and class."""


class _Aside(Protocol):
    def before(self, position: int) -> Iterable[Image]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was taken, in whole or in part, without its pixels."""

    offset: int
    source: str
    first: int
    skipped: int
    """Images with content before `first` in the batch as it was sent."""
    start: int
    labels: array[int]
    tenths: frozenset[int] = frozenset()
    """Which of them, from 0, are every tenth image of a live stream."""
    gone: frozenset[int] = frozenset()
    """Which of them are forgotten."""

    def images(self, labels: Labels) -> Iterator[Image]:
        """Its images that have content, forgotten ones among them."""
        row = self.skipped
        for i, code in enumerate(self.labels):
            if code != NO_IMAGE:
                yield Image(
                    self.start + i,
                    labels.uid(code),
                    self.source,
                    self.first + i,
                    self.offset,
                    row,
                    i in self.tenths,
                    i in self.gone,
                )
                row += 1


def _nothing(source: str, number: int, label: str | None) -> bool:
    return False


class _Nowhere:
    """No image lies elsewhere."""

    def before(self, position: int) -> Iterable[Image]:
        return ()

    def __len__(self) -> int:
        return 0


_NONE = _Nowhere()


class Stream:
    """The stream of one entity as far as its twin has read it."""

    __slots__ = (
        "_aside", "_forgets", "_labels", "batches", "ends", "last_offset", "live_marks", "marks",
        "position", "read_to", "sources", "tainted",
    )  # fmt: skip

    def __init__(self, labels: Labels, forgets: Forgets = _nothing, aside: _Aside = _NONE) -> None:
        """`aside` are images that lie elsewhere, for the part of the stream before was let go."""
        self._labels = labels
        self._forgets = forgets
        self._aside = aside
        self.position = 0
        self.sources: dict[str, int] = {}
        self.marks: dict[int, tuple[str, int]] = {}
        """Stage → source and count."""
        self.live_marks: dict[str, int] = {}
        """Source → the furthest count of a mark that names no stage."""
        self.ends: dict[str, int] = {}
        """Source → the furthest count behind which its entity leaves."""
        self.batches: list[Batch] = []
        self.last_offset = 0
        self.read_to = 0
        """Behind the last record that was read."""
        self.tainted = 0
        """Behind the last record that holds pixels of a forgotten image, as far as was seen."""

    @property
    def begins(self) -> int:
        """The position of the first image of the stream that is not aside."""
        return self.batches[0].start if self.batches else self.position

    @property
    def buffered(self) -> int:
        """Images from the first batch that is held up to its position, and those aside."""
        return self.position - self.begins + len(self._aside)

    def take(self, batch: ImageBatch, offset: int, *, live: bool = False) -> bool:
        """Take the images of a batch that are next in their source; says whether there were any.

        Of a live run every tenth is marked.
        """
        self.last_offset = max(self.last_offset, offset)
        self._look_for_taint(batch, offset)
        due = self.sources.get(batch.source, 0)
        if not batch.first <= due < batch.first + len(batch.classes):
            return False
        repeats = due - batch.first
        fresh = batch.classes[repeats:]
        skipped = sum(uid is not None for uid in batch.classes[:repeats])
        codes = array("I", (self._labels.code(uid) for uid in fresh))
        tenths = frozenset(i for i in range(len(fresh)) if live and is_tenth(batch.source, due + i))
        taken = Batch(offset, batch.source, due, skipped, self.position, codes, tenths)
        self.batches.append(self._struck(taken))
        self.sources[batch.source] = due + len(fresh)
        self.position += len(fresh)
        return True

    def _look_for_taint(self, batch: ImageBatch, offset: int) -> None:
        """Whether a record holds a forgotten image, be it taken or a repeat."""
        for i, uid in enumerate(batch.classes):
            if uid is not None and self._forgets(batch.source, batch.first + i, uid):
                self.tainted = max(self.tainted, offset + 1)

    def _struck(self, batch: Batch) -> Batch:
        """The same batch, where forgotten images are marked as such."""
        gone = frozenset(
            i
            for i, code in enumerate(batch.labels)
            if code != NO_IMAGE
            and self._forgets(batch.source, batch.first + i, self._labels.uid(code))
        )
        return replace(batch, gone=gone) if gone else batch

    def strike(self) -> None:
        """More is forgotten now than when these batches were taken."""
        self.batches = [self._struck(batch) for batch in self.batches]
        held = (batch.offset + 1 for batch in self.batches if batch.gone)
        self.tainted = max(self.tainted, max(held, default=0))

    def mark(self, source: str, count: int, stage: int | None, offset: int) -> None:
        """Note that so many images of a source belong to a stage; its first mark counts."""
        self.last_offset = max(self.last_offset, offset)
        if stage is not None:
            self.marks.setdefault(stage, (source, count))
        else:
            self.live_marks[source] = max(count, self.live_marks.get(source, 0))

    def end(self, source: str, count: int, offset: int) -> None:
        """Note that behind so many images of a source its entity leaves."""
        self.last_offset = max(self.last_offset, offset)
        self.ends[source] = max(count, self.ends.get(source, 0))

    @property
    def ended(self) -> bool:
        """Whether its entity has left: of no source is there more than was said before it left."""
        return bool(self.ends) and self.sources == self.ends

    def behind(self, source: str, count: int, judged: int) -> int | None:
        """The position behind so many images of a source, or `judged`; None before they came."""
        if self.sources.get(source, 0) < count:
            return None
        for batch in self.batches:
            if batch.source == source and batch.first < count <= batch.first + len(batch.labels):
                return max(judged, batch.start + count - batch.first)
        aside = (each for each in self._aside.before(self.begins) if each.source == source)
        moved = (each.position + 1 for each in aside if each.number < count)
        return max(judged, *moved, 0)  # the others were settled, and their batches let go

    def images(self) -> Iterator[Image]:
        """All images that the log still holds and nobody wants forgotten, in order of position."""
        return (image for image in self.seen() if not image.gone)

    def seen(self) -> Iterator[Image]:
        """Forgotten ones as well, as long as their batches are held."""
        yield from self._aside.before(self.begins)
        for batch in self.batches:
            yield from batch.images(self._labels)

    def images_of(self, batch: Batch) -> Iterator[Image]:
        """Those of one batch that are not forgotten."""
        return (image for image in batch.images(self._labels) if not image.gone)

    def let_go(self, offset: int) -> None:
        """Forget batches whose records lie below an offset."""
        self.batches = [batch for batch in self.batches if batch.offset >= offset]

    def needed_from(self, needed: Iterable[Image]) -> tuple[int, int, dict[str, int]]:
        """Offset, position and next numbers from which a successor has to read the log again."""
        offsets = (image.offset for image in needed if image.offset != MOVED)
        return self.goes_on(min(offsets, default=self.last_offset))

    def goes_on(self, offset: int) -> tuple[int, int, dict[str, int]]:
        """The same for who reads on at an offset."""
        kept = [batch for batch in self.batches if batch.offset >= offset]
        sources = dict(self.sources)
        for batch in reversed(kept):
            sources[batch.source] = batch.first
        return offset, (kept[0].start if kept else self.position), sources

    def resume(self, offset: int, position: int, sources: Mapping[str, int]) -> None:
        """Go on from a state, when reading did not get as far as that by itself."""
        if position >= self.position:
            self.batches = []
            self.position = position
            self.sources = dict(sources)
        else:
            self.let_go(offset)


def pixels(library: Library, samples: str, images: Iterable[Image]) -> np.ndarray:
    """Load images from a stream, in the order given: uint8 (N, C, H, W). Raises LookupError."""
    wanted = list(images)
    found: dict[int, np.ndarray] = {}
    for offset in dict.fromkeys(image.offset for image in wanted):
        batch = library.message(Place(samples, (offset,)))
        if not isinstance(batch, ImageBatch):
            raise LookupError(f"{samples} holds no images at {offset}")
        found[offset] = batch.groups["images"]["images"]
    if not wanted:
        return np.zeros((0, 1, 1, 1), np.uint8)
    return np.stack([found[image.offset][image.row] for image in wanted])
