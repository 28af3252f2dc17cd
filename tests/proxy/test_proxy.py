"""The proxy waits for what a stage lists, scores, and names the teacher (docs/method.md 6.6)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.recipes import recipe
from experiments.system import SITE, opening_of
from infra.promises import Answer, Arrived, Do, Keep, Place, Result, Say, Score, Task, Trim
from learning.encoder import encoder_shapes
from producers.images import Dataset, Part
from proxy.proxy import Proxy
from schemas.configuration import Configuration
from schemas.errors import Refused
from schemas.line import NotYet
from schemas.messages import (
    Groups,
    HeadGrown,
    Message,
    ModelName,
    Participant,
    PrototypeGradient,
    RoundClosed,
    RoundOpened,
    RunOpened,
    StageClosed,
    TeacherChosen,
    Tensors,
    Transforms,
)
from schemas.topics import Names

RUN = "a" * 64
NAMES = Names("story")
NORTH, SOUTH = "local/entity-000", "local/entity-001"


def name(version: int) -> ModelName:
    """A model of this version."""
    return ModelName(version=version, sha256=f"{version:064x}")


def dataset() -> Dataset:
    """Four classes, one grey image each."""
    part = Part(np.zeros((4, 1, 16, 16), np.uint8), np.arange(4))
    uids = ("0", "1", "2", "3")
    look = Transforms(mean=(0.5,), std=(0.5,))
    return Dataset(
        "grey",
        part,
        part,
        part,
        uids,
        uids,
        look,
        4,
        "public domain",
        "nobody",
        "1",
        "b" * 64,
        True,
    )


def decisions(rounds: int = 2, **overrides: Any) -> list[Message]:
    """A run of two stages of two classes; stage 0 is closed and lists three prototypes."""
    config = recipe(
        "tiny",
        overrides={
            "clients": 2,
            "clients_per_round": 1,
            "classes_per_stage": 2,
            "iid": 1.0,
            "rounds_per_stage": rounds,
            "warmup": 0,
            "n_lab": 1,
            **overrides,
        },
    )
    opening = opening_of(config, dataset())
    expected = ((NORTH, ("0", "1")), (SOUTH, ("1",)))
    return [
        RunOpened(
            run="",
            number=0,
            configuration=config,
            data=opening.data,
            schedule=opening.schedule,
            model=name(0),
        ),
        HeadGrown(
            run=RUN, number=1, stage=0, rows={"0": 0, "1": 1}, prototypes=expected, model=name(1)
        ),
        *trained(config, 0, 2, 1),
    ]


def trained(config: Configuration, stage: int, number: int, version: int) -> list[Message]:
    """The rounds of a stage and its end, from a decision's number and a model's version on."""
    line: list[Message] = []
    for round in range(config.rounds_per_stage):
        line += [
            RoundOpened(
                run=RUN,
                number=number + len(line),
                stage=stage,
                round=round,
                base=name(version + round),
                teacher=None,
                learning_rate=0.5,
                participants=(Participant(entity=NORTH, weight=1, position=1),),
            ),
            RoundClosed(
                run=RUN,
                number=number + len(line) + 1,
                opened=number + len(line),
                stage=stage,
                round=round,
                counted=((NORTH, "c" * 64),),
                withheld=(),
                model=name(version + round + 1),
            ),
        ]
    candidates = tuple(
        name(version + round + 1) for round in range(config.warm_up, config.rounds_per_stage)
    )
    end = StageClosed(
        run=RUN,
        number=number + len(line),
        stage=stage,
        candidates=candidates,
        last=candidates[-1],
    )
    return [*line, end]


def gradient(
    row: int, place: int, entity: str, label: int | None = None, stage: int = 0
) -> PrototypeGradient:
    """An answer for a place: a gradient that tells class `label`, the right one unless given."""
    told = row if label is None else label
    arrays = {
        key: np.zeros(shape, np.float32) for key, shape in encoder_shapes(1, 16, 16, 4).items()
    }
    arrays["head.weight"][told] = arrays["head.bias"][told] = -0.5
    arrays["conv1.bias"][0] = grey(stage, entity, place)
    return PrototypeGradient(
        run=RUN, entity=entity, stage=stage, place=place, groups={"gradient": arrays}
    )


def grey(stage: int, entity: str, place: int) -> float:
    """Of the image that is rebuilt from a gradient here: each has its own."""
    return (100 * (stage + 1) + 10 * (entity == SOUTH) + place) / 1000


def gradients() -> list[Message]:
    """All that stage 0 waits for."""
    return [gradient(0, 0, NORTH), gradient(1, 1, NORTH), gradient(1, 0, SOUTH)]


class Held:
    """A library that holds the gradients, in the order of the list, and any model."""

    def __init__(self, held: dict[Place, Message]) -> None:
        self._held = held

    def message(self, place: Place) -> Message:
        """What lies there."""
        return self._held[place]

    def model(self, name: ModelName) -> Tensors:
        """Nothing: nobody looks."""
        return {}

    def groups(self, name: ModelName) -> Groups:
        """Nothing: nobody looks."""
        return {}

    old_model = model


class Story:
    """A proxy that is told messages one by one; what must wait is told again."""

    def __init__(self) -> None:
        self.proxy = Proxy(NAMES, [SITE])
        self.later: list[Arrived] = []
        self.refused: list[str] = []
        self.said: list[TeacherChosen] = []
        self.tasks: list[Do] = []
        self.prepared: list[Task] = []
        self.held: dict[Place, Message] = {}
        self.kept: list[Keep] = []
        self.scores: list[Score] = []
        self.trims: list[Trim] = []
        self.offset = 0

    def tell(self, *messages: Message) -> None:
        """Each message arrives, and the proxy answers."""
        for message in messages:
            self.offset += 1
            place = Place(topic_of(message), (self.offset,))
            self.held[place] = message
            self._hear(Arrived(place, hash_of(message), message))
            waiting, self.later = self.later, []
            for arrived in waiting:
                self._hear(arrived)
            self._take(self.proxy.answers())

    def finish(self, scores: dict[int, float]) -> None:
        """Workers rebuild the prototypes and give each candidate its score."""
        while self.tasks:
            task = self.tasks.pop(0)
            prepared = task.prepare(Held(self.held))
            self.prepared.append(prepared)
            if task.id[0] == "reconstruct":
                images = rebuilt(prepared)
                answers = self.proxy.done(task.id, Result({}, {"rebuilt": {"images": images}}))
            else:
                score = scores[int(task.id[2])]
                answers = self.proxy.done(task.id, Result({"score": score}, {}))
            self._take(answers)
            self._take(self.proxy.answers())

    def _hear(self, arrived: Arrived) -> None:
        try:
            self.proxy.hear(arrived)
        except NotYet:
            self.later.append(arrived)
        except Refused as refused:
            self.refused.append(refused.reason)

    def _take(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Say) and isinstance(answer.message, TeacherChosen):
                self.said.append(answer.message)
            elif isinstance(answer, Do):
                self.tasks.append(answer)
            elif isinstance(answer, Keep):
                self.kept.append(answer)
            elif isinstance(answer, Score):
                self.scores.append(answer)
            elif isinstance(answer, Trim):
                self.trims.append(answer)


def rebuilt(task: Task) -> NDArray[np.float32]:
    """An image for each gradient of a task, as grey as the gradient says."""
    told = [task.groups[f"gradient/{i}"]["conv1.bias"][0] for i in range(len(task.values["rows"]))]
    return np.tile(np.array(told, np.float32)[:, None, None, None], (1, 1, 16, 16))


def topic_of(message: Message) -> str:
    """Where a message of this kind stands."""
    if isinstance(message, PrototypeGradient):
        return NAMES.of_site("prototypes", SITE)
    return NAMES.federation("rounds")


def hash_of(message: Message) -> str:
    """RunOpened's hash names the run; the others' do not matter here."""
    return RUN if isinstance(message, RunOpened) else "d" * 64


def test_the_teacher_is_the_best_candidate_of_the_stage_before() -> None:
    """Versions 2 and 3 score 0.9 and 0.4: version 2 teaches stage 1, and the scores are told."""
    story = Story()
    story.tell(*decisions(), *gradients())
    story.finish({2: 0.9, 3: 0.4})

    (chosen,) = story.said
    assert (chosen.stage, chosen.teacher, chosen.number) == (1, name(2), 0)
    assert chosen.scores == ((2, 0.9), (3, 0.4))
    assert len(chosen.used) == 3


def test_candidates_are_kept_with_their_round_and_their_scores() -> None:
    """Rounds 0 and 1 were closed by versions 2 and 3; each score is written beside its model."""
    story = Story()
    story.tell(*decisions(), *gradients())
    story.finish({2: 0.9, 3: 0.4})

    assert story.kept[:2] == [Keep(name(2), 0, 0), Keep(name(3), 0, 1)]
    assert story.scores == [Score(name(2), 0, 0.9), Score(name(3), 0, 0.4)]


def test_equal_scores_go_to_the_later_version() -> None:
    """Both score 0.5: version 3 teaches."""
    story = Story()
    story.tell(*decisions(), *gradients())
    story.finish({2: 0.5, 3: 0.5})

    assert story.said[0].teacher == name(3)


def test_the_choice_does_not_depend_on_the_order_of_arrival() -> None:
    """Thirty orders of the same topics, each in its own order: one and the same choice."""
    chosen = set()
    for seed in range(30):
        chance, lines = random.Random(seed), [decisions(), gradients()]
        chance.shuffle(lines[1])
        told: list[Message] = []
        while any(lines):
            told.append(chance.choice([line for line in lines if line]).pop(0))
        story = Story()
        story.tell(*told)
        story.finish({2: 0.9, 3: 0.4})
        chosen.add(story.said[0])

    assert len(chosen) == 1


def test_gradients_are_rebuilt_in_the_order_of_the_list_whatever_order_they_came_in() -> None:
    """The hashes that were used stand in the order of HeadGrown's list."""
    orders = []
    for order in itertools.permutations(gradients()):
        story = Story()
        story.tell(*decisions(), *order)
        story.finish({2: 0.9, 3: 0.4})
        orders.append(story.said[0].used)

    assert len(set(orders)) == 1
    assert len(set(orders[0])) == 3


