"""When the rounds of a live run open and close, and when its stages do (docs/method.md 3.4, 9).

Everything here follows from what was decided and read, but for two things that time decides: that a
round has waited long enough, and that what twins found has been collected for long enough. What
comes of that is written down, so nobody who reads it has to know the time.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import Participant
from schemas.seeds import generator
from schemas.stages import Stage
from schemas.verdicts import VerdictLines

Found = tuple[tuple[str, int], ...]
"""Entities that found new classes, each with the moment of its verdict."""


class Waits(NamedTuple):
    """Nothing is to be decided before something else comes, or time passes."""

    what: str


class OpensStage(NamedTuple):
    """A stage begins with what these have found."""

    found: Found


class ClosesStage(NamedTuple):
    """The stage's rounds are over, for new classes wait."""


class Grows(NamedTuple):
    """The head gets the rows of the stage that has begun."""


class OpensRound(NamedTuple):
    """These train next."""

    participants: tuple[Participant, ...]


class ClosesRound(NamedTuple):
    """The open round ends, without these."""

    missing: tuple[str, ...]


class Stands(NamedTuple):
    """Before anything else it is told how the run stands."""


Step = Stands | Waits | OpensStage | ClosesStage | Grows | OpensRound | ClosesRound


class Live:
    """The course of a live run, as one aggregator sees it."""

    def __init__(self, line: RoundsLine, verdicts: VerdictLines) -> None:
        self._line = line
        self._verdicts = verdicts
        self._now = 0.0
        self._opened: tuple[int, float] = (-1, 0.0)
        """Number of the open round, and when this process first saw it."""
        self._found: float | None = None
        """When this process first saw that somebody had found something new."""

    def tick(self, at: float) -> None:
        """It is so late, in seconds since any moment."""
        self._now = at
        opened = self._line.open_round
        if opened is not None and opened.number != self._opened[0]:
            self._opened = (opened.number, at)
        if not self.found():
            self._found = None
        elif self._found is None:
            self._found = at

    # --- rounds ----------------------------------------------------------------------------------

    def closes(self, missing: list[str]) -> Step:
        """Whether the open round waits for those who have not answered."""
        opened = self._line.open_round
        assert opened is not None
        number, since = self._opened
        if not missing or (
            number == opened.number and self._now >= since + self._configuration.deadline
        ):
            return ClosesRound(tuple(sorted(missing)))
        return Waits(f"updates of round {opened.stage}.{opened.round} by {', '.join(missing[:3])}")

    def opens(self, stage: Stage) -> Step:
        """The next round of a stage that has begun, or what takes its place."""
        ready, quorum = self.ready(), self._configuration.quorum
        grows = self.found() and self._collected
        if grows and (len(ready) < quorum or stage.first):
            return ClosesStage()
        if len(ready) < quorum:
            return Waits(f"a quorum of {quorum} twins; {len(ready)} are ready")
        if self._since_news(stage, ready) >= self._configuration.rounds_per_stage:
            return Waits("new images")
        return OpensRound(self._drawn(ready, stage))

    def ready(self) -> list[str]:
        """Who can train now: here, not paused, not missed since it last spoke, with something."""
        return [
            entity
            for entity, line in sorted(self._verdicts.of.items())
            if line.here
            and entity not in self._line.resting
            and self._line.taken_up(entity)
            and (last := line.verdicts.get(line.judged)) is not None
            and last.trainable
            and not self._line.away(entity, last.after or 0)
        ]

    def _since_news(self, stage: Stage, ready: list[str]) -> int:
        """How many rounds of the stage began behind what its twins last judged.

        An operator who goes back begins none: the model that was wanted stays until images come.
        """
        news = (self._verdicts.of[entity].news for entity in ready)
        return min(map(self._line.rounds_behind, news), default=stage.size)

    def _drawn(self, ready: list[str], stage: Stage) -> tuple[Participant, ...]:
        configuration = self._configuration
        chance = generator(configuration.seed, "sampling", stage=stage.index, round=stage.size)
        most = max(configuration.clients_per_round, configuration.quorum)
        drawn = sorted(ready[i] for i in chance.permutation(len(ready))[:most])
        return tuple(map(self._part, drawn))

    def _part(self, entity: str) -> Participant:
        line = self._verdicts.line(entity)
        last = line.verdicts[line.judged]
        by_samples = self._configuration.agg_weight == "samples"
        weight = max(1, last.trainable) if by_samples else 1
        return Participant(entity=entity, weight=weight, position=last.position)

    # --- stages ----------------------------------------------------------------------------------

    def begins(self) -> Step:
        """The next stage, once the one before is closed and its teacher chosen."""
        found, quorum = self.found(), self._configuration.quorum
        if not found:
            return Waits("somebody to find a new class")
        if not self._collected:
            return Waits("others to find new classes as well")
        could = {*self.ready(), *(entity for entity, _ in found)}
        if len(could) < quorum:
            return Waits(f"a quorum of {quorum} twins; {len(could)} could train")
        return OpensStage(found)

    def found(self) -> Found:
        """Verdicts with new classes that no stage has taken up yet."""
        return tuple(
            (entity, line.pending)
            for entity, line in sorted(self._verdicts.of.items())
            if line.here and entity not in self._line.resting and line.pending is not None
        )

    @property
    def _collected(self) -> bool:
        """Whether others have had the time to find something as well."""
        window = self._configuration.growth_window
        return self._found is not None and self._now >= self._found + window

    @property
    def _configuration(self) -> Configuration:
        assert self._line.opened is not None
        return self._line.opened.configuration
