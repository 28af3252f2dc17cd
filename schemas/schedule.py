"""Who sees which classes when, and who trains in which round: drawn once, before a run begins.

The schedule travels in RunOpened, so that producers, twins, aggregator and proxy act on the same
one. It depends on the seed and the numbers below, never on the strategy: methods are compared on
equal data and equal participants (docs/method.md 1.2 to 1.4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from schemas.seeds import generator
from schemas.topics import ENTITY

Group = Literal["B", "O", "N"]
"""B: here before, gets new classes. O: here before, gets none. N: joins now, gets new classes."""
ImageShare = Literal["full", "disjoint"]
Assignment = Mapping[str, Sequence[str]]
"""Entity → the uids of all classes that it ever sees."""

SITE = "local"
FIRST_CLIENTS_ONLY = 1  # quirk 1: only the clients of stage 0 are ever sampled
EPSILON = 1e-6  # 0.29 * 100 is 28.999999999999996 and must count as 29


class Share(NamedTuple):
    """Of a class's images, dealt out in turn: image i belongs to part i % parts."""

    part: int
    parts: int


class Client(BaseModel):
    """One entity in one stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity: Annotated[str, Field(pattern=ENTITY)]
    """Its full name, `site/entity`."""
    group: Group
    classes: tuple[str, ...]
    """Uids of the new classes whose images stream to it in this stage; none in group O."""


class Stage(BaseModel):
    """The classes of one stage, who gets them, and who is asked in which round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    """Uids, in the run's class order."""
    clients: tuple[Client, ...]
    """All entities of the stage, in the order in which they joined."""
    sampled: tuple[tuple[str, ...], ...]
    """Round by round, the entities that train."""
    image_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Round by round, how many images a training passes; without them `local_epochs` decide."""

    @cached_property
    def marked(self) -> tuple[str, ...]:
        """The entities whose streams get this stage's mark: all, also those that get nothing."""
        return tuple(client.entity for client in self.clients)

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """Entity → uids of the classes whose images stream to it; empty in group O."""
        return {client.entity: client.classes for client in self.clients}

    def group(self, name: Group) -> tuple[str, ...]:
        """The entities of a group."""
        return tuple(client.entity for client in self.clients if client.group == name)

    def holders(self, uid: str) -> tuple[str, ...]:
        """The entities to which a class's images stream."""
        return tuple(client.entity for client in self.clients if uid in client.classes)

    @model_serializer(mode="wrap")
    def _as_ever(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `image_steps` where there are none: the bytes of a stage stay what they were."""
        values: dict[str, Any] = plain(self)
        if not self.image_steps:
            values.pop("image_steps", None)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _distinct(self.marked, "entity")
        classes, marked = set(self.classes), set(self.marked)
        for client in self.clients:
            _distinct(client.classes, f"{client.entity}: class")
            if foreign := set(client.classes) - classes:
                raise ValueError(f"{client.entity} gets {sorted(foreign)}, not of this stage")
        if len(self.image_steps) not in (0, len(self.sampled)):
            raise ValueError(
                f"{len(self.sampled)} rounds, but image steps of {len(self.image_steps)}"
            )
        for number, entities in enumerate(self.sampled):
            _distinct(entities, f"round {number}: entity")
            if strangers := set(entities) - marked:
                raise ValueError(f"round {number} samples {sorted(strangers)}, not of this stage")
        return self


class Schedule(BaseModel):
    """The stages of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...]
    image_share: ImageShare = "full"
    """Whether each holder of a class gets all of its images, or its own part of them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Uids of the classes of all stages, in the run's class order."""
        return tuple(uid for stage in self.stages for uid in stage.classes)

    @property
    def entities(self) -> tuple[str, ...]:
        """Everyone who ever takes part, in the order in which they joined."""
        return tuple(dict.fromkeys(entity for stage in self.stages for entity in stage.marked))

    def share(self, entity: str, uid: str) -> Share:
        """Which part of a class's images streams to an entity: all, or one part for each holder.

        Raises ValueError if the class does not stream to this entity.
        """
        stage = next((stage for stage in self.stages if uid in stage.classes), None)
        holders = stage.holders(uid) if stage else ()
        if entity not in holders:
            raise ValueError(f"class {uid} streams to {len(holders)} entities, not to {entity}")
        if self.image_share == "full":
            return Share(0, 1)
        return Share(holders.index(entity), len(holders))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _distinct(self.classes, "class")
        return self


