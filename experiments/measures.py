"""What a run came to, in numbers: all of docs/method.md 8, from what the observer heard.

Pure: the same log gives the same measures, whoever reads it and after however many resumes; only
seconds come from outside. Accuracies, F1, forgetting and every other share are in percent (0 to
100); None stands where there is nothing to measure. Legend: C rows of the head, S stages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.detection.run import RuleScore, of_a_run
from experiments.observer import Observer
from learning import scoring
from learning.encoder import encoder_shapes
from learning.shapes import dtype_of, model_shapes
from learning.strategies.choice import chosen
from learning.strategies.strategy import MODEL, Strategy
from proxy.proxy import encoder_rows
from schemas.line import RoundsLine
from schemas.messages import RoundClosed, RoundOpened, RunOpened, TeacherChosen, WindowJudged
from schemas.schedule import sorted_uids
from schemas.stages import Stage
from schemas.tensors import Spec, encoding_of

Counts = NDArray[np.int64]
Values = Mapping[str, Any]
Outcome = Literal[
    "both", "labels only", "entropy only", "neither", "first contact", "nothing to judge"
]
"""What labels and the entropy rule said of a window; `both` is a hit, `labels only` a miss."""
OVER_STAGES = ("average_accuracy", "forgetting", "backward_transfer", "new_class_accuracy")
COUNTS = ("samples", "steps")
"""What a twin counts in a training; everything else that it measures is a mean over its steps."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "training": ("learn",),
    "reconstruction": ("reconstruct",),
    "bookkeeping": ("log", "loading", "codec", "aggregator", "judge", "evaluate"),
    "other": (),
}
"""Phases as they are compared; bookkeeping is log, codec, aggregation, detection and evaluation,
and `other` takes every phase that no group names."""


@dataclass(frozen=True)
class RoundMeasures:
    """One closed round, and how its model does on test images of all classes with a row."""

    number: int
    """From 0, over all stages."""
    stage: int
    round: int
    version: int
    """The model that came of it."""
    teacher: int | None
    """Version of the model that taught."""
    learning_rate: float
    accuracy: float | None
    macro_f1: float | None
    """Over the classes that have test images."""
    old_accuracy: float | None
    """On classes of earlier stages."""
    new_accuracy: float | None
    """On the classes of this stage."""
    old_as_new: float | None
    """Old-class images that were taken for classes of this stage: the bias."""
    stage_accuracies: tuple[float | None, ...]
    """On the classes of each stage so far; at a stage's end this is a[t][j]."""
    average_accuracy: float | None
    """Mean of the stages' accuracies so far, this round standing for its stage."""
    forgetting: float | None
    """So far, this round standing for its stage; as are the next two."""
    backward_transfer: float | None
    new_class_accuracy: float | None
    """Mean over stages of the accuracy on a stage's own classes at its own end."""
    counted: tuple[str, ...]
    """Twins whose updates are in the mean."""
    withheld: tuple[tuple[str, str], ...]
    """Twins that answered without content, and why."""
    images: int
    """Images that the counted twins trained on, each time counted."""
    steps: int
    training: Mapping[str, float]
    """Means over the counted twins' steps: the loss, its terms, shares of empty maps (0 to 1)."""
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class StageMeasures:
    """One stage, at its last round; before it is `closed`, at the newest round that was scored."""

    stage: int
    classes: tuple[str, ...]
    """Uids of the classes that got a row, in the order of their rows."""
    rounds: int
    closed: bool
    accuracy: float | None
    best_round_accuracy: float | None
    """Optimistic: it chooses the round on test images. Never a headline."""
    macro_f1: float | None
    old_accuracy: float | None
    new_accuracy: float | None
    old_as_new: float | None
    missed_images: int
    """Images that twins had looked at and whose class had no row: nobody could train on them."""


@dataclass(frozen=True)
class Detection:
    """What one twin's window said at a stage's mark (docs/method.md 3.4)."""

    entity: str
    stage: int
    model: int
    """Version that judged."""
    images: int
    entropy: float | None
    """Mean over the window, in nats; None where it could not be taken."""
    reference: float | None
    """Mean over known images under the same model, in nats."""
    threshold: float
    """Nats that the rise had to exceed."""
    outcome: Outcome
    verdict: str
    classes: tuple[str, ...]
    """The new classes that were announced."""
    reason: str | None

    @property
    def rise(self) -> float | None:
        """How far the window's entropy lies above that of known images, in nats."""
        if self.entropy is None or self.reference is None:
            return None
        return self.entropy - self.reference


