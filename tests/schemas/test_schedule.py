"""The schedule of docs/method.md 1.2 to 1.4: who sees which classes when, and who trains."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.schedule import (
    Client,
    Schedule,
    Share,
    Stage,
    class_order,
    classes_per_client,
    entity_name,
    plan,
    sorted_uids,
)

PAPER: dict[str, Any] = {
    "class_order": [str(label) for label in range(100)],
    "classes_per_stage": 10,
    "stages": 10,
    "iid": 0.6,
    "clients": 30,
    "new_clients": 5,
    "clients_per_round": 5,
    "rounds_per_stage": 10,
}
SMALL: dict[str, Any] = PAPER | {
    "class_order": ["0", "1", "2", "3"],
    "classes_per_stage": 2,
    "stages": 2,
    "iid": 0.5,
    "clients": 4,
    "new_clients": 1,
    "clients_per_round": 2,
    "rounds_per_stage": 2,
}


def small(**changes: Any) -> Schedule:
    """A schedule of two stages of two classes, four clients and one more."""
    return plan(2021, **SMALL | changes)


# --- classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("iid", "classes", "count"),
    [
        (0.4, 10, 4),
        (0.5, 10, 5),
        (0.6, 10, 6),
        (0.7, 10, 7),
        (0.6, 5, 3),
        (0.67, 3, 2),
        (0.66, 3, 1),
        (0.29, 100, 29),
        (1.0, 3, 3),
    ],
)
def test_a_client_gets_its_share_of_the_new_classes(iid: float, classes: int, count: int) -> None:
    """floor(iid * s): 0.67 * 3 = 2.01 gives 2, and 0.29 * 100 = 28.999999999999996 gives 29."""
    assert classes_per_client(iid, classes) == count


@pytest.mark.parametrize("iid", [0.0, -0.5, 1.01, float("nan")])
def test_iid_is_a_share(iid: float) -> None:
    """Above 0 and at most 1."""
    with pytest.raises(ValueError, match="not above 0 and at most 1"):
        classes_per_client(iid, 10)


def test_a_client_without_a_class_is_refused() -> None:
    """0.1 * 5 = 0.5 would leave everyone with nothing."""
    with pytest.raises(ValueError, match=r"iid 0\.1 of 5 classes leaves a client 0 classes"):
        plan(2021, **PAPER | {"iid": 0.1, "classes_per_stage": 5})


def test_uids_stand_in_order_of_value() -> None:
    """9 before 10, equal values by their text, and words behind numbers by their UTF-8 bytes."""
    uids = ["zebra", "10", "ähre", "9", "007", "7", "Zebra", "-1", "1" * 5000]

    expected = ("007", "7", "9", "10", "1" * 5000, "-1", "Zebra", "zebra", "ähre")
    assert sorted_uids(uids) == expected


def test_the_natural_order_is_that_of_the_uids() -> None:
    """Whatever order the data set names them in."""
    assert class_order(["2", "0", "10", "1"]) == ("0", "1", "2", "10")


def test_a_permuted_order_is_drawn_from_the_seed() -> None:
    """The same seed permutes the same way, whatever order the classes are named in."""
    uids = [str(label) for label in range(20)]

    permuted = class_order(reversed(uids), "permuted", 7)

    assert permuted == class_order(uids, "permuted", 7)
    assert permuted != class_order(uids, "permuted", 8)
    assert sorted_uids(permuted) == tuple(uids)


@pytest.mark.parametrize(
    ("uids", "order", "reason"),
    [
        (["1", "2", "1"], "natural", "class '1' comes 2 times"),
        (["1"], "random", "no class order is called 'random'"),
    ],
)
def test_an_order_needs_distinct_classes_and_a_known_name(
    uids: list[str], order: str, reason: str
) -> None:
    """Both are mistakes of the caller."""
    with pytest.raises(ValueError, match=reason):
        class_order(uids, order)


# --- clients, groups, classes -------------------------------------------------------------------


def test_the_papers_schedule_has_its_numbers() -> None:
    """30 clients and 5 more each stage; of 30 there, floor(0.9 * 30) = 27 move on and 3 rest."""
    stages = plan(2021, **PAPER).stages

    assert [len(stage.marked) for stage in stages] == list(range(30, 80, 5))
    assert stages[0].group("N") == stages[0].marked
    assert [len(stages[1].group(group)) for group in ("B", "O", "N")] == [27, 3, 5]
    assert [len(stages[9].group(group)) for group in ("B", "O", "N")] == [63, 7, 5]
    assert stages[3].classes == tuple(str(label) for label in range(30, 40))
    assert stages[9].marked[-1] == "local/entity-074"


def test_every_client_gets_six_distinct_classes_of_the_stage_or_none() -> None:
    """iid 0.6 of 10 classes; group O gets none, yet its stream is marked."""
    for stage in plan(2021, **PAPER).stages:
        for client in stage.clients:
            expected = 0 if client.group == "O" else 6
            assert len(set(client.classes) & set(stage.classes)) == expected
            assert len(client.classes) == expected
        assert set(stage.group("O")) <= set(stage.marked)


def test_clients_draw_independently_of_each_other() -> None:
    """One more new client changes nobody's classes where nobody rests."""
    few = small(transition_fraction=1.0).stages[1].streams
    more = small(transition_fraction=1.0, new_clients=3).stages[1].streams

    assert len(more) == len(few) + 2
    assert {entity: more[entity] for entity in few} == few


