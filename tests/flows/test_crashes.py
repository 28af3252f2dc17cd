"""Killed at any moment, a run goes on to the same model, and trains nothing twice that was done."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from experiments.folder import RunFolder
from experiments.runner import Local, resume, start
from infra import workers
from infra.points import POINTS, Hook
from infra.transport.embedded import Embedded as Log
from schemas.configuration import Configuration
from tests.flows import lives
from tests.flows.digits import TINY, digits, told_by_child
from tests.flows.federation import NAMES, Outcome, Told, decided, in_file, messages, outcome, small
from tests.flows.learner import FAKES
from tests.flows.lives import KILLED, Fuse, answered, begun, lived, struck, until_the_end

FEW, MANY = range(2), range(300, 325)
QUICK = ("append:written", "said", "task:done")
"""The points at which also `make test-fast` kills."""
MOMENTS = 300
"""About as many moments at which a hook is called as a stage of the small federation has."""


def _killed_over_and_over(seed: int, whole: Configuration, quiet: Outcome, path: Path) -> None:
    """Kill a run at random moments until a life sees its end, then ask what it came to.

    At least once: so twenty-five seeds are twenty-five kills or more.
    """
    chance, ends = random.Random(seed), Counter[int]()
    told = Told(copies=1 + seed % 2, unkind=seed if seed % 3 else None)
    moments = MOMENTS * whole.stages * told.copies

    def live(number: int) -> int:
        done = answered(path)
        end = lived(whole, path, told, Fuse(chance.randint(1, moments)))
        trained = begun(path)
        assert not trained.keys() & done, f"killing {seed}: trained again what was in the log"
        assert max(trained.values(), default=0) <= told.copies
        ends[end] += 1
        return end

    assert until_the_end(live) == 0
    assert ends[KILLED] >= 1
    assert outcome(in_file(whole, path)) == quiet, f"killing {seed} ended in another run"


@pytest.mark.parametrize("seed", FEW)
def test_killed_at_random_moments_it_ends_the_same(
    shorter: Outcome, folder: Path, seed: int
) -> None:
    """Up to the last moment, again and again; some with every role twice, some read unkindly."""
    _killed_over_and_over(seed, small(stages=2), shorter, folder / "run.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_killed_at_many_more_moments_it_ends_the_same(
    quiet: Outcome, folder: Path, seed: int
) -> None:
    """Twenty-five such runs of three stages, each killed once or more often."""
    _killed_over_and_over(seed, small(), quiet, folder / "run.sqlite")


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=() if p in QUICK else pytest.mark.slow) for p in POINTS]
)
def test_killed_where_it_hurts_most_it_ends_the_same(
    shorter: Outcome, folder: Path, point: str
) -> None:
    """At each named point, once; what was done by then is not done again."""
    path, whole = folder / "run.sqlite", small(stages=2)
    end = lived(whole, path, Told(), Fuse(1 if point == "store:put" else 2, point))
    done = answered(path)
    gone_on = lived(whole, path, Told(), Fuse(-1))

    assert (end, gone_on) == (KILLED, 0)
    assert not begun(path).keys() & done
    assert outcome(in_file(whole, path)) == shorter


def _left(path: Path) -> dict[str, Counter[str]]:
    """What a log still holds of states and models, by topic and key."""
    log = Log(path)
    try:
        return {
            topic: Counter(stored.record.key for stored in log.read(topic, log.first(topic), 2**30))
            for topic in log.topics()
            if ".twin-state." in topic or ".models" in topic or ".prototypes." in topic
        }
    finally:
        log.close()


@pytest.mark.slow
@pytest.mark.parametrize("point", ["forgotten", "trim", "append:durable"])
def test_what_is_to_be_forgotten_is_forgotten_after_a_crash(folder: Path, point: str) -> None:
    """States, exemplars, models and prototypes: a killed run leaves behind what any run does."""
    whole, broken = folder / "whole.sqlite", folder / "broken.sqlite"
    in_file(small(), whole)
    for nth in (3, 6, 9):
        lived(small(), broken, Told(), Fuse(nth, point))
    in_file(small(), broken)

    left, expected = _left(broken), _left(whole)
    assert {topic: set(keys) for topic, keys in left.items()} == {
        topic: set(keys) for topic, keys in expected.items()
    }


def test_what_a_twin_sent_before_it_was_killed_is_not_sent_again(folder: Path) -> None:
    """Killed again and again where something was just said: the log never holds an update twice."""
    path, whole = folder / "run.sqlite", small(stages=2, keep_rounds="all")
    assert until_the_end(lambda number: lived(whole, path, Told(), Fuse(40, "said"))) == 0

    log = Log(path)
    sent = Counter(each.identity for each, _ in messages(log, NAMES.of_site("updates", "local")))
    log.close()
    assert len(sent) == 8
    assert set(sent.values()) == {1}


# --- a run folder, as `fedtwin run` and `fedtwin resume` treat it ---------------------------------


def _life_of(folder: Path, hook: Hook) -> tuple[int, str]:
    """Begin or go on with a run folder in a process of its own: its end, and its model if any."""
    answer, at_hand = folder.with_suffix(".model"), TINY.model_copy(update={"width": 1})
    local = Local(data_dir=folder, hook=hook, start_worker=workers.Forked(FAKES))

    def life() -> int:
        begun = RunFolder(folder).exists
        end = resume(folder, local) if begun else start(at_hand, folder, local)
        answer.write_text(end.model_sha256)
        return 0

    end = lives.forked(life)
    return end, answer.read_text() if end == 0 else ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_folder_whose_runner_was_killed_is_gone_on_with(folder: Path, seed: int) -> None:
    """Killed again and again with its workers at work, it ends in the model of a whole run."""
    whole, broken, chance = folder / "whole", folder / "broken", random.Random(seed)
    models: list[str] = []

    def live(number: int) -> int:
        moments = 250 * (1 + number)  # the longer the log, the more is heard before it goes on
        end, model = _life_of(broken, Fuse(chance.randint(20, moments)))
        models.append(model)
        return end

    assert until_the_end(live) == 0
    assert len(models) > 1
    assert (0, models[-1]) == _life_of(whole, Fuse(-1))


# --- the recipe `tiny`, with real nets ------------------------------------------------------------


def _tiny(path: Path, folder: Path) -> Outcome:
    def run() -> Outcome:
        from experiments.worker import FUNCTIONS

        return outcome(in_file(TINY, path, Told(functions=FUNCTIONS), dataset=digits()))

    return told_by_child(run, folder)


def _life_of_tiny(path: Path, hook: Hook) -> int:
    from experiments.worker import FUNCTIONS
    from learning.repeatable import repeatable

    repeatable(1)
    in_file(TINY, path, Told(functions=FUNCTIONS, hook=hook), dataset=digits())
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_tiny_killed_by_the_clock_ends_the_same(trained: Outcome, folder: Path, seed: int) -> None:
    """In the middle of a training, as likely as not: by another process, at some time."""
    path, chance = folder / "run.sqlite", random.Random(seed)
    end = struck(partial(_life_of_tiny, path), chance.randint(20, 500), chance.uniform(0, 0.1))
    log = Log(path)
    line = decided(log)
    log.close()

    assert end == KILLED
    assert line.number >= 0
    assert not line.over
    assert _tiny(path, folder) == trained
