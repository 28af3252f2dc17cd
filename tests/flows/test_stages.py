"""Stages of every kind: without growth, with newcomers, without images, and added ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments.system import Embedded
from infra.store.sqlite import SqliteStore
from infra.transport.embedded import Embedded as Log
from infra.transport.unkind import Unkind
from schemas.configuration import Configuration
from schemas.line import RoundsLine
from schemas.messages import ImageBatch, WindowJudged
from tests.flows.federation import (
    EAST,
    NAMES,
    NORTH,
    SOUTH,
    WEST,
    Outcome,
    Told,
    Whim,
    add_stage,
    disturbed,
    finished,
    in_file,
    letters,
    messages,
    outcome,
    put_together,
    small,
    stream,
)


def seen_through(configuration: Configuration) -> Embedded:
    """A run, undisturbed; and one that is disturbed, with every role twice, ends the same."""
    run = put_together(configuration, Log())
    run.system.run()
    assert outcome(disturbed(configuration, 1, copies=2)) == outcome(run)
    return run


def verdicts(run: Embedded, stage: int) -> dict[str, WindowJudged]:
    """What each twin said of a stage."""
    found = {}
    for entity in run.observer.line.entities:
        if (verdict := run.observer.verdicts.verdict(entity, stage)) is not None:
            found[entity] = verdict
    return found


def grown(line: RoundsLine) -> list[bool]:
    """Which stages began with a growth of the head."""
    return [stage.grown is not None for stage in line.stages]


# --- stages of the schedule -----------------------------------------------------------------------


def test_a_stage_without_anything_new_opens_without_growth() -> None:
    """Nobody gets new classes in stage 1: it is judged, taught and trained with the old head."""
    run = seen_through(small(stages=2, new_clients=0, transition_fraction=0.0))
    line = run.observer.line

    assert {verdict.verdict for verdict in verdicts(run, 1).values()} == {"known"}
    assert grown(line) == [True, False]
    opened = [each.opened for each in line.stages[1].rounds]
    assert all(each.teacher == run.observer.teachers.chosen[0].teacher for each in opened)
    assert len(line.rows) == 3


@pytest.mark.slow
def test_a_twin_that_gets_no_new_class_keeps_its_own() -> None:
    """Group O of stage 1 says `known` without an entropy, and trains on what it has."""
    run = seen_through(small(stages=2, new_clients=0, clients_per_round=3))
    assert run.observer.line.opened is not None
    (idle,) = run.observer.line.opened.schedule.stages[1].group("O")
    verdict = verdicts(run, 1)[idle]

    assert (verdict.verdict, verdict.entropy) == ("known", None)
    assert verdict.reason == "no image to judge"
    assert verdict.trainable == verdicts(run, 0)[idle].trainable > 0
    counted = run.observer.line.stages[1].rounds[0].closed
    assert counted is not None
    assert idle in dict(counted.counted)


def test_a_twin_without_any_image_answers_without_content() -> None:
    """It is sampled in every round, says why it sends nothing, and nobody waits for it."""
    assignment = {NORTH: ("0", "1", "3", "4"), EAST: ("1", "2", "4", "5")}
    run = seen_through(small(stages=2, new_clients=0, clients_per_round=3, assignment=assignment))
    closed = [each.closed for stage in run.observer.line.stages for each in stage.rounds]

    assert all(each and each.withheld == ((SOUTH, "no image to train on"),) for each in closed)
    assert all(each and {NORTH, EAST} == set(dict(each.counted)) for each in closed)


@pytest.mark.slow
def test_a_client_that_joins_later_begins_with_an_empty_memory() -> None:
    """A fourth twin comes with stage 1: its first contact is then, and it takes part in it."""
    run = seen_through(small(stages=2, clients_per_round=3))
    late = verdicts(run, 1)[WEST]

    assert WEST not in verdicts(run, 0)
    assert (late.first_contact, late.verdict, late.position) == (True, "new", late.trainable)
    assert not verdicts(run, 1)[NORTH].first_contact


@pytest.mark.slow
def test_a_class_with_few_images_waits_until_it_has_enough() -> None:
    """Seven of eight images are no news; the verdict after the next one counts them again. Labels
    alone decide here, for the entropies are made up."""
    of_labels = small(stages=1, detector="label")
    run = put_together(of_labels, log := Log())
    run.system.run()
    add_stage(log, stream(log, NORTH, {"9": 7}))
    again = put_together(of_labels, log)
    again.system.run()
    add_stage(log, stream(log, NORTH, {"9": 1}, source="later"))
    last = put_together(of_labels, log)
    last.system.run()

    first, second = verdicts(last, 1)[NORTH], verdicts(last, 2)[NORTH]
    assert (first.verdict, first.images) == ("known", {"9": 7})
    assert (second.verdict, second.classes, second.images) == ("new", ("9",), {"9": 8})
    assert grown(last.observer.line) == [True, False, True]


# --- what a recipe may say ------------------------------------------------------------------------


FEW: list[dict[str, object]] = [{"wire": "int8", "agg_weight": "samples"}]
MORE: list[dict[str, object]] = [
    {"wire": "int8"},
    {"agg_weight": "samples"},
    {"memory": 0},
    {"wire": "bf16"},
    {"keep_samples": True},
    {"keep_rounds": 2},
    {"keep_rounds": "all"},
    {"proxy_eval": "all"},
    {"proto_upload": "sampled_only"},
    {"detector": "entropy"},
    {"detector": "label"},
    {"entropy_head": "pre_growth"},
    {"image_share": "disjoint", "images_per_class": 24},
    {"class_order": "permuted", "head_init": "mean"},
    {"warmup": 0},
    {"teacher": "last"},
    {"teacher": "none"},
]


@pytest.mark.parametrize(
    "overrides", [*FEW, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)], ids=str
)
def test_whatever_the_recipe_says_copies_come_to_the_same(overrides: dict[str, object]) -> None:
    """Undisturbed once, and once with every role twice, in any order, over an unkind transport."""
    configuration = small(stages=2, **overrides)
    run = disturbed(configuration, 3, copies=2)

    assert outcome(run) == finished(configuration)
    assert not letters(run)


def test_weights_are_the_images_that_a_twin_trained_on() -> None:
    """With agg_weight=samples: what the verdict foretold is what the training then counted."""
    run = seen_through(small(agg_weight="samples"))
    compared = 0
    for stage in run.observer.line.stages:
        for each in stage.rounds:
            for participant in each.opened.participants:
                name = f"update/{each.opened.number}/{participant.entity}"
                assert run.observer.measured[name]["samples"] == participant.weight
                compared += 1

    assert compared == 12


@pytest.mark.slow
def test_samples_that_are_kept_are_all_there_at_the_end() -> None:
    """With keep_samples nothing is trimmed; without it old images are gone."""
    kept, let_go = Log(), Log()
    for log, keep in ((kept, True), (let_go, False)):
        put_together(small(stages=2, keep_samples=keep), log).system.run()

    topic = NAMES.of_entity("samples", EAST)
    numbers = [m.first for m, _ in messages(kept, topic) if isinstance(m, ImageBatch)]
    assert (kept.first(topic), numbers) == (0, [0, 24])
    assert let_go.first(topic) > 0


@pytest.mark.slow
def test_prototypes_of_all_stages_stay_until_the_run_ends() -> None:
    """With proxy_eval=all the second choice rests on both stages' gradients; then they are gone."""
    run = put_together(small(proxy_eval="all"), log := Log())
    run.system.run()
    first, second = run.observer.teachers.chosen
    topic = NAMES.of_site("prototypes", "local")

    assert len(first.used) > 0
    assert second.used[: len(first.used)] == first.used
    assert len(second.used) > len(first.used)
    assert messages(log, topic) == []


