"""Bring up and take down the services of a checkout: python -m infra.native up | down | status.

Everything lies in `.native/` under the current folder. `up` writes `.services.json` beside it:

    {"schema": 1,
     "addresses": {"FEDTWIN_KAFKA": "127.0.0.1:40001", "FEDTWIN_REDIS": "127.0.0.1:40003"},
     "processes": {"kafka": {"pid": 11, "ports": [40001, 40002], "folder": ".native/kafka"}, …}}

so that programs find the addresses where their environment is empty. Both commands may be given
twice. Data stays between them; a service that is brought up again is where it was if its ports are
still free.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.native.kafka import Broker, fetch, find_java
from infra.native.programs import Program, alone, free_ports, last_ports, running, stop
from infra.native.redis import start_redis
from infra.settings import SERVICES_FILE
from schemas.errors import ServiceError

HOME = Path(".native")
NEEDED = ("kafka",)
"""Without one of these `up` has failed; any other service is brought up where it is installed."""


def up() -> int:
    """Start what does not run yet and write the file; 3 when Kafka cannot be had."""
    missing: dict[str, ServiceError] = {}
    with alone(HOME):
        for name, begin in SERVICES.items():
            try:
                program = running(HOME / name) or begin(HOME / name)
                print(f"{name}: {program.address}, process {program.pid}")
            except ServiceError as error:
                missing[name] = error
                print(f"{name}: not started: {error}", file=sys.stderr)
        _write(_found())
    return ServiceError.exit_code if any(name in missing for name in NEEDED) else 0


def down() -> int:
    """End what we started, and remove the file."""
    with alone(HOME):
        for name in SERVICES:
            print(f"{name}: {'stopped' if stop(HOME / name) else 'was not running'}")
        SERVICES_FILE.unlink(missing_ok=True)
    return 0


def status() -> int:
    """Say what runs; 3 when Kafka does not."""
    found = _found()
    for name in SERVICES:
        program = found.get(name)
        print(f"{name}: {program.address if program else 'not running'}")
    return 0 if all(name in found for name in NEEDED) else ServiceError.exit_code


def _kafka(folder: Path) -> Program:
    find_java()  # before anything is fetched for it
    if not (HOME / "libs").exists():
        print("kafka: fetching its jars with Maven, once (44 MB)", flush=True)
    libs = fetch(HOME)
    return Broker(folder, libs, *free_ports(2, last_ports(folder))).start()


def _redis(folder: Path) -> Program:
    return start_redis(folder, *free_ports(1, last_ports(folder)))


SERVICES: Mapping[str, Callable[[Path], Program]] = {"kafka": _kafka, "redis": _redis}


def _found() -> dict[str, Program]:
    every = {name: running(HOME / name) for name in SERVICES}
    return {name: program for name, program in every.items() if program}


def _write(found: Mapping[str, Program]) -> None:
    """The file appears at once or not at all; without any service there is none."""
    if not found:
        SERVICES_FILE.unlink(missing_ok=True)
        return
    value = {
        "schema": 1,
        "addresses": {f"FEDTWIN_{name.upper()}": each.address for name, each in found.items()},
        "processes": {
            name: {"pid": each.pid, "ports": each.ports, "folder": str(HOME / name)}
            for name, each in found.items()
        },
    }
    part = SERVICES_FILE.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(part, SERVICES_FILE)


def main() -> int:
    """Do what the command line says; the exit code is 0, or 3 where a service is missing."""
    parser = argparse.ArgumentParser(prog="python -m infra.native", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["up", "down", "status"])
    return {"up": up, "down": down, "status": status}[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
