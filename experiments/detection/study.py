"""Rules on streams of real images: a model is trained, numbers are chosen, then rules are scored.

What a rule's number is, is chosen on other images and for other new classes than it is scored on.
Needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from experiments.detection.model import TWIN, Learned, learned, loaded
from experiments.detection.rules import Family, Heard, Rule, families, lacking
from experiments.detection.scenarios import SCENARIOS, Classes
from experiments.detection.score import Score, Trial, scored, tried
from producers.images import Part
from schemas.configuration import Configuration
from schemas.seeds import generator

STREAMS = 12
"""Of each scenario and seed, for choices and as many for scores; new classes take turns in them."""
MOST_FALSE_ALARMS = 10.0
"""Per 10,000 samples: what a number that is chosen may cost."""
Told = Callable[[str], None]


@dataclass(frozen=True)
class Line:
    """A rule with its number, and its score in each scenario."""

    rule: str
    setting: str
    number: float | None
    """None where the rule has none."""
    chosen: bool
    """Whether it was chosen here; otherwise it is the one that holds where nobody chooses."""
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Study:
    """All that was found."""

    data: str
    data_sha256: str
    seeds: tuple[int, ...]
    known_classes: int
    """That a model has learned, in two stages."""
    accuracies: tuple[float, ...]
    """Of each seed's model on test images of those, in percent."""
    missing: str | None
    """Why there are no peers."""
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values that any JSON writer takes."""
        lines = [asdict(line) for line in self.lines]
        for line, plain in zip(self.lines, lines, strict=True):
            for name, score in line.scores.items():
                rates = {"recall": score.recall, "false_alarms_per_10000": score.false_alarm_rate}
                plain["scores"][name] |= rates
        return {**asdict(self), "lines": lines}


@dataclass(frozen=True, eq=False)
class Case:
    """A stream, and its truth."""

    scenario: str
    heard: Heard
    new: tuple[bool, ...]
    """Per image whether its class is new."""


def study(
    configuration: Configuration, data_dir: Path, seeds: Sequence[int], told: Told = lambda _: None
) -> Study:
    """Compare all rules under a recipe. `told` hears what is done meanwhile.

    Raises what `loaded` and `learned` raise.
    """
    data, rules = loaded(configuration, data_dir), families(configuration)
    choosing, scoring, accuracies = list[Case](), list[Case](), list[float]()
    for seed in seeds:
        told(f"seed {seed}: a model learns")
        model = learned(data, configuration, seed)
        accuracies.append(model.accuracy())
        choosing += _cases(model, data.validation, model.split.to_choose)
        scoring += _cases(model, data.test, model.split.to_score)
    told("rules listen")
    return Study(
        data=data.name,
        data_sha256=data.sha256,
        seeds=tuple(seeds),
        known_classes=len(model.split.known),
        accuracies=tuple(accuracies),
        missing=lacking(),
        lines=tuple(chain.from_iterable(_lines(each, choosing, scoring) for each in rules)),
    )


def _cases(model: Learned, part: Part, new: Sequence[str]) -> Iterator[Case]:
    """Streams of all scenarios, of images that the model has not learned from."""
    split, data = model.split, model.data
    pools = {uid: np.flatnonzero(part.labels == i) for i, uid in enumerate(data.class_uids)}
    entropies_N, reference = model.entropies(part.images), model.reference()
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        for i in range(STREAMS):
            away = split.stages[0][i % split.size]
            known = tuple(uid for uid in split.known if uid != away)
            chance = generator(model.seed, f"detect/{2 + number}", TWIN, "-".join(new), i)
            stream = scenario(Classes(known, away, new[i % len(new)]), pools, chance)
            heard = Heard(
                uids=stream.uids,
                entropies_N=entropies_N[stream.places_N],
                reference=reference,
                known=frozenset(split.known),
                virtual_rows=split.size,
                seed=model.seed,
            )
            yield Case(name, heard, stream.new)


def _lines(family: Family, choosing: Sequence[Case], scoring: Sequence[Case]) -> Iterator[Line]:
    """A family's usual number, and the one that is chosen where that is another."""
    numbers = {family.usual: False}
    if family.grid:
        numbers[best(family, choosing)] = True
    for number, chosen in numbers.items():
        rule = family.make(number)
        scores = {
            name: scored(_trials(rule, [each for each in scoring if each.scenario == name]))
            for name in SCENARIOS
        }
        yield Line(
            family.name, family.setting, number if family.grid else None, chosen, scores
        )  # fmt: skip


def _trials(rule: Rule, cases: Sequence[Case]) -> list[Trial]:
    return [tried(case.new, rule.alarms(case.heard)) for case in cases]


def best(family: Family, cases: Sequence[Case]) -> float:
    """The number with the highest recall, then the shortest delay, of those with few false alarms.

    If all have more than `MOST_FALSE_ALARMS`, the one with the fewest. The first of equals.
    """
    scores = {number: scored(_trials(family.make(number), cases)) for number in family.grid}
    most = max(MOST_FALSE_ALARMS, min(map(_rate, scores.values())))
    return min(
        (number for number, score in scores.items() if _rate(score) <= most),
        key=lambda number: _rank(scores[number]),
    )


def _rate(score: Score) -> float:
    return score.false_alarm_rate or 0.0


def _rank(score: Score) -> tuple[float, float, float]:
    delay = math.inf if score.delay is None else score.delay
    return (-(score.recall or 0.0), delay, _rate(score))
