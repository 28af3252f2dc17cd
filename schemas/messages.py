"""Every message, as a frozen fact. Its docstring says writer → reader, topics.py in which topic.

A message that carries tensors holds them in named groups (`groups`), beside its header. `run` is
the hash of the run's RunOpened, so that two runs share nothing even under one name.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from schemas.configuration import Configuration, Frozen
from schemas.plain import PRINTABLE
from schemas.schedule import Schedule
from schemas.topics import ENTITY, NAME, parted

Tensors = dict[str, np.ndarray]
Groups = dict[str, Tensors]
Number = Annotated[int, Field(ge=0, lt=2**53)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Entity = Annotated[str, Field(pattern=ENTITY)]
Weight = Annotated[int, Field(ge=1, lt=2**31)]
Uid = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
Reasoned = Annotated[str, Field(min_length=1, max_length=500)]
"""Why, in words that may be somebody else's: whoever shows them makes them plain."""
Named = Annotated[str, Field(min_length=1, max_length=500, pattern=PRINTABLE)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Header(Frozen):
    """A part of a header: strict, so that a number is never read from a text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Message(Header):
    """What every message has."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    schema_number: ClassVar[int] = 1
    lifts: ClassVar[tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]] = ()
    """What makes a body of an older schema one of the next: the last one makes the newest. As many
    older schemas are read as there are of these (docs/upgrading.md)."""
    line: ClassVar[str | None] = None
    """The decision line that messages of this kind stand in, if they are decisions."""

    run: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    """Hash of the run's RunOpened; empty in RunOpened itself."""

    @classmethod
    def kind(cls) -> str:
        """The name under which this kind travels."""
        return cls.__name__

    @property
    def identity(self) -> str:
        """What makes two messages the same one; content under one identity goes by hash."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """The entity that the message is about, or nothing."""
        return getattr(self, "entity", "")

    def header(self) -> dict[str, Any]:
        """All fields but the tensors, as plain values."""
        return self.model_dump(mode="python", exclude={"groups"})


class Decision(Message):
    """A message that stands in a line: its number there is its identity."""

    number: Number
    """One more than the last decision of its line that counted for its author."""

    @property
    def identity(self) -> str:
        return f"{self.kind()}/{self.number}"


class Content(Message):
    """A message with tensors."""

    unpacked_late: ClassVar[bool] = False
    """Whether its large int8 tensors stay as they travelled until somebody needs their values."""
    groups: Groups = Field(exclude=True, repr=False)


class ModelName(Header):
    """A global model, by version and by the hash of all its groups (`groups_sha256`), decoded."""

    version: Number
    sha256: Hash

    @property
    def key(self) -> str:
        """The key of its records in `models`, to which each piece adds its index."""
        return f"{self.version}/{self.sha256}"


Slots = tuple[ModelName | None, ModelName | None]
"""The lineage's two old models: the best before, and the best so far (docs/method.md 6.6)."""


# --- samples: a physical entity to its twin ---------------------------------------------------


class ImageBatch(Content):
    """Producers → the entity's twin: consecutive images of one source.

    The group `images` holds one tensor `images`, uint8 (N, C, H, W): those that have content.
    """

    source: Uid
    first: Number
    """Number of the first image in its source, from 0."""
    classes: tuple[Uid | None, ...]
    """Class of each image; None for a number whose image could not be sent."""
    reasons: tuple[Reasoned, ...] = ()
    """Why, one for each None."""

    @property
    def identity(self) -> str:
        return f"ImageBatch/{self.source}/{self.first}/{len(self.classes)}"


class StreamEnded(Message):
    """Producers → the entity's twin: behind so many images of the source the entity leaves."""

    source: Uid
    count: Number

    @property
    def identity(self) -> str:
        return f"StreamEnded/{self.source}/{self.count}"


class StreamMarked(Message):
    """Producers → the entity's twin: so many images of the source so far belong to the stage."""

    source: Uid
    count: Number
    stage: Number | None
    """None for an injection, whose stage StageAdded tells, and in a live run."""

    @property
    def identity(self) -> str:
        return f"StreamMarked/{self.source}/{self.count}/{self.stage}"


