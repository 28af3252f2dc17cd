"""Fine-tuning under federated averaging: the lower bound, which forgets."""

from learning.strategies.strategy import Objective, Strategy

FEDAVG = Strategy(
    name="fedavg",
    paper="McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized "
    "Data, AISTATS",
    year=2017,
    objective=Objective(alpha=1.0, beta=0.0, gamma=0.0, weight="none"),
)
