"""A group deals a site's twins to the programs that host them, and then leaves them where they are.

The members look as programs do, every fifth of a second and each by itself: what one of them misses
shows only when the others go on meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from infra.kafka import KafkaSettings
from infra.topics import Administration, plan
from infra.transport.group import SESSION, Group
from schemas.topics import Names
from tests.services import have, kafka_address, new_run, swept

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
SITE = "local"
ENTITIES = frozenset(f"{SITE}/entity-{number:03d}" for number in range(4))
LOOK = 0.2
POLLED = 3.0
"""Seconds without a look after which a member here counts as stuck."""
ENOUGH = 60.0  # seconds, of which a few are needed
QUIET = 4.0  # seconds in which a group that does not settle has dealt several times


class Member(threading.Thread):
    """A program that hosts what is dealt to it."""

    def __init__(self, settings: KafkaSettings, names: Names, name: str) -> None:
        super().__init__(daemon=True)
        self.entities: frozenset[str] = frozenset()
        self.generation = -1
        self.awake = threading.Event()
        self.awake.set()
        self.over = threading.Event()
        self._place = settings, names, SITE, name
        self.start()

    def run(self) -> None:
        """Look, and rest; whoever is not awake does neither."""
        with closing(Group(*self._place, session=SESSION, polled=POLLED)) as group:
            while not self.over.is_set():
                self.awake.wait()
                self.entities = group.entities()
                self.generation = group.generation
                self.over.wait(LOOK)


Joins = Callable[[str], Member]


@pytest.fixture
def joins() -> Iterator[Joins]:
    """Makes members of one group, which leave it with the test."""
    settings, names = KafkaSettings(have(kafka_address)), Names(new_run())
    with closing(Administration(settings)) as administration:
        administration.apply(plan(names, "site", [SITE], sorted(ENTITIES), settings))
    members: list[Member] = []

    def join(name: str) -> Member:
        members.append(Member(settings, names, name))
        return members[-1]

    yield join
    for each in members:
        each.over.set()
        each.awake.set()
    for each in members:
        each.join()
    swept(settings, names)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + ENOUGH
    while not holds():
        assert time.monotonic() < end
        time.sleep(LOOK / 4)


def dealt(members: list[Member]) -> list[int]:
    """How many twins each has, the one with the fewest first; none where two have the same one."""
    everything = [entity for each in members for entity in each.entities]
    once = len(everything) == len(set(everything)) and set(everything) == ENTITIES
    return sorted(len(each.entities) for each in members) if once else []


def settled(members: list[Member]) -> bool:
    """Whether the group deals no more: all have heard of the same dealing, and of none since."""
    until(lambda: len({each.generation for each in members}) == 1)
    before = members[0].generation
    time.sleep(QUIET)
    return {each.generation for each in members} == {before}


def test_who_joins_gets_a_share_and_then_nobody_moves(joins: Joins) -> None:
    """Three programs share four twins: two, one and one, and the group has dealt for good."""
    members = [joins("twins-1"), joins("twins-2")]
    until(lambda: dealt(members) == [2, 2])
    members.append(joins("twins-3"))
    until(lambda: dealt(members) == [1, 1, 2])

    assert settled(members)
    assert dealt(members) == [1, 1, 2]


def test_who_does_not_look_loses_its_twins_and_the_others_are_told(joins: Joins) -> None:
    """A main loop that is stuck longer than the interval; when it is not any more, it gets some."""
    members = [joins("twins-1"), joins("twins-2")]
    until(lambda: dealt(members) == [2, 2] and settled(members))
    before = members[0].generation
    members[1].awake.clear()
    until(lambda: members[0].entities == ENTITIES)

    assert members[0].generation > before
    members[1].awake.set()
    until(lambda: dealt(members) == [2, 2])
