"""What an operator sees of a live federation and decides in it, beside its programs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from experiments import operators
from experiments.history import author, history, words
from experiments.operators import Operator, overview
from infra.transport.embedded import Embedded as Log
from schemas.codec import records
from schemas.errors import ConfigurationError, DataError
from schemas.messages import Decision, Measured, Paused
from schemas.topics import Names
from tests.experiments.hands import fedtwin, ran, told
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, WEST, Alive
from tests.flows.federation import Told, put_together, small
from tests.schemas.specimens import every_kind
from tests.schemas.test_live_line import STAGE, closes, line, opens
from twins.apart import is_tenth

APART = sum(is_tenth("camera", number) for number in range(60))


def begun() -> Alive:
    """Four twins have found three classes each, and have had their first rounds."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012", 20)
    run.after(11)
    return run


@pytest.fixture
def federation(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """A federation that commands find where they look for Kafka."""
    run = begun()
    monkeypatch.setenv("FEDTWIN_KAFKA", "nobody.invalid:9092")
    monkeypatch.setattr(operators, "connect", lambda settings, site: run.log)
    monkeypatch.setattr(operators, "closing", nullcontext)  # the log is ours
    return run


def test_a_federation_in_one_object() -> None:
    """Who is there, what goes on, and each version with what it scored."""
    run = begun()
    run.decide(Paused, entity=EAST, rests=True)
    told = overview(Operator(run.log, NAMES, everything=True))

    assert told["doing"] == "stage 0 rests after 3 rounds, until new images come"
    assert [(each["entity"], each["paused"]) for each in told["entities"]] == [
        (EAST, True), (NORTH, False), (SOUTH, False), (WEST, False),
    ]  # fmt: skip
    assert (told["stages"], told["rounds"], told["model_version"]) == (1, 3, 4)
    assert told["versions"][-1]["from"] == "round 0.2"
    assert (told["held_out_version"], told["held_out_images"]) == (4, 4 * APART)


@pytest.mark.parametrize(
    ("before", "doing"),
    [
        (lambda run: None, "waits for somebody to find a new class"),
        (lambda run: run.decide(Paused, entity=None, rests=True), "paused"),
    ],
)
def test_what_goes_on_before_the_first_class(before: Callable[[Alive], None], doing: str) -> None:
    """It is opened, and nobody has found anything."""
    run = Alive()
    run.settle()
    before(run)

    assert overview(Operator(run.log, NAMES))["doing"] == doing


def test_a_round_that_is_open_names_who_trains() -> None:
    """And waits for them."""
    run = begun()
    run.vanish(WEST)
    run.stream(NORTH, "012")
    run.after(1)

    doing = overview(Operator(run.log, NAMES))["doing"]
    assert doing == f"round 0.3 waits for {EAST}, {NORTH}, {SOUTH}, {WEST}"


def test_a_run_that_is_not_there_and_one_that_is_a_recipes() -> None:
    """Each is told what it is."""
    with closing(Log()) as log:
        with pytest.raises(DataError, match="fedtwin topics ls summer"):
            Operator(log, Names("summer"))
        recipe = put_together(small(), log, Told())
        recipe.system.run()
        with pytest.raises(ConfigurationError, match="a run of the recipe tiny"):
            Operator(log, Names("story"))


def test_show_takes_the_name_of_a_federation(federation: Alive) -> None:
    """As a table, and as one object."""
    shown = fedtwin("show", NAMES.run)
    assert "round 0.2" in shown.stdout
    assert "held out at the sites*" in shown.stdout
    assert "forgotten*" in shown.stdout
    assert "* as it is told in metrics, where every account" in shown.stdout
    as_json = told("show", NAMES.run)
    assert as_json["held_out_version"] == 4
    assert as_json["live"]


def test_rollback_tells_what_it_decided(federation: Alive) -> None:
    """Version 2's values are version 5, and `show` says where that comes from."""
    answered = told("rollback", "2", "--run", NAMES.run)
    assert (answered["back_to"], answered["model_version"]) == (2, 5)
    assert not answered["ended_round"]
    assert federation.line.model is not None
    assert answered["model_sha256"] == federation.line.model.sha256
    federation.settle()
    assert told("show", NAMES.run)["versions"][-1]["from"] == "back to version 2"


def test_a_rollback_that_cannot_be(federation: Alive) -> None:
    """Exit code 2, and what would do."""
    answered = fedtwin("rollback", "99", "--run", NAMES.run)
    assert answered.exit_code == 2
    assert "there was no version 99: the newest is 4" in answered.stderr


def test_a_federation_is_named_by_the_environment_or_not_at_all(
    federation: Alive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either the variable is named."""
    assert "FEDTWIN_RUN" in fedtwin("pause").stderr
    monkeypatch.setenv("FEDTWIN_RUN", NAMES.run)
    assert told("pause")["run"] == NAMES.run


def test_pausing_twice_is_one_decision(federation: Alive) -> None:
    """An entity rests, rests still, and goes on; then everybody."""
    words = (["pause", EAST], ["pause", EAST], ["unpause", EAST], ["pause"])
    said = [told(*each, "--run", NAMES.run)["decision"] for each in words]
    first = federation.line.number - 2

    assert said == [first, None, first + 1, first + 2]
    assert federation.line.resting == set()
    assert federation.line.all_rest
    assert f"{EAST} goes on, as before" in fedtwin("unpause", EAST, "--run", NAMES.run).stdout


def test_an_entity_that_nobody_knows(federation: Alive) -> None:
    """The nearest is named."""
    answered = fedtwin("pause", "a/nort", "--run", NAMES.run)
    assert answered.exit_code == 2
    assert f"did you mean '{NORTH}'?" in answered.stderr


def test_the_history_tells_every_decision_that_counted(federation: Alive) -> None:
    """Of all lines, in the order of time, with its author; what was passed over is not there."""
    run = federation
    run.stream(EAST, "7", 24)
    run.after(11)
    run.decide(Paused, entity=EAST, rests=True)
    kinds, teacher = run.kinds(), run.teachers[0]
    late = Paused(run=run.line.run, number=1, entity=None, rests=True)
    again = Paused(run=run.line.run, number=len(kinds), entity=EAST, rests=True)
    for passed_over in (late, again):  # the second changes nothing
        run.log.append(NAMES.federation("rounds"), records(passed_over, source="operator")[1])
    entries = history(run.log, NAMES)

    rounds = [each for each in entries if each.line == "rounds"]
    assert [each.number for each in rounds] == list(range(len(kinds)))
    assert [each.kind for each in rounds] == kinds
    assert rounds[-1].by == "operator"
    assert rounds[-1].what == f"{EAST} rests"
    assert rounds[2].what == "the head grows by 0, 1, 2: version 1"
    assert [each.what for each in entries if each.line == "teachers"] == [
        f"version {teacher.teacher.version} teaches stage 1, of {len(teacher.scores)} that were"
        " scored"
    ]
    east = [each.what for each in entries if each.line == EAST]
    assert east[:3] == ["joins", "has found 0, 1, 2", "has found 7"]
    times = [each.at for each in entries]
    assert None not in times
    assert times == sorted(times, key=lambda at: at or 0)


@pytest.mark.parametrize(
    ("entity", "images", "shown"),
    [
        (NORTH, 500, [("metrics, unverified", f"{NORTH} forgets everything: 500 images")]),
        (NORTH, -1, []),
        (NORTH, True, []),
        ("elsewhere/north", 500, []),
        ("north", 500, []),
    ],
)
def test_whoever_may_write_metrics_is_not_taken_for_a_site(
    federation: Alive, entity: str, images: int, shown: list[tuple[str, str]]
) -> None:
    """Any account can say that somebody forgot everything. It is told as what it is, and not at all
    where it cannot be."""
    values = {"asked": "everything", "images": images}
    name = f"forgotten/{entity}/0123456789abcdef"
    said = Measured(run=federation.line.run, name=name, values=values)
    federation.log.append(NAMES.federation("metrics"), records(said, source="anybody")[1])
    found = [each for each in history(federation.log, NAMES) if each.line == "forgotten"]

    assert [(each.by, each.what) for each in found] == shown


def test_history_as_a_table_and_as_an_object(federation: Alive) -> None:
    """The newest, and how many there are."""
    answered = told("history", "--run", NAMES.run, "--last", "2")
    assert [each["number"] for each in answered["decisions"]] == [7, 8]
    assert answered["of"] == 9 + 8
    shown = fedtwin("history", "--run", NAMES.run, "--last", "2").stdout
    assert "round 0.2 counts 4: version 4" in shown
    assert "the newest 2 of 17" in shown


def test_history_of_a_runs_folder(tmp_path: Path) -> None:
    """A recipe's run: no operator, and the same lines."""
    folder = ran(tmp_path / "run")
    answered = told("history", "--run", str(folder.path))

    by = {each["by"] for each in answered["decisions"]}
    assert {"aggregator", "proxy", "twin of local/entity-000"} <= by
    assert answered["decisions"][-1]["what"].startswith("stage 1 ends with version")
    assert all(each["at"] for each in answered["decisions"])


def test_history_of_nothing(federation: Alive) -> None:
    """A name that no run has, and a folder that holds none."""
    assert "holds no run summer" in fedtwin("history", "--run", "summer").stderr
    assert fedtwin("history", "--run", "no/folder").exit_code == 4


@pytest.mark.parametrize("decision", [each for each in every_kind() if isinstance(each, Decision)])
def test_every_decision_has_words(decision: Decision) -> None:
    """Of every kind, and other ones than its name."""
    assert words(decision) != decision.kind()
    assert author(decision)


def test_versions_are_told_by_where_they_come_from() -> None:
    """Weights that were drawn, a head that grew, rounds."""
    more = [opens(5, 0, 1, 2), closes(6, 0, 1, 3)]
    assert operators.origins(line(*STAGE, *more)) == {
        0: "the first weights",
        1: "stage 0 grows by 0, 1",
        2: "round 0.0",
        3: "round 0.1",
    }
