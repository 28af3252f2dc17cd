"""What a twin remembers once its current classes become old (docs/method.md 4).

A stage with new classes settles the images of those before: of each current class the best few
become exemplars, each an entry in the diary, and the rest is never needed again. A state names what
is left; that of a live twin also what is kept apart. Likewise with the oldest images of a live
stream that goes on: of current classes the best few stay, and are chosen from again. Which images
and how many is decided here; what is in the log already, the diary knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.promises import Answer, Do, Library, Result, Task
from learning.memory import budget, truncated
from schemas.messages import Asked, Tensors, TwinState
from twins.buffer import Image
from twins.exemplars import Exemplar, Remembered
from twins.history import Change
from twins.knowledge import Knowledge, Known
from twins.slots import last_base

_NO_HERD: Mapping[str, NDArray[Any]] = {
    "chosen": np.zeros(0, np.int64),
    "images": np.zeros(0, np.uint8),
}


class Given(NamedTuple):
    """What a change settles."""

    settled: dict[str, list[Known]]
    apart: list[Image]


class Memory:
    """From a change to the state that says it."""

    __slots__ = ("_begun", "_knows", "_prepared", "_said")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._begun = -1
        """The number of the last change that began, and needs not begin again in this process."""
        self._said = -1
        """The number of the last change of which it said a state."""
        self._prepared: Given | None = None
        """What a choice was given that is in work: the stream may be moved meanwhile."""

    def next_change(self) -> Change | None:
        """The next one that is not in this twin's state."""
        return self._knows.history.after(self._knows.diary.number)

    def answers(self, change: Change) -> Iterator[Answer]:
        """Bring a change into the state: at once, or after a choice of exemplars."""
        if change.number <= self._begun:
            return
        if self._counted(change):
            yield from self._keep(change)
            return
        self._begun, self._prepared = change.number, None
        if any(self._to_settle(change).values()) or self._fresh_apart(change):
            yield Do(
                ("herd", self._knows.entity, change.number),
                lambda library: self._task(library, change),
                wanted=lambda: self.next_change() == change,
            )
        else:
            yield from self.done(change.number, Result({}, {}))

    def again(self, number: int) -> None:
        """This choice came to nothing, and begins again if it is still to be made."""
        if self._begun == number:
            self._begun = -1

    def waits(self, change: Change) -> Iterator[str]:
        """What the next change still lacks, in words."""
        if self._said == change.number:
            yield f"its state behind decision {change.number}, to read it back"
        elif self._counted(change) and not self._knows.diary.holds_kept(change.kept):
            yield f"its StrategyKept, which decision {change.number} counts"

    def _keep(self, change: Change) -> Iterator[Answer]:
        """What the counted update would keep becomes state, once it is there to be named."""
        diary = self._knows.diary
        if diary.state is not None and diary.holds_kept(change.kept):
            self._begun = self._said = change.number
            changed = {**change._asdict(), "exemplars": diary.named(), "apart": diary.named_apart()}
            yield diary.say_state(diary.state.model_copy(update=changed))

    def _counted(self, change: Change) -> bool:
        """Whether a round has counted an update of it."""
        state = self._knows.diary.state
        return change.kept != (state.kept if state else None)

    def _lets_go(self, change: Change) -> Asked | None:
        """The round because of which a live twin only lets go its oldest images, if it is one."""
        asked = reversed(self._knows.shared.line.parts.of(self._knows.entity).asked)
        return next((each for each in asked if each.opened == change.number), None)

    def _up_to(self, change: Change) -> int:
        """The position before which a change settles what its classes have."""
        lets_go = self._lets_go(change)
        return change.since if lets_go else self._knows.began(change.stage).position

    def _model(self, library: Library, change: Change) -> Tensors | None:
        """The one whose features choose. Raises LookupError.

        A twin that comes to it late may find the round's own base gone, of which the newest are
        kept; of each stage the last model always is, and while it goes on the first.
        """
        asked, line = self._lets_go(change), self._knows.shared.line
        if asked is None:
            judges = line.judges(change.stage)
            return library.model(judges) if judges else None
        with suppress(LookupError):
            return library.model(asked.base)
        closed = asked.stage < len(line.lasts)
        return library.model(
            line.lasts[asked.stage] if closed else line.stages[asked.stage].models[0]
        )

    def _to_settle(self, change: Change) -> dict[str, list[Known]]:
        """The images of each class that becomes old now, if the strategy remembers some of them.

        With them those that remain of earlier ones; where only the oldest go, of classes of which
        there are any.
        """
        knows, state = self._knows, self._knows.diary.state
        remembers = knows.shared.strategy.memory == "exemplars" or knows.shared.signals
        if state is None or not remembers:
            return {}
        found: dict[str, list[Known]] = {uid: [] for uid in state.current}
        for image in knows.raw_images(self._up_to(change)):
            if image.label in found:
                found[image.label].append(image)
        if self._lets_go(change):
            found = {uid: images for uid, images in found.items() if images}
        for uid, images in found.items():
            images += [Remembered(uid, each) for each in knows.diary.exemplars.get(uid, ())]
        return found

    def _fresh_apart(self, change: Change) -> list[Image]:
        """Images that were kept apart since the last change: this one names them."""
        knows = self._knows
        return knows.kept_apart(self._up_to(change)) if knows.shared.line.live else []

    def _task(self, library: Library, change: Change) -> Task:
        knows, shared = self._knows, self._knows.shared
        given = Given(self._to_settle(change), self._fresh_apart(change))
        groups = {f"class/{uid}": {"images": knows.pixels(library, images)}
                  for uid, images in given.settled.items() if images}  # fmt: skip
        if groups:  # the first model of all may be gone, and then nobody has classes to choose of
            model = self._model(library, change)
            assert model is not None
            groups["model"] = model
        quirks = shared.configuration.quirks
        if given.apart:
            groups["apart"] = {"images": knows.pixels(library, given.apart)}
        self._prepared = given
        values: dict[str, object] = {"most": most(knows), "replace": 14 in quirks}
        if shared.signals:
            when, base = last_base(shared.line, change.stage - 1)
            values |= {"entity": knows.entity, "before": when}
            groups["before"] = library.model(base)
        return shared.task("herd", values, groups)

    def done(self, number: int, result: Result) -> Iterator[Answer]:
        """Exemplars first, each with its pixels, then the state that names them."""
        change, diary = self.next_change(), self._knows.diary
        if change is None or change.number != number or number != self._begun:
            return  # also what this twin asked for before it left this process and came back
        self._said = number
        given = self._prepared or Given(self._to_settle(change), self._fresh_apart(change))
        self._prepared = None
        exemplars = diary.named()
        if given.settled:
            exemplars = truncated(exemplars, most(self._knows))
        for uid, its in given.settled.items():
            herd = result.groups[f"class/{uid}"] if its else _NO_HERD
            exemplars[uid] = tuple(_named(its[i]) for i in herd["chosen"])
            for image, content in zip(exemplars[uid], herd["images"], strict=True):
                if not diary.holds_pixels(uid, image):
                    first = number if uid in diary.settled else None
                    yield diary.say_exemplar(uid, image, content, apart=first)
        for each, content in zip(given.apart, _apart_of(result), strict=True):
            image = each.source, each.number
            if not diary.holds_pixels(each.label, image):
                yield diary.say_exemplar(each.label, image, content, apart=number)
        entropy = result.values.get("entropy")
        yield diary.say_state(self._state(change, exemplars, given.apart, entropy))

    def _state(
        self,
        change: Change,
        exemplars: dict[str, tuple[Exemplar, ...]],
        fresh: Sequence[Image],
        entropy: float | None,
    ) -> TwinState:
        knows = self._knows
        settled, apart_to = self._settled(change), knows.diary.apart_to
        needed = self._needed(settled, change.since)
        offset, trimmed, sources = knows.stream.needed_from(needed)
        marks = sorted((s, *mark) for s, mark in knows.stream.marks.items() if s > change.stage)
        return TwinState(
            run=knows.shared.line.run,
            entity=knows.entity,
            **change._asdict(),
            exemplars=exemplars,
            settled=dict(sorted(settled.items())),
            sources=sources,
            marks=tuple(marks),
            entropy=entropy,
            apart=self._apart(fresh),
            apart_to=max(apart_to, self._up_to(change)) if knows.shared.line.live else 0,
            trimmed=trimmed,
            offset=offset,
        )

    def _apart(self, fresh: Sequence[Image]) -> dict[str, tuple[Exemplar, ...]]:
        """All that is kept apart, with what came since the last change."""
        apart = self._knows.diary.named_apart()
        for image in fresh:
            apart[image.label] = (*apart.get(image.label, ()), (image.source, image.number))
        return dict(sorted(apart.items()))

    def _settled(self, change: Change) -> dict[str, int]:
        """Up to where the images of each class are done with, after a change."""
        knows = self._knows
        settled = dict(knows.diary.settled)
        if self._lets_go(change):
            own = (*change.learned, *change.current)
            settled |= {uid: max(change.since, settled.get(uid, 0)) for uid in own}
        elif knows.shared.strategy.memory != "everything":
            began, verdicts = knows.began(change.stage), knows.line.verdicts
            earlier = [each.position for each in verdicts.values() if each.stage < began.stage]
            settled |= done_with(knows, max(earlier, default=0), began.position)
        return settled

    def _needed(self, settled: Mapping[str, int], since: int) -> Iterator[Image]:
        """Images of the stream that are still to be judged, or to be trained on."""
        known = set(self._knows.line.known)
        for image in self._knows.stream.images():
            start = max(since, settled.get(image.label, 0) if image.label in known else 0)
            if image.position >= start:
                yield image