@dataclass(frozen=True)
class Detector:
    """How often the entropy rule was right, the labels being the judge; first contacts apart."""

    hits: int
    misses: int
    false_alarms: int
    quiet: int
    """Windows in which neither saw anything new."""
    first_contacts: int
    """Windows of twins that knew no class yet: the rule has nothing to compare with."""
    nothing_to_judge: int


@dataclass(frozen=True)
class Candidate:
    """An old model that might have taught."""

    version: int
    round: int | None
    score: float
    """Of the proxy, on rebuilt prototypes."""
    accuracy: float | None
    """On test images, which the proxy never sees."""


@dataclass(frozen=True)
class TeacherMeasures:
    """The choice of a stage's teacher."""

    stage: int
    version: int
    score: float | None
    """None when nothing was scored; then the last version of the stage before teaches."""
    accuracy: float | None
    candidates: tuple[Candidate, ...]
    prototypes: int
    """Rebuilt prototypes that the scores rest on."""
    withheld: tuple[tuple[str, int, str], ...]
    """Entity, place and reason of each prototype that did not come."""
    rank_correlation: float | None
    """Spearman's, of scores with accuracies; None where one of them does not vary."""
    regret: float | None
    """Points of accuracy by which the best candidate was better than the chosen one."""


@dataclass(frozen=True)
class Measures:
    """Everything that was measured of a run, or of the part of it that is in the log."""

    run: str
    """Hash of RunOpened."""
    over: bool
    configuration: Values
    data: Values
    entities: int
    model_version: int
    model_sha256: str
    rounds: tuple[RoundMeasures, ...]
    stages: tuple[StageMeasures, ...]
    average_accuracy: float | None
    """Mean of the closed stages' accuracies, the first included."""
    matrix: tuple[tuple[float | None, ...], ...]
    """a[t][j], j <= t: after closed stage t, on the classes of stage j."""
    forgetting: float | None
    backward_transfer: float | None
    new_class_accuracy: float | None
    """Mean of a[j][j]."""
    classes: tuple[str, ...]
    """Uid of each row."""
    stage_of_row: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Of the newest scored model; rows: true, columns: predicted."""
    undrawn_classes: tuple[str, ...]
    """Scheduled classes that stream to no twin: neither in the head nor in the test."""
    waiting_classes: tuple[str, ...]
    """Classes that twins saw and that have no row; their images count as missed."""
    untested_classes: tuple[str, ...]
    """Classes with a row and without test images."""
    detections: tuple[Detection, ...]
    detector: Detector
    rules: tuple[RuleScore, ...]
    """What other rules would have said of the same windows, and those of the run itself."""
    teachers: tuple[TeacherMeasures, ...]
    rank_correlation: float | None
    """Mean over the stages in which it can be told."""
    empty_maps: float | None
    """Student's attention maps that look nowhere, of those compared."""
    bytes_up: int
    """All updates: what their tensors take on the run's wire (see `wire_bytes`)."""
    bytes_down: int
    """The base to each twin of each round, and each stage's teacher once to each of its twins."""
    bytes_prototypes: int
    """All gradients that were used, up to the proxy."""
    dead_letters: Mapping[str, int]
    """Messages that were set aside, by reason."""
    seconds: Mapping[str, float]
    """Of work by phase. Workers work side by side, so these may add up to more than `wall`."""
    wall_seconds: float
    images_per_second: float | None
    """Images trained on by all twins together, of each second of wall time."""

    @property
    def shares(self) -> dict[str, float]:
        """Percent of the measured work by group of `GROUPS`; empty when none was measured."""
        total = sum(self.seconds.values())
        if not total:
            return {}
        named = {
            group: sum(self.seconds.get(phase, 0.0) for phase in phases)
            for group, phases in GROUPS.items()
        }
        named["other"] = total - sum(named.values())
        return {group: 100 * seconds / total for group, seconds in named.items()}

    def as_json(self) -> dict[str, Any]:
        """The same as plain values that any JSON writer takes."""
        return {**asdict(self), "shares": self.shares}


