"""What a program knows of itself, for those who look from outside it: is it well, and if not, why?

The loop tells it here, and others read it from other threads: each value is replaced as a whole and
never changed in place. Roles know nothing of it.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from infra.others import Lost, Others
from infra.promises import Arrived, Start
from infra.telemetry import Tally
from infra.transport.base import Remote, Transport
from schemas.errors import Refused
from schemas.heldout import Accuracy, HeldOut, Loss
from schemas.line import RoundsLine
from schemas.messages import Decision, Heartbeat, Measured, RoundClosed, RoundOpened

HEARS = ("aggregator", "proxy")
"""Roles whose programs tell of others that are lost: every run has them, and few of them."""
WELL = 10.0  # seconds in which the loop of a program that is well has told of itself
WAITS: tuple[tuple[str, str], ...] = (
    ("RunOpened", "run"),
    ("updates of ", "updates"),
    ("verdicts? (of|on) ", "verdicts"),
    ("prototypes of ", "prototypes"),
    ("the teacher |the slots ", "teacher"),
    ("a quorum ", "quorum"),
    ("new images|images? .*stream|the images of ", "images"),
    ("the mark ", "mark"),
    ("room for ", "room"),
    ("find (a )?new class", "classes"),
    ("end the pause", "pause"),
    ("StageClosed", "stage"),
    ("to read it back|EntityJoined|its StrategyKept", "own"),
    ("of the model, which", "model"),
    ("where to go on", "place"),
    ("an injection", "injection"),
    ("a later program", "version"),
)
"""Words of what is waited for → its kind; the first that fits. All else is `other`."""
ROUNDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds of a round, by which its duration is sorted."""


class Failure(NamedTuple):
    """A part that does not do its work."""

    part: str
    cause: str
    """In few words, without what changes from second to second."""
    seconds: float
    """How long it has been so."""


class Health(NamedTuple):
    """Whether a program is well, in one line."""

    well: bool
    text: str


def kind_of(wait: str) -> str:
    """What sort of thing is waited for: one of few, whatever entities and numbers are named."""
    return next((kind for words, kind in WAITS if re.search(words, wait)), "other")


@dataclass(frozen=True)
class Course:
    """How far the run is, as decisions tell."""

    stage: int = 0
    stages: int = 0
    """That have begun."""
    version: int = 0
    classes: int = 0
    """With a row in the head."""
    grown: int = 0
    """Decisions by which it grew."""
    opened_at: float | None = None
    """When the open round was heard of."""
    missed: int = 0
    """Answers that closed rounds did without."""
    rounds: tuple[int, ...] = (0,) * (len(ROUNDS) + 1)
    """Rounds that were seen to open and close, by how long they took."""
    seconds: float = 0.0
    """Of those together."""
    closed: int = 0
    """All that have closed."""