# --- classes.<site>: what twins decide ---------------------------------------------------------


class TwinDecision(Decision):
    """A decision in the line of one entity."""

    line = "classes"
    entity: Entity

    @property
    def identity(self) -> str:
        return f"{self.kind()}/{self.entity}/{self.number}"


class EntityJoined(TwinDecision):
    """Twin → aggregator, proxy: the entity's line begins, or in a live run goes on."""


class EntityLeft(TwinDecision):
    """Twin → aggregator, proxy: the entity takes no part any more; live runs only."""


class WindowJudged(TwinDecision):
    """Twin → aggregator, proxy: the verdict on what the entity streamed up to a mark (3.4)."""

    stage: Number
    """In a live run the moment: how often the entity was judged before."""
    after: Number | None = None
    """In a live run the number in `rounds` of the newest decision that the twin had read."""
    position: Number
    """Images taken so far, from all sources: what the twin may train on from now on."""
    model: ModelName
    """The model that judged."""
    images: dict[Uid, Number]
    """Images looked at, per class."""
    trainable: Annotated[int, Field(ge=0, lt=2**31)]
    """Images that the twin would train on in this stage, exemplars included; its weight there."""
    entropy: Finite | None
    """Mean entropy of the window in nats; None with a reason."""
    reference: Finite | None
    """Mean entropy of retained known data under the same model, in nats."""
    threshold: Finite
    """What the jump had to exceed, in nats."""
    first_contact: bool
    """The twin knew no class yet, so the entropy rule had nothing to compare with."""
    reason: Reasoned | None
    verdict: Literal["new", "known", "suspected"]
    classes: tuple[Uid, ...]
    """The new classes, in order of uid."""


class NotUnderstood(TwinDecision):
    """In place of a decision that a later program wrote; it never travels.

    A line stops where its next decision is one of these. Every schema of a decision in `classes`
    keeps `run`, `number` and `entity`.
    """

    detail: Reasoned
    """Its kind and schema, and what this program reads."""


# --- rounds: what the aggregator decides --------------------------------------------------------


class Transforms(Header):
    """How images are prepared for the net (docs/method.md 1.5)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: Number = 0
    horizontal_flip: bool = False
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class DataFacts(Header):
    """What a run knows of its data set: never an image."""

    name: str
    sha256: Hash
    channels: Annotated[int, Field(ge=1, le=4)]
    height: Annotated[int, Field(ge=4, le=1024)]
    width: Annotated[int, Field(ge=4, le=1024)]
    classes: tuple[Uid, ...]
    """All classes of the data set, in the run's order."""
    transforms: Transforms
    encoder_classes: Annotated[int, Field(ge=1)]
    public: bool = True
    """Whether rebuilt prototypes may be shown in a report (docs/method.md 6.7)."""


class RunOpened(Decision):
    """Aggregator → all: the first decision; its hash names the run."""

    line = "rounds"
    configuration: Configuration
    data: DataFacts
    schedule: Schedule
    """Of a live run empty: who joins, and when a stage begins, is told as it happens."""
    sites: tuple[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], ...] = ()
    """Of a live run: the sites whose entities may join."""
    model: ModelName
    """Version 0: the first weights, a head without rows."""

    @property
    def all_sites(self) -> list[str]:
        """Every site whose entities may take part."""
        return sorted(self.sites or {parted(each)[0] for each in self.schedule.entities})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.configuration.live:
            return self._is_live()
        if self.sites:
            raise ValueError("names sites, which a recipe's schedule does")
        stages, rounds = self.configuration.stages, self.configuration.rounds_per_stage
        if len(self.schedule.stages) != stages:
            raise ValueError(f"a schedule of {len(self.schedule.stages)} stages, not {stages}")
        for number, stage in enumerate(self.schedule.stages):
            if len(stage.sampled) != rounds or not all(stage.sampled):
                raise ValueError(
                    f"stage {number} lacks someone to train in each of {rounds} rounds"
                )
        if self.model.version != 0:
            raise ValueError(f"begins with version {self.model.version} of the model, not with 0")
        return self

    def _is_live(self) -> Self:
        if self.schedule.stages:
            raise ValueError(f"a live run with a schedule of {len(self.schedule.stages)} stages")
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise ValueError("a live run names its sites, each once")
        if self.model.version != 0:
            raise ValueError(f"begins with version {self.model.version} of the model, not with 0")
        return self


