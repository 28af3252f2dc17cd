"""Images of an entity that somebody wants forgotten: asked for, waited for, looked for (0021).

The request is a record in the twin's own topic. Its twin stops using the images when it reads that,
moves what it still needs, and lets go; here the segments that held them are begun anew and cleaned,
and only what cannot be found any more is called gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from experiments.numbers import counted
from infra.serve import READ_BYTES
from infra.transport.base import Stored, Transport, Trimmed
from producers.streaming import Streaming
from schemas.codec import piece, records, unpack
from schemas.configuration import LARGEST, nearest
from schemas.errors import ConfigurationError, Refused, RunFailed
from schemas.limits import LEAST_BYTES
from schemas.messages import (
    ExemplarImage,
    Forgotten,
    ImageBatch,
    Measured,
    Message,
    StreamImage,
    StreamMarked,
    StreamMoved,
    TwinState,
)
from schemas.schedule import sorted_uids
from schemas.topics import NAME, Names, parted

SOURCE = "forget"
"""Of a mark that says nothing, but begins a segment. No image comes from it."""
AGAIN = 1.0  # seconds between two looks
PUSHED = 20.0  # seconds after which a segment is begun once more: something came behind the last
TOLD = "forgotten"
"""Of what is said in `metrics`: forgotten/<site>/<entity>/<request>."""

Image = tuple[str, int]
"""Source and number."""


@dataclass(frozen=True)
class Federation:
    """A live federation, as an account of one site sees it: not what other sites' twins decide."""

    transport: Transport
    names: Names
    run: str
    """The hash of its RunOpened."""

    def entity(self, name: str, site: str) -> str:
        """The full name of an entity of the site, or of another one where it is said in full.

        What is forgotten does not come back, so no other site's is guessed. Raises
        ConfigurationError, naming the nearest, for one that nobody has ever streamed to.
        """
        full = name if "/" in name else f"{site}/{name}"
        parted(full)
        known = sorted(self._known())
        if full not in known:
            raise ConfigurationError(
                f"nothing was ever streamed to {full}{nearest(full, known)}; there are streams of"
                f" {', '.join(known[:5]) or 'nobody'}"
            )
        return full

    def _known(self) -> Iterator[str]:
        prefix = f"{self.names.federation('rounds').removesuffix('rounds')}samples."
        for topic in self.transport.topics():
            if topic.startswith(prefix):
                yield topic.removeprefix(prefix).replace(".", "/")


class Disk(Protocol):
    """What is done so that bytes leave the disk, and whether they have (infra/erasing)."""

    def rolling(self, topic: str) -> AbstractContextManager[None]:
        """Inside this context each record begins a segment."""

    def hurrying(self, topic: str) -> AbstractContextManager[None]:
        """And what stands before it is cleaned."""

    def begins(self, topic: str, offset: int) -> bool | None:
        """Whether a segment begins there; None where that cannot be seen."""

    def gone(self, topic: str, before: int) -> bool | None:
        """Whether no file is left of what was before; None where that cannot be seen."""

    def promised(self, topic: str) -> float:
        """Seconds in which a broker lets it go."""


@dataclass(frozen=True)
class Done:
    """What was forgotten, and how far that is known."""

    run: str
    entity: str
    asked: str
    """In words: an image, a class, or everything."""
    images: int
    """Of which the entity's topics held pixels."""
    request: str
    """The key of its record in the twin's own topic."""
    seconds: float
    seen: bool
    """Whether every file was looked at that could hold them."""
    promised: float | None
    """Where none could be: seconds in which the brokers let them go, by their settings."""

    @property
    def words(self) -> str:
        """What became of the bytes."""
        if self.seen:
            return f"gone from the disk after {self.seconds:.0f} s"
        return (
            f"let go after {self.seconds:.0f} s, in segments that were closed and cleaned; no"
            f" folder of this broker can be seen from here: by its settings they leave its disk"
            f" within {self.promised:.0f} s"
        )


@dataclass
class Held:
    """What the topics of an entity hold, and what else they say."""

    images: dict[Image, str] = field(default_factory=dict)
    """With pixels in its stream or its twin's own topic → class."""
    learned: set[str] = field(default_factory=set)
    """Classes that its twin has found."""

    def classes(self) -> list[str]:
        """Of which there are images, or were: what was let go is on the disk for a while."""
        return list(sorted_uids({*self.images.values(), *self.learned}))


