"""A run's folder through its life: done, interrupted, injected into, shared, replaced."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import folder as folders
from experiments import runner
from experiments.api import default_folder, local_of
from experiments.folder import RunFolder, code, has_bf16
from experiments.metrics import EVENTS, TENSORBOARD
from experiments.recipes import recipe, run_name
from experiments.summary import details, glance, summary
from experiments.system import Embedded
from producers.datasets import load
from schemas.errors import ConfigurationError, DataError
from schemas.messages import StageAdded
from schemas.topics import Names
from tests.experiments.hands import (
    Interrupted,
    fedtwin,
    goes_on,
    interrupted_after,
    local,
    ran,
    told,
    two_stages,
)

pytestmark = pytest.mark.usefixtures("blank_figures")

KEYS = {
    "schema", "run", "status", "why", "recipe", "strategy", "seed", "stages", "rounds",
    "average_accuracy", "forgetting", "macro_f1", "detector", "teachers", "untested_classes",
    "dead_letters", "bytes_up", "bytes_down", "images_per_second", "wall_seconds", "seconds",
    "model_version", "model_sha256", "run_dir", "report",
}  # fmt: skip
"""What programs read; a key may be added, none may go or change its meaning."""
BF16 = ("-o", "precision=bf16")
OF_A_STAGE = {"stage", "classes", "accuracy", "macro_f1", "best_round_accuracy"}
TIMES = {"wall_seconds", "images_per_second", "seconds"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done; a story takes its own copy."""
    return ran(tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a story's run is to live."""
    return tmp_path / "run"


@pytest.fixture
def done(finished: Path, folder: Path) -> Path:
    """The folder of a run that is done."""
    shutil.copytree(finished, folder)
    return folder


# --- what is told of a run ------------------------------------------------------------------------


def test_a_run_that_is_done_is_told_in_one_frozen_object(done: Path) -> None:
    """Programs read these keys: shares in percent, bytes and seconds as numbers."""
    shown = told("show", done)

    assert shown.keys() >= KEYS
    assert (shown["schema"], shown["status"], shown["run_dir"]) == (1, "done", str(done))
    assert [each.keys() for each in shown["stages"]] == [OF_A_STAGE] * 2
    assert all(0 <= each["accuracy"] <= 100 for each in shown["stages"])
    assert {"hits", "misses", "false_alarms"} <= shown["detector"].keys()
    assert [each.keys() for each in shown["teachers"]] == [{"stage", "version", "score"}]
    assert shown["teachers"][0]["stage"] == 1
    assert shown["rounds"] == 4
    assert shown["wall_seconds"] > 0
    assert len(shown["model_sha256"]) == 64
    assert Path(shown["report"]).exists()


def test_what_a_person_reads_is_the_same_object(done: Path) -> None:
    """The table's numbers are the JSON's; the last line says what to do next."""
    shown, read = told("show", done), fedtwin("show", done).stdout

    assert f"{shown['stages'][1]['accuracy']:.1f} %" in read
    assert shown["model_sha256"] in read
    assert all(each["entity"] in read for each in shown["entities"])
    assert read.splitlines()[-1].startswith("next: open ")


def test_the_same_recipe_is_told_the_same_twice(finished: Path, tmp_path: Path) -> None:
    """All but times and places."""
    first, second = summary(finished), summary(ran(tmp_path / "again").path)

    for told_of in (first, second):
        for key in (*TIMES, "run_dir", "report"):
            del told_of[key]
    assert first == second


def test_runs_are_listed_from_all_folders_below(finished: Path, tmp_path: Path) -> None:
    """One is done, one stopped after its first round; each with its rounds."""
    shutil.copytree(finished, tmp_path / "a" / "done")
    with pytest.raises(Interrupted):
        runner.start(two_stages(), tmp_path / "b", local(tmp_path), watch=interrupted_after(1))

    done, stopped = told("ls", tmp_path)["runs"]

    assert (done["status"], done["position"]["rounds"]) == ("done", 4)
    assert stopped["status"] == "stopped"
    assert 1 <= stopped["position"]["rounds"] < 4
    assert stopped["position"]["of_rounds"] == 4


# --- going on -------------------------------------------------------------------------------------


def test_an_interrupted_run_ends_where_it_would_have(finished: Path, folder: Path) -> None:
    """Ctrl-C after a round, then resume: the same bytes as a run that nobody disturbed."""
    whole = summary(finished)
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=interrupted_after(1))
    before = details(folder)

    after = summary(goes_on(folder).path)

    assert (before["status"], after["status"]) == ("stopped", "done")
    assert before["report"] is None
    assert after["model_sha256"] == whole["model_sha256"]
    assert after["wall_seconds"] > before["wall_seconds"] > 0


