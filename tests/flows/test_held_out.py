"""Images that twins keep apart score every model, and train none (docs/method.md 8)."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from infra.promises import Result, Task
from infra.transport.unkind import Unkind
from infra.workers import Function
from schemas.messages import ExemplarImage, HeadGrown, Measured, RoundClosed, TwinState
from schemas.topics import parted
from tests.flows.alive import ALL, EAST, NAMES, NORTH, SOUTH, WEST, Alive, whim
from tests.flows.federation import messages
from tests.flows.learner import FAKES
from twins.apart import MOST, is_tenth
from twins.twins import Twins


class Seen:
    """The tasks of a run, and which images each was given, by their bytes."""

    def __init__(self) -> None:
        self.by: defaultdict[str, set[bytes]] = defaultdict(set)
        self.functions: dict[str, Function] = {
            name: self._seeing(name, function) for name, function in FAKES.items()
        }

    def _seeing(self, name: str, function: Function) -> Function:
        def see(task: Task) -> Result:
            for group, tensors in task.groups.items():
                place = f"{name} {group.split('/')[0]}"
                if "images" in tensors and tensors["images"].dtype == "u1":
                    self.by[place] |= {image.tobytes() for image in tensors["images"]}
            return function(task)

        return see

    def trained(self) -> set[bytes]:
        """Whatever may have left a trace in a model or in what judges it.

        What is judged may be kept apart: it trains nothing.
        """
        places = ("herd class", "learn data", "prototypes place", "judge reference")
        return set().union(*(self.by[place] for place in places))


def measured(run: Alive) -> dict[str, dict[str, object]]:
    """First values under each name."""
    found: dict[str, dict[str, object]] = {}
    for message, _ in messages(run.log, NAMES.federation("metrics")):
        if isinstance(message, Measured):
            found.setdefault(message.name, message.values)
    return found


def images_in(values: dict[str, object]) -> int:
    """How many images a confusion matrix counts."""
    return sum(map(sum, values["counts"]))  # type: ignore[call-overload]


def newest(run: Alive) -> int:
    """Version of the newest model."""
    assert run.line.model is not None
    return run.line.model.version


def diary(run: Alive, entity: str) -> Iterator[TwinState | ExemplarImage]:
    """What a twin wrote about itself and did not let go."""
    for message, _ in messages(run.log, NAMES.of_entity("twin-state", entity)):
        assert isinstance(message, TwinState | ExemplarImage)
        yield message


def tenths(count: int) -> list[int]:
    """Numbers of the camera's images that are kept apart, while there are not too many."""
    return [number for number in range(count) if is_tenth("camera", number)]


def test_what_is_kept_apart_trains_no_model() -> None:
    """Over two stages each tenth image scores models, and is in no training, no memory, no
    reference and no prototype; every other image has been trained on."""
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    sent = {entity: [*run.stream(entity, "012", 20)] for entity in (NORTH, EAST, SOUTH, WEST)}
    run.after(11)
    sent[EAST] += [*run.stream(EAST, "7", 40)]
    run.after(11)
    run.stream(EAST, "8", 40)
    run.after(11)

    assert len(run.line.stages) == 3
    for images in sent.values():
        apart = {images[number].tobytes() for number in tenths(len(images))}
        rest = {image.tobytes() for image in images} - apart
        assert len(apart) >= 5
        assert not apart & seen.trained()
        assert apart <= seen.by["held-out images"]
        assert rest <= seen.trained()
        assert not rest & seen.by["held-out images"]


def test_every_model_that_stays_the_newest_is_scored_by_each_twin() -> None:
    """Of those that come faster some may be passed over; a matrix has a row for each class."""
    run = Alive()
    run.settle()
    for entity in (NORTH, SOUTH):
        run.stream(entity, "012", 20)
    run.stream(SOUTH, "9", 7)  # one too few to be announced, so it has no row
    run.after(11)

    versions = [each.model for each in run.line.decisions.values()
                if isinstance(each, HeadGrown | RoundClosed)]  # fmt: skip
    told = measured(run)
    assert [model.version for model in versions] == [1, 2, 3, 4]
    assert set(told) <= {f"held-out/{entity}/{m.version}" for entity in ALL for m in versions}
    assert {f"held-out/{entity}/4" for entity in ALL} <= set(told)
    for name, values in told.items():
        model = versions[int(name.rsplit("/", 1)[1]) - 1]
        images = len(tenths(60)) if name.split("/", 1)[1].startswith((NORTH, SOUTH)) else 0
        assert values["model"] == model.sha256
        assert values["classes"] == ("0", "1", "2")
        assert images_in(values) == images  # who has none yet says so


def test_it_is_scored_when_nothing_else_is_to_be_done() -> None:
    """All trainings of a round are done before the model that opened it is scored."""
    order: list[str] = []

    def noting(name: str) -> Function:
        return lambda task: [order.append(name), FAKES[name](task)][1]  # type: ignore[return-value, func-returns-value]

    run = Alive(functions={name: noting(name) for name in FAKES})
    run.settle()
    for entity in (NORTH, EAST, SOUTH, WEST):
        run.stream(entity, "012", 20)
    run.after(11)

    first = order.index("held-out")
    assert order[:first].count("learn") >= 4