def test_who_rests_is_drawn_anew_for_each_stage() -> None:
    """Of nine draws of three and more clients, no two in a row are the same."""
    resting = [set(stage.group("O")) for stage in plan(2021, **PAPER).stages[1:]]

    assert all(one != other for one, other in pairwise(resting))


def test_a_fraction_that_floats_cannot_hold_still_counts() -> None:
    """0.29 * 100 = 28.999999999999996 of 100 clients: 29 move on, 71 rest."""
    stage = small(clients=100, transition_fraction=0.29).stages[1]

    assert (len(stage.group("B")), len(stage.group("O"))) == (29, 71)


def test_classes_beyond_the_stages_are_not_used() -> None:
    """OrganMNIST: three stages of three take the first nine of eleven classes."""
    organ = PAPER | {"class_order": [str(label) for label in range(11)]}

    schedule = plan(1, **organ | {"classes_per_stage": [3, 3, 3], "stages": 3, "iid": 0.67})

    assert schedule.classes == tuple(str(label) for label in range(9))


def test_a_shorter_last_stage_gives_fewer_classes() -> None:
    """[3, 2] at 0.67: floor(2.01) = 2 of three, floor(1.34) = 1 of two."""
    uids = [str(label) for label in range(5)]

    first, tail = small(class_order=uids, classes_per_stage=(3, 2), iid=0.67).stages

    assert {len(client.classes) for client in first.clients} == {2}
    assert {len(client.classes) for client in tail.clients if client.group != "O"} == {1}


# --- sampling -----------------------------------------------------------------------------------


def test_each_round_samples_five_of_all_clients() -> None:
    """Ten rounds of five distinct clients, and in later stages also those who joined."""
    stages = plan(2021, **PAPER).stages

    for stage in stages:
        assert len(stage.sampled) == 10
        assert all(len(set(entities)) == 5 for entities in stage.sampled)
    late = {entity for entities in stages[9].sampled for entity in entities}
    assert late - set(stages[0].marked)


def test_rounds_sample_evenly() -> None:
    """2,000 rounds of 2 of 4 clients: each about 1,000 times, within five deviations (112)."""
    rounds = small(rounds_per_stage=2000).stages[0].sampled

    counts = Counter(entity for entities in rounds for entity in entities)
    assert set(counts) == {entity_name(number) for number in range(4)}
    assert all(abs(count - 1000) < 112 for count in counts.values())


def test_quirk_1_samples_only_the_first_clients() -> None:
    """As in LGA's released code those who join later never train; all else stays as it was."""
    plain, quirky = plan(2021, **PAPER), plan(2021, **PAPER, quirks=(1, 14))

    first = set(plain.stages[0].marked)
    assert all(set(entities) <= first for stage in quirky.stages for entities in stage.sampled)
    assert [stage.clients for stage in quirky.stages] == [stage.clients for stage in plain.stages]
    assert quirky.stages[0] == plain.stages[0]


