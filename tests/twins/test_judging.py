"""How a twin comes to its verdict: what is looked at, when, and by which model (docs/method.md 3).

Models are lamps: a white image has logits of its own, a black one the biases. Most often these are
(20, -20) and (0, 0): the model is sure of white images and has no idea of black ones. Beside two
virtual rows it then has an entropy of 0 and of ln 4 = 1.386 nats.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from math import log, nan
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.promises import Answer, Arrived, Do, Place, Say, Task
from learning.shapes import Weights
from schemas.codec import pack
from schemas.line import NotYet
from schemas.messages import (
    DataFacts,
    Groups,
    ImageBatch,
    Message,
    ModelName,
    RunOpened,
    StreamMarked,
    Tensors,
    Transforms,
    WindowJudged,
)
from schemas.schedule import Client, Schedule, Stage
from schemas.seeds import generator
from schemas.topics import Names, parted
from tests.lamp import lamp, shades
from tests.schemas.decisions import HONEST, RUN, addition, growth
from tests.schemas.specimens import NORTH, facts, model, recipe
from twins.learner import judge
from twins.shared import Shared
from twins.twins import Twins

NAMES = Names("story")
SEED = recipe().seed
LN2, LN3, LN4 = log(2), log(3), log(4)
GUARD = 1e-4
"""What the guard in the logarithm takes is below this."""
SURE_OF_WHITE = lamp([20, -20], [0, 0])


# --- the worker's part ----------------------------------------------------------------------------


def asked(
    weights: Weights,
    window: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    virtual: int = 2,
    data: DataFacts | None = None,
) -> dict[str, Any]:
    """What `judge` says of these images."""
    values = {
        "virtual": virtual,
        "configuration": recipe().model_dump(mode="json"),
        "data": (data or facts()).model_dump(mode="json"),
    }
    images: Groups = {"window": {"images": window}, "reference": {"images": reference}}
    return judge(Task("judge", values, {"model": weights, **images})).values


def test_virtual_rows_stand_beside_a_head_of_biases() -> None:
    """Both at -ln 3, and two virtual zeros: p = (1, 1, 3, 3)/8, so 3 ln 2 - 3/4 ln 3 = 1.2555.

    Without virtual rows it is ln 2, beside one p = (1, 1, 3)/5: ln 5 - 3/5 ln 3 = 0.9503.
    """
    biased = lamp([0, 0], [-LN3, -LN3])
    said = [
        asked(biased, shades([1.0]), shades([1.0]), virtual)["entropy"] for virtual in (2, 1, 0)
    ]

    assert said == pytest.approx([3 * LN2 - 0.75 * LN3, log(5) - 0.6 * LN3, LN2], abs=GUARD)


def test_entropies_are_means_of_the_window_and_of_known_images() -> None:
    """White has logits (ln 3, 0 | 0, 0), p = (3, 1, 1, 1)/6: ln 2 + ln 3 / 2. Black has ln 4.

    A window of one white and three black images, and a reference of two white ones.
    """
    white = LN2 + LN3 / 2
    said = asked(lamp([LN3, 0], [0, 0]), shades([0, 1, 0, 0]), shades([1, 1]))

    assert said["entropy"] == pytest.approx((white + 3 * LN4) / 4, abs=GUARD)
    assert said["reference"] == pytest.approx(white, abs=GUARD)
    assert said["reason"] is None


def test_images_are_looked_at_as_they_are() -> None:
    """A recipe that crops and brightens while it trains judges to the last bit as one without."""
    varied = Transforms(
        mean=(0.5,), std=(0.5,), crop_padding=2, horizontal_flip=True, brightness=0.9
    )
    window, known = shades([0.5, 0.75, 1.0] * 20), shades([1.0] * 30)
    model = lamp([LN3, 0], [0, 0])

    assert asked(model, window, known) == asked(
        model, window, known, data=facts().model_copy(update={"transforms": varied})
    )


def test_at_first_contact_there_is_only_the_window() -> None:
    """The first model has no row: five virtual ones give ln 5, and nothing is known."""
    said = asked(lamp([], []), shades([0, 1]), shades([]), virtual=5)

    assert said == {"entropy": pytest.approx(log(5), abs=GUARD), "reference": None, "reason": None}


def overflowing() -> Weights:
    """Black images have logits (0, 0), white ones (infinity, 0), though every weight is finite."""
    weights = lamp([3e38, 0], [0, 0])
    weights["conv1.weight"] *= 10
    return weights


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("weights", "window", "reference"),
    [
        (lamp([0, 0], [nan, 0]), [0.0], []),
        (overflowing(), [0.0, 1.0], [0.0]),
        (overflowing(), [0.0, 0.0], [1.0]),
        (SURE_OF_WHITE, [], [1.0]),
    ],
)
def test_what_has_no_entropy_is_answered_by_a_form_without_content(
    weights: Weights, window: Sequence[float], reference: Sequence[float]
) -> None:
    """A logit that is no number, or no image: neither of the two numbers, and a reason."""
    said = asked(weights, shades(window), shades(reference))

    assert (said["entropy"], said["reference"]) == (None, None)
    assert "not finite" in said["reason"]


# --- the rise that counts -------------------------------------------------------------------------


def shared(**overrides: Any) -> Shared:
    """A run of three classes, then two; decided up to the growth of stage 0."""
    config = recipe(classes_per_stage=(3, 2), **overrides)
    stages = tuple(
        Stage(
            classes=uids,
            clients=(Client(entity=NORTH, group="B", classes=uids),),
            sampled=((NORTH,),) * 2,
        )
        for uids in (("0", "1", "2"), ("3", "4"))
    )
    read = Shared(NAMES)
    opened = RunOpened(
        run="",
        number=0,
        configuration=config,
        data=facts(5),
        schedule=Schedule(stages=stages),
        model=model(0),
    )
    rows = {"0": 0, "1": 1, "2": 2}
    assert read.line.hear(opened, RUN)
    assert read.line.hear(growth(1, 0, 1, rows=rows, prototypes=()), "")
    return read


def test_virtual_rows_are_the_classes_that_a_stage_expects() -> None:
    """Three and two; a stage that was added is like the schedule's last."""
    read = shared()
    read.line.hear(addition(2, (NORTH, 9)), "")

    assert [read.virtual_rows(stage) for stage in range(3)] == [3, 2, 2]