def _named(image: Known) -> Exemplar:
    """As a state names it."""
    return image.image if isinstance(image, Remembered) else (image.source, image.number)


def _apart_of(result: Result) -> NDArray[np.uint8]:
    """The pixels of what is kept apart, which went with the task."""
    return result.groups.get("apart", _NO_HERD)["images"]


def most(knows: Knowledge) -> int:
    """Exemplars for each class once the current classes are old; none without a memory."""
    state = knows.diary.state
    return _share(knows, len(state.learned) + len(state.current)) if state else 0


def _share(knows: Knowledge, classes: int) -> int:
    """Exemplars for each of so many classes."""
    shared = knows.shared
    remembers = classes and shared.strategy.memory == "exemplars"
    return budget(shared.configuration.memory, classes) if remembers else 0


def done_with(knows: Knowledge, window: int, position: int) -> dict[str, int]:
    """What a change settles that comes of a verdict on a window and on all before a position.

    Of the current classes exemplars stay. Images of older ones that came late, in the window
    itself, are ordinary ones still: no training has seen them (docs/method.md 3.4).
    """
    state = knows.diary.state
    if state is None:
        return {}
    return dict.fromkeys(state.learned, window) | dict.fromkeys(state.current, position)


def trainable(knows: Knowledge, fresh: tuple[str, ...], up_to: int) -> int:
    """How many images a twin would train on once the fresh classes have rows.

    A verdict says it, so it foresees what the changes that follow will remember and settle.
    """
    state, settled, classes = knows.diary.state, knows.diary.settled, {*knows.line.known, *fresh}
    since = knows.diary.since

    def raw(position: int) -> Counter[str]:
        found = knows.unsettled(position, classes, settled, since)
        return Counter(image.label for image in found)

    kept = {uid: len(images) for uid, images in knows.diary.exemplars.items()}
    learned, current = (state.learned, state.current) if state else ((), fresh)
    if (lets_go := knows.shared.done_before(up_to)) > since:
        counts, each = raw(lets_go), _share(knows, len(learned) + len(current))
        kept |= {uid: min(kept.get(uid, 0) + counts[uid], each) for uid in current}
        since = lets_go
    if fresh and state and knows.shared.strategy.memory != "everything":
        counts, each = raw(up_to), most(knows)
        kept = {uid: min(count, each) for uid, count in kept.items()}
        kept |= {uid: min(kept.get(uid, 0) + counts[uid], each) for uid in current}
        settled = {**settled, **done_with(knows, knows.judged_to, up_to)}
    return raw(up_to).total() + sum(kept.values())
