"""One entity's digital twin: it follows the stream, notices new classes, remembers and trains.

Everything that it does follows from sets: the decisions read so far, its own line, its stream and
its state. So it may hear them in any order, and a second copy elsewhere comes to the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.promises import (
    Answer,
    Arrived,
    Do,
    Forget,
    Library,
    NotYet,
    Place,
    Result,
    Say,
    Seek,
    Task,
    Trim,
)
from learning.memory import budget, truncated
from learning.strategies.strategy import Strategy
from schemas.codec import pack
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.images import check_batch, check_images
from schemas.line import RoundsLine, Stage, TeachersLine, VerdictLine, VerdictLines
from schemas.messages import (
    DataFacts,
    EntityJoined,
    ExemplarImage,
    Groups,
    ImageBatch,
    ModelName,
    ModelUpdate,
    Participant,
    PrototypeGradient,
    RoundClosed,
    RoundOpened,
    StrategyKept,
    StreamMarked,
    Tensors,
    TwinState,
    WindowJudged,
)
from schemas.seeds import generator
from schemas.topics import Names, parted
from twins.buffer import Image, Labels, Stream, pixels
from twins.exemplars import Album, Exemplar, Images
from twins.novelty import judged, threshold

REFERENCES = 512  # images of known data that the entropy of a window is compared with
_NO_HERD: Mapping[str, NDArray[Any]] = {
    "chosen": np.zeros(0, np.int64),
    "images": np.zeros(0, np.uint8),
}


class Shared:
    """What all twins of one process have in common: the lines, and the names of topics."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.line = RoundsLine()
        self.teachers = TeachersLine(self.line)
        self.verdicts = VerdictLines(self.line)
        self.labels = Labels()
        self.strategy: Strategy | None = None
        self.answered: dict[int, set[str]] = {}
        """Number of a RoundOpened → entities whose valid answer is in the log."""

    @property
    def configuration(self) -> Configuration:
        """The run's configuration."""
        assert self.line.opened is not None
        return self.line.opened.configuration

    @property
    def data(self) -> DataFacts:
        """What the run knows of its images."""
        assert self.line.opened is not None
        return self.line.opened.data


class Change(NamedTuple):
    """What a decision in `rounds` made of a twin."""

    number: int
    """Of the decision: HeadGrown or RoundOpened, with which its classes began, or RoundClosed."""
    stage: int
    current: tuple[str, ...]
    learned: tuple[str, ...]
    kept: str | None


