"""What a message may say, before anybody asks whether it is the right moment to say it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.messages import (
    KINDS,
    Decision,
    EntityJoined,
    Message,
    ModelName,
    RoundOpened,
    RunOpened,
    WindowJudged,
)
from schemas.schedule import Schedule
from schemas.topics import TOPICS
from tests.schemas.specimens import NORTH, RUN, SOUTH, every_kind, model, opened, schedule

BY_KIND = {message.kind(): message for message in every_kind()}


def complaint(kind: str, **changes: Any) -> str:
    """What is said of a specimen whose fields are changed."""
    message = BY_KIND[kind]
    fields = {name: getattr(message, name) for name in type(message).model_fields}
    with pytest.raises(ValidationError) as caught:
        type(message)(**(fields | changes))
    return str(caught.value)


def test_an_identity_begins_with_the_kind() -> None:
    """No reader takes one kind for another, and no two of these messages for the same one."""
    identities = [message.identity for message in every_kind()]

    assert len(set(identities)) == len(KINDS)
    assert [each.partition("/")[0] for each in identities] == list(KINDS)


def test_each_kind_travels_in_one_topic_and_decisions_in_that_of_their_line() -> None:
    """Who may say what is a property of topics, so a kind must not have two homes."""
    homes: dict[str, set[str]] = {}
    for topic in TOPICS:
        for name in topic.carries:
            homes.setdefault(name, set()).add(topic.name)

    assert homes.keys() == KINDS.keys()
    assert all(len(names) == 1 for names in homes.values())
    for name, kind in KINDS.items():
        assert issubclass(kind, Decision) == (kind.line is not None)
        assert kind.line in (None, *homes[name])


def test_the_lines_of_two_entities_share_a_topic_and_no_identity() -> None:
    """Each of them counts from 0."""
    north, south = (EntityJoined(run=RUN, number=0, entity=entity) for entity in (NORTH, SOUTH))

    assert north.identity == "EntityJoined/local/north/0"
    assert north.identity != south.identity
    assert (north.subject, opened().subject) == (NORTH, "")


def test_whoever_invents_a_message_must_say_what_makes_it_the_same() -> None:
    """There is no identity by default."""
    with pytest.raises(NotImplementedError):
        _ = Message(run=RUN).identity


def test_a_message_cannot_be_changed_after_it_was_said() -> None:
    """It is a fact."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(BY_KIND["EntityJoined"], "number", 7)  # noqa: B010 - a type checker forbids it too


def test_w_is_the_sum_of_all_weights_that_may_be_counted() -> None:
    """30 and 10 images."""
    message = BY_KIND["RoundOpened"]

    assert isinstance(message, RoundOpened)
    assert message.total_weight == 40


def test_a_model_is_kept_under_version_and_hash() -> None:
    """Each piece adds its index to this."""
    assert ModelName(version=3, sha256="a" * 64).key == "3/" + "a" * 64


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("EntityJoined", {"entity": "north"}),
        ("EntityJoined", {"entity": "local/North"}),
        ("EntityJoined", {"entity": "local/north/east"}),
        ("EntityJoined", {"entity": "local/" + "n" * 64}),
        ("EntityJoined", {"number": -1}),
        ("EntityJoined", {"number": 1.0}),
        ("EntityJoined", {"run": "f" * 63}),
        ("WindowJudged", {"trainable": 2**31}),
        ("WindowJudged", {"entropy": float("inf")}),
        ("WindowJudged", {"verdict": "certainly"}),
        ("WindowJudged", {"images": {"0": -1}}),
        ("RoundOpened", {"learning_rate": 0.0}),
        ("RoundOpened", {"learning_rate": float("nan")}),
        ("RoundOpened", {"participants": ()}),
        ("RoundOpened", {"participants": ({"entity": NORTH, "weight": 0, "position": 0},)}),
        ("RoundClosed", {"counted": ((NORTH, "c" * 63),)}),
        ("RoundClosed", {"withheld": ((SOUTH, ""),)}),
        ("StageClosed", {"candidates": ()}),
        ("StageAdded", {"looks": ()}),
        ("ModelUpdate", {"measured": {"loss": float("nan")}}),
        ("ModelUpdate", {"reason": "x" * 501}),
        ("TeacherChosen", {"scores": ((2, float("inf")),)}),
        ("GlobalModel", {"groups": None}),
    ],
)
def test_a_message_says_only_what_makes_sense(kind: str, changes: dict[str, Any]) -> None:
    """The complaint names the field."""
    assert next(iter(changes)) in complaint(kind, **changes)