@dataclass
class Vitals:
    """Of one program."""

    run: str
    role: str
    process: str
    transport: Transport
    clock: Callable[[], float] = time.monotonic
    tally: Tally = field(default_factory=Tally)
    beat: Heartbeat | None = None
    """As it was told last."""
    counts: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)
    """Kind → the longest wait of it, in seconds."""
    in_work: Mapping[str, int] = field(default_factory=dict)
    """Kind of task → how many the workers do."""
    free: int = 0
    """How many more they could."""
    course: Course = field(default_factory=Course)
    accuracy: Accuracy | None = None
    """Held out at the sites: of the newest model that most of the twins have scored."""
    loss: Loss | None = None
    """What that model has lost against the best before it, where that is more than `alarm_points`;
    looked at whenever a heartbeat is told."""
    others: Others = field(init=False)
    """As they are heard."""
    _beaten: float = field(init=False)
    _line: RoundsLine = field(default_factory=lambda: RoundsLine(whole=False))
    _held_out: HeldOut = field(init=False)
    _weighed: bool = True
    """Whether nothing was measured since."""

    def __post_init__(self) -> None:
        self._beaten = self.clock()
        self.others = Others(self.process)
        self._held_out = HeldOut(self._line)

    # --- told by the loop -------------------------------------------------------------------------

    def tell(
        self,
        beat: Heartbeat,
        counts: Mapping[str, int],
        waits: Mapping[str, float],
        free: int,
    ) -> None:
        """A heartbeat was written; `waits` are all, in words, with their seconds."""
        self.beat, self.counts, self.free = beat, counts, free
        longest: dict[str, float] = {}
        for what, seconds in waits.items():
            kind = kind_of(what)
            longest[kind] = max(seconds, longest.get(kind, 0.0))
        self.waits = longest
        self.in_work = Counter(each.partition(" ")[0] for each in beat.in_work)
        self._beaten = self.clock()
        self._weigh()

    def begin(self, start: Start) -> None:
        """Its role begins at a Standing."""
        self._line.begin(start.opened, start.run, start.standing, start.hash)
        self.course = replace(self.course, closed=start.standing.rounds)

    def overhear(self, arrived: Arrived) -> None:
        """A role took this in."""
        message = arrived.message
        if isinstance(message, Decision) and message.line == "rounds":
            with suppress(Refused):
                if self._line.hear(message, arrived.hash):
                    self._went_on(message)

    def measured(self, message: Measured, offset: int) -> None:
        """This lies in `metrics`."""
        if self._held_out.hear(message.name, message.values, offset):
            self._weighed = False

    def _weigh(self) -> None:
        """See how good the newest model is."""
        if not self._weighed:
            self._weighed = True
            self.accuracy = self._held_out.newest()
            self.loss = self._held_out.loss(self.accuracy.version) if self.accuracy else None

    def _went_on(self, decision: Decision) -> None:
        self._weighed = False
        before, line = self.course, self._line
        rounds, seconds, missed = before.rounds, before.seconds, before.missed
        opened_at, closed = before.opened_at, before.closed
        if isinstance(decision, RoundOpened):
            opened_at = self.clock()
        if isinstance(decision, RoundClosed):
            closed += 1
            missed += len(decision.missing)
            if self.beat is not None and opened_at is not None:  # else it was read, not seen
                took = self.clock() - opened_at
                at = bisect_left(ROUNDS, took)
                rounds = (*rounds[:at], rounds[at] + 1, *rounds[at + 1 :])
                seconds += took
        if line.open_round is None:
            opened_at = None
        self.course = Course(
            stage=line.stage.index if line.stage else 0,
            stages=len(line.stages),
            version=line.model.version if line.model else 0,
            classes=len(line.rows),
            grown=len({*line.stage_of_row}),
            opened_at=opened_at,
            missed=missed,
            rounds=rounds,
            seconds=seconds,
            closed=closed,
        )

    # --- asked by others --------------------------------------------------------------------------

    @property
    def age(self) -> float:
        """Seconds since its last heartbeat, or since it began."""
        return self.clock() - self._beaten

    @property
    def broker_away(self) -> Failure | None:
        """The broker, while it does not answer."""
        away = self.transport.away if isinstance(self.transport, Remote) else None
        if away is None:
            return None
        return Failure(away.what, away.why, self.clock() - away.since)

    def failures(self) -> Iterator[Failure]:
        """What does not do its work, the first cause first."""
        broker = self.broker_away
        if broker:
            yield broker
        beat = self.beat
        for away in beat.away if beat else ():
            yield Failure(away.service, away.why, away.seconds + self.age)
        if beat is not None and not broker and self.age > WELL:
            yield Failure("loop", "it stands, and no service is away that it knows of", self.age)

    def lost(self) -> list[Lost]:
        """Other programs that are gone, the first cause first, as this one hears.

        Without the broker nobody can be heard, so nobody is called lost.
        """
        hears = self.role in HEARS and self.broker_away is None
        return self.others.lost(self.clock()) if hears else []

    def health(self) -> Health:
        """Whether its loop turns; and what it does, or why not."""
        failures = list(self.failures())
        causes = "; ".join(f"{f.part} since {f.seconds:.0f} s: {f.cause}" for f in failures)
        if self.beat is None:
            return Health(not failures, causes or "waits for the run to be opened")
        if self.age > WELL:
            return Health(False, f"no heartbeat since {self.age:.0f} s: {causes}")
        doing = ", ".join(f"{count} {kind}" for kind, count in sorted(self.in_work.items()))
        return Health(True, "; ".join(each for each in (causes, doing) if each) or "nothing to do")