def test_a_place_without_content_does_not_block() -> None:
    """The south has no image left: two gradients are used, and the reason is told."""
    silent = PrototypeGradient(
        run=RUN, entity=SOUTH, stage=0, place=0, reason="no image of this class is left", groups={}
    )
    story = Story()
    story.tell(*decisions(), *gradients()[:2], silent)
    story.finish({2: 0.1, 3: 0.2})

    assert len(story.said[0].used) == 2
    assert story.said[0].withheld == ((SOUTH, 0, "no image of this class is left"),)


def test_chance_goes_by_the_place_in_the_list_whoever_is_silent() -> None:
    """The second of three is answered without content: the third is still the third."""
    silent = PrototypeGradient(
        run=RUN, entity=NORTH, stage=0, place=1, reason="no image of this class is left", groups={}
    )
    story = Story()
    story.tell(*decisions(), gradients()[0], silent, gradients()[2])
    story.finish({2: 0.1, 3: 0.2})

    rebuilt, *scored = story.prepared
    assert (rebuilt.values["places"], rebuilt.values["rows"]) == ([0, 2], [0, 1])
    assert [task.values["places"] for task in scored] == [[(0, 0), (0, 2)]] * 2


def test_without_any_prototype_the_last_version_teaches() -> None:
    """All three places are answered without content: nothing is scored, version 3 teaches."""
    story = Story()
    story.tell(*decisions())
    for entity, place in ((NORTH, 0), (NORTH, 1), (SOUTH, 0)):
        story.tell(
            PrototypeGradient(
                run=RUN, entity=entity, stage=0, place=place, reason="gone", groups={}
            )
        )

    assert (story.said[0].teacher, story.said[0].scores) == (name(3), ())
    assert not story.tasks