class StageOpened(Decision):
    """Aggregator → all: a stage of a live run begins; its classes grow next (3.4, 3.5)."""

    line = "rounds"
    stage: Number
    found: Annotated[tuple[tuple[Entity, Number], ...], Field(min_length=1)]
    """Entities that found new classes, and the moment of the verdict that says so."""


class HeadGrown(Decision):
    """Aggregator → all: the classes that get a row, before the first round of a stage (2.2)."""

    line = "rounds"
    stage: Number
    rows: dict[Uid, Number]
    prototypes: tuple[tuple[Entity, tuple[Uid, ...]], ...]
    """Prototype gradients expected, entity by entity; places count through an entity's classes."""
    model: ModelName


class Participant(Header):
    """One twin's part in a round."""

    entity: Entity
    weight: Weight
    position: Number
    """It may train on images before this position."""


class RoundOpened(Decision):
    """Aggregator → all: train now, from this base, with this teacher."""

    line = "rounds"
    stage: Number
    round: Number
    base: ModelName
    teacher: ModelName | None
    slots: Slots | None = None
    """With two slots, in place of `teacher`: each twin's signal tells which of them teaches it."""
    learning_rate: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    participants: Annotated[tuple[Participant, ...], Field(min_length=1)]

    @property
    def total_weight(self) -> int:
        """W of the exact sums: the weights of all who may be counted."""
        return sum(participant.weight for participant in self.participants)


class RoundClosed(Decision):
    """Aggregator → all: whose updates were counted, and the model that came of it."""

    line = "rounds"
    opened: Number
    """Number of the RoundOpened that this closes."""
    stage: Number
    round: Number
    counted: tuple[tuple[Entity, Hash], ...]
    withheld: tuple[tuple[Entity, Reasoned], ...]
    missing: tuple[Entity, ...] = ()
    """Of a live run: who had not answered by the deadline."""
    model: ModelName


class StageClosed(Decision):
    """Aggregator → all: the stage's rounds are over; these versions may become the teacher."""

    line = "rounds"
    stage: Number
    candidates: Annotated[tuple[ModelName, ...], Field(min_length=1)]
    last: ModelName


class Look(Header):
    """Up to where a twin looks in a stage that was added."""

    entity: Entity
    source: Uid
    count: Number


class StageAdded(Decision):
    """Operator's command → all: after the scheduled stages, look at these streams as well."""

    line = "rounds"
    looks: Annotated[tuple[Look, ...], Field(min_length=1)]


class Paused(Decision):
    """Operator's command → all: an entity of a live run rests, or goes on; or everybody does."""

    line = "rounds"
    entity: Entity | None
    """None for the whole federation."""
    rests: bool


class RolledBack(Decision):
    """Operator's command → all: the newest model of a live run has an earlier one's values again.

    A round that is open ends with this, and counts nobody.
    """

    line = "rounds"
    to: ModelName
    """The earlier model."""
    closes: Number | None
    """Number of the RoundOpened that this closes."""
    model: ModelName
    """That model's values, with a row for each class that has one now."""


class Asked(Header):
    """From where on a round has first asked an entity to train, with the position it looks to."""

    opened: Number
    """Number of the RoundOpened."""
    stage: Number
    base: ModelName
    position: Number


class Taken(Header):
    """The newest stage that began with what an entity had found."""

    stage: Number
    opened: Number
    """Number of its StageOpened."""
    moment: Number
    """Of the entity's verdict."""


