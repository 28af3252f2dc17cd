"""Nothing waits in silence: what can never come ends the run, named; and resume goes on with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from infra.promises import Result, Task
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.store.sqlite import SqliteStore
from infra.transport.embedded import Embedded as Log
from infra.workers import Function, Inline
from schemas.codec import LENGTH, Record, cut, piece
from schemas.errors import Diverged, Stalled
from schemas.messages import RoundClosed
from tests.flows.federation import (
    EAST,
    LIMIT,
    NAMES,
    NORTH,
    SOUTH,
    Outcome,
    Told,
    decided,
    in_file,
    letters,
    outcome,
    put_together,
    small,
)
from tests.flows.learner import FAKES, silent
from twins.twins import Twins


class Swallowing(Log):
    """A log in a file that loses every message of one kind in one topic."""

    def __init__(self, path: Path, kind: str, topic: str) -> None:
        super().__init__(path)
        self._lost = (f"fedtwin.{kind}.v1", topic)

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        """All but these."""
        kept = [each for each in records if (each.headers["ce_type"], topic) != self._lost]
        return super().append(topic, kept)


def _without(kind: str, topic: str, path: Path) -> str:
    """How a run ends in which such messages never come, in words."""
    log, store = Swallowing(path, kind, topic), SqliteStore(path)
    with pytest.raises(Stalled) as end:
        put_together(small(stages=2), log, store=store).system.run()
    log.close()
    store.close()
    assert end.value.exit_code == 1
    return str(end.value)


STORIES = [
    (
        "StreamMarked", NAMES.of_entity("samples", EAST),
        [f"twins waits for {EAST}: the mark of stage 0", f"verdicts of stage 0 by {EAST} since"],
    ),
    (
        "ModelUpdate", NAMES.of_site("updates", "local"),
        ["updates of round 0.0 by local/ent", ": its answer to round 0.0, to read it back"],
    ),
    (
        "TwinState", NAMES.of_entity("twin-state", EAST),
        [f"twins waits for {EAST}: its state behind decision 1, to read it back"],
    ),
    (
        "PrototypeGradient", NAMES.of_site("prototypes", "local"),
        ["prototypes of stage 0: local/ent", "at place 0", "the teacher of stage 1"],
    ),
]  # fmt: skip
MORE = [
    (
        "EntityJoined",
        NAMES.of_site("classes", "local"),
        ["verdicts of stage 0 by local/ent", f"twins waits for {EAST}: its EntityJoined"],
    ),
    (
        "WindowJudged",
        NAMES.of_site("classes", "local"),
        ["verdicts of stage 0 by local/ent", f"{EAST}: its verdict on stage 0, to read it back"],
    ),
    (
        "ImageBatch",
        NAMES.of_entity("samples", EAST),
        [f"twins waits for {EAST}: the images of stage 0"],
    ),
    ("TeacherChosen", NAMES.federation("teachers"), ["the teacher of stage 1"]),
    ("RunOpened", NAMES.federation("rounds"), ["producers waits for RunOpened"]),
]


@pytest.mark.parametrize(
    ("kind", "topic", "named"),
    [*STORIES, *(pytest.param(*story, marks=pytest.mark.slow) for story in MORE)],
)
def test_what_never_comes_is_named_and_resume_goes_on_when_it_is_there(
    shorter: Outcome, folder: Path, kind: str, topic: str, named: list[str]
) -> None:
    """The run ends with exit code 1; with the missing part it ends as if nothing had happened."""
    path = folder / "run.sqlite"
    words = _without(kind, topic, path)

    assert [what for what in named if what not in words] == []
    assert words.endswith("Resume goes on when it is there")
    assert outcome(in_file(small(stages=2), path)) == shorter


class Ahead(Log):
    """A log in which a later program judges for one entity."""

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        return super().append(topic, [self._later(each) for each in records])

    def _later(self, record: Record) -> Record:
        mine = (record.headers["ce_type"], record.headers.get("ce_subject"))
        if mine != ("fedtwin.WindowJudged.v1", EAST):
            return record
        payload = piece(record.value, LIMIT).content
        (length,) = LENGTH.unpack_from(payload)
        header = msgpack.unpackb(payload[LENGTH.size : LENGTH.size + length])
        packed = msgpack.packb(header | {"schema": 2})
        return replace(record, value=cut(LENGTH.pack(len(packed)) + packed).pieces[0])


def test_a_verdict_of_a_later_program_ends_a_run_that_needs_it_and_says_so() -> None:
    """The other entities are judged; the east's line stops, and both schemas are named."""
    run = put_together(small(stages=2), Ahead())
    with pytest.raises(Stalled) as end:
        run.system.run()

    assert (
        f"aggregator waits for verdicts of stage 0 by {EAST} (its line stops at WindowJudged of"
        " schema 2; this program reads schema 1) since "
    ) in str(end.value)
    assert (
        f"twins waits for {EAST}: a later program (its line stops at WindowJudged of schema 2; this"
        " program reads schema 1) since "
    ) in str(end.value)
    assert [(each.reason, each.topic) for each in letters(run)] == [
        ("newer-schema", NAMES.of_site("classes", "local"))
    ]
    assert [run.observer.verdicts.judged(each) for each in (NORTH, EAST, SOUTH)] == [0, -1, 0]


