"""Upper bounds: what fine-tuning reaches when nothing has to be forgotten.

L = mean_i D_CE(z_i, y_i) as in `fedavg`, over other images i (docs/method.md 5.2, 7). `joint`: all
that the twin ever had, in the same federation. `oracle`: those of all classes, at one node, which
makes as many image-steps as the federation. They are yardsticks and of no paper of their own.
"""

from dataclasses import replace

from learning.strategies.fedavg import FEDAVG

JOINT = replace(
    FEDAVG,
    name="joint",
    paper="Upper bound, of no paper of its own: federated averaging whose twins keep all images",
    year=None,
    memory="everything",
)
ORACLE = replace(
    JOINT,
    name="oracle",
    paper="Upper bound, of no paper of its own: plain training at one node that has all images",
    pooled=True,
)
