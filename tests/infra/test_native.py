"""Real services as child processes: found again by their folder, ended by nobody else's pid."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.native.kafka import (
    Broker,
    Door,
    Papers,
    _of_use,
    archive,
    cluster,
    fetch,
    find_java,
    prepare,
)
from infra.native.programs import (
    HOST,
    free_ports,
    last_ports,
    running,
    settle,
    start,
    stop,
)
from infra.native.redis import start_redis
from schemas.errors import ServiceError
from tests.services import have, jars

ROOT = Path(__file__).parents[2]
SLEEPS = (sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('awake', flush=True); time.sleep(60)",
)
FAILS = (sys.executable, "-c", "print('the disk is not mine')")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A program's folder; what still runs at the end of the test is killed."""
    yield tmp_path / "program"
    stop(tmp_path / "program", patience=5)


def awake(folder: Path) -> Callable[[], bool]:
    """Whether the folder's program has said that it is awake."""
    return lambda: "awake" in (folder / "log.txt").read_text()


# --- make -----------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as ending services takes, without .venv."""
    packages = ("infra/__init__.py", "infra/native/__init__.py", "schemas/__init__.py")
    for name in ("Makefile", *packages, "infra/native/programs.py", "schemas/errors.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def clean(checkout: Path, *words: str) -> int:
    """Say `make clean` there; its exit code."""
    return subprocess.run(["make", "clean", *words], cwd=checkout, capture_output=True).returncode


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_services_are_ended_before_their_folder_goes(checkout: Path) -> None:
    """Also where .venv is gone: nobody would find them again, and their ports stay taken."""
    folder = checkout / ".native" / "kafka"
    program = start(SLEEPS, folder, ())

    kept = clean(checkout, "PYTHON=false")
    found = running(folder)
    gone = clean(checkout, f"PYTHON={sys.executable}")

    assert kept != 0
    assert found == program
    assert gone == 0
    assert not (checkout / ".native").exists()
    assert os.waitstatus_to_exitcode(os.waitpid(program.pid, 0)[1]) == -signal.SIGTERM


# --- programs -------------------------------------------------------------------------------------


def test_a_program_is_found_by_its_folder_as_long_as_it_lives(folder: Path) -> None:
    """Its pid and ports are known while it runs; after it was killed only its ports are."""
    program = start(SLEEPS, folder, (4321,))
    assert running(folder) == program
    assert program.address == "127.0.0.1:4321"

    os.kill(program.pid, signal.SIGKILL)
    os.waitpid(program.pid, 0)

    assert running(folder) is None
    assert last_ports(folder) == (4321,)


def test_a_pid_that_belongs_to_somebody_else_now_is_not_signalled(folder: Path) -> None:
    """The file names a live process, but nobody holds its lock: nothing runs, nothing is ended."""
    folder.mkdir()
    with subprocess.Popen(SLEEPS) as stranger:
        (folder / "program.json").write_text(json.dumps({"pid": stranger.pid, "ports": [1]}))

        assert running(folder) is None
        assert stop(folder) is False
        assert stranger.poll() is None
        stranger.kill()


def test_a_folder_has_one_program(folder: Path) -> None:
    """The second start is refused, and the first program goes on."""
    program = start(SLEEPS, folder, (1,))

    with pytest.raises(ServiceError, match="runs already"):
        start(SLEEPS, folder, (2,))
    assert running(folder) == program


def test_what_does_not_come_up_is_told_with_its_last_words(folder: Path) -> None:
    """A program that ends by itself before it answers: its output is part of the error."""
    start(FAILS, folder, (1,))

    with pytest.raises(ServiceError, match=r"has ended[^$]*the disk is not mine"):
        settle(folder, lambda: False)


def test_what_does_not_answer_in_time_is_ended(folder: Path) -> None:
    """A program that runs but never answers is not left behind."""
    start(SLEEPS, folder, (1,))

    with pytest.raises(ServiceError, match="did not answer in time"):
        settle(folder, lambda: False, patience=0.2)
    assert running(folder) is None


def test_what_does_not_end_when_it_is_asked_is_killed(folder: Path) -> None:
    """SIGTERM is ignored, SIGKILL cannot be."""
    start(DEAF, folder, (1,))
    settle(folder, awake(folder), patience=10)

    assert stop(folder, patience=0.3) is True
    assert running(folder) is None
    assert stop(folder) is False


def test_ports_are_kept_where_they_are_free() -> None:
    """Who comes back is where its clients wait for it; where another has the port, elsewhere."""
    wish = free_ports(2)
    assert len(set(wish)) == 2
    assert free_ports(2, wish) == wish

    with socket.socket() as other:
        other.bind((HOST, wish[0]))
        other.listen()
        found = free_ports(2, wish)

    assert wish[0] not in found
    assert len(set(found)) == 2


# --- Kafka ----------------------------------------------------------------------------------------


def test_a_node_forgets_nothing_by_age(tmp_path: Path) -> None:
    """Kafka's own default of seven days would delete the model of a federation that rested."""
    broker = Broker(tmp_path, tmp_path, 1001, 1002)

    lines = broker.properties.splitlines()

    assert "log.retention.ms=-1" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:1001" in lines
    assert "controller.quorum.voters=1@127.0.0.1:1002" in lines
    assert f"log.dirs={tmp_path}/data" in lines


def test_several_nodes_know_each_other_and_keep_three_copies(tmp_path: Path) -> None:
    """Each has all three voters; two copies must have a record, and none that lags may lead."""
    nodes = cluster(tmp_path, tmp_path)

    voters = {line for node in nodes for line in node.properties.splitlines() if "voters" in line}
    assert [node.node for node in nodes] == [1, 2, 3]
    assert voters == {
        "controller.quorum.voters="
        + ",".join(f"{node.node}@{HOST}:{node.controller_port}" for node in nodes)
    }
    assert len({node.cluster_id for node in nodes}) == 1
    assert len({port for node in nodes for port in (node.port, node.controller_port)}) == 6
    for node in nodes:
        lines = node.properties.splitlines()
        assert "min.insync.replicas=2" in lines
        assert "unclean.leader.election.enable=false" in lines
        assert "offsets.topic.replication.factor=3" in lines


def test_doors_with_locks_ask_for_what_they_should(tmp_path: Path) -> None:
    """A password, or a certificate; the password itself is in no text."""
    doors = [Door("SASL_SSL", 1003), Door("SSL", 1004, mutual=True)]
    papers = Papers(tmp_path / "own.pem", tmp_path / "ca.pem")
    broker = Broker(
        tmp_path, tmp_path, 1001, 1002, doors=doors, papers=papers, users={"north": "hush"}
    )

    lines = broker.properties.splitlines()

    assert "listener.name.sasl_ssl.ssl.client.auth=none" in lines
    assert "listener.name.ssl_mutual.ssl.client.auth=required" in lines
    assert "sasl.enabled.mechanisms=SCRAM-SHA-512" in lines
    assert "SSL_MUTUAL://127.0.0.1:1004" in broker.properties
    assert "hush" not in broker.properties + repr(broker)


def test_an_old_java_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java 11 says 11.0.2, Java 8 says 1.8.0: both are named, with what Kafka needs."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    for text, number in [("11.0.2", 11), ("1.8.0_402", 8)]:
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{text}\"' >&2\n")
        with pytest.raises(ServiceError, match=rf"Java {number}, Kafka needs 17"):
            find_java()

    java.write_text("#!/bin/sh\necho 'openjdk version \"17\" 2021-09-14' >&2\n")
    assert find_java() == str(java)


