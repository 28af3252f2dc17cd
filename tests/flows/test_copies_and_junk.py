"""Standbys change nothing, and junk under honest names silences nobody."""

from __future__ import annotations

import random

import pytest

from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from schemas.configuration import Configuration
from schemas.topics import table_row
from tests.flows.federation import (
    Outcome,
    Told,
    disturbed,
    finished,
    letters,
    outcome,
    put_together,
    small,
)
from tests.flows.junk import REPORTED, Littered

FEW, MANY = range(3), range(200, 240)


@pytest.mark.parametrize("copies", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_standbys_change_nothing(quiet: Outcome, copies: int) -> None:
    """Two or three of each: producers, twins, aggregators and proxies, side by side."""
    assert finished(small(), Told(copies=copies)) == quiet


def _undisturbed_by_junk(seed: int, configuration: Configuration, quiet: Outcome) -> None:
    """The run ends as ever, and what was set aside is the junk: all that somebody could judge."""
    strewn: list[Littered] = []

    def littered(log: Transport, chance: random.Random) -> Littered:
        strewn.append(Littered(log, chance, chance.choice((0.1, 0.3))))
        return strewn[0]

    run = disturbed(configuration, seed, copies=1 + seed % 2, over=littered)
    (junk,) = strewn
    aside = {(letter.topic, letter.offset) for letter in letters(run)}

    assert outcome(run) == quiet, f"schedule {seed} forked the run"
    assert len(junk.to_report) > 5
    assert aside <= junk.junk, f"schedule {seed}: something true was set aside"
    assert not {place for place in junk.to_report - aside if junk.holds(*place)}


@pytest.mark.parametrize("seed", FEW)
def test_junk_under_honest_names_changes_nothing(shorter: Outcome, seed: int) -> None:
    """Broken records, other runs, forged decisions, wrong tensors: anywhere, at any moment."""
    _undisturbed_by_junk(seed, small(stages=2), shorter)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_much_more_junk_changes_nothing(quiet: Outcome, seed: int) -> None:
    """The same with three stages, for forty more schedules."""
    _undisturbed_by_junk(seed, small(), quiet)


def test_every_topic_has_somebody_who_says_what_was_wrong() -> None:
    """Over four runs littered with junk most reasons turn up, and every owner writes letters."""
    found = []
    for seed in range(4):
        run = put_together(small(stages=2), Littered(Log(), random.Random(seed), 0.5))
        run.system.run()
        found += letters(run)

    assert {table_row(each.topic).name for each in found} == REPORTED
    assert {each.reason for each in found} >= {
        "unreadable", "bad-hash", "unknown-kind", "unknown-entity", "wrong-shape", "wrong-dtype",
        "not-finite", "label-rules-disagree", "out-of-line",
    }  # fmt: skip
