"""What a federation looks like from outside: folded from what everybody may read.

Messages are put into sets, in whatever order they come; `experiments/view.py` tells what they come
to at a moment. Nothing here reads a clock: whoever hears says when it heard.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from schemas.errors import Refused
from schemas.heldout import HeldOut
from schemas.line import RoundsLine
from schemas.messages import (
    DeadLetter,
    Decision,
    Ended,
    Heartbeat,
    Measured,
    Message,
    RoundClosed,
    RoundOpened,
    TwinDecision,
)
from schemas.topics import Names, parted
from schemas.verdicts import VerdictLines


@dataclass(frozen=True)
class Heard:
    """A message, and how it came to us."""

    topic: str
    offset: int
    message: Message
    hash: str
    now: float
    """When we heard it, in seconds since 1970."""
    at: float | None = None
    """When it was written, by its writer's clock, where the log tells."""
    fresh: bool = False
    """Whether it was written while we looked, and so is as old as we know it."""


@dataclass
class Program:
    """One program of the run, by its heartbeats."""

    beat: Heartbeat
    """The newest."""
    offset: int
    heard: float | None
    """When we last heard of it while we looked."""
    idle_since: float | None = None
    """Since when, by our clock, it has said that nothing is in work, nor waits to be."""
    before: Ended | None = None
    """How the one before it under this name has ended."""

    def last(self) -> float:
        """When it was last known to live: as we heard it, or by its own clock."""
        return self.beat.at if self.heard is None else self.heard


@dataclass(frozen=True)
class Count:
    """What a program has counted last."""

    offset: int
    process: str
    number: int


@dataclass
class Watching:
    """The fold."""

    names: Names
    began: float
    """When we began to look."""
    line: RoundsLine = field(default_factory=RoundsLine)
    verdicts: VerdictLines = field(init=False)
    held_out: HeldOut = field(init=False)
    programs: dict[str, Program] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=dict)
    letters: set[tuple[str, int]] = field(default_factory=set)
    newest_letter: tuple[float, DeadLetter] | None = None
    """And when it was written, or when we heard it."""
    opened_at: dict[int, float] = field(default_factory=dict)
    """Number of a RoundOpened → when it was written, or when we heard it."""
    hearing_since: float | None = None
    """When we could hear again after the broker was away."""

    def __post_init__(self) -> None:
        self.verdicts = VerdictLines(self.line)
        self.held_out = HeldOut(self.line)

    def hear(self, heard: Heard) -> None:
        """Take a message. What does not fit is somebody else's to set aside."""
        match heard.message:
            case Heartbeat() as beat:
                self._beat(beat, heard)
            case Measured(name=name, values=values):
                self.held_out.hear(name, values, heard.offset)
            case DeadLetter() as letter:
                self._letter(letter, heard)
            case TwinDecision() as verdict:
                with suppress(Refused):
                    self.verdicts.hear(heard.topic.rsplit(".", 1)[1], verdict)
            case Decision() as decision:
                with suppress(Refused):
                    if self.line.hear(decision, heard.hash):
                        self._went_on(decision, heard)
        self.verdicts.refused.clear()

    def _went_on(self, decision: Decision, heard: Heard) -> None:
        self.verdicts.again()
        if isinstance(decision, RoundOpened):
            self.opened_at = {decision.number: heard.now if heard.at is None else heard.at}

    def _letter(self, letter: DeadLetter, heard: Heard) -> None:
        self.letters.add((letter.topic, letter.offset))
        at = heard.now if heard.at is None else heard.at
        if self.newest_letter is None or at >= self.newest_letter[0]:
            self.newest_letter = (at, letter)

    def _beat(self, beat: Heartbeat, heard: Heard) -> None:
        known = self.programs.get(beat.process)
        if known is None or heard.offset > known.offset:
            self._newer(beat, heard, known)
        for name, number in beat.counts:
            count = self.counts.get(name)
            if count is None or heard.offset > count.offset:
                self.counts[name] = Count(heard.offset, beat.process, number)

    def _newer(self, beat: Heartbeat, heard: Heard, known: Program | None) -> None:
        now = heard.now if heard.fresh else None
        fresh = Program(beat, heard.offset, now)
        if known is not None:
            ended = known.beat.ended
            fresh.before = ended if ended and ended.code else known.before
            fresh.idle_since = known.idle_since
        if beat.in_work or beat.queued:
            fresh.idle_since = None
        elif fresh.idle_since is None:
            fresh.idle_since = heard.now if heard.fresh else beat.at
        self.programs[beat.process] = fresh

    # --- what was heard ---------------------------------------------------------------------------

    @property
    def sites(self) -> list[str]:
        """Every site whose entities may take part; none before the run is opened."""
        return self.line.opened.all_sites if self.line.opened else []

    @property
    def rounds(self) -> list[RoundClosed]:
        """Rounds that closed."""
        return [each.closed for stage in self.line.stages for each in stage.rounds if each.closed]

    @property
    def entities(self) -> list[str]:
        """Whom the schedule names, and who has been heard of."""
        known = {*self.line.entities, *self.verdicts.of}
        return sorted(known, key=parted)

    def answered(self, opened: RoundOpened) -> list[str]:
        """Participants of the open round that the aggregator has heard, as it says."""
        said = (self.counts.get(f"answered {each.entity}") for each in opened.participants)
        return [
            each.entity
            for each, count in zip(opened.participants, said, strict=True)
            if count is not None and count.number == opened.number
        ]
