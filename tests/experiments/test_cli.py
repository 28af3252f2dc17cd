"""The command line as a person meets it: help, wrong words, and what must never be touched."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.cli.words import data_dir, in_a_line, overrides, table
from experiments.folder import RunFolder
from experiments.recipes import RECIPES
from learning.strategies import STRATEGIES
from schemas.errors import ConfigurationError
from tests.experiments.hands import fedtwin, told

COMMANDS = (
    "demo", "run", "resume", "show", "ls", "inject", "predict", "export", "methods", "doctor",
    "data ls", "data fetch", "recipes", "replay", "topics plan", "topics apply", "topics ls",
    "topics rm", "dlq ls", "dlq show", "dlq requeue", "detection",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each story begins in an empty folder, without data sets and without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDTWIN_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_of_itself(command: str) -> None:
    """Help is where people look first; an example tells more than a list of options."""
    shown = fedtwin(*command.split(), "--help")

    assert shown.exit_code == 0
    assert re.search(rf"Examples:\n\s+fedtwin {command}\b", shown.output)


def test_the_first_help_tells_what_exit_codes_mean() -> None:
    """Scripts rely on them, so they are documented where everybody finds them."""
    shown = fedtwin("--help").output

    for code in (0, 1, 2, 3, 4, 130):
        assert re.search(rf"^\s+{code}\s+\w", shown, re.MULTILINE)
    for command in COMMANDS:
        assert re.search(rf"^  {command.split()[0]} ", shown, re.MULTILINE)


def test_the_help_of_run_names_every_recipe() -> None:
    """The list is written out there, because reading it from the recipes would be slow."""
    shown = " ".join(fedtwin("run", "--help").output.split())

    assert not [name for name in RECIPES if not re.search(rf"\b{name}[, .]", shown)]


def test_the_version_is_the_installed_one() -> None:
    """`fedtwin --version` prints name and number."""
    shown = fedtwin("--version")

    assert shown.exit_code == 0
    assert re.fullmatch(r"fedtwin \d+\.\d+\.\d+\n", shown.output)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("experiments.cli.app", ("torch", "numpy", "pydantic", "rich", "yaml")),
        ("experiments.api", ("torch", "torchvision", "matplotlib", "tensorboard")),
    ],
)
def test_nobody_waits_for_what_is_not_needed(module: str, heavy: tuple[str, ...]) -> None:
    """Help imports next to nothing, and a run's main process no torch: only workers need it."""
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_recipes_tell_every_key_with_what_it_takes() -> None:
    """So nobody has to read sources to find one; `perturb.steps` and choices among them."""
    from schemas.configuration import known_keys, values_of

    keys = told("recipes", "smoke")["keys"]

    assert {*keys, "recipe"} == set(known_keys())
    assert keys["clients_per_round"] == 3
    assert keys["perturb.steps"] == 50
    assert values_of("wire") == "fp32, bf16, int8"
    assert values_of("keep_rounds") == "a whole number or all"
    assert values_of("ad_layers") == "a list of layer1, layer2, layer3, layer4"
    assert set(told("recipes")["recipes"]) >= {"demo", "smoke", "tiny"}
    assert "clients_per_round" in fedtwin("recipes", "smoke").stdout


