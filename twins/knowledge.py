"""What one twin has to go by: its stream, its diary, its verdicts, and what follows from them.

Judging, remembering and training all ask here which images there are, so it is decided once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from infra.promises import Library
from schemas.messages import WindowJudged
from schemas.topics import parted
from schemas.verdicts import VerdictLine
from twins.apart import first_of_each
from twins.buffer import MOVED, Image, Stream, pixels
from twins.diary import Diary
from twins.exemplars import Remembered
from twins.forgetting import Forgettings, Remains
from twins.history import History
from twins.shared import Shared

Known = Image | Remembered
"""An image of a known class, of the stream or remembered, by reference."""


class Knowledge:
    """Of one twin; the things that it does read it and change nothing in it."""

    __slots__ = (
        "diary", "entity", "forgotten", "history", "remains", "samples", "shared", "stream",
    )  # fmt: skip

    def __init__(self, entity: str, shared: Shared) -> None:
        self.entity = entity
        self.shared = shared
        self.samples = shared.names.of_entity("samples", entity)
        """The topic of its stream."""
        self.forgotten = Forgettings()
        """Images that it may use for nothing any more."""
        self.diary = Diary(entity, shared, self.forgotten)
        self.remains = Remains(self.diary.topic)
        """Images of its stream that lie in its own topic now."""
        self.stream = Stream(shared.labels, self.forgotten.hold, self.remains)
        self.history = History(entity, shared, lambda: self.diary.state)

    def topic(self, name: str) -> str:
        """A topic of its site."""
        return self.shared.names.of_site(name, parted(self.entity)[0])

    # --- verdicts --------------------------------------------------------------------------------

    @property
    def line(self) -> VerdictLine:
        """Its part of `classes`."""
        return self.shared.verdicts.line(self.entity)

    @property
    def judged_to(self) -> int:
        """The position up to which its newest verdict looked."""
        newest = next(reversed(self.line.verdicts.values()), None)
        return newest.position if newest else 0

    @property
    def due(self) -> int | None:
        """The first stage that waits for its verdict, as far as is known."""
        return self.shared.due(self.entity)

    @property
    def unread(self) -> bool:
        """Whether a verdict of its own is in the log that was not read yet: its stage has begun."""
        stage = self.shared.unread(self.entity)
        return stage is not None and stage < len(self.shared.line.stages)

    def began(self, stage: int) -> WindowJudged:
        """The verdict with which this twin stands in a stage."""
        verdict = self.shared.verdicts.verdict(self.entity, stage)
        assert verdict is not None
        return verdict

    # --- images ----------------------------------------------------------------------------------

    def raw_images(self, up_to: int) -> list[Image]:
        """Images before a position that it may train on: of known classes, and not settled."""
        known, diary = set(self.line.known), self.diary
        return list(self.unsettled(up_to, known, diary.settled, diary.since))

    def unsettled(
        self, up_to: int, classes: Collection[str], settled: Mapping[str, int], since: int
    ) -> Iterator[Image]:
        """Images of these classes from one position up to another; of each class from where it is
        settled on.

        None that is kept apart: nobody trains on those, remembers them or compares with them.
        """
        apart = self._apart()
        for image in self.stream.images():
            start = max(since, settled.get(image.label, 0))
            wanted = image.label in classes and start <= image.position < up_to
            if wanted and image.position not in apart:
                yield image

    def kept_apart(self, up_to: int | None = None) -> list[Image]:
        """Images of the stream that a live twin keeps apart and its state does not name yet."""
        state = self.diary  # forgotten ones count: in their place no other is kept apart
        found = first_of_each(self.stream.seen(), state.apart, state.apart_to)
        return [i for i in found if not i.gone and (up_to is None or i.position < up_to)]

    def _apart(self) -> Collection[int]:
        """Positions of all images of the stream that are kept apart."""
        if not self.shared.line.live:
            return ()
        state = self.diary
        named = {
            image.position
            for image in self.stream.images()
            if image.tenth
            and image.position < state.apart_to
            and (image.source, image.number) in state.apart.get(image.label, ())
        }
        return named | {image.position for image in self.kept_apart()}

    def held_out(self) -> list[Known]:
        """What a model is scored on: images that are kept apart, of classes that have a row."""
        rows, apart = self.shared.line.rows, self.diary.apart
        named = [
            Remembered(uid, each)
            for uid, images in apart.items()
            for each in images
            if not self.forgotten.hold(*each, uid)
        ]
        found: list[Known] = [*self.kept_apart(), *named]
        return [image for image in found if image.label in rows]

    def known_images(self, up_to: int) -> list[Known]:
        """Its raw images, and behind them the exemplars."""
        return [*self.raw_images(up_to), *self.diary.remembered()]

    def training_images(self, up_to: int) -> list[Known]:
        """Which images this twin trains on: decided here and nowhere else (docs/method.md 5.9).

        Images before the position, of classes that have a row, that no memory has settled; and the
        exemplars.
        """
        rows = self.shared.line.rows
        return [image for image in self.known_images(up_to) if image.label in rows]

    def window(self, up_to: int) -> list[Image]:
        """Images not judged yet, and earlier ones whose class is still unknown (method.md 3.4)."""
        known, start, since = set(self.line.known), self.judged_to, self.diary.since
        return [
            image
            for image in self.stream.images()
            if since <= image.position < up_to
            and (image.position >= start or image.label not in known)
        ]

    def pixels(self, library: Library, images: Sequence[Known]) -> NDArray[np.uint8]:
        """Pixels of images of the stream, and behind them of exemplars. Raises LookupError.

        Of the stream's those come first that lie in the twin's own topic: they are the oldest.
        """
        stream = [image for image in images if isinstance(image, Image)]
        moved = [image for image in stream if image.offset == MOVED]
        raw = stream[len(moved) :]
        kept = [image for image in images if isinstance(image, Remembered)]
        aside = [self.remains.pixels(library, each) for each in moved]
        seen = [pixels(library, self.samples, raw)] if raw or not (moved or kept) else []
        named = (self.diary.pixels(library, each) for each in kept)
        return np.concatenate([*aside, *seen, *named])