def test_a_head_before_its_growth_has_none_but_in_stage_0() -> None:
    """`pre_growth`: only where there is no row at all an entropy needs some."""
    read = shared(entropy_head="pre_growth")
    read.line.hear(addition(2, (NORTH, 9)), "")

    assert [read.virtual_rows(stage) for stage in range(3)] == [3, 0, 0]


def test_a_relative_rise_goes_by_the_rows_of_earlier_stages_and_the_virtual_ones() -> None:
    """0.3 ln(0 + 3), though stage 0 has grown by now; 0.3 ln(3 + 2) in stage 1.

    `pre_growth` has 0.3 ln 3 in stage 1, and an absolute rise is 1.2 everywhere.
    """
    relative, before = ({"threshold_mode": "relative", "entropy_head": head}
                        for head in ("virtual", "pre_growth"))  # fmt: skip

    assert [shared(**relative).rise(stage) for stage in (0, 1)] == pytest.approx(
        [0.3 * LN3, 0.3 * log(5)]
    )
    assert shared(**before).rise(1) == pytest.approx(0.3 * LN3)
    assert [shared().rise(stage) for stage in (0, 1)] == [1.2, 1.2]


def test_an_added_stage_counts_the_rows_of_all_stages_before_it() -> None:
    """Three rows and two are old, two are virtual: 0.3 ln 7."""
    read = shared(threshold_mode="relative")
    read.line.stage_of_row = (0, 0, 0, 1, 1)

    assert read.rise(2) == pytest.approx(0.3 * log(7))


# --- the twin's part ------------------------------------------------------------------------------


