"""What the aggregator's memory depends on: the model, and not how many twins answer.

    python benchmarks/aggregator_memory.py [--twins 64] [--few 4] [--width 64] [--json]

Starts `python -m aggregator` for a run over Kafka and writes what its twins would: verdicts, then
an update of each (ResNet-18, width 64: 45 MB). One after the other, or all at once: then a piece of
each stands before the second piece of any. When the round is closed, the aggregator's peak (VmHWM)
is read. With many twins it is to be at most 1.2 times that with few, in either order.
It needs a broker: `make up`, or FEDTWIN_KAFKA.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from federation import SITE, dataset, load, memory, recipe, run
from federation import Run as Measured

from infra.shelf import Shelf
from infra.transport.base import Transport
from infra.transport.kafka import Kafka
from schemas.codec import HASH_BYTES, HEAD, Record, pack, piece, record_headers, records, unpack
from schemas.limits import LEAST_BYTES, largest_message
from schemas.line import RoundsLine
from schemas.messages import (
    Decision,
    EntityJoined,
    Message,
    ModelUpdate,
    RoundClosed,
    RoundOpened,
    Tensors,
    WindowJudged,
)
from schemas.topics import Names

MOST = 1.2
BATCH = 16  # records that are written at once


def main() -> None:
    """Measure and print, or one JSON object with `--json`; ends with 1 above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--twins", type=int, default=64)
    parser.add_argument("--few", type=int, default=4, help="the twins to compare with")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18; 64 is 45 MB")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for together in (False, True):
        for twins in (given.few, given.twins):
            peak, seconds = measure(twins, given.width, together=together)
            found.append(
                {"twins": twins, "together": together, "megabytes": peak, "seconds": seconds}
            )
            if not given.json:
                how = "all at once" if together else "one by one"
                print(f"{twins:4} twins, {how}: {peak:7.1f} MB at most; round {seconds:6.1f} s")
    peaks = [each["megabytes"] for each in found]
    ratios = {"one by one": peaks[1] / peaks[0], "all at once": peaks[3] / peaks[2]}
    if given.json:
        print(json.dumps({"schema": 1, "found": found, "ratios": ratios}))
    else:
        told = ", ".join(f"{how} {ratio:.2f}" for how, ratio in ratios.items())
        print(f"ratios: {told}; to be at most {MOST}  ({load()})")
    sys.exit(max(ratios.values()) > MOST)


def measure(twins: int, width: int, *, together: bool) -> tuple[float, float]:
    """The aggregator's peak in megabytes, and the seconds from RoundOpened to RoundClosed."""
    configuration = recipe(twins, width=width)
    with run(configuration, dataset()) as federation:
        federation.make_topics()
        program = federation.start_aggregator()
        most = largest_message(configuration, federation.opening.data)
        with closing(Kafka(federation.settings)) as log:
            site = FakeSite(federation, log, most)
            site.judge()
            opened = site.round_opened()
            began = time.monotonic()
            site.answer(opened, together=together)
            federation.until(lambda: site.closed(opened))
            return memory(program.pid), time.monotonic() - began


class FakeSite:
    """Writes what the twins of a site would, and reads what is decided."""

    def __init__(self, federation: Measured, log: Transport, most: int) -> None:
        self._federation = federation
        self._names: Names = federation.names
        self._log = log
        self._shelf = Shelf(log, self._names.federation("models"), most)
        self.line = RoundsLine()
        self._place = 0
        self._contents: dict[int, bytes] = {}

    def judge(self) -> None:
        """Each entity joins and finds every class new."""
        self._federation.until(lambda: self._read() and self.line.opened is not None)
        opened = self.line.opened
        assert opened is not None
        for entity in self._federation.entities:
            judged = WindowJudged(
                run=self.line.run,
                number=1,
                entity=entity,
                stage=0,
                position=8,
                model=opened.model,
                images=dict.fromkeys(opened.data.classes, 1),
                trainable=8,
                entropy=None,
                reference=None,
                threshold=1.2,
                first_contact=True,
                reason=None,
                verdict="new",
                classes=tuple(sorted(opened.data.classes)),
            )
            self._say("classes", EntityJoined(run=self.line.run, number=0, entity=entity), judged)

    def round_opened(self) -> RoundOpened:
        """The first round, as soon as it is open."""
        self._federation.until(lambda: self._read() and self.line.open_round is not None)
        assert self.line.open_round is not None
        return self.line.open_round

    def answer(self, opened: RoundOpened, *, together: bool) -> None:
        """An update of every participant: the base itself."""
        base = self._shelf.model(opened.base)
        letters = [self._letter(part.entity, opened, base) for part in opened.participants]
        count = len(letters[0].heads)
        if together:
            order = ((each, index) for index in range(count) for each in letters)
        else:
            order = ((each, index) for each in letters for index in range(count))
        made: Iterator[Record] = (each.record(index) for each, index in order)
        topic = self._names.of_site("updates", SITE)
        while batch := list(islice(made, BATCH)):
            self._log.append(topic, batch)

    def closed(self, opened: RoundOpened) -> bool:
        """Whether the round is closed with every update counted."""
        self._read()
        for each in self.line.decisions.values():
            if isinstance(each, RoundClosed) and each.opened == opened.number:
                if len(each.counted) != len(opened.participants):
                    raise RuntimeError(f"only {len(each.counted)} updates were counted")
                return True
        return False

    def _letter(self, entity: str, opened: RoundOpened, base: Tensors) -> Letter:
        update = ModelUpdate(
            run=self.line.run,
            opened=opened.number,
            entity=entity,
            base=opened.base,
            measured={"samples": 1.0},
            groups={"model": base},
        )
        return Letter(update, self._contents)

    def _say(self, topic: str, *messages: Message) -> None:
        for each in messages:
            self._log.append(self._names.of_site(topic, SITE), records(each, source="twins")[1])

    def _read(self) -> bool:
        topic = self._names.federation("rounds")
        for stored in self._log.read(topic, self._place, LEAST_BYTES):
            self._place = stored.offset + 1
            part = piece(stored.record.value, LEAST_BYTES)
            message = unpack(part.content, LEAST_BYTES)
            if isinstance(message, Decision):
                self.line.hear(message, part.message)
        self._log.wait(0.02)
        return True


class Letter:
    """An update as records. All hold the same tensors, which are kept once for all of them."""

    def __init__(self, update: ModelUpdate, contents: dict[int, bytes]) -> None:
        packed = pack(update)
        start = HEAD.size + HASH_BYTES * len(packed.pieces)
        self.heads = [value[:start] for value in packed.pieces]
        self._first = packed.pieces[0][start:]
        self._contents = contents
        for index, value in enumerate(packed.pieces[1:], start=1):
            if contents.setdefault(index, value[start:]) != value[start:]:
                raise RuntimeError("updates that should differ in their first piece only do not")
        self._headers = [
            record_headers(update, packed, index, "twins") for index in range(len(self.heads))
        ]
        self._stem = update.identity

    def record(self, index: int) -> Record:
        """One of its pieces."""
        content = self._contents[index] if index else self._first
        return Record(f"{self._stem}/{index}", self.heads[index] + content, self._headers[index])


if __name__ == "__main__":
    main()
