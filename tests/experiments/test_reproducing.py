"""A table as a command: what is missing is run, what is stored is not, whatever stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments import memo, runner
from experiments.cli import main
from experiments.folder import RunFolder
from experiments.memo import MEMORY, common_name, kept, remembering
from experiments.paper.reproduce import Machine
from experiments.paper.results import command, read
from experiments.paper.tables import ABLATIONS
from experiments.recipes import recipe
from infra.promises import Result, Task
from schemas.messages import Groups
from tests.experiments.hands import fedtwin as by_hand
from tests.experiments.hands import local, told

SMALL = [
    word
    for key in ("stages=1", "rounds_per_stage=2", "images_per_class=16", "local_epochs=1",
                "image_size=8", "width=4")
    for word in ("-o", key)
]  # fmt: skip


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "experiments.cli", *more]


def reproduce(folder: Path, *methods: str) -> list[str]:
    chosen = [word for name in methods for word in ("--method", name)]
    there = ["--results", str(folder / "results"), "--work", str(folder / "work")]
    return ["reproduce", "methods", "--scale", "smoke", "--jobs", "2", *there, *chosen, *SMALL]


def test_a_table_is_run_once_and_stored(tmp_path: Path) -> None:
    """Two methods are trained, the second time none is; the line's command gives the same model.

    In the only stage both train alike, so the six trainings lie there once; the model is the one
    that a run makes which shares nothing.
    """
    first = told(*reproduce(tmp_path, "fedavg", "joint"), "--keep")
    lines = {each.strategy: each for each in read(tmp_path / "results/smoke.jsonl")}
    again = told(*reproduce(tmp_path, "fedavg", "joint"))
    words = command(lines["joint"].configuration).split()[1:]
    alone = told(*words, "--run-dir", tmp_path / "alone", "-q")

    assert lines.keys() == {"fedavg", "joint"}
    assert first == again
    rows = {row["method"]: row for row in first["tables"][0]["rows"]}
    assert rows["joint"]["model_sha256"] == {"2021": alone["model_sha256"]}
    assert rows["fedavg"]["model_sha256"] == rows["joint"]["model_sha256"]
    assert kept(tmp_path / "work/trainings/2021") == 2 * 3
    assert len(list((tmp_path / "work").glob("*/manifest.json"))) == 2


def test_what_is_stopped_goes_on(tmp_path: Path) -> None:
    """Ctrl-C in the midst of a run: its folder stays, and the same command sees it through."""
    begun = subprocess.Popen(
        words(*reproduce(tmp_path, "fedavg")),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    work = tmp_path / "work"

    def going() -> list[Path]:
        return [
            path for path in work.glob("*/manifest.json") if (path.parent / "run.sqlite").exists()
        ]

    until = time.monotonic() + 60
    while not going() and time.monotonic() < until and begun.poll() is None:
        time.sleep(0.1)
    (manifest,) = going()
    os.kill(begun.pid, signal.SIGINT)
    begun.communicate(timeout=60)
    stopped = RunFolder(manifest.parent)

    assert begun.returncode == 130
    assert not stopped.running
    assert not read(tmp_path / "results/smoke.jsonl")

    told(*reproduce(tmp_path, "fedavg"))

    (line,) = read(tmp_path / "results/smoke.jsonl")
    assert line.strategy == "fedavg"
    assert not manifest.exists()
    assert not kept(work / "trainings/2021")


def test_two_commands_in_one_folder_keep_each_others_trainings(tmp_path: Path) -> None:
    """Who is done with a seed first leaves its trainings there; who is done last deletes them."""
    one, other = (Machine(tmp_path, tmp_path, 1, print) for _ in range(2))
    both = {machine._trainings(2021) for machine in (one, other)}
    (trainings,) = both
    trainings.mkdir()
    (trainings / "common").write_bytes(b"a training")

    one._let_go(2021, [])
    assert kept(trainings) == 1
    other._let_go(2021, [])
    assert not trainings.exists()


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    """It names what is missing: five methods at three seeds."""
    there = ["--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")]
    asked = told("reproduce", "table2", "--scale", "smoke", "--seeds", "3", "--plan", *there)

    assert asked["planned"] == 15
    assert len(asked["missing"]) == 15
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    """The data are not there: exit 1, with what it said in a log."""
    done = by_hand(*reproduce(tmp_path, "fedavg"), "--data-dir", tmp_path / "none",
                   "-o", "dataset=organamnist", "-o", "image_size=28")  # fmt: skip

    assert done.exit_code == 1
    assert "1 of 1 runs failed" in done.stderr
    (log,) = (tmp_path / "work").glob("*.log")
    assert "organamnist" in log.read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["reproduce", "table12"], "no table is called 'table12'"),
        (["reproduce", "table2", "--scale", "tiny"], "a scale is paper, bench, smoke"),
        (["reproduce", "hospital"], "name them with -o dataset=npz:FILE"),
        (["report", "table2", "--on", "train"], "--on is test or validation"),
        (["reproduce", "table2", "--plan", "--method", "icral"], "icarl, lwm, glfc, lga, fedka"),
        (["reproduce", "table2", "--plan", "--method", "fedavg"], "`methods` is the table of"),
        (["report", "overview", "table2"], "overview is a line for each table of the paper"),
        (["report", "overview", "--scale", "tiny"], "--scale is paper, bench, smoke, not 'tiny'"),
        (["compare", "fedka", "lga", "--metric", "f2"], "--metric is one of accuracy"),
        (["compare", "fedka", "nobody"], "nobody is neither a folder nor a method"),
        (["compare", "fedka", "lga", "--scale", "smoke"], "have no seed in common"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, more: list[str], said: str) -> None:
    """In a line, with exit 2."""
    done = by_hand(*more, "--results", tmp_path)

    assert done.exit_code == 2
    assert said in done.stderr


def test_trainings_are_remembered_only_where_somebody_asks() -> None:
    """A plain run has no such folder."""
    assert MEMORY not in os.environ


def lesson_of(method: str, values: dict[str, Any], **own: Any) -> Task:
    """A training of a first stage by a method."""
    configuration = recipe("smoke", overrides={"strategy": method, **own}).model_dump(mode="json")
    given = {"entity": "twin-1", "round": 0, "rows": [0, 1], "old_classes": 0, "signal": None}
    images, weights = np.zeros((2, 1, 4, 4), np.uint8), np.zeros(3, np.float32)
    groups: Groups = {"model": {"fc.bias": weights}, "data": {"images": images}}
    return Task("learn", {"configuration": configuration, **given, **values}, groups)


def test_methods_share_a_training_only_where_it_is_the_same() -> None:
    """Five train alike until somebody teaches, FedKA and its ablations by a factor of their own."""
    plain = common_name(lesson_of("fedavg", {}))
    twice = common_name(lesson_of("fedka", {}))
    alike = {common_name(lesson_of(name, {})) for name in ("icarl", "lwm", "glfc", "lga")}
    ablations = {common_name(lesson_of(name, {})) for name in ABLATIONS}
    other = [
        common_name(lesson_of("fedavg", {}, seed=1)),
        common_name(lesson_of("fedavg", {}, local_epochs=3)),
        common_name(lesson_of("fedavg", {}, family="softmax")),
        common_name(lesson_of("fedavg", {}, reduction="sum", learning_rate=0.1)),
        *(
            common_name(lesson_of("fedavg", {key: value}))
            for key, value in (("entity", "twin-2"), ("round", 1), ("rows", [1, 0]))
        ),
    ]

    assert alike == {plain}
    assert ablations == {twice}
    assert len({None, plain, twice, *other}) == 3 + len(other)


@pytest.mark.parametrize("method", ["fedprox", "scaffold", "fedntd", "flwf2t", "fedcurv"])
def test_a_method_with_a_term_or_state_of_its_own_shares_none(method: str) -> None:
    """Nor does any that has learned a class, or that somebody teaches."""
    task = lesson_of("icarl", {})
    taught = Task(task.name, task.values, {**task.groups, "teacher": {}})

    assert common_name(lesson_of(method, {})) is None
    assert common_name(lesson_of("icarl", {"old_classes": 1})) is None
    assert common_name(taught) is None


def test_two_runs_may_end_the_same_training_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one writes it down the other does, and is done first; both have it, and it is whole."""
    weights = np.arange(1000, dtype=np.float32)
    made = Result({"places": []}, {"send/model": {"fc.bias": weights}})
    learn = remembering({"learn": lambda task: made}, str(tmp_path))["learn"]
    monkeypatch.setattr(memo, "common_name", lambda task: "same")
    task, settle, runs = Task("learn"), os.fsync, [1, 2]
    monkeypatch.setattr(os, "getpid", lambda: runs[-1])

    def meanwhile(file: int) -> None:
        if len(runs) > 1:
            runs.pop()
            assert learn(task) == made
        settle(file)

    monkeypatch.setattr(os, "fsync", meanwhile)

    assert learn(task) == made
    assert np.array_equal(learn(task).groups["send/model"]["fc.bias"], weights)
    assert kept(tmp_path) == 1


