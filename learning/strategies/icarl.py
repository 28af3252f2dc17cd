"""iCaRL in a federation: one term, whose soft targets stand in place of the labels of old rows.

mean BCE(z, [sigma(z_old) | one-hot of new rows]), coefficient 1, exemplars, and the last model of
the previous stage as teacher (docs/method.md 7). In the softmax family, where no target can be put
together of two halves: D_CE + KL to the teacher's old rows at temperature 2.
"""

from learning.strategies.strategy import Objective, Strategy

ICARL = Strategy(
    name="icarl",
    paper="Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning, CVPR",
    year=2017,
    objective=Objective(
        alpha=0.0, alpha_alone=1.0, beta=1.0, gamma=0.0, sd_mode="bce", weight="none"
    ),
    softmax={"alpha": 1.0, "sd_mode": "joint", "sd_temperature": 2.0},
    memory="exemplars",
    teacher="last",
)