# --- wrong words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("run cifar10", 2, "did you mean 'cifar100'"),
        ("run tiny --preset papers", 2, "paper"),
        ("run tiny --strategy fedkaa", 2, "'fedka'"),
        ("run tiny -o rounds_per_stag=3", 2, "did you mean 'rounds_per_stage'"),
        ("run tiny -o perturb.stepps=3", 2, "did you mean 'perturb.steps'"),
        ("run tiny -o stages", 2, "key=value"),
        ("run tiny -o stages=[1", 2, "YAML"),
        ("run tiny -o clients=0", 2, "clients"),
        ("run tiny --seed 99999999999999999999", 2, "seed should be less than"),
        ("run tiny -o stages=3", 2, "15 classes, but 10"),
        ("run tiny -o clients_per_round=9", 2, "9 of 4 clients"),
        ("run tiny -o reduction=sum -o learning_rate=2.0", 2, "at most 0.2"),
        ("run tiny -o batch_size=1", 2, "batch_size"),
        ("run tiny -o workers=0", 2, "workers"),
        ("run tiny -o report_prototypes=5", 2, "report_prototypes"),
        ("run tiny -o image_size=5000", 2, "4 to 1024"),
        ("run tiny -o width=4096", 1, "make room"),
        ("run tiny -o dataset=npz:none.npz", 4, "none.npz"),
        ("run cifar100-small", 4, "fedtwin data fetch cifar100"),
        ("run organamnist", 4, "866b832ed4eeba67bfb9edee1d5544e6"),
        ("resume nowhere", 4, "nowhere holds no run"),
        ("show nowhere", 4, "nowhere holds no run"),
        ("inject nowhere --entity entity-000 --classes 5", 4, "nowhere holds no run"),
        ("predict nowhere image.png", 4, "nowhere holds no run"),
        ("export nowhere", 4, "nowhere holds no run"),
        ("data fetch cifar10", 2, "did you mean 'cifar100'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words: str, code: int, said: str) -> None:
    """One line on stderr that names the remedy, one that says what to do next, the documented exit
    code, and no run begun."""
    answered = fedtwin(*words.split())

    line, further = answered.stderr.splitlines()
    assert line.startswith("fedtwin: ")
    assert further.startswith("next: ")
    assert said in line
    assert answered.exit_code == code
    assert answered.stdout == ""
    assert not list(Path().rglob("manifest.json"))


def test_who_cannot_be_asked_has_not_said_yes() -> None:
    """What takes data away asks first; in a script nobody answers, and nothing is taken."""
    answered = fedtwin("topics", "rm", "spring")

    assert answered.exit_code == 2
    assert "nothing was taken away; --yes does not ask" in answered.stderr


def test_a_broken_file_of_images_is_named() -> None:
    """A copy that broke off ends with 4, not with a trace."""
    Path("broken.npz").write_bytes(b"PK\x03\x04 and no more")

    answered = fedtwin("run", "tiny", "-o", "dataset=npz:broken.npz")

    assert answered.exit_code == 4
    assert "broken.npz cannot be read as npz" in answered.stderr


def test_a_run_folder_that_is_a_file_is_wrong_usage() -> None:
    """Nothing can be written there, and what is there stays."""
    Path("mine").write_text("precious")

    answered = fedtwin("run", "tiny", "--run-dir", "mine")

    assert answered.exit_code == 2
    assert Path("mine").read_text() == "precious"


@pytest.mark.parametrize(
    "words",
    ["run", "run tiny --bogus", "run tiny --seed x", "fly", "predict", "data fetch", "--bogus ls"],
)
def test_words_that_are_no_command_end_with_2(words: str) -> None:
    """Typing errors are told as everywhere on a command line."""
    answered = fedtwin(*words.split())

    assert answered.exit_code == 2
    assert "Error" in answered.stderr
    assert answered.stderr.splitlines()[-1].startswith("next: fedtwin ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("resume nowhere", 4),
        ("demo -o stages=x", 2),
        ("run", 2),
        ("run tiny --workers 0", 2),
        ("show --bogus", 2),
        ("fly", 2),
        ("--bogus ls", 2),
    ],
)
def test_a_program_that_asked_for_json_gets_its_error_as_json(words: str, code: int) -> None:
    """One object on the last line of stdout, also when nothing came of it, or words were wrong."""
    answered = fedtwin(*words.split(), "--json")

    (line,) = answered.stdout.splitlines()
    error = json.loads(line)
    assert error.keys() == {"schema", "status", "error", "exit_code"}
    assert (error["schema"], error["status"], error["exit_code"]) == (1, "failed", code)
    assert answered.exit_code == code
    assert error["error"] in answered.stderr


@pytest.mark.parametrize(
    ("words", "next_words"),
    [
        ("resume nowhere", "fedtwin ls"),
        ("run cifar100-small", "fedtwin data fetch cifar100"),
        (
            "run cifar100-small --data-dir /a/b",
            "fedtwin data fetch cifar100 --data-dir /a/b",
        ),
        ("data fetch cifar10", "fedtwin data fetch --help shows what can be said"),
        ("run tiny -o width=4096", "put that right, then again fedtwin run tiny -o width=4096"),
        ("show --bogus", "fedtwin show --help shows what can be said"),
    ],
)
def test_the_last_line_after_a_failure_says_what_to_do_next(words: str, next_words: str) -> None:
    """The command that the text names, or what helps with its like; it can be copied as it is."""
    assert fedtwin(*words.split()).stderr.splitlines()[-1] == f"next: {next_words}"


def test_a_mistake_of_ours_is_one_line_and_a_trace_for_who_asks() -> None:
    """A manifest without a run's name is something that no program of ours writes."""
    RunFolder(Path()).write_manifest({"state": "begun"})

    short, long = fedtwin("show", "."), fedtwin("--debug", "show", ".")

    assert (short.exit_code, long.exit_code) == (1, 1)
    _, further = short.stderr.splitlines()
    assert further == "next: fedtwin --debug show . shows where"
    assert "Traceback" in long.stderr


# --- what is looked at ----------------------------------------------------------------------------


def test_methods_are_those_that_a_run_takes() -> None:
    """Name, paper, year and switches of each; the names are what --strategy takes."""
    found = told("methods")["methods"]

    assert [each["name"] for each in found] == list(STRATEGIES)
    assert all({"paper", "year", "switches"} <= each.keys() for each in found)
    assert all(each["name"] in fedtwin("methods").stdout for each in found)