def held(log: Transport, federation: Federation, entity: str) -> Held:
    """Read an entity's two topics."""
    found = Held()
    for name in ("samples", "twin-state"):
        for said in _said(log, federation.names.of_entity(name, entity)):
            if said.run != federation.run:
                continue
            match said:
                case ImageBatch(source=source, first=first, classes=classes):
                    numbered = enumerate(classes, start=first)
                    found.images |= {(source, i): uid for i, uid in numbered if uid is not None}
                case ExemplarImage() | StreamImage():
                    found.images[said.source, said.image] = said.label
                case TwinState():
                    found.learned |= {*said.learned, *said.current}
    return found


def _said(log: Transport, topic: str, place: int = 0) -> Iterator[Message]:
    """Each sound message of one piece in a topic, from a place on; an image has no more."""
    place = max(place, log.first(topic))
    while place < log.end(topic):
        try:
            stored: list[Stored] = log.read(topic, place, READ_BYTES)
        except Trimmed as trimmed:
            place = trimmed.first
            continue
        for each in stored:
            place = each.offset + 1
            try:
                part = piece(each.record.value, LEAST_BYTES)
                if part.count == 1:
                    yield unpack(part.content, LEAST_BYTES)
            except Refused:
                continue


def request(
    federation: Federation, entity: str, there: Held, image: str | None, label: str | None
) -> Forgotten:
    """What somebody wants forgotten, in the twin's words: one image, a class, or all that came.

    Raises ConfigurationError for an image of a source that never was, or a class that it has none
    of.
    """
    counts = Streaming(federation.transport, federation.names, federation.run).counts(entity)
    if image is not None:
        source, number = _image(image, entity, list(counts))
        images = {source: (number, number + 1)}
    else:
        images = {source: (0, count) for source, count in sorted(counts.items()) if count}
    if label is not None and label not in there.classes():
        raise ConfigurationError(
            f"{entity} has seen no image of class {label!r}{nearest(label, there.classes())};"
            f" it has seen {', '.join(there.classes()) or 'none'}"
        )
    if not images:
        raise ConfigurationError(f"nothing was streamed to {entity} yet")
    return Forgotten(run=federation.run, entity=entity, label=label, images=images)


def _image(text: str, entity: str, sources: list[str]) -> Image:
    """Source and number, from `source/number`; a source's hash may be left out."""
    source, _, number = text.rpartition("/")
    alike = [each for each in sources if source in (each, each.partition("#")[0])]
    if not source or not number.isdecimal():
        raise ConfigurationError(
            f"an image is SOURCE/NUMBER, such as {(sources or ['camera'])[0]}/17, not {text!r}"
        )
    if len(alike) != 1:
        told = "several sources are" if alike else "no source is"
        known = ", ".join(alike or sources) or "none"
        raise ConfigurationError(f"{told} called {source!r} at {entity}; there are {known}")
    return alike[0], int(number)


def matching(asked: Forgotten, images: Mapping[Image, str]) -> list[Image]:
    """Those of some images that a request is about."""
    return [
        (source, number)
        for (source, number), uid in images.items()
        if asked.label in (None, uid)
        and asked.images.get(source, (0, 0))[0] <= number < asked.images.get(source, (0, 0))[1]
    ]


