"""What a program knows of itself: whether it is well, what it waits for, how far the run is."""

from __future__ import annotations

from typing import Any

import pytest

from infra.promises import Arrived, Place
from infra.transport.base import Absence
from infra.transport.embedded import Embedded as Log
from infra.vitals import ROUNDS, WELL, Failure, Vitals, kind_of
from schemas.heldout import Loss
from schemas.messages import Away, Heartbeat, Measured, Message
from tests.infra.test_program import NAMES, Clock
from tests.infra.test_pulse import Far
from tests.schemas.specimens import NORTH, SOUTH, model
from tests.schemas.test_live_line import FIRST, RUN, STAGE, closes, opens


def vitals(log: Log | None = None, clock: Clock | None = None) -> Vitals:
    """A program that has just begun."""
    return Vitals("spring", "twins", "twins-1", log or Log(), clock or Clock())


def beat(told: Vitals, waits: dict[str, float] | None = None, **more: Any) -> None:
    """Its loop tells of itself."""
    fields: dict[str, Any] = {"role": "twins", "at": 0.0, "in_work": (), "waits": ()} | more
    told.tell(Heartbeat(run="", process="twins-1", **fields), {}, waits or {}, free=1)


def hear(told: Vitals, *messages: Message) -> None:
    """Its role takes these in."""
    for each in messages:
        hash = RUN if each is FIRST else "a" * 64
        told.overhear(Arrived(Place(NAMES.federation("rounds"), (0,)), hash, each))


# --- is it well -----------------------------------------------------------------------------------


def test_a_program_is_well_while_its_loop_turns() -> None:
    """At first it waits for the run; then it is as old as its last heartbeat."""
    clock = Clock()
    told = vitals(clock=clock)
    first = told.health()
    beat(told, in_work=("learn local/north 3", "learn local/south 3", "judge local/east 1"))
    clock.now += WELL
    busy = told.health()
    clock.now += 1
    late = told.health()

    assert first == (True, "waits for the run to be opened")
    assert busy == (True, "1 judge, 2 learn")
    assert not late.well
    assert late.text.startswith("no heartbeat since 11 s: loop since 11 s: it stands")
    assert [each.part for each in told.failures()] == ["loop"]


def test_while_the_broker_is_away_that_is_the_cause() -> None:
    """Also before the run is opened; the loop stands because of it."""
    clock, log = Clock(), Far()
    log.away = Absence("kafka at k:1", "nobody listens there", clock.now)  # type: ignore[assignment]
    told = vitals(log, clock)
    clock.now += 3
    early = told.health()
    beat(told)
    clock.now += WELL + 1

    assert early == (False, "kafka at k:1 since 3 s: nobody listens there")
    assert list(told.failures()) == [Failure("kafka at k:1", "nobody listens there", 14)]
    assert told.health().text == (
        "no heartbeat since 11 s: kafka at k:1 since 14 s: nobody listens there"
    )


def test_who_can_do_without_a_service_is_well_and_says_what_it_misses() -> None:
    """The proxy reads old models from the log meanwhile."""
    told = vitals()
    beat(told, away=(Away(service="redis", why="it does not answer", seconds=4.0),))

    assert told.health() == (True, "redis since 4 s: it does not answer")
    assert [each.part for each in told.failures()] == ["redis"]