def plan(
    seed: int,
    *,
    class_order: Sequence[str],
    classes_per_stage: int | Sequence[int],
    stages: int,
    iid: float,
    clients: int,
    new_clients: int,
    clients_per_round: int,
    rounds_per_stage: int,
    transition_fraction: float = 0.9,
    quirks: Collection[int] = (),
    image_share: ImageShare = "full",
    assignment: Assignment | None = None,
) -> Schedule:
    """Draw a schedule: the same arguments give the same one, in every process.

    `clients` take part in stage 0, and `new_clients` join at each later one. Of those already
    there a fraction `transition_fraction`, drawn anew for each stage, gets new classes:
    floor(iid * s) of the stage's s, as does everyone who joins, each drawn independently. Each
    round samples `clients_per_round` of all clients of the stage. Classes beyond those that the
    stages take are not used. An `assignment` gives each entity its classes instead of `iid` and
    `transition_fraction`. Chance: purposes `schedule` and `sampling`.

    Raises ValueError, with the numbers, for what cannot be drawn.
    """
    classes = _classes(classes_per_stage, stages, class_order)
    if clients < 1 or new_clients < 0 or rounds_per_stage < 1:
        raise ValueError(
            f"{clients} clients (at least 1), {new_clients} new ones (at least 0) and "
            f"{rounds_per_stage} rounds per stage (at least 1)"
        )
    if not 1 <= clients_per_round <= clients:
        raise ValueError(
            f"{clients_per_round} of {clients} clients cannot be sampled in a round: change"
            " clients_per_round or clients"
        )
    if not 0.0 <= transition_fraction <= 1.0:
        raise ValueError(f"transition_fraction is {transition_fraction}, not from 0 to 1")
    joined = [clients + stage * new_clients for stage in range(stages)]
    if assignment is not None:
        _assignable(assignment, classes, joined)

    planned = []
    for stage, uids in enumerate(classes):
        before = joined[stage - 1] if stage else 0
        if assignment is None:
            members = _drawn(seed, stage, uids, before, joined[stage], iid, transition_fraction)
        else:
            members = _assigned(assignment, uids, before, joined[stage])
        eligible = clients if FIRST_CLIENTS_ONLY in quirks else joined[stage]
        sampled = tuple(
            _sampled(seed, stage, round, clients_per_round, eligible)
            for round in range(rounds_per_stage)
        )
        planned.append(Stage(classes=uids, clients=members, sampled=sampled))
    return Schedule(stages=tuple(planned), image_share=image_share)


def class_order(uids: Iterable[str], order: str = "natural", seed: int = 0) -> tuple[str, ...]:
    """The order in which classes appear: by uid, or permuted by the seed (purpose `schedule`).

    Raises ValueError for a uid that comes twice or an order of another name.
    """
    ordered = sorted_uids(uids)
    _distinct(ordered, "class")
    if order == "natural":
        return ordered
    if order == "permuted":
        return tuple(ordered[i] for i in generator(seed, "schedule").permutation(len(ordered)))
    raise ValueError(f"no class order is called {order!r}; there are natural, permuted")


def sorted_uids(uids: Iterable[str]) -> tuple[str, ...]:
    """Class uids in their natural order: numbers by value, then all others by their UTF-8 bytes."""
    return tuple(sorted(uids, key=_by_value))


def classes_per_client(iid: float, classes: int) -> int:
    """How many of a stage's new classes one client gets: floor(iid * classes).

    Raises ValueError unless that is at least 1 and at most all of them.
    """
    if not 0.0 < iid <= 1.0:
        raise ValueError(f"iid is {iid}, not above 0 and at most 1")
    count = _floor(iid * classes)
    if count < 1:
        raise ValueError(f"iid {iid} of {classes} classes leaves a client 0 classes")
    return count