def forget(
    federation: Federation,
    asked: Forgotten,
    disk: Disk,
    *,
    there: Held,
    again: Callable[[], AbstractContextManager[Transport]],
    wait: float,
    tell: Callable[[str], None] = lambda text: None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Done:
    """Ask an entity's twin to forget images, and wait until they are gone.

    `again` gives the log as somebody sees it who has read nothing yet. Raises RunFailed after
    `wait` seconds; what was asked for stands.
    """
    return _Forgetting(federation, asked, disk, again, wait, tell, pause, clock).through(there)


@dataclass
class _Forgetting:
    """One request on its way."""

    federation: Federation
    asked: Forgotten
    disk: Disk
    again: Callable[[], AbstractContextManager[Transport]]
    wait: float
    tell: Callable[[str], None]
    pause: Callable[[float], None]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        names, entity = self.federation.names, self.asked.entity
        self.samples = names.of_entity("samples", entity)
        self.own = names.of_entity("twin-state", entity)
        self.began = self.clock()
        self._asked_at = 0
        self._is_read_back = False

    def through(self, there: Held) -> Done:
        """From the request to a disk without these bytes."""
        images = len(matching(self.asked, there.images))
        self._begin_segment()
        self._asked_at = self._say(self.asked)
        self.tell(f"asked its twin to forget {counted(images, 'image')}, as {self.asked.key}")
        self._until(self._moved, f"the twin of {self.asked.entity}: does its program run?")
        if images:
            self._note(images)
        self.tell("its twin has let go; waiting for the broker")
        with self.disk.hurrying(self.own):
            seen = self._cleaned()
        promised = None if seen else self.disk.promised(self.samples)
        return Done(
            self.federation.names.run,
            self.asked.entity,
            in_words(self.asked),
            images,
            self.asked.key,
            round(self.clock() - self.began, 1),
            seen,
            promised,
        )

    def _begin_segment(self) -> None:
        """From here on the stream is in a segment of its own: what is before can go as a whole."""
        mark = StreamMarked(run=self.federation.run, source=SOURCE, count=0, stage=None)
        while True:
            with self.disk.rolling(self.samples):
                _, made = records(mark, source="operator")
                before, *_ = self.federation.transport.append(self.samples, made)
            self.asked = self.asked.model_copy(update={"before": before})
            if self.disk.begins(self.samples, before) is not False:
                return
            self._late("the broker to begin a segment")

    def _moved(self) -> bool:
        """Whether the twin has read the request and let its stream go up to there."""
        log = self.federation.transport
        if not self._is_read_back:
            for said in _said(log, self.own, self._asked_at):
                if isinstance(said, StreamMoved) and said.run == self.federation.run:
                    self._is_read_back |= said.offset >= self.asked.before
        return self._is_read_back and log.first(self.samples) >= self.asked.before

    def _cleaned(self) -> bool:
        """Wait until the broker gives none of the images, and none of its files can hold one.

        Gives whether files could be looked at.
        """
        pushed = -PUSHED
        while True:
            if self.clock() >= pushed + PUSHED:
                self._say(self.asked)  # once more: so that what was let go stands in a closed one
                pushed = self.clock()
            if not self._left():
                looked = [self.disk.gone(self.samples, self.asked.before),
                          self.disk.gone(self.own, 0)]  # fmt: skip
                if None in looked:
                    return False
                if all(looked):
                    return True
            self._late("the broker to clean its segments")

    def _left(self) -> list[Image]:
        """Those of the images that the broker still gives."""
        with self.again() as log:
            there = held(log, self.federation, self.asked.entity)
        return matching(self.asked, there.images)

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        while not holds():
            self._late(what)

    def _late(self, what: str) -> None:
        """Wait a moment. Raises RunFailed when that was too long."""
        if self.clock() - self.began > self.wait:
            late = RunFailed(f"waited {self.wait:.0f} s for {what}")
            late.add_note(f"{self.asked.key} stands: these images are forgotten once it is read")
            raise late
        self.pause(AGAIN)

    def _say(self, said: Forgotten) -> int:
        """Write the request; gives where it stands."""
        _, made = records(said, source="operator", key=said.key)
        return self.federation.transport.append(self.own, made)[0]

    def _note(self, images: int) -> None:
        """Tell whoever looks how many it were; which they were stays at the site."""
        name = f"{TOLD}/{self.asked.entity}/{self.asked.key.partition('/')[2]}"
        values = {"asked": in_words(self.asked), "images": images}
        said = Measured(run=self.federation.run, name=name, values=values)
        topic = self.federation.names.federation("metrics")
        self.federation.transport.append(topic, records(said, source="operator")[1])


@dataclass(frozen=True)
class Told:
    """What `metrics` says of a request, for whoever looks."""

    entity: str
    request: str
    asked: str
    images: int


def told(message: Measured) -> Told | None:
    """What was said of a request; None for anything else.

    Anybody may write there, so it is no proof that anybody was asked: whoever shows it says so.
    """
    match message.name.split("/"), message.values:
        case [kind, site, entity, request], {"asked": str(asked), "images": images} if (
            kind == TOLD and NAME.fullmatch(site) and NAME.fullmatch(entity)
        ):
            if type(images) is int and 0 <= images <= LARGEST:
                return Told(f"{site}/{entity}", request, asked, images)
    return None


def in_words(asked: Forgotten) -> str:
    """What a request is about, without the names of images."""
    if asked.label is not None:
        return f"class {asked.label}"
    ranges = list(asked.images.values())
    return "one image" if len(ranges) == 1 and ranges[0][1] - ranges[0][0] == 1 else "everything"
