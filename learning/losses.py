"""The terms of the local objective (docs/method.md 5; FedKA, section 2.2), as pure functions.

Every term is one number per sample; weighing them and taking the mean over the batch is the
caller's. No gradient flows into what a teacher says, nor into weights. Legend: B samples, C rows of
the student's head, O rows that the teacher knows (the first O of C), G groups of samples whose
weights are compared, K feature channels, H height and W width of a map, Q = H * W cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from learning.strategies.strategy import (
    AlphaGradient,
    AttentionClass,
    AttentionNorm,
    Exponent,
    Family,
    Reduction,
    SemanticMode,
    Weighting,
)

DIVISION_GUARD = 1e-12
FLAT = 1e-8
"""A mean of d^p below it tells nothing of its samples (they weigh 1); so does a map's length."""


def classification(
    logits_BC: Tensor, rows_B: Tensor, *, family: Family = "bce", reduction: Reduction = "mean"
) -> Tensor:
    """D_CE of each sample (docs/method.md 5.2), in nats.

    `bce`: the sum over rows of the binary cross-entropy of sigmoid(z_c) and [c = y]. `softmax`:
    -ln softmax(z)_y. `mean` divides either by C: without it a learning rate of 2 diverges.
    """
    if family == "bce":
        hot_BC = F.one_hot(rows_B, logits_BC.shape[1]).to(logits_BC.dtype)
        loss_B = F.binary_cross_entropy_with_logits(logits_BC, hot_BC, reduction="none").sum(1)
    else:
        loss_B = F.cross_entropy(logits_BC, rows_B, reduction="none")
    return loss_B / logits_BC.shape[1] if reduction == "mean" else loss_B


def gaps(logits_BC: Tensor, rows_B: Tensor, *, family: Family = "bce") -> Tensor:
    """d = |P_y - 1|: how far each sample is from being learned, in [0, 1] (docs/method.md 5.3).

    P is the sigmoid or the soft-max of the family. Carries no gradient.
    """
    logits_BC = logits_BC.detach()
    if family == "bce":
        return torch.sigmoid(-_picked(logits_BC, rows_B))
    return -torch.expm1(_picked(F.log_softmax(logits_BC, 1), rows_B))


def difficulty_exponent(exponent: Exponent, *, learned: int, new: int, stage: int) -> float:
    """p in w = d^p / mean d^p (docs/method.md 5.4).

    `learned` and `new` count a client's classes of earlier stages and of this one. `client`:
    C_o / (C_o + C_n), the paper's text; `stage`: t / (t + 1), LGA's released code; `one`: 1,
    GLFC's. A client that has learned no class yet weighs its samples equally: 0.

    Raises ValueError if a number is negative.
    """
    if min(learned, new, stage) < 0:
        raise ValueError(f"{learned} classes learned, {new} new, stage {stage}: none is below 0")
    if not learned:
        return 0.0
    return {"client": learned / (learned + new), "stage": stage / (stage + 1), "one": 1.0}[exponent]


def membership(stage_of_row: Sequence[int], stage: int, weight: Weighting) -> Tensor:
    """Which groups each row's samples belong to, as 0 and 1 (C, G); `stage` is the current one.

    `stage`, `product`: one group for each stage. `old_new`: earlier stages, and the current one
    (GLFC). `cumulative`: as `stage`, but the group of an old stage holds all stages up to it, which
    is what LGA's released code comes to, for it does not reset its marker. `none`: all together.

    Raises ValueError if a row is of a stage that has not come yet.
    """
    of_row_C1 = torch.tensor(stage_of_row, dtype=torch.int64)[:, None]
    if of_row_C1.numel() and not 0 <= int(of_row_C1.min()) <= int(of_row_C1.max()) <= stage:
        raise ValueError(f"in stage {stage} no row is of the stages {sorted(set(stage_of_row))}")
    groups_G = torch.arange(stage + 1)
    if weight in ("stage", "product"):
        return (of_row_C1 == groups_G).float()
    if weight == "old_new":
        is_new_C1 = of_row_C1 == stage
        return torch.cat([~is_new_C1, is_new_C1], 1).float()
    if weight == "cumulative":
        among_old_CG = (of_row_C1 <= groups_G) & (groups_G < stage)
        return (among_old_CG | ((of_row_C1 == stage) & (groups_G == stage))).float()
    return torch.ones(len(stage_of_row), 1)


