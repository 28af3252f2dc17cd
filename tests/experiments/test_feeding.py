"""New images into a run on Kafka from outside; here the log of one process stands for Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing, nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments import feeding, outside, runner
from experiments.cli import inject
from experiments.feeding import Broken, Fed, feed
from experiments.folder import RunFolder
from experiments.outside import Outside, on_kafka
from infra.program import First
from infra.transport.base import Transport
from producers.datasets import load
from schemas.codec import piece, unpack
from schemas.errors import ConfigurationError
from schemas.messages import ImageBatch, Paused, StreamMarked
from schemas.topics import Names
from tests.experiments.hands import Interrupted, goes_on, local, ran, told, two_stages
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, WEST, Alive
from tests.flows.federation import DOTS

OTHER = "local/entity-001"


class Killed(BaseException):
    """Nothing of it is caught."""


def look(transport: Transport, names: Names = NAMES) -> Outside:
    """What somebody sees who comes by."""
    first = First(transport, names)
    opened = first.look()
    assert opened is not None
    return Outside(transport, names, opened, first.hash)


def images(count: int, seed: int = 1) -> NDArray[np.uint8]:
    """So many of them, as DOTS has them."""
    chance = np.random.Generator(np.random.PCG64(seed))
    return chance.integers(0, 256, (count, *DOTS.train.images.shape[1:]), np.uint8)


def sent(transport: Transport, entity: str, names: Names = NAMES) -> list[tuple[str, int, int]]:
    """Source, first number and size of each batch in a stream, in its order."""
    found = transport.read(names.of_entity("samples", entity), 0, 2**24)
    said = [unpack(piece(each.record.value, 2**24).content, 2**24) for each in found]
    return [(b.source, b.first, len(b.classes)) for b in said if isinstance(b, ImageBatch)]


@pytest.fixture
def alive() -> Alive:
    """Four twins that have found three classes each, and have had their first rounds."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012")
    run.after(10)
    return run


# --- a live federation ----------------------------------------------------------------------------


def test_what_is_injected_into_a_live_federation_is_found_and_learned(alive: Alive) -> None:
    """A class that nobody knew: fewer images than make a twin judge, but they are marked."""
    fed = feed(look(alive.log), EAST, images(12), ["7"] * 12)
    alive.after(10)

    assert (fed.run, fed.entity, fed.images, fed.new_images, fed.stage) == (
        "spring", EAST, 12, 12, None,
    )  # fmt: skip
    assert fed.next.startswith("its twin judges them at their mark, and announces 7 where it has")
    assert "the head grows by 7 10 s after that" in fed.next
    assert alive.verdicts.line(EAST).known == ("0", "1", "2", "7")
    assert alive.line.rows["7"] == 3


def test_the_same_images_again_are_nothing_new(alive: Alive) -> None:
    """By their hash, whoever says it; under a name of their own they are another source."""
    first = feed(look(alive.log), EAST, images(12), ["7"] * 12)
    again = feed(look(alive.log), EAST, images(12), ["7"] * 12)
    more = feed(look(alive.log), EAST, images(12), ["7"] * 12, source="scanner")

    assert first.source == again.source
    assert (first.new_images, again.new_images, more.new_images) == (12, 0, 12)
    assert again.next == "nothing: these very images were there already"
    assert more.source == "scanner"
    with pytest.raises(ConfigurationError, match="other images from 'scanner'"):
        feed(look(alive.log), EAST, images(12, 2), ["7"] * 12, source="scanner")


def test_two_hands_at_once_do_not_disturb_each_other(alive: Alive) -> None:
    """Both looked before either sent: other images have another source, and the same ones come
    twice under their numbers, of which a twin takes one."""
    left, right, third = look(alive.log), look(alive.log), look(alive.log)
    feed(left, EAST, images(12), ["7"] * 12)
    feed(right, EAST, images(12, 2), ["8"] * 12)
    feed(third, EAST, images(12), ["7"] * 12)
    alive.after(20)

    counts = [each.images for each in alive.verdicts.line(EAST).verdicts.values()]
    assert sum(each.get("7", 0) for each in counts) == 12
    assert sum(each.get("8", 0) for each in counts) == 12


