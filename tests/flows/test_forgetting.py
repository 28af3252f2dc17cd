"""Images that somebody wants forgotten train nothing any more, and leave the log (0021)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments.replay import Replay
from infra.promises import Result, Task
from infra.transport.embedded import Embedded as Log
from infra.transport.unkind import Unkind
from schemas.codec import records
from schemas.messages import Forgotten, RoundClosed
from schemas.topics import parted
from tests.flows.alive import EAST, NAMES, NORTH, SOUTH, WEST, Alive, lively, whim
from tests.flows.federation import NAMES as RECIPE
from tests.flows.federation import decided, finished, letters, outcome, put_together, small
from tests.flows.learner import FAKES
from tests.flows.test_held_out import Seen, tenths
from twins.apart import is_tenth
from twins.twins import Twins


def forget(
    run: Alive,
    entity: str,
    first: int,
    behind: int,
    label: str | None = None,
    source: str = "camera",
) -> None:
    """Somebody asks an entity's twin to forget a range of a source, of one class or of all.

    Nothing is to stay in the stream that is there by now.
    """
    said = Forgotten(
        run=run.line.run,
        entity=entity,
        label=label,
        images={source: (first, behind)},
        before=run.log.end(NAMES.of_entity("samples", entity)),
    )
    run.log.append(
        NAMES.of_entity("twin-state", entity), records(said, source="operator", key=said.key)[1]
    )


def held(run: Alive, entity: str) -> bytes:
    """All that an entity's topics hold."""
    topics = [NAMES.of_entity(each, entity) for each in ("samples", "twin-state")]
    found = [stored.record.value for each in topics
             for stored in run.log.read(each, run.log.first(each), 1 << 30)]  # fmt: skip
    return b"\0".join(found)


def test_a_forgotten_image_trains_nothing_any_more_and_all_others_do() -> None:
    """Number 7 of the camera is forgotten before anybody looked at it; it is one that would train.

    Its stream is let go up to then, and what is needed of it is trained on and held out all the
    same.
    """
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    sent = {entity: run.stream(entity, "012", 20) for entity in (NORTH, EAST, SOUTH)}
    assert not is_tenth("camera", 7)
    forget(run, EAST, 7, 8)
    run.after(11)

    east = [image.tobytes() for image in sent[EAST]]
    apart = {east[number] for number in tenths(60)}
    assert run.log.first(NAMES.of_entity("samples", EAST)) == 1
    assert east[7] not in held(run, EAST)
    assert all(image in held(run, EAST) for image in east if image != east[7])
    assert not {east[7]} & (seen.trained() | seen.by["judge window"])
    assert {*east} - apart - {east[7]} <= seen.trained()
    assert apart <= seen.by["held-out images"]
    counted = [each for each in run.line.decisions.values() if isinstance(each, RoundClosed)]
    assert counted
    assert all(EAST in dict(each.counted) for each in counted)


def test_an_exemplar_and_an_image_held_out_leave_the_twins_diary() -> None:
    """After a stage that made class 0 old: one of its exemplars and one image that was kept apart.

    Rounds and scores go on without them, and no other image is held out in their place.
    """
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    sent = {entity: run.stream(entity, "012", 20) for entity in (NORTH, EAST, SOUTH)}
    run.after(11)
    run.stream(EAST, "7", 40)
    run.after(11)
    east = [image.tobytes() for image in sent[EAST]]
    kept = [number for number in range(60) if east[number] in held(run, EAST)]
    apart = [number for number in kept if is_tenth("camera", number)]
    exemplars = [number for number in kept if not is_tenth("camera", number)]
    assert apart
    assert exemplars
    forget(run, EAST, exemplars[0], exemplars[0] + 1)
    forget(run, EAST, apart[0], apart[0] + 1)
    run.settle()

    gone = {east[exemplars[0]], east[apart[0]]}
    rest = {east[number] for number in kept} - gone
    assert [number for number in range(60) if east[number] in held(run, EAST)] == sorted(
        {*kept} - {exemplars[0], apart[0]}
    )
    for images in seen.by.values():
        images.clear()
    run.stream(NORTH, "8", 40)
    run.after(11)
    assert not gone & set().union(*seen.by.values())
    assert rest <= seen.by["learn data"] | seen.by["held-out images"]


