"""A run is named in one way by every command: RUN, its folder or its name; else FEDTWIN_RUN."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from experiments import operators
from experiments.cli.logs import meant
from experiments.folder import OPENING
from infra.transport.embedded import Embedded as Log
from schemas.codec import Record
from schemas.errors import ConfigurationError
from tests.experiments.hands import fedtwin, ran, told
from tests.experiments.test_operators import begun
from tests.flows.alive import EAST, NAMES, Alive


@pytest.fixture
def federation(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """One that commands find where they look for Kafka, in which a stranger has written."""
    run = begun()
    run.log.append(NAMES.of_site("updates", "a"), [Record("stranger", b"junk")])
    run.settle()
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(operators, "connect", lambda settings, site: run.log)
    monkeypatch.setattr(operators, "closing", nullcontext)  # the log is ours
    return run


def test_an_operators_words_are_the_run_and_then_the_rest(federation: Alive) -> None:
    """Also as an option, as it was at first, and from the environment."""
    positional = told("rollback", NAMES.run, "2")
    federation.settle()
    option = told("rollback", "3", "--run", NAMES.run)

    assert (positional["back_to"], positional["model_version"]) == (2, 5)
    assert (option["back_to"], option["model_version"]) == (3, 6)
    assert told("pause", NAMES.run, EAST)["entity"] == EAST
    assert told("unpause", EAST, "--run", NAMES.run)["entity"] == EAST
    assert told("pause", NAMES.run)["entity"] is None
    assert told("history", NAMES.run) == told("history", "--run", NAMES.run)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("rollback", "summer", "spring", "2"), "one federation at a time"),
        (("rollback", "spring", "newest"), "VERSION is a number"),
        (("pause", "spring", "a/east", "a/north"), "one entity at a time"),
        (("history", "spring", "--run", "summer"), "which run, spring or --run summer?"),
    ],
)
def test_words_that_say_too_much(federation: Alive, words: tuple[str, ...], why: str) -> None:
    """Nothing is decided, and it is said what is meant."""
    answered = fedtwin(*words)

    assert answered.exit_code == 2
    assert why in answered.stderr


@pytest.mark.parametrize(
    "words", ["show", "history", "replay", "dlq ls", "topics ls", "watch --once", "export"]
)
def test_where_nobody_names_a_run_the_variable_is_named(words: str) -> None:
    """By each command that takes one."""
    answered = fedtwin(*words.split())

    assert answered.exit_code == 2
    assert "FEDTWIN_RUN" in answered.stderr


def test_what_was_set_aside_in_a_federation_is_found_by_its_name(federation: Alive) -> None:
    """Listed, shown and handed in again, where no folder of it is; then it is set aside anew."""
    topic = NAMES.of_site("updates", "a")
    (letter,) = told("dlq", "ls", NAMES.run)["dead_letters"]
    place = str(letter["offset"])
    shown = told("dlq", "show", NAMES.run, topic, place)
    handed_in = fedtwin("dlq", "requeue", NAMES.run, topic, place)
    federation.settle()

    assert (letter["topic"], letter["reason"]) == (topic, "unreadable")
    assert (shown["there"], shown["original"]) == (True, "1 record")
    assert f"appended to {topic} at " in handed_in.stdout
    assert handed_in.stdout.splitlines()[-1] == f"next: fedtwin watch {NAMES.run}"
    assert len(told("dlq", "ls", NAMES.run)["dead_letters"]) == 2


def test_a_federation_is_replayed_by_its_name(federation: Alive) -> None:
    """To the model that it has."""
    replayed = told("replay", NAMES.run)

    assert replayed["equal"]
    assert federation.line.model is not None
    assert replayed["model_sha256"] == federation.line.model.sha256


def test_a_name_that_no_run_has(federation: Alive) -> None:
    """Exit code 4 and where to look; `resume` says who goes on with what is on Kafka."""
    for words in (("dlq", "ls"), ("replay",), ("history",)):
        answered = fedtwin(*words, "summer")
        assert answered.exit_code == 4
        assert "holds no run summer" in answered.stderr
    answered = fedtwin("resume", NAMES.run)
    assert answered.exit_code == 4
    assert "when its programs are started again" in answered.stderr


def test_a_run_is_found_in_its_usual_folder_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a Kafka; what the programs of a live federation have said leads to its name."""
    monkeypatch.chdir(tmp_path)
    ran(Path("runs/story"))
    Path("runs/spring").mkdir()
    (Path("runs/spring") / OPENING).touch()

    assert meant(Path("story")) == Path("runs/story")
    assert meant(Path("runs/spring")) == Path("spring")
    assert told("show", "story")["status"] == "done"
    assert told("resume", "story")["status"] == "done"
    monkeypatch.setenv("FEDTWIN_RUN", "story")
    assert told("show")["run_dir"] == "runs/story"
    with pytest.raises(ConfigurationError, match="which run"):
        meant(Path("a"), Path("b"))


def test_a_log_without_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A federation that nobody has disturbed has none, and no topic of them."""
    log = Log()
    log.append(NAMES.federation("rounds"), [Record("x", b"junk")])
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(operators, "connect", lambda settings, site: log)

    assert told("dlq", "ls", NAMES.run)["dead_letters"] == []