class Member(Header):
    """Of one entity of a live run: how far it has come, and what still rests on what it said."""

    entity: Entity
    number: Number
    """Reached in its part of `classes`."""
    here: bool
    moments: Number
    """How often it was judged."""
    classes: tuple[Uid, ...]
    """Those that it has announced, in order of uid."""
    verdicts: tuple[WindowJudged, ...]
    """Its newest ones, that of its newest stage and the one before that, and the newest on images;
    in their order."""
    seen: Number | None
    """Rounds of the newest stage that had been opened when the last of these was said."""
    taken: Taken | None
    armed: Number | None
    """Number of the first RoundClosed behind that stage's beginning."""
    missed: Number | None
    """Number of the last RoundClosed that missed it."""
    asked: tuple[Asked, ...]
    """What its twin may not have read when it spoke last, and the one before."""
    counted: tuple[Number, Hash] | None
    """Number of the last RoundClosed that counted it, and the hash of that update."""


class StageTold(Header):
    """Of one of the newest two stages of a live run: what is still needed."""

    opened: StageOpened
    grown: HeadGrown | None
    closed: StageClosed | None
    rounds: Number
    """How many have begun."""
    base: ModelName | None
    """Of its first round."""
    first: RoundClosed | None
    """Its first round that closed."""
    models: tuple[ModelName, ...]
    """Of its rounds and of rollbacks: the first, and the newest."""


class Before(Header):
    """The Standing before another one."""

    number: Number
    hash: Hash


class Standing(Decision):
    """Aggregator → all: how a live run stands: what the fold of its lines has come to.

    Whoever has read RunOpened and this needs nothing else of what stands before it.
    """

    line = "rounds"
    before: Before | None
    """None in the first."""
    stages: Number
    """How many have begun."""
    newest: tuple[StageTold, ...]
    """The last of them, two at most."""
    lasts: tuple[ModelName, ...]
    """With which each closed stage ended."""
    rounds: Number
    """How many have closed in all."""
    rows: dict[Uid, Number]
    stage_of_row: tuple[Number, ...]
    everybody_rests: bool
    resting: tuple[Entity, ...]
    """In order of entity."""
    members: tuple[Member, ...]
    """In order of entity."""
    teachers: tuple[ModelName, ...]
    """What was chosen in `teachers`, from its beginning."""
    model: ModelName
    kept: tuple[ModelName, ...]
    """Every version that is still needed, in their order: one of these, or a later one, can be gone
    back to."""


# --- content ------------------------------------------------------------------------------------


class GlobalModel(Content):
    """Aggregator → twins, proxy: a version of the one model. Group `model`, and a strategy's."""

    version: Number

    @property
    def identity(self) -> str:
        return f"GlobalModel/{self.version}"


class ModelUpdate(Content):
    """Twin → aggregator: what it learned in a round, or without content and with a reason.

    With wire fp32 the group `model` holds the trained values, otherwise what differs from the base.
    """

    unpacked_late = True

    opened: Number
    """Number of the RoundOpened that this answers."""
    entity: Entity
    base: ModelName
    reason: Reasoned | None = None
    measured: dict[str, Finite] = Field(default={})
    """Means over the local training: loss terms, images, steps. Deterministic, so no seconds."""

    @property
    def identity(self) -> str:
        return f"ModelUpdate/{self.opened}/{self.entity}"


class PrototypeGradient(Content):
    """Twin → proxy alone: the gradient of one prototype. Nearly the image itself (6.7)."""

    entity: Entity
    stage: Number
    place: Number
    """Place in HeadGrown's list for this entity."""
    reason: Reasoned | None = None
    psnr: Finite | None = None
    """Between the chosen image and what was altered of it, in dB."""

    @property
    def identity(self) -> str:
        return f"PrototypeGradient/{self.entity}/{self.stage}/{self.place}"