def test_it_says_what_it_waits_for() -> None:
    """The south's prototype is missing, and nothing is chosen before it comes."""
    story = Story()
    story.tell(*decisions(), *gradients()[:2])

    assert not story.said
    assert not story.tasks
    assert SOUTH in story.proxy.waits()[0]


def test_versions_of_the_warm_up_are_not_asked() -> None:
    """Of four rounds floor(0.6 * 4) = 2 warm up: versions 4 and 5 are scored, and 4 teaches.

    Versions 2 and 3 would have scored 0.9. They are no candidates, so nobody keeps or asks them.
    """
    story = Story()
    story.tell(*decisions(4, warmup=None), *gradients())
    story.finish({2: 0.9, 3: 0.9, 4: 0.3, 5: 0.2})

    (chosen,) = story.said
    assert chosen.teacher == name(4)
    assert chosen.scores == ((4, 0.3), (5, 0.2))
    assert [kept.model for kept in story.kept if kept.model] == [name(4), name(5)]


THREE_STAGES: dict[str, Any] = {"stages": 3, "classes_per_stage": (2, 1, 1), "recon_batch": 2}


def second_stage() -> list[Message]:
    """Stage 1 of three: both twins found class 2, and have sent its prototypes."""
    expected = ((NORTH, ("2",)), (SOUTH, ("2",)))
    grown = HeadGrown(run=RUN, number=7, stage=1, rows={"2": 2}, prototypes=expected, model=name(4))
    opened = decisions(**THREE_STAGES)[0]
    assert isinstance(opened, RunOpened)
    sent = [gradient(2, 0, entity, stage=1) for entity in (NORTH, SOUTH)]
    return [grown, *trained(opened.configuration, 1, 8, 4), *sent]