def test_a_run_that_stopped_tells_whose_word_is_missing(folder: Path) -> None:
    """Interrupted in its first round, it waits for the updates of who has not answered."""
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=_at_the_first_round)

    shown = details(folder)

    (waited,) = shown["waits"]["aggregator"]
    assert waited.startswith("updates of round 0.0: local/entity-")
    assert shown["waits"]["proxy"] == ["the end of stage 0"]


def _at_the_first_round(run: Embedded) -> None:
    if run.observer.line.open_round:
        raise Interrupted


def test_resuming_what_is_over_changes_nothing(done: Path) -> None:
    """It says once more what came of it, without data and without work."""
    before = {file.name: file.read_bytes() for file in done.iterdir() if file.is_file()}

    again = told("resume", done, "--data-dir", done / "nowhere")

    assert again["status"] == "done"
    for name in ("manifest.json", "report.html", "model.safetensors"):
        assert (done / name).read_bytes() == before[name]


def test_a_run_goes_on_with_the_data_that_it_began_with_or_not_at_all(folder: Path) -> None:
    """Other images under the same name would train another model and tell nobody."""
    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=interrupted_after(1))
    manifest = RunFolder(folder).read_manifest()
    manifest["data"]["sha256"] = "0" * 64
    RunFolder(folder).write_manifest(manifest)

    with pytest.raises(DataError, match="give the data that it began with"):
        goes_on(folder)


# --- one runner, and what is never damaged --------------------------------------------------------


def test_a_folder_has_one_runner(done: Path) -> None:
    """A second one ends with 2 and touches nothing; who only looks sees that the run goes on."""
    with RunFolder(done).locked():
        fresh, more = (
            fedtwin("run", "tiny", "--run-dir", done, "--fresh"),
            fedtwin("resume", done),
        )
        shown, listed = told("show", done), glance(done)

    assert (fresh.exit_code, more.exit_code) == (2, 2)
    assert "has a runner already" in fresh.stderr
    assert (shown["status"], listed["status"]) == ("running", "running")
    assert summary(done)["status"] == "done"


def test_a_look_at_the_lock_does_not_keep_a_runner_away(done: Path) -> None:
    """A looker holds the lock for a moment; a runner that comes in that moment asks again."""
    looker = (done / "lock").open()
    fcntl.flock(looker, fcntl.LOCK_SH)

    with pytest.raises(ConfigurationError), RunFolder(done).locked():
        pass
    looker.close()

    with RunFolder(done).locked():
        assert RunFolder(done).running


def test_a_lock_that_cannot_be_read_is_named(done: Path) -> None:
    """Whether the run goes on cannot be told then: exit code 4, and nothing about room."""
    (done / "lock").unlink()
    (done / "lock").mkdir()

    answered = fedtwin("show", done)

    assert answered.exit_code == 4
    assert "lock cannot be read" in answered.stderr
    assert "room" not in answered.stderr


def test_a_run_is_not_replaced_unless_asked(done: Path) -> None:
    """The same done again: exit code 2, and three ways out in one line."""
    answered = fedtwin("run", "tiny", "--run-dir", done)

    assert answered.exit_code == 2
    assert all(way in answered.stderr for way in ("fedtwin resume", "--fresh", "--run-dir"))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("stages=9", 2),
        ("seed=99999999999999999999", 2),
        ("dataset=npz:none.npz", 4),
        ("width=4096", 1),
    ],
)
def test_a_run_that_cannot_begin_leaves_the_old_one_in_place(
    done: Path, wrong: str, code: int
) -> None:
    """--fresh replaces a run by one that begins, not by a mistake."""
    model = (done / "model.safetensors").read_bytes()

    answered = fedtwin("run", "tiny", "--run-dir", done, "--fresh", "-o", wrong)

    assert answered.exit_code == code
    assert (done / "model.safetensors").read_bytes() == model
    assert summary(done)["status"] == "done"