def measure(
    observer: Observer, seconds: Mapping[str, float], wall: float, trainings: int | None = None
) -> Measures:
    """Measure a run, at its end or in its midst.

    `seconds` are those of work by phase and `wall` those that passed while it was done. On a
    resumed run they cover less than the log: `trainings` says how many trainings they saw, and
    None stands for all.

    Raises ValueError before the run was opened.
    """
    line = observer.line
    if line.opened is None or line.model is None:
        raise ValueError("the log holds no RunOpened yet, so there is nothing to measure")
    rounds = _rounds(observer)
    stages = tuple(_stage(observer, stage, rounds) for stage in line.stages)
    ends = [_last_round(stage.stage, rounds) for stage in stages if stage.closed]
    final = ends[-1] if ends else None
    confusion = _newest_confusion(observer)
    detections = tuple(_detections(observer))
    choices = observer.teachers.chosen if _strategy(line).teacher != "none" else []
    teachers = tuple(_teacher(choice, rounds) for choice in choices)
    trained = sum(each.images for each in rounds)
    return Measures(
        run=line.run,
        over=line.over,
        configuration=line.opened.configuration.model_dump(mode="json"),
        data=line.opened.data.model_dump(mode="json"),
        entities=len(line.entities),
        model_version=line.model.version,
        model_sha256=line.model.sha256,
        rounds=rounds,
        stages=stages,
        average_accuracy=final.average_accuracy if final else None,
        matrix=tuple(end.stage_accuracies for end in ends),
        forgetting=final.forgetting if final else None,
        backward_transfer=final.backward_transfer if final else None,
        new_class_accuracy=final.new_class_accuracy if final else None,
        classes=tuple(sorted(line.rows, key=lambda uid: line.rows[uid])),
        stage_of_row=tuple(line.stage_of_row),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        undrawn_classes=_undrawn(line.opened),
        waiting_classes=sorted_uids(_seen(observer) - set(line.rows)),
        untested_classes=_untested(line, confusion),
        detections=detections,
        detector=_counted(detections),
        rules=of_a_run(line, _verdicts(observer)),
        teachers=teachers,
        rank_correlation=_mean([each.rank_correlation for each in teachers]),
        empty_maps=_empty_maps(rounds),
        bytes_up=sum(each.bytes_up for each in rounds),
        bytes_down=sum(each.bytes_down for each in rounds),
        bytes_prototypes=_prototype_bytes(line, sum(each.prototypes for each in teachers)),
        dead_letters=dict(
            sorted(Counter(each.reason for each in observer.dead_letters.values()).items())
        ),
        seconds=dict(seconds),
        wall_seconds=wall,
        images_per_second=_rate(trained, rounds, trainings, wall),
    )


# --- rounds and stages ----------------------------------------------------------------------------


def _rounds(observer: Observer) -> tuple[RoundMeasures, ...]:
    found: list[RoundMeasures] = []
    ends: list[RoundMeasures] = []  # the last round of each closed stage
    for stage in observer.line.stages:
        taught: set[str] = set()  # twins that have the stage's teacher already
        for each in stage.rounds:
            if each.closed:
                number = len(found)
                found.append(_round(observer, number, each.opened, each.closed, ends, taught))
                taught |= {participant.entity for participant in each.opened.participants}
        if stage.closed:
            ends.append(found[-1])
    return tuple(found)


def _round(
    observer: Observer,
    number: int,
    opened: RoundOpened,
    closed: RoundClosed,
    ends: Sequence[RoundMeasures],
    taught: set[str],
) -> RoundMeasures:
    counted = tuple(entity for entity, _ in closed.counted)
    updates = [observer.measured.get(f"update/{opened.number}/{entity}", {}) for entity in counted]
    model = wire_bytes(observer.line, closed.stage)
    twins = {participant.entity for participant in opened.participants}
    learners = twins - taught if opened.teacher else set()
    return RoundMeasures(
        number=number,
        stage=closed.stage,
        round=closed.round,
        version=closed.model.version,
        teacher=opened.teacher.version if opened.teacher else None,
        learning_rate=opened.learning_rate,
        **_shares(observer, closed),
        **_over_stages(observer, closed, ends),
        counted=counted,
        withheld=closed.withheld,
        images=_images(observer, opened, [int(each.get("samples", 0)) for each in updates]),
        steps=int(sum(update.get("steps", 0) for update in updates)),
        training=_training(updates),
        bytes_up=model * len(counted),
        bytes_down=model * len(twins) + _teacher_bytes(observer.line, opened) * len(learners),
    )