def test_a_class_is_forgotten_as_far_as_it_came_and_no_further() -> None:
    """Of EAST's class 1 what is there by now; what comes later under the same numbers was asked
    for, too, and what comes with new ones is another image."""
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    early = run.stream(EAST, "012", 20)
    for entity in (NORTH, SOUTH):
        run.stream(entity, "012", 20)
    forget(run, EAST, 0, 70, "1")
    late = run.stream(EAST, "1", 20)
    run.after(11)
    run.after(61)

    of_class = [*early[20:40], *late[:10]]
    assert not {image.tobytes() for image in of_class} & seen.trained()
    assert not any(image.tobytes() in held(run, EAST) for image in of_class)
    others = [*early[:20], *early[40:], *late[10:]]
    assert all(image.tobytes() in held(run, EAST) for image in others)
    trained = {
        early[n].tobytes() for n in (*range(20), *range(40, 60)) if not is_tenth("camera", n)
    }
    assert trained <= seen.trained()


def test_an_entity_without_an_image_left_is_waited_for_by_nobody() -> None:
    """All that EAST had is forgotten in the middle of a stage: rounds close, with it and its word
    that there is nothing to train on, and it goes on when something new comes."""
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    for entity in (NORTH, EAST, SOUTH):
        run.stream(entity, "012", 20)
    run.after(11)
    forget(run, EAST, 0, 60)
    run.stream(NORTH, "7", 40)
    run.after(11)
    run.after(61)
    rounds = [closed for _, closed in run.rounds()]

    assert len(rounds) >= 3
    assert all(rounds)
    fresh = run.stream(EAST, "8", 40)
    run.after(11)
    assert {i.tobytes() for n, i in enumerate(fresh) if not is_tenth("camera", 60 + n)} <= (
        seen.trained()
    )


def test_who_takes_over_finds_what_was_moved() -> None:
    """The twin's process is gone behind the move. A newcomer reads its topic: the same images are
    there, judged and to be judged, and the stream goes on at the same number."""
    seen = Seen()
    run = Alive(functions=seen.functions)
    run.settle()
    sent = {entity: run.stream(entity, "012", 20) for entity in (NORTH, EAST, SOUTH)}
    run.after(11)
    few = run.stream(EAST, "7", 12)  # too few to be judged by themselves
    forget(run, EAST, 3, 5)
    run.settle()
    assert run.log.first(NAMES.of_entity("samples", EAST)) == 2
    run.vanish(EAST)
    seen.by.clear()
    run.join(Twins(NAMES, parted(EAST)[0], run.shelf, [EAST]))
    run.settle()
    run.mark(EAST)
    run.after(11)
    more = run.stream(EAST, "0", 40)
    run.stream(NORTH, "9", 40)
    run.after(11)
    run.after(61)

    east = [image.tobytes() for image in (*sent[EAST], *few, *more)]
    apart = {east[number] for number in tenths(len(east))}
    assert len(run.line.stages) == 3
    assert not {east[3], east[4]} & (seen.trained() | seen.by["held-out images"])
    assert {*east[60:72]} - apart <= seen.trained()
    assert {*east[72:]} - apart <= seen.trained()
    assert not apart & seen.trained()


def test_what_is_in_work_when_it_is_forgotten_is_begun_again() -> None:
    """A training that was given the image comes back after the request was read: it is dropped, and
    the answer to the round is one without the image."""
    order: list[tuple[int, bool]] = []

    def learn(task: Task) -> Result:
        if task.values["entity"] == EAST:
            has = mine in {image.tobytes() for image in task.groups["data"]["images"]}
            order.append((task.values["round"], has))
            if len(order) == 1:
                forget(run, EAST, 7, 8)
                east.step()  # the request is read while the training is in work
        return FAKES["learn"](task)

    run = Alive(entities=(NORTH, EAST), functions={**FAKES, "learn": learn})
    east = next(s for s in run.system.sessions if s.role is run.roles[EAST])
    run.settle()
    run.stream(NORTH, "012", 20)
    mine = run.stream(EAST, "012", 20)[7].tobytes()
    run.after(11)

    assert order[:2] == [(0, True), (0, False)]
    assert not any(has for _, has in order[1:])
    _, closed = run.rounds()[0]
    assert closed is not None
    assert EAST in dict(closed.counted)


