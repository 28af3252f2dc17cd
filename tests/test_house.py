"""Rules of the house that a machine can read: what no code does, and what no text says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.test_floors import FLOORS, ROOT, imports, modules, name_of

RUNS_BYTES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""Modules whose loaders run what they read."""
RUNS_TEXT = {"eval", "exec", "compile"}
LOADERS = {"torch.load", "torch.save", "torch.hub.load", "yaml.load", "yaml.unsafe_load"}
FETCHER = "producers.fetching"
"""The only module that may import torchvision or medmnist: they are slow, or absent."""
OWN_CHANCE = {"np.random.Generator", "np.random.PCG64", "np.random.default_rng", "random.Random"}
"""Chance that somebody holds, with a seed. Whatever else is in these modules is global."""
SKIPPED = {
    "__pycache__", "fedtwin.egg-info", "build", "dist", "runs", ".git", ".venv", ".native",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis",
}  # fmt: skip
TEXTS = {".py", ".md", ".toml", ".txt", ".cff", ".xml", ".yml", ".yaml", ".json", ".html", ".cfg"}


def house() -> list[Path]:
    """Every Python file that is shipped."""
    return [path for package in FLOORS for path in modules(package)]


def texts() -> Iterator[Path]:
    """Every text file of the checkout that is written by hand."""
    for folder, inner, files in os.walk(ROOT):
        inner[:] = sorted(each for each in inner if each not in SKIPPED)
        for path in (Path(folder, each) for each in sorted(files)):
            if path.suffix in TEXTS or path.name in ("Makefile", "run"):
                yield path