def asked(task: Task) -> list[tuple[float, int, tuple[int, int]]]:
    """Each image that a candidate is asked about: its grey, its row, and what draws its views."""
    images = task.groups["rebuilt"]["images"]
    told = zip(images[:, 0, 0, 0].tolist(), task.values["rows"], task.values["places"], strict=True)
    return [(round(shade, 3), row, place) for shade, row, place in told]


@pytest.mark.parametrize("proxy_eval", ["current", "all"])
def test_each_image_meets_the_row_of_its_class(proxy_eval: str) -> None:
    """Stage 0 has images of rows 0, 1 and 1 in two batches, stage 1 two of row 2 in one.

    Candidates of stage 1 are asked about the last two, or with `proxy_eval: all` about all five,
    the older ones first; batches may come back in any order.
    """
    first = [
        (grey(0, NORTH, 0), 0, (0, 0)),
        (grey(0, NORTH, 1), 1, (0, 1)),
        (grey(0, SOUTH, 0), 1, (0, 2)),
    ]
    second = [(grey(1, NORTH, 0), 2, (1, 0)), (grey(1, SOUTH, 0), 2, (1, 1))]
    story = Story()
    story.tell(*decisions(proxy_eval=proxy_eval, **THREE_STAGES), *gradients())
    story.tasks.reverse()
    story.finish({2: 0.9, 3: 0.4})
    story.tell(story.said[0], *second_stage())
    story.tasks.reverse()
    story.finish({5: 0.5, 6: 0.6})

    scored = [asked(task) for task in story.prepared if task.name == "score"]
    later = [*first, *second] if proxy_eval == "all" else second
    assert scored == [first, first, later, later]
    assert len(story.said[1].used) == len(later)
    assert story.said[1].teacher == name(6)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (gradient(1, 0, SOUTH, label=0), "label-rules-disagree"),
        (gradient(1, 7, SOUTH), "unknown-entity"),
        (gradient(1, 0, "local/stranger"), "unknown-entity"),
        (gradient(1, 0, "elsewhere/entity-001"), "unknown-entity"),
    ],
)
def test_what_is_not_valid_changes_nothing(bad: PrototypeGradient, reason: str) -> None:
    """A bad gradient under an honest place is set aside, and the true one still counts."""
    story = Story()
    story.tell(*decisions(), bad, *gradients())
    story.finish({2: 0.9, 3: 0.4})

    quiet = Story()
    quiet.tell(*decisions(), *gradients())
    quiet.finish({2: 0.9, 3: 0.4})
    assert story.refused == [reason]
    assert story.said == quiet.said


def test_a_gradient_of_a_stage_that_no_run_has_is_refused_at_once() -> None:
    """Nobody waits for stage 2^50; for the next one it waits."""
    story = Story()
    story.tell(*decisions())
    story.tell(gradients()[0].model_copy(update={"stage": 2**50}))
    assert (story.refused, story.later) == (["out-of-line"], [])

    story.tell(gradients()[0].model_copy(update={"stage": 1}))
    assert (story.refused, len(story.later)) == (["out-of-line"], 1)


def test_a_gradient_with_a_number_that_is_not_finite_is_not_valid() -> None:
    """One NaN in the first convolution."""
    bad = gradient(1, 0, SOUTH)
    bad.groups["gradient"]["conv1.bias"][3] = np.nan
    story = Story()
    story.tell(*decisions(), bad)

    assert story.refused == ["not-finite"]


def test_a_gradient_that_is_refused_holds_up_no_trim() -> None:
    """Noise that claims to be of stage 1 lies before the gradients of stage 0: all of them go."""
    junk = gradient(1, 0, NORTH).model_copy(update={"stage": 1})
    story = Story()
    story.tell(*decisions(), junk, *gradients())
    last, expected = story.offset, ((NORTH, ("2",)),)
    story.tell(
        HeadGrown(
            run=RUN, number=7, stage=1, rows={"2": 2, "3": 3}, prototypes=expected, model=name(4)
        )
    )
    story.finish({2: 0.9, 3: 0.4})
    story.tell(*story.said)

    assert story.refused == ["label-rules-disagree"]
    assert story.trims == [Trim(NAMES.of_site("prototypes", SITE), last + 1)]


def test_a_second_proxy_that_reads_the_choice_keeps_silent() -> None:
    """The choice of the first is in the log before the second has everything it needs."""
    first = Story()
    first.tell(*decisions(), *gradients())
    first.finish({2: 0.9, 3: 0.4})
    second = Story()
    second.tell(*decisions(), first.said[0], *gradients())
    second.finish({2: 0.9, 3: 0.4})

    assert not second.said
    assert not second.proxy.waits()