class Story:
    """The twin of the north: it hears what it is told and what it says, and is judged for at once.

    All models are in its library, and so are the messages that it heard.
    """

    def __init__(self, weights: Weights = SURE_OF_WHITE) -> None:
        self.role = Twins(NAMES, "local", self, entities=[NORTH])
        self.tasks: list[Task] = []
        """What was to be judged."""
        self.models: list[ModelName] = []
        """By which models."""
        self.fetched: list[ModelName] = []
        """Models that were looked for before they were needed."""
        self.verdicts: list[WindowJudged] = []
        self._weights = weights
        self._held: dict[Place, Message] = {}
        self._later: list[Arrived] = []

    def tell(self, *messages: Message) -> None:
        """Each message arrives, and the twin answers."""
        for message in messages:
            self._arrive(message)
            self._take(self.role.answers())

    def _arrive(self, message: Message) -> None:
        place = Place(topic_of(message), (len(self._held),))
        self._held[place] = message
        waiting = [*self._later, Arrived(place, pack(message).hash, message)]
        self._later = []
        for arrived in waiting:
            try:
                self.role.hear(arrived)
            except NotYet:
                self._later.append(arrived)

    def _take(self, answers: Any) -> None:
        answer: Answer
        for answer in answers:
            if isinstance(answer, Say):
                if isinstance(answer.message, WindowJudged):
                    self.verdicts.append(answer.message)
                self.tell(answer.message)
            elif isinstance(answer, Do) and answer.id[0] == "judge":
                self.tasks.append(answer.prepare(self))
                self._take(self.role.done(answer.id, judge(self.tasks[-1])))

    def message(self, place: Place) -> Message:
        """What lies there."""
        return self._held[place]

    def model(self, name: ModelName) -> Tensors:
        """The first model has no row; of the others one is like another."""
        self.models.append(name)
        return lamp([], []) if name.version == 0 else self._weights

    old_model = model

    def groups(self, name: ModelName) -> Groups:
        """The same."""
        return {"model": self.model(name)}

    def has(self, name: ModelName) -> bool:
        """It is asked for as soon as it is wanted; nobody sends an update here."""
        self.fetched.append(name)
        return False

    def at_hand(self, name: ModelName) -> bool:
        """Nobody publishes a model here."""
        return False

    def names(self, *, at_hand: bool = False) -> dict[ModelName, int]:
        """Nobody lets a model go here."""
        return {}

    def drop(self, name: ModelName) -> None:
        """Likewise."""


def topic_of(message: Message) -> str:
    """Where a message of this story stands."""
    match message:
        case ImageBatch() | StreamMarked():
            return NAMES.of_entity("samples", NORTH)
        case _ if getattr(message, "line", "") == "rounds":
            return NAMES.federation("rounds")
        case _ if getattr(message, "line", "") == "classes":
            return NAMES.of_site("classes", parted(NORTH)[0])
        case _:
            return NAMES.of_entity("twin-state", NORTH)


def batch(first: int, classes: Sequence[str], brightness: float) -> ImageBatch:
    """Images of one grey; each has its number in its last two pixels, which a lamp does not see."""
    images = shades([brightness] * len(classes))
    for number, image in enumerate(images, start=first):
        image[0, 3, 2:] = divmod(number, 256)
    return ImageBatch(
        run=RUN,
        source="camera",
        first=first,
        classes=tuple(classes),
        groups={"images": {"images": images}},
    )


def numbers(task: Task, group: str) -> list[int]:
    """Which images a task looks at, in its order."""
    corners = task.groups[group]["images"][:, 0, -1, -2:].tolist()
    return [256 * high + low for high, low in corners]


def mark(stage: int, count: int) -> StreamMarked:
    """So many images of the camera belong to the stage."""
    return StreamMarked(run=RUN, source="camera", count=count, stage=stage)


OPENED, GROWN, *ROUNDS, CLOSED = HONEST[:7]
"""Of stage 0; with it the versions 1, 2 and 3 come."""
KNOWN = batch(0, ["0", "1"] * 10, 1.0)
"""Twenty white images, ten of each class of stage 0."""


def after_stage_0(weights: Weights = SURE_OF_WHITE) -> Story:
    """The twin was judged for stage 0, which then grew and went through its rounds."""
    story = Story(weights)
    story.tell(OPENED, KNOWN, mark(0, 20), GROWN, *ROUNDS, CLOSED)
    assert [verdict.classes for verdict in story.verdicts] == [("0", "1")]
    return story


def test_first_contact_is_judged_by_the_model_that_opened_the_run() -> None:
    """It has no row, and two virtual ones give ln 2; nothing is known to compare with."""
    verdict, *others = after_stage_0().verdicts

    assert not others
    assert (verdict.stage, verdict.model, verdict.position) == (0, model(0), 20)
    assert (verdict.verdict, verdict.classes, verdict.first_contact) == ("new", ("0", "1"), True)
    assert verdict.entropy == pytest.approx(LN2, abs=GUARD)
    assert verdict.reference == 0


def test_a_jump_among_known_labels_is_suspected() -> None:
    """Twelve black images under the label of a known class: ln 4 - 0 = 1.386 exceeds 1.2."""
    story = after_stage_0()
    story.tell(batch(20, ["0"] * 12, 0.0), mark(1, 32))
    verdict = story.verdicts[1]

    assert verdict.entropy == pytest.approx(LN4, abs=GUARD)
    assert verdict.reference == pytest.approx(0, abs=GUARD)
    assert (verdict.threshold, verdict.verdict, verdict.classes) == (1.2, "suspected", ())