def test_without_java_and_maven_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are said to be missing, with the packages that bring them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(ServiceError, match=r"no java .* apt-get install"):
        find_java()
    with pytest.raises(ServiceError, match=r"no mvn .* apt-get install"):
        fetch(tmp_path)


def services(
    command: str, root: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """python -m infra.native COMMAND, in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "infra.native", command, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_up_without_java_says_so_and_leaves_no_file(tmp_path: Path) -> None:
    """Exit code 3 is a service that cannot be reached; nothing is left that promises one."""
    done = services("up", tmp_path, PATH=str(tmp_path), JAVA_HOME="")

    assert done.returncode == 3
    assert "kafka: not started: no java on the PATH" in done.stderr
    assert "redis: not started: no redis-server on the PATH" in done.stderr
    assert not (tmp_path / ".services.json").exists()


@pytest.mark.kafka
def test_a_real_broker_keeps_gives_back_and_trims_records(tmp_path: Path) -> None:
    """Five records, read back in order after a restart; trimmed before 2, three are left."""
    libs = have(jars)
    kafka = pytest.importorskip("kafka")
    topic = kafka.TopicPartition("records", 0)
    broker = Broker(tmp_path / "kafka", libs, *free_ports(2))
    try:
        address = broker.start().address
        admin = kafka.KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics({"records": {"num_partitions": 1, "replication_factor": 1}})
        producer = kafka.KafkaProducer(bootstrap_servers=address, acks="all")
        for number in range(5):
            producer.send("records", b"%d" % number, partition=0).get(10)
        producer.close()
        admin.close()

        stop(broker.folder)
        broker.start()
        admin = kafka.KafkaAdminClient(bootstrap_servers=address)
        consumer = kafka.KafkaConsumer(bootstrap_servers=address, consumer_timeout_ms=10_000)
        consumer.assign([topic])
        consumer.seek(topic, 0)
        whole = [next(consumer).value for _ in range(5)]
        admin.delete_records({topic: 2})
        consumer.seek_to_beginning(topic)
        left = [next(consumer).value for _ in range(3)]
        ends = (consumer.beginning_offsets([topic])[topic], consumer.end_offsets([topic])[topic])
        consumer.close()
        admin.close()
    finally:
        stop(broker.folder)

    assert whole == [b"0", b"1", b"2", b"3", b"4"]
    assert left == [b"2", b"3", b"4"]
    assert ends == (2, 5)


@pytest.mark.kafka
def test_a_node_starts_from_an_archive_of_its_classes(tmp_path: Path) -> None:
    """Also where the jars are behind a link."""
    libs = have(jars)
    (tmp_path / "libs").symlink_to(libs)
    broker = Broker(tmp_path / "kafka", tmp_path / "libs", *free_ports(2))
    try:
        process = broker.start().pid
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    finally:
        stop(broker.folder)

    assert f"-XX:SharedArchiveFile={archive(libs)}" in words
    assert _of_use(words[0], archive(libs), libs)
    assert not _of_use(words[0], tmp_path / "none.jsa", libs)


@pytest.mark.kafka
def test_an_archive_is_of_these_jars_and_of_this_java(tmp_path: Path) -> None:
    """Of other jars it is another, which is made anew, and the old one goes; half of one, which a
    killed JVM leaves and of which the next would die, is never taken."""
    libs = tmp_path / "libs"
    shutil.copytree(have(jars), libs, copy_function=os.link)
    before = archive(libs)
    before.parent.mkdir()
    half = tmp_path / "half.jsa"
    half.write_bytes(archive(have(jars)).read_bytes()[:1_000_000])
    before.write_bytes(b"of the jars as they were")
    with zipfile.ZipFile(libs / "one.jar", "w") as jar:
        jar.writestr("of.another", "release")
    told: list[str] = []

    for _ in range(2):
        prepare(libs, told.append)

    assert archive(libs) != before
    assert [each.name for each in archive(libs).parent.glob("*.*")] == [archive(libs).name]
    assert len(told) == 1
    assert _of_use(find_java(), archive(libs), libs)
    assert not _of_use(find_java(), half, libs)


@pytest.mark.kafka
def test_a_java_that_makes_no_archive_of_use_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nodes start as before."""
    libs = tmp_path / "libs"
    shutil.copytree(have(jars), libs, copy_function=os.link)
    monkeypatch.setattr("infra.native.kafka._of_use", lambda *words: False)
    told: list[str] = []

    for _ in range(2):
        prepare(libs, told.append)

    assert len(told) == 1
    assert not archive(libs).exists()
    assert [each.suffix for each in archive(libs).parent.glob("*.*")] == [".useless"]


@pytest.mark.kafka
def test_up_and_down_may_be_said_twice(tmp_path: Path) -> None:
    """The second up finds the same process, the second down finds nothing; the file goes.

    A broker without a lock is not taken for a guarded one.
    """
    libs = have(jars)
    (tmp_path / ".native").mkdir()
    (tmp_path / ".native" / "libs").symlink_to(libs)
    try:
        first = services("up", tmp_path)
        told = json.loads((tmp_path / ".services.json").read_text())
        again = services("up", tmp_path)
        status = services("status", tmp_path)
        guarded = services("up", tmp_path, "--users", "north")
    finally:
        last = services("down", tmp_path)

    address, process = told["addresses"]["FEDTWIN_KAFKA"], told["processes"]["kafka"]["pid"]
    assert first.returncode == again.returncode == status.returncode == last.returncode == 0
    assert f"kafka: {address}, process {process}" in first.stdout
    assert again.stdout == first.stdout
    assert guarded.returncode == 3
    assert "it runs without a lock; first: python -m infra.native down" in guarded.stderr
    assert f"kafka: {address}" in status.stdout
    assert "kafka: stopped" in last.stdout
    assert "kafka: was not running" in services("down", tmp_path).stdout
    assert not (tmp_path / ".services.json").exists()


# --- Redis ----------------------------------------------------------------------------------------


@pytest.mark.redis
def test_a_real_redis_server_keeps_what_it_was_given(tmp_path: Path) -> None:
    """A value that was set is there after the server was ended and started again."""
    redis = pytest.importorskip("redis")
    port, folder = free_ports(1)[0], tmp_path / "redis"
    try:
        have(lambda: start_redis(folder, port))
        redis.Redis(HOST, port).set("model", b"\x00\xff")
        stop(folder)
        start_redis(folder, port)
        kept = redis.Redis(HOST, port).get("model")
    finally:
        stop(folder)

    assert kept == b"\x00\xff"