# --- stages that are added ------------------------------------------------------------------------


def gone_on(path: Path, configuration: Configuration, seed: int | None = None) -> Embedded:
    """Go on with a run in a file; with a seed as unkindly as can be, and with every role twice."""
    if seed is None:
        return in_file(configuration, path)
    chance = random.Random(seed)
    log, store = Log(path), SqliteStore(path)
    told = Told(copies=2, order=Whim(chance, 0.02, 80))
    run = put_together(configuration, Unkind(log, chance), told, store=store)
    run.system.run()
    log.close()
    store.close()
    return run


def added(path: Path, *bursts: tuple[str, dict[str, int], str]) -> None:
    """Bursts of images come to a run in a file, each with a decision of its own."""
    log = Log(path)
    for entity, classes, source in bursts:
        add_stage(log, stream(log, entity, classes, source))
    log.close()


SHORT = small(stages=2)


def both_ways(path: Path) -> Embedded:
    """Go on undisturbed, and with a copy of the file under an unkind schedule: the same."""
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    run = gone_on(path, SHORT)
    assert outcome(gone_on(copy, SHORT, seed=5)) == outcome(run)
    return run


def test_a_burst_after_the_end_is_one_more_stage(folder: Path) -> None:
    """A class that nobody knew: judged by its twin alone, grown, taught by the last version."""
    path = folder / "run.sqlite"
    end = in_file(SHORT, path).observer.line.model
    added(path, (NORTH, {"9": 10}, "visitor"))
    run = both_ways(path)
    line = run.observer.line

    assert set(verdicts(run, 2)) == {NORTH}
    assert grown(line) == [True, True, True]
    assert line.stages[2].grown is not None
    assert set(line.stages[2].grown.rows) == {"9"}
    assert line.stages[2].grown.prototypes == ()
    assert run.observer.teachers.chosen[-1].teacher == end
    assert all(NORTH in [p.entity for p in each.opened.participants]
               for each in line.stages[2].rounds)  # fmt: skip


