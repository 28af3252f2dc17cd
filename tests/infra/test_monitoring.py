"""The board and the alert rules ask for nothing that programs do not tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.exporter import registry_of
from infra.transport.base import Absence
from infra.vitals import Vitals
from schemas.errors import ServiceError
from schemas.messages import Away, Measured
from tests.infra.test_exporter import hears_of_an_end, told_of
from tests.infra.test_pulse import Far
from tests.infra.test_vitals import beat, hear
from tests.schemas.specimens import NORTH, model
from tests.schemas.test_live_line import FIRST, STAGE
from tests.services import have

FOLDER = Path(__file__).parents[2] / "infra" / "deploy" / "monitoring"
NAME = re.compile(r"\b(?:fedtwin|process)_[a-z_]+\b")
LABELS = re.compile(r"(\w+)\s*=~?\s*\"|by \(([^)]*)\)|\{\{ \$labels\.(\w+) \}\}|\{\{(\w+)\}\}")
OF_PROMETHEUS = {"job", "instance", "alertname", "alertstate", "severity", "le"}
PROMISED = {
    "FedtwinRoleDown", "FedtwinNoProgress", "FedtwinDeadLetters", "FedtwinAccuracyLost",
    "FedtwinModelWorse", "FedtwinProgramLost",
    "FedtwinLag", "FedtwinBrokerAway", "FedtwinRedisAway", "FedtwinMemory", "FedtwinFailed",
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel of the board."""
    return list(json.loads((FOLDER / "dashboard.json").read_text())["panels"])


def questions() -> Iterator[tuple[str, str]]:
    """Who asks, and what, with the words in which it is told."""
    for rule in rules():
        yield rule["alert"], f"{rule['expr']} {rule['annotations']['summary']}"
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], f"{target['expr']} {target['legendFormat']}"


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """Name → labels, of all that programs tell: one that serves, one that hears of another's end,
    and one that misses its services in the middle of a run that has been scored."""
    found: dict[str, set[str]] = {}
    for sample in told_of(2):
        name, _, labels = sample.partition("{")
        names = {each.partition("=")[0] for each in labels.rstrip("}").split(",")}
        found.setdefault(name, set()).update(names)
    log = Far()
    log.away = Absence("kafka at k:1", "it does not answer", 0.0)  # type: ignore[assignment]
    vitals = Vitals("spring", "aggregator", "aggregator-1", log)
    hear(vitals, FIRST, *STAGE)
    values = {"model": model(2).sha256, "classes": ["0"], "counts": [[1]]}
    vitals.measured(Measured(run="", name=f"held-out/{NORTH}/2", values=values), 0)
    away = (Away(service="redis", why="it does not answer", seconds=1.0),)
    beat(vitals, in_work=("learn a 1",), lag={"samples": 1}, away=away)
    for family in (*registry_of(hears_of_an_end()).collect(), *registry_of(vitals).collect()):
        for each in family.samples:
            found.setdefault(each.name, set()).update(each.labels)
    return found


def test_every_metric_that_is_asked_for_is_told(told: dict[str, set[str]]) -> None:
    """By rules and by the board; each label too."""
    asked = {(who, name) for who, text in questions() for name in NAME.findall(text)}
    labels = {(who, label) for who, text in questions()
              for each in LABELS.findall(text) for part in each
              for label in re.split(r"[,\s]+", part) if label}  # fmt: skip
    known = OF_PROMETHEUS.union(*told.values())

    assert len({name for _, name in asked}) > 20
    assert not [(who, name) for who, name in asked if name not in told]
    assert not [(who, label) for who, label in labels if label not in known]


def test_every_metric_of_ours_is_on_the_board_or_in_a_rule(told: dict[str, set[str]]) -> None:
    """But for two that say what the accuracy rests on, and the parts of a histogram."""
    asked = {name for _, text in questions() for name in NAME.findall(text)}
    left = {name for name in told if name.startswith("fedtwin_")} - asked

    assert left <= {
        "fedtwin_held_out_images", "fedtwin_held_out_version", "fedtwin_round_seconds_count",
        "fedtwin_round_seconds_sum",
    }  # fmt: skip


def test_the_rules_tell_what_was_promised_and_how_grave_it_is() -> None:
    """Each has a name, a grade and a sentence."""
    found = {rule["alert"]: rule for rule in rules()}

    assert found.keys() >= PROMISED
    for rule in found.values():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")


def test_panels_do_not_lie_on_each_other() -> None:
    """Each field of the grid belongs to one; and no two have one number."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        fields = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not taken & fields, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= fields

    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_stack_scrapes_the_port_at_which_roles_tell() -> None:
    """Roles get the port, nobody outside does; every service of ours is hardened and optional."""
    stack = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {name: each["port"] for job in jobs for each in job["dns_sd_configs"]
               for name in each["names"]}  # fmt: skip
    roles = {name: each for name, each in stack["services"].items() if name in scraped}

    assert roles.keys() == scraped.keys()
    for name, role in roles.items():
        assert role == {
            "environment": {
                "FEDTWIN_METRICS_PORT": str(scraped[name]),
                "FEDTWIN_METRICS_HOST": "0.0.0.0",
            }
        }
    for name in stack["services"].keys() - roles.keys():
        service = stack["services"][name]
        assert service["profiles"] == ["monitoring"]
        assert service["read_only"]
        assert service["user"] != "0"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            inside = source.removeprefix("./monitoring/")
            assert source in stack["volumes"] or (FOLDER / inside).is_file()


def test_nobody_changes_anything_at_the_board() -> None:
    """Whoever comes looks; there is no account, by the form or by the API, and none is made: the
    one that Grafana makes unasked is admin, and so is its password."""
    stack = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    said = stack["services"]["grafana"]["environment"]

    assert said["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert said["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert said["GF_AUTH_BASIC_ENABLED"] == "false"
    assert said["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_prometheus_itself_takes_configuration_and_rules() -> None:
    """And its own tests of the rules pass: who is told of what, after how many seconds."""
    promtool = have(_promtool)
    for words in (("check", "config", "prometheus.yml"), ("test", "rules", "rules.test.yml")):
        done = subprocess.run(
            [promtool, *words], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _promtool() -> str:
    if (found := shutil.which("promtool")) is None:
        raise ServiceError("no promtool: make ci-setup takes it from Debian's package prometheus")
    return found
