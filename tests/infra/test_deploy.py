"""What a stack of containers is made of: settings, limits, health, what an image leaves out."""

from __future__ import annotations

import os
import re
import shutil
import stat
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
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
PLACES = {
    "advertised.listeners", "listeners", "listener.security.protocol.map", "log.dirs",
    "controller.quorum.voters",
}  # fmt: skip
"""What a broker in a container has of its own."""


def compose() -> dict[str, dict[str, Any]]:
    """What compose.yaml says, its shared parts filled in."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Its services."""
    return compose()["services"]


OURS = [name for name, each in services().items() if each.get("user") == "10001:10001"]


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
    assert service["pids_limit"] == 512
    assert service["networks"] == ["federation"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert name in ENDS or "healthcheck" in service
    assert name == "kafka" or service["user"] in ("redis", "10001:10001")  # apache/kafka names one


def test_there_is_one_network_of_the_stack_alone() -> None:
    """A bridge on this machine, which is neither the host's own network nor one that others made;
    what is brought up beside it, as the board is, makes none."""
    made = compose()["networks"]

    assert made == {"federation": {"driver": "bridge"}}
    assert "networks" not in yaml.safe_load((DEPLOY / "monitoring" / "compose.yaml").read_text())


def test_who_follows_a_folder_keeps_its_journal_in_a_volume() -> None:
    """The numbers that images have outlive the container; a new one would give them anew, and the
    images themselves may only be read."""
    service = services()["folder"]
    words = service["command"]
    mounts = {target: (source, how) for source, target, how in map(_mounted, service["volumes"])}

    assert service["profiles"] == ["folder"]
    assert mounts == {
        "/images": ("${FEDTWIN_IMAGES:-images}", "ro"), "/var/lib/fedtwin": ("spool", ""),
    }  # fmt: skip
    assert words[words.index("--folder") + 1] == "/images"
    assert words[words.index("--state") + 1] == "/var/lib/fedtwin"
    assert {"spool", "images"} <= compose()["volumes"].keys()


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_may_write_is_its_users(name: str) -> None:
    """An empty volume takes its owner from the image: a folder there that was not made is root's,
    and all roles are user 10001. Who works in a folder may write there."""
    service = services()[name]
    steps = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    made = {
        folder
        for each in re.findall(r"install -d -o fedtwin -g fedtwin ([^&\n]*)", steps)
        for folder in each.split()
        if folder.startswith("/")
    }
    mounts = [_mounted(each) for each in service.get("volumes", ())]
    written = {target for source, target, how in mounts if "ro" not in how}

    assert written <= made
    assert "working_dir" not in service or service["working_dir"] in written


def test_a_command_in_a_container_has_a_place_for_files_of_the_caller() -> None:
    """What `export` writes and `predict` and `inject` are given lie in the folder it works in."""
    service = services()["fedtwin"]

    assert "${FEDTWIN_FILES:-files}:/files" in service["volumes"]
    assert service["working_dir"] == "/files"


def _mounted(volume: str) -> tuple[str, str, str]:
    """Where from, where to, and how."""
    found = re.fullmatch(r"(\$\{[^}]*\}|[^:]*):([^:]*):?(.*)", volume)
    assert found, volume
    return found[1], found[2], found[3]


# --- what make says to compose --------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with the Makefile alone, and a compose that tells what it was given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    compose = tmp_path / "compose"
    compose.write_text('#!/bin/sh\necho "words $*"\nenv | grep ^FEDTWIN_ || true\n')
    compose.chmod(0o755)
    return tmp_path


def said(beside: Path, *words: str, **environment: str) -> str:
    """What compose was given."""
    bare = {name: each for name, each in os.environ.items() if not name.startswith("FEDTWIN_")}
    done = subprocess.run(
        ["make", *words, "COMPOSE=./compose"],
        cwd=beside, env=bare | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


PATHS = ("FEDTWIN_CONFIG", "FEDTWIN_DATA", "FEDTWIN_FILES", "FEDTWIN_IMAGES")


@needs_make
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("how", ["environment", "word", ".env"])
def test_a_path_is_the_callers(name: str, how: str, beside: Path) -> None:
    """Compose would look for it beside compose.yaml, and take a bare name for a volume's."""
    if how == "environment":
        told = said(beside, "compose-cli", **{name: "mine"})
    elif how == "word":
        told = said(beside, "compose-cli", f"{name}=mine")
    else:
        (beside / ".env").write_text(f"FEDTWIN_RUN=spring\nexport {name}='mine'  # ours\n")
        told = said(beside, "compose-cli")
        assert "--env-file .env" in told

    assert f"{name}={beside / 'mine'}\n" in told
    assert [each for each in PATHS if f"{each}=" in told] == [name]


@needs_make
def test_a_folder_for_files_that_is_not_there_is_made_before_the_engine_makes_it(
    beside: Path,
) -> None:
    """It would be root's, and no container of ours could write there. One that is there stays."""
    (beside / "mine").mkdir(mode=0o750)
    for folder in ("new", "mine"):
        said(beside, "compose-cli", f"FEDTWIN_FILES={folder}")

    assert stat.filemode((beside / "new").stat().st_mode) == "drwxrwxrwt"
    assert stat.filemode((beside / "mine").stat().st_mode) == "drwxr-x---"


@needs_make
def test_what_the_environment_says_goes_before_the_file(beside: Path) -> None:
    """As compose has it; of the file the last line counts, and ~ is the caller's home."""
    (beside / ".env").write_text("FEDTWIN_DATA=./one\nFEDTWIN_DATA=~/two\n#FEDTWIN_FILES=no\n")

    assert "FEDTWIN_DATA=/h/two\n" in said(beside, "compose-cli", HOME="/h")
    assert "FEDTWIN_FILES" not in said(beside, "compose-cli")
    assert "FEDTWIN_DATA=/three\n" in said(beside, "compose-cli", FEDTWIN_DATA="/three")


@needs_make
def test_a_path_of_the_file_that_compose_completes_is_left_to_it(beside: Path) -> None:
    """A variable in it; a # in the midst of one is a letter."""
    (beside / ".env").write_text("FEDTWIN_DATA=${HOME}/sets\n  FEDTWIN_FILES=/a#b\n")
    told = said(beside, "compose-cli")

    assert "FEDTWIN_DATA" not in told
    assert "FEDTWIN_FILES=/a#b\n" in told


@needs_make
def test_the_board_belongs_to_the_stack_that_compose_down_takes_away(beside: Path) -> None:
    """One project, with the board's file and profile; without MONITORING=1 nothing of it."""
    up = [
        line for line in said(beside, "compose-up", "MONITORING=1").splitlines() if "words" in line
    ]
    bare = said(beside, "compose-up")
    down = said(beside, "compose-down")

    for line in (*up, down):
        assert "--project-name fedtwin " in line
        assert "--file infra/deploy/monitoring/compose.yaml --profile monitoring" in line
    assert "monitoring" not in bare


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
