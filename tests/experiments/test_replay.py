"""A log is folded again, and comes to the same bytes, or says where it does not."""

from __future__ import annotations

from contextlib import closing

import pytest

from experiments.replay import Replay
from infra.transport.embedded import Embedded as Log
from infra.workers import Inline
from schemas.codec import records
from schemas.errors import DataError
from schemas.messages import GlobalModel, Groups, ModelName, RoundClosed, RoundOpened
from schemas.tensors import WIRES, groups_sha256
from tests.flows.federation import NAMES, Told, put_together, small
from tests.flows.learner import FAKES


def ran(log: Log, **overrides: object) -> None:
    """A small run, to its end."""
    put_together(small(**overrides), log, Told()).system.run()


@pytest.mark.parametrize("wire", WIRES)
def test_every_decision_and_sum_is_made_anew(wire: str) -> None:
    """Three stages of two rounds: a first model, three growths and six sums are ten versions."""
    with closing(Log()) as log:
        ran(log, keep_rounds="all", wire=wire)
        found = Replay(log, NAMES).fold()

    assert not found.different
    assert (found.versions, found.grown, found.summed) == (10, 4, 6)
    assert (found.read, found.gone) == (0, 0)
    assert found.decisions == 1 + 3 + 6 * 2 + 3


def test_what_was_let_go_is_only_read() -> None:
    """Of six rounds the newest update stays: one sum is made anew; of the others copies are read,
    where they are left."""
    with closing(Log()) as log:
        ran(log)
        found = Replay(log, NAMES).fold()

    assert not found.different
    assert found.summed == 1
    assert found.read + found.gone == 5
    assert found.read >= 1


def test_what_no_reader_took_is_counted() -> None:
    """Somebody writes another decision of an old number, one with the next number that fits
    nowhere, and one far ahead; and a decision twice, which nobody need hear of."""
    with closing(Log()) as log:
        whole = put_together(small(keep_rounds="all"), log, Told())
        whole.system.run()
        line = whole.aggregator.line
        again = line.decisions[3]
        for number in (3, 2, line.number + 1, line.number + 100):
            forged = again.model_copy(update={"number": number})
            log.append(NAMES.federation("rounds"), records(forged, source="somebody")[1])
        found = Replay(log, NAMES).fold()

    assert not found.different
    assert (found.beaten, found.refused) == (1, 2)
    assert found.decisions == 1 + 3 + 6 * 2 + 3


def test_a_run_is_trained_again_from_its_samples() -> None:
    """Two twins in each of six rounds: twelve trainings, and every decision is the same."""
    with closing(Log()) as log:
        ran(log, keep_rounds="all", keep_samples=True)
        folded = Replay(log, NAMES)
        found = folded.fold()
        folded.retrain(Inline(FAKES), found)

    assert not found.different
    assert found.trained == 12


def test_samples_that_were_let_go_cannot_be_trained_on_again() -> None:
    """It says so, and what to do beforehand."""
    with closing(Log()) as log:
        ran(log)
        folded = Replay(log, NAMES)
        with pytest.raises(DataError, match="keep_samples=true"):
            folded.retrain(Inline(FAKES), folded.fold())


def test_a_model_that_no_updates_come_to_is_found() -> None:
    """Somebody closed a round with a model of its own, whose name and copy agree."""
    with closing(Log()) as log:
        whole = put_together(small(keep_rounds="all"), log, Told())
        while whole.aggregator.line.open_round is None:
            whole.system.step()
        opened = whole.aggregator.line.open_round
        assert isinstance(opened, RoundOpened)
        while len(whole.observer.answered.get(opened.number, ())) < len(opened.participants):
            for session in whole.system.sessions:
                if session.role is not whole.aggregator:
                    session.step()
            whole.system._dispatch()
            for key, result in whole.system._workers.finished(0):
                session, id = whole.system._in_work.pop(key)
                session.finish([(id, result)])
        _close_wrongly(log, opened, whole.shelf.groups(opened.base))
        found = Replay(log, NAMES).fold()

    assert found.different == [f"decision {opened.number + 1}: RoundClosed"]


def _close_wrongly(log: Log, opened: RoundOpened, groups: Groups) -> None:
    """Write a model that nobody trained, and the decision that names it."""
    replay = Replay(log, NAMES)
    replay.fold()
    answers = replay._answers[opened.number]
    changed = {**groups, "model": {**groups["model"], "fc.bias": groups["model"]["fc.bias"] + 1}}
    version = opened.base.version + 1
    name = ModelName(version=version, sha256=groups_sha256(changed))
    model = GlobalModel(run=opened.run, version=version, groups=changed)
    log.append(NAMES.federation("models"), records(model, source="x", key=name.key)[1])
    closed = RoundClosed(
        run=opened.run,
        number=opened.number + 1,
        opened=opened.number,
        stage=opened.stage,
        round=opened.round,
        counted=tuple(sorted((entity, each[0][0]) for entity, each in answers.items())),
        withheld=(),
        model=name,
    )
    log.append(NAMES.federation("rounds"), records(closed, source="x")[1])
