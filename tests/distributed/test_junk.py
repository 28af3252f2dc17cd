"""A foreign client writes into every topic of a run: nobody crashes, nothing of it is accepted."""

from __future__ import annotations

import random
import struct
from contextlib import closing

import pytest

from infra.kafka import KafkaSettings
from infra.transport.base import Trimmed
from infra.transport.kafka import Kafka
from schemas.codec import HASH_BYTES, HEAD, MAGIC, Record
from schemas.topics import table_row
from tests.distributed.conftest import Found
from tests.distributed.federation import PATIENCE, Federation, ended_as_undisturbed
from tests.flows.junk import REPORTED, Littered

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
THREE_GB = 3 * 1024**3
KIB = 1024


def foreign() -> list[Record]:
    """What is no message at all: nothing, noise, text, a length of 3 GB, a hash that is none."""
    chance = random.Random(5)
    claims = HEAD.pack(MAGIC, 0, THREE_GB // (960 * KIB), b"\x07" * HASH_BYTES)
    values = [b"", chance.randbytes(3000), b'{"accuracy": 100}', claims, claims + bytes(HASH_BYTES)]
    values.append(HEAD.pack(MAGIC, 0, 1, b"\x00" * HASH_BYTES) + bytes(HASH_BYTES) + b"content")
    values.append(struct.pack("<Q", 2**63))
    return [Record(f"junk/{number}", value) for number, value in enumerate(values)]


class Stranger:
    """Reads what is written, and strews what looks like it."""

    def __init__(self, log: Kafka, run: Federation, seed: int) -> None:
        self._log = log
        self._prefix = f"{run.names.prefix}.{run.names.run}."
        self.junk = Littered(log, random.Random(seed))
        self.noise: set[tuple[str, int]] = set()
        """Where what is no message at all lies, and somebody has to say so."""
        self._chance = random.Random(seed + 1)
        self._places: dict[str, int] = {}

    def begin(self, run: Federation) -> None:
        """Write into every topic of the run, before anybody else does."""
        with closing(Kafka(KafkaSettings(run.kafka))) as log:
            for topic in self._topics(run):
                for record in foreign():
                    place = (topic, log.append(topic, [record]))
                    self.junk.junk.add(place)
                    if table_row(topic).name in REPORTED:
                        self.noise.add(place)

    def look(self, run: Federation) -> None:
        """Read on in every topic, and answer some of the records with junk."""
        for topic in self._topics(run):
            for record in self._new(topic):
                if self._chance.random() < 0.2:
                    self.junk._strew(topic, record)

    def _topics(self, run: Federation) -> list[str]:
        return [name for name in run.topics() if table_row(name).name in REPORTED | {"models"}]

    def _new(self, topic: str) -> list[Record]:
        try:
            found = self._log.read(topic, self._places.get(topic, 0), 2**20)
        except Trimmed as trimmed:
            self._places[topic] = trimmed.first
            return []
        if found:
            self._places[topic] = found[-1].offset + 1
        return [each.record for each in found if (topic, each.offset) not in self.junk.junk]


def test_a_stranger_writes_into_every_topic(found: Found) -> None:
    """Noise before the run begins, and while it goes on copies of what was said with another
    content, under honest ids and with right hashes: the undisturbed model, a letter about each
    piece of noise and about junk alone, and every program still the one that was started."""
    run = found()
    with closing(Kafka(KafkaSettings(run.kafka))) as log:
        stranger = Stranger(log, run, seed=11)
        stranger.begin(run)
        run.start_all()

        def over() -> bool:
            stranger.look(run)
            return all(program.code is not None for program in run.programs.values())

        run.until(over, PATIENCE)
        run.finish()

    assert not any(program.ends for program in run.programs.values())
    ended_as_undisturbed(run)
    letters = run.letters()
    about = {(letter.topic, letter.offset) for letter in letters}
    assert about <= stranger.junk.junk
    assert stranger.noise <= about
    assert len(about) == len(letters)
    reasons = {letter.reason for letter in letters}
    assert {"unreadable", "bad-hash", "too-large"} < reasons  # which others, the moment decides
