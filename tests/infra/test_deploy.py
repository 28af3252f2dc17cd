"""What a stack of containers is made of: settings, limits, health, what an image leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy.__main__ import environment
from infra.deploy.images import Mirror
from infra.native.kafka import Broker
from tests.test_floors import ROOT, modules, name_of

DEPLOY = ROOT / "infra" / "deploy"
ENDS = {"producers", "fedtwin"}
"""They end by themselves, so nobody waits until they are healthy."""
PLACES = {
    "advertised.listeners", "listeners", "listener.security.protocol.map", "log.dirs",
    "controller.quorum.voters",
}  # fmt: skip
"""What a broker in a container has of its own."""


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, their shared parts filled in."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())[
        "services"
    ]
    return found


def test_a_broker_in_a_container_keeps_what_one_without_keeps() -> None:
    """Retention, copies, sessions: what `make up` gives a broker, compose gives it, too."""
    environment = services()["kafka"]["environment"]
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }
    lines = Broker(Path("/tmp"), Path(), 1, 2).properties.splitlines()
    usual = dict(line.split("=", 1) for line in lines)

    assert given.keys() == usual.keys()
    assert {name for name in given if given[name] != usual[name]} == PLACES


@pytest.mark.parametrize("name", services())
def test_a_container_has_few_rights_and_a_limit(name: str) -> None:
    """It writes to its volumes and to memory alone, and no other machine reaches its ports."""
    service = services()[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["networks"] == ["federation"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert name in ENDS or "healthcheck" in service
    assert name == "kafka" or service["user"] in ("redis", "10001:10001")  # apache/kafka names one


@pytest.mark.parametrize(("age", "healthy"), [(0.0, True), (60.0, False), (None, False)])
def test_a_role_is_healthy_while_its_file_is_young(
    tmp_path: Path, age: float | None, healthy: bool
) -> None:
    """A minute without a heartbeat, or never one: unwell. Else it says what the role waits for."""
    pulse = tmp_path / "pulse"
    if age is not None:
        pulse.write_text("aggregator waits for new images since 3 s\n")
        os.utime(pulse, (time.time() - age,) * 2)
    how, words = services()["twins"]["healthcheck"]["test"]
    assert how == "CMD-SHELL"

    done = subprocess.run(
        ["sh", "-c", words.replace("/tmp/pulse", str(pulse))], capture_output=True, text=True
    )

    assert (done.returncode == 0) is healthy
    assert ("new images" in done.stdout) is healthy


def test_what_the_light_image_leaves_out_is_not_needed_there() -> None:
    """No module of producers, the aggregator or what they use asks for torch or for tables."""
    out = [
        line.split()[0]
        for line in (DEPLOY / "steps" / "light.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    packages = ("schemas", "infra/transport", "aggregator", "producers")
    names = [name_of(path) for package in packages for path in modules(package)]
    text = f"import sys\nsys.modules.update(dict.fromkeys({out!r}))\n"
    text += "".join(f"import {name}\n" for name in names if name)

    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT)

    assert "torch" in out
    assert done.returncode == 0, done.stderr


def test_what_a_machine_says_of_its_mirrors_goes_to_builds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index and authorities of pip's environment, and the mirror: a line each for compose."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.example/simple")
    monkeypatch.setenv("PIP_CERT", "/etc/ours.pem")

    said = environment(Mirror("http://debian.example/debian"))

    assert said.splitlines() == [
        "FEDTWIN_BASE_IMAGE=fedtwin-base",
        "FEDTWIN_BUILD_APT_MIRROR=http://debian.example/debian",
        "FEDTWIN_BUILD_INDEX=https://pypi.example/simple",
        "FEDTWIN_BUILD_CA=/etc/ours.pem",
    ]
