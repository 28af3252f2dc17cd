"""A role as a program: it waits its turn as a standby, gives up in time, and stops when told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from infra import program
from infra.program import NoWorkers, arguments, ended, life, run_opened, serve, stoppable
from infra.promises import Answer, Arrived, Result, Say
from infra.pulse import Stopped
from infra.serve import Session, Surroundings, System
from infra.settings import Settings
from infra.shelf import Shelf
from infra.stopping import STOPPED
from infra.transport.embedded import Embedded as Log
from schemas.codec import records
from schemas.errors import ConfigurationError, DataError, Stalled
from schemas.messages import Heartbeat, Measured, RunOpened
from schemas.topics import Names
from tests.schemas.test_live_line import FIRST

NAMES = Names("spring")
METRICS, CLASSES = NAMES.federation("metrics"), NAMES.of_site("classes", "local")


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


class Echo:
    """A role that hears measurements and says each once more, in another topic."""

    name = "echo"
    owns = ()
    over = False

    def __init__(self) -> None:
        self.lines = self.topics = (CLASSES,)
        self._heard: list[Arrived] = []

    def hear(self, arrived: Arrived) -> None:
        """Remember it."""
        self._heard.append(arrived)

    def answers(self) -> Iterator[Answer]:
        """Say it again."""
        heard, self._heard = self._heard, []
        for each in heard:
            yield Say(METRICS, Measured(run="", name=each.message.identity, values={}))

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        """It gives no tasks."""
        yield from ()

    def waits(self) -> list[str]:
        """For ever."""
        return ["an echo"]


def around(log: Log, **more: object) -> Surroundings:
    """The surroundings of a role over a log."""
    return replace(Surroundings(log, Shelf(log, NAMES.federation("models"), 2**20), 2**20), **more)  # type: ignore[arg-type]


def joined(log: Log, number: int) -> None:
    """An entity says something."""
    from schemas.messages import EntityJoined

    said = EntityJoined(run="f" * 64, number=number, entity="local/north")
    log.append(CLASSES, records(said, source="twins")[1])


def test_a_standby_leaves_the_others_their_time() -> None:
    """Three seconds of quiet before it answers; whatever comes begins them anew."""
    clock = Clock()
    with closing(Log()) as log:
        system = System([Echo()], around(log, standby_after=3.0, clock=clock), NoWorkers())
        said = []
        for moment, speaks in ((0, True), (2, False), (2.5, True), (5, False), (5.6, False)):
            clock.now = 1000 + moment
            if speaks:
                joined(log, 0)
            system.step()
            said.append(log.end(METRICS))

    assert said == [0, 0, 0, 0, 2]


def test_who_leaves_a_topic_begins_anew_when_it_comes_back() -> None:
    """A twin that lived elsewhere meanwhile has to hear its own past again."""
    heard: list[str] = []

    class Listener(Echo):
        def hear(self, arrived: Arrived) -> None:
            heard.append(arrived.place.topic)

        def answers(self) -> Iterator[Answer]:
            yield from ()

    with closing(Log()) as log:
        joined(log, 0)
        system = System([Listener()], around(log), NoWorkers())
        session: Session = system.sessions[0]
        system.step()
        system.step()
        assert len(heard) == 1
        session.leave([CLASSES])
        system.step()

    assert len(heard) == 2


def test_patience_ends_a_run_that_nobody_works_for() -> None:
    """Ten seconds without a word from anybody; it names what is missing."""
    with closing(Log()) as log, pytest.raises(Stalled, match=r"for 10 s nothing came.*an echo"):
        serve(
            Echo(), around(log, clock=Clock(step=0.5)), NoWorkers(), NAMES,
            process="echo-1", patience=10,
        )  # fmt: skip


def test_who_has_nothing_to_do_gives_free_memory_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds behind its last step, and again only when there was another one."""
    clock, given, words = Clock(step=0.5), list[float](), [1018.0, 1006.0]
    monkeypatch.setattr(program, "give_back", lambda: given.append(clock.now))

    def speaks(system: System) -> None:
        if words and clock.now > words[-1]:
            joined(log, len(words))
            words.pop()

    with closing(Log()) as log, pytest.raises(Stalled):
        serve(
            Echo(), around(log, clock=clock), NoWorkers(), NAMES,
            process="echo-1", patience=14, each_turn=speaks,
        )  # fmt: skip

    assert len(given) == 3
    assert given[0] < 1006 < given[1] < 1018 < given[2]


