"""Clusters that are restored to different moments: the site's older, the federation's older."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from aggregator import standing
from experiments.replay import Replay
from infra.beginning import newest_start
from schemas.errors import DataError
from schemas.messages import ModelUpdate, TwinState, WindowJudged
from schemas.topics import table_row
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, Alive, lively
from tests.flows.federation import LIMIT, messages
from twins.__main__ import LOST, _Share
from twins.twins import Twins

HERE = (NORTH, EAST, SOUTH)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Standing every five decisions."""
    monkeypatch.setattr(standing, "EVERY", 5)


def begun(path: Path) -> Alive:
    """Three twins have found three classes each, and have had their first rounds."""
    run = Alive(lively(keep_rounds="all"), entities=HERE, path=path)
    run.settle()
    for entity in HERE:
        run.stream(entity, "012", 20)
    run.after(61)
    return run


def on(run: Alive, uids: str, entity: str = NORTH) -> None:
    """An entity finds one class after the other, and each is learned."""
    for uid in uids:
        run.stream(entity, uid, 40)
        run.after(11)
        run.after(61)


def saved(path: Path) -> Path:
    """A copy of all that is in the log."""
    copy = path.with_suffix(".saved")
    with closing(sqlite3.connect(path)) as log, closing(sqlite3.connect(copy)) as other:
        log.backup(other)
    return copy


def set_back(before: Alive, path: Path, copy: Path, cluster: str) -> Alive:
    """One cluster's topics are as they were in the copy, and everybody begins anew."""
    with closing(sqlite3.connect(path)) as log, log:
        log.execute("ATTACH ? AS old", (str(copy),))
        ends = {id: (first, next) for id, first, next in log.execute(
            "SELECT id, first, next FROM old.topics")}  # fmt: skip
        for id, name in log.execute("SELECT id, name FROM main.topics").fetchall():
            if table_row(name).cluster == cluster:
                log.execute("DELETE FROM main.records WHERE topic = ?", (id,))
                log.execute(
                    "INSERT INTO main.records SELECT * FROM old.records WHERE topic = ?", (id,)
                )
                log.execute(
                    "UPDATE main.topics SET first = ?, next = ? WHERE id = ?",
                    (*ends.get(id, (0, 0)), id),
                )
    run = Alive(lively(keep_rounds="all"), entities=HERE, path=path)
    run._sent = dict(before._sent)
    run.restart(newest_start(run.log, NAMES, LIMIT))
    run.after(61)
    return run


def twins_of(run: Alive, entity: str) -> Twins:
    """The role in which a twin lives."""
    role = run.roles[entity]
    assert isinstance(role, Twins)
    return role


def state(run: Alive, entity: str) -> TwinState:
    """The newest that a twin wrote."""
    own = messages(run.log, NAMES.of_entity("twin-state", entity))
    return max((m for m, _ in own if isinstance(m, TwinState)), key=lambda each: each.number)


def answers(run: Alive) -> Counter[tuple[int, str]]:
    """How often which round was answered by whom."""
    told = chain(*(messages(run.log, NAMES.of_site("updates", site)) for site in "ab"))
    return Counter((m.opened, m.entity) for m, _ in told if isinstance(m, ModelUpdate))


def judged(run: Alive, entity: str) -> Counter[str]:
    """How many images of each class its verdicts count."""
    verdicts = [each for each in run.lines(entity) if isinstance(each, WindowJudged)]
    return sum((Counter(each.images) for each in verdicts), Counter[str]())


def test_a_site_that_is_older_gets_its_images_again_and_nothing_is_done_twice(
    tmp_path: Path,
) -> None:
    """The federation has decided on while the site lost two classes. Its twin says what it waits
    for, and writes nothing. Streamed again under their numbers, the images are judged and answered
    for by nobody a second time; what was found in between is remembered when the next class comes,
    an exemplar of each and what is held out of each, though its stages are let go."""
    path = tmp_path / "run.sqlite"
    run = begun(path)
    copy, sent = saved(path), dict(run._sent)
    on(run, "78")
    before = (run.line.number, judged(run, NORTH), answers(run))
    apart = state(run, NORTH).apart
    run = set_back(run, path, copy, "site")

    waits = twins_of(run, NORTH).waits()
    assert waits == ["a/north: image 139 of its stream; 60 have come"]
    assert (run.line.number, judged(run, NORTH), answers(run)) == before

    run._sent = dict(sent)
    for uid in "78":
        run.stream(NORTH, uid, 40)
    run.after(61)
    assert twins_of(run, NORTH).waits() == []
    assert (run.line.number, judged(run, NORTH), answers(run)) == before
    assert state(run, NORTH).current == ("7", "8")
    on(run, "9")
    assert {*state(run, NORTH).exemplars} == {*"01278"}
    assert state(run, NORTH).learned == ("0", "1", "2", "7", "8")
    kept = state(run, NORTH).apart
    assert all({*apart[uid]} <= {*kept[uid]} for uid in apart)
    assert {*answers(run).values()} == {1}
    assert max(judged(run, NORTH).values()) == 40
    assert Replay(run.log, NAMES).fold().different == []


def test_other_images_take_the_places_of_those_that_are_lost(tmp_path: Path) -> None:
    """Nobody has what was streamed since the copy. What comes next stands where that stood, and was
    counted then: a class in it is found with the images that come behind."""
    path = tmp_path / "run.sqlite"
    run = begun(path)
    copy = saved(path)
    on(run, "7")
    run = set_back(run, path, copy, "site")
    run.stream(NORTH, "9", 40, source="other")
    run.after(61)
    assert "9" not in run.line.rows

    run.stream(NORTH, "9", 24, source="other")
    run.after(61)
    assert "9" in run.line.rows
    assert judged(run, NORTH) == {"0": 20, "1": 20, "2": 20, "7": 40, "9": 64}


def test_a_federation_that_is_older_is_found_out_by_what_its_sites_remember(
    tmp_path: Path,
) -> None:
    """A twin's state names a decision behind the end of the line: the program of the twins ends
    when it has looked again, and says what was restored to when."""
    path = tmp_path / "run.sqlite"
    run = begun(path)
    copy = saved(path)
    on(run, "7")
    number = state(run, NORTH).number
    run = set_back(run, path, copy, "federation")
    share = _Share(twins_of(run, NORTH), run._around, NAMES.federation("rounds"))

    assert f"a/north: decision {number}, on which its own state rests" in share._twins.waits()
    share.look(run.system)
    run.now += LOST
    said = rf"a/north .* decision {number}, .* ends at {run.line.number}: "
    with pytest.raises(DataError, match=said):
        share.look(run.system)


def test_a_federation_that_went_on_otherwise_does_not_give_a_twin_another_past(
    tmp_path: Path,
) -> None:
    """Others have passed the number that a twin's state names. It is not adopted, for there are no
    verdicts on which it could rest: its twin says so, and takes part in nothing."""
    path = tmp_path / "run.sqlite"
    run = begun(path)
    copy = saved(path)
    on(run, "7")
    number, apart = state(run, NORTH).number, state(run, NORTH).apart
    run = set_back(run, path, copy, "federation")
    on(run, "3", SOUTH)

    assert run.line.number > number
    north = twins_of(run, NORTH)
    assert north.ahead == {}
    assert north.waits()[0] == "a/north: its verdicts up to image 99, on which its own state rests"
    assert state(run, NORTH).apart == apart
    assert all(NORTH not in who for who, _ in run.rounds())