def test_a_copy_whose_images_were_moved_before_it_knew_goes_on_all_the_same() -> None:
    """EAST's second copy was about to begin its stage when the first one read the request, moved
    the stream, trimmed it and died. The second finds nothing where the images lay, reads on, and
    says its state and its answers without the forgotten one."""
    trained: list[set[bytes]] = []

    def herd(task: Task) -> Result:
        if len(run.system.sessions) == 8:
            forget(run, EAST, 7, 8)
            east = run.vanish(EAST)
            while run.log.first(NAMES.of_entity("samples", EAST)) == 0:
                east.step()
        return FAKES["herd"](task)

    def learn(task: Task) -> Result:
        if task.values["entity"] == EAST:
            trained.append({image.tobytes() for image in task.groups["data"]["images"]})
        return FAKES["learn"](task)

    functions = {**FAKES, "herd": herd, "learn": learn}
    run = Alive(entities=(EAST, NORTH), functions=functions, copies=2)
    run.settle()
    run.stream(NORTH, "012", 20)
    images = [image.tobytes() for image in run.stream(EAST, "012", 20)]
    run.after(11)

    assert [id[:2] for id in run.system._passed_over] == [("herd", EAST)]
    wanted = {image for n, image in enumerate(images) if n != 7 and not is_tenth("camera", n)}
    _, closed = run.rounds()[0]
    assert closed is not None
    assert EAST in dict(closed.counted)
    assert trained == [wanted] * len(run.rounds())


def test_a_recipe_waits_for_every_image_so_its_twins_refuse() -> None:
    """The request becomes a dead letter, and the run ends in the model of one without it."""
    configuration = small(stages=2)
    run = put_together(configuration, Log())
    log = run.system._around.transport
    while decided(log, RECIPE).opened is None:
        run.system.step()
    entity = decided(log, RECIPE).entities[0]
    asked = Forgotten(run=decided(log, RECIPE).run, entity=entity, images={"schedule": (0, 3)})
    topic = RECIPE.of_entity("twin-state", entity)
    log.append(topic, records(asked, source="operator", key=asked.key)[1])
    run.system.run()

    assert [(each.about, each.reason) for each in letters(run)] == [(asked.identity, "out-of-line")]
    assert outcome(run).model == finished(configuration).model


def test_the_file_of_the_log_holds_no_byte_of_it(tmp_path: Path) -> None:
    """Neither the database nor what it writes ahead: searched from outside, while all is open."""
    run = Alive(path=tmp_path / "run.sqlite")
    run.settle()
    sent = {entity: run.stream(entity, "012", 20) for entity in (NORTH, EAST, SOUTH)}
    run.after(11)
    run.stream(EAST, "7", 40)
    run.after(11)

    def on_disk(image: bytes) -> bool:
        return any(image in path.read_bytes() for path in tmp_path.iterdir())

    there = [n for n in range(60) if on_disk(sent[EAST][n].tobytes())]
    assert len(there) >= 2
    forget(run, EAST, there[0], there[0] + 1)
    run.settle()

    assert not on_disk(sent[EAST][there[0]].tobytes())
    assert all(on_disk(sent[EAST][n].tobytes()) for n in there[1:])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_copies_in_any_order_forget_the_same_and_lose_nothing_else(seed: int) -> None:
    """Two of each role over an unkind log: whichever reads a request first, what was forgotten is
    in no task that was prepared later and in no topic; all else was trained on, or is there; and
    every sum of the log comes to the same bytes again."""
    chance, seen = random.Random(seed), Seen()
    run = Alive(
        lively(keep_rounds="all"),
        over=lambda log: Unkind(log, chance, 0.3), copies=2, order=whim(seed),
        functions=seen.functions,
    )  # fmt: skip
    run.settle()
    entities = (NORTH, EAST, SOUTH, WEST)
    sent: dict[str, list[bytes]] = {entity: [] for entity in entities}
    asked: set[tuple[str, int]] = set()
    """Some of them come only later."""
    for uids in ("012", "34", "56", "012", "7"):
        for entity in chance.sample(entities, 3):
            images = run.stream(entity, uids, chance.randint(12, 30))
            sent[entity] += [image.tobytes() for image in images]
        for entity in chance.sample(entities, 2):
            first = chance.randrange(len(sent[entity]) + 1)
            behind = first + chance.randint(1, 5)
            forget(run, entity, first, behind)
            asked |= {(entity, number) for number in range(first, behind)}
        run.after(chance.choice((0, 11, 70)))
    run.after(11)
    for _ in range(6):
        run.after(61)

    gone = {sent[entity][n] for entity, n in asked if n < len(sent[entity])}
    for entity, its in sent.items():
        there, apart = held(run, entity), {its[number] for number in tenths(len(its))}
        assert not any(image in there for image in gone)
        lost = {*its} - apart - gone - seen.trained()
        assert all(image in there for image in lost)  # no round has asked for those yet
        assert not apart & seen.trained()
    seen.by.clear()
    run.stream(NORTH, "8", 40)
    run.stream(SOUTH, "9", 40)
    for _ in range(3):
        run.after(61)
    assert not gone & set().union(*seen.by.values())
    assert len(seen.by["held-out images"]) > 20
    replayed = Replay(run.log, NAMES).fold()
    assert replayed.different == []
    assert replayed.summed > 10


