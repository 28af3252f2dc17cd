"""LGA: both the class-balanced term and the distillation weighed stage by stage.

mean(w BCE(z, y)) + mean(w BCE(z, [sigma(z_old) | one-hot of new rows])), coefficients 1, exponent t
/ (t + 1), weights clamped to [0.5, 5] (docs/method.md 5.4, 7). Its released code does not reset a
marker, which `weight=cumulative` reproduces.
"""

from learning.strategies.strategy import Objective, Strategy

LGA = Strategy(
    name="lga",
    paper="Dong et al., No One Left Behind: Real-World Federated Class-Incremental Learning, IEEE "
    "Transactions on Pattern Analysis and Machine Intelligence",
    year=2023,
    objective=Objective(alpha=1.0, beta=1.0, gamma=0.0, sd_mode="bce", exponent="stage"),
    softmax={"sd_mode": "joint"},
    memory="exemplars",
    teacher="best",
)
