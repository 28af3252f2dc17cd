"""Who looks at a federation reads beside it, and goes on whatever becomes of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from experiments import watch
from experiments.view import OURSELVES, View
from experiments.watch import Connect, Looking, Source
from infra.transport.base import Stored
from infra.transport.embedded import Embedded as Log
from schemas.codec import records
from schemas.errors import ConfigurationError, RunFailed, ServiceError
from schemas.messages import DeadLetter, Heartbeat, Measured, Message
from schemas.topics import Names
from tests.experiments.hands import fedtwin, ran, told
from tests.schemas.specimens import NORTH, model
from tests.schemas.test_live_line import FIRST, STAGE

NAMES = Names("spring")
METRICS, ROUNDS = NAMES.federation("metrics"), NAMES.federation("rounds")
LETTERS = NAMES.federation("dead-letters")
PATIENCE = 10.0
Look = Callable[..., Looking]


@pytest.fixture
def look() -> Iterator[Look]:
    """Looks, and ends with the test."""
    with ExitStack() as held:

        def at(connect: Connect) -> Looking:
            return held.enter_context(closing(Looking(NAMES, [Source("the log", connect)])))

        yield at


def say(folder: Path, topic: str, *messages: Message) -> None:
    """Somebody writes."""
    with closing(Log(folder / "log.sqlite")) as log:
        for each in messages:
            log.append(topic, records(each, source="x")[1])


def beat(process: str, **more: Any) -> Heartbeat:
    """A program says that it lives."""
    fields: dict[str, Any] = {"role": "twins", "at": time.time(), "in_work": (), "waits": ()}
    return Heartbeat(run="", process=process, **(fields | more))


def until(looking: Looking, holds: Callable[[View], bool]) -> View:
    """The first view in which something holds."""
    end = time.monotonic() + PATIENCE
    while not holds(seen := looking.view()):
        assert time.monotonic() < end, seen
        time.sleep(0.01)
    return seen


def caught_up(looking: Looking) -> View:
    """The view when all was read."""
    return until(looking, lambda seen: looking.readers[0].caught_up)


def opened(folder: Path) -> Connect:
    """A log with a run in which a stage has had a round."""
    say(folder, ROUNDS, FIRST, *STAGE)
    return lambda: Log(folder / "log.sqlite")


def test_what_comes_is_seen_and_what_was_there(tmp_path: Path, look: Look) -> None:
    """The round that was closed, and then a program that begins to speak."""
    looking = look(opened(tmp_path))
    first = caught_up(looking)
    say(tmp_path, METRICS, beat("twins-1"))
    seen = until(looking, lambda seen: bool(seen.programs))

    assert (first.rounds, first.version, first.programs) == (1, 2, [])
    assert (seen.programs[0].name, seen.programs[0].state) == ("twins-1", "alive")
    assert looking.there


def test_the_newest_heartbeats_come_first_and_old_measurements_still_count(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred records ten are read at first: of the others only what was measured."""
    monkeypatch.setattr(watch, "TAIL", 10)
    counts = {"model": model(2).sha256, "classes": ["0"], "counts": [[3]]}
    connect = opened(tmp_path)
    scored = Measured(run="", name=f"held-out/{NORTH}/2", values=counts)
    old, new = beat("twins-0", at=1.0), beat("twins-1")
    say(tmp_path, METRICS, scored, *[old] * 50, *[new] * 50)
    seen = caught_up(look(connect))

    assert [each.name for each in seen.programs] == ["twins-1"]
    assert [each.percent for each in seen.accuracy] == [100.0]


def test_a_run_that_is_not_there_yet(tmp_path: Path, look: Look) -> None:
    """It says which others are, and sees it as soon as it is there."""
    say(tmp_path, "fedtwin.summer.rounds", FIRST)
    looking = look(lambda: Log(tmp_path / "log.sqlite"))
    caught_up(looking)
    assert (looking.there, looking.readers[0].others) == (False, ["summer"])
    opened(tmp_path)
    until(looking, lambda seen: seen.rounds == 1 and bool(looking.there))


def test_a_broker_that_cannot_be_reached_and_then_can(tmp_path: Path, look: Look) -> None:
    """Its cause is told at once, and nothing else until it is back."""
    connect, there = opened(tmp_path), Event()

    def reach() -> Log:
        if not there.is_set():
            raise ServiceError("Kafka at k:1 cannot be reached: nobody listens there")
        log = connect()
        assert isinstance(log, Log)
        return log

    looking = look(reach)
    away = until(looking, lambda seen: bool(seen.services))
    there.set()
    back = until(looking, lambda seen: seen.rounds == 1 and not seen.services)

    assert [(each.part, OURSELVES in each.cause) for each in away.failed] == [("the log", True)]
    assert "nobody listens there" in away.failed[0].cause
    assert back.failed == []


