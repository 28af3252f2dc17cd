"""Real Kafka nodes (KRaft, no ZooKeeper) as child processes, fetched with Maven.

One node is broker and controller in one, and alone or one of several (`cluster`). Its settings are
those of a small durable log: nothing is forgotten by age (`log.retention.ms=-1`), topics are made
by the system only. What Kafka keeps for itself has three copies where there are three nodes, and
counts as written when two have it.

Nodes talk to each other, and to whoever keeps them, through a door without a lock on the loopback
interface. Further doors have locks: TLS, certificates, passwords. With `guarded`, who came through
one of those may do what an access list says, and nothing else; whoever comes through the one
without a lock is the nodes' equal, and may do everything.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infra.native.programs import HOST, Program, alone, free_ports, settle, start, stop
from schemas.errors import ServiceError

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JAVA = 17  # Kafka 4's oldest
COPIES = 3  # of what is to survive a node; more are for more money than a test has
MECHANISM = "SCRAM-SHA-512"
JVM = (
    "-XX:+UseSerialGC",
    "-XX:MaxDirectMemorySize=128m",
    f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}",
)
QUICK = "-XX:TieredStopAtLevel=1"
"""Half the time to start. But what is encrypted takes four times as long with it."""
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
ANYBODY = "User:ANONYMOUS"
"""Whoever came without a name."""
ALONE = ("-Xms256m", "-Xmx512m")
AMONG_SEVERAL = ("-Xms64m", "-Xmx256m")
"""Half as much for each of several: they are for tests, and share a machine."""


@dataclass(frozen=True, slots=True)
class Papers:
    """What a node shows whoever comes by TLS, and whom it trusts; files in PEM."""

    own: Path
    """Its key (PKCS#8, without a password), its certificate and the authority's, in this order."""
    trusted: Path
    """The authorities whose clients it lets in."""


@dataclass(frozen=True, slots=True)
class Door:
    """A further port of a node, and what it asks of whoever comes."""

    protocol: Literal["SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    port: int
    mutual: bool = False
    """TLS in both directions: who comes must show a certificate, too."""

    @property
    def name(self) -> str:
        """What a node calls it."""
        return f"{self.protocol}_MUTUAL" if self.mutual else self.protocol


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
    doors: Sequence[Door] = field(default=(), kw_only=True)
    """Those with locks."""
    papers: Papers | None = field(default=None, kw_only=True)
    """For doors with TLS."""
    users: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    """Name → password of whoever may come through a door that asks for one. They are written down
    with the first start, and seen among the machine's processes meanwhile: these are for tests."""
    guarded: bool = field(default=False, kw_only=True)
    """Whether an access list says who may do what; it is empty at first."""
    voters: Mapping[int, int] = field(default_factory=dict, kw_only=True)
    """Node → controller port of all nodes of its cluster; none: it is alone."""
    cluster_id: str = field(default="", kw_only=True)
    """The same for all nodes of a cluster; a node that is alone makes one up."""
    more: Mapping[str, object] = field(default_factory=dict, kw_only=True)
    """Settings that are others than ours."""
    archived: Path | None = field(default=None, kw_only=True)
    """Where it writes down, when it is ended, the classes that it has loaded."""

    @property
    def address(self) -> str:
        """Where clients find it, as host:port."""
        return f"{HOST}:{self.port}"

    @property
    def properties(self) -> str:
        """The text of its server.properties."""
        settings = self._own() | self._listening() | self._locks() | dict(self.more)
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def start(self) -> Program:
        """Start it on the data that its folder holds, and wait until it serves.

        Raises ServiceError when it runs already or does not come up; then with its last words.
        """
        program = self.begin()
        self.settle()
        return program

    def begin(self) -> Program:
        """Start it and do not wait: one of several serves when most of them are there.

        Raises ServiceError when it runs already.
        """
        settings = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings.touch(mode=0o600)  # a guarded door's passwords may stand in it
        settings.write_text(self.properties)
        heap = AMONG_SEVERAL if self.voters else ALONE
        pace = () if any(door.protocol.endswith("SSL") for door in self.doors) else (QUICK,)
        libs = self.libs.resolve()  # the archive is of jars by their paths
        java, version = _java()
        shared = _archive(libs, version)
        known = (f"-XX:SharedArchiveFile={shared}",) if shared.exists() else ()
        # Java itself expands the star.
        kafka = [*heap, *JVM, *pace, *known, "-cp", f"{libs}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            _format([java, *kafka, "kafka.tools.StorageTool", "format"], settings, self)
        written = (f"-XX:ArchiveClassesAtExit={self.archived}",) if self.archived else ()
        command = [java, *written, *kafka, "kafka.Kafka", str(settings)]
        return start(command, self.folder, (self.port, self.controller_port))

    def settle(self) -> None:
        """Wait until it serves. Raises ServiceError with its last words when it does not."""
        log = self.folder / "log.txt"
        settle(self.folder, lambda: b"Kafka Server started" in log.read_bytes())

    def _own(self) -> dict[str, object]:
        copies = min(COPIES, max(1, len(self.voters)))
        insync = max(1, copies - 1)
        return {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "log.dirs": self.folder.absolute() / "data",
            "log.retention.ms": -1,
            "offsets.retention.minutes": 525600,  # a year; a rested federation keeps its place
            "auto.create.topics.enable": "false",
            "min.insync.replicas": insync,
            "unclean.leader.election.enable": "false",
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": insync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": insync,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            # How soon a segment of what was let go leaves the disk; Kafka's own is 5 minutes.
            "log.retention.check.interval.ms": 10_000,
            # A killed node waits for its own old session to end: with Kafka's 9 s it is back after
            # twice the time.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
        }

    def _listening(self) -> dict[str, object]:
        """Where it listens, what it tells clients of that, and where the other nodes are."""
        listening = advertised = f"PLAINTEXT://{self.address}"
        protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DOOR:PLAINTEXT"
        if self.door:
            listening += f",DOOR://{HOST}:{self.door[0]}"
            advertised += f",DOOR://{HOST}:{self.door[1]}"
        for door in self.doors:
            listening += f",{door.name}://{HOST}:{door.port}"
            advertised += f",{door.name}://{HOST}:{door.port}"
            protocols += f",{door.name}:{door.protocol}"
        voters = self.voters or {self.node: self.controller_port}
        return {
            "controller.quorum.voters": ",".join(
                f"{node}@{HOST}:{port}" for node, port in sorted(voters.items())
            ),
            "listeners": f"{listening},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": advertised,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": protocols,
        }

    def _locks(self) -> dict[str, object]:
        """What the doors ask for."""
        found: dict[str, object] = {}
        if self.guarded:
            found |= {
                "authorizer.class.name": AUTHORIZER,
                "allow.everyone.if.no.acl.found": "false",
                "super.users": ANYBODY,
            }
        if any(door.protocol.startswith("SASL") for door in self.doors):
            found["sasl.enabled.mechanisms"] = MECHANISM
        for door in self.doors:
            own = f"listener.name.{door.name.lower()}"
            if door.protocol.startswith("SASL"):
                module = "org.apache.kafka.common.security.scram.ScramLoginModule"
                found[f"{own}.{MECHANISM.lower()}.sasl.jaas.config"] = f"{module} required;"
            if door.protocol.endswith("SSL"):
                found[f"{own}.ssl.client.auth"] = "required" if door.mutual else "none"
        if self.papers:
            found |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": self.papers.own,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": self.papers.trusted,
            }
        return found


def cluster(home: Path, libs: Path, nodes: int = 3, **more: Any) -> list[Broker]:
    """Brokers of one cluster, on free ports, each in a folder of its own; `more` are their fields.

    They are started together (`start_all`): one alone waits for the others.
    """
    ports = free_ports(2 * nodes)
    voters = {number + 1: ports[2 * number + 1] for number in range(nodes)}
    name = _cluster_id()
    return [
        Broker(
            home / f"kafka-{node}", libs, ports[2 * node - 2], port, node,
            voters=voters, cluster_id=name, **more,
        )
        for node, port in voters.items()
    ]  # fmt: skip


def start_all(brokers: Sequence[Broker]) -> str:
    """Start the nodes of a cluster and wait until all serve; gives their addresses."""
    for broker in brokers:
        broker.begin()
    for broker in brokers:
        broker.settle()
    return ",".join(broker.address for broker in brokers)


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


def archive(libs: Path) -> Path:
    """Where the classes of these jars are, made ready for the Java that is found, once `prepare`
    has done that. Raises ServiceError as `find_java` does."""
    return _archive(libs.resolve(), _java()[1])


def prepare(libs: Path, tell: Callable[[str], None] = lambda text: None) -> None:
    """Make an archive of the classes that a node loads (JEP 350), where there is none of these jars
    and this Java: with it a node starts with half the work (docs/benchmarks.md).

    A node is started for it once, and ended; `tell` hears of it before. Where this Java writes no
    archive, or one that is of no use to it, that is noted, and a node starts as it did. Raises
    ServiceError where no node starts.
    """
    libs = libs.resolve()
    java, version = _java()
    whole = _archive(libs, version)
    useless = whole.with_suffix(".useless")

    def settled() -> bool:
        return whole.exists() or useless.exists()

    if settled() or not os.access(libs.parent, os.W_OK):
        return
    with alone(whole.parent):
        if settled():
            return
        tell("noting which classes it loads, once, to start faster (51 MB)")
        part, folder = whole.with_name("classes.part"), whole.with_name("node")
        stop(folder)  # of one that was killed here
        shutil.rmtree(folder, ignore_errors=True)
        part.unlink(missing_ok=True)
        node = Broker(folder, libs, *free_ports(2), archived=part)
        try:
            node.start()
        finally:
            stop(folder)
            shutil.rmtree(folder, ignore_errors=True)
        for other in whole.parent.glob("classes-*"):
            other.unlink()
        if _of_use(java, part, libs):
            part.rename(whole)
        else:
            part.unlink(missing_ok=True)
            useless.touch()


def _archive(libs: Path, version: str) -> Path:
    """It is of jars as they are, where they are, and of one Java."""
    jars = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in libs.iterdir()]
    of = hashlib.sha256(repr((version, str(libs), sorted(jars))).encode()).hexdigest()[:12]
    return libs.with_name("archive") / f"classes-{of}.jsa"


def _of_use(java: str, archived: Path, libs: Path) -> bool:
    """Whether a JVM that insists on the archive does its work. Of one that was cut off it dies."""
    if not archived.exists():
        return False
    with archived.open("rb") as file:
        os.fsync(file.fileno())
    words = ["-Xshare:on", "-XX:+SuppressFatalErrorMessage", *JVM]
    words += [f"-XX:SharedArchiveFile={archived}", "-cp", f"{libs}/*"]
    tool = ["kafka.tools.StorageTool", "random-uuid"]
    return not subprocess.run([java, *words, *tool], capture_output=True, check=False).returncode


def find_java() -> str:
    """The program `java`: of JAVA_HOME if that is set, else of the PATH.

    Raises ServiceError when there is none, or one too old for Kafka.
    """
    return _java()[0]


def _java() -> tuple[str, str]:
    """The program, and what it says of itself."""
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
    return java, text


def _cluster_id() -> str:
    """A cluster is named by a random UUID in url-safe base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()


def _format(command: list[str], settings: Path, broker: Broker) -> None:
    """Prepare an empty data folder, and write down who may come with a password."""
    name = broker.cluster_id or _cluster_id()
    # With the sign: a name may begin with a hyphen.
    command = [*command, "--ignore-formatted", f"--cluster-id={name}", f"--config={settings}"]
    for user, password in broker.users.items():
        command.append(f"--add-scram={MECHANISM}=[name={user},password={password}]")
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