def test_a_class_that_has_a_row_is_new_to_another_twin(folder: Path) -> None:
    """Its verdict is `new`, no row is added, and the twin moves on at the stage's first round."""
    path = folder / "run.sqlite"
    before = in_file(SHORT, path)
    entity, uid = next(
        (entity, uid)
        for entity in before.observer.line.entities
        for uid in before.observer.line.rows
        if uid not in before.observer.verdicts.line(entity).known
    )
    added(path, (entity, {uid: 9}, "visitor"))
    run = both_ways(path)

    assert verdicts(run, 2)[entity].classes == (uid,)
    assert grown(run.observer.line) == [True, True, False]
    assert run.observer.line.rows == before.observer.line.rows
    sent = [run.observer.measured[f"update/{each.opened.number}/{entity}"]["samples"]
            for each in run.observer.line.stages[2].rounds]  # fmt: skip
    assert sent == [verdicts(run, 2)[entity].trainable] * 2


@pytest.mark.slow
def test_known_classes_that_come_again_are_trained_on(folder: Path) -> None:
    """More images of a class that the twin has: nothing is new, and there are more to train on."""
    path = folder / "run.sqlite"
    before = in_file(SHORT, path)
    (uid, *_) = verdicts(before, 1)[WEST].classes
    added(path, (WEST, {uid: 5}, "visitor"))
    run = both_ways(path)

    assert verdicts(run, 2)[WEST].verdict in ("known", "suspected")
    assert verdicts(run, 2)[WEST].trainable == verdicts(run, 1)[WEST].trainable + 5


def test_two_pending_bursts_are_one_stage(folder: Path) -> None:
    """To two twins: both are judged, and their classes grow together, in order of uid."""
    path = folder / "run.sqlite"
    in_file(SHORT, path)
    added(path, (NORTH, {"9": 8}, "visitor"), (EAST, {"8": 8}, "visitor"))
    line = both_ways(path).observer.line

    assert len(line.stages) == 3
    assert line.stages[2].grown is not None
    assert line.stages[2].grown.rows == {"8": 6, "9": 7}


def test_known_classes_that_come_with_a_new_one_are_trained_on(folder: Path) -> None:
    """Of a class that became old long ago five late images are ordinary ones, beside its memory."""
    path = folder / "run.sqlite"
    before = in_file(SHORT, path)
    entity = next(
        e for e in (NORTH, EAST, SOUTH) if len(before.observer.verdicts.line(e).known) > 2
    )
    first, later = (verdicts(before, stage)[entity].classes for stage in (0, 1))
    added(path, (entity, {first[0]: 5, "9": 8}, "visitor"))
    run = both_ways(path)
    verdict = verdicts(run, 2)[entity]
    share = SHORT.memory // len(first + later)

    assert verdict.classes == ("9",)
    assert verdict.trainable == 5 + 8 + share * len(first + later)
    for each in run.observer.line.stages[2].rounds:
        measured = run.observer.measured[f"update/{each.opened.number}/{entity}"]
        assert measured["samples"] == verdict.trainable


@pytest.mark.slow
def test_two_bursts_for_one_twin_are_two_stages(folder: Path) -> None:
    """A twin judges a stage once, so what comes second is judged after that."""
    path = folder / "run.sqlite"
    in_file(SHORT, path)
    added(path, (NORTH, {"9": 8}, "visitor"), (NORTH, {"8": 8}, "second"))
    run = both_ways(path)

    assert grown(run.observer.line) == [True] * 4
    assert verdicts(run, 2)[NORTH].classes == ("9",)
    assert verdicts(run, 3)[NORTH].classes == ("8",)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [14, 22, 30])
def test_when_a_burst_comes_makes_no_difference(folder: Path, moment: int) -> None:
    """In the middle of the run, once all has been streamed, or behind its end: one model."""
    late = folder / "late.sqlite"
    in_file(SHORT, late)
    added(late, (NORTH, {"9": 10}, "visitor"))
    run = put_together(SHORT, log := Log())
    for _ in range(moment):
        run.system.step()
    add_stage(log, stream(log, NORTH, {"9": 10}))
    run.system.run()

    assert outcome(run).model == outcome(in_file(SHORT, late)).model
    assert len(run.observer.line.stages) == 3


@pytest.mark.slow
@pytest.mark.parametrize("moment", [3, 6, 9])
def test_a_burst_in_the_middle_of_the_streams_is_read_alike_by_all(
    folder: Path, moment: int
) -> None:
    """Between images of the schedule: in whichever order they stand, it is the same for all."""
    path = folder / "run.sqlite"
    log = Log(path)
    run = put_together(SHORT, log)
    for _ in range(moment):
        run.system.step()
    add_stage(log, stream(log, NORTH, {"9": 10}))
    log.close()

    ends: list[Outcome] = []
    for number, seed in enumerate((None, 1, 2)):
        copy = path.with_name(f"{number}.sqlite")
        copy.write_bytes(path.read_bytes())
        ends.append(outcome(gone_on(copy, SHORT, seed)))
    assert ends[1:] == ends[:1] * 2
