"""A live federation of real processes, by a scenario: classes come while programs are killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.live import Standing, live
from experiments.operators import operating, rollback
from experiments.scenario import Scenario
from infra.kafka import KafkaSettings
from infra.topics import Administration, plan
from schemas.errors import ConfigurationError
from schemas.messages import RolledBack
from schemas.topics import Names
from tests.services import ROOT, have, kafka_address, new_run, some_redis, swept

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
SCENARIO = Scenario.model_validate(
    {
        "recipe": "tiny",
        "seed": 7,
        "minutes": 5,
        "keys": {"quorum": 2, "growth_window": 2, "deadline": 20},
        "entities": {
            "ward": {"site": "north", "dataset": "digits", "classes": ["0", "1", "2"]},
            "icu": {"site": "north", "dataset": "digits", "classes": ["1", "2", "3"]},
            "east": {"site": "south", "dataset": "digits", "classes": ["0", "3"]},
            "late": {
                "site": "south", "dataset": "folder:shades", "classes": ["dark", "bright"],
                "as": {"dark": "night"},
            },
        },
        "events": [
            {"at": 6, "join": "late"},
            {"at": 8, "entity": "ward", "inject": {"classes": ["6", "7"], "images": 200}},
            {"at": 9, "kill": "twins"},
            {"at": 10, "kill": "aggregator"},
            {"at": 12, "leave": "east"},
        ],
    }
)  # fmt: skip

SHORT = """
recipe: tiny
seed: 7
minutes: 5
keys: {quorum: 2, growth_window: 2, deadline: 20}
entities:
  ward: {site: north, dataset: digits, classes: ["0", "1"]}
  east: {site: south, dataset: digits, classes: ["1", "2"]}
events:
  - {at: 2, entity: ward, inject: {classes: ["6"], images: 100}}
"""


def killed_half_way(name: str, folder: Path) -> None:
    """Somebody follows the scenario, and is killed when the first images were injected."""
    (folder / "first.yaml").write_text(SCENARIO.model_dump_json(by_alias=True, exclude_none=True))
    words = ("experiments.cli", "live", "first.yaml", "--name", name, "--data-dir", str(folder))
    runner = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    kept, done = folder / "runs" / name / "progress.json", set[int]()
    while 1 not in done:
        assert runner.poll() is None, runner.communicate()[1]
        time.sleep(0.2)
        done = {*json.loads(kept.read_text())["done"]} if kept.exists() else set()
    runner.kill()
    runner.communicate()


def shades(folder: Path) -> None:
    """A data set of one's own: two classes that are easy to tell apart."""
    for label, shade in (("dark", 40), ("bright", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            image = np.full((20, 20), shade + number % 7, np.uint8)
            Image.fromarray(image).save(folder / label / f"{number}.png")


def test_a_scenario_from_its_first_minute_to_its_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner is killed half way, and the next one goes on: what was injected before is not sent
    again, and found by its twin; who joins late, with another data set, takes part, who left is
    gone, an operator goes back to an earlier model, and the log replays to the same bytes with
    every sum redone."""
    kafka, name = KafkaSettings(have(kafka_address)), new_run()
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)
    last: list[Standing] = []
    back: list[RolledBack] = []

    def enough(standing: Standing) -> bool:
        last[:] = [standing]
        stage = standing.line.stage
        rounds = [each for each in stage.rounds if each.closed] if stage else []
        gone = not standing.verdicts.line("south/east").here
        ready = gone and bool(rounds) and {"night", "6", "7"} <= standing.line.rows.keys()
        if ready and not back and standing.line.model:
            with operating(name) as operator:
                back.append(rollback(operator, standing.line.model.version - 1))
        return ready and standing.line.number >= back[0].number

    shades(tmp_path / "shades")
    said: list[str] = []
    try:
        killed_half_way(name, tmp_path)
        folder = tmp_path / "runs" / name
        ended = live(SCENARIO, name, folder, tmp_path, enough=enough, tell=said.append)
    finally:
        swept(kafka, Names(name))

    assert said[0].startswith(f"going on with {name}, which was left after")
    assert (
        said[1] == "ended what its runner had left: aggregator-1, proxy-1, twins-north, twins-south"
    )
    ward = last[0].verdicts.line("north/ward").verdicts.values()
    assert sum(each.images.get("6", 0) + each.images.get("7", 0) for each in ward) == 200
    assert ended.detected == [["6", "7"]]
    assert set(ended.entities["south/late"]) == {"night", "bright"}
    assert not last[0].verdicts.line("south/east").here
    assert [(each.about, each.detail) for each in last[0].letters.values()] == []
    assert ended.dead_letters == 0
    present = [entity for entity, line in last[0].verdicts.of.items() if line.here]
    assert ended.held_out_entities == ended.present_entities == len(present) == 3
    assert ended.held_out_accuracy is not None
    assert ended.held_out_images > 20
    assert last[0].line.decisions[back[0].number] == back[0]
    assert ended.different == []
    assert ended.replay_sha256 == ended.model_sha256
    counted = [each.closed for stage in last[0].line.stages for each in stage.rounds if each.closed]
    assert ended.summed == sum(bool(each.counted) for each in counted) > 0


def test_a_scenario_by_the_command_line_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of a minute: exit code 0; on stdout one line of JSON, which says who took part, what
    was injected and that the log replays to the same bytes; what was told meanwhile is on stderr.
    How far a machine comes in that time is its own affair: what it tells has to agree."""
    kafka, name = KafkaSettings(have(kafka_address)), new_run()
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)
    (tmp_path / "short.yaml").write_text(SHORT)
    words = ("live", "short.yaml", "--minutes", "0.35", "--name", name, "--json")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.cli", *words, "--data-dir", str(tmp_path)],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        swept(kafka, Names(name))

    assert done.returncode == 0, done.stderr
    assert "north/ward has joined" in done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["run"] == name
    assert told["entities"].keys() == {"north/ward", "south/east"}
    assert told["injected"] == [{"at": 2, "entity": "north/ward", "classes": ["6"], "images": 100}]
    (detected,) = told["detected"]
    assert {*detected} <= {"6"} & {*told["entities"]["north/ward"]}
    assert (told["held_out_accuracy"] is None) == (told["held_out_images"] == 0)
    assert told["dead_letters"] == 0
    assert told["summed"] <= told["rounds"]
    assert re.fullmatch("[0-9a-f]{64}", told["model_sha256"])
    assert told["replay_sha256"] == told["model_sha256"]
    assert told["equal"] is True


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's topics are left as they are, and every way on is named."""
    kafka, names = KafkaSettings(have(kafka_address)), Names(new_run())
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)
    monkeypatch.chdir(tmp_path)
    shades(tmp_path / "shades")
    with closing(Administration(kafka)) as administration:
        administration.apply(plan(names, "federation", ["north"], [], kafka))
        with pytest.raises(ConfigurationError, match=f"fedtwin topics rm {names.run}"):
            live(SCENARIO, names.run, tmp_path / "run", tmp_path)
        assert administration.ls(names)
        administration.rm(names)
