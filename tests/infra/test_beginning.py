"""Where a program begins to read a live run: at a Standing that is proved to count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra import beginning
from infra.beginning import newest_start
from infra.transport.embedded import Embedded as Log
from schemas.codec import pack, records
from schemas.messages import Before, Decision, Paused, Standing
from schemas.topics import Names
from tests.schemas.specimens import NORTH, model
from tests.schemas.test_live_line import FIRST, RUN

NAMES = Names("spring")
TOPIC = NAMES.federation("rounds")
MOST = 2**25


def stood(number: int, before: Standing | None = None) -> Standing:
    """How a run stands in which nothing has happened."""
    return Standing(
        run=RUN,
        number=number,
        before=Before(number=before.number, hash=pack(before).hash) if before else None,
        stages=0, newest=(), lasts=(), rounds=0, rows={}, stage_of_row=(), everybody_rests=False,
        resting=(), members=(), teachers=(), model=model(0), kept=(),
    )  # fmt: skip


def rests(number: int) -> Decision:
    """Something else."""
    return Paused(run=RUN, number=number, entity=NORTH, rests=number % 2 == 0)


def log(*decisions: Decision) -> Log:
    """These lie in the line, behind RunOpened."""
    made = Log()
    for each in (FIRST, *decisions):
        made.append(TOPIC, records(each, source="hands")[1])
    return made


A = stood(2)
B = stood(4, A)
C = stood(6, B)
D = stood(8, C)
LINE = (rests(1), A, rests(3), B, rests(5), C, rests(7), D, rests(9))


@pytest.mark.parametrize("look", [1, 2, 1024])
def test_it_is_the_last_but_two_however_far_one_looks_at_once(
    look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D is the last, so C has counted and B, which C names."""
    monkeypatch.setattr(beginning, "LOOK", look)
    start = newest_start(log(*LINE), NAMES, MOST)

    assert start is not None
    assert (start.standing, start.hash) == (B, pack(B).hash)
    assert (start.opened, start.run, start.place.offsets) == (FIRST, RUN, (4,))


@pytest.mark.parametrize("there", [(), LINE[:2], LINE[:4]])
def test_who_finds_no_third_reads_all(there: tuple[Decision, ...]) -> None:
    """Of the last nothing is proved, and of what the first was told before it, nothing is there."""
    assert newest_start(log(*there), NAMES, MOST) is None


def test_one_that_lost_its_race_is_no_place_to_begin() -> None:
    """Another author wrote other Standings under the same numbers, later; nobody names them."""
    lost = [each.model_copy(update={"kept": (model(0),)}) for each in (A, B, C, D)]
    line = [each for pair in zip((A, B, C, D), lost, strict=True) for each in pair]
    start = newest_start(log(*line), NAMES, MOST)

    assert start is not None
    assert start.standing == B


def test_another_runs_are_passed_over_and_a_wrong_header_costs_a_scan() -> None:
    """Three that another run left under this name; and one whose header hides what it is."""
    other = [each.model_copy(update={"run": "e" * 64}) for each in (A, B, C)]
    start = newest_start(log(*LINE, *other), NAMES, MOST)
    assert start is not None
    assert start.standing == B

    hidden = Log()
    for each in (FIRST, *LINE):
        for record in records(each, source="hands")[1]:
            headers = {"ce_type": "fedtwin.Paused.v1"} if each == C else dict(record.headers)
            hidden.append(TOPIC, [replace(record, headers=headers)])
    assert newest_start(hidden, NAMES, MOST) is None
