"""Images made on this machine: a Debian, a Kafka node and a Redis server, from package mirrors.

The Debian comes by debootstrap from the distribution's mirror, the node from Maven's jars with a
Java of its own, the server from Debian's package. They take their settings as the public images do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.native.kafka import fetch
from schemas.errors import ServiceError

HERE = Path(__file__).parent
LOG4J = HERE.parent / "native" / "log4j2.xml"
BASE, KAFKA, REDIS = "fedtwin-base", "fedtwin-kafka", "fedtwin-redis"
"""How they are called."""
PUBLIC = "http://deb.debian.org/debian"
UNREAD = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt",
          "var/lib/apt/lists", "var/log")  # fmt: skip
"""Of a Debian: what nobody reads in a container."""
MANUALS = ("man1", "man5", "man7", "man8")
"""Some packages link their manuals there, and fail without."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a Debian comes from."""

    address: str
    suite: str = "bookworm"


def mirror_of_machine() -> str:
    """The first mirror of Debian that this machine's apt takes packages from, else the public."""
    words = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
             "Origin: Debian", "Component: main")  # fmt: skip
    if shutil.which(words[0]) is None:
        return PUBLIC
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return next(iter(done.stdout.split()), PUBLIC).rstrip("/")


def there(image: str) -> bool:
    """Whether the engine has an image. Raises ServiceError where there is no engine."""
    if shutil.which("docker") is None:
        raise ServiceError("no docker on the PATH. On Debian: apt-get install docker.io")
    done = subprocess.run(
        ["docker", "image", "inspect", image], capture_output=True, text=True, check=False
    )
    if done.returncode and "no such image" not in done.stderr.lower():
        raise ServiceError(f"the container engine does not answer: {done.stderr.strip()}")
    return done.returncode == 0


def base(mirror: Mirror) -> None:
    """Make a small Debian. Raises ServiceError when it cannot be had; only root may make one."""
    if shutil.which("debootstrap") is None:
        raise ServiceError("no debootstrap on the PATH. On Debian: apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="fedtwin-base-") as folder:
        root = Path(folder) / "root"
        _run(
            ["debootstrap", "--variant=minbase", "--include=ca-certificates", mirror.suite,
             str(root), mirror.address]
        )  # fmt: skip
        for each in UNREAD:
            shutil.rmtree(root / each, ignore_errors=True)
            (root / each).mkdir(parents=True)
        for each in MANUALS:
            (root / "usr/share/man" / each).mkdir()
        (root / "etc/apt/sources.list").write_text(f"deb {PUBLIC} {mirror.suite} main\n")
        archive = Path(folder) / "root.tar"
        _run(["tar", "-C", str(root), "-cf", str(archive), "."])
        _run(["docker", "import", str(archive), BASE])


def kafka(home: Path, mirror: Mirror) -> None:
    """Make a Kafka node on the base; its jars are fetched to `home`. Raises ServiceError."""
    libs = fetch(home)
    with tempfile.TemporaryDirectory(prefix="fedtwin-kafka-", dir=home) as folder:
        context = Path(folder)
        shutil.copytree(libs, context / "libs", copy_function=os.link)  # 44 MB, of one disk
        shutil.copy(LOG4J, context)
        _build(KAFKA, context, mirror)


def redis(mirror: Mirror) -> None:
    """Make a Redis server on the base. Raises ServiceError."""
    with tempfile.TemporaryDirectory(prefix="fedtwin-redis-") as folder:
        _build(REDIS, Path(folder), mirror)


def _build(image: str, context: Path, mirror: Mirror) -> None:
    """Build an image of this folder's recipe for it; nothing that only BuildKit can is asked."""
    recipe = HERE / "local" / f"{image.removeprefix('fedtwin-')}.Dockerfile"
    for each in (HERE / "steps" / "from-mirror.sh", HERE / "local" / "kafka.sh"):
        shutil.copy(each, context)
    arguments = {"BASE": BASE, "APT_MIRROR": mirror.address}
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    _run(
        ["docker", "build", "--quiet", "--tag", image, "--file", str(recipe), *given, str(context)],
        {"DOCKER_BUILDKIT": "0"},  # some clients lack its part, and tell of it by failing
    )


def _run(words: Sequence[str], more: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **(more or {})}
    )
    if done.returncode:
        last = "\n    ".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise ServiceError(f"{words[0]} {words[1]} failed. Its last words:\n    {last}")