class Twin:
    """The fold of one entity (docs/method.md 3 to 6)."""

    __slots__ = (
        "_begun", "_chores", "_exemplars", "_keeps", "_pixels_at", "_shared", "_state",
        "_state_key", "_stream", "entity", "own", "samples",
    )  # fmt: skip

    def __init__(self, entity: str, shared: Shared) -> None:
        self.entity = entity
        self.samples = shared.names.of_entity("samples", entity)
        """The topic of its stream."""
        self.own = shared.names.of_entity("twin-state", entity)
        """The topic of its own state."""
        self._shared = shared
        self._stream = Stream(shared.labels)
        self._state: TwinState | None = None
        """Without its exemplars, which take less room in `_exemplars`."""
        self._exemplars: dict[str, Images] = {}
        """Class → the exemplars that the state names, best first."""
        self._pixels_at: dict[str, Album] = {}
        """Class → where the pixels of its exemplars lie."""
        self._keeps: dict[str, tuple[int, Place]] = {}
        """Hash of an update → the round it answers, and where what it would keep lies."""
        self._state_key: tuple[str, int] | None = None
        self._begun: set[tuple[str | int, ...]] = set()
        """What was begun and needs not be begun again by this process."""
        self._chores: list[Answer] = []

    # --- hearing ---------------------------------------------------------------------------------

    def hear_sample(self, arrived: Arrived, message: ImageBatch | StreamMarked) -> None:
        """Take images or a mark. Raises Refused for a batch that its reader cannot use."""
        offset = arrived.place.offsets[0]
        if isinstance(message, StreamMarked):
            self._stream.mark(message.source, message.count, message.stage, offset)
            return
        check_batch(message, len(arrived.place.offsets), self._shared.data)
        self._stream.take(message, offset)

    def hear_own(self, arrived: Arrived, message: TwinState | ExemplarImage | StrategyKept) -> None:
        """Take what this twin, or a copy of it, wrote about itself.

        Raises Refused for what cannot be its own, and NotYet for a state that names a decision
        which was not read yet.
        """
        if message.entity != self.entity:
            raise Refused("unknown-entity", f"{message.entity} writes for {self.entity}")
        match message:
            case ExemplarImage():
                self._note_exemplar(message, arrived.place)
            case StrategyKept():
                self._note_kept(message, arrived.place)
            case TwinState():
                self._adopt(message, arrived)

    def _note_exemplar(self, message: ExemplarImage, place: Place) -> None:
        check_images(message.groups, 1, self._shared.data)
        image = (message.source, message.image)
        if self._state and message.label in self._state.settled and image not in self._named:
            self._chores.append(Forget(self.own, _image_key(image), len(place.offsets)))
            return
        self._pixels_at.setdefault(message.label, Album()).setdefault(image, place.offsets)

    def _note_kept(self, message: StrategyKept, place: Place) -> None:
        state = self._state
        if state and message.opened < state.number and message.update != state.kept:
            self._chores.append(Forget(self.own, _kept_key(message.update), len(place.offsets)))
            return
        self._keeps.setdefault(message.update, (message.opened, place))

    def _adopt(self, state: TwinState, arrived: Arrived) -> None:
        """The first state of a number counts; what it no longer needs is let go."""
        self._check_state(state)
        key = (_state_key(state, arrived.hash), len(arrived.place.offsets))
        known = self._state.number if self._state else -1
        if state.number <= known:
            if key != self._state_key:
                self._chores.append(Forget(self.own, *key))
            return
        if self._state_key:
            self._chores.append(Forget(self.own, *self._state_key))
        self._state, self._state_key = state.model_copy(update={"exemplars": {}}), key
        self._exemplars = {uid: Images(images) for uid, images in state.exemplars.items()}
        self._stream.resume(state.offset, state.trimmed, state.sources)
        for stage, source, count in state.marks:
            self._stream.mark(source, count, stage, 0)
        self._chores.append(Seek(self.samples, state.offset))
        self._chores += self._let_go(state)

    def _check_state(self, state: TwinState) -> None:
        """Whether the decision that a state names made of this twin what the state says."""
        line = self._shared.line
        if line.number < state.number or self._unread:
            raise NotYet(
                lambda: line.number >= state.number and not self._unread,
                f"decision {state.number}, and what {self.entity} judged before it",
            )
        says = Change(state.number, state.stage, state.current, state.learned, state.kept)
        if says not in self._changes():
            raise Refused("out-of-line", f"{state.identity} is not what that decision made of it")

    def _let_go(self, state: TwinState) -> Iterator[Answer]:
        """What a state that was read back has settled."""
        named = self._named
        for label in self._pixels_at.keys() & state.settled.keys():
            album = self._pixels_at[label]
            for image in [image for image in album if image not in named]:
                yield Forget(self.own, _image_key(image), len(album.pop(image)))
        for hash, (opened, place) in list(self._keeps.items()):
            if opened < state.number and hash != state.kept:
                del self._keeps[hash]
                yield Forget(self.own, _kept_key(hash), len(place.offsets))
        if not self._shared.configuration.keep_samples:
            yield Trim(self.samples, state.offset)

    @property
    def _named(self) -> set[Exemplar]:
        """The exemplars that the state names."""
        return {image for images in self._exemplars.values() for image in images}

    @property
    def _all_exemplars(self) -> dict[str, tuple[Exemplar, ...]]:
        """Class → exemplars, as a state names them."""
        return {uid: tuple(images) for uid, images in self._exemplars.items()}

    # --- what it knows ---------------------------------------------------------------------------

    @property
    def _strategy(self) -> Strategy:
        assert self._shared.strategy is not None
        return self._shared.strategy

    @property
    def _known(self) -> tuple[str, ...]:
        return self._line.known

    @property
    def _line(self) -> VerdictLine:
        return self._shared.verdicts.line(self.entity)

    @property
    def _unread(self) -> bool:
        """Whether a verdict of its own is in the log that was not read yet: its stage has begun."""
        line = self._shared.line
        due = line.next_marked(self.entity, self._line.judged)
        return due is not None and due < len(line.stages)

    def raw_images(self, up_to: int) -> list[Image]:
        """Images before a position that it may train on: of known classes, and not settled."""
        known, settled = set(self._known), self._state.settled if self._state else {}
        return [
            image
            for image in self._stream.images()
            if image.position < up_to
            and image.label in known
            and image.position >= settled.get(image.label, 0)
        ]

    def exemplars(self) -> list[tuple[str, Exemplar]]:
        """Class and reference of each exemplar, in the order in which the classes were learned."""
        if self._state is None:
            return []
        kept = self._exemplars
        return [(uid, image) for uid in self._state.learned for image in kept.get(uid, ())]

    def training_images(self, up_to: int) -> tuple[list[Image], list[tuple[str, Exemplar]]]:
        """Which images this twin trains on: decided here and nowhere else (docs/method.md 5.9).

        Images before the position, of classes that have a row, that no memory has settled; and the
        exemplars.
        """
        rows = self._shared.line.rows
        raw = [image for image in self.raw_images(up_to) if image.label in rows]
        return raw, [each for each in self.exemplars() if each[0] in rows]

    def _window(self, up_to: int) -> list[Image]:
        """Images not judged yet, and earlier ones whose class is still unknown (method.md 3.4)."""
        known = set(self._known)
        start = self._last_position()
        return [
            image
            for image in self._stream.images()
            if image.position < up_to and (image.position >= start or image.label not in known)
        ]

    def _last_position(self) -> int:
        line = self._line
        return line.verdicts[line.judged].position if line.verdicts else 0

    # --- answering -------------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        """What is to be done now; each thing is given once."""
        chores, self._chores = self._chores, []
        yield from chores
        if self._shared.line.opened is None:
            return
        yield from self._join()
        if self._unread or self._stream.position < self._last_position():
            return  # what was judged, by a copy perhaps, has to be read before anything rests on it
        change = self._next_change()
        if change is not None:
            yield from self._change(change)
            return
        yield from self._judge()
        yield from self._train()
        yield from self._send_prototypes()

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """What follows from a finished task, unless a copy of this twin was quicker."""
        match id[0]:
            case "judge":
                yield from self._judged(int(id[2]), result)
            case "herd":
                yield from self._remembered(int(id[2]), result)
            case "learn":
                yield from self._learned(int(id[2]), result)
            case "prototypes":
                yield from self._perturbed(int(id[2]), result)

    def waits(self) -> list[str]:
        """What it waits for, in words."""
        line = self._line
        stage = self._shared.line.next_marked(self.entity, line.judged)
        if stage is None:
            return []
        if self._up_to(stage) is None:
            return [f"{self.entity}: the mark of stage {stage}"]
        if self._shared.line.judges(stage) is None:
            return [f"{self.entity}: StageClosed({stage - 1})"]
        return []

    def _join(self) -> Iterator[Answer]:
        line = self._line
        if line.number < 0 and ("join",) not in self._begun:
            self._begun.add(("join",))
            joined = EntityJoined(run=self._shared.line.run, number=0, entity=self.entity)
            yield Say(self._classes_topic, joined)

    @property
    def _classes_topic(self) -> str:
        return self._shared.names.of_site("classes", parted(self.entity)[0])

    @property
    def _updates_topic(self) -> str:
        return self._shared.names.of_site("updates", parted(self.entity)[0])

    # --- new classes (docs/method.md 3) ----------------------------------------------------------

    def _up_to(self, stage: int) -> int | None:
        """The position behind all that a stage looks at; None before that has come."""
        judged_to = self._last_position()
        scheduled = self._shared.configuration.stages
        if stage < scheduled:
            mark = self._stream.marks.get(stage)
            return self._stream.behind(*mark, judged_to) if mark else None
        look = self._shared.line.added[stage - scheduled][self.entity]
        return self._stream.behind(look.source, look.count, judged_to)

    def _judge(self) -> Iterator[Answer]:
        line = self._line
        stage = self._shared.line.next_marked(self.entity, line.judged)
        if stage is None or line.number < 0:
            return
        up_to, model = self._up_to(stage), self._shared.line.judges(stage)
        id = ("judge", self.entity, stage)
        if up_to is None or model is None or id in self._begun:
            return
        self._begun.add(id)
        if self._window(up_to):
            yield Do(
                id,
                lambda library: self._judge_task(library, stage, model, self._window(up_to)),
                wanted=lambda: line.judged < stage,
            )
        else:
            nothing = Result(
                {"entropy": None, "reference": None, "reason": "no image to judge"}, {}
            )
            yield from self.done(id, nothing)

    def _judge_task(
        self, library: Library, stage: int, model: ModelName, window: list[Image]
    ) -> Task:
        drawn = self._drawn(window, self._shared.configuration.n_window, stage, 0)
        raw = self.raw_images(self._last_position())
        references = self._drawn([*raw, *self.exemplars()], REFERENCES, stage, 1)
        return self._task(
            "judge",
            {"virtual": self._virtual_rows(stage)},
            {
                "model": library.model(model),
                "window": {"images": pixels(library, self.samples, drawn)},
                "reference": {"images": self._pixels(library, references)},
            },
        )

    def _drawn(self, images: list[Any], most: int, stage: int, which: int) -> list[Any]:
        """At most so many of the images, by a seeded draw, in their order."""
        if len(images) <= most:
            return images
        seed = self._shared.configuration.seed
        chance = generator(seed, f"detect/{which}", self.entity, stage)
        chosen = sorted(chance.choice(len(images), most, replace=False))
        return [images[i] for i in chosen]

    def _virtual_rows(self, stage: int) -> int:
        """How many zero logits stand for classes that have no row yet (docs/method.md 3.3)."""
        assert self._shared.line.opened is not None
        stages = self._shared.line.opened.schedule.stages
        expected = len(stages[min(stage, len(stages) - 1)].classes)
        pre_growth = self._shared.configuration.entropy_head == "pre_growth" and stage > 0
        return 0 if pre_growth else expected

    def _judged(self, stage: int, result: Result) -> Iterator[Answer]:
        shared, line = self._shared, self._line
        up_to, model = self._up_to(stage), shared.line.judges(stage)
        if line.judged >= stage or up_to is None or model is None:
            return
        old_rows = sum(1 for row_stage in shared.line.stage_of_row if row_stage < stage)
        first_contact = not line.known
        entropy, reference = result.values["entropy"], result.values["reference"]
        r_h = threshold(shared.configuration, old_rows, self._virtual_rows(stage))
        counts = Counter(image.label for image in self._window(up_to))
        judgement = judged(
            counts, line.known, entropy, None if first_contact else reference or 0.0, r_h,
            shared.configuration,
        )  # fmt: skip
        verdict = WindowJudged(
            run=shared.line.run,
            number=line.number + 1,
            entity=self.entity,
            stage=stage,
            position=up_to,
            model=model,
            images=dict(sorted(counts.items())),
            trainable=self._trainable(judgement.classes, up_to),
            entropy=entropy,
            reference=None if entropy is None else reference or 0.0,
            threshold=r_h,
            first_contact=first_contact,
            reason=result.values["reason"],
            verdict=judgement.verdict,
            classes=judgement.classes,
        )
        yield Say(self._classes_topic, verdict)

    def _trainable(self, fresh: tuple[str, ...], up_to: int) -> int:
        """How many images it would train on once the fresh classes have rows."""
        state, settled = self._state, self._state.settled if self._state else {}
        kept = {uid: len(images) for uid, images in self._exemplars.items()}
        if fresh and state and self._strategy.memory != "everything":
            most, raw = self._most(), self._raw(fresh, up_to, settled)
            kept = {uid: min(n, most) for uid, n in kept.items()}
            kept |= {uid: min(raw[uid], most) for uid in state.current}
            settled = {**settled, **self._done_with(self._last_position(), up_to)}
        return self._raw(fresh, up_to, settled).total() + sum(kept.values())

    def _raw(self, fresh: tuple[str, ...], up_to: int, settled: Mapping[str, int]) -> Counter[str]:
        """Images of known and fresh classes before a position, per class, that are not settled."""
        known = {*self._known, *fresh}
        return Counter(
            image.label
            for image in self._stream.images()
            if image.position < up_to
            and image.label in known
            and image.position >= settled.get(image.label, 0)
        )

    def _done_with(self, window: int, position: int) -> dict[str, int]:
        """What a change settles that comes of a verdict on a window and on all before a position.

        Of the current classes exemplars stay. Images of older ones that came late, in the window
        itself, are ordinary ones still: no training has seen them (docs/method.md 3.4).
        """
        state = self._state
        if state is None:
            return {}
        return dict.fromkeys(state.learned, window) | dict.fromkeys(state.current, position)

    # --- memory (docs/method.md 4) ---------------------------------------------------------------

    def _changes(self) -> Iterator[Change]:
        """What the decisions read so far have made of this twin, one after the other."""
        at = Change(-1, 0, (), (), None)
        for stage in self._shared.line.stages:
            verdict = self._line.verdicts.get(stage.index)
            if verdict and verdict.classes:
                learned = (*at.learned, *at.current)
                at = Change(_began(stage), stage.index, verdict.classes, learned, at.kept)
                yield at
            for closed in self._counted_in(stage) if at.number >= 0 else ():
                at = at._replace(number=closed.number, kept=dict(closed.counted)[self.entity])
                yield at

    def _counted_in(self, stage: Stage) -> Iterator[RoundClosed]:
        """Rounds that counted an update of this twin, if its strategy keeps something then."""
        if self._strategy.groups is not None:
            for each in stage.rounds:
                if each.closed and self.entity in dict(each.closed.counted):
                    yield each.closed

    def _next_change(self) -> Change | None:
        """The next one that is not in this twin's state."""
        done = self._state.number if self._state else -1
        return next((change for change in self._changes() if change.number > done), None)

    def _change(self, change: Change) -> Iterator[Answer]:
        id = ("herd", self.entity, change.number)
        if id in self._begun:
            return
        if isinstance(self._shared.line.decisions[change.number], RoundClosed):
            yield from self._keep(change, id)
            return
        self._begun.add(id)
        if any(self._to_settle(change.stage).values()):
            yield Do(
                id,
                lambda library: self._herd_task(library, change.stage),
                wanted=lambda: self._next_change() == change,
            )
        else:
            yield from self.done(id, Result({}, {}))

    def _to_settle(self, stage: int) -> dict[str, list[Image]]:
        """The images of each class that becomes old now, if the strategy remembers some of them."""
        remembers = self._strategy.memory == "exemplars" or self._signals
        if self._state is None or not remembers:
            return {}
        raw = self.raw_images(self._line.verdicts[stage].position)
        return {uid: [i for i in raw if i.label == uid] for uid in self._state.current}

    def _most(self) -> int:
        """Exemplars for each class once the current classes are old; none without a memory."""
        assert self._state is not None
        if self._strategy.memory != "exemplars":
            return 0
        learned = len(self._state.learned) + len(self._state.current)
        return budget(self._shared.configuration.memory, learned)

    def _herd_task(self, library: Library, stage: int) -> Task:
        model = self._shared.line.judges(stage)
        assert model is not None
        groups = {f"class/{uid}": {"images": pixels(library, self.samples, refs)}
                  for uid, refs in self._to_settle(stage).items() if refs}  # fmt: skip
        groups["model"] = library.model(model)
        quirks = self._shared.configuration.quirks
        values: dict[str, object] = {"most": self._most(), "replace": 14 in quirks}
        if self._signals:
            when, base = self._last_base(stage - 1)
            values |= {"entity": self.entity, "before": when}
            groups["before"] = library.model(base)
        return self._task("herd", values, groups)

    def _remembered(self, number: int, result: Result) -> Iterator[Answer]:
        """Exemplars first, each with its pixels, then the state that names them."""
        change = self._next_change()
        if change is None or change.number != number:
            return
        images = self._to_settle(change.stage)
        exemplars = self._all_exemplars
        if images:
            exemplars = truncated(exemplars, self._most())
        for uid, refs in images.items():
            herd = result.groups[f"class/{uid}"] if refs else _NO_HERD
            exemplars[uid] = tuple((refs[i].source, refs[i].number) for i in herd["chosen"])
            for image, content in zip(exemplars[uid], herd["images"], strict=True):
                if image not in self._pixels_at.get(uid, ()):
                    yield Say(self.own, self._exemplar(image, uid, content), _image_key(image))
        state = self._next_state(change, exemplars, result.values.get("entropy"))
        yield Say(self.own, state, _state_key(state, pack(state).hash))

    def _exemplar(self, image: Exemplar, uid: str, content: NDArray[np.uint8]) -> ExemplarImage:
        return ExemplarImage(
            run=self._shared.line.run,
            entity=self.entity,
            source=image[0],
            image=image[1],
            label=uid,
            groups={"images": {"images": content[None]}},
        )

    def _next_state(
        self, change: Change, exemplars: dict[str, tuple[Exemplar, ...]], entropy: float | None
    ) -> TwinState:
        settled = dict(self._state.settled) if self._state else {}
        if self._strategy.memory != "everything":
            verdicts = self._line.verdicts
            before = [each.position for stage, each in verdicts.items() if stage < change.stage]
            window, position = max(before, default=0), verdicts[change.stage].position
            settled |= self._done_with(window, position)
        known = set(self._known)
        needed = [
            image
            for image in self._stream.images()
            if image.label not in known or image.position >= settled.get(image.label, 0)
        ]
        offset, trimmed, sources = self._stream.needed_from(needed)
        marks = sorted((s, *mark) for s, mark in self._stream.marks.items() if s > change.stage)
        return TwinState(
            run=self._shared.line.run,
            entity=self.entity,
            **change._asdict(),
            exemplars=exemplars,
            settled=dict(sorted(settled.items())),
            sources=sources,
            marks=tuple(marks),
            entropy=entropy,
            trimmed=trimmed,
            offset=offset,
        )

    # --- what a strategy keeps (docs/method.md 7) ------------------------------------------------

    def _keep(self, change: Change, id: tuple[str | int, ...]) -> Iterator[Answer]:
        """What the counted update would keep becomes state, once it is there to be named."""
        if self._state is None or change.kept not in self._keeps:
            return
        self._begun.add(id)
        changed = {**change._asdict(), "exemplars": self._all_exemplars}
        state = self._state.model_copy(update=changed)
        yield Say(self.own, state, _state_key(state, pack(state).hash))

    # --- training (docs/method.md 5) -------------------------------------------------------------

    def _train(self) -> Iterator[Answer]:
        opened = self._shared.line.open_round
        part = self._part(opened) if opened else None
        if opened is None or part is None:
            return
        id = ("learn", self.entity, opened.number)
        if id in self._begun or not self._asked(opened):
            return
        self._begun.add(id)
        if any(self.training_images(part.position)):
            yield Do(
                id,
                lambda library: self._learn_task(library, opened, part.position),
                wanted=lambda: self._asked(opened),
            )
        else:
            nothing = [(None, "no image of this class is left")] * len(self._round_places(opened))
            yield from self._answer_places(opened, nothing, {})
            yield from self._withhold(opened, "no image to train on")

    def _asked(self, opened: RoundOpened) -> bool:
        """Whether the round is open and no valid answer of this twin is in the log."""
        answered = self._shared.answered.get(opened.number, ())
        return self._shared.line.open_round == opened and self.entity not in answered

    def _part(self, opened: RoundOpened) -> Participant | None:
        return next((each for each in opened.participants if each.entity == self.entity), None)

    def _learn_task(self, library: Library, opened: RoundOpened, up_to: int) -> Task:
        line, state = self._shared.line, self._state
        assert state is not None
        raw, exemplars = self.training_images(up_to)
        begins = state.stage == opened.stage
        old = state.learned if begins else (*state.learned, *state.current)
        received = library.groups(opened.base)
        labels = [image.label for image in raw] + [uid for uid, _ in exemplars]
        groups = {
            "model": received["model"],
            "data": {"images": self._pixels(library, [*raw, *exemplars])},
        }
        if opened.teacher is not None:
            groups["teacher"] = library.model(opened.teacher)
        groups |= {f"received/{name}": t for name, t in received.items() if name != "model"}
        if state.kept is not None:
            own = library.message(self._keeps[state.kept][1])
            assert isinstance(own, StrategyKept)
            groups |= {f"kept/{name}": tensors for name, tensors in own.groups.items()}
        values = {
            "entity": self.entity,
            "stage": opened.stage,
            "round": opened.round,
            "learning_rate": opened.learning_rate,
            "rows": [line.rows[uid] for uid in labels],
            "stage_of_row": line.stage_of_row,
            "old_classes": len(old),
            "new_classes": len(state.current) if begins else 0,
            "total_weight": opened.total_weight,
            "places": [line.rows[uid] for _, uid in self._round_places(opened)],
            "signal": self._compared(opened, state) if self._signals else None,
        }
        if self._signals:
            groups |= self._slots(library, opened, state)
        return self._task("learn", values, groups)

    # --- the signal of a round (docs/method.md 3.2, 9) -------------------------------------------

    @property
    def _signals(self) -> bool:
        """Whether anything depends on a signal: slots teach, and the strategy listens."""
        return self._shared.configuration.slotted and self._strategy.teacher != "none"

    def _last_base(self, stage: int) -> tuple[tuple[int, int], ModelName]:
        """The last round of a stage, and the model that it began with."""
        opened = self._shared.line.stages[stage].rounds[-1].opened
        return (opened.stage, opened.round), opened.base

    def _round_before(
        self, opened: RoundOpened, state: TwinState
    ) -> tuple[tuple[int, int], ModelName] | None:
        """The round whose entropy is compared with, and its base; None if the state remembers it.

        In the first round after a change the current data are others than in the round before.
        """
        if opened.round:
            before = self._shared.line.stages[opened.stage].rounds[opened.round - 1].opened
            return (before.stage, before.round), before.base
        return None if state.stage == opened.stage else self._last_base(opened.stage - 1)

    def _compared(self, opened: RoundOpened, state: TwinState) -> dict[str, object]:
        """With what, and how, a round's entropy is compared."""
        line, before = self._shared.line, self._round_before(opened, state)
        old_rows = sum(1 for stage in line.stage_of_row if stage < opened.stage)
        virtual = self._virtual_rows(opened.stage)
        return {
            "threshold": threshold(self._shared.configuration, old_rows, virtual),
            "current": [line.rows[uid] for uid in state.current if uid in line.rows],
            "entropy": state.entropy,
            "when": before[0] if before else None,
        }

    def _slots(self, library: Library, opened: RoundOpened, state: TwinState) -> Groups:
        """The models that the signal compares, and those that it picks from."""
        named = {f"slot/{i}": model for i, model in enumerate(opened.slots or ()) if model}
        if before := self._round_before(opened, state):
            named["before"] = before[1]
        return {name: library.model(model) for name, model in named.items()}

    def _round_places(self, opened: RoundOpened) -> list[tuple[int, str]]:
        """Place and class of each prototype that is expected of this twin in a round."""
        if not self._shared.configuration.slotted:
            return []
        expected = self._shared.line.expected_in(opened.stage, opened.round)
        return [(place, uid) for entity, place, uid in expected if entity == self.entity]

    def _answer_places(
        self,
        opened: RoundOpened,
        answers: Sequence[tuple[float | None, str | None]],
        groups: Groups,
    ) -> Iterator[Answer]:
        """Prototypes before the update: an update in the log means that they are there."""
        for i, ((place, _), answer) in enumerate(
            zip(self._round_places(opened), answers, strict=True)
        ):
            yield self._prototype(opened.stage, place, answer, groups.get(f"place/{i}"))

    def _learned(self, number: int, result: Result) -> Iterator[Answer]:
        """The update, checked as its reader will; or the form without content, and why."""
        opened = self._shared.line.decisions[number]
        assert isinstance(opened, RoundOpened)
        if not self._asked(opened):
            return
        yield from self._answer_places(opened, result.values.get("places", ()), result.groups)
        if "reason" in result.values:
            yield from self._withhold(opened, result.values["reason"])
            return
        update = ModelUpdate(
            run=self._shared.line.run,
            opened=number,
            entity=self.entity,
            base=opened.base,
            measured=result.values["measured"],
            groups=_named("send/", result.groups),
        )
        if self._strategy.groups is not None:
            yield from self._before_update(update, _named("keep/", result.groups))
        yield Say(self._updates_topic, update)

    def _before_update(self, update: ModelUpdate, kept: Groups) -> Iterator[Answer]:
        """What the strategy would keep is in the log before the answer that it belongs to."""
        hash = pack(update, self._shared.configuration.wire).hash
        if hash not in self._keeps:
            keep = StrategyKept(
                run=update.run, entity=self.entity, opened=update.opened, update=hash, groups=kept
            )
            yield Say(self.own, keep, _kept_key(hash))

    def _withhold(self, opened: RoundOpened, reason: str) -> Iterator[Answer]:
        yield Say(
            self._updates_topic,
            ModelUpdate(
                run=self._shared.line.run,
                opened=opened.number,
                entity=self.entity,
                base=opened.base,
                reason=reason,
                groups={},
            ),
        )

    # --- prototypes (docs/method.md 6) -----------------------------------------------------------

    def _send_prototypes(self) -> Iterator[Answer]:
        line = self._shared.line
        stage = line.stage
        if self._shared.configuration.slotted:
            return  # they go with each round's update
        if stage is None or not stage.rounds or self._shared.teachers.of(stage.index + 1):
            return
        closed, places = stage.rounds[0].closed, self._places(stage.index)
        id = ("prototypes", self.entity, stage.index)
        if closed is None or not places or id in self._begun:
            return
        self._begun.add(id)
        yield Do(
            id,
            lambda library: self._prototype_task(library, closed, places),
            wanted=lambda: not self._shared.teachers.of(closed.stage + 1),
        )

    def _places(self, stage: int) -> tuple[str, ...]:
        grown = self._shared.line.stages[stage].grown
        return dict(grown.prototypes).get(self.entity, ()) if grown else ()

    def _prototype_task(self, library: Library, closed: RoundClosed, uids: tuple[str, ...]) -> Task:
        verdict = self._line.verdicts.get(closed.stage)
        assert verdict is not None
        raw = self.raw_images(verdict.position)
        groups = {"model": library.model(closed.model)}
        for place, uid in enumerate(uids):
            images = [image for image in raw if image.label == uid]
            if images:
                groups[f"place/{place}"] = {"images": pixels(library, self.samples, images)}
        values = {
            "entity": self.entity,
            "stage": closed.stage,
            "rows": [self._shared.line.rows[uid] for uid in uids],
        }
        return self._task("prototypes", values, groups)

    def _perturbed(self, stage: int, result: Result) -> Iterator[Answer]:
        if self._shared.teachers.of(stage + 1):
            return
        for place, answer in enumerate(result.values["places"]):
            yield self._prototype(stage, place, answer, result.groups.get(f"place/{place}"))

    def _prototype(
        self,
        stage: int,
        place: int,
        answer: tuple[float | None, str | None],
        gradient: Tensors | None,
    ) -> Say:
        """The answer for a place: a gradient, or the form without content and why."""
        psnr, reason = answer
        return Say(
            self._shared.names.of_site("prototypes", parted(self.entity)[0]),
            PrototypeGradient(
                run=self._shared.line.run,
                entity=self.entity,
                stage=stage,
                place=place,
                reason=reason,
                psnr=psnr,
                groups={} if gradient is None else {"gradient": gradient},
            ),
        )

    # --- tasks -----------------------------------------------------------------------------------

    def _task(self, name: str, values: Mapping[str, object], groups: Groups) -> Task:
        run = {
            "configuration": self._shared.configuration.model_dump(mode="json"),
            "data": self._shared.data.model_dump(mode="json"),
        }
        return Task(name, {**values, **run}, groups)

    def _pixels(
        self, library: Library, images: list[Image | tuple[str, Exemplar]]
    ) -> NDArray[np.uint8]:
        """Pixels of images of the stream, and behind them of exemplars."""
        raw = pixels(library, self.samples, [each for each in images if isinstance(each, Image)])
        kept = [self._exemplar_pixels(library, *each) for each in images
                if not isinstance(each, Image)]  # fmt: skip
        return np.concatenate([*([raw] if len(raw) or not kept else []), *kept])

    def _exemplar_pixels(self, library: Library, uid: str, image: Exemplar) -> NDArray[np.uint8]:
        message = library.message(Place(self.own, self._pixels_at[uid][image]))
        assert isinstance(message, ExemplarImage)
        return message.groups["images"]["images"]


def _named(prefix: str, groups: Groups) -> Groups:
    return {name[len(prefix) :]: g for name, g in groups.items() if name.startswith(prefix)}


def _began(stage: Stage) -> int:
    """The number of the decision with which a stage began."""
    return (stage.grown or stage.rounds[0].opened).number


def _image_key(image: Exemplar) -> str:
    return f"image/{image[0]}/{image[1]}"


def _kept_key(hash: str) -> str:
    return f"kept/{hash}"


def _state_key(state: TwinState, hash: str) -> str:
    return f"state/{state.number}/{hash[:16]}"
