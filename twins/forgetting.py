"""Images that a twin is asked to forget, for ever, and how it keeps the rest (decision 0021).

A broker lets go of the beginning of a stream, never of an image within it. So a twin writes what it
still needs of that beginning into its own topic, image by image; then where its stream goes on; and
only when it has read that back it lets the beginning go. What is forgotten is in no image list from
the moment on at which the request was read, whatever has been let go by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.promises import Forget, Library, Place
from schemas.messages import Forgotten, StreamImage
from schemas.tensors import groups_sha256
from twins.buffer import MOVED, Image
from twins.exemplars import Exemplar


class Forgettings:
    """All that was asked to be forgotten. It only grows."""

    __slots__ = ("_asked", "before")

    def __init__(self) -> None:
        self._asked: dict[str, tuple[str | None, Mapping[str, tuple[int, int]]]] = {}
        self.before = 0
        """Place in the stream's topic before which nothing is to stay."""

    def __len__(self) -> int:
        """How often somebody asked for something else."""
        return len(self._asked)

    def note(self, asked: Forgotten) -> bool:
        """Note a request; says whether it is about anything else than those before."""
        self.before = max(self.before, asked.before)
        if asked.key in self._asked:
            return False
        self._asked[asked.key] = asked.label, dict(asked.images)
        return True

    def hold(self, source: str, number: int, label: str | None) -> bool:
        """Whether an image of a class is forgotten."""
        for asked, ranges in self._asked.values():
            first, behind = ranges.get(source, (0, 0))
            if first <= number < behind and asked in (None, label):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Remain:
    """One image of a part of the stream that was let go, and where its pixels lie now."""

    image: Image
    offsets: tuple[int, ...]
    digest: str


class Remains:
    """Images that a twin still needs of what was let go of its stream."""

    __slots__ = ("_images", "_ordered", "_topic")

    def __init__(self, topic: str) -> None:
        """`topic` is the twin's own."""
        self._topic = topic
        self._images: dict[Exemplar, Remain] = {}
        self._ordered: list[Image] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, image: Exemplar) -> bool:
        return image in self._images

    def note(self, message: StreamImage, place: Place, *, tenth: bool) -> None:
        """An image was read: the pixels that came first count, and lie at the latest place."""
        known, digest = (message.source, message.image), groups_sha256(message.groups)
        if known in self._images and self._images[known].digest != digest:
            return
        image = Image(
            message.position, message.label, message.source, message.image, MOVED, 0, tenth
        )
        self._images[known] = Remain(image, place.offsets, digest)
        self._ordered = None

    def before(self, position: int) -> Iterator[Image]:
        """Those before a position, in their order."""
        if not self._images:
            return
        if self._ordered is None:
            images = (remain.image for remain in self._images.values())
            self._ordered = sorted(images, key=lambda image: image.position)
        for image in self._ordered:
            if image.position >= position:
                return
            yield image

    def let_go(
        self,
        settled: Mapping[str, int],
        since: int,
        forgotten: Forgettings,
        only: Sequence[Exemplar] = (),
    ) -> Iterator[Forget]:
        """Those that are forgotten, or that nobody has any use for: of their class, or of all.

        With `only`, of these alone: who hears of thousands one by one looks at each once.
        """
        for known in list(only or self._images):
            remain = self._images[known]
            label = remain.image.label
            done_with = remain.image.position < max(since, settled.get(label, 0))
            if done_with or forgotten.hold(*known, label):
                del self._images[known]
                self._ordered = None
                yield Forget(self._topic, remain_key(known), len(remain.offsets))

    def pixels(self, library: Library, image: Image) -> NDArray[np.uint8]:
        """The pixels of one of them, (1, C, H, W). Raises LookupError."""
        remain = self._images[image.source, image.number]
        message = library.message(Place(self._topic, remain.offsets))
        assert isinstance(message, StreamImage)
        return message.groups["images"]["images"]


def remain_key(image: Exemplar) -> str:
    """The key of such an image's record."""
    return f"stream/{image[0]}/{image[1]}"