def test_a_broker_that_does_not_answer(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that does not come back is noticed from outside, and so is that it has."""
    monkeypatch.setattr(watch, "STUCK", 1.0)
    opened(tmp_path)
    goes_on = Event()
    goes_on.set()

    class Slow(Log):
        def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
            goes_on.wait()
            return super().read(topic, place, max_bytes)

    looking = look(lambda: Slow(tmp_path / "log.sqlite"))
    caught_up(looking)
    goes_on.clear()
    away = until(looking, lambda seen: bool(seen.services))
    goes_on.set()
    until(looking, lambda seen: not seen.services)

    assert away.services[0].why == "it does not answer"
    assert looking.watching.hearing_since is not None


def test_a_topic_that_we_have_no_right_to_is_left_out_and_named(tmp_path: Path, look: Look) -> None:
    """The rest is seen all the same."""
    opened(tmp_path)

    class Guarded(Log):
        def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
            if topic == LETTERS:
                raise ConfigurationError("Kafka gives no right to read it")
            return super().read(topic, place, max_bytes)

    seen = caught_up(look(lambda: Guarded(tmp_path / "log.sqlite")))

    assert seen.unread == {LETTERS: "Kafka gives no right to read it"}
    assert seen.rounds == 1


def test_a_run_that_is_made_anew_under_its_name(tmp_path: Path, look: Look) -> None:
    """What was heard of the one before is forgotten."""
    opened(tmp_path)
    letter = DeadLetter(
        run="", topic=ROUNDS, offset=1, about="?", hash="", size=1, reason="bad-hash", detail="x"
    )
    say(tmp_path, LETTERS, letter)
    anew, folder = Event(), [tmp_path]

    class Remade(Log):
        def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
            if anew.is_set():
                anew.clear()
                raise RunFailed(f"{topic} was made anew")
            return super().read(topic, place, max_bytes)

    looking = look(lambda: Remade(folder[0] / "log.sqlite"))
    first = caught_up(looking)
    folder[0] = tmp_path / "second"
    folder[0].mkdir()
    say(folder[0], ROUNDS, FIRST)
    anew.set()
    seen = until(looking, lambda seen: seen.rounds == 0 and seen.version == 0)

    assert (first.rounds, first.dead_letters) == (1, 1)
    assert seen.dead_letters == 0


def test_junk_is_passed_over(tmp_path: Path, look: Look) -> None:
    """What is no message, and what does not belong there: others set it aside."""
    from schemas.codec import Record

    connect = opened(tmp_path)
    with closing(Log(tmp_path / "log.sqlite")) as log:
        log.append(METRICS, [Record("a", b"junk")])
    say(tmp_path, METRICS, STAGE[0])
    say(tmp_path, ROUNDS, beat("twins-9"))
    seen = caught_up(look(connect))

    assert (seen.rounds, seen.programs) == (1, [])


def test_a_decision_of_a_later_program_is_named(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided behind it is not guessed at; everything else is seen."""
    say(tmp_path, ROUNDS, FIRST)
    with monkeypatch.context() as next_release:
        next_release.setattr(type(STAGE[0]), "schema_number", 2)
        say(tmp_path, ROUNDS, *STAGE)
    say(tmp_path, METRICS, beat("twins-9"))
    seen = caught_up(look(lambda: Log(tmp_path / "log.sqlite")))

    said = f"{STAGE[0].kind()} of schema 2; this program reads schema 1"
    assert said in seen.unread[ROUNDS]
    assert (seen.rounds, len(seen.programs)) == (0, 1)


# --- as it is typed -------------------------------------------------------------------------------


def test_a_run_in_a_folder_that_is_over(tmp_path: Path) -> None:
    """Its whole story, as a table and as one object; and whoever follows it ends at once."""
    folder = tmp_path / "run"
    ran(folder)
    once = fedtwin("watch", folder, "--once")
    seen = told("watch", folder)
    followed = fedtwin("watch", folder)

    assert once.exit_code == 0
    assert "over, stage 1" in once.stdout
    assert "nothing has failed" in once.stdout
    assert (seen["status"], seen["failed"], seen["schema"]) == ("over", [], 1)
    assert len(seen["head"]) == 6
    assert followed.exit_code == 0
    assert "over, stage 1" in followed.stdout


def test_a_run_that_nobody_has_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is none, and no name at all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDTWIN_RUN", raising=False)
    wrong = fedtwin("watch", tmp_path / "nothing", "--once")
    unnamed = fedtwin("watch", "--once")

    assert (wrong.exit_code, unnamed.exit_code) == (4, 2)
    assert "fedtwin ls" in wrong.stderr
    assert "FEDTWIN_RUN" in unnamed.stderr
