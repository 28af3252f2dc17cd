"""What a federation looks like from outside: told by hand, and by programs that fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from experiments.view import OURSELVES, REPLACED, Outage, ProgramView, View, view
from experiments.watching import Heard, Watching
from infra.others import SILENT
from schemas.messages import (
    Away,
    DeadLetter,
    Ended,
    EntityJoined,
    EntityLeft,
    Heartbeat,
    Measured,
    Message,
)
from schemas.topics import Names
from tests.schemas.specimens import NORTH, SOUTH, model
from tests.schemas.test_live_line import FIRST, RUN, STAGE, opens, rests

NAMES = Names("spring")
ROUNDS, METRICS = NAMES.federation("rounds"), NAMES.federation("metrics")
CLASSES, LETTERS = NAMES.of_site("classes", "local"), NAMES.federation("dead-letters")
NOON = 1_790_000_000.0


class Told:
    """A federation that is told by hand; its clock goes on when somebody says so."""

    def __init__(self, *decisions: Message) -> None:
        self.now = NOON
        self.watching = Watching(NAMES, NOON)
        self._offset = 0
        self.say(ROUNDS, FIRST, RUN)
        for each in decisions:
            self.say(ROUNDS, each)

    def say(self, topic: str, message: Message, hash: str = "a" * 64, **more: Any) -> None:
        """Somebody writes, and it is heard at once."""
        self._offset += 1
        more = {"now": self.now, "at": self.now, "fresh": True} | more
        self.watching.hear(Heard(topic, self._offset, message, hash, **more))

    def beats(self, process: str, role: str, *, heard: bool = True, **more: Any) -> None:
        """A program says that it lives."""
        fields: dict[str, Any] = {"at": self.now, "in_work": (), "waits": (), "up": 100.0} | more
        beat = Heartbeat(run="", process=process, role=role, **fields)
        self.say(METRICS, beat, fresh=heard)

    def everybody(self, *but: str, twins: dict[str, Any] | None = None) -> None:
        """One program of each role says that it lives, but for those named."""
        hosts = (f"buffered {NORTH}", 12), (f"buffered {SOUTH}", 0)
        mine: dict[str, Any] = {"counts": hosts} | (twins or {})
        for role in ("aggregator", "twins", "proxy"):
            if role not in but:
                self.beats(f"{role}-1", role, **(mine if role == "twins" else {}))

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    def seen(self, *outages: Outage) -> View:
        """How it stands."""
        return view(self.watching, self.now, outages)


def failed(seen: View) -> dict[str, str]:
    """Part → cause."""
    return {each.part: each.cause for each in seen.failed}


def program(seen: View, name: str) -> ProgramView:
    """One of them."""
    return next(each for each in seen.programs if each.name == name)


# --- what goes well -------------------------------------------------------------------------------


def test_a_run_at_a_glance() -> None:
    """A stage with a closed round and an open one that one of two has answered."""
    told = Told(*STAGE, opens(5, 0, 1, 2))
    for entity in (NORTH, SOUTH):
        told.say(CLASSES, EntityJoined(run=RUN, number=0, entity=entity))
    told.everybody(twins={"lag": {"samples": 40}, "in_work": (f"learn {SOUTH} 5",)})
    told.beats("aggregator-1", "aggregator", counts=((f"answered {NORTH}", 5),))
    told.later(1.5)
    seen = told.seen()

    assert (seen.status, seen.live, seen.stage, seen.rounds) == ("running", True, 0, 1)
    assert (seen.version, seen.head) == (2, ["0", "1"])
    assert seen.round is not None
    assert (seen.round.name, seen.round.seconds) == ("round 0.1", 1.5)
    assert (seen.round.answered, seen.round.missing) == ([NORTH], [SOUTH])
    assert [(e.name, e.state, e.buffered) for e in seen.entities] == [
        (NORTH, "present", 12), (SOUTH, "present", 0),
    ]  # fmt: skip
    assert {each.program for each in seen.entities} == {"twins-1"}
    assert seen.lag == {"twins": {"samples": 40}}
    assert program(seen, "twins-1").entities == 2
    assert seen.failed == []


def test_an_answer_to_another_round_is_none_to_this_one() -> None:
    """What the aggregator counted for decision 3 says nothing of decision 5."""
    told = Told(*STAGE, opens(5, 0, 1, 2))
    told.beats("aggregator-1", "aggregator", counts=((f"answered {NORTH}", 3),))

    assert told.seen().round is not None
    assert told.seen().round.answered == []  # type: ignore[union-attr]


def test_who_rests_and_who_has_left() -> None:
    """Paused by an operator, gone of its own will; and then everybody rests."""
    told = Told(rests(1, NORTH))
    for entity in (NORTH, SOUTH):
        told.say(CLASSES, EntityJoined(run=RUN, number=0, entity=entity))
    told.say(CLASSES, EntityLeft(run=RUN, number=1, entity=SOUTH))
    told.everybody()
    first = told.seen()
    told.say(ROUNDS, rests(2))

    assert [each.state for each in first.entities] == ["paused", "gone"]
    assert first.status == "running"
    assert told.seen().status == "resting"


def test_the_accuracy_is_the_sum_of_what_twins_say() -> None:
    """Three of four and one of one: 80 percent; of the version before, less."""
    told = Told(*STAGE)
    for version, entity, counts in (
        (2, NORTH, [[2, 1], [0, 1]]), (2, SOUTH, [[1, 0], [0, 0]]), (1, NORTH, [[1, 1], [0, 0]]),
    ):  # fmt: skip
        values = {"model": model(version).sha256, "classes": ["0", "1"], "counts": counts}
        name = f"held-out/{entity}/{version}"
        told.say(METRICS, Measured(run="", name=name, values=values))
    seen = told.seen()

    assert [(a.version, a.percent, a.images, a.entities) for a in seen.accuracy] == [
        (2, 80.0, 5, 2), (1, 50.0, 2, 1),
    ]  # fmt: skip


def test_dead_letters_are_counted_once_and_the_newest_is_told() -> None:
    """A copy of the aggregator may write a letter a second time."""
    told = Told()
    for offset in (3, 4, 3):
        letter = DeadLetter(
            run="", topic=CLASSES, offset=offset, about="?", hash="", size=1,
            reason="unreadable", detail=f"no message at {offset}",
        )  # fmt: skip
        told.say(LETTERS, letter, at=NOON + offset)
    told.later(10)
    seen = told.seen()

    assert seen.dead_letters == 2
    assert seen.newest_letter is not None
    assert (seen.newest_letter.offset, seen.newest_letter.seconds) == (4, 6.0)


# --- programs -------------------------------------------------------------------------------------


def test_a_program_that_was_killed_is_lost_after_three_heartbeats() -> None:
    """Not at once: a turn may take long. And its entities are nowhere, it says."""
    told = Told()
    told.everybody()
    told.later(SILENT)
    told.everybody("twins")
    soon = told.seen()
    told.later(1)
    seen = told.seen()

    assert failed(soon) == {}
    assert failed(seen) == {"twins-1": "no heartbeat since 7 s (killed?); 2 entities lived there"}
    assert program(seen, "twins-1").state == "silent"


@pytest.mark.parametrize(
    ("code", "why", "state"),
    [(3, "Redis at r:1 cannot be reached", "failed"), (1, "unexpected KeyError: 'x'", "failed")],
)
def test_who_has_ended_says_why(code: int, why: str, state: str) -> None:
    """Its last words are the first cause."""
    told = Told()
    told.everybody()
    told.beats("proxy-1", "proxy", ended=Ended(code=code, why=why))
    seen = told.seen()

    assert program(seen, "proxy-1").state == state
    assert failed(seen) == {"proxy-1": f"ended: {why}"}


def test_wrong_words_are_no_failed_part_for_long() -> None:
    """Somebody mistyped a command, and sees it; a minute later it is nobody's concern."""
    told = Told()
    told.everybody()
    told.beats("proxy-x", "proxy", up=0.4, ended=Ended(code=2, why="seed is 7 there and 8 here"))
    soon = failed(told.seen())
    told.later(61)
    told.everybody()

    assert soon == {"proxy-x": "ended: seed is 7 there and 8 here"}
    assert failed(told.seen()) == {}
    assert "proxy-x" not in [each.name for each in told.seen().programs]