def test_a_verdict_never_weighs_more_than_a_round_takes() -> None:
    """With agg_weight=samples the aggregator takes `trainable` as a weight, which ends at 2^31."""
    most = 2**31 - 1
    verdict = BY_KIND["WindowJudged"].model_copy(update={"trainable": most})
    assert isinstance(verdict, WindowJudged)

    round = BY_KIND["RoundOpened"]
    assert isinstance(round, RoundOpened)
    (first, *_) = round.participants
    assert type(first)(entity=NORTH, weight=verdict.trainable, position=0).weight == most


# --- RunOpened ------------------------------------------------------------------------------------


def test_a_runs_schedule_has_the_stages_and_rounds_of_its_configuration() -> None:
    """Every role counts by the configuration and looks into the schedule."""
    one_stage = {"schedule": schedule(stages=1)}
    one_round = {"schedule": schedule(rounds=1)}

    assert "a schedule of 1 stages, not 2" in complaint("RunOpened", **one_stage)
    assert "stage 0 lacks someone to train" in complaint("RunOpened", **one_round)


def test_somebody_trains_in_every_round() -> None:
    """A round that nobody could answer would never close."""
    stages = schedule().stages
    idle = stages[1].model_copy(update={"sampled": ((NORTH,), ())})
    changed = Schedule(stages=(stages[0], idle))

    assert "stage 1 lacks someone to train" in complaint("RunOpened", schedule=changed)


def test_a_run_begins_with_version_0_of_its_model() -> None:
    """Versions count up by one from there."""
    assert "begins with version 3" in complaint("RunOpened", model=model(3))


def test_a_schedule_names_entities_as_topics_do() -> None:
    """Its entities become topics: another name must not reach a role."""
    with pytest.raises(ValidationError, match="entity"):
        schedule().stages[0].clients[0].model_validate(
            {"entity": "local.north", "group": "N", "classes": ()}
        )


def test_another_configuration_is_another_run() -> None:
    """RunOpened's hash names the run, and it holds everything that changes a model."""
    message = opened(seed=7)

    assert isinstance(message, RunOpened)
    assert message.configuration.seed == 7
    assert message != opened(seed=8)


@pytest.mark.parametrize("control", ["\x1b[2J", "\n", "\r", "\x07", "\x9b", "\u2028", "\u202e"])
def test_a_name_moves_no_cursor_and_begins_no_line(control: str) -> None:
    """Classes, sources, programs and measures have printable names, in any language."""
    for kind, field, value in [
        ("StreamMarked", "source", f"cam{control}era"),
        ("WindowJudged", "images", {f"a{control}": 1}),
        ("HeadGrown", "rows", {control: 0}),
        ("Heartbeat", "process", f"twins{control}"),
        ("Measured", "name", f"score{control}"),
    ]:
        assert "string_pattern_mismatch" in complaint(kind, **{field: value})
    BY_KIND["StreamMarked"].model_validate(
        BY_KIND["StreamMarked"].header() | {"source": "Kamera\u00a0\u00d6st, \u30ab\u30e1\u30e9"}
    )


def test_no_number_is_above_that_of_an_opened_round() -> None:
    """Whoever raises a number raises this one too: a program of the release before that was
    forgotten ends at the next round. And nothing is lifted from below schema 1."""
    numbers = {name: kind.schema_number for name, kind in KINDS.items()}

    assert max(numbers.values()) == numbers["RoundOpened"]
    assert [name for name, kind in KINDS.items() if len(kind.lifts) >= numbers[name]] == []