# --- what it waits for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "kind"),
    [
        ("aggregator waits for RunOpened", "run"),
        ("aggregator waits for updates of round 1.3 by local/north", "updates"),
        ("aggregator waits for verdicts of stage 2 by local/a, local/b", "verdicts"),
        ("aggregator waits for the teacher of stage 1", "teacher"),
        ("aggregator waits for the slots of round 1.0", "teacher"),
        ("aggregator waits for a quorum of 2 twins; 1 are ready", "quorum"),
        ("aggregator waits for new images", "images"),
        ("aggregator waits for somebody to find a new class", "classes"),
        ("aggregator waits for others to find new classes as well", "classes"),
        ("aggregator waits for somebody to end the pause", "pause"),
        ("aggregator waits for version 4 of the model, which is not in the log", "model"),
        ("twins waits for local/north: the mark of stage 1", "mark"),
        ("twins waits for local/north: the images of stage 4", "images"),
        ("twins waits for local/north: image 17 of its stream; 12 have come", "images"),
        ("twins waits for local/north: its verdict on stage 2, to read it back", "verdicts"),
        ("twins waits for local/north: its answer to round 1.0, to read it back", "own"),
        ("twins waits for local/north: its EntityJoined", "own"),
        ("twins waits for local/north: StageClosed(0)", "stage"),
        ("proxy waits for prototypes of stage 1: local/north at place 3", "prototypes"),
        ("twins waits to hear where to go on in fedtwin.a.samples.b.c: it begins at 3", "place"),
        ("aggregator waits for an injection", "injection"),
        ("aggregator waits for something that nobody has thought of", "other"),
    ],
)
def test_waits_are_of_few_kinds(wait: str, kind: str) -> None:
    """Whatever they name, so that five hundred entities make no more of them."""
    assert kind_of(wait) == kind


def test_of_each_kind_the_longest_wait_is_told() -> None:
    """Two twins wait for images, one of them for a minute."""
    told = vitals()
    waits = {f"twins waits for local/{name}: image 3 of its stream": s
             for name, s in (("a", 2.0), ("b", 60.0))}  # fmt: skip
    beat(told, waits | {"twins waits for local/c: the mark of stage 1": 1.0})

    assert told.waits == {"images": 60.0, "mark": 1.0}


# --- how far the run is ---------------------------------------------------------------------------


def test_rounds_that_were_seen_have_a_duration_and_those_that_were_read_have_not() -> None:
    """The first round was over before this program began; the second took seven seconds."""
    clock = Clock()
    told = vitals(clock=clock)
    hear(told, FIRST, *STAGE)
    read = told.course
    beat(told)
    hear(told, opens(5, 0, 1, 2))
    opened = told.course
    clock.now += 7
    hear(told, closes(6, 0, 1, 3, counted=((NORTH, "c" * 64), (SOUTH, "c" * 64))))

    assert (read.closed, sum(read.rounds)) == (1, 0)
    assert opened.opened_at is not None
    assert (told.course.closed, told.course.version, told.course.classes) == (2, 3, 2)
    assert told.course.rounds[ROUNDS.index(10.0)] == sum(told.course.rounds) == 1
    assert told.course.seconds == 7
    assert told.course.opened_at is None


def test_the_accuracy_is_of_the_newest_model_that_was_scored() -> None:
    """Version 2 by two entities; what was said of version 1 before is passed over."""
    told = vitals()
    hear(told, FIRST, *STAGE)
    for offset, (version, entity, counts) in enumerate(
        ((1, NORTH, [[9]]), (2, NORTH, [[2, 1], [0, 1]]), (2, SOUTH, [[0, 4], [0, 0]]))
    ):
        classes = ["0", "1"][: len(counts)]
        values = {"model": model(version).sha256, "classes": classes, "counts": counts}
        name = f"held-out/{entity}/{version}"
        told.measured(Measured(run="", name=name, values=values), offset)
    beat(told)

    assert told.accuracy is not None
    assert (told.accuracy.version, told.accuracy.percent) == (2, 37.5)


def test_a_model_that_has_lost_more_than_it_may_is_told_until_one_is_well_again() -> None:
    """90 %, 80 %, 88 % of versions 2, 3 and 4, where five points are the margin."""
    told = vitals()
    hear(told, FIRST, *STAGE)
    found = []
    for version, right in ((2, 45), (3, 40), (4, 44)):
        if version > 2:
            number = 2 * version - 1
            hear(told, opens(number, 0, version - 2, version - 1),
                 closes(number + 1, 0, version - 2, version))  # fmt: skip
        counts = [[right, 50 - right], [50 - right, right]]
        values = {"model": model(version).sha256, "classes": ["0", "1"], "counts": counts}
        name = f"held-out/{NORTH}/{version}"
        told.measured(Measured(run="", name=name, values=values), version)
        beat(told)
        found.append(told.loss)

    assert found == [None, Loss(3, 2, 10.0, 80.0, 90.0), None]