def test_who_was_told_to_stop_is_missed_only_where_nobody_else_does_its_work() -> None:
    """A second proxy makes up for it; without one the role is missing after a while, and why is
    said."""
    told = Told()
    told.everybody()
    told.beats("proxy-1", "proxy", ended=Ended(code=130, why="told to stop"))
    soon = failed(told.seen())
    told.later(SILENT + 1)
    told.everybody("proxy")
    alone = failed(told.seen())
    told.beats("proxy-2", "proxy", up=500.0)

    assert soon == {}
    assert alone == {"proxy": "none lives: proxy-1 was told to stop"}
    assert failed(told.seen()) == {}


def test_one_that_was_replaced_has_not_failed_and_is_forgotten_in_time() -> None:
    """Another of its role has begun since: a container has a new name each time."""
    told = Told()
    told.everybody()
    told.later(8)
    told.everybody("twins")
    told.beats("twins-2", "twins", up=1.0)
    seen = told.seen()
    told.later(REPLACED)
    told.everybody("twins")
    told.beats("twins-2", "twins", up=REPLACED)

    assert program(seen, "twins-1").state == "silent"
    assert failed(seen) == {}
    assert "twins-1" not in {each.name for each in told.seen().programs}


def test_one_that_was_started_again_tells_how_it_ended_before() -> None:
    """Alive, so nothing has failed; but somebody will want to know."""
    told = Told()
    told.everybody()
    told.beats("proxy-1", "proxy", ended=Ended(code=3, why="Redis cannot be reached"))
    told.beats("proxy-1", "proxy", up=1.0)
    seen = told.seen()

    assert program(seen, "proxy-1").state == "alive"
    assert program(seen, "proxy-1").before == "Redis cannot be reached"
    assert failed(seen) == {}


