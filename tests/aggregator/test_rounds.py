"""What a round consists of: who takes part, at which rate, whose prototypes, and its sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aggregator.rounds import RoundSums, members_of, participants_of, prototypes_of, rate_of
from learning.shapes import Shapes
from learning.strategies import STRATEGIES
from learning.strategies.strategy import Groups, RoundMean, Sent
from schemas.codec import pack
from schemas.errors import Refused
from schemas.line import RoundsLine
from schemas.messages import ModelUpdate, Participant, RoundOpened, RunOpened, WindowJudged
from schemas.schedule import Client, Schedule, Stage
from schemas.tensors import decoded, update_of
from schemas.verdicts import VerdictLines
from tests.schemas.decisions import HONEST, RUN, addition, joined, opening, read, verdict
from tests.schemas.specimens import NORTH, SOUTH, facts, model, opened, recipe, weights

FEDKA, FEDAVG = STRATEGIES["fedka"], STRATEGIES["fedavg"]
BASE = {name: tensor for name, tensor in weights().items() if name != "conv.weight"}


# --- who takes part -------------------------------------------------------------------------------


def judged(line: RoundsLine, *verdicts: WindowJudged) -> VerdictLines:
    """A reader of `classes`; both entities have joined."""
    lines = VerdictLines(line)
    for entity in (NORTH, SOUTH):
        lines.hear("local", joined(entity))
    for decision in verdicts:
        lines.hear("local", decision)
    assert lines.refused == []
    return lines


def test_who_trains_and_up_to_which_image_follows_from_schedule_and_verdicts() -> None:
    """Positions are those of each one's newest verdict; without agg_weight=samples all count 1."""
    line = read(HONEST[:2])
    verdicts = judged(line, verdict(1, 0, 0, position=7), verdict(1, 0, 0, SOUTH, position=9))

    assert participants_of(line, verdicts, 0, 0) == (
        Participant(entity=NORTH, weight=1, position=7),
        Participant(entity=SOUTH, weight=1, position=9),
    )
    assert members_of(line, 0) == (NORTH, SOUTH)


ENTITIES = tuple(f"local/entity-{number:03d}" for number in range(6))


def six(**overrides: Any) -> RoundsLine:
    """A run of six entities and two stages, of which two take part in each round."""
    config = recipe(clients=6, clients_per_round=2, agg_weight="samples", stages=2, **overrides)
    stages = tuple(
        Stage(
            classes=(str(t),),
            clients=tuple(Client(entity=each, group="N", classes=(str(t),)) for each in ENTITIES),
            sampled=(ENTITIES[:2], ENTITIES[2:4]),
        )
        for t in range(2)
    )
    opened = RunOpened(
        run="",
        number=0,
        configuration=config,
        data=facts(),
        schedule=Schedule(stages=stages),
        model=model(0),
    )
    return read((opened,))


def all_judged(line: RoundsLine, stage: int, trainable: int = 5) -> VerdictLines:
    """All six found the stage's class."""
    lines = VerdictLines(line)
    for entity in ENTITIES:
        changes = {"run": line.run, "trainable": trainable, "classes": (str(stage),)}
        decision = verdict(1, stage, 0, entity, images={str(stage): 1})
        lines.hear("local", joined(entity, run=line.run))
        lines.hear("local", decision.model_copy(update=changes))
    assert lines.refused == []
    return lines


def test_each_round_asks_those_whom_the_schedule_sampled() -> None:
    """With agg_weight=samples each with as much weight as it has images."""
    line = six()
    verdicts = all_judged(line, 0)

    asked = [participants_of(line, verdicts, 0, round) for round in (0, 1)]
    assert [[each.entity for each in part] for part in asked] == [
        list(ENTITIES[:2]),
        list(ENTITIES[2:4]),
    ]
    assert {each.weight for part in asked for each in part} == {5}


def test_an_added_stage_asks_first_whom_it_names() -> None:
    """They alone have its images; the other place goes to one of the rest, drawn by the seed."""
    named = ENTITIES[4]
    asked = set()
    for seed in range(8):
        line = six(seed=seed)
        added = addition(1, (named, 4)).model_copy(update={"run": line.run})
        read((added,), line)
        part = [each.entity for each in participants_of(line, all_judged(line, 0), 2, 0)]

        assert len(part) == 2
        assert named in part
        assert part == sorted(part)
        asked.update(part)
    assert len(asked) > 3
    assert members_of(line, 2) == (named, *(each for each in ENTITIES if each != named))


