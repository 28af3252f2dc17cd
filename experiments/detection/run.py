"""The verdicts of a run, scored: what each rule would have said of the windows that were judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.detection.score import Score, Trial, scored
from schemas.line import RoundsLine
from schemas.messages import WindowJudged
from twins.novelty import Judgement, judged, rise

Values = Mapping[str, Any]


@dataclass(frozen=True)
class RuleScore:
    """A rule on all windows of a run but first contacts."""

    rule: str
    recall: float | None
    """Percent of the windows with images of a class that their twin did not know."""
    windows: int
    """Those windows."""
    false_alarms_per_10000: float | None
    """Alarms per 10,000 images of the windows without such a class."""
    images: int
    """Those images."""
    delay: float | None
    """Mean images between the first of a new class and the verdict, at most: a verdict does not
    tell where in its window that stood."""


def of_a_run(line: RoundsLine, verdicts: Iterable[WindowJudged]) -> tuple[RuleScore, ...]:
    """Score each rule on a run's own verdicts, in the order of their lines.

    They are judged again, by the function that twins judge by, from what was written down. The
    threshold is the recorded one; that of the other mode is worked out where the run is a recipe's.
    """
    windows = list(_windows(verdicts))
    return tuple(
        _score(name, scored([_trial(line, window, keys, speaks) for window in windows]))
        for name, (keys, speaks) in _rules(line).items()
    )


@dataclass(frozen=True)
class _Window:
    verdict: WindowJudged
    known: frozenset[str]
    """Of its twin, before."""
    fresh: int
    """Images that came since the verdict before."""

    @property
    def new(self) -> bool:
        return any(count and uid not in self.known for uid, count in self.verdict.images.items())


def _windows(verdicts: Iterable[WindowJudged]) -> Iterator[_Window]:
    known: dict[str, frozenset[str]] = {}
    position: dict[str, int] = {}
    for verdict in verdicts:
        mine = known.get(verdict.entity, frozenset())
        fresh = verdict.position - position.get(verdict.entity, 0)
        known[verdict.entity] = mine | set(verdict.classes)
        position[verdict.entity] = verdict.position
        if not verdict.first_contact:
            yield _Window(verdict, mine, fresh)


def _trial(
    line: RoundsLine, window: _Window, keys: Values, speaks: Callable[[Judgement], bool]
) -> Trial:
    assert line.opened is not None
    own, verdict = line.opened.configuration, window.verdict
    configuration = own.model_copy(update=dict(keys))
    same = configuration.threshold_mode == own.threshold_mode
    found = judged(
        verdict.images,
        window.known,
        verdict.entropy,
        verdict.reference,
        verdict.threshold if same else rise(line, verdict.stage, configuration),
        configuration,
    )
    alarm = speaks(found)
    return Trial(
        known=0 if window.new else window.fresh,
        false_alarms=int(alarm and not window.new),
        new=window.new,
        delay=max(0, window.fresh - 1) if alarm and window.new else None,
    )


def _rules(line: RoundsLine) -> Mapping[str, tuple[Values, Callable[[Judgement], bool]]]:
    """Name → the keys that make it, and what counts as an alarm."""
    assert line.opened is not None
    own = line.opened.configuration.threshold_mode
    other = {"absolute": "relative", "relative": "absolute"}[own]
    modes = [own] if line.live else [own, other]
    return {
        "label": ({"detector": "label"}, lambda found: found.verdict == "new"),
        "hybrid": ({"detector": "hybrid"}, lambda found: found.verdict != "known"),
        "entropy": ({"detector": "entropy"}, lambda found: found.verdict == "new"),
        **{
            f"jump, {mode}": ({"threshold_mode": mode}, lambda found: found.jump)
            for mode in sorted(modes, reverse=True)
        },
    }


def _score(rule: str, score: Score) -> RuleScore:
    return RuleScore(
        rule=rule,
        recall=score.recall,
        windows=score.streams,
        false_alarms_per_10000=score.false_alarm_rate,
        images=score.known,
        delay=score.delay,
    )
