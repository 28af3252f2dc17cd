"""Learning without Memorizing in a federation: distil what the teacher says and where it looks.

D_CE + KL over the teacher's rows + attention distance, coefficients 1, no sample weighed, no
memory, and the last model of the previous stage as teacher (docs/method.md 7). `cls_rows=current`
classifies among the current stage's rows alone, as single-node code does.
"""

from learning.strategies.strategy import Objective, Strategy

LWM = Strategy(
    name="lwm",
    paper="Dhar et al., Learning without Memorizing, CVPR",
    year=2019,
    objective=Objective(alpha=1.0, beta=1.0, gamma=1.0, sd_mode="joint", weight="none"),
    teacher="last",
)