def test_a_terminal_that_closes_ends_a_command_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that no run goes on behind the back of who began it; after `nohup` it does."""
    asked: dict[int, object] = {}
    monkeypatch.setattr("experiments.cli.app.app", lambda prog_name: None)
    monkeypatch.setattr(signal, "signal", asked.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)

    main()
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    ends = asked.pop(signal.SIGHUP)
    main()

    assert ends is asked[signal.SIGTERM]
    assert signal.SIGHUP not in asked


def test_two_methods_are_compared_also_with_an_upper_bound(tmp_path: Path) -> None:
    """Each at one seed, which tells nothing; the oracle's schedule is another, as it has to be."""
    told(*reproduce(tmp_path, "fedavg", "oracle"))
    there = ["--scale", "smoke", "--results", str(tmp_path / "results"), *SMALL]

    found = told("compare", "oracle", "fedavg", *there)

    assert found["seeds"] == [2021]
    assert found["verdict"] == "not told apart"


# --- folders of runs ------------------------------------------------------------------------------

QUICK: dict[str, Any] = {
    "stages": 1, "rounds_per_stage": 2, "images_per_class": 16, "local_epochs": 1, "image_size": 8,
    "width": 4,
}  # fmt: skip
"""The keys of `SMALL`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LGA that is done, made by a learner that learns nothing."""
    path = tmp_path_factory.mktemp("runs") / "lga"
    runner.start(recipe("smoke", overrides={"strategy": "lga", **QUICK}), path, local(path))
    return path