def _images(observer: Observer, opened: RoundOpened, samples: Sequence[int]) -> int:
    """How many a round's trainings passed: all of an epoch again and again, or so many at all."""
    run = _opened(observer.line)
    stages = run.schedule.stages
    steps = stages[opened.stage].image_steps if opened.stage < len(stages) else ()
    if steps:
        return steps[opened.round] * len(samples)
    return sum(samples) * run.configuration.local_epochs


def _shares(observer: Observer, closed: RoundClosed) -> dict[str, Any]:
    """What the round's model alone tells."""
    counts_CC = _confusion(observer, closed)
    names = ("accuracy", "macro_f1", "old_accuracy", "new_accuracy", "old_as_new")
    if counts_CC is None:
        return dict.fromkeys(names)
    stages_C = _stages_until(observer.line, closed.stage)
    tested = np.count_nonzero(counts_CC.sum(axis=1))  # a class without test images has an F1 of 0
    shares = (
        scoring.accuracy(counts_CC),
        scoring.macro_f1(counts_CC) * len(counts_CC) / tested if tested else math.nan,
        scoring.old_accuracy(counts_CC, stages_C, closed.stage),
        scoring.stage_accuracies(counts_CC, stages_C, closed.stage + 1)[closed.stage],
        scoring.new_bias(counts_CC, stages_C, closed.stage),
    )
    return dict(zip(names, map(_percent, shares), strict=True))


def _over_stages(
    observer: Observer, closed: RoundClosed, ends: Sequence[RoundMeasures]
) -> dict[str, Any]:
    """What the round's model and the last ones of the stages before it tell together."""
    counts_CC = _confusion(observer, closed)
    if counts_CC is None:
        none = dict.fromkeys(OVER_STAGES)
        return {**none, "stage_accuracies": (None,) * (closed.stage + 1)}
    stages_C = _stages_until(observer.line, closed.stage)
    own_S = scoring.stage_accuracies(counts_CC, stages_C, closed.stage + 1)
    a_SS = _square([*(end.stage_accuracies for end in ends), [_percent(each) for each in own_S]])
    accuracy = _percent(scoring.accuracy(counts_CC))
    return {
        "stage_accuracies": tuple(_known(each) for each in a_SS[-1]),
        "average_accuracy": _mean([*(end.accuracy for end in ends), accuracy]),
        "forgetting": _known(scoring.forgetting(a_SS)),
        "backward_transfer": _known(scoring.backward_transfer(a_SS)),
        "new_class_accuracy": _known(scoring.new_accuracy(a_SS)),
    }


def _square(rows: Sequence[Sequence[float | None]]) -> NDArray[np.float64]:
    """a[t][j], NaN for j > t and where nothing is known."""
    a_SS = np.full((len(rows), len(rows)), np.nan)
    for t, row in enumerate(rows):
        a_SS[t, : t + 1] = [math.nan if each is None else each for each in row]
    return a_SS


def _training(updates: Sequence[Values]) -> dict[str, float]:
    """Each name's mean over all steps of the updates that have it."""
    names = dict.fromkeys(
        name
        for update in updates
        for name, value in update.items()
        if name not in COUNTS and isinstance(value, float | int)
    )
    means = {}
    for name in names:
        having = [update for update in updates if name in update]
        steps = sum(update.get("steps", 0) for update in having)
        if steps:
            means[name] = sum(each[name] * each.get("steps", 0) for each in having) / steps
    return means


def _last_round(stage: int, rounds: Sequence[RoundMeasures]) -> RoundMeasures:
    return [each for each in rounds if each.stage == stage][-1]


def _stage(observer: Observer, stage: Stage, rounds: Sequence[RoundMeasures]) -> StageMeasures:
    own = [each for each in rounds if each.stage == stage.index]
    scored = [each for each in own if each.accuracy is not None]
    newest = own[-1] if stage.closed else scored[-1] if scored else None
    line = observer.line
    return StageMeasures(
        stage=stage.index,
        classes=tuple(
            uid
            for uid, row in sorted(line.rows.items(), key=lambda item: item[1])
            if line.stage_of_row[row] == stage.index
        ),
        rounds=len(own),
        closed=stage.closed is not None,
        accuracy=newest.accuracy if newest else None,
        best_round_accuracy=max(
            (each.accuracy for each in own if each.accuracy is not None), default=None
        ),
        macro_f1=newest.macro_f1 if newest else None,
        old_accuracy=newest.old_accuracy if newest else None,
        new_accuracy=newest.new_accuracy if newest else None,
        old_as_new=newest.old_as_new if newest else None,
        missed_images=_missed(observer, stage.index),
    )


