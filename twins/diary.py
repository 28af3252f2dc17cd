"""What a twin wrote down about itself and reads again, it or a copy of it. Never pixels in memory.

Its topic holds three kinds of records, content first. An *exemplar* has the pixels of one image,
and so has an image that a live twin keeps *apart*; what a strategy would *keep* of an update is
named for that update; and a *state* says what a decision made of the twin, and names them. The
first state of a number counts. What the newest one has settled and does not name is let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.promises import Answer, Arrived, Forget, Library, Place, Say, Seek, Trim
from schemas.codec import pack
from schemas.images import check_images
from schemas.messages import ExemplarImage, Groups, ModelUpdate, StrategyKept, TwinState
from schemas.tensors import groups_sha256
from twins.exemplars import Album, Exemplar, Images, Remembered
from twins.forgetting import Forgettings
from twins.shared import Shared


@dataclass(frozen=True, slots=True)
class Kept:
    """Where lies what a strategy would keep of an update, and which round that answers."""

    opened: int
    place: Place
    digest: int


class Diary:
    """The newest state of one twin, and where lies what it names."""

    __slots__ = (
        "_albums", "_chores", "_entity", "_forgotten", "_kept", "_key", "_samples", "_shared",
        "_to_be_named", "apart", "exemplars", "state", "topic",
    )  # fmt: skip

    def __init__(self, entity: str, shared: Shared, forgotten: Forgettings) -> None:
        self.topic = shared.names.of_entity("twin-state", entity)
        self.state: TwinState | None = None
        """Without the images that it names, which take less room below."""
        self.exemplars: dict[str, Images] = {}
        """Class → the exemplars that the state names and nobody wants forgotten, best first."""
        self.apart: dict[str, Images] = {}
        """Class → the images that the state keeps apart, in the order in which they came.

        Forgotten ones are among them, without pixels: in their place no other is kept apart.
        """
        self._entity = entity
        self._forgotten = forgotten
        self._shared = shared
        self._samples = shared.names.of_entity("samples", entity)
        self._key: tuple[str, int] | None = None
        """Under which the state lies, and in how many pieces."""
        self._albums: dict[str, Album] = {}
        """Class → where the pixels of its exemplars lie, and of what is kept apart."""
        self._to_be_named: dict[Exemplar, int] = {}
        """Images that are kept apart → number of the state that is to name them."""
        self._kept: dict[str, Kept] = {}
        """Hash of an update → what the strategy would keep of it."""
        self._chores: list[Answer] = []

    # --- what it says ----------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """Of the decision that the state follows from; -1 before there is a state."""
        return self.state.number if self.state else -1

    @property
    def settled(self) -> Mapping[str, int]:
        """Class → images before this position are done with: exemplars, or nothing."""
        return self.state.settled if self.state else {}

    @property
    def since(self) -> int:
        """Images before this position are done with, whatever their class."""
        return self.state.since if self.state else 0

    @property
    def apart_to(self) -> int:
        """Images before this position are kept apart if the state names them, and else not."""
        return self.state.apart_to if self.state else 0

    def remembered(self) -> list[Remembered]:
        """Each exemplar with its class, in the order in which the classes were learned.

        A live twin may have let go early images of its current classes: then it has some of those.
        """
        known = (*self.state.learned, *self.state.current) if self.state else ()
        return [Remembered(uid, each) for uid in known for each in self.exemplars.get(uid, ())]

    def named(self) -> dict[str, tuple[Exemplar, ...]]:
        """Class → exemplars, as a state names them."""
        return {uid: tuple(images) for uid, images in self.exemplars.items()}

    def named_apart(self) -> dict[str, tuple[Exemplar, ...]]:
        """Class → images that are kept apart, likewise."""
        return {uid: tuple(images) for uid, images in self.apart.items()}

    def holds_pixels(self, uid: str, image: Exemplar) -> bool:
        """Whether the pixels of an image of this class were read back."""
        return image in self._albums.get(uid, ())

    def pixels(self, library: Library, remembered: Remembered) -> NDArray[np.uint8]:
        """The pixels of an exemplar or an image kept apart, (1, C, H, W). Raises LookupError."""
        offsets = self._albums[remembered.label][remembered.image]
        message = library.message(Place(self.topic, offsets))
        assert isinstance(message, ExemplarImage)
        return message.groups["images"]["images"]

    def holds_kept(self, update: str | None) -> bool:
        """Whether what the strategy would keep of an update was read back."""
        return update in self._kept

    def kept(self, library: Library) -> Groups:
        """What the strategy keeps according to the state. Raises LookupError."""
        if self.state is None or self.state.kept is None:
            return {}
        message = library.message(self._kept[self.state.kept].place)
        assert isinstance(message, StrategyKept)
        return message.groups

    # --- reading ---------------------------------------------------------------------------------

    def note_exemplar(self, message: ExemplarImage, place: Place) -> None:
        """Note where an image lies. Raises Refused when that is no image of this run.

        The pixels that came first count. Written again, the same ones lie at the later place: the
        topic is compacted, and the earlier one goes. So it is with what a strategy keeps.
        """
        check_images(message.groups, 1, self._shared.data)
        image = (message.source, message.image)
        if self._forgotten.hold(*image, message.label) or self._is_done_with(message, image):
            self._chores.append(Forget(self.topic, _image_key(image), len(place.offsets)))
            return
        if message.apart is not None and message.apart > self.number:
            self._to_be_named[image] = message.apart
        album = self._albums.setdefault(message.label, Album())
        album.note(image, place.offsets, _digest(message))

    def _is_done_with(self, message: ExemplarImage, image: Exemplar) -> bool:
        """Whether the state is behind what an image was written for, and does not name it."""
        if self._names(message.label, image):
            return False
        if message.apart is not None:
            return message.apart <= self.number
        return message.label in self.settled

    def _names(self, uid: str, image: Exemplar) -> bool:
        """Whether the state names an image: nearly always for the class that its record tells."""
        both = (self.exemplars, self.apart)
        return any(image in each.get(uid, ()) for each in both) or any(
            image in images for each in both for images in each.values()
        )

    def note_kept(self, message: StrategyKept, place: Place) -> None:
        """Note where lies what the strategy would keep of an update."""
        state = self.state
        if state and message.opened < state.number and message.update != state.kept:
            self._chores.append(Forget(self.topic, _kept_key(message.update), len(place.offsets)))
            return
        kept = Kept(message.opened, place, _digest(message))
        first = self._kept.get(message.update, kept)
        if (first.opened, first.digest) == (kept.opened, kept.digest):
            self._kept[message.update] = kept

    def adopt(self, state: TwinState, arrived: Arrived) -> bool:
        """Take a state that is what its decision made of the twin; says whether it is newer."""
        key = (_state_key(state, arrived.hash), len(arrived.place.offsets))
        if state.number <= self.number:
            if key != self._key:
                self._chores.append(Forget(self.topic, *key))
            return False
        if self._key:
            self._chores.append(Forget(self.topic, *self._key))
        self.state, self._key = state.model_copy(update={"exemplars": {}, "apart": {}}), key
        self.exemplars = {uid: Images(images) for uid, images in state.exemplars.items()}
        self._strike_exemplars()
        self.apart = {uid: Images(images) for uid, images in state.apart.items()}
        self._chores.append(Seek(self._samples, state.offset))
        self._chores += self._let_go(state)
        return True

    def _let_go(self, state: TwinState) -> Iterator[Answer]:
        """What a state that was read back has settled."""
        both = (self.exemplars, self.apart)
        named = {image for each in both for images in each.values() for image in images}
        waited = self._to_be_named
        self._to_be_named = {image: n for image, n in waited.items() if n > state.number}
        for uid, album in self._albums.items():
            for image in [image for image in album if image not in named]:
                if image not in self._to_be_named and (uid in state.settled or image in waited):
                    yield Forget(self.topic, _image_key(image), len(album.pop(image)))
        for hash, kept in list(self._kept.items()):
            if kept.opened < state.number and hash != state.kept:
                del self._kept[hash]
                yield Forget(self.topic, _kept_key(hash), len(kept.place.offsets))
        if not self._shared.configuration.keep_samples:
            yield Trim(self._samples, state.offset)

    def strike(self) -> None:
        """More is forgotten now than when this was read: its pixels are let go at once."""
        self._strike_exemplars()
        for uid, album in self._albums.items():
            for image in [image for image in album if self._forgotten.hold(*image, uid)]:
                self._to_be_named.pop(image, None)
                self._chores.append(Forget(self.topic, _image_key(image), len(album.pop(image))))

    def _strike_exemplars(self) -> None:
        hold = self._forgotten.hold
        if len(self._forgotten):
            self.exemplars = {
                uid: Images(image for image in images if not hold(*image, uid))
                for uid, images in self.exemplars.items()
            }

    def add_chores(self, chores: Iterable[Answer]) -> None:
        """More to be let go."""
        self._chores += chores

    def chores(self) -> list[Answer]:
        """What is to be let go, and where its stream goes on; each is given once."""
        chores, self._chores = self._chores, []
        return chores

    # --- writing ---------------------------------------------------------------------------------

    def say_exemplar(
        self, uid: str, image: Exemplar, content: NDArray[np.uint8], apart: int | None = None
    ) -> Say:
        """The record of one image; its pixels are (C, H, W).

        `apart` is the number of the state that names it, of a live twin.
        """
        exemplar = ExemplarImage(
            run=self._shared.line.run,
            entity=self._entity,
            source=image[0],
            image=image[1],
            label=uid,
            apart=apart,
            groups={"images": {"images": content[None]}},
        )
        return Say(self.topic, exemplar, _image_key(image))

    def say_kept(self, update: ModelUpdate, groups: Groups) -> Iterator[Say]:
        """What the strategy would keep of an update, unless it is in the log already."""
        hash = pack(update, self._shared.configuration.wire).hash
        if hash not in self._kept:
            kept = StrategyKept(
                run=update.run,
                entity=self._entity,
                opened=update.opened,
                update=hash,
                groups=groups,
            )
            yield Say(self.topic, kept, _kept_key(hash))

    def say_state(self, state: TwinState) -> Say:
        """The record of a state."""
        return Say(self.topic, state, _state_key(state, pack(state).hash))


def _image_key(image: Exemplar) -> str:
    return f"image/{image[0]}/{image[1]}"


def _digest(message: ExemplarImage | StrategyKept) -> int:
    """64 bits that tell its tensors from others."""
    return int(groups_sha256(message.groups)[:16], 16)


def _kept_key(hash: str) -> str:
    return f"kept/{hash}"


def _state_key(state: TwinState, hash: str) -> str:
    return f"state/{state.number}/{hash[:16]}"
