"""Fine-tuning under federated averaging: the lower bound, which forgets.

Each twin l of the round goes from the round's model along the gradient of

    L = mean_i D_CE(z_i, y_i)                                             (docs/method.md 5.2)

over its current images alone, and the next model is their mean,

    theta = sum_l a_l theta_l / sum_l a_l                                 (1.4)

with a_l = 1 (`agg_weight: uniform`) or, as in the paper, the images to train on (`samples`).
"""

from learning.strategies.strategy import Objective, Strategy

FEDAVG = Strategy(
    name="fedavg",
    paper="McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized "
    "Data, AISTATS",
    year=2017,
    objective=Objective(alpha=1.0, beta=0.0, gamma=0.0, weight="none"),
)
