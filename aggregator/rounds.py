"""What a round consists of: who takes part, at which rate, and the sums of what they answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from aggregator.averaging import ExactMean, numbers_of
from aggregator.beside import beside, shared
from learning.rates import multiplier
from learning.strategies.choice import sent_tensors
from learning.strategies.strategy import RoundMean, Strategy
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.line import RoundsLine
from schemas.messages import Groups, ModelUpdate, Participant, RoundOpened
from schemas.seeds import generator, seed
from schemas.tensors import CHUNK, Tensor, Tensors, Values, decoded, size_of
from schemas.updates import checked_update, expected_of
from schemas.verdicts import VerdictLines


class RoundSums:
    """The answers of one round: sums of those with content, reasons of those without."""

    def __init__(self, opened: RoundOpened, base: Groups, strategy: Strategy, wire: str) -> None:
        self.opened = opened
        self.counted: dict[str, str] = {}
        self.withheld: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        """Entity → hash of its answer, with content or without."""
        self._weights = {each.entity: each.weight for each in opened.participants}
        self._base = base
        self._strategy = strategy
        self._wire = wire
        late = wire == "int8"
        self._sizes = {n: size_of(e) for n, e in base["model"].items() if late and e.size > CHUNK}
        self._expected = expected_of(sent_tensors(strategy, base["model"]))
        self._sums = {
            group: ExactMean(tensors, opened.total_weight)
            for group, tensors in self._expected.items()
        }
        self._numbers = sum(map(numbers_of, self._expected.values()))
        self._adding = beside(lambda: None, 0)
        """The last update that was taken, which is added while the next one is read."""

    @property
    def answered(self) -> list[str]:
        """Participants that have answered, with content or without."""
        return list(self._taken)

    @property
    def missing(self) -> list[str]:
        """Participants that have not answered."""
        return [entity for entity in self._weights if entity not in self._taken]

    def add(self, update: ModelUpdate, hash: str) -> None:
        """Take an answer; of valid ones an entity's first counts. Raises Refused for the others."""
        entity = update.entity
        if self._taken.get(entity) == hash:
            return
        values = self._checked(update)
        if entity in self._taken:
            return
        self._taken[entity] = hash
        if update.reason is not None:
            self.withheld[entity] = update.reason
            return
        self._adding.result()
        self._adding = beside(partial(self._add, values, self._weights[entity]), self._numbers)
        self.counted[entity] = hash

    def _add(self, values: Mapping[str, Values], weight: int) -> None:
        for group, sums in self._sums.items():
            sums.add(values[group], weight, checked=True)

    def _checked(self, update: ModelUpdate) -> Mapping[str, Values]:
        """The values of a valid answer: nothing of what was read besides makes it valid or not."""
        if update.entity not in self._weights:
            raise Refused("unknown-entity", f"{update.entity} takes no part in this round")
        if update.base != self.opened.base:
            raise Refused("wrong-base", f"trained from version {update.base.version}")
        if update.reason is None:
            base, weights = self._base["model"], self.opened.total_weight
            return checked_update(
                update.groups,
                base,
                self._expected,
                weights,
                self._wire,
                reuse=True,
                sizes=self._sizes,
            )
        if update.groups:
            raise Refused("unreadable", "an update with content and a reason to have none")
        return {}

    def next_groups(self, before: Groups, members: int) -> Groups:
        """The next global model and what is kept beside it; nothing when nobody counts."""
        if not self.counted:
            return {}
        self._adding.result()
        means = {group: sums.mean() for group, sums in self._sums.items()}
        closed = RoundMean(before, means, counted=len(self.counted), members=members)
        groups = self._strategy.settled(closed)
        return {**groups, "model": self._held(groups["model"])}

    def _held(self, model: Tensors) -> Tensors:
        """What its readers will hold."""

        def held(name: str) -> Tensor:
            return decoded({name: model[name]}, self._wire)[name]

        return dict(zip(model, shared(held, [*model], self._numbers), strict=True))


def participants_of(
    line: RoundsLine, verdicts: VerdictLines, stage: int, round: int
) -> tuple[Participant, ...]:
    """Who trains in a round, with which weight, and up to which position of its stream."""
    return tuple(_participant(line, verdicts, entity) for entity in _sampled(line, stage, round))


