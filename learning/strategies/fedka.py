"""FedKA: adaptive class balance, semantic and attention distillation; and its four ablations.

Under `reduction: mean`:

    L    = alpha L_CB + beta L_SD + gamma L_AD, alpha 2, beta 1, gamma 1     (docs/method.md 5.7)
    d_i  = 1 - P(x_i) at y_i, and p = C_o / (C_o + C_n)                      (5.3, 5.4)
    w_i  = d_i^p / mean of d^p over the batch's samples of the same stage    (5.4, then clamped)
    L_CB = mean_i w_i D_CE(z_i, y_i)                                         (5.4)
    L_SD = mean_i w_i 1/C_old sum_{k<t} KL(softmax(z_old[S_k]) || softmax(z[S_k]))    (5.5)
    L_AD = mean_i w_i 1/q || Q_old / ||Q_old||_2 - Q / ||Q||_2 ||_1          (5.6)

z: logits; S_k: the rows of stage k; Q: the Grad-CAM, of q cells, for the teacher's top class; old:
the teacher's, which is the best model of the stage before. In stage 0 nobody teaches, w is 1, and L
is 2 D_CE. Coefficients, memory and teacher are the paper's (7). Each ablation changes one thing, as
in the paper's table 11: w = 1 in L_CB; beta = 0; gamma = 0; w = 1 in L_AD.
"""

from dataclasses import replace

from learning.strategies.strategy import Objective, Strategy

FEDKA = Strategy(
    name="fedka",
    paper="Zhang et al., Hybrid knowledge distillation-assisted heterogeneous federated class "
    "incremental learning for digital twins (FedKA), CAAI Transactions on Intelligent Systems "
    "20(4), doi 10.11992/tis.202406027",
    year=2025,
    objective=Objective(alpha=2.0, beta=1.0, gamma=1.0, weight="stage"),
    memory="exemplars",
    teacher="best",
)

WITHOUT_CLASS_BALANCE = replace(
    FEDKA,
    name="fedka-no-cbl",
    objective=replace(FEDKA.objective, weighted=("semantic", "attention")),
)
WITHOUT_SEMANTIC = replace(FEDKA, name="fedka-no-sdl", objective=replace(FEDKA.objective, beta=0.0))
WITHOUT_ATTENTION = replace(
    FEDKA, name="fedka-no-adl", objective=replace(FEDKA.objective, gamma=0.0)
)
WITHOUT_WEIGHTED_ATTENTION = replace(
    FEDKA,
    name="fedka-no-wadl",
    objective=replace(FEDKA.objective, weighted=("classification", "semantic")),
)
