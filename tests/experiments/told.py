"""A run told by hand: each call is what somebody decided or measured, and an observer hears it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.observer import Observer
from experiments.recipes import recipe
from infra.promises import Arrived, Place
from schemas.configuration import Configuration
from schemas.errors import Reason
from schemas.messages import (
    DataFacts,
    DeadLetter,
    EntityJoined,
    HeadGrown,
    Measured,
    Message,
    ModelName,
    Participant,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageClosed,
    TeacherChosen,
    Transforms,
    WindowJudged,
)
from schemas.schedule import Client, Schedule, Stage
from schemas.topics import Names

NAMES = Names("told")
NORTH, EAST, SOUTH, WEST = (f"local/{name}" for name in ("north", "east", "south", "west"))
EVERYONE = (NORTH, EAST, SOUTH, WEST)
Confusion = Sequence[Sequence[int]]


def sha(number: int) -> str:
    """A hash that is nobody's."""
    return f"{number:064x}"


def right(*images: int) -> list[list[int]]:
    """A confusion matrix without confusion: so many images of each class."""
    return [[count if row == column else 0 for column in range(len(images))]
            for row, count in enumerate(images)]  # fmt: skip


def facts(classes: Sequence[str], public: bool = True) -> DataFacts:
    return DataFacts(
        name="dots",
        sha256=sha(0xDA7A),
        channels=1,
        height=16,
        width=16,
        classes=tuple(classes),
        transforms=Transforms(mean=(0.5,), std=(0.5,)),
        encoder_classes=max(len(classes), 10),
        public=public,
    )


class Told:
    """A federation of north, east, south and west, who all see all classes of each stage."""

    def __init__(
        self,
        *stages: Sequence[str],
        rounds: int = 1,
        undrawn: Sequence[str] = (),
        entities: Sequence[str] = EVERYONE,
        public: bool = True,
        **overrides: object,
    ) -> None:
        """`stages` are the classes of each stage; those in `undrawn` stream to nobody."""
        values: dict[str, object] = {
            "stages": len(stages),
            "classes_per_stage": tuple(map(len, stages)),
        }
        configuration = recipe(
            "tiny", overrides=values | {"rounds_per_stage": rounds, "wire": "fp32"} | overrides
        )
        self.observer = Observer(NAMES, "local", None)
        self.entities = tuple(entities)
        self._heard: list[Arrived] = []
        self._number = self._version = self._place = 0
        self._round = 0
        self._positions: Counter[str] = Counter()
        planned = [self._stage(classes, undrawn, rounds) for classes in stages]
        every = [uid for classes in stages for uid in classes]
        self.hear(
            RunOpened(
                run="",
                number=0,
                configuration=configuration,
                data=facts(every, public),
                schedule=Schedule(stages=tuple(planned)),
                model=self._model(),
            )
        )

    @property
    def configuration(self) -> Configuration:
        assert self.observer.line.opened is not None
        return self.observer.line.opened.configuration

    @property
    def stage(self) -> int:
        return len(self.observer.line.stages) - 1

    def hear(self, message: Message) -> None:
        self._place += 1
        where = Place(NAMES.federation("rounds"), (self._place,))
        self._heard.append(Arrived(where, sha(self._place), message))
        self.observer.hear(self._heard[-1])

    def hear_all_again(self) -> None:
        """What was said is said once more, as after a sender's restart."""
        for arrived in self._heard:
            self.observer.hear(arrived)

    def grows(self, *uids: str) -> None:
        """The next stage begins with these new classes."""
        first = len(self.observer.line.rows)
        self._version += 1
        self._round = 0
        rows = {uid: first + place for place, uid in enumerate(uids)}
        self.hear(
            HeadGrown(
                run=self._run,
                number=self._next(),
                stage=self.stage + 1,
                rows=rows,
                prototypes=(),
                model=self._model(),
            )
        )

    def begins_without_growth(self) -> None:
        self._round = 0
        self._begins = True

    _begins = False

    def round(
        self,
        confusion: Confusion | None,
        *,
        counted: Mapping[str, Mapping[str, float]] | None = None,
        withheld: Mapping[str, str] | None = None,
        teacher: int | None = None,
        rate: float = 0.5,
    ) -> int:
        """A round from its opening to its close, and what was measured; gives the version."""
        counted = {NORTH: {}, EAST: {}} if counted is None else counted
        withheld = withheld or {}
        stage, self._begins = self.stage + self._begins, False
        opened = self._opens(stage, sorted({*counted, *withheld}), teacher, rate)
        for entity, values in counted.items():
            self._measured(f"update/{opened}/{entity}", {**values, "reason": None})
        self._version += bool(counted)
        self.hear(
            RoundClosed(
                run=self._run,
                number=self._next(),
                opened=opened,
                stage=stage,
                round=self._round,
                counted=tuple((entity, sha(1)) for entity in sorted(counted)),
                withheld=tuple(sorted(withheld.items())),
                model=self._model(),
            )
        )
        if confusion is not None:
            scored = {"stage": stage, "round": self._round, "confusion": confusion}
            self._measured(f"model/{self._version}", scored)
        self._round += 1
        return self._version

    def opens(self) -> None:
        """The stage's next round, which north and east have not answered yet."""
        self._opens(self.stage, (EAST, NORTH), None, 0.5)

    def _opens(self, stage: int, twins: Sequence[str], teacher: int | None, rate: float) -> int:
        number = self._next()
        self.hear(
            RoundOpened(
                run=self._run,
                number=number,
                stage=stage,
                round=self._round,
                base=self._model(),
                teacher=None
                if teacher is None
                else ModelName(version=teacher, sha256=sha(teacher)),
                learning_rate=rate,
                participants=tuple(
                    Participant(entity=entity, weight=1, position=100) for entity in twins
                ),
            )
        )
        return number

    def ends(self) -> None:
        """The stage is closed; every version of it may teach in the next."""
        rounds = self.observer.line.stages[-1].rounds
        models = dict.fromkeys(each.closed.model for each in rounds if each.closed)
        self.hear(
            StageClosed(
                run=self._run,
                number=self._next(),
                stage=self.stage,
                candidates=tuple(models),
                last=self._model(),
            )
        )

    def teaches(
        self,
        version: int,
        scores: Mapping[int, float] | None = None,
        *,
        prototypes: int = 2,
        withheld: Sequence[tuple[str, int, str]] = (),
    ) -> None:
        """The proxy's choice for the next stage that has none."""
        number = len(self.observer.teachers.chosen)
        self.hear(
            TeacherChosen(
                run=self._run,
                number=number,
                stage=number + 1,
                teacher=ModelName(version=version, sha256=sha(version)),
                scores=tuple(sorted((scores or {}).items())),
                used=tuple(sha(place) for place in range(prototypes)),
                withheld=tuple(withheld),
            )
        )

    def judges(
        self,
        entity: str,
        images: Mapping[str, int],
        *,
        stage: int = 0,
        classes: Sequence[str] = (),
        entropy: float | None = 1.0,
        reference: float | None = 0.0,
        threshold: float = 0.5,
        first_contact: bool = False,
        suspected: bool = False,
    ) -> None:
        """A twin's verdict on its window, in its own line."""
        line = self.observer.verdicts.line(entity)
        if line.number < 0:
            self.hear(EntityJoined(run=self._run, number=0, entity=entity))
        model = self.observer.line.judges(stage)
        assert model is not None
        self._positions[entity] += sum(images.values())
        self.hear(
            WindowJudged(
                run=self._run,
                number=self.observer.verdicts.line(entity).number + 1,
                entity=entity,
                stage=stage,
                position=self._positions[entity],
                model=model,
                images=dict(images),
                trainable=sum(images.values()),
                entropy=entropy,
                reference=None if entropy is None else reference,
                threshold=threshold,
                first_contact=first_contact,
                reason=None if entropy is not None else "nothing to look at",
                verdict="new" if classes else "suspected" if suspected else "known",
                classes=tuple(classes),
            )
        )

    def sets_aside(self, reason: Reason) -> None:
        """Some message was not valid."""
        self.hear(
            DeadLetter(
                run=self._run,
                topic=NAMES.of_site("updates", "local"),
                offset=self._place,
                about="?",
                hash="",
                size=1,
                reason=reason,
                detail="",
            )
        )

    def _stage(self, classes: Sequence[str], undrawn: Sequence[str], rounds: int) -> Stage:
        held = tuple(uid for uid in classes if uid not in undrawn)
        clients = [Client(entity=each, group="N", classes=held) for each in self.entities]
        return Stage(
            classes=tuple(classes), clients=tuple(clients), sampled=(self.entities[:2],) * rounds
        )

    def _measured(self, name: str, values: Mapping[str, object]) -> None:
        self.hear(Measured(run="", name=name, values=dict(values)))

    def _model(self) -> ModelName:
        return ModelName(version=self._version, sha256=sha(self._version))

    def _next(self) -> int:
        self._number += 1
        return self._number

    @property
    def _run(self) -> str:
        return self.observer.line.run


