"""What a program tells of itself while it lives, and with its last words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import pytest

from infra.memory import held
from infra.program import NoWorkers
from infra.pulse import ALL, OVER, Probe, Pulse, Stopped, last_words
from infra.serve import System
from infra.transport.embedded import Embedded as Log
from schemas.codec import PIECE_BYTES, Record, piece, records, unpack
from schemas.errors import FedtwinError, ServiceError
from schemas.messages import Heartbeat
from tests.infra.test_program import METRICS, NAMES, Clock, Echo, around, joined

ENTITIES = 500


class Counting(Echo):
    """A role with many twins, each of which holds some images."""

    def __init__(self) -> None:
        super().__init__()
        self.held = {f"buffered north/entity-{i:03}": 0 for i in range(ENTITIES)}

    def tells(self) -> Iterator[tuple[str, int]]:
        """All of them."""
        yield from self.held.items()


def beats(log: Log) -> list[tuple[Heartbeat, int]]:
    """What was told, and in how many bytes."""
    found = []
    for stored in log.read(METRICS, 0, 2**26):
        message = unpack(piece(stored.record.value, 2**20).content, 2**20)
        assert isinstance(message, Heartbeat)
        found.append((message, len(stored.record.value)))
    return found


def test_five_hundred_twins_are_told_of_in_few_bytes() -> None:
    """All of them at first and once a minute; between, only those that changed."""
    clock, role = Clock(), Counting()
    with closing(Log()) as log:
        system = System([role], around(log, clock=clock), NoWorkers())
        pulse = Pulse(system, around(log, clock=clock), NAMES, role="twins", process="twins-1")
        for number in range(ALL + 1):
            clock.now += 2
            role.held["buffered north/entity-007"] = number
            pulse.beat(clock.now)
        told = beats(log)

    counts = [len(beat.counts) for beat, _ in told]
    assert counts == [ENTITIES, *[1] * (ALL - 1), ENTITIES]
    assert told[5][0].counts == (("buffered north/entity-007", 5),)
    assert max(size for _, size in told[1:ALL]) < 600
    assert told[0][1] < 40 * ENTITIES < PIECE_BYTES
    assert [beat.up for beat, _ in told[:2]] == [2, 4]


def test_what_was_not_read_is_told_by_kind_of_topic() -> None:
    """Three verdicts that nobody has looked at; what was read is not told of."""
    with closing(Log()) as log:
        for number in range(3):
            joined(log, number)
        system = System([Echo()], around(log), NoWorkers())
        before = system.lag()
        system.step()
        system.step()

        assert before == {"classes": 3}
        assert system.lag() == {}


def test_of_many_topics_a_broker_is_asked_seldom() -> None:
    """A thousand of them at every fifth heartbeat; a few at each."""
    asked: list[str] = []

    class Asked(Log):
        def end(self, topic: str) -> int:
            asked.append(topic)
            return super().end(topic)

    told = {}
    for count in (10, 1000):
        role, clock = Echo(), Clock()
        role.topics = tuple(NAMES.of_entity("samples", f"north/e-{i}") for i in range(count))  # type: ignore[assignment]
        with closing(Asked()) as log:
            system = System([role], around(log, clock=clock), NoWorkers())
            pulse = Pulse(system, around(log, clock=clock), NAMES, role="twins", process="t")
            asked.clear()
            for _ in range(10):
                clock.now += 2
                pulse.beat(clock.now)
        told[count] = len([each for each in asked if each in role.topics])

    assert told == {10: 10 * 10, 1000: 2 * 1000}


def test_a_program_knows_how_much_memory_it_holds() -> None:
    """Where the system says it: this one has imported numpy at least."""
    assert held() == 0 or 10**7 < held() < 10**11


def test_a_service_is_missed_from_its_first_silence_on() -> None:
    """Away for six seconds, then back, then away again from anew."""
    clock, there = Clock(), [True]

    def ask() -> None:
        if not there[0]:
            raise ServiceError("nobody listens there")

    probe, told = Probe("redis", ask, clock), []
    for answers in (True, False, False, True, False):
        there[0] = answers
        told.append([(each.why, each.seconds) for each in probe()])
        clock.now += 6

    silent = "nobody listens there"
    assert told == [[], [(silent, 0)], [(silent, 6)], [], [(silent, 0)]]


# --- last words -----------------------------------------------------------------------------------


class Far(Log):
    """A log that is elsewhere, as a broker's is."""

    away = None

    def last(self, topic: str, records: Sequence[Record], seconds: float) -> bool:
        """Written at once."""
        self.append(topic, records)
        return True


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        (None, 0, OVER),
        (Stopped(), 130, "told to stop"),
        (KeyboardInterrupt(), 130, "told to stop"),
        (ServiceError("Redis at r:1 cannot be reached"), 3, "Redis at r:1 cannot be reached"),
        (ServiceError("long " * 200), 3, ("long " * 100)),
        (ServiceError(""), 3, "it does not say why"),
        (KeyError("x"), 1, "unexpected KeyError: 'x'"),
    ],
)
def test_the_last_words_say_why_it_ends(error: BaseException | None, code: int, why: str) -> None:
    """Whatever ends it goes on to end it; and somebody can read why."""
    with closing(Far()) as log:
        with (
            suppress(FedtwinError, KeyError, Stopped, KeyboardInterrupt),
            last_words(log, NAMES, role="proxy", process="proxy-1"),
        ):
            if error is not None:
                raise error
        ((beat, _),) = beats(log)

    assert (beat.process, beat.role) == ("proxy-1", "proxy")
    assert beat.ended is not None
    assert (beat.ended.code, beat.ended.why) == (code, why)


def test_an_older_heartbeat_without_what_is_new_is_read() -> None:
    """A program of the version before says less, and lives all the same."""
    beat = Heartbeat(run="", process="a", role="twins", at=1.0, in_work=(), waits=())
    (record,) = records(beat, source="twins")[1]
    said = unpack(piece(record.value, 2**20).content, 2**20)

    assert said == beat
    assert (beat.up, beat.memory, beat.lag, beat.ended) == (0.0, 0, {}, None)
