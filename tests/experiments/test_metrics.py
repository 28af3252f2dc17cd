"""A run's rounds as other programs read them: JSON lines, CSV, TensorBoard by its own reader."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.measures import measure
from experiments.metrics import CSV, EVENTS, JSONL, KEYS, MORE_KEYS, TENSORBOARD, Metrics
from tests.experiments.told import Told, right, story


def written(folder: Path, told: Told) -> list[dict[str, Any]]:
    Metrics(folder).write(measure(told.observer, {}, 1.0))
    return [json.loads(line) for line in (folder / JSONL).read_text().splitlines()]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value, as TensorBoard shows them."""
    shown = EventAccumulator(str(folder / TENSORBOARD))
    shown.Reload()
    return {
        tag: {event.step: event.value for event in shown.Scalars(tag)}
        for tag in shown.Tags()["scalars"]
    }


def test_there_is_one_line_for_each_round(tmp_path: Path) -> None:
    """The story has four rounds at 70, 90, 60 and 70 %, of which the last two were taught."""
    lines = written(tmp_path, story())

    assert [(line["stage"], line["round"]) for line in lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [line["accuracy"] for line in lines] == pytest.approx([70, 90, 60, 70])
    assert [line["teacher"] for line in lines] == [None, None, 3, 3]
    assert [line["withheld"] for line in lines] == [0, 0, 1, 0]
    assert (lines[3]["accuracy_stage_0"], lines[3]["accuracy_stage_1"]) == pytest.approx((60, 80))
    assert (lines[3]["entropy_hits"], lines[3]["entropy_misses"]) == (1, 1)
    assert lines[3]["training_attention"] == pytest.approx(0.3)


def test_every_key_is_documented(tmp_path: Path) -> None:
    """Each has a heading and a meaning, or begins as one that has; what is documented is there."""
    lines = written(tmp_path, story())

    for line in lines:
        assert KEYS.keys() <= line.keys()
        further = line.keys() - KEYS.keys()
        assert all(name.startswith(tuple(MORE_KEYS)) for name in further)


def test_the_table_says_what_the_lines_say(tmp_path: Path) -> None:
    """Spreadsheets find the same numbers under the same names, and an empty cell for null."""
    lines = written(tmp_path, story())

    with (tmp_path / CSV).open(newline="") as file:
        table = list(csv.DictReader(file))

    assert len(table) == len(lines)
    for row, line in zip(table, lines, strict=True):
        full = {name: float(cell) for name, cell in row.items() if cell}
        assert full == {name: value for name, value in line.items() if value is not None}


def test_tensorboard_shows_the_same(tmp_path: Path) -> None:
    """One step a round; a key without a value has no point, and what tells the place no curve."""
    lines = written(tmp_path, story())

    shown = scalars(tmp_path)

    assert shown["test/accuracy"] == pytest.approx({0: 70, 1: 90, 2: 60, 3: 70})
    assert shown["test/old_accuracy"].keys() == {2, 3}
    assert not any(tag.startswith("place/") for tag in shown)
    count = sum(value is not None for line in lines for value in line.values())
    places = 4 * len(lines)
    assert sum(map(len, shown.values())) == count - places


def test_a_resumed_run_has_every_round_once(tmp_path: Path) -> None:
    """Written in the midst of a run and again at its end, each file says everything once."""
    told = Told("ab", rounds=2)
    told.grows("a", "b")
    told.round(right(10, 10))
    written(tmp_path, told)
    told.hear_all_again()
    told.round([[9, 1], [1, 9]])

    lines = written(tmp_path, told)

    assert [line["number"] for line in lines] == [0, 1]
    assert scalars(tmp_path)["test/accuracy"] == pytest.approx({0: 100, 1: 90})
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert names == {JSONL, CSV, TENSORBOARD, f"{TENSORBOARD}/{EVENTS}"}


def test_before_the_first_round_the_table_has_its_head_only(tmp_path: Path) -> None:
    """Nothing to read yet, and every reader can say so."""
    assert written(tmp_path, Told("ab")) == []

    assert (tmp_path / CSV).read_text() == ",".join(KEYS) + "\n"
    assert scalars(tmp_path) == {}