def adaptive_weights(
    gaps_B: Tensor,
    members_BG: Tensor,
    exponent: float,
    *,
    clamp: tuple[float, float] | None = (0.5, 5.0),
    product: bool = False,
) -> Tensor:
    """w = d^p / (mean of d^p over the samples of the same group in the batch) (docs/method.md 5.4).

    Over each group the mean weight is 1 before clamping: weight moves from learned to hard samples
    within a group, never between groups. A group whose mean is below 1e-8 weighs 1. Who belongs
    to several groups (`cumulative`) gets the sum. `product` reads the printed factors in a row,
    w = d^p * mean d^p, which fades as training succeeds. No unit; carries no gradient.
    """
    with torch.no_grad():
        hardness_B1 = gaps_B.pow(exponent)[:, None]
        counts_G = members_BG.sum(0).clamp_min(1)
        means_G = (members_BG * hardness_B1).sum(0) / counts_G
        if product:
            ratios_BG = hardness_B1 * means_G
        else:
            ratios_BG = hardness_B1 / (means_G + DIVISION_GUARD)
            ratios_BG = ratios_BG.where(means_G >= FLAT, 1.0)
        weights_B = (members_BG * ratios_BG).sum(1)
        return weights_B if clamp is None else weights_B.clamp(*clamp)


