"""Bring up and take down the services of a checkout: python -m infra.native up | down | status.

Everything lies in `.native/` under the current folder. `up` writes `.services.json` beside it:

    {"schema": 1,
     "addresses": {"FEDTWIN_KAFKA": "127.0.0.1:40001", "FEDTWIN_REDIS": "127.0.0.1:40003"},
     "processes": {"kafka": {"pid": 11, "ports": [40001, 40002], "folder": ".native/kafka"}, …}}

so that programs find the addresses where their environment is empty. All commands may be given
twice. Data stays between them; a service that is brought up again is where it was if its ports are
still free.

`up --users NAME…` starts Kafka with an access list and a second door, with TLS and passwords, and
opens these accounts there (accounts.py). The address in the file stays the door without a lock,
which is its keeper's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infra.native.kafka import AUTHORIZER, Broker, Door, fetch, find_java, prepare
from infra.native.programs import HOST, Program, alone, free_ports, last_ports, running, stop
from infra.native.redis import start_redis
from infra.settings import SERVICES_FILE
from schemas.errors import ServiceError

HOME = Path(".native")
NEEDED = ("kafka",)
"""Without one of these `up` has failed; any other service is brought up where it is installed."""


def up(users: Sequence[str] = ()) -> int:
    """Start what does not run yet and write the file; 3 when Kafka cannot be had.

    With `users`, Kafka is guarded, and these have an account there.
    """
    missing: dict[str, ServiceError] = {}
    with alone(HOME):
        for name, begin in SERVICES.items():
            try:
                if users and name == "kafka":
                    program = _guarded(HOME / name, users)
                else:
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
        stop(HOME / "archive" / "node")  # whose maker was killed
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
    return Broker(folder, _jars(), *free_ports(2, last_ports(folder))).start()


def _jars() -> Path:
    find_java()  # before anything is fetched for it
    if not (HOME / "libs").exists():
        print("kafka: fetching its jars with Maven, once (44 MB)", flush=True)
    libs = fetch(HOME)
    prepare(libs, lambda text: print(f"kafka: {text}", flush=True))
    return libs


def _guarded(folder: Path, users: Sequence[str]) -> Program:
    """Kafka with an access list and a locked door, and these accounts."""
    from infra.kafka import KafkaSettings
    from infra.native.accounts import open_accounts, papers

    door = HOME / "door"  # its port, for whoever has an account was told it
    program = running(folder)
    if program and AUTHORIZER not in (folder / "server.properties").read_text():
        raise ServiceError("it runs without a lock; first: python -m infra.native down")
    own = papers(HOME / "papers")
    if not program:
        find_java()
        wish = (*last_ports(folder), int(door.read_text())) if door.exists() else ()
        *ports, locked = free_ports(3, wish)
        door.write_text(str(locked))
        doors = [Door("SASL_SSL", locked)]
        broker = Broker(folder, _jars(), *ports, doors=doors, papers=own, guarded=True)
        program = broker.start()
    for file in open_accounts(
        HOME / "accounts",
        users,
        KafkaSettings(program.address),
        f"{HOST}:{door.read_text()}",
        own.trusted,
    ):
        print(f"account: {file}")
    return program


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
    parser.add_argument(
        "--users", nargs="+", metavar="NAME", default=[], help="of up: guard Kafka, open accounts"
    )
    given = parser.parse_args()
    if given.users and given.command != "up":
        parser.error("--users belongs to up")
    return {"up": lambda: up(given.users), "down": down, "status": status}[given.command]()


if __name__ == "__main__":
    sys.exit(main())
