"""The line `teachers`: which old model teaches in each stage, or in each round."""

from __future__ import annotations

from collections.abc import Callable

from schemas.errors import Refused
from schemas.line import NotYet, Rejected, RoundsLine
from schemas.messages import Decision, Standing, TeacherChosen
from schemas.turns import Turns


class TeachersLine:
    """The line `teachers`: one choice for each stage from the second on, or for each round."""

    def __init__(self, rounds: RoundsLine) -> None:
        self._rounds = rounds
        self._turns = Turns(self._take)
        self.chosen: list[TeacherChosen] = []
        """Of those that a Standing tells of only the teacher, unless the line `rounds` is whole."""
        self._standing: Standing | None = None
        """The one that it stands by."""
        self.refused: Rejected = []

    def of(self, stage: int) -> TeacherChosen | None:
        """The choice for a stage, or for its first round, if it was read."""
        return self.at(stage, 0)

    def at(self, stage: int, round: int) -> TeacherChosen | None:
        """The choice that counts in a round, if it was read."""
        number = (stage - 1) * self._each + round % self._each
        return self.chosen[number] if stage >= 1 and number < len(self.chosen) else None

    def place(self, number: int) -> tuple[int, int]:
        """Stage and round that a choice of this number is for."""
        return 1 + number // self._each, number % self._each

    @property
    def _each(self) -> int:
        """Choices for each stage."""
        opened = self._rounds.opened
        slotted = opened is not None and opened.configuration.slotted
        return opened.configuration.rounds_per_stage if opened and slotted else 1

    def hear(self, chosen: TeacherChosen, where: object = None) -> None:
        """Take the choice in its turn. What is not valid is found in `refused`."""
        self._turns.add(chosen, where, self.refused)

    def again(self) -> None:
        """Look once more at what had to wait, after `rounds` went on."""
        if self._rounds.standing is not self._standing and not self._rounds.whole:
            self._stand(self._rounds.standing)
        self._turns.settle(self.refused)

    def _stand(self, standing: Standing | None) -> None:
        """What a Standing tells was chosen, whether it was read or not."""
        self._standing = standing
        told = standing.teachers if standing else ()
        self.chosen[: len(told)] = [
            TeacherChosen(
                run=self._rounds.run,
                number=number,
                stage=number + 1,
                teacher=teacher,
                scores=(),
                used=(),
                withheld=(),
            )
            for number, teacher in enumerate(told)
        ]

    def _take(self, decision: Decision) -> None:
        if not isinstance(decision, TeacherChosen):
            raise Refused("out-of-line", f"{decision.kind()} cannot stand here")
        if self._rounds.opened is None:
            raise NotYet(lambda: self._rounds.opened is not None, "RunOpened")
        if decision.number != len(self.chosen):
            return
        stage, round = decision.stage, decision.round
        other = (stage, round) != self.place(decision.number)
        if other or decision.run != self._rounds.run:
            raise Refused("out-of-line", f"{decision.identity} is for stage {stage}, round {round}")
        if round:
            self._after(lambda: self._rounds.closed_round(stage, round - 1), f"round {round - 1}")
        else:
            self._after(lambda: self._rounds.closed(stage - 1), f"StageClosed({stage - 1})")
        if self._rounds.opened.configuration.slotted:
            self._fit_slots(decision)
        else:
            self._fit(decision)
        self.chosen.append(decision)

    @staticmethod
    def _after(read: Callable[[], Decision | None], what: str) -> None:
        if read() is None:
            raise NotYet(lambda: read() is not None, what)

    def _fit(self, decision: TeacherChosen) -> None:
        before = self._rounds.closed(decision.stage - 1)
        if before is None or decision.teacher not in (*before.candidates, before.last):
            raise Refused("out-of-line", f"{decision.identity} names no model of the stage before")
        if decision.slots is not None:
            raise Refused("out-of-line", f"{decision.identity} names slots, and the run has none")

    def _fit_slots(self, decision: TeacherChosen) -> None:
        """Both slots are models that closed a round before this one."""
        end = (decision.stage, decision.round)
        known = {
            each.closed.model
            for stage in self._rounds.stages
            for each in stage.rounds
            if each.closed and (each.closed.stage, each.closed.round) < end
        }
        first, second = decision.slots or (None, None)
        if not {first, second} <= known | {None} or decision.teacher != (second or first):
            raise Refused("out-of-line", f"{decision.identity} names no models of rounds before")
