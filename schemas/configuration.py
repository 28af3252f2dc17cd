"""The whole configuration of a run: one validated value, carried by RunOpened, that all roles obey.

Nothing outside it changes a model. What is particular to one machine (addresses, folders, how
many worker processes) is not part of it. The names are those of docs/method.md.
"""

from __future__ import annotations

import difflib
import reprlib
from types import NoneType, UnionType
from typing import Annotated, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from schemas.errors import ConfigurationError

LARGEST = 2**53 - 1
"""Of all whole numbers: messages hold 64 bits, and up to this every reader of JSON is exact."""
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
SWITCHES = (
    "family", "reduction", "alpha", "beta", "gamma", "cls_rows", "weight", "weight_clamp",
    "exponent", "sd_mode", "sd_temperature", "ad_layers", "ad_class", "ad_norm", "alpha_grad",
    "cam_relu",
)  # fmt: skip
SUM_RATE = 0.2  # docs/method.md 5.1: above it summed losses never recover


class Frozen(BaseModel):
    """A value: cannot be changed, knows its fields and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Perturb(Frozen):
    """How a prototype's pixels are altered before its gradient is taken (docs/method.md 6.2)."""

    mode: Literal["latent_noise", "code", "none"] = "latent_noise"
    steps: Count = 50
    step: Rate = 0.2
    gamma: Weight = 0.1