def dotted(node: ast.AST) -> str:
    """A chain of names as it is written: torch.hub.load; empty for anything else."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{origin}.{node.attr}" if (origin := dotted(node.value)) else ""
    return ""


def nodes(found: Callable[[ast.AST], bool], source: str) -> list[int]:
    """The lines at which a text holds such a node."""
    return [getattr(node, "lineno", 0) for node in ast.walk(ast.parse(source)) if found(node)]


def places(found: Callable[[ast.AST], bool]) -> list[str]:
    """Where the house holds such a node, as module:line."""
    return [
        f"{name_of(path)}:{line}" for path in house() for line in nodes(found, path.read_text())
    ]


# --- what no code does ----------------------------------------------------------------------------


def runs_what_it_reads(node: ast.AST) -> bool:
    """Whether this is a call that may carry out the bytes or the text that it is given."""
    if not isinstance(node, ast.Call):
        return False
    unsafe = any(
        each.arg == "allow_pickle"
        and not (isinstance(each.value, ast.Constant) and each.value.value is False)
        for each in node.keywords
    )
    return unsafe or dotted(node.func) in RUNS_TEXT | LOADERS


def is_global_chance(node: ast.AST) -> bool:
    """Whether this draws from, or seeds, a state that the whole process shares."""
    name = dotted(node).replace("numpy.random.", "np.random.")
    if name.startswith(("np.random.", "random.")):
        return name not in OWN_CHANCE
    if name in ("torch.manual_seed", "torch.seed", "torch.random.manual_seed"):
        return True
    unseeded = isinstance(node, ast.Call) and not node.args and not node.keywords
    return unseeded and dotted(getattr(node, "func", node)).endswith(".default_rng")


def test_nothing_that_is_read_is_run() -> None:
    """No pickle in any form, no torch.load, no eval: bytes from a topic stay bytes."""
    imported = [
        f"{name_of(path)}: {name}"
        for path in house()
        for name in imports(path.read_text())
        if name.split(".")[0] in RUNS_BYTES
    ]

    assert not imported
    assert not places(runs_what_it_reads)


def test_chance_is_held_by_somebody() -> None:
    """Two runs of one seed end in one model only when no state is shared by the process."""
    assert not places(is_global_chance)


@pytest.mark.parametrize(
    ("judge", "bad", "good"),
    [
        (runs_what_it_reads, "torch.load('a')", "safetensors.numpy.load('a')"),
        (runs_what_it_reads, "np.load('a', allow_pickle=True)", "np.load('a', allow_pickle=False)"),
        (runs_what_it_reads, "eval('1')", "model.eval()"),
        (runs_what_it_reads, "yaml.load(text)", "yaml.safe_load(text)"),
        (runs_what_it_reads, "compile('1', '', 'eval')", "re.compile('1')"),
        (is_global_chance, "np.random.rand(3)", "np.random.Generator(np.random.PCG64(3))"),
        (is_global_chance, "random.shuffle(x)", "random.Random(3).shuffle(x)"),
        (is_global_chance, "np.random.default_rng()", "np.random.default_rng(3)"),
        (is_global_chance, "torch.manual_seed(0)", "generator.random()"),
    ],
)
def test_a_judge_tells_bad_from_good(judge: Callable[[ast.AST], bool], bad: str, good: str) -> None:
    """The rules above find what they forbid, and leave alone what looks like it."""
    assert nodes(judge, bad) == [1]
    assert nodes(judge, good) == []


def test_slow_importers_are_imported_in_one_module_only() -> None:
    """torchvision and medmnist are touched where a data set is fetched, nowhere else."""
    guilty = {
        name_of(path)
        for path in house()
        for name in imports(path.read_text())
        if name.split(".")[0] in ("torchvision", "medmnist")
    }

    assert guilty <= {FETCHER}


@pytest.mark.parametrize("package", ["schemas", "producers", "aggregator"])
def test_what_must_start_quickly_brings_no_torch(package: str) -> None:
    """Every module of these is imported in a fresh process, which then knows no torch."""
    names = [name_of(path) for path in modules(package)]
    code = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.strip() == "False"


# --- what every text says, and none ---------------------------------------------------------------


def test_every_package_says_what_it_is_and_what_it_imports() -> None:
    """A reader opens a folder and is told in two lines: its purpose, and what it may import."""
    packages = [path for path in house() if path.name == "__init__.py"]
    words = {name_of(path): ast.get_docstring(ast.parse(path.read_text())) for path in packages}

    assert FLOORS.keys() <= words.keys()
    assert not [name for name, text in words.items() if not text or "Imports " not in text]


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without __init__.py would be left out of what is shipped."""
    folders = {path.parent for path in house()}

    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_no_text_names_a_place_on_one_machine() -> None:
    """A path that begins at somebody's home folder means nothing to anybody else."""
    # Written in two halves, so that this file passes its own test.
    homes = ["/" + each for each in ("home/", "root/", "Users/", "work/", "mnt/")]
    pattern = re.compile(r"(?<![\w.~\-}>])(?:" + "|".join([*homes, re.escape(str(ROOT))]) + ")")

    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]

    assert pattern.search("open('" + homes[0] + "me/data')")
    assert not pattern.search("docs" + homes[3] + "log")
    assert not found


def test_the_constraints_pin_exactly_and_name_no_registry() -> None:
    """Each line is one version of one package; where it comes from is everybody's own choice."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    assert len(pins) > 50
    assert not [pin for pin in pins if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][\w.]*", pin)]


def test_continuous_integration_calls_make_and_nothing_else() -> None:
    """Whatever it does, a person can do with the same word; each target that it calls exists."""
    makefile = (ROOT / "Makefile").read_text()
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    called = [line.split() for line in lines if line and not line.startswith(("#", "set ", "cd "))]

    assert [first for first, *_ in called] == ["make"] * 3
    assert not [target for _, target in called if not re.search(rf"(?m)^{target}:", makefile)]


def test_nothing_large_is_kept_by_mistake() -> None:
    """Data, packages and pictures of runs belong beside a checkout, and git forgets nothing."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    kept = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]

    assert [str(path) for path in kept if path.exists() and path.stat().st_size > 200_000] == []