def test_who_always_hears_somebody_gives_free_memory_back_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A live federation's programs are never quiet: a heartbeat comes every second for a while."""
    clock, given, told = Clock(step=0.25), list[float](), list[float]()
    monkeypatch.setattr(program, "give_back", lambda: given.append(clock.now))
    began = clock.now

    def beats(system: System) -> None:
        if clock.now < began + 55 and clock.now > (told or [began])[-1] + 1:
            told.append(clock.now)
            joined(log, len(told))

    with closing(Log()) as log, pytest.raises(Stalled):
        serve(
            Echo(), around(log, clock=clock), NoWorkers(), NAMES,
            process="echo-1", patience=10, each_turn=beats,
        )  # fmt: skip

    assert len(told) > 20
    assert len([each for each in given if each < told[-1]]) == 2
    assert given[-1] > told[-1]


def test_patience_lasts_while_somebody_is_heard_to_work() -> None:
    """A twin elsewhere trains for half a minute; when it is silent, ten seconds more."""
    clock = Clock(step=0.5)
    began = clock.now

    def works(system: System) -> None:
        if clock.now < began + 30:
            beat = Heartbeat(
                run="", process="twins-1", role="twins", at=0.0, in_work=("learn",), waits=()
            )
            log.append(METRICS, records(beat, source="twins")[1])

    with closing(Log()) as log, pytest.raises(Stalled):
        serve(
            Echo(), around(log, clock=clock), NoWorkers(), NAMES,
            process="echo-1", patience=10, each_turn=works,
        )  # fmt: skip

    assert 30 + 10 <= clock.now - began <= 30 + 10 + 10 + 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_program_stops_wherever_it_is_when_it_is_told_to(
    how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to go on, and its exit code is that of an interruption."""
    told: list[bool] = []

    def work() -> None:
        with stoppable() as stopped:
            try:
                os.kill(os.getpid(), how)
                signal.pause()
            except Stopped:
                told.append(stopped())
                raise

    assert ended("echo", work) == STOPPED
    assert told == [True]
    assert "Start it again" in capsys.readouterr().err


def test_what_ends_a_program_early_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of its kind."""

    def fails() -> None:
        raise DataError("digits are broken")

    assert ended("producers", fails) == 4
    assert capsys.readouterr().err == "producers: digits are broken\n"


def test_without_workers_nothing_can_be_given() -> None:
    """An aggregator that gave a task would wait for it for ever."""
    from infra.promises import Task

    check: Callable[[], None] = lambda: NoWorkers().submit("a", Task("learn"))  # noqa: E731
    with pytest.raises(ValueError, match="learn was given"):
        check()


@pytest.mark.parametrize("words", [(), ("--metrics-port", "0")])
def test_a_program_tells_metrics_only_where_it_is_told_to(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """By default nobody listens; with a port it says where."""
    given = arguments("twins", "about").parse_args(words)
    settings = Settings({}, site="north")
    with closing(Log()) as log, life(log, NAMES, given, settings, role="twins") as vitals:
        assert vitals.role == "twins"

    said = capsys.readouterr().err
    assert ("metrics at http://127.0.0.1:" in said) == bool(words)


def test_the_word_of_the_command_line_comes_before_the_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A port that the environment names is passed over, were it taken or not."""
    given = arguments("twins", "about").parse_args(("--metrics-port", "0"))
    with closing(Log()) as log, life(log, NAMES, given, Settings({}, metrics_port=1), role="twins"):
        pass

    assert ":1/metrics" not in capsys.readouterr().err


def test_who_waits_for_a_run_says_so_and_which_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that was mistyped is no silence; said once, and the waiting goes on."""
    monkeypatch.setattr(program, "AWAITED", 0.0)
    log, turns = Log(), iter(range(3))
    other = Measured(run="", name="x", values={})
    log.append(Names("spring").federation("rounds"), records(other, source="somebody")[1])

    def wait(seconds: float) -> None:
        if next(turns, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run_opened(log, Names("sprin"))

    said = capsys.readouterr().err
    assert said == "waiting until the run sprin is opened; Kafka holds spring\n"


def test_who_waits_for_a_run_that_a_later_program_has_opened_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would wait for ever for what lies before it, or open the run once more."""
    log, names = Log(), Names("spring")
    with monkeypatch.context() as next_release:
        next_release.setattr(RunOpened, "schema_number", 2)
        log.append(names.federation("rounds"), records(FIRST, source="aggregator")[1])

    with pytest.raises(ConfigurationError, match="RunOpened of schema 2; this program reads sch"):
        run_opened(log, names)
