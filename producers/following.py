"""Follows a folder for an entity: each file gets its number on the disk, then its image is sent.

Killed at any moment it goes on where it was: what has a number and is not in the log is sent again
under that number, and what has none gets the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from infra.promises import Answer, Arrived, Result, Say
from producers.entity import BATCH_BYTES
from producers.images import Pixels
from producers.journal import Entry, Journal
from producers.watching import Folder, Judged
from schemas.errors import DataError, Refused
from schemas.images import check_batch
from schemas.line import RoundsLine
from schemas.messages import DataFacts, Decision, ImageBatch, Message, StreamMarked
from schemas.topics import Names

LOOK = 0.5  # seconds between two looks at the folder
WORK = 0.5  # seconds of decoding between two turns: whoever hosts us beats every other second
MOST = 256  # numbers in a message
OFTEN = 0.5  # seconds between two messages of a stream that has a rate
QUIET = 5.0  # seconds without a new image after which those that came are marked
GONE = "the file was gone or changed before it could be sent"


class Feed:
    """The role that says what it is given, and knows when it is in the log."""

    name = "producers"
    owns: Sequence[str] = ()
    over = False

    def __init__(self, names: Names, entity: str) -> None:
        self._topic = names.of_entity("samples", entity)
        self.lines = self.topics = (names.federation("rounds"),)
        self.line = RoundsLine(whole=False)
        self.idle = "new files"
        """What it waits for when nothing is to be said."""
        self.given: deque[Message] = deque()

    def give(self, message: Message) -> None:
        """Say this next."""
        self.given.append(message)

    def hear(self, arrived: Arrived) -> None:
        if isinstance(arrived.message, Decision):
            self.line.hear(arrived.message, arrived.hash)

    def answers(self) -> Iterator[Answer]:
        for message in list(self.given):
            yield Say(self._topic, message)

    def wrote(self, message: Message) -> None:
        """It is in the log."""
        self.given = deque(each for each in self.given if each is not message)

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """It gives no tasks."""
        yield from ()

    def waits(self) -> list[str]:
        return [] if self.given else [self.idle]


class Following:
    """The hand that feeds: looks at the folder, keeps the journal, and gives what is next."""

    def __init__(
        self,
        feed: Feed,
        folder: Folder,
        journal: Journal,
        data: DataFacts,
        run: str,
        *,
        sent: int,
        clock: Callable[[], float],
        rate: float | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`sent` images of the journal's source are in the log already. `rate` is in images a
        second, `tell` is given a line for each file that cannot be sent.

        Raises DataError where the log has more than the journal.
        """
        if sent > journal.count:
            raise DataError(
                f"{journal.path} has given {journal.count} numbers, and {sent} images of"
                f" {journal.source!r} have been streamed: restore the journal, or name another"
                " --source"
            )
        self._feed, self._folder, self._journal = feed, folder, journal
        self._data, self._run = data, run
        self._rate, self._tell, self._clock = rate, tell, clock
        self._waiting = deque(journal.waiting(sent))
        """Numbered, and not in the log as far as we know."""
        self._images: dict[int, Pixels] = {}
        """Of those that were decoded when they got their number."""
        self._whole: deque[str] = deque()
        """Files that are to get one."""
        self._looked = self._due = self._last = -np.inf
        self._marked = 0
        pixels = data.channels * data.height * data.width
        self._most = max(1, min(MOST, BATCH_BYTES // pixels))
        self._awaited = feed.idle
        self._tell_of_refused()

    def turn(self) -> None:
        """Do the next thing: give what has a number, number what is whole, or look."""
        if self._feed.given:
            return
        now = self._clock()
        if self._waiting:
            if now >= self._due:
                self._give(now)
        elif self._whole:
            self._number(now)
        elif now >= self._looked + LOOK:
            self._looked = now
            self._whole.extend(self._folder.look(now, self._journal.files, self._journal.refused))
            for name in self._folder.strangers():
                self._tell(f"{name!r} lies beside the labels; move it into its label's folder")
            if self._marked < self._journal.count and now >= self._last + QUIET:
                self._mark()

    def _number(self, now: float) -> None:
        """Decode some files, and give them numbers."""
        judged: list[Judged] = []
        while self._whole and len(judged) < self._most and self._clock() < now + WORK:
            found = self._folder.judge(self._whole.popleft(), now)
            if found is not None:
                judged.append(found)
        if not judged:
            return
        facts = [(each.file, each.uid, each.reason, each.state) for each in judged]
        numbered = self._journal.number(facts)
        for entry, each in zip(numbered, judged, strict=True):
            if each.image is not None:
                self._images[entry.number] = each.image
            if entry.reason is not None:
                self._tell(f"image {entry.number} is not sent: {entry.reason}")
        self._waiting.extend(numbered)
        self._tell_of_refused()

    def _tell_of_refused(self) -> None:
        """Beside what it waits for, where whoever watches sees it. How many, and no more: all sites
        read that, and a file may be called like a patient."""
        self._feed.idle = self._awaited
        if count := len(self._journal.refused):
            files = "1 file was" if count == 1 else f"{count} files were"
            self._feed.idle += f"; {files} refused, and its log says which and why"

    def _give(self, now: float) -> None:
        most = self._most
        if self._rate is not None:
            most = min(most, max(1, round(OFTEN * self._rate)))
        some = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        batch = self._batch(some)
        try:
            check_batch(batch, 1, self._data)
        except Refused as refused:  # it would fill no number, and the source would stand still
            raise DataError(f"images {some[0].number} on cannot be sent: {refused}") from None
        self._feed.give(batch)
        self._last = now
        if self._rate is not None:
            self._due = max(now, self._due) + len(some) / self._rate

    def _batch(self, entries: Sequence[Entry]) -> ImageBatch:
        images: list[Pixels] = []
        classes: list[str | None] = []
        reasons: list[str] = []
        for entry in entries:
            image, reason = self._image(entry)
            if image is not None:
                images.append(image)
                classes.append(entry.uid)
            else:
                classes.append(None)
                reasons.append(reason)
        shape = (len(images), self._data.channels, self._data.height, self._data.width)
        return ImageBatch(
            run=self._run,
            source=self._journal.source,
            first=entries[0].number,
            classes=tuple(classes),
            reasons=tuple(reasons),
            groups={"images": {"images": np.array(images, np.uint8).reshape(shape)}},
        )

    def _image(self, entry: Entry) -> tuple[Pixels | None, str]:
        """The image of a file that has a number, or why it has none."""
        if entry.uid is None:
            return None, entry.reason or GONE
        if (image := self._images.pop(entry.number, None)) is not None:
            return image, ""
        try:
            return self._folder.read(entry.file), ""
        except DataError:
            self._tell(f"image {entry.number} is not sent: {entry.file!r}: {GONE}")
            return None, GONE

    def _mark(self) -> None:
        """What came is to be judged, also where it is little."""
        self._marked = self._journal.count
        count, source = self._marked, self._journal.source
        self._feed.give(StreamMarked(run=self._run, source=source, count=count, stage=None))