# --- the same for all -----------------------------------------------------------------------------


def test_no_strategy_can_reach_the_schedule() -> None:
    """Methods are compared on equal schedules: `plan` is not told which method runs."""
    assert not {"strategy", "configuration"} & set(inspect.signature(plan).parameters)


def test_the_same_seed_draws_the_same_schedule_in_another_process() -> None:
    """A new interpreter with another hash seed writes the same JSON, the stored one."""
    code = (
        "import hashlib\n"
        "from schemas.schedule import plan\n"
        f"schedule = plan(2021, **{PAPER!r})\n"
        "print(hashlib.sha256(schedule.model_dump_json().encode()).hexdigest())\n"
    )

    there = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    here = plan(2021, **PAPER).model_dump_json().encode()
    assert there == hashlib.sha256(here).hexdigest()
    assert there == "8f223f7ecf27c301e71f83570a3adf999da3251e861bed3325901bbc1f7004e1"


def test_another_seed_draws_another_schedule() -> None:
    """In groups, classes and samples."""
    one, other = plan(2021, **PAPER), plan(2022, **PAPER)

    assert one.stages[1].group("O") != other.stages[1].group("O")
    assert one.stages[0].streams != other.stages[0].streams
    assert one.stages[0].sampled != other.stages[0].sampled


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    stages=st.integers(1, 4),
    clients=st.integers(1, 12),
    new_clients=st.integers(0, 3),
    fraction=st.floats(0, 1),
    data=st.data(),
)
def test_any_schedule_survives_its_travels(
    seed: int, stages: int, clients: int, new_clients: int, fraction: float, data: st.DataObject
) -> None:
    """As JSON and as plain values; groups partition the entities, and nobody leaves."""
    schedule = plan(
        seed,
        class_order=[str(label) for label in range(20)],
        classes_per_stage=5,
        stages=stages,
        iid=data.draw(st.floats(0.2, 1)),
        clients=clients,
        new_clients=new_clients,
        clients_per_round=data.draw(st.integers(1, clients)),
        rounds_per_stage=2,
        transition_fraction=fraction,
    )

    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule
    assert Schedule.model_validate(schedule.model_dump()) == schedule
    assert schedule.entities == schedule.stages[-1].marked
    for stage in schedule.stages:
        groups = [stage.group("B"), stage.group("O"), stage.group("N")]
        assert sorted(sum(groups, ())) == sorted(stage.marked)


# --- shares of a class's images -----------------------------------------------------------------


def test_every_holder_gets_all_images() -> None:
    """`full`: part 0 of 1, for each holder of each class."""
    schedule = small()

    entity, (uid,) = next(iter(schedule.stages[0].streams.items()))
    assert schedule.share(entity, uid) == Share(part=0, parts=1)


def test_disjoint_shares_deal_a_class_out_to_its_holders() -> None:
    """Each image of a class goes to exactly one of its holders."""
    schedule = small(image_share="disjoint", iid=1.0)
    holders = schedule.stages[0].holders("1")

    shares = [schedule.share(entity, "1") for entity in holders]

    assert len(holders) == 4
    assert shares == [Share(part, 4) for part in range(4)]
    takers = Counter(image % share.parts == share.part for image in range(10) for share in shares)
    assert takers == {True: 10, False: 30}


@pytest.mark.parametrize(
    ("entity", "uid", "holders"), [("local/entity-099", "0", "4"), ("local/entity-000", "9", "0")]
)
def test_who_does_not_hold_a_class_has_no_share(entity: str, uid: str, holders: str) -> None:
    """A stranger, and a class of no stage."""
    with pytest.raises(ValueError, match=f"class {uid} streams to {holders} entities, not to"):
        small(iid=1.0).share(entity, uid)


# --- a fixed assignment -------------------------------------------------------------------------


