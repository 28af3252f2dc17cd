"""A method that another package brings: the one in CONTRIBUTING, done as an outsider would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import runner
from experiments.paper.results import add, of_folder
from experiments.recipes import recipe
from tests.experiments.hands import fedtwin as by_hand
from tests.experiments.hands import local, told

ROOT = Path(__file__).parents[2]
PROJECT = "small-logits"


def blocks() -> dict[str, str]:
    """What CONTRIBUTING shows, by the file's name in its first line."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    return dict(found)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where such a package is installed: its module, and metadata as an installer writes them."""
    shown = blocks()
    (tmp_path / "smalllogits.py").write_text(shown["smalllogits.py"])
    info = tmp_path / "smalllogits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smalllogits\nVersion: 1.0\n")
    name, value = re.findall(r'^(\S+) = "(.+)"$', shown["pyproject.toml"], re.MULTILINE)[0]
    (info / "entry_points.txt").write_text(f"[fedtwin.strategies]\n{name} = {value}\n")
    return tmp_path


def fedtwin(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, where the package is installed."""
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words],
        env={**os.environ, "PYTHONPATH": path, "FEDTWIN_RUNS": str(site / "runs")},
        cwd=site, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def test_it_is_listed_run_and_replayed(site: Path) -> None:
    """As a method of the house: by its name, to its own model, which the log gives again."""
    tiny = ["-o", "images_per_class=16", "-o", "stages=1", "-o", "rounds_per_stage=2",
            "-o", "keep_rounds=all", "-o", "report_prototypes=false", "-q", "--json"]  # fmt: skip

    listed = fedtwin(site, "methods", "--json")
    mine = fedtwin(site, "run", "tiny", "--strategy", PROJECT, *tiny, "--run-dir", "mine")
    plain = fedtwin(site, "run", "tiny", "--strategy", "fedavg", *tiny, "--run-dir", "plain")
    again = fedtwin(site, "replay", "mine", "--json")

    told = {each["name"]: each for each in json.loads(listed.stdout)["methods"]}
    assert told[PROJECT]["year"] == 2026
    assert told[PROJECT]["functions"] == ["term"]
    assert mine.returncode == plain.returncode == again.returncode == 0, mine.stderr + again.stderr
    hashes = [json.loads(each.stdout.splitlines()[-1])["model_sha256"] for each in (mine, plain)]
    assert hashes[0] != hashes[1]
    assert hashes[0] in again.stdout


def test_it_enters_a_comparison(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name in the table of all methods; what is stored of it is shown without the package,
    while a table of the paper has a fixed list.
    """
    folder, there = site / "runs" / "mine", ["--scale", "smoke", "--results", str(site / "results")]
    own = recipe("smoke", overrides={"strategy": PROJECT, "stages": 1, "image_size": 8, "width": 4})
    keys = [word for key in ("stages=1", "image_size=8", "width=4") for word in ("-o", key)]
    asked = [*there, *keys, "--plan", "--method", PROJECT]
    with monkeypatch.context() as installed:
        installed.syspath_prepend(site)
        plan = told("reproduce", "methods", *asked)
        refused = by_hand("reproduce", "table2", *asked)
        runner.start(own, folder, local(folder))
        add(site / "results" / "smoke.jsonl", of_folder(folder))
        stored = told("reproduce", "methods", *asked)
    shown = told("report", "methods", *there, *keys)["tables"][0]["rows"]

    assert (len(plan["missing"]), stored["missing"]) == (1, [])
    assert refused.exit_code == 2
    assert "`methods` is the table of every method" in refused.stderr
    assert [row["method"] for row in shown if row["seeds"]] == [PROJECT]
    assert by_hand("reproduce", "methods", *asked).exit_code == 2


def test_one_that_takes_a_name_of_the_house_is_refused(site: Path) -> None:
    """With the name and where it comes from; nothing runs."""
    points = site / "smalllogits-1.0.dist-info" / "entry_points.txt"
    points.write_text("[fedtwin.strategies]\nfedka = smalllogits:SMALL\n")

    refused = fedtwin(site, "methods")

    assert refused.returncode != 0
    assert "smalllogits:SMALL is no Strategy of the name 'fedka'" in refused.stderr
