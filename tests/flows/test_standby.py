"""Two aggregators of a live run, and whoever would have them wait: what they decide, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from infra.promises import Role
from infra.serve import Session, Surroundings
from infra.standby import Standby
from infra.telemetry import Tally
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record, records
from schemas.messages import Heartbeat, TeacherChosen
from tests.flows.alive import ALL, EAST, NAMES, Alive
from tests.flows.federation import attend, put_together, small

METRICS, ROUNDS = NAMES.federation("metrics"), NAMES.federation("rounds")
AFTER = 10.0
LOOK = 2.0  # seconds between two looks here


class Watched:
    """A live run whose aggregators are programs: each with surroundings and a name of its own."""

    def __init__(self, copies: int = 1, *, alone: bool = True) -> None:
        self.run = Alive(copies=copies, order=lambda all: list(all)[::-1])
        self.standbys: dict[str, Standby] = {}
        self.around: dict[str, Surroundings] = {}
        for number in range(copies):
            self.begins(f"aggregator-{number}", alone=alone and not number)

    def begins(self, process: str, *, alone: bool = False) -> None:
        """An aggregator's program begins to look who else lives."""
        session = self.session(self.run.roles[process])
        session._around = self.around[process] = replace(session._around, tally=Tally())
        self.standbys[process] = Standby(
            session._around, NAMES, role="aggregator", process=process, after=AFTER, alone=alone
        )

    def session(self, role: Role) -> Session:
        """In which a role lives."""
        return next(each for each in self.run.system.sessions if each.role is role)

    def said(self, process: str) -> Counter[str]:
        """What it has written since it began, by kind of topic."""
        return self.around[process].tally.said

    def beat(self, process: str) -> None:
        """Somebody says that this aggregator lives."""
        said = Heartbeat(run="", process=process, role="aggregator", at=0.0, in_work=(), waits=())
        self.run.log.append(METRICS, records(said, source="aggregator")[1])

    def goes_on(self, seconds: float, besides: Callable[[], None] = lambda: None) -> None:
        """Time passes; every two seconds all look, and those who live say so."""
        for _ in range(int(seconds / LOOK)):
            for process in self.standbys:
                self.beat(process)
            besides()
            for standby in self.standbys.values():
                standby.look()
            self.run.settle()
            self.run.now += LOOK - 0.4

    def dies(self, process: str) -> None:
        """It says nothing any more."""
        self.run.vanish(process)
        del self.standbys[process]


def test_who_says_that_another_leads_starves_nobody() -> None:
    """Somebody may write `metrics` and his own `classes`: he beats for an aggregator whose name
    comes first, and pours junk. The only aggregator decides as much as if nobody did."""

    def decided(malice: bool) -> list[str]:
        watched = Watched()
        watched.run.settle()

        def besides() -> None:
            if malice:
                watched.beat("!")
                watched.run.log.append(NAMES.of_site("classes", "b"), [Record("j", b"junk")])

        watched.goes_on(4, besides)
        for entity in ALL:
            watched.run.stream(entity, "012")
        watched.goes_on(60, besides)
        return watched.run.kinds()

    assert decided(malice=True) == decided(malice=False)
    assert decided(malice=True).count("RoundClosed") == 3


def test_who_begins_among_such_words_waits_for_its_first_decision_alone() -> None:
    """It cannot know that nobody else is there: that costs what a standby waits, once."""
    watched = Watched()
    run = watched.run
    run.settle()
    for entity in ALL:
        run.stream(entity, "012")
    run.settle()
    run.restart()
    watched.begins("aggregator-0")
    seconds = 0.0
    while "RoundClosed" not in run.kinds():
        seconds += LOOK
        watched.goes_on(LOOK, lambda: watched.beat("!"))

    assert AFTER <= seconds <= 2 * AFTER + LOOK  # what twins find is collected for ten seconds


def test_a_standby_decides_nothing_while_the_first_is_well() -> None:
    """Through a growth and three rounds, though it is the first to look each time."""
    watched = Watched(2)
    watched.run.settle()
    watched.goes_on(4)
    for entity in ALL:
        watched.run.stream(entity, "012")
    watched.goes_on(AFTER + LOOK)

    assert watched.run.kinds().count("RoundClosed") == 3
    assert watched.said("aggregator-0")["rounds"] == len(watched.run.kinds())
    assert not watched.said("aggregator-1")


def test_a_standby_goes_on_in_time_whatever_is_poured_into_its_topics() -> None:
    """The first dies; somebody beats in its place, and writes junk all the time."""
    watched = Watched(2)
    run = watched.run
    run.settle()
    watched.goes_on(4)
    watched.dies("aggregator-0")
    for entity in ALL:
        run.stream(entity, "012")

    def besides() -> None:
        watched.beat("aggregator-0")
        run.log.append(NAMES.of_site("updates", "b"), [Record("j", b"junk")])

    watched.goes_on(AFTER, besides)  # what twins find is collected for as long
    assert run.kinds() == ["RunOpened"]
    watched.goes_on(AFTER + LOOK, besides)

    assert run.kinds().count("RoundClosed") == 3


def test_a_proxys_standby_goes_on_in_time_whatever_is_poured_into_its_topics() -> None:
    """Told to stand by, with nobody before it: somebody writes junk among the prototypes."""
    run = Alive()
    run.settle()
    session = next(s for s in run.system.sessions if s.role is run.roles["proxy-0"])
    session._around = replace(session._around, standby_after=AFTER)
    for entity in ALL:
        run.stream(entity, "012")
    run.after(AFTER)
    run.stream(EAST, "7", 24)
    run.after(AFTER)
    assert run.line.stages[0].closed is not None
    assert not run.teachers

    seconds = 0.0
    while not run.teachers:
        run.log.append(NAMES.of_site("prototypes", "b"), [Record("j", b"junk")])
        run.settle()
        seconds += LOOK
        run.now += LOOK - 0.4

    assert AFTER - LOOK <= seconds <= AFTER + LOOK


def test_who_stands_by_sees_when_it_could_decide() -> None:
    """All that an aggregator and a proxy decide could be seen to be next, before it was said."""
    run = put_together(small(), Log())
    decided = attend(run)
    run.system.run()

    assert [each.identity for each, could in decided if not could] == []
    assert sum(isinstance(each, TeacherChosen) for each, _ in decided) == 2
    assert len(decided) > 20