def test_folders_alone_are_shown_in_the_tables_that_they_belong_to(
    folder: Path, tmp_path: Path
) -> None:
    """LGA is in four tables of digits and in one of all methods; no ablation is run.

    The other sets of images and numbers of stages are other runs.
    """
    there = ["--results", str(tmp_path / "r"), *SMALL]
    found = told("report", folder, *there)
    rows = {
        each["table"]: next(row for row in each["rows"] if row["seeds"]) for each in found["tables"]
    }

    assert {"table2", "methods"} <= rows.keys()
    assert {"table11", "hospital", "runs"}.isdisjoint(rows)
    assert {each["scale"] for each in found["tables"]} == {"smoke"}
    assert {(row["method"], tuple(row["seeds"])) for row in rows.values()} == {("lga", (2021,))}


def test_a_run_of_no_table_is_shown_all_the_same(folder: Path, tmp_path: Path) -> None:
    """With its own figures, and which keys make it another run; also beside a table by name."""
    there = ["--results", str(tmp_path / "r"), "--out", str(tmp_path / "out")]
    alone = by_hand("report", folder, *there)
    beside = told("report", "table11", folder, "--results", tmp_path / "r")

    (row,) = beside["tables"][1]["rows"]
    assert (row["method"], row["state"], row["seeds"]) == ("lga", "in no table", [2021])
    assert row["mean"] is not None
    assert row["setting"].startswith("smoke ")
    assert "stages=1" in row["setting"]
    assert alone.exit_code == 0, alone.output
    assert "in no table" in alone.stdout
    assert f"{row['mean']:.2f}" in (tmp_path / "out" / "report.md").read_text()


# --- all of them ----------------------------------------------------------------------------------


def test_an_overview_is_told_as_asked(tmp_path: Path) -> None:
    """At the scale that is named, as a file, and as one object; digits were stored by nobody."""
    there = ["--results", str(tmp_path / "r"), "--scale", "smoke"]
    shown = by_hand("report", "overview", *there, "--out", tmp_path / "out")
    found = told("report", "overview", *there)["overview"]

    assert shown.exit_code == 0
    assert shown.stdout == (tmp_path / "out" / "overview.md").read_text()
    assert "| table | what | at the paper's scale | at `smoke` | seeds |" in shown.stdout
    assert [each["table"] for each in found] == [f"table{number}" for number in range(2, 12)]
    assert found[0]["states"] == {"paper": {"not run": 5}, "smoke": {"not run": 5}}


def test_of_all_tables_the_one_that_is_left_out_is_named(tmp_path: Path) -> None:
    """Images of one's own have to be named; then it is planned as well."""
    there = ["reproduce", "all", "--scale", "smoke", "--plan", "--results", str(tmp_path)]
    done = by_hand(*there)
    named = by_hand(*there, "-o", "dataset=npz:cells.npz")

    assert done.exit_code == named.exit_code == 0
    assert "left out: hospital" in done.stderr
    assert "-o dataset=npz:FILE" in done.stderr
    assert "hospital" not in named.stderr


def test_a_schedule_of_ones_own_is_every_methods(tmp_path: Path) -> None:
    """Of a file: who gets which class. All methods train on it, and their commands say so."""
    clients = recipe("smoke").clients
    uids = {f"local/entity-{i:03}": [str(i % 5), str((i + 1) % 5)] for i in range(clients)}
    file = tmp_path / "who.yaml"
    file.write_text(yaml.safe_dump(uids))

    found = told(*reproduce(tmp_path, "fedavg", "lga"), "-o", f"assignment={file}")
    lines = read(tmp_path / "results/smoke.jsonl")

    assert [row["seeds"] for row in found["tables"][0]["rows"]] == [[2021], [2021]]
    assert len({each.line["schedule_sha256"] for each in lines}) == 1
    for each in lines:
        given = each.configuration.assignment
        assert given is not None
        assert {who: list(what) for who, what in given.items()} == uids
        assert "assignment=" in each.line["command"]
