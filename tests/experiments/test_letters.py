"""What was set aside can be looked at and handed in again, as long as it is there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from experiments import runner
from experiments.folder import RunFolder
from experiments.letters import original, requeue
from experiments.system import SITE
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record, records
from schemas.errors import DataError
from schemas.messages import DeadLetter, GlobalModel
from schemas.topics import Names
from tests.experiments.hands import (
    Interrupted,
    fedtwin,
    interrupted_after,
    local,
    told,
    two_stages,
)

ROUNDS, MODELS = (Names("spring").federation(each) for each in ("rounds", "models"))
LIMIT = 2**24


def letter(topic: str, offset: int, hash: str = "") -> DeadLetter:
    """About what lies there."""
    return DeadLetter(
        run="", topic=topic, offset=offset, about="?", hash=hash, size=4,
        reason="unreadable", detail="no message",
    )  # fmt: skip


def test_what_nobody_could_read_is_handed_in_as_it_lies_there() -> None:
    """Byte for byte, behind what has come since."""
    with closing(Log()) as log:
        log.append(ROUNDS, [Record("a", b"junk"), Record("b", b"more")])
        place = requeue(log, letter(ROUNDS, 0), LIMIT)

        assert place == 2
        assert [each.record.value for each in log.read(ROUNDS, 0, 99)] == [
            b"junk",
            b"more",
            b"junk",
        ]


def test_a_message_in_pieces_is_found_whole_among_others() -> None:
    """Three pieces, with strangers between them: they come in their order."""
    model = GlobalModel(run="f" * 64, version=1, groups={"model": {"w": np.zeros(600_000, "<f4")}})
    hash, pieces = records(model, source="x", wire="fp32")
    assert len(pieces) == 3
    with closing(Log()) as log:
        for piece in reversed(pieces):
            log.append(MODELS, [piece, Record("other", b"junk")])
        found = original(log, letter(MODELS, 0, hash), LIMIT)

    assert [each.value for each in found] == [each.value for each in pieces]


def test_what_was_trimmed_cannot_be_handed_in_again() -> None:
    """It says where the topic begins now; and likewise of what was forgotten."""
    with closing(Log()) as log:
        log.append(ROUNDS, [Record("a", b"junk"), Record("b", b"more"), Record("c", b"last")])
        log.trim(ROUNDS, 1)
        log.forget(ROUNDS, "b")

        with pytest.raises(DataError, match="begins at 1 now"):
            requeue(log, letter(ROUNDS, 0), LIMIT)
        with pytest.raises(DataError, match="it was forgotten"):
            requeue(log, letter(ROUNDS, 1), LIMIT)


# --- as a person does it --------------------------------------------------------------------------


@pytest.fixture
def littered(tmp_path: Path) -> RunFolder:
    """A run in which a stranger wrote while it was interrupted, seen to its end."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder.path, local(tmp_path), watch=interrupted_after(rounds=1))
    with closing(folder.opened()) as log:
        for topic in _topics(folder):
            log.append(topic, [Record("stranger", b"junk of somebody")])
    runner.resume(folder.path, local(tmp_path))
    return folder


def _topics(folder: RunFolder) -> tuple[str, str]:
    names = folder.names()
    return names.federation("rounds"), names.of_site("updates", SITE)


def test_letters_are_listed_shown_and_handed_in_again(littered: RunFolder) -> None:
    """Two of them. In a run that is over nobody reads what is handed in, and that is said."""
    rounds, updates = _topics(littered)
    listed = told("dlq", "ls", littered.path)["dead_letters"]
    places = {each["topic"]: str(each["offset"]) for each in listed}

    shown = told("dlq", "show", littered.path, rounds, places[rounds])
    handed_in = fedtwin("dlq", "requeue", littered.path, rounds, places[rounds])

    assert set(places) == {rounds, updates}
    assert (shown["reason"], shown["original"], shown["there"]) == ("unreadable", "1 record", True)
    assert handed_in.exit_code == 0
    assert f"appended to {rounds} at " in handed_in.stdout
    assert "the run is over" in handed_in.stdout
    assert told("show", littered.path)["status"] == "done"


def test_what_was_trimmed_meanwhile_is_told_as_such(littered: RunFolder) -> None:
    """Shown with where the topic begins now; handing it in ends with 4, and with a way on."""
    updates = _topics(littered)[1]
    letters = {each["topic"]: each for each in told("dlq", "ls", littered.path)["dead_letters"]}
    place = str(letters[updates]["offset"])
    with closing(littered.opened()) as log:
        log.trim(updates, log.end(updates))

    shown = told("dlq", "show", littered.path, updates, place)
    refused = fedtwin("dlq", "requeue", littered.path, updates, place)

    assert not shown["there"]
    assert "begins at" in shown["original"]
    assert refused.exit_code == 4
    why, way_on = refused.stderr.splitlines()
    assert "cannot be read again: the topic begins at" in why
    assert way_on == f"next: fedtwin dlq ls {littered.path}"


def test_a_letter_that_nobody_wrote_is_a_wrong_word(littered: RunFolder) -> None:
    """Exit code 2, and the command that lists those that there are."""
    refused = fedtwin("dlq", "requeue", littered.path, _topics(littered)[0], "99999")

    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == f"next: fedtwin dlq ls {littered.path}"