def entity_name(number: int) -> str:
    """The full name of a recipe's entity, such as `local/entity-007`."""
    return f"{SITE}/entity-{number:03d}"


def _drawn(
    seed: int,
    stage: int,
    classes: tuple[str, ...],
    before: int,
    joined: int,
    iid: float,
    transition_fraction: float,
) -> tuple[Client, ...]:
    moving = _floor(transition_fraction * before)
    chosen = set(generator(seed, "schedule", stage=stage).permutation(before)[:moving].tolist())
    count = classes_per_client(iid, len(classes))
    members = []
    for number in range(joined):
        entity, group = entity_name(number), _group(number, before, number in chosen)
        drawn: Iterable[int] = ()
        if group != "O":
            own = generator(seed, "schedule", entity, stage)
            drawn = sorted(own.permutation(len(classes))[:count].tolist())
        members.append(Client(entity=entity, group=group, classes=tuple(classes[i] for i in drawn)))
    return tuple(members)


def _assigned(
    assignment: Assignment, classes: tuple[str, ...], before: int, joined: int
) -> tuple[Client, ...]:
    members = []
    for number in range(joined):
        entity = entity_name(number)
        own = tuple(uid for uid in classes if uid in assignment.get(entity, ()))
        group = _group(number, before, bool(own))
        members.append(Client(entity=entity, group=group, classes=own))
    return tuple(members)


def _group(number: int, before: int, moves: bool) -> Group:
    if number >= before:
        return "N"
    return "B" if moves else "O"


def _sampled(seed: int, stage: int, round: int, count: int, eligible: int) -> tuple[str, ...]:
    drawn = generator(seed, "sampling", stage=stage, round=round).permutation(eligible)[:count]
    return tuple(entity_name(number) for number in sorted(drawn.tolist()))


def _classes(
    classes_per_stage: int | Sequence[int], stages: int, class_order: Sequence[str]
) -> list[tuple[str, ...]]:
    if isinstance(classes_per_stage, int):
        sizes = [classes_per_stage] * stages
    else:
        sizes = list(classes_per_stage)
    if stages < 1 or len(sizes) != stages:
        raise ValueError(f"{stages} stages (at least 1), but sizes for {len(sizes)}")
    if min(sizes) < 1:
        raise ValueError(f"a stage of {min(sizes)} classes; each needs at least 1")
    if sum(sizes) > len(class_order):
        raise ValueError(
            f"stages={stages} and classes_per_stage take {sum(sizes)} classes, but"
            f" {len(class_order)} exist: change one of them"
        )
    _distinct(class_order, "class")
    ends = accumulate(sizes)
    return [tuple(class_order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _assignable(
    assignment: Assignment, classes: Sequence[Sequence[str]], joined: Sequence[int]
) -> None:
    stage_of = {uid: stage for stage, uids in enumerate(classes) for uid in uids}
    numbers = {entity_name(number): number for number in range(joined[-1])}
    for entity, uids in assignment.items():
        if entity not in numbers:
            raise ValueError(f"{entity} is none of the {len(numbers)} entities of this schedule")
        _distinct(uids, f"{entity}: class")
        for uid in uids:
            if uid not in stage_of:
                raise ValueError(f"{entity} gets class {uid}, none of the {len(stage_of)} in use")
            if numbers[entity] >= joined[stage_of[uid]]:
                raise ValueError(
                    f"{entity} gets class {uid} of stage {stage_of[uid]}, but joins later: "
                    f"that stage has {joined[stage_of[uid]]} clients"
                )


def _by_value(uid: str) -> tuple[bool, int, bytes, bytes]:
    written = uid.encode()
    if not (uid.isascii() and uid.isdigit()):
        return True, 0, written, b""
    digits = written.lstrip(b"0")  # compared by length, then digits: no uid is too long to be read
    return False, len(digits), digits, written


def _distinct(names: Sequence[str], what: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} {name!r} comes {count} times")


def _floor(value: float) -> int:
    return math.floor(value + EPSILON)