def test_an_added_stage_that_names_many_asks_only_as_many_as_a_round_takes() -> None:
    """Three are named, two are asked; not always the same two."""
    line = six()
    added = addition(1, *((entity, 4) for entity in ENTITIES[:3]))
    read((added.model_copy(update={"run": line.run}),), line)
    verdicts = all_judged(line, 0)

    asked = [
        tuple(each.entity for each in participants_of(line, verdicts, 2, round))
        for round in range(8)
    ]
    assert all(len(part) == 2 and set(part) <= set(ENTITIES[:3]) for part in asked)
    assert len(set(asked)) > 1


@pytest.mark.parametrize(
    ("schedule", "round", "rate"),
    [("constant", 1, 0.5), ("cosine", 1, 0.25), ("lineage", 0, 0.5), ("step", 1, 0.005)],
)
def test_the_rate_of_a_round_is_a_share_of_the_recipes(
    schedule: str, round: int, rate: float
) -> None:
    """Of two rounds at 0.5 (docs/method.md 5.8)."""
    assert rate_of(recipe(lr_schedule=schedule), round) == pytest.approx(rate)


# --- whose prototypes -----------------------------------------------------------------------------


def test_each_detecting_twin_owes_a_prototype_of_each_class_it_found() -> None:
    """In the order of the entities, and there in the order of rows."""
    line = read(HONEST[:1])
    verdicts = judged(line, verdict(1, 0, 0), verdict(1, 0, 0, SOUTH, classes=("1",)))

    assert prototypes_of(line, verdicts, {"1": 0, "0": 1}, 0, FEDKA) == (
        (NORTH, ("1", "0")),
        (SOUTH, ("1",)),
    )


def test_of_one_class_only_so_many_are_asked_for() -> None:
    """Those of the smallest hash: the same ones for every reader, others for another seed."""
    asked: set[str] = set()
    for seed in range(8):
        line = six(seed=seed, proto_per_class=2)
        listed = prototypes_of(line, all_judged(line, 0), {"0": 0}, 0, FEDKA)

        assert [uids for _, uids in listed] == [("0",)] * 2
        assert [entity for entity, _ in listed] == sorted(entity for entity, _ in listed)
        assert listed == prototypes_of(line, all_judged(line, 0), {"0": 0}, 0, FEDKA)
        asked.update(entity for entity, _ in listed)
    assert len(asked) > 2


def test_only_sampled_twins_are_asked_if_the_recipe_says_so() -> None:
    """Four of six take part in the stage's two rounds."""
    line = six(proto_upload="sampled_only", proto_per_class=6)
    everyone = six(proto_per_class=6)

    listed = prototypes_of(line, all_judged(line, 0), {"0": 0}, 0, FEDKA)
    assert [entity for entity, _ in listed] == list(ENTITIES[:4])
    assert len(prototypes_of(everyone, all_judged(everyone, 0), {"0": 0}, 0, FEDKA)) == 6


def test_nobody_is_asked_when_no_teacher_will_be_chosen_on_them() -> None:
    """In the schedule's last stage, behind it, and by a method without a proxy."""
    line = read(HONEST[:7])
    verdicts = judged(line, verdict(1, 0, 0), verdict(2, 1, 3))

    assert prototypes_of(line, verdicts, {"2": 2, "3": 3}, 1, FEDKA) == ()
    assert prototypes_of(line, verdicts, {"4": 4}, 2, FEDKA) == ()
    assert prototypes_of(line, verdicts, {"0": 0}, 0, FEDAVG) == ()
    assert prototypes_of(line, verdicts, {"0": 0}, 0, FEDKA) != ()


def test_with_two_slots_a_twin_owes_its_classes_once_for_each_round_that_it_trains_in() -> None:
    """Four of six train, each in one of the two rounds; two rounds would double the list."""
    slotted = {
        "detector": "lineage",
        "entropy_head": "post_growth",
        "teacher": "slots",
        "proto_model": "local",
        "proto_upload": "sampled_only",
    }
    line = six(**slotted)

    listed = prototypes_of(line, all_judged(line, 0), {"0": 0}, 0, replace(FEDKA, teacher="slots"))
    assert listed == tuple((entity, ("0",)) for entity in ENTITIES[:4])

    both = opened(**slotted)
    line = read((both,))
    lines = VerdictLines(line)
    for decision in (joined(), verdict(1, 0, 0)):
        lines.hear("local", decision.model_copy(update={"run": line.run}))
    listed = prototypes_of(line, lines, {"1": 0, "0": 1}, 0, replace(FEDKA, teacher="slots"))
    assert listed == ((NORTH, ("1", "0", "1", "0")),)