class Configuration(Frozen):
    """Every key of a recipe; the defaults are the preset `paper` (docs/method.md, all sections)."""

    recipe: str
    """The recipe's name, for people; the keys below are what counts."""

    # data and schedule (docs/method.md 1)
    dataset: str
    image_size: Positive | None = None
    """Height and width in pixels; None keeps the data set's own."""
    class_order: Literal["natural", "permuted"] = "natural"
    stages: Positive = 10
    classes_per_stage: Positive | tuple[Positive, ...] = 10
    rounds_per_stage: Positive = 10
    clients: Positive = 30
    new_clients: Count = 5
    clients_per_round: Positive = 5
    iid: Share = 0.6
    transition_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    image_share: Literal["full", "disjoint"] = "full"
    images_per_class: Positive | None = None
    """At most so many training images of each class; None takes all."""
    assignment: dict[str, tuple[str, ...]] | None = None
    """Entity → the uids of all classes that it ever sees; takes the place of `iid`."""
    organ_tail: bool = False
    """The two classes that three stages of three leave over make a fourth stage."""
    organ_hflip: bool = False
    quirks: tuple[Literal[1, 14], ...] = ()

    # training (docs/method.md 5)
    strategy: str = "fedka"
    seed: Seed = 2021
    threads: Positive = 1
    local_epochs: Positive = 5
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)] = 32
    """At least 2, for batch normalisation cannot normalise one image."""
    learning_rate: Rate = 2.0
    lr_schedule: Literal["lineage", "step", "constant", "cosine"] = "lineage"
    weight_decay: Weight = 1e-5
    clip_norm: Rate | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where twins compute. Equal bytes are promised on `cpu` alone (docs/decisions/0025)."""
    width: Positive = 64
    head_init: Literal["default", "mean"] = "default"
    bn: Literal["average"] = "average"
    agg_weight: Literal["uniform", "samples"] = "uniform"
    family: Literal["bce", "softmax"] = "bce"
    reduction: Literal["mean", "sum"] = "mean"
    alpha: Weight | None = None
    """From here on None leaves a switch to the strategy, whose own value is its paper's."""
    beta: Weight | None = None
    gamma: Weight | None = None
    cls_rows: Literal["all", "current"] | None = None
    weight: Literal["stage", "product", "old_new", "cumulative", "none"] | None = None
    weight_clamp: tuple[float, float] | Literal["none"] | None = None
    exponent: Literal["client", "stage", "one"] | None = None
    sd_mode: Literal["block", "joint", "slice", "slice_onehot", "bce"] | None = None
    sd_temperature: Rate | None = None
    ad_layers: tuple[Literal["layer1", "layer2", "layer3", "layer4"], ...] | None = None
    ad_class: Literal["teacher", "student", "truth", "own"] | None = None
    ad_norm: Literal["l1", "l2sq"] | None = None
    alpha_grad: Literal["full", "detached"] | None = None
    cam_relu: bool | None = None
    teacher: Literal["best", "last", "slots", "none"] | None = None
    """Which old model teaches."""

    # memory (docs/method.md 4)
    memory: Count = 2000

    # new classes (docs/method.md 3)
    detector: Literal["hybrid", "entropy", "label", "lineage"] = "hybrid"
    """`lineage`: labels judge, and every round's signal (3.2) chooses slots and prototypes."""
    entropy_head: Literal["virtual", "pre_growth", "post_growth"] = "virtual"
    """`post_growth`: the signal is taken on the grown head; verdicts use virtual rows for it."""
    threshold_mode: Literal["absolute", "relative"] = "absolute"
    entropy_threshold: Weight = 1.2
    rho: Weight = 0.3
    n_window: Positive = 256
    n_lab: Positive = 8

    # the proxy (docs/method.md 6)
    proto_per_class: Positive = 3
    proto_upload: Literal["any", "sampled_only"] = "any"
    proto_model: Literal["first_round", "local"] = "first_round"
    """Whose features choose a prototype: the model of the stage's first round, or the twin's."""
    perturb: Perturb = Perturb()
    encoder_seed: Seed | None = None
    encoder_classes: Positive | None = None
    """Rows of the encoder's last layer; None takes the data set's number of classes."""
    recon_steps: Positive = 1500
    recon_batch: Positive = 24
    recon_init: Literal["layerwise", "grey", "noise"] = "layerwise"
    """Where the search for an image begins; docs/decisions/0007 says why not at grey."""
    aug_source: Literal["final"] = "final"
    """What is augmented for scoring: the finished reconstruction, never its way there."""
    aug_copies: Positive = 20
    proxy_eval: Literal["current", "all"] = "current"
    warmup: Count | None = None
    dp_noise_sigma: Rate | None = None

    # evaluation (docs/method.md 8)
    eval_head: Literal["fc"] = "fc"
    share_class_means: Literal[False] = False

    # what travels and what is kept
    wire: Literal["fp32", "bf16", "int8"] = "fp32"
    keep_rounds: Positive | Literal["all"] = 1
    keep_samples: bool = False

    # live runs (docs/method.md 3.4)
    live: bool = False
    """A federation that does not end: rounds open when enough twins are ready for one."""
    quorum: Positive = 3
    """Fewest twins that a live round begins with, and whose updates it counts."""
    deadline: Rate = 60.0
    """Seconds after which a live round closes without those who have not answered, and after which
    the proxy chooses without the prototypes that have not come."""
    growth_window: Rate = 10.0
    """Seconds in which the classes that live twins find are collected, to be grown together."""
    n_min: Positive = 64
    """Images not judged yet that make a live twin judge."""
    keep_images: Positive = 50_000
    """Newest images of its stream that a live twin trains on; of older ones it remembers as many of
    each class as of an old one. It holds up to half as many again, and what came since."""
    alarm_points: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Percent of the images held out at the sites that a live model may lose against the best one
    before it, before that is reported."""

    # between programs
    patience: Rate = 600.0
    """Seconds in which nothing comes and nothing is in work, after which a recipe has failed."""
    standby_after: Rate = 10.0
    """Seconds that a standby leaves to the others before it says what is still missing."""

    @model_validator(mode="after")
    def _sums_need_small_rates(self) -> Self:
        if self.reduction == "sum" and self.learning_rate > SUM_RATE:
            raise ValueError(
                f"reduction=sum needs a learning_rate of at most {SUM_RATE}, not"
                f" {self.learning_rate}: summed losses take steps 10 to 100 times as long"
                " (docs/method.md 5.1)"
            )
        return self

    @model_validator(mode="after")
    def _stages_have_classes(self) -> Self:
        sizes = self.classes_per_stage
        if isinstance(sizes, tuple) and len(sizes) != self.stages:
            raise ValueError(
                f"classes_per_stage lists {len(sizes)} stages, stages is {self.stages}"
            )
        return self

    @model_validator(mode="after")
    def _lineage_is_whole(self) -> Self:
        parts = {
            "detector=lineage": self.detector == "lineage",
            "teacher=slots": self.teacher == "slots",
            "proto_model=local": self.proto_model == "local",
            "entropy_head=post_growth": self.entropy_head == "post_growth",
        }
        if not any(parts.values()):
            return self
        parts["proto_upload=sampled_only"] = self.proto_upload == "sampled_only"
        if missing := [part for part, given in parts.items() if not given]:
            given = " and ".join(part for part in parts if part not in missing)
            raise ValueError(
                f"{given} needs {' and '.join(missing)}: the signal, the prototypes of those who"
                " train and the two slots are one mechanism (docs/method.md 9)"
            )
        if self.proxy_eval == "all":
            raise ValueError(
                "teacher=slots scores each model on the newest round's prototypes alone: leave"
                " proxy_eval at current (docs/method.md 9)"
            )
        return self

    @model_validator(mode="after")
    def _live_knows_no_end(self) -> Self:
        if self.live and self.lr_schedule != "constant":
            raise ValueError(
                f"a live run does not know its last round, so lr_schedule={self.lr_schedule} has no"
                " meaning there: take constant (docs/method.md 5.8)"
            )
        if self.live and self.teacher == "slots":
            raise ValueError("teacher=slots follows a schedule of rounds, which no live run has")
        return self

    @property
    def slotted(self) -> bool:
        """Whether two slots teach, chosen anew before every round (docs/method.md 9)."""
        return self.teacher == "slots"

    @property
    def switches(self) -> dict[str, object]:
        """The switches of the local objective that this recipe sets (docs/method.md 5)."""
        set_here = {name: getattr(self, name) for name in SWITCHES}
        set_here["weight_clamp"] = None if self.weight_clamp == "none" else self.weight_clamp
        return {
            name: value
            for name, value in set_here.items()
            if value is not None or (name == "weight_clamp" and self.weight_clamp == "none")
        }

    @property
    def warm_up(self) -> int:
        """Rounds of a stage whose models are not scored: floor(0.6 R) unless set (6.6)."""
        return self.warm_up_of(self.rounds_per_stage)

    def warm_up_of(self, rounds: int) -> int:
        """The same of a stage that had so many rounds, at least one."""
        return 6 * rounds // 10 if self.warmup is None else min(self.warmup, rounds - 1)


def configuration(values: dict[str, object]) -> Configuration:
    """Validate a recipe's values. ConfigurationError names bad keys and the nearest good ones."""
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_in_words(error)) from None