def story() -> Told:
    """Two stages of two rounds with everything that a report can show, in known numbers.

    Stage 0 ends at 90 %, stage 1 at 70 % (old 60 %, new 80 %), so forgetting is 30 points.
    """
    told = Told(("a", "b"), ("c", "d"), rounds=2)
    for entity in EVERYONE:
        told.judges(entity, {"a": 50, "b": 50}, classes=("a", "b"), first_contact=True)
    told.grows("a", "b")
    terms = {"loss": 0.4, "classification": 0.2, "samples": 100.0, "steps": 4.0}
    told.round([[7, 3], [3, 7]], counted={NORTH: terms, EAST: terms})
    told.round([[9, 1], [1, 9]], counted={NORTH: terms, SOUTH: terms}, rate=0.004)
    told.ends()
    told.teaches(3, {2: 0.5, 3: 1.0}, withheld=[(WEST, 1, "no image of this class is left")])
    told.judges(NORTH, {"c": 50, "d": 50}, stage=1, classes=("c", "d"), entropy=1.4, reference=0.2)
    told.judges(EAST, {"c": 50}, stage=1, classes=("c",), entropy=0.4, reference=0.2)
    told.judges(SOUTH, {"a": 50}, stage=1, entropy=1.4, reference=0.2, suspected=True)
    told.judges(WEST, {}, stage=1, entropy=None)
    told.grows("c", "d")
    taught = {**terms, "semantic": 0.1, "attention": 0.3, "empty_maps": 0.25}
    told.round(
        [[5, 3, 2, 0], [2, 5, 3, 0], [0, 0, 7, 3], [0, 0, 3, 7]],
        counted={NORTH: taught, EAST: taught},
        withheld={WEST: "training diverged"},
        teacher=3,
    )
    told.round(
        [[6, 3, 1, 0], [3, 6, 1, 0], [0, 0, 8, 2], [0, 0, 2, 8]],
        counted={NORTH: taught, WEST: taught},
        teacher=3,
        rate=0.004,
    )
    told.ends()
    told.sets_aside("not-finite")
    told.sets_aside("not-finite")
    told.sets_aside("bad-hash")
    return told


def spread(confusion: Confusion) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted class of each image that a confusion matrix counts."""
    counts = np.array(confusion)
    true, predicted = np.indices(counts.shape)
    return np.repeat(true.ravel(), counts.ravel()), np.repeat(predicted.ravel(), counts.ravel())
