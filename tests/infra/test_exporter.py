"""What Prometheus is told, and what whoever asks whether a program is well."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.exporter import served
from infra.program import NoWorkers, serve
from infra.transport.embedded import Embedded as Log
from infra.vitals import Vitals
from schemas.codec import Record, records
from schemas.errors import ConfigurationError, Stalled
from schemas.messages import Ended, Heartbeat, Measured
from tests.infra.test_program import CLASSES, NAMES, Clock, Echo, around, joined
from tests.infra.test_vitals import beat, hear
from tests.schemas.specimens import NORTH, SOUTH, model
from tests.schemas.test_live_line import FIRST, STAGE, opens

HERE = "127.0.0.1"
UNITS = ("seconds", "bytes", "ratio", "info", "total")
COUNTED = {
    "unread_records", "in_work", "queued_tasks", "workers_free", "entities", "buffered_images",
    "stage", "model_version", "head_classes", "held_out_images", "held_out_version", "failed",
}  # fmt: skip
"""Gauges of things that have no unit but themselves."""


def got(port: int, path: str = "/metrics") -> tuple[int, str]:
    """The answer to a question."""
    try:
        with urllib.request.urlopen(f"http://{HERE}:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def samples(port: int) -> dict[str, float]:
    """Each sample, with its labels, and its value."""
    found = {}
    for family in text_string_to_metric_families(got(port)[1]):
        for each in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}" if labels else each.name] = each.value
    return found


class Twins(Echo):
    """A role with so many twins."""

    def __init__(self, entities: int) -> None:
        super().__init__()
        self.owns = (CLASSES,)  # type: ignore[assignment]
        self._entities = entities

    def tells(self) -> Iterator[tuple[str, int]]:
        """Each holds three images."""
        return ((f"buffered north/e-{i}", 3) for i in range(self._entities))

    def waits(self) -> list[str]:
        """Each waits for something of its own."""
        return [f"north/e-{i}: image {i} of its stream; 0 have come" for i in range(self._entities)]


def told_of(entities: int) -> dict[str, float]:
    """What is told of a program with so many twins, that heard something and read some junk."""
    clock = Clock(step=0.5)
    with closing(Log()) as log:
        joined(log, 0)
        log.append(CLASSES, [Record("x", b"junk")])
        told = Vitals("spring", "twins", "twins-1", log, clock)
        with served(told, HERE, 0) as port:
            with pytest.raises(Stalled):
                serve(
                    Twins(entities), around(log, clock=clock), NoWorkers(), NAMES,
                    process="twins-1", patience=10, vitals=told,
                )  # fmt: skip
            return samples(port)


def test_a_program_that_serves_is_told_of() -> None:
    """What it heard, said and set aside, whom it hosts, what it waits for, how large it is."""
    found = told_of(2)

    info = next(each for each in found if each.startswith("fedtwin_program_info"))
    assert "process=twins-1,role=twins,run=spring" in info
    assert found["fedtwin_messages_heard_total{topic=classes}"] == 1
    assert found["fedtwin_messages_said_total{topic=metrics}"] == 1
    assert found["fedtwin_messages_said_total{topic=dead-letters}"] == 1
    assert found["fedtwin_dead_letters_total{reason=unreadable}"] == 1
    assert (found["fedtwin_entities"], found["fedtwin_buffered_images"]) == (2, 6)
    assert found["fedtwin_wait_seconds{what=images}"] > 5
    assert found["fedtwin_workers_free"] == 0
    assert found["fedtwin_broker_away_seconds"] == found["fedtwin_redis_away_seconds"] == 0
    assert found["process_resident_memory_bytes"] > 10**7
    assert not [each for each in found if each.startswith("fedtwin_failed")]


def test_five_hundred_twins_make_no_more_series_than_two() -> None:
    """No label names an entity."""
    assert told_of(500).keys() == told_of(2).keys()
    assert len(told_of(2)) < 80


def test_a_run_is_told_of() -> None:
    """Its stage, rounds, head, version, and the accuracy held out at the sites."""
    clock = Clock()
    told = Vitals("spring", "aggregator", "aggregator-1", Log(), clock)
    hear(told, FIRST, *STAGE)
    beat(told)
    hear(told, opens(5, 0, 1, 2))
    values = {"model": model(2).sha256, "classes": ["0", "1"], "counts": [[2, 1], [0, 1]]}
    told.measured(Measured(run="", name=f"held-out/{NORTH}/2", values=values), 0)
    beat(told)
    clock.now += 4
    with served(told, HERE, 0) as port:
        found = samples(port)

    assert found["fedtwin_rounds_total"] == 1
    assert found["fedtwin_round_open_seconds"] == 4
    assert (found["fedtwin_model_version"], found["fedtwin_head_classes"]) == (2, 2)
    assert found["fedtwin_held_out_accuracy_ratio"] == 0.75
    assert found["fedtwin_held_out_images"] == 4
    assert found["fedtwin_held_out_lost_ratio"] == 0
    assert found["fedtwin_round_seconds_count"] == 0
    assert SOUTH


def test_names_follow_the_rules_of_prometheus() -> None:
    """One prefix, base units, and a counter ends in _total."""
    told = Vitals("spring", "twins", "twins-1", Log())
    beat(told, {"RunOpened": 1.0}, lag={"samples": 3}, in_work=("learn a 1",))
    with served(told, HERE, 0) as port:
        text = got(port)[1]

    for family in text_string_to_metric_families(text):
        if family.name.startswith("fedtwin_"):
            name = family.name.removeprefix("fedtwin_")
            assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
            assert family.documentation.endswith(".")
            counter = family.type == "counter"
            assert counter or name.endswith(UNITS) or name in COUNTED, name
            assert all(s.name.endswith("_total") for s in family.samples if counter)


def test_whether_it_is_well_is_a_code_and_a_line() -> None:
    """For whoever keeps it running: 200 or 503, and why."""
    clock = Clock()
    told = Vitals("spring", "twins", "twins-1", Log(), clock)
    beat(told)
    with served(told, HERE, 0) as port:
        well = got(port, "/healthz")
        clock.now += 11
        ill = got(port, "/healthz?again=1")
        lost = got(port, "/")

    assert well == (200, "well: nothing to do\n")
    assert ill[0] == 503
    assert ill[1].startswith("not well: no heartbeat since 11 s: loop since 11 s: it stands")
    assert lost == (404, "/metrics and /healthz\n")


def test_a_cause_is_told_as_a_label() -> None:
    """With what does not change from second to second, and not too long."""
    from schemas.messages import Away

    told = Vitals("spring", "proxy", "proxy-1", Log())
    beat(told, away=(Away(service="redis", why="because " * 30, seconds=7.0),))
    with served(told, HERE, 0) as port:
        found = samples(port)

    (failed,) = (each for each in found if each.startswith("fedtwin_failed"))
    assert failed.endswith("part=redis}")
    assert len(failed) < 160
    assert found["fedtwin_redis_away_seconds"] >= 7


def hears_of_an_end() -> Vitals:
    """An aggregator's program that has heard how a twins' program ended, a moment ago."""
    told = Vitals("spring", "aggregator", "aggregator-1", Log())
    told.others.listens(told.clock())
    ended = Ended(code=1, why="because " * 30)
    counts = (("buffered north/icu", 3), ("buffered south/ward", 0))
    last = Heartbeat(run="", process="twins-1", role="twins", at=0.0, in_work=(), waits=(),
                     counts=counts, ended=ended)  # fmt: skip
    told.others.hear(last, told.clock())
    told.others.heard()
    return told


def test_another_program_that_is_gone_is_told_with_what_it_said_last() -> None:
    """By those who hear it, for it says nothing itself any more; its labels are not too long."""
    with served(hears_of_an_end(), HERE, 0) as port:
        found = samples(port)

    (lost,) = (each for each in found if each.startswith("fedtwin_program_lost_seconds{"))
    assert 0 <= found[lost] < 10
    assert lost.endswith(
        "entities=north/icu, south/ward,process=twins-1,role=twins,site=north, south,state=failed}"
    )
    assert "{cause=because because" in lost
    assert len(lost) < 300


def test_an_address_that_is_taken_is_a_mistake_of_whoever_chose_it() -> None:
    """It says what helps."""
    told = Vitals("spring", "twins", "twins-1", Log())
    with (
        served(told, HERE, 0) as port,
        pytest.raises(ConfigurationError, match=f"{HERE}:{port}.*--metrics-port"),
        served(told, HERE, port),
    ):
        raise AssertionError


def test_what_was_measured_before_a_program_began_still_counts() -> None:
    """It reads `metrics` again, as far as it is kept near the end; and nobody works for that."""
    clock = Clock(step=0.5)
    with closing(Log()) as log:
        values = {"model": model(2).sha256, "classes": ["0", "1"], "counts": [[3, 1], [0, 0]]}
        measured = Measured(run="", name=f"held-out/{NORTH}/2", values=values)
        log.append(NAMES.federation("metrics"), records(measured, source="twins")[1])
        told = Vitals("spring", "aggregator", "aggregator-1", log, clock)
        hear(told, FIRST, *STAGE)
        with pytest.raises(Stalled):
            serve(
                Echo(), around(log, clock=clock), NoWorkers(), NAMES,
                process="aggregator-1", patience=3, vitals=told,
            )  # fmt: skip

    assert told.accuracy is not None
    assert told.accuracy.percent == 75.0