def known_keys() -> list[str]:
    """Every key that a recipe can set, nested ones with a dot."""
    nested = [f"perturb.{name}" for name in Perturb.model_fields]
    return [name for name in Configuration.model_fields if name != "perturb"] + nested


def values_of(key: str) -> str:
    """What a key takes, in words: its choices, or the kind of value. Raises KeyError for others."""
    outer, _, inner = key.partition(".")
    field = Perturb.model_fields[inner] if inner else Configuration.model_fields[outer]
    return _form(field.annotation)


def _form(annotation: object) -> str:
    """A type as somebody would say it."""
    if get_origin(annotation) is Literal:
        return ", ".join(_choice(each) for each in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        forms = [_form(each) for each in get_args(annotation) if each is not NoneType]
        return " or ".join(dict.fromkeys(forms))
    if get_origin(annotation) is Annotated:
        return _form(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return f"a list of {_form(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "a file"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return names.get(annotation, "a value") if isinstance(annotation, type) else "a value"


def _choice(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def nearest(word: str, words: list[str]) -> str:
    """' (did you mean X?)' for the nearest of the words, or nothing."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _in_words(error: ValidationError) -> str:
    """A clause for each bad key. An item that is wrong says more than that the whole is."""
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_place(problem["loc"]), []).append(problem)
    with_items = {place[0] for place in found if len(place) > 1}
    return "; ".join(
        _clause(".".join(place), told)
        for place, told in found.items()
        if len(place) > 1 or place[0] not in with_items
    )


def _place(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The key and the item in it, without the form that pydantic tried, which no reader knows."""
    if not loc:
        return ("",)
    items = [part for part in loc[1:] if isinstance(part, int) or loc[0] == "perturb"]
    return (str(loc[0]), *map(str, items))


def _clause(key: str, told: list[ErrorDetails]) -> str:
    """What is wrong with one key, which should be one of the things told."""
    kind, value = told[0]["type"], told[0]["input"]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, known_keys())}"
    if kind == "missing":
        return f"{key} is missing"
    if not key:
        return told[0]["msg"].removeprefix("Value error, ")
    wanted = [each["msg"].removeprefix("Input should be ") for each in told]
    forms = " or ".join(each.split(", unable")[0].split(", got")[0] for each in wanted)
    forms = forms.replace("valid tuple", "list")
    return f"{key} should be {forms}, not {reprlib.repr(value)}"
