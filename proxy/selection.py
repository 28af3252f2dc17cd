"""Which old model teaches: the one that knew a stage's classes best.

Pure, and without torch: what the scores rest on is `proxy.scoring`'s affair.
"""

import math
from collections.abc import Mapping


def best(scores: Mapping[int, float], *, last: int) -> int:
    """The version with the highest score, in [0, 1], among a stage's candidates; ties to the later.

    The candidates are the versions after warm-up (docs/method.md 6.6). Without any score, because
    the stage left no prototype to score on, it is `last`, the stage's last version.

    Raises ValueError if a score is outside [0, 1] or not a number.
    """
    for version, score in scores.items():
        if math.isnan(score) or not 0 <= score <= 1:
            raise ValueError(f"version {version} has the score {score}, outside [0, 1]")
    return max(scores, key=lambda version: (scores[version], version), default=last)
