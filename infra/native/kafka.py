"""A real Kafka node (KRaft, no ZooKeeper) as a child process, fetched with Maven.

One node is broker and controller in one. Its settings are those of a small durable log: nothing is
forgotten by age (`log.retention.ms=-1`), topics are made by the system only, internal topics have
one replica because there is one node.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from infra.native.programs import HOST, Program, settle, start
from schemas.errors import ServiceError

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JAVA = 17  # Kafka 4's oldest
JVM = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:MaxDirectMemorySize=128m",
    # Half the time to start. Encrypted listeners are four times slower with it: leave it out there.
    "-XX:TieredStopAtLevel=1",
    f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}",
)


@dataclass(frozen=True, slots=True)
class Broker:
    """One node and where it lives."""

    folder: Path
    """Its settings, its log, its data."""
    libs: Path
    """The folder of jars that `fetch` gives."""
    port: int
    """Where clients connect, on the loopback interface."""
    controller_port: int
    """Where the nodes agree with each other."""
    node: int = 1
    door: tuple[int, int] | None = field(default=None, kw_only=True)
    """A second port where clients connect, and the one that they are told to: of a relay, say."""

    @property
    def properties(self) -> str:
        """The text of its server.properties."""
        listening = advertised = f"PLAINTEXT://{HOST}:{self.port}"
        if self.door:
            listening += f",DOOR://{HOST}:{self.door[0]}"
            advertised += f",DOOR://{HOST}:{self.door[1]}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": f"{self.node}@{HOST}:{self.controller_port}",
            "listeners": f"{listening},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": advertised,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DOOR:PLAINTEXT"
            ),
            "log.dirs": self.folder.absolute() / "data",
            "log.retention.ms": -1,
            "offsets.retention.minutes": 525600,  # a year; a rested federation keeps its place
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            # A killed node waits for its own old session to end: with Kafka's 9 s it is back after
            # twice the time.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def start(self) -> Program:
        """Start it on the data that its folder holds, and wait until it serves.

        Raises ServiceError when it runs already or does not come up; then with its last words.
        """
        java = find_java()
        settings = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings.write_text(self.properties)
        kafka = [java, *JVM, "-cp", f"{self.libs}/*"]  # Java itself expands the star
        if not (self.folder / "data" / "meta.properties").exists():
            _format([*kafka, "kafka.tools.StorageTool", "format"], settings)
        ports = (self.port, self.controller_port)
        program = start([*kafka, "kafka.Kafka", str(settings)], self.folder, ports)
        log = self.folder / "log.txt"
        settle(self.folder, lambda: b"Kafka Server started" in log.read_bytes())
        return program


def fetch(home: Path) -> Path:
    """The folder of Kafka's jars under `home`; fetched when it is missing or of another pom.

    Needs Maven and the network the first time (46 jars, 44 MB). Raises ServiceError without them.
    """
    libs = home / "libs"
    stamp = libs / POM.name
    if stamp.exists() and stamp.read_bytes() == POM.read_bytes():
        return libs
    part = home / "libs.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _copy_dependencies(part)
    shutil.copy(POM, part)  # last: its presence says that the jars are all there
    shutil.rmtree(libs, ignore_errors=True)
    part.rename(libs)
    return libs


def find_java() -> str:
    """The program `java`: of JAVA_HOME if that is set, else of the PATH.

    Raises ServiceError when there is none, or one too old for Kafka.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        place = f"JAVA_HOME ({home})" if home else "the PATH"
        raise ServiceError(f"no java on {place}: Kafka needs Java {JAVA} or newer. {_remedy()}")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    if found is None or int(found[1]) < JAVA:
        version = found[1] if found else "of an unknown version"
        raise ServiceError(f"{java} is Java {version}, Kafka needs {JAVA} or newer. {_remedy()}")
    return java


def _format(command: list[str], settings: Path) -> None:
    """Prepare an empty data folder; a cluster is named by a random UUID in url-safe base64."""
    name = base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()
    # With the sign: a name may begin with a hyphen.
    command = [*command, "--ignore-formatted", f"--cluster-id={name}", f"--config={settings}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"Kafka cannot use {settings.parent}:\n{done.stdout}{done.stderr}")


def _copy_dependencies(target: Path) -> None:
    if (maven := shutil.which("mvn")) is None:
        raise ServiceError(f"no mvn on the PATH: Kafka's jars are fetched with Maven. {_remedy()}")
    command = [maven, "-q", "-B", "--strict-checksums", "-f", str(POM)]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    command += [f"-DoutputDirectory={target.absolute()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = "\n    ".join((done.stdout + done.stderr).splitlines()[:12])
        raise ServiceError(f"Maven could not fetch Kafka. Its first words:\n    {words}")


def _remedy() -> str:
    return "On Debian and Ubuntu: apt-get install default-jre-headless maven"