def _missed(observer: Observer, stage: int) -> int:
    """Images in the stage's windows whose class has no row while the stage goes on."""
    line = observer.line
    having = {uid for uid, row in line.rows.items() if line.stage_of_row[row] <= stage}
    return sum(
        number
        for verdict in _verdicts(observer)
        for uid, number in verdict.images.items()
        if verdict.stage == stage and uid not in having
    )


def _confusion(observer: Observer, closed: RoundClosed) -> Counts | None:
    """What the observer measured of the model that closed a round."""
    values = observer.measured.get(f"model/{closed.model.version}")
    if values is None:
        return None
    classes = len(values["confusion"])  # without classes a list does not tell its two dimensions
    return np.array(values["confusion"], np.int64).reshape(classes, classes)


def _newest_confusion(observer: Observer) -> Counts:
    for stage in reversed(observer.line.stages):
        for each in reversed(stage.rounds):
            counts_CC = _confusion(observer, each.closed) if each.closed else None
            if counts_CC is not None:
                return counts_CC
    return np.zeros((0, 0), np.int64)


def _stages_until(line: RoundsLine, stage: int) -> list[int]:
    """The stage of each row that there was in a stage."""
    return [each for each in line.stage_of_row if each <= stage]


# --- classes --------------------------------------------------------------------------------------


def _undrawn(opened: RunOpened) -> tuple[str, ...]:
    return tuple(
        uid
        for stage in opened.schedule.stages
        for uid in stage.classes
        if not stage.holders(uid)
    )  # fmt: skip


def _seen(observer: Observer) -> set[str]:
    return {uid for verdict in _verdicts(observer) for uid in verdict.images}


def _untested(line: RoundsLine, confusion_CC: Counts) -> tuple[str, ...]:
    """Of the rows that the newest scored model has."""
    uids = sorted(line.rows, key=lambda uid: line.rows[uid])
    images_C = confusion_CC.sum(axis=1)
    return tuple(uid for uid, images in zip(uids, images_C, strict=False) if not images)


# --- new classes ----------------------------------------------------------------------------------


def _verdicts(observer: Observer) -> Iterator[WindowJudged]:
    """All verdicts, by stage and then by entity."""
    verdicts = [
        verdict for line in observer.verdicts.of.values() for verdict in line.verdicts.values()
    ]
    yield from sorted(verdicts, key=lambda verdict: (verdict.stage, verdict.entity))


def _detections(observer: Observer) -> Iterator[Detection]:
    enough = _opened(observer.line).configuration.n_lab
    known: dict[str, set[str]] = {}
    for verdict in _verdicts(observer):
        mine = known.setdefault(verdict.entity, set())
        new = any(n >= enough for uid, n in verdict.images.items() if uid not in mine)
        mine |= set(verdict.classes)
        yield Detection(
            entity=verdict.entity,
            stage=verdict.stage,
            model=verdict.model.version,
            images=sum(verdict.images.values()),
            entropy=verdict.entropy,
            reference=verdict.reference,
            threshold=verdict.threshold,
            outcome=_outcome(verdict, new),
            verdict=verdict.verdict,
            classes=verdict.classes,
            reason=verdict.reason,
        )


def _outcome(verdict: WindowJudged, new: bool) -> Outcome:
    """The entropy rule against the labels. A rule that could not be asked missed what was new."""
    if verdict.first_contact:
        return "first contact"
    if verdict.entropy is None:
        return "labels only" if new else "nothing to judge"
    if verdict.entropy - (verdict.reference or 0.0) > verdict.threshold:
        return "both" if new else "entropy only"
    return "labels only" if new else "neither"


def _counted(detections: Sequence[Detection]) -> Detector:
    found = Counter(each.outcome for each in detections)
    return Detector(
        hits=found["both"],
        misses=found["labels only"],
        false_alarms=found["entropy only"],
        quiet=found["neither"],
        first_contacts=found["first contact"],
        nothing_to_judge=found["nothing to judge"],
    )


