"""A stream whose beginning holds what is forgotten: the rest is written down, the beginning let go.

Which images are still needed follows from the newest state, and what was once not needed never is
again. So a copy may do the same beside it, further or less far, and each finds all that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.promises import Answer, Arrived, Library, Retell, Say, Seek, Trim
from schemas.messages import Forgotten, StreamImage, StreamMoved
from twins.apart import is_tenth
from twins.buffer import Batch, Image
from twins.exemplars import Exemplar
from twins.forgetting import remain_key
from twins.knowledge import Knowledge


class Moving:
    """From a request to forget to a stream that goes on behind what is forgotten."""

    __slots__ = ("_knows", "_said", "moved_to")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._said = 0
        self.moved_to = 0
        """Place in the samples topic before which all was moved, as was read back."""

    # --- hearing ---------------------------------------------------------------------------------

    def hear_request(self, message: Forgotten) -> bool:
        """From here on these images are forgotten; says whether that is anything new."""
        knows = self._knows
        if not knows.forgotten.note(message):
            return False
        knows.stream.strike()
        knows.diary.strike()
        self._let_go()
        return True

    def hear_image(self, message: StreamImage, arrived: Arrived) -> None:
        """Note where an image lies that the stream does not hold any more, or soon does not."""
        known = message.source, message.image
        self._knows.remains.note(message, arrived.place, tenth=is_tenth(*known))
        self._let_go(known)

    def hear_moved(self, message: StreamMoved) -> None:
        """The stream goes on at this place; what of it was needed before was read by now."""
        knows, stream = self._knows, self._knows.stream
        stream.resume(message.offset, message.position, message.sources)
        for source, count in message.marks.items():
            stream.mark(source, count, None, 0)
        for source, count in message.ends.items():
            stream.end(source, count, 0)
        self.moved_to = max(self.moved_to, message.offset)
        knows.diary.add_chores(
            [Seek(knows.samples, message.offset), Trim(knows.samples, message.offset)]
        )

    def settled(self) -> None:
        """A newer state was adopted: it may have no use for some of them."""
        self._let_go()

    def _let_go(self, *only: Exemplar) -> None:
        """See which of them go: of all, or of these alone."""
        knows = self._knows
        if len(knows.remains):
            diary = knows.diary
            gone = knows.remains.let_go(diary.settled, diary.since, knows.forgotten, only)
            knows.diary.add_chores(gone)

    # --- answering -------------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        """Write down what is still needed, then where the stream goes on."""
        stream, wanted = self._knows.stream, self._wanted
        if wanted <= max(self._said, self.moved_to) or stream.read_to < wanted:
            return
        self._said = wanted
        for batch in stream.batches:
            if batch.offset < wanted and any(True for _ in self._needed(batch)):
                yield self._retold(batch)
        yield Say(self._knows.diary.topic, self._moved(wanted), f"moved/{wanted}")

    def waits(self) -> Iterator[str]:
        """What it has said of its stream, until that is read back; or what it must read first."""
        if self._said > self.moved_to:
            yield f"its StreamMoved to {self._said}, to read it back"
        elif self._wanted > max(self.moved_to, self._knows.stream.read_to):
            yield f"record {self._wanted - 1} of its stream, before which something is forgotten"

    @property
    def _wanted(self) -> int:
        """The place before which nothing may stay."""
        return max(self._knows.stream.tainted, self._knows.forgotten.before)

    def _needed(self, batch: Batch) -> Iterator[Image]:
        """Images of a batch that are not settled, nor written down already."""
        knows, diary = self._knows, self._knows.diary
        for image in knows.stream.images_of(batch):
            unsettled = image.position >= max(diary.since, diary.settled.get(image.label, 0))
            if unsettled and (image.source, image.number) not in knows.remains:
                yield image

    def _retold(self, batch: Batch) -> Retell:
        """The images of a batch one by one: their pixels are read when they are written."""

        def say(library: Library) -> Iterator[Say]:
            needed = list(self._needed(batch))
            for image, content in zip(needed, self._knows.pixels(library, needed), strict=True):
                known: Exemplar = image.source, image.number
                said = StreamImage(
                    run=self._knows.shared.line.run,
                    entity=self._knows.entity,
                    source=image.source,
                    image=image.number,
                    label=image.label,
                    position=image.position,
                    groups={"images": {"images": content[None]}},
                )
                yield Say(self._knows.diary.topic, said, remain_key(known))

        return Retell(say)

    def _moved(self, offset: int) -> StreamMoved:
        stream = self._knows.stream
        _, position, sources = stream.goes_on(offset)
        return StreamMoved(
            run=self._knows.shared.line.run,
            entity=self._knows.entity,
            offset=offset,
            position=position,
            sources=sources,
            marks=dict(sorted(stream.live_marks.items())),
            ends=dict(sorted(stream.ends.items())),
        )
