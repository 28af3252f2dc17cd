"""Programs of a live federation that begin at a Standing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from aggregator import standing
from experiments.replay import Replay
from infra.kafka import KafkaSettings
from infra.settings import read_settings
from infra.topics import make_topics
from infra.transport.base import Transport
from infra.transport.clusters import connect
from schemas.line import RoundsLine
from schemas.messages import Decision
from schemas.topics import Names
from tests.distributed.federation import messages
from tests.flows.alive import ALL, EAST, NAMES, SITES, Alive, lively
from tests.services import ROOT, have, kafka_address, new_run, swept

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
MINUTES = 2.0


def lived() -> Alive:
    """A live run that has told three times and more how it stands, and rests."""
    run = Alive(lively(keep_samples=True, keep_rounds="all"))
    run.settle()
    for entity in ALL:
        run.stream(entity, "012")
    run.after(11)
    for _ in range(3):
        run.stream(EAST, "012")
        run.after(1)
    return run


def copied(run: Alive, log: Transport, names: Names) -> None:
    """What lies in its topics lies in those of another name; of streams at the same offsets."""
    for topic in run.log.topics():
        there = topic.replace(f".{NAMES.run}.", f".{names.run}.", 1)
        log.append(
            there, [each.record for each in run.log.read(topic, run.log.first(topic), 2**40)]
        )


def line(log: Transport, names: Names) -> RoundsLine:
    """The decisions, as a newcomer reads them."""
    read = RoundsLine()
    for message, hash in messages(log, names.federation("rounds")):
        assert isinstance(message, Decision)
        read.hear(message, hash)
    return read


def test_programs_that_begin_at_a_standing_go_on_with_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aggregator and the twins of two sites are started on a log of others, and each says where
    it begins. Images come, and rounds follow; of the whole log a replay makes the same."""
    kafka, names = KafkaSettings(have(kafka_address)), Names(new_run())
    monkeypatch.setattr(standing, "EVERY", 5)
    run = lived()
    before = run.line
    for entity in ALL:
        run.stream(entity, "012")  # nobody has read that
    monkeypatch.setenv("FEDTWIN_KAFKA", kafka.servers)
    monkeypatch.setenv("FEDTWIN_RUN", names.run)
    programs = []
    try:
        for cluster in ("federation", "site"):
            make_topics(kafka, names, cluster, SITES, ALL)
        with closing(connect(read_settings(), site=True)) as log:
            copied(run, log, names)
            words = [["aggregator"], *(["twins", "--site", site] for site in SITES)]
            said = [tmp_path / f"{number}.txt" for number in range(len(words))]
            for each, file in zip(words, said, strict=True):
                program = subprocess.Popen(
                    [sys.executable, "-m", *each], cwd=ROOT, stderr=file.open("w"),
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )  # fmt: skip
                programs.append(program)
            until = time.monotonic() + 60 * MINUTES
            while (now := line(log, names)).closed_rounds < before.closed_rounds + 3:
                assert time.monotonic() < until
                assert all(program.poll() is None for program in programs)
                time.sleep(0.5)
            for program in programs:
                program.terminate()
                program.wait(10)
            replayed = Replay(log, names).fold()
    finally:
        for program in programs:
            program.kill()
            program.wait()
        swept(kafka, names)

    assert before.standing is not None
    assert all("begins at decision" in file.read_text() for file in said)
    assert {n: now.decisions[n] for n in before.decisions} == before.decisions
    assert replayed.different == []