class TeacherChosen(Decision):
    """Proxy → aggregator, twins: the old model that teaches in a stage (6.6)."""

    line = "teachers"
    stage: Number
    round: Number = 0
    """With two slots there is a choice for every round; otherwise one for the stage."""
    teacher: ModelName
    slots: Slots | None = None
    """The two slots, if the run has them; `teacher` is then the second, or else the first."""
    scores: tuple[tuple[Number, Finite], ...]
    """Version and score in [0, 1] of each candidate, with two slots of each model that closed a
    round since the choice before; empty when nothing could be scored."""
    used: tuple[Hash, ...]
    """Hashes of the gradients that the scores rest on, in the order of HeadGrown's list."""
    withheld: tuple[tuple[Entity, Number, Reasoned], ...]


# --- a twin's own state --------------------------------------------------------------------------


class TwinState(Message):
    """Twin → itself: what a decision in `rounds` made of it."""

    entity: Entity
    number: Number
    """Number in `rounds` of the decision that changed the twin."""
    stage: Number
    """The stage that it stands in since."""
    current: tuple[Uid, ...]
    learned: tuple[Uid, ...]
    """Classes that became old, in the order in which they did."""
    exemplars: dict[Uid, tuple[tuple[Uid, Number], ...]]
    """Source and number of each exemplar, best first."""
    settled: dict[Uid, Number]
    """Images of the class before this position are done with: exemplars or nothing."""
    since: Number = 0
    """Of a live twin: of all images before this position the same is true, whatever their class."""
    sources: dict[Uid, Number]
    """Next number of each source when the log was trimmed below this state."""
    marks: tuple[tuple[Number, Uid, Number], ...]
    """Stage, source and count of marks of later stages."""
    kept: Hash | None = None
    """Hash of the counted update whose StrategyKept the strategy goes on from."""
    entropy: Finite | None = None
    """Of the classes that became old, in nats, just before they did; for the signal of 3.2 only."""
    apart: dict[Uid, tuple[tuple[Uid, Number], ...]] = Field(default={})
    """Of a live twin: source and number of each image that it keeps apart to score models on."""
    apart_to: Number = 0
    """Of the images before this position those are all that are kept apart."""
    trimmed: Number
    """Position of the first image that the log still has to hold for this state."""
    offset: Number
    """Place in the samples topic of the batch that holds it."""

    @property
    def identity(self) -> str:
        return f"TwinState/{self.entity}/{self.number}"


class ExemplarImage(Content):
    """Twin → itself: the pixels of one exemplar, or of one image that is kept apart.

    The group `images` holds one tensor `images`, uint8 (1, C, H, W).
    """

    entity: Entity
    source: Uid
    image: Number
    label: Uid
    apart: Number | None = None
    """Of a live twin's image: number of the first TwinState that names it. It may be written when
    earlier images of its class are done with, and is not one of those."""

    @property
    def identity(self) -> str:
        return f"ExemplarImage/{self.entity}/{self.source}/{self.image}"


class StrategyKept(Content):
    """Twin → itself: what a strategy would keep if the update of this hash is counted."""

    entity: Entity
    opened: Number
    update: Hash

    @property
    def identity(self) -> str:
        return f"StrategyKept/{self.entity}/{self.opened}/{self.update}"


# --- forgetting on request: in a twin's own topic -------------------------------------------------


class Forgotten(Message):
    """Whoever answers for a site → an entity's twin: images that no load gives any more, for ever.

    Only in a live run, whose stages wait for no image.
    """

    entity: Entity
    label: Uid | None = None
    """Only images of this class; None for images of any."""
    images: Annotated[dict[Uid, tuple[Number, Number]], Field(min_length=1)]
    """Source → number of its first image, and the number behind the last."""
    before: Number = 0
    """Place in the samples topic before which nothing is to stay."""

    @property
    def key(self) -> str:
        """The key of its record: what is to be forgotten, without telling it."""
        what = (self.label, sorted(self.images.items()))
        return f"forgotten/{sha256(repr(what).encode()).hexdigest()[:16]}"

    @property
    def identity(self) -> str:
        return f"Forgotten/{self.entity}/{self.key.partition('/')[2]}"