def test_an_assignment_says_who_gets_what() -> None:
    """Entity 0 has classes 0 and 3, entity 4 joins with 2; who gets nothing in stage 1 is in O."""
    given_classes = {"local/entity-000": ["3", "0"], "local/entity-004": ["2"]}

    first, second = small(assignment=given_classes, iid=0.0).stages

    assert first.streams["local/entity-000"] == ("0",)
    assert first.streams["local/entity-001"] == ()
    assert second.streams["local/entity-000"] == ("3",)
    assert second.streams["local/entity-004"] == ("2",)
    assert second.group("B") == ("local/entity-000",)
    assert second.group("O") == ("local/entity-001", "local/entity-002", "local/entity-003")
    assert second.group("N") == ("local/entity-004",)


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ({"local/entity-005": ["0"]}, "none of the 5 entities"),
        ({"local/entity-000": ["4"]}, "class 4, none of the 4 in use"),
        ({"local/entity-000": ["0", "0"]}, "local/entity-000: class '0' comes 2 times"),
        ({"local/entity-004": ["0"]}, "class 0 of stage 0, but joins later: .* 4 clients"),
    ],
)
def test_an_assignment_fits_the_schedule(assignment: dict[str, list[str]], reason: str) -> None:
    """Unknown entities, unknown classes, repeats, and classes that would never stream."""
    with pytest.raises(ValueError, match=reason):
        small(assignment=assignment)


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes_per_stage": 3}, "stages=2 and classes_per_stage take 6 classes, but 4 exist"),
        ({"classes_per_stage": (2, 0)}, "a stage of 0 classes"),
        ({"classes_per_stage": (2, 1, 1)}, "2 stages .* sizes for 3"),
        ({"stages": 0}, "0 stages"),
        ({"class_order": ["0", "1", "1", "2"]}, "class '1' comes 2 times"),
        ({"clients": 0}, "0 clients"),
        ({"new_clients": -1}, "-1 new ones"),
        ({"rounds_per_stage": 0}, "0 rounds per stage"),
        ({"clients_per_round": 5}, "5 of 4 clients cannot be sampled"),
        ({"clients_per_round": 0}, "0 of 4 clients cannot be sampled"),
        ({"transition_fraction": 1.5}, r"transition_fraction is 1\.5"),
        ({"iid": 0.4}, r"iid 0\.4 of 2 classes"),
        ({"image_share": "half"}, "image_share"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_numbers(
    change: dict[str, Any], reason: str
) -> None:
    """Each is a mistake of the caller, and the message says which numbers do not fit."""
    with pytest.raises(ValueError, match=reason):
        small(**change)


STAGE: dict[str, Any] = {
    "classes": ("0", "1"),
    "clients": (
        {"entity": "local/a", "group": "N", "classes": ("0",)},
        {"entity": "local/b", "group": "N", "classes": ()},
    ),
    "sampled": (("local/a",),),
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sampled": (("local/c",),)}, r"round 0 samples \['local/c'\]"),
        ({"sampled": (("local/a", "local/a"),)}, "round 0: entity 'local/a' comes 2 times"),
        ({"classes": ("1",)}, r"local/a gets \['0'\], not of this stage"),
        ({"clients": STAGE["clients"] * 2}, "entity 'local/a' comes 2 times"),
        ({"strategy": "fedka"}, "Extra inputs are not permitted"),
        ({"image_steps": (8, 8)}, "1 rounds, but image steps of 2"),
        ({"image_steps": (0,)}, "greater than or equal to 1"),
    ],
)
def test_a_stage_that_contradicts_itself_is_not_read(change: dict[str, Any], reason: str) -> None:
    """A schedule may come from a file or a message; each is checked against itself."""
    assert Stage.model_validate(STAGE).marked == ("local/a", "local/b")
    with pytest.raises(ValidationError, match=reason):
        Stage.model_validate(STAGE | change)


def test_a_class_belongs_to_one_stage() -> None:
    """It is new only once."""
    with pytest.raises(ValidationError, match="class '0' comes 2 times"):
        Schedule.model_validate({"stages": (STAGE, STAGE)})


def test_a_schedule_is_a_value() -> None:
    """Nobody changes it once it is drawn."""
    client = Client(entity="local/a", group="N", classes=("0",))

    with pytest.raises(ValidationError, match="frozen"):
        client.group = "O"
