"""Make images on this machine, where no registry can be reached: python -m infra.deploy [IMAGE…]

    base    a small Debian, by debootstrap: for all that follow, and for the roles
    kafka   a Kafka node: jars by Maven, a Java of its own
    redis   a Redis server, of Debian's package

What is there already is left as it is. A Debian of this machine is asked for its own mirror, pip
for its index and its authorities; these go into the file `.compose.env`, which `make compose-up`
hands to the builds of the roles' images, and into no image.
"""

from __future__ import annotations

import argparse
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

from infra.deploy import images
from schemas.errors import FedtwinError

HOME = Path(".native")
"""Where Kafka's jars are fetched to, as `make up` does."""
WRITTEN = Path(".compose.env")
NAMES = {"base": images.BASE, "kafka": images.KAFKA, "redis": images.REDIS}


def main() -> int:
    """Do what the command line says; the exit code is 0, or 3 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="base, kafka, redis (all)")
    parser.add_argument("--mirror", metavar="ADDRESS", help="of Debian; otherwise this machine's")
    parser.add_argument("--suite", default="bookworm", help="of Debian (bookworm)")
    parser.add_argument("--again", action="store_true", help="make also those that are there")
    given = parser.parse_args()
    if unknown := [each for each in given.images if each not in NAMES]:
        parser.error(f"{unknown[0]} is none of {', '.join(NAMES)}")
    mirror = images.Mirror(given.mirror or images.mirror_of_machine(), given.suite)
    try:
        for name in given.images or NAMES:
            _make(name, mirror, again=given.again)
    except FedtwinError as error:
        print(f"images: {error}", file=sys.stderr)
        return error.exit_code
    WRITTEN.write_text(environment(mirror))
    print(f"the machine's own settings stand in {WRITTEN}")
    return 0


def _make(name: str, mirror: images.Mirror, *, again: bool) -> None:
    if images.there(NAMES[name]) and not again:
        print(f"{name}: {NAMES[name]} is there")
        return
    began = time.monotonic()
    print(f"{name}: making {NAMES[name]}", flush=True)
    if name == "base":
        images.base(mirror)
    elif name == "kafka":
        HOME.mkdir(exist_ok=True)
        images.kafka(HOME, mirror)
    else:
        images.redis(mirror)
    print(f"{name}: made in {time.monotonic() - began:.0f} s")


def environment(mirror: images.Mirror) -> str:
    """What builds of this machine need, as lines of a file for compose."""
    values = {
        "FEDTWIN_BASE_IMAGE": images.BASE,
        "FEDTWIN_BUILD_APT_MIRROR": mirror.address,
        "FEDTWIN_BUILD_INDEX": _of_pip("index-url"),
        "FEDTWIN_BUILD_CA": _of_pip("cert") or ssl.get_default_verify_paths().cafile,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items() if value)


def _of_pip(setting: str) -> str:
    """A setting of pip, of its environment or its files; empty where there is none."""
    if said := os.environ.get(f"PIP_{setting.upper().replace('-', '_')}"):
        return said
    words = [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