class StreamImage(Content):
    """Twin → itself: an image that it still needs of a part of its stream that was let go.

    The group `images` holds one tensor `images`, uint8 (1, C, H, W).
    """

    entity: Entity
    source: Uid
    image: Number
    label: Uid
    position: Number
    """Images that its twin had taken before it, from all sources."""

    @property
    def identity(self) -> str:
        return f"StreamImage/{self.entity}/{self.source}/{self.image}"


class StreamMoved(Message):
    """Twin → itself: before this place its stream is let go, for something there is forgotten.

    What of it is still needed stands before this record, as StreamImages.
    """

    entity: Entity
    offset: Number
    """Place in the samples topic where the stream goes on."""
    position: Number
    """Images taken before that, from all sources."""
    sources: dict[Uid, Number]
    """Next number of each source there."""
    marks: dict[Uid, Number] = Field(default={})
    """Source → the furthest count of a mark that names no stage, as far as was read."""
    ends: dict[Uid, Number] = Field(default={})
    """Source → the furthest count behind which its entity leaves, likewise."""

    @property
    def identity(self) -> str:
        return f"StreamMoved/{self.entity}/{self.offset}"


# --- beside the run -----------------------------------------------------------------------------


class Measured(Message):
    """Each side → whoever looks: scores and counters under one name; the first under it counts, and
    of images held out at the sites the last."""

    name: Named
    values: dict[str, Any]

    @property
    def identity(self) -> str:
        return f"Measured/{self.name}"


class Ended(Header):
    """How a program came to its end."""

    code: Annotated[int, Field(ge=0, le=255)]
    """Its exit code."""
    why: Reasoned


class Away(Header):
    """A service that a program misses."""

    service: Reasoned
    why: Reasoned
    seconds: Finite
    """How long it has been away."""


class Heartbeat(Message):
    """Each program → whoever looks, every other second: that it lives, and what it does."""

    process: Named
    """Its name among the programs of a run."""
    role: str
    at: Finite
    """By its own clock, seconds since 1970: to be shown, never to be counted on."""
    in_work: tuple[str, ...]
    """What its workers do now."""
    waits: tuple[tuple[str, Finite], ...]
    """What it waits for, in words, and for how many seconds."""
    queued: Number = 0
    """Tasks that wait for a worker, or for a place on its machine."""
    up: Finite = 0.0
    """Seconds since it began."""
    memory: Number = 0
    """Bytes that it holds; 0 where the system does not say."""
    lag: dict[str, Number] = Field(default_factory=dict)
    """Name in the table of topics → records of its topics that it has not read, if there are."""
    counts: tuple[tuple[str, Number], ...] = ()
    """What its role counts (`buffered <entity>`): what has changed, and now and then all of it."""
    away: tuple[Away, ...] = ()
    ended: Ended | None = None
    """In its last words: why there are no others."""

    @property
    def identity(self) -> str:
        return f"Heartbeat/{self.process}"


class DeadLetter(Message):
    """The owner of a topic → people: what was set aside, by reference, and why."""

    topic: str
    offset: Number
    about: str
    """Identity of the message as far as it could be read."""
    hash: str
    size: Number
    reason: str
    detail: str

    @property
    def identity(self) -> str:
        return f"DeadLetter/{self.topic}/{self.offset}"


KINDS: dict[str, type[Message]] = {
    kind.kind(): kind
    for kind in (
        ImageBatch, StreamMarked, StreamEnded, EntityJoined, EntityLeft, WindowJudged, RunOpened,
        StageOpened, HeadGrown, RoundOpened, RoundClosed, StageClosed, StageAdded, Paused,
        RolledBack, Standing,
        GlobalModel, ModelUpdate,
        PrototypeGradient, TeacherChosen, TwinState, ExemplarImage, StrategyKept, Measured,
        Heartbeat, DeadLetter, Forgotten, StreamImage, StreamMoved,
    )
}  # fmt: skip