@pytest.mark.parametrize("raised", [KeyboardInterrupt, Killed])
def test_a_stream_that_was_broken_off_goes_on_where_it_was(
    alive: Alive, raised: type[BaseException]
) -> None:
    """Ctrl-C before the third message tells how far it came; killed there it tells nothing. Said
    again, the rest follows: each number once."""
    turns = count(1)

    def sleep(seconds: float) -> None:
        if next(turns) == 3:
            raise raised

    before = len(sent(alive.log, EAST))
    with pytest.raises(Broken if raised is KeyboardInterrupt else raised) as broken:
        feed(look(alive.log), EAST, images(12), ["7"] * 12, rate=8, sleep=sleep)
    again = feed(look(alive.log), EAST, images(12), ["7"] * 12)

    if raised is KeyboardInterrupt:
        notes = broken.value.__notes__
        assert notes == [
            f"8 of 12 images were sent to {EAST}, and stand",
            "next: the same command goes on behind them",
        ]
    assert again.new_images == 4
    numbers = [(first, size) for _, first, size in sent(alive.log, EAST)[before:]]
    assert numbers == [(0, 4), (4, 4), (8, 4)]


def test_a_rate_spreads_images_over_time(alive: Alive) -> None:
    """Eight a second are four each half second; one that is less than one in that time waits for
    each image."""
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    def stream(rate: float, count: int) -> None:
        own, uids = images(count, count), ["7"] * count
        feed(look(alive.log), EAST, own, uids, rate=rate, sleep=sleep, clock=lambda: now[0])

    stream(8, 12)
    assert slept == [0, 0.5, 0.5]

    slept.clear()
    stream(0.5, 3)
    assert slept == [0, 2, 2]


