"""What somebody wants forgotten is asked for in the twin's words, waited for, and looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from experiments.forgetting import Done, Federation, Held, forget, held, request, told
from infra.transport.base import Transport
from infra.transport.embedded import Embedded
from schemas.codec import Record
from schemas.errors import ConfigurationError, RunFailed
from schemas.messages import Forgotten, Measured
from schemas.topics import Names
from tests.experiments.hands import fedtwin
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, Alive
from tests.flows.federation import messages
from tests.flows.test_held_out import tenths


class Shelf:
    """A disk that is looked at, or cannot be: which topics were hurried stands in `hurried`."""

    def __init__(self, seen: bool = True) -> None:
        self._seen = seen
        self.hurried: list[str] = []

    def rolling(self, topic: str) -> AbstractContextManager[None]:
        return self._noted(topic)

    def hurrying(self, topic: str) -> AbstractContextManager[None]:
        return self._noted(topic)

    def begins(self, topic: str, offset: int) -> bool | None:
        return True if self._seen else None

    def gone(self, topic: str, before: int) -> bool | None:
        return True if self._seen else None

    def promised(self, topic: str) -> float:
        return 301.0

    @contextmanager
    def _noted(self, topic: str) -> Iterator[None]:
        self.hurried.append(topic)
        yield


def begun() -> tuple[Alive, Federation]:
    """A live federation of three entities, each with twenty images of three classes."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH):
        run.stream(entity, "012", 20)
    return run, Federation(run.log, NAMES, run.line.run)


def ask(
    run: Alive, federation: Federation, image: str | None, label: str | None, disk: Shelf
) -> Done:
    """Somebody asks EAST's twin, and time goes on while they wait."""
    there = held(run.log, federation, EAST)
    return forget(
        federation,
        request(federation, EAST, there, image, label),
        disk,
        there=there,
        again=lambda: nullcontext[Transport](run.log),
        wait=30.0,
        pause=lambda seconds: run.after(seconds),
        clock=lambda: run.now,
    )


def test_a_class_is_asked_for_and_gone() -> None:
    """Twenty images, exemplars and held out ones among them; behind it none is held, everybody who
    looks is told how many, and both topics were hurried."""
    run, federation = begun()
    run.after(11)
    run.stream(EAST, "7", 40)
    run.after(11)
    disk = Shelf()
    there = held(run.log, federation, EAST)
    of_class = [image for image, uid in there.images.items() if uid == "1"]

    done = ask(run, federation, None, "1", disk)

    assert len(of_class) >= len([n for n in tenths(40) if n >= 20])
    assert (done.asked, done.images, done.seen) == ("class 1", len(of_class), True)
    assert done.words == f"gone from the disk after {done.seconds:.0f} s"
    left = held(run.log, federation, EAST)
    assert "1" not in left.images.values()
    assert left.images.items() == {i: uid for i, uid in there.images.items() if uid != "1"}.items()
    said = [each for each, _ in messages(run.log, NAMES.federation("metrics"))]
    [asked] = [each for each in map(told, (m for m in said if isinstance(m, Measured))) if each]
    assert (asked.entity, asked.asked, asked.images) == (EAST, "class 1", len(of_class))
    assert disk.hurried == [NAMES.of_entity("samples", EAST), NAMES.of_entity("twin-state", EAST)]


def test_where_no_folder_can_be_seen_it_says_what_the_settings_promise() -> None:
    """All that was streamed to EAST, on somebody else's broker."""
    run, federation = begun()

    done = ask(run, federation, None, None, Shelf(seen=False))

    assert (done.asked, done.images, done.seen, done.promised) == ("everything", 60, False, 301.0)
    assert done.words.endswith("by its settings they leave its disk within 301 s")
    assert held(run.log, federation, EAST).images == {}


def test_a_twin_that_does_not_answer_is_told_of_and_the_request_stands() -> None:
    """EAST's program is down. Later it reads what it is to forget before it does anything."""
    run, federation = begun()
    session = run.vanish(EAST)

    with pytest.raises(RunFailed, match="waited 30 s for the twin of a/east") as late:
        ask(run, federation, "camera/7", None, Shelf())

    assert "stands" in late.value.__notes__[0]
    run.system.sessions.append(session)
    run.after(11)
    assert ("camera", 7) not in held(run.log, federation, EAST).images


def test_what_is_asked_for_in_words_nobody_knows_is_refused() -> None:
    """An image of no source, a number that is none, a class that never came, another entity."""
    run, federation = begun()
    there = held(run.log, federation, EAST)

    for image, words in (
        ("camra/7", "no source is called 'camra' at a/east; there are camera"),
        ("7", "an image is SOURCE/NUMBER, such as camera/17, not '7'"),
        ("camera/x", "an image is SOURCE/NUMBER"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            request(federation, EAST, there, image, None)
    with pytest.raises(ConfigurationError, match=r"has seen no image of class '8'.* seen 0, 1, 2"):
        request(federation, EAST, there, None, "8")
    with pytest.raises(
        ConfigurationError, match=r"ever streamed to a/west .*'a/east'.* streams of"
    ):
        federation.entity("west", "a")
    assert federation.entity("east", "a") == EAST
    assert federation.entity("b/south", "a") == SOUTH


def test_a_runs_folder_is_refused_and_so_is_a_name_where_nobody_names_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is no federation (2); whether the name is one, only a broker could say (3)."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FEDTWIN_KAFKA", "FEDTWIN_SITE_KAFKA", "FEDTWIN_REDIS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "run").mkdir()

    folder = fedtwin("forget", tmp_path / "run", "--entity", "ward")
    name = fedtwin("forget", "spring", "--entity", "ward")
    both = fedtwin("forget", "spring", "--entity", "ward", "--image", "a/1", "--class", "7")

    assert (folder.exit_code, name.exit_code, both.exit_code) == (2, 3, 2)
    assert "to take its folder away forgets them all" in folder.output
    assert "say one of --image and --class" in both.output


def test_a_source_may_be_named_without_its_hash_where_there_is_one_of_it() -> None:
    """`inject` names a source by what it holds: noise#0123."""
    run, federation = begun()
    run.stream(EAST, "7", 5, source="noise#0123")
    there = held(run.log, federation, EAST)

    asked = request(federation, EAST, there, "noise/3", None)

    assert asked.images == {"noise#0123": (3, 4)}
    run.stream(EAST, "7", 5, source="noise#4567")
    with pytest.raises(ConfigurationError, match="several sources are called 'noise'"):
        request(federation, EAST, there, "noise/3", None)


def test_a_class_means_what_has_come_of_it_by_now() -> None:
    """The numbers of all sources up to here: what comes behind them is another image."""
    run, federation = begun()
    run.stream(EAST, "1", 5, source="scanner")

    asked = request(federation, EAST, Held({("camera", 3): "1"}), None, "1")

    assert asked == Forgotten(
        run=federation.run, entity=EAST, label="1", images={"camera": (0, 60), "scanner": (0, 5)}
    )


def test_no_other_sites_entity_is_guessed() -> None:
    """The only ward is at north: who is at south and says `ward` is asked if it is meant."""
    log, names = Embedded(), Names("spring")
    log.append(names.of_entity("samples", "north/ward"), [Record("a", b"1")])
    federation = Federation(log, names, "0" * 64)

    with pytest.raises(ConfigurationError, match=r"streamed to south/ward.*did you mean"):
        federation.entity("ward", "south")
    assert federation.entity("ward", "north") == "north/ward"
    assert federation.entity("north/ward", "south") == "north/ward"
