"""The recipe `tiny` as people run it: real digits, real nets, and a process of its own.

Torch's threads are set for a whole process, so none of this happens in the test's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from experiments.recipes import recipe
from infra.transport.embedded import Embedded as Log
from producers.datasets import load
from producers.images import Dataset
from schemas.configuration import Configuration
from tests.flows.federation import Outcome, Told, outcome, put_together
from tests.flows.lives import forked

TINY = recipe("tiny")


@cache
def digits() -> Dataset:
    """The bundled digits at the recipe's size."""
    return load(TINY.dataset, Path("no data folder is needed"), image_size=TINY.image_size)


def told_by_child(run: Callable[[], Outcome], folder: Path) -> Outcome:
    """What a run comes to in a process of its own, which trains with one thread."""
    answer = folder / "outcome.json"

    def life() -> int:
        from learning.repeatable import repeatable

        repeatable(1)
        answer.write_text(json.dumps(asdict(run())))
        return 0

    assert forked(life) == 0
    return outcome_from(answer)


def outcome_from(path: Path) -> Outcome:
    """An outcome as a child wrote it."""
    told = json.loads(path.read_text())
    verdicts = {entity: tuple(hashes) for entity, hashes in told["verdicts"].items()}
    return Outcome(told["model"], tuple(told["rounds"]), tuple(told["teachers"]), verdicts)


def learned(told: Told | None = None, configuration: Configuration = TINY) -> Outcome:
    """See a real run through in this process, which `told_by_child` has set up."""
    from experiments.worker import FUNCTIONS

    told = told or Told(functions=FUNCTIONS)
    run = put_together(configuration, Log(), told, dataset=digits())
    run.system.run()
    return outcome(run)