# --- sums -----------------------------------------------------------------------------------------


def drifting(settle: bool = False) -> Any:
    """FedAvg, but each twin also sends how far the bias drifted, and the aggregator may use it."""

    def shapes(model: Shapes) -> dict[str, Shapes]:
        return {"drift": {"fc.bias": model["fc.bias"]}}

    def step(closed: RoundMean) -> Groups:
        share = np.float32(closed.counted / closed.members)
        moved = closed.mean["model"]["fc.bias"] + share * closed.mean["drift"]["fc.bias"]
        return dict(closed.mean) | {"model": dict(closed.mean["model"]) | {"fc.bias": moved}}

    return replace(
        FEDAVG,
        name="drifting",
        groups=lambda lesson, learned, steps: Sent({}, {}),
        group_shapes=shapes,
        settle=step if settle else None,
    )


def round_of(*weights: int) -> RoundOpened:
    """A round for the north and the south."""
    part = tuple(
        Participant(entity=entity, weight=weight, position=4)
        for entity, weight in zip((NORTH, SOUTH), weights, strict=True)
    )
    return opening(2, 0, 0, 1, participants=part)


def answer(entity: str, further: float, **groups: Any) -> ModelUpdate:
    """The bias moved so far; the rest stayed."""
    learned = BASE | {"fc.bias": BASE["fc.bias"] + np.float32(further)}
    return ModelUpdate(
        run=RUN, opened=2, entity=entity, base=model(1), groups={"model": learned, **groups}
    )


def drift(by: float) -> dict[str, Any]:
    """A strategy's own group."""
    return {"drift": {"fc.bias": np.full(2, by, "<f4")}}


def test_a_strategys_groups_are_meant_exactly_as_the_model_is() -> None:
    """3 parts 4 and 1 part 8: 5, in both groups."""
    sums = RoundSums(round_of(3, 1), {"model": BASE}, drifting(), "fp32")
    for update in (answer(NORTH, 4.0, **drift(4.0)), answer(SOUTH, 8.0, **drift(8.0))):
        sums.add(update, pack(update).hash)

    groups = sums.next_groups({"model": BASE}, members=2)
    assert groups["model"]["fc.bias"].tolist() == [5.0, 5.0]
    assert groups["drift"]["fc.bias"].tolist() == [5.0, 5.0]
    assert sums.missing == []


def test_a_strategys_own_step_knows_how_many_of_how_many_were_counted() -> None:
    """One of four members: the mean 4, and a quarter of the drift 8."""
    sums = RoundSums(round_of(1, 1), {"model": BASE}, drifting(settle=True), "fp32")
    update = answer(NORTH, 4.0, **drift(8.0))
    sums.add(update, pack(update).hash)

    assert sums.missing == [SOUTH]
    groups = sums.next_groups({"model": BASE}, members=4)
    assert groups["model"]["fc.bias"].tolist() == [6.0, 6.0]


def test_an_update_without_the_strategys_group_is_not_counted() -> None:
    """Nor is half of it: the sums are as before."""
    sums = RoundSums(round_of(1, 1), {"model": BASE}, drifting(), "fp32")
    with pytest.raises(Refused, match=r"wrong-shape: groups \['model'\]"):
        sums.add(answer(NORTH, 4.0), "a" * 64)
    with pytest.raises(Refused, match="not-finite"):
        sums.add(answer(NORTH, 4.0, **drift(float("inf"))), "b" * 64)

    assert sums.missing == [NORTH, SOUTH]
    assert sums.next_groups({"model": BASE}, members=2) == {}


@pytest.mark.parametrize("wire", ["bf16", "int8"])
def test_on_a_lossy_wire_everyone_goes_on_from_what_readers_will_hold(wire: str) -> None:
    """The next model is the mean as it is decoded, not as it was reckoned."""
    sums = RoundSums(round_of(1, 1), {"model": BASE}, FEDAVG, wire)
    for entity, further in ((NORTH, 0.1), (SOUTH, 0.3)):
        learned = BASE | {"fc.weight": BASE["fc.weight"] + np.float32(further)}
        update = answer(entity, 0.0).model_copy(
            update={"groups": {"model": update_of(learned, BASE, wire)}}
        )
        sums.add(update, pack(update, wire).hash)

    after = sums.next_groups({"model": BASE}, members=2)["model"]
    assert after["fc.weight"] - BASE["fc.weight"] == pytest.approx(0.2, abs=0.05)
    again = decoded(after, wire)["fc.weight"]
    assert after["fc.weight"].tobytes() == again.tobytes()
