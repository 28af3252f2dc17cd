"""A live federation with rows for twelve classes, ten of them agreed on, and what comes beyond.

Whoever may write verdicts can name any class: that takes no row from what was agreed on, and nobody
crashes or waits for ever because of it (docs/decisions/0027).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from experiments.replay import Replay
from schemas import verdicts
from schemas.codec import records
from schemas.messages import DeadLetter, HeadGrown, ModelUpdate, WindowJudged
from schemas.schedule import sorted_uids
from schemas.topics import parted
from tests.flows.alive import ALL, EAST, NAMES, NORTH, WEST, Alive
from tests.flows.federation import messages
from twins import judging

AGREED = "there are rows for 12 classes, 2 of them for other than the 10 that were agreed on"


def begun() -> Alive:
    """Four twins have found three classes each, and have had their first rounds."""
    run = Alive()
    run.settle()
    for entity in ALL:
        run.stream(entity, "012")
    run.after(11)
    run.after(11)
    return run


def announce(run: Alive, entity: str, uids: Sequence[str]) -> None:
    """Whoever has its site's account writes a well-formed verdict that has found all of these."""
    told = [each for each in run.lines(entity) if isinstance(each, WindowJudged)]
    named = {
        "number": max(each.number for each in run.lines(entity)) + 1,
        "stage": told[-1].stage + 1,
        "after": run.line.number,
        "model": run.line.model,
        "verdict": "new",
        "classes": sorted_uids(uids),
        "images": dict.fromkeys(uids, 1),
    }
    topic = NAMES.of_site("classes", parted(entity)[0])
    run.log.append(topic, records(told[-1].model_copy(update=named), source="twins")[1])


def letters(run: Alive) -> list[str]:
    """Why each verdict was set aside."""
    told = [each for each, _ in messages(run.log, NAMES.federation("dead-letters"))]
    return [
        f"{each.reason}: {each.detail}"
        for each in told
        if isinstance(each, DeadLetter) and ".classes." in each.topic
    ]


def waits(run: Alive, role: str) -> list[str]:
    """What a role says that it waits for."""
    return list(run.roles[role].waits())


def trained(run: Alive) -> list[str]:
    """Who has answered the newest round with content."""
    number = run.line.stages[-1].rounds[-1].opened.number
    found = []
    for site in ("a", "b"):
        for each, _ in messages(run.log, NAMES.of_site("updates", site)):
            if isinstance(each, ModelUpdate) and each.opened == number and each.groups:
                found.append(each.entity)
    return sorted(found)


def test_a_verdict_with_more_classes_than_there_are_rows_ends_nothing() -> None:
    """One of 4,000 classes is set aside with its numbers. The others train, and find what they
    would have found."""
    run = begun()
    announce(run, WEST, [f"x{i}" for i in range(4000)])
    run.after(11)
    run.stream(NORTH, "7", 24)
    run.after(70)

    assert letters(run) == [
        f"out-of-range: announces 4000 classes beside 3, where 2 have room: {AGREED}"
    ]
    assert run.line.rows == {"0": 0, "1": 1, "2": 2, "7": 3}
    assert run.line.stages[-1].closed is None
    assert len(run.rounds()) == 3
    assert NORTH in trained(run)


def test_what_nobody_agreed_on_takes_no_row_from_what_was_agreed_on() -> None:
    """A site names as many classes as it may, again and again: two of them grow. Afterwards the
    seven agreed ones still find room, each beside the others."""
    run = begun()
    announce(run, WEST, ["x1", "x2"])
    run.after(11)
    run.after(11)
    announce(run, EAST, ["y1", "y2"])
    run.after(11)
    run.after(11)
    assert list(run.line.rows) == ["0", "1", "2", "x1", "x2"]
    assert waits(run, "aggregator-0")[-1] == f"room for y1, y2: {AGREED}"

    run.stream(NORTH, "3456789", 24)
    run.after(11)
    run.after(11)

    assert len(run.line.rows) == 12
    assert {*"0123456789"} < {*run.line.rows}
    assert NORTH in trained(run)
    assert letters(run) == []


def test_two_who_find_too_much_at_once_share_what_room_there_is() -> None:
    """Each has two classes that nobody agreed on, and neither knows of the other. By uid the first
    two grow; of the others no image is trained on, and all four go on. The log replays to that."""
    run = begun()
    run.stream(EAST, "wz", 24)
    run.stream(WEST, "xy", 24)
    run.after(11)
    run.after(11)

    assert list(run.line.rows) == ["0", "1", "2", "w", "x"]
    assert run.line.marked(1) == (EAST, WEST)
    assert waits(run, "aggregator-0")[-1] == f"room for y, z: {AGREED}"
    assert trained(run) == sorted(ALL)
    run.stream(NORTH, "5", 24)
    run.after(11)
    run.after(11)
    assert run.line.rows["5"] == 5
    assert trained(run) == sorted(ALL)
    run.roles.clear()
    assert Replay(run.log, NAMES).fold().different == []


def test_a_twin_does_not_announce_what_has_no_room_and_says_so() -> None:
    """Of four classes that nobody agreed on it announces the first two, and waits for room for the
    others. It trains on, and a class that was agreed on is announced as ever."""
    run = begun()
    run.stream(EAST, "wxyz", 24)
    run.after(11)
    run.after(11)
    own = run.verdicts.line(EAST)

    assert own.known == ("0", "1", "2", "w", "x")
    assert waits(run, EAST) == [f"{EAST}: room for y, z: {AGREED}"]
    run.stream(EAST, "8", 24)
    run.after(11)
    run.after(11)
    assert run.verdicts.line(EAST).known[-1] == "8"
    assert run.line.rows["8"] == 5
    assert waits(run, EAST) == [f"{EAST}: room for y, z: {AGREED}"]
    assert sum(isinstance(each, HeadGrown) for each in run.line.decisions.values()) == 3


def test_an_entity_of_very_many_labels_counts_no_more_than_its_readers_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty labels of one image each beside a known class, where readers take twelve: the verdict
    tells twelve, and counts."""
    for module in (verdicts, judging):
        monkeypatch.setattr(module, "MOST_COUNTED", 12)
    run = begun()
    run.stream(EAST, "".join(chr(0x4E00 + i) for i in range(40)), 1)
    run.stream(EAST, "2", 24)
    run.after(11)
    newest = run.verdicts.line(EAST).verdicts[run.verdicts.judged(EAST)]

    assert newest.position == 30 + 64
    assert (len(newest.images), newest.images["2"]) == (12, 24)
    assert letters(run) == []
