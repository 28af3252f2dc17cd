"""A live federation of real processes, by a scenario: classes come while programs are killed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from experiments.live import Standing, live
from experiments.scenario import Scenario
from infra.kafka import KafkaSettings
from infra.topics import Administration, plan
from schemas.errors import ConfigurationError
from schemas.topics import Names
from tests.services import have, kafka_address, new_run, some_redis, swept

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
            "late": {"site": "south", "dataset": "digits", "classes": ["3", "4"]},
        },
        "events": [
            {"at": 6, "join": "late"},
            {"at": 8, "entity": "ward", "inject": {"classes": ["6", "7"], "images": 200}},
            {"at": 9, "kill": "twins"},
            {"at": 10, "kill": "aggregator"},
            {"at": 12, "leave": "east"},
        ],
    }
)


def test_a_scenario_from_its_first_minute_to_its_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of what was injected is found by its twin, who joins late takes part, who left is gone,
    and the log replays to the same bytes with every sum redone."""
    kafka, name = KafkaSettings(have(kafka_address)), new_run()
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)
    last: list[Standing] = []

    def enough(standing: Standing) -> bool:
        last[:] = [standing]
        stage = standing.line.stage
        rounds = [each for each in stage.rounds if each.closed] if stage else []
        gone = not standing.verdicts.line("south/east").here
        return gone and bool(rounds) and {"4", "6", "7"} <= standing.line.rows.keys()

    try:
        ended = live(SCENARIO, name, tmp_path / "run", tmp_path, enough=enough)
    finally:
        swept(kafka, Names(name))

    assert ended.detected == [["6", "7"]]
    assert set(ended.entities["south/late"]) == {"3", "4"}
    assert not last[0].verdicts.line("south/east").here
    assert [(each.about, each.detail) for each in last[0].letters.values()] == []
    assert ended.dead_letters == 0
    present = [entity for entity, line in last[0].verdicts.of.items() if line.here]
    assert ended.held_out_entities == ended.present_entities == len(present) == 3
    assert ended.held_out_accuracy is not None
    assert ended.held_out_images > 20
    assert ended.different == []
    assert ended.replay_sha256 == ended.model_sha256
    counted = [each.closed for stage in last[0].line.stages for each in stage.rounds if each.closed]
    assert ended.summed == sum(bool(each.counted) for each in counted) > 0


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's topics are left as they are, and every way on is named."""
    kafka, names = KafkaSettings(have(kafka_address)), Names(new_run())
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_REDIS", have(some_redis).address)
    with closing(Administration(kafka)) as administration:
        administration.apply(plan(names, "federation", ["north"], [], kafka))
        with pytest.raises(ConfigurationError, match=f"fedtwin topics rm {names.run}"):
            live(SCENARIO, names.run, tmp_path / "run", tmp_path)
        assert administration.ls(names)
        administration.rm(names)