def test_labels_are_enough_where_the_entropy_saw_nothing() -> None:
    """Eight white images of a new class: no rise at all, and the verdict names it."""
    story = after_stage_0()
    story.tell(batch(20, ["2"] * 8, 1.0), mark(1, 28))
    verdict = story.verdicts[1]

    assert verdict.entropy == pytest.approx(0, abs=GUARD)
    assert (verdict.verdict, verdict.classes, verdict.images) == ("new", ("2",), {"2": 8})


def test_a_window_without_images_has_no_entropy_and_is_known() -> None:
    """The mark comes at once behind the last: no task for a worker, a reason instead of numbers."""
    story = after_stage_0()
    story.tell(mark(1, 20))
    verdict = story.verdicts[1]

    assert len(story.tasks) == 1  # of stage 0
    assert (verdict.entropy, verdict.reference) == (None, None)
    assert (verdict.verdict, verdict.reason) == ("known", "no image to judge")


def test_an_entropy_that_is_not_finite_leaves_it_to_the_labels() -> None:
    """The model of stage 1 says nothing of any image: no number, a reason, and a new class."""
    story = after_stage_0(lamp([nan, 0], [0, 0]))
    story.tell(batch(20, ["2"] * 8, 0.0), mark(1, 28))
    verdict = story.verdicts[1]

    assert (verdict.entropy, verdict.reference) == (None, None)
    assert verdict.reason == "the model's entropy is not finite"
    assert (verdict.verdict, verdict.classes) == ("new", ("2",))


def drawn(images: int, most: int, which: int, stage: int) -> list[int]:
    """The indices of a seeded draw, in order."""
    chance = generator(SEED, f"detect/{which}", NORTH, stage)
    return sorted(chance.choice(images, most, replace=False).tolist())


def test_of_a_long_window_256_images_are_drawn_and_512_of_what_is_known() -> None:
    """600 images in stage 0, and 300 in stage 1: by the purposes detect/0 and detect/1.

    They are looked at in the order of their positions. Nothing is known in stage 0.
    """
    story = Story()
    story.tell(OPENED, batch(0, ["0", "1"] * 300, 1.0), mark(0, 600), GROWN, *ROUNDS, CLOSED)
    story.tell(batch(600, ["2"] * 300, 0.0), mark(1, 900))
    first, second = story.tasks

    assert numbers(first, "window") == drawn(600, 256, 0, stage=0)
    assert numbers(first, "reference") == []
    assert numbers(second, "window") == [600 + i for i in drawn(300, 256, 0, stage=1)]
    assert numbers(second, "reference") == drawn(600, 512, 1, stage=1)


def test_as_many_as_may_be_drawn_are_all_looked_at() -> None:
    """256 images in a window, 512 known: none is left out, and none stands elsewhere."""
    story = Story()
    story.tell(OPENED, batch(0, ["0", "1"] * 256, 1.0), mark(0, 512), GROWN, *ROUNDS, CLOSED)
    story.tell(batch(512, ["2"] * 256, 0.0), mark(1, 768))

    assert numbers(story.tasks[1], "window") == list(range(512, 768))
    assert numbers(story.tasks[1], "reference") == list(range(512))


def test_labels_are_counted_in_the_whole_window_never_in_the_draw() -> None:
    """Of 300 images 44 are not drawn. Eight of those are of class 3, which is found all the same.

    Seven others are of class 9, and wait.
    """
    unseen = sorted(set(range(300)) - set(drawn(300, 256, 0, stage=1)))
    classes = ["2"] * 300
    for index in unseen[:8]:
        classes[index] = "3"
    for index in unseen[8:15]:
        classes[index] = "9"
    story = after_stage_0()
    story.tell(batch(20, classes, 0.0), mark(1, 320))
    verdict = story.verdicts[1]

    looked_at = {classes[number - 20] for number in numbers(story.tasks[1], "window")}
    assert looked_at == {"2"}
    assert verdict.images == {"2": 285, "3": 8, "9": 7}
    assert verdict.classes == ("2", "3")


