"""The proxy waits for what a stage lists, scores, and names the teacher (docs/method.md 6.6)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import numpy as np
import pytest

from experiments.recipes import recipe
from experiments.system import SITE, opening_of
from infra.promises import Answer, Arrived, Do, Keep, Place, Result, Say, Score, Task, Trim
from learning.encoder import encoder_shapes
from producers.images import Dataset, Part
from proxy.proxy import Proxy
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


def decisions(rounds: int = 2) -> list[Message]:
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
        },
    )
    opening = opening_of(config, dataset())
    expected = ((NORTH, ("0", "1")), (SOUTH, ("1",)))
    line: list[Message] = [
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
    ]
    for round in range(rounds):
        number, version = 2 + 2 * round, 1 + round
        line += [
            RoundOpened(
                run=RUN,
                number=number,
                stage=0,
                round=round,
                base=name(version),
                teacher=None,
                learning_rate=0.5,
                participants=(Participant(entity=NORTH, weight=1, position=1),),
            ),
            RoundClosed(
                run=RUN,
                number=number + 1,
                opened=number,
                stage=0,
                round=round,
                counted=((NORTH, "c" * 64),),
                withheld=(),
                model=name(version + 1),
            ),
        ]
    candidates = tuple(name(2 + round) for round in range(rounds))
    line.append(
        StageClosed(
            run=RUN, number=2 + 2 * rounds, stage=0, candidates=candidates, last=candidates[-1]
        )
    )
    return line


def gradient(row: int, place: int, entity: str, label: int | None = None) -> PrototypeGradient:
    """An answer for a place: a gradient that tells class `label`, the right one unless given."""
    told = row if label is None else label
    arrays = {
        key: np.zeros(shape, np.float32) for key, shape in encoder_shapes(1, 16, 16, 4).items()
    }
    arrays["head.weight"][told] = arrays["head.bias"][told] = -0.5
    arrays["conv1.bias"][0] = place + 1
    return PrototypeGradient(
        run=RUN, entity=entity, stage=0, place=place, groups={"gradient": arrays}
    )


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
            self.prepared.append(task.prepare(Held(self.held)))
            if task.id[0] == "reconstruct":
                images = np.zeros((3, 1, 16, 16), np.float32)
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