@pytest.mark.parametrize(
    ("flags", "able"),
    [("fpu avx2 avx512f avx512_bf16", True), ("fpu amx_bf16 avx2", True), ("fpu avx2 f16c", False)],
)
def test_half_precision_takes_a_processor_that_has_it(
    done: Path, monkeypatch: pytest.MonkeyPatch, flags: str, able: bool
) -> None:
    """Without the instructions: one line, exit code 2, and the old run stays; fp32 always runs."""
    (done / "cpuinfo").write_text(f"model name\t: Abacus bf16 edition\nflags\t\t: {flags}\n")
    monkeypatch.setattr(folders, "CPUINFO", done / "cpuinfo")

    answered = fedtwin("run", "tiny", "--run-dir", done, "--fresh", *BF16, "-o", "stages=9")

    assert has_bf16() is able
    assert answered.exit_code == 2
    said = answered.stderr.splitlines()[0]
    assert ("precision=bf16 needs a processor" in said) is not able
    assert ("classes" in said) is able  # what is wrong next: there are not so many stages
    assert summary(done)["status"] == "done"


@pytest.mark.parametrize("words", [("--device", "cuda"), ("-o", "device=cuda")])
def test_a_device_that_is_not_here_is_refused_before_anything_is_touched(
    done: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    """One line, exit code 2, and the old run stays; the processor is what a run takes unasked."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    answered = fedtwin("run", "tiny", "--run-dir", done, "--fresh", *words)

    assert answered.exit_code == 2
    assert answered.stderr.startswith("fedtwin: device=cuda is not here: torch ")
    assert len(answered.stderr.splitlines()) == 2  # what is wrong, and what to do next
    assert summary(done)["status"] == "done"
    assert RunFolder(done).read_manifest()["configuration"]["device"] == "cpu"


def test_where_nothing_tells_of_the_processor_it_lacks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside Linux, say."""
    monkeypatch.setattr(folders, "CPUINFO", tmp_path / "nothing")

    assert not has_bf16()


def test_a_fresh_run_replaces_the_old_one_and_nothing_else(done: Path) -> None:
    """Files that are not the run's own stay where they are; what a kill left half written goes."""
    old = summary(done)
    mine = {"notes.txt", "notes.new"}
    half = {f"{name}.new" for name in ("manifest.json", "model.safetensors", "metrics.jsonl")}
    for name in (*mine, *half, f"{TENSORBOARD}/{EVENTS}.new"):
        (done / name).write_text("mine")

    runner.start(two_stages(seed=7), done, local(done), fresh=True)

    assert summary(done)["model_sha256"] != old["model_sha256"]
    left = {
        each.name for each in done.rglob("*") if each.is_file() and each.read_bytes() == b"mine"
    }
    assert left == mine


def test_a_log_that_is_no_log_is_named(done: Path) -> None:
    """Somebody wrote over run.sqlite: exit code 4 for whoever reads it."""
    for part in done.glob("run.sqlite*"):
        part.unlink()
    (done / "run.sqlite").write_bytes(b"garbage" * 1000)

    for command in ("show", "resume"):
        answered = fedtwin(command, done)
        assert answered.exit_code == 4
        assert "run.sqlite cannot be read as a log" in answered.stderr


def test_a_run_goes_where_its_name_says() -> None:
    """runs/RECIPE-STRATEGY-SEED, and no more workers than a round can use."""
    configuration = recipe("tiny", overrides={"strategy": "fedavg", "seed": 7})

    assert default_folder(configuration) == Path("runs/tiny-fedavg-7")
    assert 1 <= local_of(configuration).workers <= 2
    assert local_of(configuration, workers=9).workers == 9


def test_another_data_set_is_another_run() -> None:
    """Its name, or that of its file, stands in the folder's: none is refused for the other's sake.
    Over Kafka the topics are called so, too."""
    names = {
        given: run_name(recipe("tiny", overrides={"dataset": given}))
        for given in (
            "digits",
            "organamnist",
            "npz:scans/My Cells_2.npz",
            "folder:../leaves",
            "npz:_",
        )
    }

    assert list(names.values()) == [
        "tiny-fedka-2021", "tiny-organamnist-fedka-2021", "tiny-my-cells-2-fedka-2021",
        "tiny-leaves-fedka-2021", "tiny-data-fedka-2021",
    ]  # fmt: skip
    assert [Names(name).run for name in names.values()] == list(names.values())


def test_a_run_names_its_data_wherever_it_is_told_of(done: Path) -> None:
    """In `show` and in `ls`, for people and for programs."""
    (listed,) = told("ls", done.parent)["runs"]

    assert told("show", done)["dataset"] == listed["dataset"] == "digits"
    assert "data          digits" in fedtwin("show", done).stdout
    assert " digits " in fedtwin("ls", done.parent).stdout


def test_a_run_that_is_done_is_nothing_to_resume(done: Path) -> None:
    """It says so, and for programs it is the same object; neither data nor services are asked."""
    manifest = RunFolder(done).read_manifest()
    RunFolder(done).write_manifest({**manifest, "transport": "kafka", "data_dir": "gone"})

    answered, again = fedtwin("resume", done), told("resume", done)

    assert answered.stdout.startswith(f"nothing to do: {manifest['run']} is done\n")
    assert {key: told("show", done)[key] for key in again} == again


# --- injections -----------------------------------------------------------------------------------


def test_an_injection_becomes_one_more_stage(done: Path) -> None:
    """A run that was over is stopped then, and done again after resume, with a class more."""
    added = told("inject", done, "--entity", "entity-000", "--classes", "7", "--images", "10")
    between = told("show", done)
    goes_on(done)

    assert (added["stage"], added["images"], added["classes"], added["added"]) == (
        2,
        10,
        ["7"],
        True,
    )
    assert between["status"] == "stopped"
    after = summary(done)
    assert (after["status"], len(after["stages"])) == ("done", 3)
    assert after["stages"][2]["classes"] == ["7"]
    assert after["untested_classes"] == []


def test_repeating_an_injection_adds_nothing(done: Path) -> None:
    """Its source is a hash of what it holds, so a script may be run twice."""
    words = ("inject", done, "--entity", "entity-000", "--classes", "7,8")

    first, again = told(*words), told(*words)
    other = told(*words, "--images", "9")

    assert (first["added"], again["added"], other["added"]) == (True, False, True)
    assert first["source"] == again["source"] != other["source"]
    assert (first["stage"], again["stage"], other["stage"]) == (2, 2, 3)
    decisions = RunFolder(done).decided().decisions.values()
    assert sum(isinstance(each, StageAdded) for each in decisions) == 2


def test_two_injections_that_wait_together_are_one_stage(done: Path) -> None:
    """Into two entities, the second with a name of its own for its stream."""
    first = told("inject", done, "--entity", "entity-000", "--classes", "7")
    second = told(
        "inject", done, "--entity", "local/entity-001", "--classes", "8", "--source", "camera-2"
    )
    goes_on(done)

    assert first["stage"] == second["stage"] == 2
    assert second["source"] == "camera-2"
    assert summary(done)["stages"][2]["classes"] == ["7", "8"]


def test_images_of_ones_own_are_brought_to_the_run(done: Path, tmp_path: Path) -> None:
    """Large and in colour, in a folder by class, one class under another name: how many were
    changed is told, and their classes are untested."""
    chance = np.random.Generator(np.random.PCG64(5))
    for uid in ("left", "right"):
        (tmp_path / "scans" / uid).mkdir(parents=True)
        for number in range(9):
            pixels = chance.integers(0, 256, (30, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "scans" / uid / f"{number}.png")

    added = told(
        "inject", done, "--entity", "entity-001", "--folder", tmp_path / "scans",
        "--as", "left=L,right=right",
    )  # fmt: skip
    goes_on(done)

    assert added["classes"] == ["L", "right"]
    assert (added["images"], added["resized"], added["recoloured"]) == (18, 18, 18)
    assert summary(done)["stages"][2]["classes"] == ["L", "right"]
    assert summary(done)["untested_classes"] == ["L", "right"]


def test_a_folder_of_which_some_classes_are_named_is_not_guessed_at(
    done: Path, tmp_path: Path
) -> None:
    """left=L says nothing of right: exit code 2 and both ways out. Asked for one by one, a class
    may keep its name."""
    for uid in ("left", "right"):
        (tmp_path / "scans" / uid).mkdir(parents=True)
        for number in range(9):
            Image.new("L", (8, 8), number).save(tmp_path / "scans" / uid / f"{number}.png")
    words = ("inject", done, "--entity", "entity-001", "--folder", tmp_path / "scans")

    refused = fedtwin(*words, "--as", "left=L")
    only = told(*words, "--as", "left=L", "--classes", "left")
    both = told(*words, "--as", "left=L", "--classes", "left,right")

    assert refused.exit_code == 2
    assert "names 1 of 2 classes, not right: --classes left takes" in refused.stderr
    assert (only["classes"], both["classes"]) == (["L"], ["L", "right"])


def test_what_was_injected_before_is_told_to_be_there(done: Path) -> None:
    """The same command again adds nothing and says so; once it was learned there is no more."""
    words = ("inject", done, "--entity", "entity-000", "--classes", "7")
    first = told(*words)
    again, seen = told(*words), fedtwin(*words).stdout
    goes_on(done)
    learned = fedtwin(*words).stdout

    assert (first["new_images"], first["added"]) == (first["images"], True)
    assert (again["new_images"], again["added"]) == (0, False)
    assert f"{first['images']} of 7; none is new" in seen
    assert seen.splitlines()[-1] == f"next: fedtwin resume {done}"
    assert learned.splitlines()[-1].startswith(f"next: fedtwin show {done}")


def test_a_run_over_kafka_takes_no_injection_into_its_copy(done: Path) -> None:
    """Its folder keeps copies of what was decided, and nobody would read what is written there: the
    images go to Kafka, and where nobody names one they go nowhere."""
    manifest = RunFolder(done).read_manifest()
    RunFolder(done).write_manifest({**manifest, "transport": "kafka"})
    before = (done / "run.sqlite").read_bytes()

    answered = fedtwin("inject", done, "--entity", "entity-000", "--classes", "7")

    assert answered.exit_code == 3
    assert "FEDTWIN_KAFKA" in answered.stderr
    assert (done / "run.sqlite").read_bytes() == before


def test_a_file_of_images_is_injected_under_new_names(done: Path, tmp_path: Path) -> None:
    """Local classes 0 and 1 of a file are the run's 20 and 21; a data set's images go in alike."""
    digits = load("digits", tmp_path).train
    np.savez(
        tmp_path / "more.npz",
        train_images=digits.images[:100, 0],
        train_labels=digits.labels[:100],
    )
    words = ("--classes", "0,1", "--as", "20,21", "--images", "4")

    of_file = told("inject", done, "--entity", "entity-000", "--npz", tmp_path / "more.npz", *words)
    of_data = told("inject", done, "--entity", "entity-001", "--dataset", "digits", *words)

    assert of_file["classes"] == of_data["classes"] == ["20", "21"]
    assert of_file["images"] == of_data["images"] == 8


def test_too_few_images_of_a_class_are_told_of(done: Path) -> None:
    """They wait, because labels need eight of a kind; whoever injected them should know."""
    answered = fedtwin("inject", done, "--entity", "entity-000", "--classes", "7", "--images", "3")

    assert answered.exit_code == 0
    assert "fewer than 8 images" in answered.stderr
    assert answered.stdout.splitlines()[-1] == f"next: fedtwin resume {done}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--entity entity-9 --classes 7", "no entity 'entity-9'"),
        ("--entity entity-000", "--classes"),
        ("--entity entity-000 --classes 77", "no class '77' (did you mean '7'?)"),
        ("--entity entity-000 --classes 7 --as a,b", "gives 2 names, and there is 1 class:"),
        ("--entity entity-000 --classes 7 --as 8=x", "renames 8"),
        ("--entity entity-000 --classes 7 --as 7=", "1 to 200 characters"),
        ("--entity entity-000 --classes 7 --npz a --folder b", "one of"),
        ("--entity entity-000 --classes 7 --source schedule", "name another"),
        (f"--entity entity-000 --classes 7 --source {'x' * 201}", "1 to 180 characters"),
        ("--entity entity-000 --classes 7 --dataset digit", "did you mean 'digits'"),
    ],
)
def test_an_injection_that_does_not_fit_adds_nothing(done: Path, words: str, said: str) -> None:
    """One line, exit code 2, and the run is as it was."""
    answered = fedtwin("inject", done, *words.split())

    assert answered.exit_code == 2
    assert said in answered.stderr
    assert summary(done)["status"] == "done"


def test_nothing_is_injected_into_a_run_that_is_not_opened(done: Path) -> None:
    """Killed before its first decision, it has no entities that could look."""
    for part in done.glob("run.sqlite*"):
        part.unlink()

    answered = fedtwin("inject", done, "--entity", "entity-000", "--classes", "7")
    shown = told("show", done)

    assert answered.exit_code == 2
    assert "not opened yet" in answered.stderr
    assert (shown["status"], shown["stages"], shown["rounds"]) == ("stopped", [], 0)
    assert shown.keys() >= KEYS


def test_the_manifest_tells_what_the_bytes_depend_on(done: Path) -> None:
    """Configuration, hashes of data and schedule, versions of libraries, the processor, threads."""
    manifest = RunFolder(done).read_manifest()

    assert manifest["version"] == 1
    assert {"run_hash", "schedule_sha256", "model_sha256", "seconds", "threads"} <= manifest.keys()
    assert {"torch", "numpy", "processor"} <= manifest["software"].keys()
    assert manifest["software"]["code"] == code()
    assert manifest["data"]["sha256"] == load("digits", done, image_size=8).sha256
