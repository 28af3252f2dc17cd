"""GLFC: half a class-balanced term, half distillation, taught by the proxy's best old model.

0.5 mean(w BCE(z, y)) + 0.5 mean BCE(z, [sigma(z_old) | one-hot of new rows]); the first alone, with
coefficient 1, while nobody teaches. w compares old samples with old and new with new, exponent 1,
no clamp (docs/method.md 5.4, 7).
"""

from learning.strategies.strategy import Objective, Strategy

GLFC = Strategy(
    name="glfc",
    paper="Dong et al., Federated Class-Incremental Learning, CVPR",
    year=2022,
    objective=Objective(
        alpha=0.5,
        alpha_alone=1.0,
        beta=0.5,
        gamma=0.0,
        sd_mode="bce",
        weight="old_new",
        exponent="one",
        weight_clamp=None,
        weighted=("classification",),
    ),
    softmax={"sd_mode": "joint"},
    memory="exemplars",
    teacher="best",
)