def test_a_twin_that_holds_only_the_newest_of_a_long_stream_forgets_what_is_left() -> None:
    """Of 1,200 images of two classes EAST holds the newest 200 or somewhat more, and exemplars of
    the others. What it can still have is forgotten, what it has let go is not missed, and it goes
    on to let go of what was moved."""
    seen = Seen()
    run = Alive(
        lively(keep_images=200, rounds_per_stage=2),
        entities=(NORTH, EAST),
        functions=seen.functions,
    )
    run.settle()
    sent: list[bytes] = []
    for turn in range(12):
        run.stream(NORTH, "01", 50)
        sent += [image.tobytes() for image in run.stream(EAST, "01", 50)]
        run.after(11)
        if turn == 7:
            there = [n for n, image in enumerate(sent) if image in held(run, EAST)]
            gone = {
                there[0],
                *range(700, 720),
            }  # an exemplar or one held out, and some of the stream
            forget(run, EAST, there[0], there[0] + 1)
            forget(run, EAST, 700, 720)
            run.settle()
            assert {n for n in there if sent[n] in held(run, EAST)} == {*there} - gone
            seen.by.clear()

    last = held(run, EAST)
    assert not {sent[n] for n in gone} & seen.trained()
    assert not any(sent[n] in last for n in gone)
    trains = {n for n in range(720, 1200) if not is_tenth("camera", n)}
    assert {sent[n] for n in trains} <= seen.trained()
    early = [n for n in range(800) if sent[n] in last and not is_tenth("camera", n)]
    assert len(early) <= run.configuration.memory


def test_a_stream_is_moved_while_a_choice_is_in_work() -> None:
    """Of a class with more tenths than are held out one of those is forgotten, as a stage begins.

    While its twin chooses what it remembers it hears that its stream was moved: from here on
    another image would be held out in its place. What was chosen is of the images it was given.
    """
    told: list[int] = []

    def herd(task: Task) -> Result:
        if not told and len(task.groups.get("apart", {}).get("images", ())) > 20:
            for _ in range(5):
                east.step()  # it reads on while a worker works
            told.append(run.log.first(NAMES.of_entity("samples", EAST)))
        return FAKES["herd"](task)

    run = Alive(lively(), entities=(NORTH, EAST), functions={**FAKES, "herd": herd})
    east = next(each for each in run.system.sessions if each.role is run.roles[EAST])
    run.settle()
    run.stream(NORTH, "012", 20)
    run.stream(EAST, "0", 800)
    first, steps = tenths(800)[0], east.step

    def step() -> bool:
        if not asked and "StageOpened" in run.kinds():
            asked.append(None)
            forget(run, EAST, first, first + 1)
        return steps()

    asked: list[None] = []
    east.step = step  # type: ignore[method-assign]  # just before it hears that a stage begins
    run.after(11)

    assert told
    assert run.line.stages[-1].rounds
