"""How a federation is shown: on a terminal, and line by line where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.cli.watched import Lines, picture, told
from experiments.cli.words import console, facts, table
from schemas.messages import EntityJoined, Measured
from tests.experiments.test_watching import CLASSES, METRICS, NAMES, Told
from tests.schemas.specimens import NORTH, SOUTH, model
from tests.schemas.test_live_line import RUN, STAGE, closes, opens


def shown(seen: Told) -> list[str]:
    """The lines of a view."""
    return [line.plain for line in told(seen.seen())]


def test_a_view_as_lines() -> None:
    """What is true of the run, its entities, its programs, its letters, its failures."""
    now = Told(*STAGE, opens(5, 0, 1, 2))
    now.say(CLASSES, EntityJoined(run=RUN, number=0, entity=NORTH))
    values = {"model": model(2).sha256, "classes": ["0", "1"], "counts": [[2, 1], [0, 1]]}
    now.say(METRICS, Measured(run="", name=f"held-out/{NORTH}/2", values=values))
    now.everybody(twins={"waits": ((f"twins waits for {SOUTH}: its mark", 2.4),)})
    now.later(1)

    lines = shown(now)
    assert lines[0] == "spring: live, running, stage 0, 1 round closed, version 2 with 2 classes"
    assert lines[1] == (
        "accuracy held out at the sites: 75.0 % of 4 images (version 2, 1 of 1 entity)"
    )
    assert lines[2] == (
        "round 0.1 open since 1.0 s: 0 of 2 have answered; local/north, local/south not yet"
    )
    assert any(line.split() == [NORTH, "present", "12", "75.0", "%", "twins-1", "-"]
               for line in lines)  # fmt: skip
    assert any(f"twins waits for {SOUTH}: its mark since 2 s" in line for line in lines)
    assert lines[3] == "nothing has failed"
    assert lines[-1] == "dead letters: 0"


def scored(now: Told, version: int, right: int) -> None:
    """Of fifty images of each class so many are known by a version."""
    counts = [[right, 50 - right], [50 - right, right]]
    values = {"model": model(version).sha256, "classes": ["0", "1"], "counts": counts}
    now.say(METRICS, Measured(run="", name=f"held-out/{NORTH}/{version}", values=values))


def test_a_model_that_is_worse_is_told_under_the_accuracy_and_once_line_by_line() -> None:
    """Version 3 has lost ten points; version 4 has them back."""
    rounds = f"fedtwin.{NAMES.run}.rounds"
    out = io.StringIO()
    now, lines = Told(*STAGE, opens(5, 0, 1, 2), closes(6, 0, 1, 3)), Lines(Console(file=out))
    scored(now, 2, 45)
    scored(now, 3, 40)
    now.everybody()
    worse = shown(now)
    for _ in range(2):
        lines.tell(now.seen(), True)
    for each in (opens(7, 0, 2, 3), closes(8, 0, 2, 4)):
        now.say(rounds, each)
    scored(now, 4, 46)
    lines.tell(now.seen(), True)

    told = "WORSE version 3 has lost 10.0 points held out at the sites: 80.0 % where version 2 has"
    assert worse[1].startswith("accuracy held out at the sites: 80.0 % of 100 images (version 3")
    assert worse[2] == f"{told} 90.0 %"
    assert out.getvalue().count("WORSE") == 1
    assert "no longer worse: version 4" in out.getvalue()
    assert not any("WORSE" in line for line in shown(now))


def test_a_dash_where_nobody_has_measured() -> None:
    """No number that was not measured."""
    assert shown(Told())[1] == "accuracy held out at the sites: -"


def test_a_picture_fits_and_shows_what_has_failed_first() -> None:
    """Five hundred entities on 30 lines of 80 columns; the one that is lost is among them."""
    now = Told(*STAGE)
    for number in range(500):
        now.say(CLASSES, EntityJoined(run=RUN, number=0, entity=f"local/e-{number:03}"))
    now.everybody()
    now.beats("twins-2", "twins", counts=(("buffered local/e-499", 3),))
    now.later(7)
    now.everybody()
    lines = picture(now.seen(), 80, 30).plain.splitlines()

    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    first = next(line for line in lines if line.startswith("local/"))
    assert first.split()[:2] == ["local/e-499", "present"]
    assert any(line.startswith("FAILED twins-2: no heartbeat since 7 s") for line in lines)
    assert any(line.endswith("more entities") for line in lines)


def test_where_there_is_no_terminal_each_change_is_a_line() -> None:
    """A round opens, a program is lost and is back; what stays as it is is told once."""
    out = io.StringIO()
    now, lines = Told(*STAGE), Lines(Console(file=out, width=120))
    for step in ("", "", "opens", "closes", "lost", "back"):
        if step == "opens":
            now.say(f"fedtwin.{NAMES.run}.rounds", opens(5, 0, 1, 2))
        if step == "closes":
            now.say(f"fedtwin.{NAMES.run}.rounds", closes(6, 0, 1, 3))
        if step == "lost":
            now.later(7)
            now.everybody("proxy")
        else:
            now.everybody()
        assert not lines.tell(now.seen(), True)

    assert out.getvalue().splitlines() == [
        "spring: live, running, stage 0, 1 round closed, version 2 with 2 classes,"
        " 0 of 0 entities, held out -",
        "spring: live, running, stage 0, 1 round closed, version 2 with 2 classes,"
        " 0 of 0 entities, round 0.1 open, held out -",
        "spring: live, running, stage 0, 2 rounds closed, version 3 with 2 classes,"
        " 0 of 0 entities, held out -",
        "FAILED proxy-1: no heartbeat since 7 s (killed?)",
        "well again: proxy-1",
    ]


def test_a_run_that_is_not_there_is_said_once() -> None:
    """Somebody waits for it, or has mistyped its name."""
    out = io.StringIO()
    lines = Lines(Console(file=out, width=120))
    seen = Told().seen()

    assert [lines.tell(seen, False), lines.tell(seen, False)] == [False, False]
    assert out.getvalue().splitlines() == ["spring: there is no such run yet"]


def test_a_version_that_few_have_scored_is_told_of_behind_the_one_that_counts() -> None:
    """Two twins have scored version 1, one version 2 so far."""
    now = Told(*STAGE)
    for version, entity, counts in (
        (1, NORTH, [[3]]),
        (1, SOUTH, [[1]]),
        (2, NORTH, [[1, 2], [0, 0]]),
    ):
        classes = ["0", "1"][: len(counts)]
        values = {"model": model(version).sha256, "classes": classes, "counts": counts}
        name = f"held-out/{entity}/{version}"
        now.say(METRICS, Measured(run="", name=name, values=values))

    assert shown(now)[1] == (
        "accuracy held out at the sites: 100.0 % of 4 images (version 1, 2 of 0 entities);"
        " version 2 so far: 33.3 %"
    )


def test_what_a_program_says_of_itself_moves_no_cursor_and_begins_no_line() -> None:
    """It waits for a line of its own and a cleared screen: both are written out."""
    now, out = Told(*STAGE), io.StringIO()
    now.everybody(twins={"waits": (("twins \x1b[2J\nFAILED everything", 2.4),)})
    for line in told(now.seen()):
        Console(file=out, force_terminal=True, width=200).print(line, soft_wrap=True)

    assert "\x1b[2J" not in out.getvalue()
    assert r"twins \x1b[2J\nFAILED everything since 2 s" in out.getvalue()
    assert not any(line.startswith("FAILED") for line in out.getvalue().splitlines())


def test_what_others_have_written_is_printed_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    """In a table, among facts, and in a line; where we begin lines ourselves they stay lines."""
    table(console(), ("about", ">size"), [("\x1b[31mred\nnext: rm", "1")])
    facts(console(), [("why", "\x1b]0;owned\x07")])
    console().print("\nnext: fedtwin show \x1b[2J")

    assert capsys.readouterr().out.splitlines() == [
        "about                  size",
        r"\x1b[31mred\nnext: rm     1",
        r"why  \x1b]0;owned\x07",
        "",
        r"next: fedtwin show \x1b[2J",
    ]
