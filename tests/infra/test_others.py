"""Which programs have fallen silent, as another hears it, and what they said last."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from infra.others import FORGOTTEN, MISTAKE, MOST, SILENT, Others
from infra.program import NoWorkers
from infra.pulse import BEAT, Pulse
from infra.serve import System
from infra.stopping import STOPPED
from infra.transport.base import Absence
from infra.vitals import Vitals
from schemas.codec import records
from schemas.messages import Away, Ended, Heartbeat
from tests.infra.test_program import METRICS, NAMES, Clock, Echo, around
from tests.infra.test_pulse import Far


class Ear:
    """Somebody who listens every other second, and programs that beat."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.others = Others("aggregator-1")
        self._began: dict[str, float] = {}

    def beat(self, process: str, role: str = "twins", **more: Any) -> None:
        """It says that it lives."""
        began = self._began.setdefault(process, self.now)
        fields: dict[str, Any] = {"at": 0.0, "in_work": (), "waits": (), "up": self.now - began}
        self.others.hear(Heartbeat(run="", process=process, role=role, **fields | more), self.now)
        self.others.heard()

    def later(self, seconds: float, *alive: str) -> None:
        """So long these beat, and others are silent."""
        for _ in range(int(seconds / BEAT)):
            self.now += BEAT
            self.listens()
            for each in alive:
                self.beat(each)

    def listens(self) -> None:
        """It listens, and hears nothing yet."""
        self.others.listens(self.now)
        self.others.heard()

    @property
    def lost(self) -> list[str]:
        """Who is."""
        return [each.process for each in self.others.lost(self.now)]


@pytest.fixture
def ear() -> Ear:
    """Nobody was heard yet."""
    made = Ear()
    made.listens()
    return made


def hosts(*entities: str) -> tuple[tuple[str, int], ...]:
    """Counts of a program whose twins have these entities."""
    return tuple((f"buffered {each}", 3) for each in entities)


def test_a_program_that_was_killed_is_told_with_what_it_was_at(ear: Ear) -> None:
    """Within ten seconds: who, where, which entities, and what it did when it was last heard."""
    north = ("north/a", "north/b", "north/c", "north/d")
    work = ("learn north/a 12", "learn north/b 12")
    ear.beat("twins-1", counts=hosts(*north), in_work=work)
    ear.beat("twins-2", counts=hosts("south/e"))
    ear.later(SILENT, "twins-2")
    assert ear.lost == []
    ear.later(BEAT, "twins-2")

    (lost,) = ear.others.lost(ear.now)
    assert lost == (
        "twins", "twins-1", "north", "north/a, north/b, north/c and 1 more", "silent",
        "was at learn north/a 12 and 1 more", SILENT + BEAT,
    )  # fmt: skip


def test_its_cause_is_what_it_missed_then_its_work_then_its_longest_wait(ear: Ear) -> None:
    """As it said last, without seconds: a label must not change from scrape to scrape."""
    away = (Away(service="redis", why="it does not answer", seconds=4.0),)
    waits = (("proxy waits for a", 1.0), ("proxy waits for prototypes of stage 1", 9.0))
    ear.beat("a", role="proxy", waits=waits)
    ear.beat("b", role="proxy", waits=waits, away=away)
    ear.beat("c", role="proxy")
    ear.later(SILENT + BEAT)
    found = {each.process: each.cause for each in ear.others.lost(ear.now)}

    assert found == {
        "a": "proxy waited for prototypes of stage 1",
        "b": "missed redis: it does not answer; proxy waited for prototypes of stage 1",
        "c": "had nothing to do",
    }


def test_who_ended_by_mistake_says_why_and_who_was_told_to_is_not_lost(ear: Ear) -> None:
    """At once, by its last words; and wrong words at the start are told for a minute."""
    ear.beat("a", ended=Ended(code=1, why="disk full"))
    ear.beat("b", ended=Ended(code=STOPPED, why="told to stop"))
    ear.beat("c", ended=Ended(code=0, why="the run is over"))
    ear.beat("d", ended=Ended(code=2, why="another --metrics-port"))

    told = {each.process: (each.state, each.cause) for each in ear.others.lost(ear.now)}
    assert told == {"a": ("failed", "disk full"), "d": ("failed", "another --metrics-port")}
    ear.later(MISTAKE)
    assert ear.lost == ["a"]


