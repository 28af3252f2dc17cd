"""The promise as it is written: `kill -9` at any moment, then `fedtwin resume`, and the same model.

The recipe `tiny` with its real nets in a run folder, two worker processes at work: what `start` and
`resume` of experiments.runner do, in processes that are forked from one that has imported torch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from experiments.folder import RunFolder
from experiments.runner import Local, resume, start
from experiments.system import Watched
from infra import workers
from infra.points import POINTS, Hook, no_hook
from infra.transport.embedded import Embedded as Log
from tests.flows.digits import TINY, digits
from tests.flows.lives import (
    KILLED,
    Fuse,
    answered,
    begun,
    forked,
    noting,
    struck,
)

pytestmark = pytest.mark.slow
RUNS, KILLS = 5, 5
"""So many runs, and the least kills of each."""
SLOW_TO_IMPORT = ("experiments.worker", "torch._inductor", "experiments.figures")
"""The second comes with the first of torch's optimisers, the third with the report."""
RARE = {
    "store:put": 1,
    "caught-up": 2,
    "forgotten": 2,
    "trim": 2,
    "task:prepared": 9,
    "task:done": 9,
}
"""The so-many-th of its kind kills; of others the thirtieth, which is in the first rounds."""
MOMENTS = 70
"""The most moments of a first life; a later one reads again what the ones before have written.

A whole run has about seven hundred.
"""
OVER = "over"
"""Besides the named points: the run is over, and what it came to is to be written down."""


@dataclass
class Story:
    """A run folder, and the lives that were spent on it."""

    folder: Path
    model: str = ""
    """That it ended in."""
    ends: Counter[int] = field(default_factory=Counter)

    @property
    def log(self) -> Path:
        """Where everything flows."""
        return RunFolder(self.folder).log

    def live(self, spend: Callable[[Callable[[Hook], int]], int]) -> int:
        """One life: begin the run, or resume it; and no training that was finished begins again."""
        diary, model = self.log.with_suffix(".trained"), self.folder.with_suffix(".model")
        self.folder.mkdir(exist_ok=True)
        diary.write_text("")
        done = answered(self.log, RunFolder(self.folder).names()) if self.begun else set()
        end = spend(lambda hook: _live(self.folder, diary, model, hook))
        trained = begun(self.log)
        assert not trained.keys() & done, "trained again what was in the log"
        assert max(trained.values(), default=0) <= 1
        self.ends[end] += 1
        self.model = model.read_text() if end == 0 else ""
        return end

    @property
    def begun(self) -> bool:
        """Whether there is something to resume."""
        return RunFolder(self.folder).exists and self.log.exists()


def _live(folder: Path, diary: Path, model: Path, hook: Hook) -> int:
    from experiments.worker import FUNCTIONS
    from learning.repeatable import repeatable

    repeatable(1)
    _hang(hook)
    functions = noting(FUNCTIONS, diary)
    local = Local(folder, workers=2, hook=hook, start_worker=workers.Forked(functions))
    begun = RunFolder(folder).exists
    watch = partial(_tell, hook)
    end = resume(folder, local, watch=watch) if begun else start(TINY, folder, local, watch=watch)
    model.write_text(end.model_sha256)
    return 0


def _tell(hook: Hook, run: Watched) -> None:
    if run.system.over:
        hook(OVER)


def _hang(hook: Hook) -> None:
    """The log of every run folder has the hook: a runner gives it to the loop alone.

    A life has a process of its own, and this ends with it.
    """

    def opened(folder: RunFolder) -> Log:
        return Log(folder.log, hook)

    RunFolder.opened = opened  # type: ignore[assignment, method-assign]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model of a run that nobody kills. What takes long to import is there for all lives."""
    for module in SLOW_TO_IMPORT:
        import_module(module)
    digits()
    story = Story(tmp_path_factory.mktemp("whole") / "run")
    assert story.live(lambda life: forked(lambda: life(no_hook))) == 0
    return story.model


@pytest.mark.parametrize("seed", range(RUNS))
def test_killed_at_random_times_over_a_run_and_resumed_it_ends_in_the_same_model(
    whole: str, folder: Path, seed: int
) -> None:
    """Five times or more; over the seeds that is twenty-five kills at least."""
    chance, story = random.Random(seed), Story(folder / "run")

    def spend(life: Callable[[Hook], int]) -> int:
        most = MOMENTS * (1 + story.ends.total())
        return struck(life, chance.randint(0, most), chance.uniform(0, 0.15))

    killed = [story.live(spend) for _ in range(KILLS)]
    assert killed == [KILLED] * KILLS
    assert story.live(lambda life: forked(lambda: life(no_hook))) == 0
    assert story.model == whole


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_named_point_and_resumed_it_ends_in_the_same_model(
    whole: str, folder: Path, point: str
) -> None:
    """Once at each; `fedtwin resume` does the rest."""
    story, nth = Story(folder / "run"), RARE.get(point, 30)

    assert story.live(lambda life: forked(lambda: life(Fuse(nth, point)))) == KILLED
    assert story.live(lambda life: forked(lambda: life(no_hook))) == 0
    assert story.model == whole


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.3])
def test_killed_while_it_writes_down_what_it_came_to_it_is_written_by_the_next(
    whole: str, folder: Path, pause: float
) -> None:
    """Model, measures, report and manifest; that takes a second."""
    story = Story(folder / "run")

    def spend(life: Callable[[Hook], int]) -> int:
        def at_the_end(hook: Hook) -> int:
            return life(lambda point: hook(point) if point == OVER else None)

        return struck(at_the_end, 1, pause)

    assert story.live(spend) == KILLED
    assert RunFolder(story.folder).read_manifest()["state"] != "done"
    assert story.live(lambda life: forked(lambda: life(no_hook))) == 0
    assert RunFolder(story.folder).read_manifest()["model_sha256"] == story.model == whole