def test_data_are_listed_with_a_remedy_for_what_is_missing() -> None:
    """digits come with the installation; what is not here says how to get it."""
    found = {each["name"]: each for each in told("data", "ls", "--data-dir", "mine")["data"]}

    assert found["digits"]["present"]
    assert not found["cifar100"]["present"]
    assert "fedtwin data fetch cifar100" in found["cifar100"]["remedy"]
    assert found["cifar100"]["path"] == str(Path("mine/cifar100.npz").absolute())


def test_data_that_come_with_the_installation_need_no_fetching() -> None:
    """`data fetch digits` checks them and says so."""
    (found,) = told("data", "fetch", "digits")["data"]

    assert found["present"]
    assert found["remedy"] == ""
    assert fedtwin("data", "fetch", "digits").stdout.splitlines()[-1] == (
        "next: fedtwin run demo learns from it"
    )


def test_an_empty_folder_holds_no_run() -> None:
    """`ls` in a fresh place shows the way on."""
    assert told("ls")["runs"] == []
    assert fedtwin("ls").stdout.splitlines()[-1] == "next: fedtwin demo"


def test_a_folder_that_is_not_there_is_no_empty_one() -> None:
    """Whoever names it has mistyped it, most likely; a file is no folder, either."""
    Path("file").touch()

    for named in ("nope", "file"):
        answered = fedtwin("ls", named)
        assert answered.exit_code == 4
        assert f"there is no folder {named}" in answered.stderr


@pytest.mark.parametrize("manifest", ['{"version": 7}', "[1]", "{"])
def test_a_run_folder_of_another_version_is_not_guessed_at(manifest: str) -> None:
    """Exit code 4 for whoever wants to work with it, a line in the list, and nothing changed."""
    Path("manifest.json").write_text(manifest)

    for words in ("show .", "resume .", "predict . x.png", "inject . --entity e --classes 1"):
        assert fedtwin(*words.split()).exit_code == 4
    (listed,) = told("ls", ".")["runs"]
    assert listed["status"] == "unreadable"
    assert Path("manifest.json").read_text() == manifest


@pytest.mark.parametrize("words", ["methods", "recipes", "recipes smoke", "data ls"])
def test_no_line_ends_in_blanks(words: str) -> None:
    """A terminal hides them; a file that the answer goes into keeps them."""
    shown = fedtwin(*words.split()).stdout

    assert [line for line in shown.splitlines() if line != line.rstrip()] == []


def test_a_name_that_is_too_long_for_its_column_is_not_cut() -> None:
    """On a narrow terminal it goes on below, and can be copied in two parts."""
    out = io.StringIO()

    table(Console(file=out, width=20), ("folder", ">rounds"), [("a-folder-of-many-letters", "8")])

    lines = out.getvalue().splitlines()
    assert "".join(line[:12].rstrip() for line in lines[1:]) == "a-folder-of-many-letters"
    assert max(map(len, lines)) <= 20


# --- small things ---------------------------------------------------------------------------------


def test_overrides_are_read_as_yaml() -> None:
    """Numbers, lists, words and nothing, as a recipe's file would have them."""
    given = ["stages=2", "iid=0.5", "classes_per_stage=[3, 2]", "wire=bf16", "image_size=null",
             "dataset=npz:a=b.npz", "perturb.steps=10"]  # fmt: skip

    assert overrides(given) == {
        "stages": 2,
        "iid": 0.5,
        "classes_per_stage": [3, 2],
        "wire": "bf16",
        "image_size": None,
        "dataset": "npz:a=b.npz",
        "perturb.steps": 10,
    }


@pytest.mark.parametrize("pair", ["stages", "=2", ""])
def test_an_override_without_key_or_value_is_refused(pair: str) -> None:
    """There is nothing to guess."""
    with pytest.raises(ConfigurationError, match="key=value"):
        overrides([pair])


def test_data_lie_where_the_nearest_word_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option, else the environment, else the user's cache."""
    in_cache = data_dir(None)
    monkeypatch.setenv("FEDTWIN_DATA_DIR", str(tmp_path / "named"))

    assert in_cache == tmp_path / "cache" / "fedtwin"
    assert data_dir(None) == tmp_path / "named"
    assert data_dir(Path("asked")) == tmp_path / "asked"


def test_a_long_text_is_told_in_a_line() -> None:
    """The first and the last of a worker's trace; what is one line already stays."""
    assert in_a_line("learn: Traceback:\n  File x\nValueError: 1 and 2\n") == (
        "learn: ValueError: 1 and 2"
    )
    assert in_a_line("one line: is kept") == "one line: is kept"