def test_who_was_replaced_is_not_lost_any_more(ear: Ear) -> None:
    """By one of its role at its site that began since; not by one elsewhere, nor one that was there
    before. Under its own name it is back itself."""
    ear.beat("twins-1", counts=hosts("north/a"))
    ear.beat("twins-2", counts=hosts("north/b"))
    ear.later(SILENT + BEAT, "twins-2")
    ear.beat("twins-3", counts=hosts("south/e"))
    ear.beat("proxy-1", role="proxy")
    ear.later(BEAT, "twins-2", "twins-3")
    assert ear.lost == ["twins-1"]

    ear.beat("twins-4", counts=hosts("north/a"))
    assert ear.lost == []

    ear.beat("twins-5", counts=hosts("north/f"))
    ear.later(SILENT + BEAT, "twins-2", "twins-3", "twins-4")
    assert ear.lost == ["proxy-1", "twins-5"]
    ear.beat("twins-5", counts=hosts("north/f"), up=0.0)
    assert ear.lost == ["proxy-1"]


def test_who_could_not_listen_calls_nobody_silent(ear: Ear) -> None:
    """Half a minute without the broker: all have to find back first. Then one does not."""
    ear.beat("twins-1")
    ear.beat("twins-2")
    ear.now += 30
    assert ear.lost == []
    ear.listens()
    assert ear.lost == []
    ear.later(SILENT + BEAT, "twins-2")

    assert ear.lost == ["twins-1"]


def test_who_invents_names_fills_no_memory(ear: Ear) -> None:
    """The newest two hundred are remembered; entities may have any name; an hour is enough."""
    for number in range(3 * MOST):
        ear.beat(f"x-{number}", counts=(("buffered ../\n", 1), ("buffered ", 2)))
    ear.later(SILENT + BEAT)

    assert len(ear.lost) == MOST
    ear.later(FORGOTTEN)
    assert ear.lost == []


def test_the_aggregators_program_tells_of_a_program_that_was_killed() -> None:
    """What lies in `metrics` from before it began it passes over, and with its broker away it
    knows nothing."""
    clock, log = Clock(), Far()
    with closing(log):

        def beat(process: str) -> None:
            said = Heartbeat(run="", process=process, role="twins", at=0.0, in_work=(), waits=())
            log.append(METRICS, records(said, source="twins")[1])

        vitals = Vitals(NAMES.run, "aggregator", "aggregator-1", log, clock)
        twins = Vitals(NAMES.run, "twins", "twins-2", log, clock)
        for told in (vitals, twins):
            told.transport = log
        system = System([Echo()], around(log, clock=clock), NoWorkers())
        pulses = [
            Pulse(system, around(log, clock=clock), NAMES, role=each.role, process=each.process,
                  vitals=each)
            for each in (vitals, twins)
        ]  # fmt: skip
        beat("long-gone")
        for second in range(0, 14, 2):
            clock.now = 1000.0 + second
            for pulse in pulses:
                pulse.beat(clock.now)
            if not second:
                beat("twins-1")

        assert [(each.process, each.seconds) for each in vitals.lost()] == [("twins-1", 10)]
        assert twins.lost() == []
        log.away = Absence("kafka at k:1", "nobody listens there", clock.now)  # type: ignore[assignment]
        assert vitals.lost() == []


def test_one_whose_entities_others_took_over_is_replaced_at_its_own_site_alone(ear: Ear) -> None:
    """north/twins-1 dies, twins-2 hosts its entity; a start at the south replaces nobody."""
    ear.beat("twins-1", counts=hosts("north/a"))
    ear.beat("twins-2", counts=hosts("north/b"))
    ear.later(SILENT + BEAT, "twins-2")
    ear.beat("twins-2", counts=hosts("north/a", "north/b"))
    ear.beat("south-1", counts=hosts("south/c"))

    (lost,) = ear.others.lost(ear.now)
    assert (lost.process, lost.sites, lost.entities) == ("twins-1", "north", "")

    ear.beat("twins-3", counts=hosts("north/a"))
    assert ear.lost == []


def test_invented_names_do_not_push_out_one_that_is_gone(ear: Ear) -> None:
    """Two hundred new names with every beat; who was heard more than once stays."""
    ear.beat("twins-1", counts=hosts("north/a"))
    ear.later(BEAT, "twins-1")
    for number in range(int(SILENT / BEAT) + 1):
        ear.later(BEAT)
        for each in range(MOST):
            ear.beat(f"forged-{number}-{each}")

    assert ear.lost[0] == "twins-1"


def test_what_lasts_is_no_cause(ear: Ear) -> None:
    """A class without a row keeps nobody from anything: the program waited for updates."""
    waits = (("updates of north/a", 3.0), ("room for y: there are rows for 12 classes", 900.0))
    ear.beat("aggregator-2", role="aggregator", waits=waits)
    ear.later(SILENT + BEAT)

    (lost,) = ear.others.lost(ear.now)
    assert lost.cause == "updates of north/a"