def _participant(line: RoundsLine, verdicts: VerdictLines, entity: str) -> Participant:
    assert line.opened is not None
    own = verdicts.line(entity)
    last = own.verdicts[own.judged]
    by_samples = line.opened.configuration.agg_weight == "samples"
    weight = max(1, last.trainable) if by_samples else 1
    return Participant(entity=entity, weight=weight, position=last.position)


def _sampled(line: RoundsLine, stage: int, round: int) -> tuple[str, ...]:
    assert line.opened is not None
    scheduled = line.opened.schedule.stages
    if stage < len(scheduled):
        return scheduled[stage].sampled[round]
    return _sampled_later(line, stage, round)


def _sampled_later(line: RoundsLine, stage: int, round: int) -> tuple[str, ...]:
    """In an added stage those whom it names come first: they alone have its images."""
    assert line.opened is not None
    configuration = line.opened.configuration
    chance = generator(configuration.seed, "sampling", stage=stage, round=round)
    named = line.marked(stage)
    others = members_of(line, stage)[len(named) :]
    drawn = [named[i] for i in chance.permutation(len(named))]
    drawn += [others[i] for i in chance.permutation(len(others))]
    return tuple(sorted(drawn[: configuration.clients_per_round]))


def members_of(line: RoundsLine, stage: int) -> tuple[str, ...]:
    """Everyone who may train in a stage; in an added one first those whom it names."""
    assert line.opened is not None
    if line.live:
        return line.parts.members
    scheduled = line.opened.schedule.stages
    named = line.marked(stage)
    others = scheduled[-1].marked if stage >= len(scheduled) else ()
    return (*named, *(entity for entity in others if entity not in named))


def rate_of(configuration: Configuration, round: int) -> float:
    """The learning rate of a round of a stage (docs/method.md 5.8)."""
    rounds = configuration.rounds_per_stage
    if configuration.live:
        return configuration.learning_rate
    return configuration.learning_rate * multiplier(configuration.lr_schedule, round, rounds)


def prototypes_of(
    line: RoundsLine,
    verdicts: VerdictLines,
    rows: Mapping[str, int],
    stage: int,
    strategy: Strategy,
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The (twin, class) pairs whose prototype gradients a stage waits for (docs/method.md 6.2).

    Per class at most `proto_per_class`: those of the smallest hash of seed, stage, class, entity;
    none in the schedule's last stage and behind it, and none for a strategy without a proxy.
    With two slots a twin's classes are listed once for each round that samples it, without a cap.
    """
    assert line.opened is not None
    configuration = line.opened.configuration
    last = not line.live and stage >= configuration.stages - 1
    if last or not strategy.proxy:
        return ()
    if configuration.slotted:
        return _by_round(line, verdicts, rows, stage)
    chosen: dict[str, list[str]] = {}
    for uid in sorted(rows, key=lambda uid: rows[uid]):
        for entity in _cap(line, verdicts, uid, rows[uid], stage):
            chosen.setdefault(entity, []).append(uid)
    order = line.marked(stage)
    return tuple((e, tuple(chosen[e])) for e in sorted(chosen, key=order.index))


def _by_round(
    line: RoundsLine, verdicts: VerdictLines, rows: Mapping[str, int], stage: int
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each twin's new classes, in order of their rows, times the rounds in which it trains (9)."""
    assert line.opened is not None
    trains = Counter(entity for round in line.opened.schedule.stages[stage].sampled
                     for entity in round)  # fmt: skip
    listed = []
    for entity in line.marked(stage):
        verdict = verdicts.verdict(entity, stage)
        fresh = set(verdict.classes) & set(rows) if verdict else set()
        if fresh and trains[entity]:
            own = tuple(sorted(fresh, key=lambda uid: rows[uid]))
            listed.append((entity, own * trains[entity]))
    return tuple(listed)


def _cap(line: RoundsLine, verdicts: VerdictLines, uid: str, row: int, stage: int) -> list[str]:
    assert line.opened is not None
    configuration = line.opened.configuration
    holders = [
        entity
        for entity in line.marked(stage)
        if (verdict := verdicts.verdict(entity, stage)) and uid in verdict.classes
    ]
    if configuration.proto_upload == "sampled_only":
        sampled = {
            entity
            for each in range(configuration.rounds_per_stage)
            for entity in _sampled(line, stage, each)
        }
        holders = [entity for entity in holders if entity in sampled]
    holders.sort(key=lambda e: (seed(configuration.seed, f"proto_cap/{row}", e, stage), e))
    return holders[: configuration.proto_per_class]
