"""An earlier model's values under today's head: what an operator's rollback publishes."""

from __future__ import annotations

from collections import Counter

from learning.shapes import HEAD_BIAS, grown
from schemas.line import RoundsLine
from schemas.messages import Groups, ModelName, RolledBack
from schemas.seeds import generator
from schemas.tensors import decoded, groups_sha256


def rolled_back(line: RoundsLine, to: ModelName, values: Groups) -> tuple[Groups, RolledBack]:
    """The content, and the decision that names it: the next one of the line.

    Rows that the earlier model lacks are drawn as they were when they grew, stage by stage.
    """
    assert line.opened is not None
    assert line.model is not None
    configuration, weights, rows = line.opened.configuration, values["model"], 0
    for stage, fresh in sorted(Counter(line.stage_of_row).items()):
        rows += fresh
        if rows > len(weights[HEAD_BIAS]):
            chance = generator(configuration.seed, "init_rows", stage=stage)
            weights = grown(weights, fresh, chance, configuration.head_init)
    groups = {**values, "model": decoded(weights, configuration.wire)}
    decision = RolledBack(
        run=line.run,
        number=line.number + 1,
        to=to,
        closes=line.open_round.number if line.open_round else None,
        model=ModelName(version=line.model.version + 1, sha256=groups_sha256(groups)),
    )
    return groups, decision
