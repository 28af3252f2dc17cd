"""How a twin takes part in a round: it trains on what it has, and answers (docs/method.md 5).

Every participant answers: with an update, checked as its reader will, or with the form without
content and why. What belongs to the update, prototypes and what the strategy would keep, is in the
log before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.promises import Answer, Do, Library, Result, Say, Task
from schemas.messages import Groups, ModelUpdate, RoundOpened, TwinState
from schemas.updates import NOTHING_TO_TRAIN_ON
from twins.knowledge import Knowledge
from twins.prototypes import round_places, round_prototypes
from twins.slots import compared, slots


class Training:
    """From an open round to an answer."""

    __slots__ = ("_begun", "_knows", "_said")

    def __init__(self, knows: Knowledge) -> None:
        self._knows = knows
        self._begun = -1
        """The number of the last RoundOpened whose training began in this process."""
        self._said = -1
        """The number of the last RoundOpened that it answered."""

    def answers(self) -> Iterator[Answer]:
        """Train for the round that is open, if it asks this twin and has no answer yet."""
        knows, opened = self._knows, self._knows.shared.line.open_round
        part = knows.shared.participants.get(knows.entity)
        if opened is None or part is None or opened.number <= self._begun:
            return
        if not self._asked(opened):
            return
        self._begun = opened.number
        if knows.training_images(part.position):
            yield Do(
                ("learn", knows.entity, opened.number),
                lambda library: self._task(library, opened, part.position),
                wanted=lambda: self._asked(opened),
            )
        else:
            self._said = opened.number
            nothing = [(None, "no image of this class is left")] * len(round_places(knows))
            yield from round_prototypes(knows, opened, nothing, {})
            yield self._withhold(opened, NOTHING_TO_TRAIN_ON)

    def again(self, number: int) -> None:
        """This training came to nothing, and begins again if it is still asked for."""
        if self._begun == number:
            self._begun = -1

    def waits(self) -> Iterator[str]:
        """Its answer to the open round, once it was said."""
        opened = self._knows.shared.line.open_round
        if opened is not None and self._said == opened.number and self._asked(opened):
            yield f"its answer to round {opened.stage}.{opened.round}, to read it back"

    def _asked(self, opened: RoundOpened) -> bool:
        """Whether the round is open and no valid answer of this twin is in the log."""
        shared = self._knows.shared
        return shared.line.open_round is opened and self._knows.entity not in shared.answered

    def _task(self, library: Library, opened: RoundOpened, up_to: int) -> Task:
        knows, shared, state = self._knows, self._knows.shared, self._knows.diary.state
        assert state is not None
        images, rows = knows.training_images(up_to), shared.line.rows
        begins = state.stage == opened.stage
        values = {
            "entity": knows.entity,
            "stage": opened.stage,
            "round": opened.round,
            "learning_rate": opened.learning_rate,
            "rows": [rows[image.label] for image in images],
            "stage_of_row": shared.line.stage_of_row,
            "old_classes": len(state.learned) + (0 if begins else len(state.current)),
            "new_classes": len(state.current) if begins else 0,
            "total_weight": opened.total_weight,
            "image_steps": shared.image_steps(opened),
            "places": [rows[uid] for _, uid in round_places(knows)],
            "signal": compared(shared, opened, state) if shared.signals else None,
        }
        groups = self._models(library, opened, state)
        groups["data"] = {"images": knows.pixels(library, images)}
        return shared.task("learn", values, groups)

    def _models(self, library: Library, opened: RoundOpened, state: TwinState) -> Groups:
        """Everything but images: base, teacher or slots, and what the strategy sent and kept."""
        received = library.groups(opened.base)
        groups = {"model": received["model"]}
        if opened.teacher is not None:
            groups["teacher"] = library.model(opened.teacher)
        groups |= {f"received/{name}": t for name, t in received.items() if name != "model"}
        kept = self._knows.diary.kept(library)
        groups |= {f"kept/{name}": tensors for name, tensors in kept.items()}
        if self._knows.shared.signals:
            groups |= slots(self._knows.shared, opened, state, library)
        return groups

    def done(self, number: int, result: Result) -> Iterator[Answer]:
        """The update, unless a copy of this twin was quicker; or why there is none."""
        knows, opened = self._knows, self._knows.shared.line.open_round
        if opened is None or opened.number != number or not self._asked(opened):
            return
        self._said = number
        places = result.values.get("places", ())
        yield from round_prototypes(knows, opened, places, result.groups)
        if "reason" in result.values:
            yield self._withhold(opened, result.values["reason"])
            return
        update = ModelUpdate(
            run=knows.shared.line.run,
            opened=number,
            entity=knows.entity,
            base=opened.base,
            measured=result.values["measured"],
            groups=_named("send/", result.groups),
        )
        if knows.shared.strategy.groups is not None:
            yield from knows.diary.say_kept(update, _named("keep/", result.groups))
        yield Say(knows.topic("updates"), update)

    def _withhold(self, opened: RoundOpened, reason: str) -> Say:
        """The form without content."""
        update = ModelUpdate(
            run=self._knows.shared.line.run,
            opened=opened.number,
            entity=self._knows.entity,
            base=opened.base,
            reason=reason,
            groups={},
        )
        return Say(self._knows.topic("updates"), update)


def _named(prefix: str, groups: Groups) -> Groups:
    return {name[len(prefix) :]: g for name, g in groups.items() if name.startswith(prefix)}
