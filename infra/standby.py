"""Whether a program stands by: while another of its role lives whose name comes before its own.

It goes by heartbeats, which every side may write, and nothing's correctness hangs on it: two that
both lead write the same decisions, of which one counts. One that stands by in vain is late by what
a standby waits, and no more: how long that is, turn.py says, by the line alone.
"""

from __future__ import annotations

import math

from infra.pulse import BEAT, LIVES
from infra.serve import READ_BYTES, Surroundings
from infra.transport.base import Trimmed
from schemas.codec import piece, unpack
from schemas.errors import Refused
from schemas.limits import LEAST_BYTES
from schemas.messages import Heartbeat
from schemas.topics import Names

HEARD = 2 * BEAT  # seconds in which whoever lives is heard of


class Standby:
    """Has a program of a role stand by, or lead, as long as it is looked after."""

    def __init__(
        self,
        around: Surroundings,
        names: Names,
        *,
        role: str,
        process: str,
        after: float,
        alone: bool,
    ) -> None:
        """`after` is what a standby waits, in seconds. `alone`, whether nobody can be there yet;
        otherwise it stands by until it would have heard of them."""
        self._around = around
        self._topic = names.federation("metrics")
        self._role, self._process, self._after = role, process, after
        self._place = around.transport.end(self._topic)
        self._due = 0.0
        self._senior = -math.inf if alone else around.clock() + HEARD - LIVES
        """When somebody who comes before us was last heard of."""
        self.look()

    def look(self) -> None:
        """Hear who lives, if it is time to, and stand by or lead."""
        now = self._around.clock()
        if now < self._due:
            return
        self._due = now + BEAT / 2
        if self._hears_of_a_senior():
            self._senior = now
        self._around.standby_after = self._after if now < self._senior + LIVES else 0.0

    def _hears_of_a_senior(self) -> bool:
        heard = False
        while self._place < self._around.transport.end(self._topic):
            try:
                found = self._around.transport.read(self._topic, self._place, READ_BYTES)
            except Trimmed as trimmed:
                self._place = trimmed.first
                continue
            for stored in found:
                self._place = stored.offset + 1
                try:
                    part = piece(stored.record.value, LEAST_BYTES)
                    said = unpack(part.content, LEAST_BYTES)
                except Refused:
                    continue  # of several pieces, or no message at all: no heartbeat
                if isinstance(said, Heartbeat) and said.role == self._role:
                    heard |= said.process < self._process
        return heard