def semantic_distillation(
    logits_BC: Tensor,
    teacher_logits_BO: Tensor,
    rows_B: Tensor,
    *,
    mode: SemanticMode = "block",
    block_sizes: Sequence[int] = (),
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Keep the student's opinion of old classes near the teacher's (docs/method.md 5.5), in nats.

    `block`: KL(teacher || student) within each old stage, summed over stages; `block_sizes` says
    how many of the O rows each stage has. `joint`: the same with all O rows as one block.
    `slice`: sum over old rows of q ln(q / p) with p from the student's soft-max over all C rows, so
    that mass on new rows costs. `slice_onehot`: besides, -ln p_y for samples of the rows that the
    teacher does not know. These four are softened by `temperature` (> 0) and multiplied by its
    square; `mean` divides them by O. `bce`: binary cross-entropy of the student with the teacher's
    sigmoids on old rows and the label on new ones; `mean` divides it by C.

    Raises ValueError if the teacher knows more rows than the student, or blocks do not add up.
    """
    student_C, teacher_O = logits_BC.shape[1], teacher_logits_BO.shape[1]
    if teacher_O > student_C:
        raise ValueError(f"the teacher knows {teacher_O} classes, the student only {student_C}")
    teacher_logits_BO = teacher_logits_BO.detach()
    if mode == "bce":
        loss_B, outputs = _soft_targets(logits_BC, teacher_logits_BO, rows_B), student_C
    else:
        softened = logits_BC / temperature, teacher_logits_BO / temperature
        if mode in ("block", "joint"):
            loss_B = _blocks(*softened, block_sizes if mode == "block" else (teacher_O,))
        else:
            loss_B = _slice(*softened, rows_B, with_label=mode == "slice_onehot")
        loss_B, outputs = loss_B * temperature**2, teacher_O
    return loss_B / outputs if reduction == "mean" else loss_B


def _blocks(logits_BC: Tensor, teacher_logits_BO: Tensor, block_sizes: Sequence[int]) -> Tensor:
    rows = teacher_logits_BO.shape[1]
    if sum(block_sizes) != rows:
        raise ValueError(f"blocks of {list(block_sizes)} rows are not the teacher's {rows}")
    sizes = list(block_sizes)
    blocks = zip(
        logits_BC[:, :rows].split_with_sizes(sizes, 1),
        teacher_logits_BO.split_with_sizes(sizes, 1),
        strict=True,
    )
    divergences = [
        F.kl_div(z.log_softmax(1), q.log_softmax(1), reduction="none", log_target=True).sum(1)
        for z, q in blocks
    ]
    return torch.stack(divergences).sum(0)


def _slice(
    logits_BC: Tensor, teacher_logits_BO: Tensor, rows_B: Tensor, *, with_label: bool
) -> Tensor:
    old = teacher_logits_BO.shape[1]
    student_BC, teacher_BO = logits_BC.log_softmax(1), teacher_logits_BO.log_softmax(1)
    loss_B = F.kl_div(student_BC[:, :old], teacher_BO, reduction="none", log_target=True).sum(1)
    return loss_B - (rows_B >= old) * _picked(student_BC, rows_B) if with_label else loss_B


def _soft_targets(logits_BC: Tensor, teacher_logits_BO: Tensor, rows_B: Tensor) -> Tensor:
    old, rows = teacher_logits_BO.shape[1], logits_BC.shape[1]
    label_BC = F.one_hot(rows_B, rows).to(logits_BC.dtype)
    target_BC = torch.cat([teacher_logits_BO.sigmoid(), label_BC[:, old:]], 1)
    return F.binary_cross_entropy_with_logits(logits_BC, target_BC, reduction="none").sum(1)


def attended_rows(
    attention_class: AttentionClass, logits_BC: Tensor, teacher_logits_BO: Tensor, rows_B: Tensor
) -> tuple[Tensor, Tensor]:
    """The class that the teacher's map explains and the class that the student's does.

    `teacher`: the teacher's highest old class, for both; `student`: the student's highest old
    class, for both; `truth`: the label where it is an old class, else as `teacher`; `own`: each
    model's highest among all its rows (docs/method.md 5.6).
    """
    old = teacher_logits_BO.shape[1]
    theirs_B = teacher_logits_BO.argmax(1)
    if attention_class == "own":
        return theirs_B, logits_BC.argmax(1)
    if attention_class == "student":
        theirs_B = logits_BC[:, :old].argmax(1)
    if attention_class == "truth":
        theirs_B = torch.where(rows_B < old, rows_B, theirs_B)
    return theirs_B, theirs_B


def class_activation_map(
    a_BKHW: Tensor,
    head_CK: Tensor,
    rows_B: Tensor,
    *,
    relu: bool = True,
    alpha_grad: AlphaGradient = "full",
) -> Tensor:
    """Where the last map A speaks for a class: Grad-CAM in closed form, (B, Q).

    As in docs/method.md 5.6: A reaches the logits through average pooling and one linear layer
    alone, so dz_c / dA is W_c / Q in every cell, and relu(sum_k W_ck A_k / Q) is Grad-CAM. W is a
    parameter: plain autograd gives the gradient that double backward would. Not for earlier layers.
    """
    a_BKQ = a_BKHW.flatten(2)
    alpha_BK = head_CK.index_select(0, rows_B) / a_BKQ.shape[2]
    return _weighed_channels(a_BKQ, alpha_BK, relu, alpha_grad)


def grad_cam(
    a_BKHW: Tensor,
    scores_B: Tensor,
    *,
    relu: bool = True,
    alpha_grad: AlphaGradient = "full",
) -> Tensor:
    """Where any map A of the pass that gave `scores_B` speaks for these scores (Grad-CAM), (B, Q).

    The channel weights are the mean gradients, themselves differentiable if `alpha_grad` is
    `full` (double backward). Batch normalisation must use its running statistics: in train mode it
    couples samples, and the gradient of the summed scores is not that of each.
    """
    (slope_BKHW,) = torch.autograd.grad(
        scores_B.sum(), a_BKHW, retain_graph=True, create_graph=alpha_grad == "full"
    )
    return _weighed_channels(a_BKHW.flatten(2), slope_BKHW.mean((2, 3)), relu, alpha_grad)


def _weighed_channels(
    a_BKQ: Tensor, alpha_BK: Tensor, relu: bool, alpha_grad: AlphaGradient
) -> Tensor:
    if alpha_grad == "detached":
        alpha_BK = alpha_BK.detach()
    map_BQ = torch.bmm(alpha_BK[:, None], a_BKQ)[:, 0]
    return map_BQ.relu() if relu else map_BQ


def attention_distance(
    map_BQ: Tensor,
    teacher_map_BQ: Tensor,
    *,
    norm: AttentionNorm = "l1",
    reduction: Reduction = "mean",
) -> Tensor:
    """How far the student looks from where the teacher looked (docs/method.md 5.6); no unit.

    Both maps are brought to length 1; then the L1 distance, or the squared L2. `mean` divides by
    Q. A sample whose teacher looks nowhere (length below 1e-8) is no evidence: 0. Maps of one
    cell are all alike, and the distance is 0 for ever.
    """
    teacher_map_BQ = teacher_map_BQ.detach()
    difference_BQ = F.normalize(map_BQ, dim=1, eps=FLAT) - F.normalize(
        teacher_map_BQ, dim=1, eps=FLAT
    )
    distance_B = (difference_BQ.abs() if norm == "l1" else difference_BQ.square()).sum(1)
    distance_B = distance_B * ~is_empty(teacher_map_BQ)
    return distance_B / map_BQ.shape[1] if reduction == "mean" else distance_B


def is_empty(map_BQ: Tensor) -> Tensor:
    """Whether a map looks nowhere: its length is below 1e-8."""
    return torch.linalg.vector_norm(map_BQ.detach(), dim=1) < FLAT


def _picked(values_BC: Tensor, rows_B: Tensor) -> Tensor:
    return values_BC.gather(1, rows_B[:, None])[:, 0]