def test_a_burst_of_a_few_images_is_judged_at_its_mark() -> None:
    """Nine are far fewer than 64: nothing before the mark, all of them with it."""
    story = after_stage_0()
    story.tell(batch(20, ["2"] * 9, 0.0))
    assert len(story.verdicts) == 1

    story.tell(mark(1, 29))

    assert numbers(story.tasks[1], "window") == list(range(20, 29))
    assert story.verdicts[1].classes == ("2",)


def test_a_new_version_alone_triggers_nothing() -> None:
    """Nor does the end of a stage: 80 images lie there, and only their mark has them judged."""
    story = Story()
    story.tell(OPENED, KNOWN, mark(0, 20))
    story.tell(batch(20, ["2"] * 80, 0.0))
    for decision in (GROWN, *ROUNDS, CLOSED):
        story.tell(decision)
        assert len(story.verdicts) == 1

    story.tell(mark(1, 100))

    assert [verdict.model for verdict in story.verdicts] == [model(0), model(3)]


def test_a_mark_waits_for_the_version_with_which_the_stage_before_ends() -> None:
    """Versions 1 and 2 do not judge, and 3 not before it is known to be the last."""
    story = Story()
    story.tell(OPENED, KNOWN, mark(0, 20), batch(20, ["2"] * 80, 0.0), mark(1, 100))
    story.tell(GROWN, *ROUNDS)
    assert len(story.verdicts) == 1

    story.tell(CLOSED)

    assert story.models == [model(0), model(3)]


def test_a_stage_is_judged_once() -> None:
    """A mark that comes again, and more images behind it, bring no second verdict."""
    story = after_stage_0()
    story.tell(batch(20, ["2"] * 9, 0.0), mark(1, 29), mark(1, 29), batch(29, ["3"] * 9, 0.0))
    story.tell(mark(1, 38))

    assert [verdict.stage for verdict in story.verdicts] == [0, 1]
    assert story.verdicts[1].images == {"2": 9}


def test_who_took_part_in_a_round_fetches_its_model_at_once() -> None:
    """Versions 2 and 3, before a round that begins from them opens.

    Who reads of both rounds in one go fetches none: the stage is closed by then.
    """
    late = Story()
    for message in (OPENED, KNOWN, mark(0, 20), GROWN, *ROUNDS, CLOSED):
        late._arrive(message)
    late._take(late.role.answers())

    assert after_stage_0().fetched == [model(2), model(3)]
    assert late.fetched == []


BLACK = batch(20, ["0"] * 6 + ["2"] * 9, 0.0)


def as_expected(story: Story) -> None:
    """What is said of the black images, in whatever order things came."""
    (verdict,) = story.verdicts[1:]
    assert numbers(story.tasks[1], "window") == list(range(20, 35))
    assert numbers(story.tasks[1], "reference") == list(range(20))
    assert (verdict.number, verdict.position, verdict.model) == (2, 35, model(3))
    assert (verdict.verdict, verdict.classes) == ("new", ("2",))
    assert verdict.images == {"0": 6, "2": 9}
    assert verdict.entropy == pytest.approx(LN4, abs=GUARD)
    assert verdict.reference == pytest.approx(0, abs=GUARD)


@pytest.mark.parametrize("order", list(itertools.permutations(("samples", "mark", "model"))))
def test_samples_mark_and_model_may_come_in_any_order(order: tuple[str, ...]) -> None:
    """Nothing is said before the last of the three, and then the same."""
    story = Story()
    story.tell(OPENED, KNOWN, mark(0, 20), GROWN, *ROUNDS)
    what: dict[str, Message] = {"samples": BLACK, "mark": mark(1, 35), "model": CLOSED}

    for name in order:
        assert len(story.verdicts) == 1
        story.tell(what[name])

    as_expected(story)


@pytest.mark.parametrize("seed", range(20))
def test_a_verdict_does_not_depend_on_how_topics_are_mixed(seed: int) -> None:
    """Images piece by piece, and decisions between them: each topic in its own order."""
    chance = random.Random(seed)
    pieces = [batch(20, ["0"] * 6, 0.0), batch(26, ["2"] * 4, 0.0), batch(30, ["2"] * 5, 0.0)]
    samples: list[Message] = [*pieces, mark(1, 35)]
    lines: list[list[Message]] = [samples, [GROWN, *ROUNDS, CLOSED]]
    story = Story()
    story.tell(OPENED, KNOWN, mark(0, 20))

    while any(lines):
        story.tell(chance.choice([line for line in lines if line]).pop(0))

    as_expected(story)
