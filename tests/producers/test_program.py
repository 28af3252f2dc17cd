"""The producers' program of a live federation: whose folder it follows, and whose not."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from infra.transport.embedded import Embedded as Log
from producers import __main__ as program
from schemas.codec import records
from schemas.topics import Names
from tests.schemas.test_live_line import FIRST

NAMES = Names("spring")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Entities whose topics were made, and who was served, in a federation that knows two wards; a
    log stands in for Kafka."""
    found: list[str] = []
    log = Log()
    log.append(NAMES.federation("rounds"), records(FIRST, source="aggregator")[1])
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(program, "connect", lambda settings, **more: log)
    monkeypatch.setattr(program, "closing", nullcontext)
    monkeypatch.setattr(
        program, "entities_there", lambda kafka, names, site: [f"{site}/ward", f"{site}/icu"]
    )
    monkeypatch.setattr(
        program,
        "make_topics",
        lambda kafka, names, cluster, sites, entities: found.extend(entities),
    )
    monkeypatch.setattr(program, "serve", lambda *given, **more: found.append("served"))
    return found


def follows(folder: Path, entity: str, *words: str) -> int:
    """The exit code of the program, given a folder of somebody's."""
    label = FIRST.data.classes[0]
    (folder / label).mkdir(exist_ok=True)
    given = ("--folder", str(folder), "--entity", entity, "--run", NAMES.run, *words)
    return program.main(given)


def test_a_misspelt_entity_is_refused_and_the_nearest_is_named(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No topic is made for it, and no journal begun."""
    assert follows(tmp_path, "wrad") == 2

    said = capsys.readouterr().err
    assert "spring has no entity 'local/wrad' (did you mean 'local/ward'?)" in said
    assert "it has local/ward, local/icu. --new brings another one in" in said
    assert made == []
    assert not (tmp_path / program.STATE).exists()


def test_an_entity_that_is_known_is_followed_without_a_word_more(
    made: list[str], tmp_path: Path
) -> None:
    """By its own name, or its full one."""
    assert follows(tmp_path, "ward") == follows(tmp_path, "local/icu") == 0
    assert made == ["local/ward", "served", "local/icu", "served"]


def test_a_new_one_is_brought_in_by_whoever_says_so(made: list[str], tmp_path: Path) -> None:
    """Then its topics are made, once the folder was found to be one that can be followed."""
    stray = tmp_path / "no-such-class"
    stray.mkdir()
    (stray / "1.png").write_bytes(b"?")
    refused = follows(tmp_path, "x-ray", "--new")
    (stray / "1.png").unlink()

    assert (refused, made) == (2, [])
    assert follows(tmp_path, "x-ray", "--new") == 0
    assert made == ["local/x-ray", "served"]


def test_new_is_a_word_about_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's entities are new by themselves."""
    assert program.main(["--live", str(tmp_path / "x.yaml"), "--new", "--run", NAMES.run]) == 2
    assert "--new is of an entity whose folder is followed" in capsys.readouterr().err