@pytest.mark.parametrize("off", [-3600.0, 3600.0])
def test_a_clock_that_goes_wrong_makes_nobody_dead_or_alive(off: float) -> None:
    """Who is heard lives, whatever the hour there; who is not is lost after a while."""
    told = Told()
    told.everybody("twins")
    told.beats("twins-1", "twins", at=told.now + off)
    heard = failed(told.seen())
    told.later(SILENT + 1)
    told.everybody("twins")

    assert heard == {}
    assert list(failed(told.seen())) == ["twins-1"]


def test_what_was_said_before_we_looked_is_judged_by_its_own_clock() -> None:
    """Seven seconds ago: lost, at the first look. From the future: not before we have waited."""
    told = Told()
    told.everybody("twins", "proxy")
    told.beats("twins-1", "twins", heard=False, at=NOON - 7)
    told.beats("proxy-1", "proxy", heard=False, at=NOON + 3600)
    first = failed(told.seen())
    told.later(SILENT + 1)
    told.everybody("twins", "proxy")

    assert first == {"twins-1": "no heartbeat since 7 s (killed?)"}
    assert set(failed(told.seen())) == {"twins-1", "proxy-1"}


def test_a_federation_that_was_ended_has_not_failed() -> None:
    """All were told to stop: hours later nobody is missed."""
    told = Told()
    for role in ("aggregator", "twins", "proxy"):
        told.beats(f"{role}-1", role, ended=Ended(code=130, why="told to stop"))
    told.later(7200)

    assert told.seen().status == "ended"
    assert told.seen().failed == []


# --- services -------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_told_by_whoever_misses_it() -> None:
    """The proxy goes on without, so nothing else shows it."""
    told = Told()
    told.everybody("proxy")
    away = Away(service="redis", why="nobody listens there", seconds=4.0)
    told.beats("proxy-1", "proxy", away=(away,))
    told.later(1)
    seen = told.seen()

    assert seen.services == [Outage("redis", "proxy-1", "nobody listens there", 5.0)]
    assert failed(seen) == {"redis": "away since 5 s, says proxy-1: nobody listens there"}


def test_while_the_broker_is_away_it_alone_has_failed() -> None:
    """Who cannot be heard need not be dead; when it is back, all get the time to find back."""
    told = Told()
    told.everybody()
    told.later(60)
    broker = Outage("kafka at k:1", OURSELVES, "it does not answer", 57.0)
    during = told.seen(broker)
    told.watching.hearing_since = told.now
    told.later(2)
    back = told.seen()
    told.later(SILENT)

    assert failed(during) == {
        "kafka at k:1": f"away since 57 s, says {OURSELVES}: it does not answer"
    }
    assert failed(back) == {}
    assert set(failed(told.seen())) == {"aggregator-1", "twins-1", "proxy-1"}


