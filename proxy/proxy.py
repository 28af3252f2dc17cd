"""The proxy: rebuilds prototypes from gradients, scores old models on them, and picks the teacher.

It is separate from the aggregator because what it rebuilds is nearly an image (docs/method.md 6.7):
it keeps reconstructions in memory and sends them nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.promises import (
    Answer,
    Arrived,
    Do,
    Keep,
    Library,
    NotYet,
    Place,
    Result,
    Say,
    Score,
    SetAside,
    Start,
    Task,
    Trim,
)
from learning.encoder import encoder_shapes, fault
from proxy.selection import best
from proxy.slots import Slots, Worked, as_chosen
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.limits import most_classes
from schemas.line import RoundsLine
from schemas.messages import Decision, ModelName, PrototypeGradient, StageClosed, TeacherChosen
from schemas.teachers import TeachersLine
from schemas.tensors import Spec, alike, model_sha256
from schemas.topics import Names, parted

Slot = tuple[str, int]
"""Entity, and place in its list."""
RoundKey = tuple[int, int]
"""Stage and round."""


class Used(NamedTuple):
    """A gradient that came."""

    nth: int
    """Its place among all that HeadGrown lists for its stage: what its chance is drawn by."""
    slot: Slot
    row: int
    """Of its class."""
    hash: str
    place: Place
    """Where it lies."""


class Proxy:
    """The role that decides in `teachers` (docs/method.md 6)."""

    name = "proxy"

    def __init__(self, names: Names, sites: Sequence[str], *, whole: bool = False) -> None:
        """With `whole` no decision of a live run is let go: who asks prototypes of all stages needs
        that."""
        self.line = RoundsLine(whole=whole)
        self._teachers = TeachersLine(self.line)
        self._topic = names.federation("teachers")
        self._prototypes = {names.of_site("prototypes", site): site for site in sites}
        self.lines = (names.federation("rounds"), self._topic)
        self.topics = (*self.lines, *self._prototypes)
        self.owns = (self._topic, *self._prototypes)
        self._gradients: dict[int, dict[Slot, tuple[str, Place]]] = {}
        self._withheld: dict[int, dict[Slot, str]] = {}
        self._offsets: dict[str, dict[int, tuple[int, int]]] = {}
        """Topic → stage → first and last offset of its gradients."""
        self._trimmed: dict[str, int] = {}
        self.rebuilt: dict[int, dict[int, NDArray[np.float32]]] = {}
        """Stage → batch → images (N, C, H, W) in [0, 1]."""
        self.rebuilt_in: dict[RoundKey, dict[int, NDArray[np.float32]]] = {}
        """The same by round, where two slots teach: a gradient then belongs to a round."""
        self._scores: dict[int, dict[int, float]] = {}
        self._scored: dict[RoundKey, float] = {}
        """Likewise: round → score of the model that closed it."""
        self._begun: set[tuple[str | int, ...]] = set()
        self._said = -1
        self._tidied = 0
        self._now = 0.0
        self._seen: tuple[int, float] = (-1, 0.0)
        """Of a live run: the stage that was closed last, and when this process first saw it."""
        self._late: dict[int, set[Slot]] = {}
        """Stage → places whose answers came too late, or never."""

    @property
    def over(self) -> bool:
        """The last stage is closed: nobody needs another teacher."""
        return self.line.over

    @property
    def decided(self) -> int:
        """Number of the newest decision in `teachers`."""
        return len(self._teachers.chosen) - 1

    @property
    def can_decide(self) -> bool:
        """Whether a teacher is asked for, and nobody's prototypes are missing."""
        if self.line.opened and self._configuration.slotted:
            window = self._window()
            ready = [self.line.closed_round(*key) and not self._basis(key)[1] for key in window]
            return bool(ready) and all(ready)
        closed = self._question()
        return closed is not None and not self._missing(closed.stage)

    # --- hearing -----------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        self.line.begin(start.opened, start.run, start.standing, start.hash)
        self._teachers.again()

    def hear(self, arrived: Arrived) -> None:
        match arrived.message:
            case PrototypeGradient() as gradient:
                self._note(arrived, gradient)
            case TeacherChosen() as choice:
                self._teachers.hear(choice, arrived)
            case Decision() as decision:
                if self.line.hear(decision, arrived.hash):
                    self._teachers.again()

    def _note(self, arrived: Arrived, message: PrototypeGradient) -> None:
        """Take an answer for a place. Raises Refused, and NotYet before its stage has grown."""
        line, stage = self.line, message.stage
        if line.opened is None:
            raise NotYet(lambda: line.opened is not None, "RunOpened")
        if message.run != line.run:
            raise Refused("out-of-line", f"{message.identity} is of another run")
        site = self._prototypes[arrived.place.topic]
        if parted(message.entity)[0] != site:
            raise Refused("unknown-entity", f"{message.entity} does not belong to site {site}")
        line.begun(stage)
        if line.live and stage < self._settled_stages():
            self._span(arrived.place, stage)
            return
        slot = (message.entity, message.place)
        rows = {(e, place): line.rows[uid] for e, place, uid in line.expected(stage)}
        if slot not in rows:
            raise Refused("unknown-entity", f"stage {stage} expects nothing at {slot}")
        gradient = self._checked(message, rows[slot])
        self._span(arrived.place, stage)  # what is refused holds up no trim
        if slot in self._gradients.get(stage, {}) or slot in self._withheld.get(stage, {}):
            return
        if message.reason is not None:
            self._withheld.setdefault(stage, {})[slot] = message.reason
        else:
            self._gradients.setdefault(stage, {})[slot] = (model_sha256(gradient), arrived.place)

    def _checked(self, message: PrototypeGradient, row: int) -> dict[str, NDArray[Any]]:
        if message.reason is not None:
            if message.groups:
                raise Refused("unreadable", "a gradient with content and a reason to have none")
            return {}
        if set(message.groups) != {"gradient"}:
            raise Refused("wrong-shape", f"groups {sorted(message.groups)}, expected gradient")
        assert self.line.opened is not None
        data = self.line.opened.data
        shapes = encoder_shapes(data.channels, data.height, data.width, encoder_rows(self.line))
        gradient = message.groups["gradient"]
        alike(gradient, {name: Spec("<f4", shape) for name, shape in shapes.items()})
        noisy = self._configuration.dp_noise_sigma is not None
        if reason := fault(gradient, row, with_noise=noisy):
            raise Refused(reason, f"the gradient at place {message.place} of {message.entity}")
        return gradient

    def _span(self, place: Place, stage: int) -> None:
        spans = self._offsets.setdefault(place.topic, {})
        first, last = spans.get(stage, (place.offsets[0], place.offsets[-1]))
        spans[stage] = min(first, *place.offsets), max(last, *place.offsets)

    def tick(self, at: float) -> None:
        """It is so late: a live run's stage may have waited long enough for its prototypes."""
        self._now = at
        closed = self._question() if self.line.live else None
        if closed is None:
            return
        if closed.stage != self._seen[0]:
            self._seen = (closed.stage, at)
        if at >= self._seen[1] + self._configuration.deadline and closed.stage not in self._late:
            self._late[closed.stage] = set(self._missing(closed.stage))

    # --- answering -----------------------------------------------------------------------------

    def answers(self) -> Iterator[Answer]:
        while self._teachers.refused:
            arrived, reason = self._teachers.refused.pop(0)
            assert isinstance(arrived, Arrived)
            yield SetAside(arrived, reason)
        yield from self._tidy()
        if self.line.opened and self._configuration.slotted:
            yield from self._work_through()
            return
        closed = self._question()
        if closed is None or self._missing(closed.stage):
            return
        yield from self._keep(closed)
        if not self._used(closed.stage):
            yield from self._choose(closed, {})
            return
        for stage in self._evaluated(closed.stage):
            yield from self._rebuild(closed, stage)
        if all(self._is_rebuilt(stage) for stage in self._evaluated(closed.stage)):
            yield from self._score(closed)

    def done(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        stage, number = int(id[1]), int(id[2])
        if self._configuration.slotted:
            yield from self._worked_on(id, result)
            return
        if id[0] == "reconstruct":
            self.rebuilt.setdefault(stage, {})[number] = result.groups["rebuilt"]["images"]
            return
        self._scores.setdefault(stage, {})[number] = result.values["score"]
        closed = self._question()
        if closed is None or closed.stage != stage:
            return
        model = next(each for each in closed.candidates if each.version == number)
        yield Score(model, stage, result.values["score"])
        if len(self._scores[stage]) == len(closed.candidates):
            yield from self._choose(closed, self._scores[stage])

    def waits(self) -> list[str]:
        if self.line.opened and self._configuration.slotted:
            return [
                f"prototypes of round {stage}.{round}: {missing[:3]}"
                for stage, round in self._window()
                if self.line.closed_round(stage, round)
                and (missing := self._basis((stage, round))[1])
            ]
        closed = self._question()
        if closed is None:
            return []
        missing = self._missing(closed.stage)
        named = ", ".join(f"{entity} at place {place}" for entity, place in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return [f"prototypes of stage {closed.stage}: {named}{more}"] if missing else []

    def _question(self) -> StageClosed | None:
        """The closed stage whose successor has no teacher yet, if there is a successor."""
        stage = len(self._teachers.chosen)
        return self.line.closed(stage) if stage + 1 < self.line.total_stages else None

    def _missing(self, stage: int) -> list[Slot]:
        """Places that have to be answered before a stage's models can be scored."""
        return [
            (entity, place)
            for each in self._asked(stage)
            for entity, place, _ in self.line.expected(each)
            if (entity, place) not in self._gradients.get(each, {})
            and (entity, place) not in self._withheld.get(each, {})
            and (entity, place) not in self._late.get(each, ())
        ]

    def _used(self, stage: int) -> list[Used]:
        """The gradients of a stage, in the order of HeadGrown's list."""
        found = self._gradients.get(stage, {})
        return [
            Used(index, (entity, place), self.line.rows[uid], *found[entity, place])
            for index, (entity, place, uid) in enumerate(self.line.expected(stage))
            if (entity, place) in found and (entity, place) not in self._late.get(stage, ())
        ]

    def _asked(self, stage: int) -> range:
        """The stages whose prototypes are asked about a stage's models (docs/method.md 6.5)."""
        return range(0 if self._keeps_all else stage, stage + 1)

    def _evaluated(self, stage: int) -> list[int]:
        """Those of them that left any."""
        return [each for each in self._asked(stage) if self._used(each)]

    def _keep(self, closed: StageClosed) -> Iterator[Answer]:
        stage = self.line.stages[closed.stage]
        rounds = enumerate(stage.rounds, start=stage.past)
        closing = {each.closed.model: round for round, each in rounds if each.closed}
        for model in dict.fromkeys((*closed.candidates, closed.last)):
            if ("keep", model.version) not in self._begun:
                self._begun.add(("keep", model.version))
                yield Keep(model, closed.stage, closing.get(model, -1))

    def _is_open(self, question: StageClosed) -> bool:
        return self._question() == question

    def _rebuild(self, question: StageClosed, stage: int) -> Iterator[Answer]:
        size, used = self._configuration.recon_batch, self._used(stage)
        for number, start in enumerate(range(0, len(used), size)):
            id = ("reconstruct", stage, number)
            if id not in self._begun:
                self._begun.add(id)
                part = used[start : start + size]
                yield Do(
                    id,
                    partial(self._rebuild_task, part=part),
                    wanted=partial(self._is_open, question),
                )

    def _rebuild_task(
        self, library: Library, part: Sequence[Used], round: int | None = None
    ) -> Task:
        groups = {}
        for number, used in enumerate(part):
            message = library.message(used.place)
            assert isinstance(message, PrototypeGradient)
            groups[f"gradient/{number}"] = message.groups["gradient"]
            stage = message.stage
        values = {
            "rows": [used.row for used in part],
            "places": [used.nth for used in part],
            "stage": stage,
            "round": round,
        }
        return self._task("reconstruct", values, groups)

    def _is_rebuilt(self, stage: int) -> bool:
        batches = -(-len(self._used(stage)) // self._configuration.recon_batch)
        return len(self.rebuilt.get(stage, {})) == batches

    def _score(self, closed: StageClosed) -> Iterator[Answer]:
        stages = self._evaluated(closed.stage)
        for candidate in closed.candidates:
            id = ("score", closed.stage, candidate.version)
            if id not in self._begun:
                self._begun.add(id)
                yield Do(
                    id,
                    partial(self._score_task, candidate=candidate, stages=stages),
                    wanted=partial(self._is_open, closed),
                )

    def _score_task(self, library: Library, candidate: ModelName, stages: Sequence[int]) -> Task:
        images = [self.rebuilt[stage][number] for stage in stages
                  for number in sorted(self.rebuilt[stage])]  # fmt: skip
        used = [(stage, each) for stage in stages for each in self._used(stage)]
        rows = [each.row for _, each in used]
        places = [(stage, each.nth) for stage, each in used]
        groups = {
            "model": library.old_model(candidate),
            "rebuilt": {"images": np.concatenate(images)},
        }
        return self._task("score", {"rows": rows, "places": places, "round": None}, groups)

    def _choose(self, closed: StageClosed, scores: dict[int, float]) -> Iterator[Answer]:
        number = len(self._teachers.chosen)
        if self._said >= number:
            return
        self._said = number
        names = {model.version: model for model in (*closed.candidates, closed.last)}
        yield Say(
            self._topic,
            TeacherChosen(
                run=self.line.run,
                number=number,
                stage=closed.stage + 1,
                teacher=names[best(scores, last=closed.last.version)],
                scores=tuple(sorted(scores.items())),
                used=tuple(
                    used.hash
                    for stage in (self._evaluated(closed.stage) if scores else ())
                    for used in self._used(stage)
                ),
                withheld=tuple(
                    (*slot, reason) for slot, reason in sorted(self._reasons(closed.stage).items())
                ),
            ),
        )

    def _reasons(self, stage: int) -> dict[Slot, str]:
        """Why places have no gradient that the choice rests on."""
        late = dict.fromkeys(self._late.get(stage, ()), "not there by the deadline")
        return {**self._withheld.get(stage, {}), **late}

    # --- two slots (docs/method.md 6.6, 9) -----------------------------------------------------

    def _work_through(self) -> Iterator[Answer]:
        """Go through the rounds since the newest choice, in order, and choose when all are done."""
        slots, window = as_chosen(self._teachers.chosen), self._window()
        for key in window:
            worked = self._worked(key)
            if worked is None:
                yield from self._work_on(key)
                return
            slots = slots.after(worked)
        stage, round = self._teachers.place(len(self._teachers.chosen))
        if window and (round or self.line.closed(stage - 1)):
            yield from self._choose_slots(slots, window)

    def _window(self) -> list[RoundKey]:
        """The rounds that the next choice rests on besides the newest; empty when none is due.

        Stage 0 is taught by nobody, so the first choice rests on all of its rounds.
        """
        number = len(self._teachers.chosen)
        if self._teachers.place(number)[0] >= self.line.total_stages:
            return []
        if number == 0:
            return [(0, round) for round in range(self._configuration.rounds_per_stage)]
        return [self._teachers.place(number - 1)]

    def _worked(self, key: RoundKey) -> Worked | None:
        """What a round is to the slots; None while it is open, or something is missing."""
        closed, (basis, missing) = self.line.closed_round(*key), self._basis(key)
        listed = key[0] < self._configuration.stages - 1
        score = self._scored.get(key) if listed else None
        if closed is None or (listed and (missing or (basis and score is None))):
            return None
        ends = key[1] == self._configuration.rounds_per_stage - 1
        return Worked(*key, closed.model, basis == key, score, ends, listed)

    def _basis(self, key: RoundKey) -> tuple[RoundKey | None, list[Slot]]:
        """The newest round up to this one that brought gradients: it is scored on them alone.

        And the places that have to be answered before that can be told: also of rounds before,
        which a proxy that starts anew may not have read yet.
        """
        rounds = range(self._configuration.rounds_per_stage)
        until = [each for each in product(range(key[0] + 1), rounds) if each <= key]
        for each in reversed(until):
            slots = {(entity, place) for entity, place, _ in self.line.expected_in(*each)}
            if missing := [slot for slot in self._missing(each[0]) if slot in slots]:
                return None, missing
            if self._used_in(each):
                return each, []
        return None, []

    def _used_in(self, key: RoundKey) -> list[Used]:
        slots = {(entity, place) for entity, place, _ in self.line.expected_in(*key)}
        return [used for used in self._used(key[0]) if used.slot in slots]

    def _work_on(self, key: RoundKey) -> Iterator[Answer]:
        """Rebuild what a round's model is scored on, and score it."""
        closed, (basis, _) = self.line.closed_round(*key), self._basis(key)
        if closed is None or basis is None:
            return
        used, size = self._used_in(basis), self._configuration.recon_batch
        starts = range(0, len(used), size)
        for number, start in enumerate(starts):
            part = used[start : start + size]
            task = partial(self._rebuild_task, part=part, round=basis[1])
            yield from self._once(Do(("reconstruct", basis[0], number, basis[1]), task))
        if len(self.rebuilt_in.get(basis, {})) == len(starts):
            task = partial(self._round_task, model=closed.model, basis=basis)
            # Later rounds may be scored on the same images, but this one only for this choice.
            wanted = partial(self._is_next, len(self._teachers.chosen))
            score = Do(("score", *key), task, wanted=wanted)
            if score.id not in self._begun:
                yield Keep(closed.model, *key)
            yield from self._once(score)

    def _is_next(self, number: int) -> bool:
        return len(self._teachers.chosen) == number

    def _once(self, do: Do) -> Iterator[Do]:
        if do.id not in self._begun:
            self._begun.add(do.id)
            yield do

    def _round_task(self, library: Library, model: ModelName, basis: RoundKey) -> Task:
        used, parts = self._used_in(basis), self.rebuilt_in[basis]
        values = {
            "rows": [each.row for each in used],
            "places": [(basis[0], each.nth) for each in used],
            "round": basis[1],
        }
        images = np.concatenate([parts[number] for number in sorted(parts)])
        groups = {"model": library.old_model(model), "rebuilt": {"images": images}}
        return self._task("score", values, groups)

    def _worked_on(self, id: tuple[str | int, ...], result: Result) -> Iterator[Answer]:
        if id[0] == "reconstruct":
            _, stage, number, round = map(int, (0, *id[1:]))
            parts = self.rebuilt_in.setdefault((stage, round), {})
            parts[number] = result.groups["rebuilt"]["images"]
            return
        key = int(id[1]), int(id[2])
        self._scored[key] = result.values["score"]
        if closed := self.line.closed_round(*key):
            yield Score(closed.model, key[0], self._scored[key])

    def _choose_slots(self, slots: Slots, window: Sequence[RoundKey]) -> Iterator[Answer]:
        number = len(self._teachers.chosen)
        teacher = slots.best or slots.before
        if self._said >= number or teacher is None:
            return
        self._said = number
        stage, round = self._teachers.place(number)
        closed = {key: self.line.closed_round(*key) for key in window}
        places = {(e, p): key[0] for key in window for e, p, _ in self.line.expected_in(*key)}
        yield Say(
            self._topic,
            TeacherChosen(
                run=self.line.run,
                number=number,
                stage=stage,
                round=round,
                teacher=teacher,
                slots=slots.named,
                scores=tuple(
                    (each.model.version, self._scored[key])
                    for key, each in closed.items()
                    if each and key in self._scored
                ),
                used=tuple(used.hash for key in window for used in self._used_in(key)),
                withheld=tuple(
                    (*slot, self._withheld[stage][slot])
                    for slot, stage in sorted(places.items())
                    if slot in self._withheld.get(stage, {})
                ),
            ),
        )

    def prototypes(self) -> dict[int, list[tuple[str, NDArray[np.float32]]]]:
        """Stage → class and rebuilt image (C, H, W) in [0, 1]; what this process has rebuilt."""
        shown: dict[int, list[tuple[str, NDArray[np.float32]]]] = {}
        for key, parts in sorted(self.rebuilt_in.items()):
            images = np.concatenate([parts[number] for number in sorted(parts)])
            listed = {(e, place): uid for e, place, uid in self.line.expected_in(*key)}
            uids = [listed[used.slot] for used in self._used_in(key)]
            shown.setdefault(key[0], []).extend(zip(uids, images, strict=True))
        for stage, parts in self.rebuilt.items():
            images = np.concatenate([parts[number] for number in sorted(parts)])
            found = self._gradients.get(stage, {})
            uids = [uid for e, place, uid in self.line.expected(stage) if (e, place) in found]
            shown[stage] = list(zip(uids, images, strict=True))
        return shown

    # --- forgetting ----------------------------------------------------------------------------

    def _tidy(self) -> Iterator[Answer]:
        """Once a teacher was chosen, the gradients and the models behind it are not needed."""
        chosen_so_far = len(self._teachers.chosen)
        if chosen_so_far != self._tidied:
            self._tidied = chosen_so_far
            kept = set(self._kept())
            kept |= {*self.line.lasts}
            yield Keep(only=frozenset(kept))
            if self.line.live:  # a recipe shows them in its report, and ends
                self._let_go(self._settled_stages())
        if self.line.opened is not None:
            yield from self._trim(self._settled_stages())

    def _let_go(self, answered: int) -> None:
        """What was made of the gradients of the first so many stages."""
        for held in (self.rebuilt, self._scores, self._gradients, self._withheld, self._late):
            for stage in [stage for stage in held if stage < answered]:
                del held[stage]
        self._begun = {id for id in self._begun if id[0] != "keep" and int(id[1]) >= answered}

    def _trim(self, answered: int) -> Iterator[Answer]:
        """Gradients of the first so many stages go, also those that a copy sends late."""
        for topic, spans in list(self._offsets.items()):
            later = [first for stage, (first, _) in spans.items() if stage >= answered]
            past = [last for stage, (_, last) in spans.items() if stage < answered]
            before = min(later, default=max(past, default=-1) + 1)
            if past and before > self._trimmed.get(topic, 0):
                self._trimmed[topic] = before
                yield Trim(topic, before)
            if past and self.line.live:
                held = {stage: span for stage, span in spans.items() if stage >= answered}
                self._offsets[topic] = held

    def _kept(self) -> list[ModelName]:
        """The models that were chosen; with two slots those that may teach again."""
        chosen_so_far = self._teachers.chosen
        if not self._configuration.slotted:
            return [choice.teacher for choice in chosen_so_far]
        return [model for model in chosen_so_far[-1].slots or () if model]

    def _settled_stages(self) -> int:
        """Stages whose gradients nobody needs any more.

        With two slots they serve until a later round brings others, or until the schedule's last
        stage, in which nothing is scored.
        """
        chosen_so_far = len(self._teachers.chosen)
        if not self._configuration.slotted:
            return chosen_so_far if self.line.over or not self._keeps_all else 0
        if not chosen_so_far:
            return 0
        stage, _ = newest = self._teachers.place(chosen_so_far - 1)
        if stage >= self._configuration.stages - 1:
            return stage
        basis, _ = self._basis(newest)
        return basis[0] if basis else 0

    @property
    def _keeps_all(self) -> bool:
        """Whether prototypes of earlier stages are asked as well; they stay until the run ends."""
        return self._configuration.proxy_eval == "all"

    @property
    def _configuration(self) -> Configuration:
        assert self.line.opened is not None
        return self.line.opened.configuration

    def _task(self, name: str, values: dict[str, Any], groups: dict[str, Any]) -> Task:
        assert self.line.opened is not None
        run = {
            "configuration": self._configuration.model_dump(mode="json"),
            "data": self.line.opened.data.model_dump(mode="json"),
        }
        return Task(name, {**values, **run}, groups)


def encoder_rows(line: RoundsLine) -> int:
    """Rows of the encoder's last layer: the configured number, or the data set's (6.1)."""
    assert line.opened is not None
    return most_classes(line.opened.configuration, line.opened.data)
