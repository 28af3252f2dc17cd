"""The aggregator's program says that a model is worse, wherever it was brought up."""

from __future__ import annotations

from contextlib import closing

import pytest

from aggregator.__main__ import Alarm
from aggregator.aggregator import Aggregator
from infra.serve import System
from infra.shelf import Shelf
from infra.transport.embedded import Embedded as Log
from infra.vitals import Vitals
from infra.workers import Inline
from schemas.codec import piece, unpack
from schemas.heldout import Loss
from schemas.limits import LEAST_BYTES
from schemas.messages import Measured
from tests.infra.test_program import NAMES, around

METRICS = NAMES.federation("metrics")


def test_each_worse_model_is_said_once_in_the_log_and_in_metrics(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Version 4 is worse at two looks, then none is, then version 6 is."""
    with closing(Log()) as log:
        shelf = Shelf(log, NAMES.federation("models"), LEAST_BYTES)
        role = Aggregator(NAMES, ["local"], None, shelf)
        vitals = Vitals(NAMES.run, "aggregator", "aggregator-1", log)
        alarm = Alarm(NAMES, vitals, log, role)
        system = System([], around(log), Inline({}))
        worse = Loss(4, 2, 10.0, 80.0, 90.0)
        for vitals.loss in (None, worse, worse, None, Loss(6, 2, 7.5, 82.5, 90.0)):
            alarm.look(system)
        stored = log.read(METRICS, 0, 10**6)
        said = [unpack(piece(e.record.value, LEAST_BYTES).content, LEAST_BYTES) for e in stored]

    assert capsys.readouterr().err.splitlines() == [
        f"aggregator: {worse.words}",
        "aggregator: version 6 has lost 7.5 points held out at the sites: 82.5 % where version 2"
        " has 90.0 %",
    ]
    assert [each.name for each in said if isinstance(each, Measured)] == ["alarm/4", "alarm/6"]
    assert isinstance(said[0], Measured)
    assert said[0].values == {"before": 2, "points": 10.0, "accuracy": 80.0, "better": 90.0}
