"""Which of several programs of a role leads: the living one whose name comes first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.pulse import BEAT, LIVES
from infra.serve import Surroundings
from infra.shelf import Shelf
from infra.standby import HEARD, Standby
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record, records
from schemas.messages import Heartbeat
from schemas.topics import Names

NAMES = Names("spring")
METRICS = NAMES.federation("metrics")
AFTER = 7.0


class Two:
    """A log, a clock, and programs that beat."""

    def __init__(self) -> None:
        self.log = Log()
        self.now = 1000.0

    def beat(self, process: str, role: str = "aggregator") -> None:
        """A program says that it lives."""
        said = Heartbeat(run="", process=process, role=role, at=0.0, in_work=(), waits=())
        self.log.append(METRICS, records(said, source=role)[1])

    def begins(self, process: str, *, alone: bool = False) -> tuple[Surroundings, Standby]:
        """Another one begins to look."""
        shelf = Shelf(self.log, NAMES.federation("models"), 2**20)
        around = Surroundings(self.log, shelf, 2**20, clock=lambda: self.now)
        after = Standby(around, NAMES, role="aggregator", process=process, after=AFTER, alone=alone)
        return around, after


@pytest.fixture
def two() -> Iterator[Two]:
    """At a moment of their own."""
    made = Two()
    yield made
    made.log.close()


def test_who_opens_a_federation_leads_at_once(two: Two) -> None:
    """Nobody can be there yet."""
    around, _ = two.begins("b", alone=True)

    assert around.standby_after == 0


def test_who_comes_later_waits_until_it_would_have_heard_of_others(two: Two) -> None:
    """Four seconds in which nobody beats: then it leads. What was said before it counts for none,
    for nobody knows when."""
    two.beat("a")
    around, standby = two.begins("b")

    assert around.standby_after == AFTER
    two.now += HEARD - BEAT
    standby.look()
    assert around.standby_after == AFTER
    two.now += BEAT
    standby.look()
    assert around.standby_after == 0


def test_it_stands_by_while_the_first_lives_and_leads_when_that_is_dead(two: Two) -> None:
    """Ten seconds after its last word; and stands by again when it is back."""
    around, standby = two.begins("b", alone=True)
    two.beat("a")
    two.log.append(METRICS, [Record("junk", b"junk")])
    two.now += BEAT
    standby.look()
    assert around.standby_after == AFTER

    two.now += LIVES
    standby.look()
    assert around.standby_after == 0

    two.beat("a")
    two.now += BEAT
    standby.look()
    assert around.standby_after == AFTER


def test_neither_itself_nor_those_behind_it_nor_other_roles_count(two: Two) -> None:
    """A proxy called a, its own heartbeat, and a third one."""
    around, standby = two.begins("b", alone=True)
    two.beat("a", role="proxy")
    two.beat("b")
    two.beat("c")
    two.now += BEAT
    standby.look()

    assert around.standby_after == 0
