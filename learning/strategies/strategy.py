"""What a method of federated class-incremental learning is: switches, and at most five functions.

Every method runs through one local update (`learning.training`) and one round at the aggregator.
Where methods only weigh the same terms differently they differ in switches; what no switch
expresses is one of the functions. A strategy's file imports no torch at its top, because the
aggregator, which does without torch, reads it too.

A *group* is a named set of tensors that travels beside the model: control variates, a diagonal
Fisher matrix. The model itself is the group `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from learning.shapes import LAYERS, Shapes, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from learning.lesson import Lesson, Step

Family = Literal["bce", "softmax"]
Reduction = Literal["mean", "sum"]
Rows = Literal["all", "current"]
Weighting = Literal["stage", "product", "old_new", "cumulative", "none"]
Exponent = Literal["client", "stage", "one"]
Term = Literal["classification", "semantic", "attention"]
SemanticMode = Literal["block", "joint", "slice", "slice_onehot", "bce"]
AttentionClass = Literal["teacher", "student", "truth", "own"]
AttentionNorm = Literal["l1", "l2sq"]
AlphaGradient = Literal["full", "detached"]
Memory = Literal["none", "exemplars", "everything"]
Teacher = Literal["best", "last", "slots", "none"]

Groups = dict[str, Weights]
MODEL = "model"
TERMS: tuple[Term, ...] = get_args(Term)
WEIGHING = ("weight", "weight_clamp", "exponent")
"""Switches that mean nothing to a method whose samples all weigh 1 (docs/method.md 5.4)."""


@dataclass(frozen=True)
class Objective:
    """The switches of the local objective (docs/method.md 5). Defaults are the paper's.

    L = alpha * L_classification + beta * L_semantic + gamma * L_attention.
    """

    family: Family = "bce"
    """`bce`: every class a sigmoid of its own. `softmax`: one distribution over all classes."""
    reduction: Reduction = "mean"
    """`mean` divides each term by its outputs (rows, map cells); `sum` needs a rate up to 0.2."""
    alpha: float = 2.0
    alpha_alone: float | None = None
    """Takes the place of `alpha` while there is no teacher, if given."""
    beta: float = 1.0
    gamma: float = 1.0
    cls_rows: Rows = "all"
    """Whether the classification term sees all rows or only those of the current stage."""
    weight: Weighting = "stage"
    """Among which samples the adaptive weight compares (docs/method.md 5.4)."""
    weighted: tuple[Term, ...] = TERMS
    """The terms in which the adaptive weight counts; elsewhere it is 1."""
    weight_clamp: tuple[float, float] | None = (0.5, 5.0)
    exponent: Exponent = "client"
    """p of d^p. `client`: C_o / (C_o + C_n); `stage`: t / (t + 1); `one`: 1."""
    sd_mode: SemanticMode = "block"
    sd_temperature: float = 1.0
    ad_layers: tuple[str, ...] = LAYERS[-1:]
    """Where attention is compared. Earlier layers need a second pass and double backward."""
    ad_class: AttentionClass = "teacher"
    """Whose class the maps explain."""
    ad_norm: AttentionNorm = "l1"
    alpha_grad: AlphaGradient = "full"
    """Whether the gradient of the attention term also flows through the channel weights."""
    cam_relu: bool = True

    def __post_init__(self) -> None:
        self._check_names()
        if min(self.alpha, self.alone, self.beta, self.gamma) < 0 or self.alone == 0:
            raise ValueError(
                f"coefficients are not negative, and the first is not 0 without a teacher: "
                f"{self.alpha} (alone {self.alone}), {self.beta}, {self.gamma}"
            )
        if not max(self.alpha, self.beta, self.gamma):
            raise ValueError("an objective has a term even with a teacher: not 0, 0 and 0")
        if self.weight_clamp and not 0 <= self.weight_clamp[0] <= 1 <= self.weight_clamp[1]:
            raise ValueError(f"weights are clamped around 1, not to {self.weight_clamp}")
        if self.sd_temperature <= 0:
            raise ValueError(f"a temperature is positive, not {self.sd_temperature}")
        if self.sd_mode == "bce" and self.sd_temperature != 1:
            raise ValueError(f"sd_mode bce has no temperature, not even {self.sd_temperature}")

    @property
    def alone(self) -> float:
        """The coefficient of the classification term while there is no teacher."""
        return self.alpha if self.alpha_alone is None else self.alpha_alone

    def _check_names(self) -> None:
        _one_of("family", self.family, Family)
        _one_of("reduction", self.reduction, Reduction)
        _one_of("cls_rows", self.cls_rows, Rows)
        _one_of("weight", self.weight, Weighting)
        _one_of("exponent", self.exponent, Exponent)
        _one_of("sd_mode", self.sd_mode, SemanticMode)
        _one_of("ad_class", self.ad_class, AttentionClass)
        _one_of("ad_norm", self.ad_norm, AttentionNorm)
        _one_of("alpha_grad", self.alpha_grad, AlphaGradient)
        _some_of("weighted", self.weighted, TERMS)
        _some_of("ad_layers", self.ad_layers, LAYERS)
        if not self.ad_layers:
            raise ValueError(f"ad_layers names at least one of {', '.join(LAYERS)}")


def _one_of(switch: str, value: str, values: object) -> None:
    if value not in get_args(values):
        raise ValueError(f"{switch} is one of {', '.join(get_args(values))}, not {value}")


def _some_of(switch: str, chosen: tuple[str, ...], values: tuple[str, ...]) -> None:
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(values):
        raise ValueError(f"{switch} are distinct names among {', '.join(values)}, not {chosen}")


class Sent(NamedTuple):
    """What a local update leaves besides the model."""

    send: Groups
    """Groups for the aggregator, which means them exactly as it means models."""
    keep: Groups
    """Groups that stay with the twin; they count once its update is counted."""


@dataclass(frozen=True)
class RoundMean:
    """What the aggregator knows when a round closes. Groups are named, `model` among them."""

    before: Mapping[str, Weights]
    """The groups with which the round was opened; in the first round only `model`."""
    mean: Mapping[str, Weights]
    """The exact means of what the counted updates sent."""
    counted: int
    """Updates in the mean."""
    members: int
    """Twins of the federation that could have taken part."""


LossTerm = Callable[["Step"], "Tensor"]
Correction = Callable[[Mapping[str, "Tensor"]], None]


@dataclass(frozen=True)
class Strategy:
    """A method. `replace` makes its ablations, `under` what a recipe changes in it.

    A group that is shaped like the model keeps its old shape while the head grows: whoever reads
    it in the next stage finds rows missing, and decides what stands in their place.
    """

    name: str
    paper: str
    """Whom to cite: authors, title, venue; or that there is nobody."""
    year: int | None
    """Of the paper, where there is one."""
    objective: Objective
    memory: Memory = "none"
    """What a twin keeps of classes that are not current: nothing, exemplars, or all its images."""
    teacher: Teacher = "none"
    """`best` of the previous stage by the proxy's score, its `last`, or GLFC's two `slots`."""
    pooled: bool = False
    """One node has everybody's images: it stands in place of all twins of a recipe."""
    softmax: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Switches of the objective that the softmax family changes in this method."""

    term: Callable[[Lesson], LossTerm] | None = None
    """Called once a lesson; what it returns is called in every step and added to the loss."""
    correction: Callable[[Lesson], Correction] | None = None
    """Called once a lesson; what it returns changes the gradients (by name) in place."""
    groups: Callable[[Lesson, Weights, int], Sent] | None = None
    """What to send and to keep, from the lesson, the weights learned and the steps made."""
    group_shapes: Callable[[Shapes], Mapping[str, Shapes]] | None = None
    """The shapes of the groups that `groups` sends, from the model's: an update is held to it."""
    settle: Callable[[RoundMean], Groups] | None = None
    """The aggregator's step, in numpy: all groups of the next round, `model` among them."""

    def __post_init__(self) -> None:
        _one_of("memory", self.memory, Memory)
        _one_of("teacher", self.teacher, Teacher)
        if (self.groups is None) != (self.group_shapes is None):
            raise ValueError(f"{self.name} sends groups and tells their shapes, or does neither")

    @property
    def proxy(self) -> bool:
        """Whether twins send prototypes, and the proxy rebuilds them to choose the teacher."""
        return self.teacher in ("best", "slots")

    def under(self, *, teacher: Teacher | None = None, **switches: Any) -> Strategy:
        """This method with a recipe's switches of the objective, and its kind of teacher.

        A method without a teacher stays without, and one that weighs no sample keeps to that. What
        the method itself changes in the softmax family comes first, so that the recipe has the last
        word.

        Raises ValueError for a value that a switch does not take, TypeError for no switch.
        """
        if self.objective.weight == "none":
            switches = {name: value for name, value in switches.items() if name not in WEIGHING}
        family = switches.get("family", self.objective.family)
        changes = {**(self.softmax if family == "softmax" else {}), **switches}
        objective = replace(self.objective, **changes)
        if teacher is None or self.teacher == "none":
            teacher = self.teacher
        return replace(self, objective=objective, teacher=teacher)

    def settled(self, closed: RoundMean) -> Groups:
        """The groups of the next round: the plain means, unless the method has its own step."""
        if self.settle is not None:
            return self.settle(closed)
        return dict(closed.mean)

    def sent_shapes(self, model: Shapes) -> dict[str, Shapes]:
        """Shapes of every group of a valid update, `model` among them."""
        others = self.group_shapes(model) if self.group_shapes else {}
        return {MODEL: model, **others}