# --- twins that stall a round ---------------------------------------------------------------------


def test_a_twin_that_stalls_the_round_is_named_with_what_it_waits_for() -> None:
    """Its program has nothing in work for seven seconds, and the round waits for it."""
    told = Told(*STAGE, opens(5, 0, 1, 2))
    lacks = f"twins waits for {SOUTH}: image 9 of its stream; 4 have come"
    for _ in range(4):
        told.everybody(twins={"waits": ((lacks, 5.0),)})
        told.beats("aggregator-1", "aggregator", counts=((f"answered {NORTH}", 5),))
        told.later(SILENT / 3 + 0.1)
    seen = told.seen()

    assert failed(seen) == {SOUTH: f"stalls the open round: {lacks}"}


@pytest.mark.parametrize("busy", [{"in_work": (f"learn {SOUTH} 5",)}, {"queued": 1}])
def test_a_long_training_stalls_nothing(busy: dict[str, Any]) -> None:
    """A minute in work is work; and so is one in the queue, where a machine's cores are taken."""
    told = Told(*STAGE, opens(5, 0, 1, 2))
    for _ in range(30):
        told.everybody(twins=busy)
        told.later(2)

    assert failed(told.seen()) == {}


def test_who_is_lost_takes_twins_with_it() -> None:
    """The program was killed, and so its two twins stall the round: one line tells it."""
    told = Told(*STAGE, opens(5, 0, 1, 2))
    told.everybody()
    told.later(SILENT + 1)
    told.everybody("twins")
    seen = told.seen()

    assert failed(seen) == {
        "twins-1": "no heartbeat since 7 s (killed?); 2 entities lived there, and the open round"
        " waits for 2"
    }


def test_of_several_failures_the_oldest_comes_first() -> None:
    """Redis is away for as long as a minute, a program for seven seconds."""
    told = Told()
    told.everybody()
    told.later(SILENT + 1)
    told.everybody("aggregator", "proxy")
    told.beats("aggregator-1", "aggregator")
    away = Away(service="redis", why="it does not answer", seconds=60.0)
    told.beats("proxy-1", "proxy", away=(away,))
    told.later(SILENT + 1)
    told.everybody("twins", "proxy")
    told.beats("proxy-1", "proxy", away=(away,))

    assert [each.part for each in told.seen().failed] == ["redis", "twins-1"]


def test_five_hundred_twins_that_stall_are_counted_not_listed() -> None:
    """Five by name, and how many more."""
    everyone = [f"local/e-{i:03}" for i in range(500)]
    told = Told(*STAGE, opens(5, 0, 1, 2, who=everyone))
    counts = tuple((f"buffered {each}", 3) for each in everyone)
    for _ in range(5):
        told.everybody(twins={"counts": counts})
        told.later(2)
    seen = told.seen()

    assert [each.part for each in seen.failed] == [*everyone[:5], "and 495 more"]


# --- order ----------------------------------------------------------------------------------------


def test_an_older_heartbeat_that_is_read_later_changes_nothing() -> None:
    """The newest part of `metrics` is read first."""
    told = Told()
    told.everybody(twins={"counts": ((f"buffered {NORTH}", 5),)})
    newest = told.seen()
    beat = Heartbeat(
        run="", process="twins-1", role="twins", at=NOON - 50, in_work=(), waits=(),
        counts=((f"buffered {NORTH}", 99),),
    )  # fmt: skip
    told.watching.hear(Heard(METRICS, 0, beat, "a" * 64, now=NOON))

    assert told.seen() == newest


def test_a_view_is_equal_to_itself_as_json() -> None:
    """Table and JSON come from one object, so nothing in it may be without a name."""
    import json
    from dataclasses import asdict

    told = Told(*STAGE, opens(5, 0, 1, 2))
    told.everybody()
    seen = told.seen()

    assert json.loads(json.dumps(asdict(seen)))["round"]["missing"] == [NORTH, SOUTH]
    assert replace(seen) == seen
