"""Whether it is a role's turn to answer, where another program of its kind may be the first.

Who stands by leaves the other its time, and no more: so much from the moment on at which the next
decision could be taken, whatever comes meanwhile. Whose decision was the newest that counted has no
reason to leave anybody time. Both follow from the line, in which only programs of its kind and
operators write; what others say cannot keep a run from going on (docs/decisions/0029).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from infra.promises import Deciding, Place, Role
from schemas.messages import Decision, Message


class Turn:
    """Of one role, as it hears and says."""

    def __init__(self, role: Role) -> None:
        self._deciding = role if isinstance(role, Deciding) else None
        self._heard_at = -math.inf
        """When it last read anything."""
        self._newest = -1
        """Number of the newest decision in its line."""
        self._could_at: float | None = None
        """When the next was first seen to rest on nothing that is missing."""
        self._wrote: Place | None = None
        """Where the newest decision lies that it wrote."""
        self._goes_on = False
        """Whether the newest decision in its line is that one."""

    def heard(self, now: float) -> None:
        """Something was read."""
        self._heard_at = now

    def wrote(self, message: Message, topic: str, offsets: Sequence[int]) -> None:
        """Its role has said this, and there it lies."""
        if isinstance(message, Decision):
            self._wrote = Place(topic, tuple(offsets))

    def took_in(self, place: Place) -> None:
        """Its role has taken in the message that lies there: its line may have gone on by it."""
        self._look(by_own=place == self._wrote)

    def has_come(self, now: float, after: float) -> bool:
        """Whether it may answer, if it is to leave others so many seconds; 0 for whoever leads.

        What is no decision waits until nothing was heard for as long.
        """
        self._look(by_own=False)
        if not after:
            return True
        if self._deciding is None or not self._deciding.can_decide:
            return now >= self._heard_at + after
        if self._could_at is None:
            self._could_at = now
        return self._goes_on or now >= self._could_at + after

    def _look(self, *, by_own: bool) -> None:
        if self._deciding is not None and self._deciding.decided != self._newest:
            self._newest, self._could_at = self._deciding.decided, None
            self._goes_on = by_own