def test_a_delay_is_over_before_the_first_image_is_sent(
    alive: Alive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven seconds, slept once, while the stream still ends where it did; without the option none
    are slept."""
    np.savez(tmp_path / "new.npz", train_images=images(12)[:, 0], train_labels=np.full(12, 7))
    slept: list[tuple[float, int]] = []

    def sleep(seconds: float) -> None:
        slept.append((seconds, len(sent(alive.log, EAST))))

    monkeypatch.setattr(inject, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(outside, "seen", lambda *named, **site: nullcontext(look(alive.log)))
    monkeypatch.setenv("FEDTWIN_KAFKA", "127.0.0.1:9")
    before = len(sent(alive.log, EAST))
    words = ("inject", "spring", "--entity", EAST, "--npz", tmp_path / "new.npz")

    late = told(*words, "--source", "late", "--delay", "7")
    then = sent(alive.log, EAST)
    at_once = told(*words, "--source", "at-once")

    assert slept == [(7.0, before), (0.0, len(then))]
    assert [(first, size) for _, first, size in then[before:]] == [(0, 12)]
    assert (late["new_images"], at_once["new_images"]) == (12, 12)


def test_what_happens_next_depends_on_what_is_known(alive: Alive) -> None:
    """Known classes are trained on; of some that are known elsewhere no row is made; who rests
    looks later, and who has left joins again."""
    alive.stream(EAST, "7", 24)
    alive.after(10)

    def told(entity: str, uid: str, seed: int) -> str:
        return feed(look(alive.log), entity, images(9, seed), [uid] * 9).next

    assert told(EAST, "7", 1).startswith("its twin knows these classes")
    assert "a stage begins, and rounds open when 2 twins are ready" in told(NORTH, "7", 2)
    alive.leave(WEST)
    alive.after(5)
    assert told(WEST, "0", 3).startswith(f"{WEST} had left, and joins again; its twin knows")
    alive.decide(Paused, entity=SOUTH, rests=True)
    alive.settle()
    assert told(SOUTH, "9", 4).startswith(f"{SOUTH} is paused: its twin looks at them when")


def test_an_entity_is_found_by_either_of_its_names(alive: Alive) -> None:
    """The site's own before others; the only one of its name anywhere; nobody else."""
    outside = look(alive.log)

    assert outside.entity("b/south", "a") == SOUTH
    assert outside.entity("south", "a") == SOUTH
    with pytest.raises(ConfigurationError, match=r"no entity 'suoth'.*it has a/east, a/north"):
        outside.entity("suoth", "a")


# --- a recipe's run -------------------------------------------------------------------------------


def sevens(folder: Path, pause: Callable[[int], None], *, running: bool) -> Fed:
    """Images of a class that the schedule has for nobody, into the run's log."""
    train = load("digits", folder, image_size=8).train
    chosen = train.images[np.flatnonzero(train.labels == 7)[:12]]
    with closing(RunFolder(folder).opened()) as log:
        outside = look(log, RunFolder(folder).names())
        return feed(outside, OTHER, chosen, ["7"] * 12, pause=pause, running=lambda: running)


@pytest.mark.usefixtures("blank_figures_here")
def test_a_recipes_run_gets_a_stage_more(tmp_path: Path) -> None:
    """The decision follows the images, once: said again, it is the same stage; resume learns it."""
    folder = ran(tmp_path / "run").path
    first = sevens(folder, lambda turn: None, running=False)
    again = sevens(folder, lambda turn: None, running=False)

    assert (first.stage, first.new_images) == (2, 12)
    assert (again.stage, again.new_images) == (2, 0)
    observed = RunFolder(goes_on(folder).path).observed()
    assert observed.verdicts.of[OTHER].verdicts[2].classes == ("7",)


@pytest.mark.usefixtures("blank_figures_here")
def test_a_recipes_schedule_comes_first(tmp_path: Path) -> None:
    """Stopped while it streamed: nobody would stream the rest, so nothing is sent. While it goes
    on, the injection waits for it."""
    folder, turns, steps = tmp_path / "run", count(1), count()
    waited: list[int] = []

    def stop(run: object) -> None:
        if next(turns) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        runner.start(two_stages(), folder, local(folder), watch=stop)
    with pytest.raises(ConfigurationError, match="had streamed"):
        sevens(folder, waited.append, running=False)
    assert not waited

    def goes(turn: int) -> None:
        waited.append(turn)
        if next(steps) == 0:
            goes_on(folder)

    assert sevens(folder, goes, running=True).stage == 2
    assert waited == [0]


def test_marks_that_name_no_stage_are_no_schedule(alive: Alive) -> None:
    """What an injection marks is not what a schedule does."""
    feed(look(alive.log), EAST, images(12), ["7"] * 12)
    found = alive.log.read(NAMES.of_entity("samples", EAST), 0, 2**24)
    said = [unpack(piece(each.record.value, 2**24).content, 2**24) for each in found]

    assert [each.stage for each in said if isinstance(each, StreamMarked)] == [None]
    assert feeding._marks(look(alive.log), EAST) == set()


# --- which run ------------------------------------------------------------------------------------


def test_a_run_is_named_by_its_folder_its_name_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of a run in one process is none on Kafka; nor is a name where nobody has Kafka."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FEDTWIN_KAFKA", "FEDTWIN_SITE_KAFKA", "FEDTWIN_REDIS", "FEDTWIN_RUN"):
        monkeypatch.delenv(variable, raising=False)
    for name, transport in (("mine", "embedded"), ("theirs", "kafka")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        manifest = {"version": 1, "run": name, "transport": transport}
        (tmp_path / "runs" / name / "manifest.json").write_text(json.dumps(manifest))

    assert on_kafka(Path("runs/mine")) is None
    assert on_kafka(Path("spring")) is None
    with pytest.raises(ConfigurationError, match="which run"):
        on_kafka(None)

    monkeypatch.setenv("FEDTWIN_KAFKA", "127.0.0.1:9")
    monkeypatch.setenv("FEDTWIN_RUN", "autumn")
    assert on_kafka(Path("runs/mine")) is None
    assert on_kafka(Path("no/such/folder")) is None
    said = (None, Path("spring"), Path("runs/theirs"), Path("theirs"))
    found = {str(run): on_kafka(run) for run in said}
    assert {run: each and each.names.run for run, each in found.items()} == {
        "None": "autumn", "spring": "spring", "runs/theirs": "theirs", "theirs": "theirs",
    }  # fmt: skip
    folders = {run: each.folder and each.folder.path.name for run, each in found.items() if each}
    assert folders == {"None": None, "spring": None, "runs/theirs": "theirs", "theirs": "theirs"}