def test_twins_of_one_process_share_one_copy_of_the_model() -> None:
    """Four entities of a site: each model is loaded once, and each says its own counts."""
    tasks: list[Task] = []

    def noted(task: Task) -> Result:
        tasks.append(task)
        return FAKES["held-out"](task)

    names = [f"a/ward-{n}" for n in range(4)]
    run = Alive(entities=(), functions={**FAKES, "held-out": noted})
    twins = Twins(NAMES, "a", run.shelf, names)
    run.join(twins)
    run.settle()
    for entity in names:
        run.stream(entity, "012", 20)
    run.after(11)

    versions = {name.rsplit("/", 1)[1] for name in measured(run)}
    assert len(tasks) == len(versions) == 4
    assert len(measured(run)) == 16
    assert all(len(task.values["rows"]) == 4 for task in tasks)


def test_it_outlives_its_twin() -> None:
    """Its stream is trimmed and its process gone: who takes over has the same images to score on,
    those that its states name and those that came since, and no others."""
    run = Alive()
    run.settle()
    for entity in (NORTH, EAST, SOUTH):
        run.stream(entity, "012", 20)
    run.after(11)
    run.stream(EAST, "7", 40)
    run.after(11)
    run.stream(EAST, "8", 40)
    run.after(11)
    assert run.log.first(NAMES.of_entity("samples", EAST)) > 0
    before = measured(run)[f"held-out/{EAST}/{newest(run)}"]
    assert images_in(before) == len(tenths(140))

    run.vanish(EAST)
    run.join(Twins(NAMES, parted(EAST)[0], run.shelf, [EAST]))
    run.stream(EAST, "0", 40)
    run.after(1)
    after = measured(run)[f"held-out/{EAST}/{newest(run)}"]

    assert images_in(after) == len(tenths(180))
    pairs = zip(before["counts"], after["counts"], strict=True)  # type: ignore[call-overload]
    grew = [sum(now) - sum(then) for then, now in pairs]
    assert grew == [len(tenths(180)) - len(tenths(140)), 0, 0, 0, 0]


def test_a_class_keeps_fifty_and_trains_on_what_comes_later() -> None:
    """Class 0 comes twice, 67 of its images are tenths: fifty are kept, and pixels of no more.

    Of classes 1 and 2 all tenths are kept, for there are fewer.
    """
    run = Alive(entities=(NORTH, EAST))
    run.settle()
    for entity in (NORTH, EAST):
        run.stream(entity, "012", 300)
    run.after(11)
    run.stream(EAST, "7", 24)
    run.stream(EAST, "0", 300)
    run.after(11)
    run.stream(EAST, "8", 24)
    run.after(11)

    per_class = {
        uid: len(tenths(300 * (i + 1))) - len(tenths(300 * i)) for i, uid in enumerate("012")
    }
    again = len(tenths(1224)) - len(tenths(924))
    assert per_class["0"] + again == 67
    *_, state = (each for each in diary(run, EAST) if isinstance(each, TwinState))
    kept = Counter(each.label for each in diary(run, EAST)
                   if isinstance(each, ExemplarImage) and each.apart is not None)  # fmt: skip
    assert {uid: len(images) for uid, images in state.apart.items()} == dict(kept)
    assert [kept[uid] for uid in "012"] == [MOST, per_class["1"], per_class["2"]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_copies_over_an_unkind_log_keep_the_same_images(seed: int) -> None:
    """Two of each role in any order: of each state's images the pixels are there, once and right,
    and none is among what was trained on."""
    chance, seen = random.Random(seed), Seen()
    run = Alive(
        over=lambda log: Unkind(log, chance, 0.3), copies=2, order=whim(seed),
        functions=seen.functions,
    )  # fmt: skip
    run.settle()
    sent: dict[str, list[bytes]] = {entity: [] for entity in (NORTH, EAST, SOUTH, WEST)}
    for uids in ("012", "34", "56", "012", "7"):
        for entity in chance.sample(list(sent), 3):
            images = run.stream(entity, uids, chance.randint(12, 30))
            sent[entity] += [image.tobytes() for image in images]
        run.after(chance.choice((11, 70)))
    for _ in range(6):
        run.after(61)

    for entity, its in sent.items():
        states = [each for each in diary(run, entity) if isinstance(each, TwinState)]
        pixels = {
            (each.source, each.image): each.groups["images"]["images"].tobytes()
            for each in diary(run, entity)
            if isinstance(each, ExemplarImage)
        }
        named = [image for of_class in states[-1].apart.values() for image in of_class]
        assert sorted(number for _, number in named) == tenths(states[-1].apart_to)
        assert all(pixels[image] == its[image[1]] for image in named)
        assert not {its[number] for number in tenths(len(its))} & seen.trained()
