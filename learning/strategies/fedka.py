"""FedKA: adaptive class balance, semantic and attention distillation; and its four ablations.

Coefficients, memory and teacher are the paper's (docs/method.md 5.7, 7). Each ablation changes
one thing, as in the paper's table 11.
"""

from dataclasses import replace

from learning.strategies.strategy import Objective, Strategy

FEDKA = Strategy(
    name="fedka",
    paper="FedKA: hybrid knowledge distillation-assisted heterogeneous federated class-incremental "
    "learning, CAAI Transactions on Intelligent Systems 20(4), doi 10.11992/tis.202406027",
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
