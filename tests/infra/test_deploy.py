"""What a stack of containers is made of: settings, limits, health, what an image leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy.__main__ import environment
from infra.deploy.images import Mirror
from infra.exporter import served
from infra.native.kafka import Broker
from infra.transport.embedded import Embedded as Log
from infra.vitals import Vitals
from schemas.messages import Heartbeat
from tests import containers
from tests.engine import some_engine
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


@pytest.mark.parametrize("away", [False, True])
def test_a_role_is_healthy_when_it_says_so(away: bool) -> None:
    """The check asks a program that has just begun, and one whose broker no longer answers."""
    with closing(Log()) as log:
        vitals = Vitals("spring", "twins", "twins-1", log)
        if away:
            vitals.tell(Heartbeat(run="", process="twins-1", role="twins", at=0.0, in_work=(),
                                  waits=()), {}, {}, 0)  # fmt: skip
            vitals.clock = lambda: time.monotonic() + 60
        with served(vitals, "127.0.0.1", 0) as port:
            done = checked(port)
    gone = checked(port)

    assert (done.returncode == 0) is not away
    assert done.stdout.startswith("not well: no heartbeat since 60 s" if away else "well: ")
    assert gone.returncode != 0


def checked(port: int) -> subprocess.CompletedProcess[str]:
    """What an engine finds when it checks a container whose role answers there."""
    how, *words = services()["twins"]["healthcheck"]["test"]
    assert how == "CMD"
    words = [each.replace("$$", "$").replace("/9400", f"/{port}") for each in words]
    return subprocess.run(words, capture_output=True, text=True)


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


def test_a_machine_that_forbids_an_engine_is_told_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None answers, and what `make ci-setup` installed ends at once: a skip with its last words."""
    forbidden = tmp_path / "dockerd"
    forbidden.write_text(
        "#!/bin/sh\necho 'failed to mount overlay: operation not permitted'\nexit 1\n"
    )
    forbidden.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    containers.engine.cache_clear()

    with pytest.raises(pytest.skip.Exception) as told, some_engine(tmp_path / "engine"):
        pytest.fail("an engine answers")

    assert str(told.value).startswith("this machine cannot run an engine")
    assert "operation not permitted" in str(told.value)
    assert os.environ["DOCKER_HOST"] == f"unix://{tmp_path}/nobody"
    assert not (tmp_path / "engine").exists()