# --- teachers -------------------------------------------------------------------------------------


def _teacher(choice: TeacherChosen, rounds: Sequence[RoundMeasures]) -> TeacherMeasures:
    before = {each.version: each for each in rounds if each.stage == choice.stage - 1}
    accuracies = {version: each.accuracy for version, each in before.items()}
    candidates = tuple(
        Candidate(
            version,
            before[version].round if version in before else None,
            100 * score,
            accuracies.get(version),
        )
        for version, score in choice.scores
    )
    own = accuracies.get(choice.teacher.version)
    known = [each.accuracy for each in candidates if each.accuracy is not None]
    return TeacherMeasures(
        stage=choice.stage,
        version=choice.teacher.version,
        score=next((c.score for c in candidates if c.version == choice.teacher.version), None),
        accuracy=own,
        candidates=candidates,
        prototypes=len(choice.used),
        withheld=choice.withheld,
        rank_correlation=rank_correlation(
            [(each.score, each.accuracy) for each in candidates if each.accuracy is not None]
        ),
        regret=max(known) - own if known and own is not None else None,
    )


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's, in [-1, 1], equal values sharing their mean rank.

    None when there are fewer than two pairs, or one side does not vary.
    """
    if len(pairs) < 2:
        return None
    ours, theirs = (_ranks([pair[side] for pair in pairs]) for side in (0, 1))
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    below, not_above = (array[:, None] > array).sum(1), (array[:, None] >= array).sum(1)
    return (below + not_above + 1) / 2


# --- bytes and seconds ----------------------------------------------------------------------------


def wire_bytes(line: RoundsLine, stage: int) -> int:
    """What a stage's model, with the groups that the strategy sends beside it, takes on the wire.

    Computed from shapes, because a log forgets messages; records add under 1 %. With `int8` it is
    the size before compression, so an upper bound.
    """
    opened = _opened(line)
    configuration, rows = opened.configuration, len(_stages_until(line, stage))
    shapes = model_shapes(opened.data.channels, configuration.width, rows)
    return sum(
        _tensor_bytes(name, shape, configuration.wire if group == MODEL else "fp32")
        for group, tensors in _strategy(line).sent_shapes(shapes).items()
        for name, shape in tensors.items()
    )


def _tensor_bytes(name: str, shape: tuple[int, ...], wire: str) -> int:
    dtype, numbers = dtype_of(name), math.prod(shape)
    encoding = encoding_of(wire, Spec(dtype.str, shape))
    if encoding == "int8":
        return 4 * shape[0] + numbers
    return numbers * (2 if encoding == "bf16" else dtype.itemsize)


def _teacher_bytes(line: RoundsLine, opened: RoundOpened) -> int:
    return wire_bytes(line, opened.stage - 1) if opened.teacher else 0


def _prototype_bytes(line: RoundsLine, prototypes: int) -> int:
    data = _opened(line).data
    shapes = encoder_shapes(data.channels, data.height, data.width, encoder_rows(line))
    return prototypes * 4 * sum(math.prod(shape) for shape in shapes.values())


def _rate(
    images: int, rounds: Sequence[RoundMeasures], trainings: int | None, wall: float
) -> float | None:
    """Images a second, of the trainings that `wall` covers, each taken as large as the mean."""
    counted = sum(len(each.counted) for each in rounds)
    if not counted or wall <= 0 or trainings == 0:
        return None
    share = 1.0 if trainings is None else trainings / counted
    return images * share / wall


def _empty_maps(rounds: Sequence[RoundMeasures]) -> float | None:
    pairs = [(e.training["empty_maps"], e.steps) for e in rounds if "empty_maps" in e.training]
    steps = sum(weight for _, weight in pairs)
    return 100 * sum(share * weight for share, weight in pairs) / steps if steps else None


# --- small things ---------------------------------------------------------------------------------


def _opened(line: RoundsLine) -> RunOpened:
    assert line.opened is not None
    return line.opened


def _strategy(line: RoundsLine) -> Strategy:
    configuration = _opened(line).configuration
    return chosen(configuration.strategy, configuration.switches, configuration.teacher)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(share: float) -> float | None:
    return _known(100 * share)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