def test_a_twin_writes_nothing_behind_a_later_program_in_its_line(folder: Path) -> None:
    """Begun anew it reads what it cannot understand, and does not judge that stage again."""
    for log_of in (Ahead, Log, Log):
        log = log_of(folder / "run.sqlite")
        with pytest.raises(Stalled):
            put_together(small(stages=2), log).system.run()
        log.close()

    log = Log(folder / "run.sqlite")
    written = log.read(NAMES.of_site("classes", "local"), 0, LIMIT)
    log.close()
    assert [each.record.headers["ce_subject"] for each in written].count(EAST) == 2


def test_a_twin_whose_verdict_others_have_read_says_that_it_has_not() -> None:
    """Of a run that is over the east's twin finds everything but its own verdicts."""
    whole, log = Log(), Log()
    put_together(small(stages=2), whole).system.run()
    for topic in whole.topics():
        for stored in whole.read(topic, whole.first(topic), 2**40):
            if not stored.record.key.startswith(f"WindowJudged/{EAST}"):
                log.append(topic, [stored.record])
    shelf = Shelf(log, NAMES.federation("models"), LIMIT)
    alone = System([Twins(NAMES, "local", shelf)], Surroundings(log, shelf, LIMIT), Inline({}))
    while alone.step():
        pass

    said = [wait.what for wait in alone.waits()]
    assert f"twins waits for {EAST}: its verdict on stage 0, on which others have gone on" in said
    assert not [what for what in said if NORTH in what]


def _speechless(*rounds: tuple[int, int]) -> Mapping[str, Function]:
    """Trainings that come to nothing in these rounds."""

    def learn(task: Task) -> Result:
        place = (task.values["stage"], task.values["round"])
        return silent(task) if place in rounds else FAKES["learn"](task)

    return {**FAKES, "learn": learn}


def test_two_rounds_without_content_end_a_run_as_diverged(folder: Path) -> None:
    """With stage, round, rate and tensor; and it stays so, for resume changes no training."""
    path, mute = folder / "run.sqlite", Told(functions=_speechless((0, 0), (0, 1)))
    for _ in range(2):
        with pytest.raises(Diverged) as end:
            in_file(small(), path, mute)

        assert end.value.exit_code == 1
        for word in ("stage 0", "round 1", "learning rate 0.004", "conv1.weight"):
            assert word in str(end.value)
    log = Log(path)
    assert decided(log).number == 5
    log.close()


def test_a_round_without_content_keeps_the_model_and_the_run_goes_on(folder: Path) -> None:
    """One such round in each stage: both rounds of a stage have one version between them."""
    path = folder / "run.sqlite"
    in_file(small(), path, Told(functions=_speechless((0, 0), (1, 0), (2, 0))))

    log = Log(path)
    line = decided(log)
    log.close()
    closed = [each for each in line.decisions.values() if isinstance(each, RoundClosed)]
    assert [len(each.counted) for each in closed] == [0, 2, 0, 2, 0, 2]
    assert [each.model.version for each in closed] == [1, 2, 3, 4, 5, 6]
    assert all(reason for each in closed[::2] for _, reason in each.withheld)
