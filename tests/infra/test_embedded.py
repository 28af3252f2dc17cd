"""The log in a file: several processes at once, kills, a full disk, and bytes that are really gone.

What it promises like every transport is asked in tests/contracts/.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.points import Hook
from infra.transport import embedded
from infra.transport.base import Transport, Trimmed
from infra.transport.embedded import Embedded
from schemas.codec import Record
from schemas.errors import DataError, DiskFull, RunFailed

TOPIC = "fedtwin.run.samples.local.entity-000"
STATE = "fedtwin.run.twin-state.local.entity-000"
PLENTY = 1 << 24
PIXELS = b"these pixels show a person"


def records(*keys: str, size: int = 40) -> list[Record]:
    """One record for each key."""
    return [Record(key, key.encode().ljust(size, b"."), {"ce_subject": key}) for key in keys]


def keys(log: Transport, topic: str = TOPIC) -> list[str]:
    """The keys of all records that are there."""
    return [each.record.key for each in log.read(topic, log.first(topic), PLENTY)]


def elsewhere(story: Callable[[], None]) -> int:
    """Begin a story in a process of its own; gives its id. It ends with 1 when the story raises."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        story()
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killer(point: str, nth: int) -> Hook:
    """A hook that kills its process when it comes to a point for the nth time."""
    seen = 0

    def hook(name: str) -> None:
        nonlocal seen
        seen += name == point
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log will be."""
    return tmp_path / "run.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[Embedded]:
    """A log in a file."""
    with closing(Embedded(path)) as made:
        yield made


# --- several processes ----------------------------------------------------------------------------


def test_two_processes_write_while_a_third_reads(path: Path, log: Embedded) -> None:
    """A run and an injector append at once: each append stands together, and all see one order."""

    def writer(name: str) -> Callable[[], None]:
        def story() -> None:
            with closing(Embedded(path)) as mine:
                for i in range(60):
                    mine.append(TOPIC, records(*(f"{name}/{i}/{j}" for j in range(3)), size=3000))

        return story

    pids = [elsewhere(writer("run")), elsewhere(writer("injector"))]
    seen: list[str] = []
    place = 0
    while len(seen) < 2 * 60 * 3:
        for stored in log.read(TOPIC, place, 50_000):
            place = stored.offset + 1
            seen.append(stored.record.key)

    assert [ended(pid) for pid in pids] == [0, 0]
    assert keys(log) == seen
    for name in ("run", "injector"):
        own = [key for key in seen if key.startswith(name)]
        assert own == [f"{name}/{i}/{j}" for i in range(60) for j in range(3)]
    triples = [seen[i : i + 3] for i in range(0, len(seen), 3)]
    assert all(len({key.rpartition("/")[0] for key in triple}) == 1 for triple in triples)


def test_many_processes_open_a_new_log_at_once(path: Path) -> None:
    """Eight begin with nothing: one of them makes the file, and each writes its record to it."""

    def story(number: int) -> Callable[[], None]:
        def opened() -> None:
            with closing(Embedded(path)) as mine:
                mine.append(TOPIC, records(str(number)))

        return opened

    pids = [elsewhere(story(number)) for number in range(8)]

    assert [ended(pid) for pid in pids] == [0] * 8
    with closing(Embedded(path)) as found:
        assert sorted(keys(found)) == [str(number) for number in range(8)]


def test_a_reader_that_holds_on_delays_nobody(path: Path, log: Embedded) -> None:
    """Somebody inspects the file and does not let go: the run appends and trims all the same."""
    log.append(TOPIC, records("a", "b"))
    with closing(sqlite3.connect(path, isolation_level=None)) as person:
        person.execute("BEGIN")
        assert person.execute("SELECT count(*) FROM records").fetchone() == (2,)

        log.append(TOPIC, records("c"))
        log.trim(TOPIC, 1)

        assert person.execute("SELECT count(*) FROM records").fetchone() == (2,)
    assert keys(log) == ["b", "c"]


def test_who_waits_too_long_for_another_writer_is_told_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program holds the file in the middle of a write: one line; once it lets go, all is well."""
    monkeypatch.setattr(embedded, "BUSY_SECONDS", 0.05)
    with closing(Embedded(path)) as mine, closing(sqlite3.connect(path)) as stuck:
        stuck.isolation_level = None
        stuck.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFailed, match="another program has not let go of it"):
            mine.append(TOPIC, records("a"))

        stuck.execute("ROLLBACK")
        mine.append(TOPIC, records("a"))

        assert keys(mine) == ["a"]


def test_everything_that_flowed_can_be_inspected_with_sql(path: Path, log: Embedded) -> None:
    """Another program finds topics, keys, headers and sizes under the names that we document."""
    log.append(TOPIC, records("a", "b"))
    log.append(STATE, records("state/1"))

    with closing(sqlite3.connect(path)) as person:
        rows = person.execute(
            "SELECT name, offset, key, headers ->> 'ce_subject', length(value)"
            " FROM records JOIN topics ON topics.id = records.topic ORDER BY name, offset"
        ).fetchall()

    assert rows == [
        (TOPIC, 0, "a", "a", 40),
        (TOPIC, 1, "b", "b", 40),
        (STATE, 0, "state/1", "state/1", 40),
    ]


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "durable"),
    [("append:before", 4), ("append:written", 4), ("append:durable", 5)],
)
def test_a_writer_that_is_killed_leaves_whole_appends(path: Path, point: str, durable: int) -> None:
    """Killed in its fifth append of three records: it is there as a whole or not at all."""

    def story() -> None:
        mine = Embedded(path, killer(point, 5))
        for i in range(10):
            mine.append(TOPIC, records(*(f"{i}/{j}" for j in range(3)), size=200_000))

    assert ended(elsewhere(story)) == -signal.SIGKILL

    with closing(Embedded(path)) as found:
        assert keys(found) == [f"{i}/{j}" for i in range(durable) for j in range(3)]
        assert found.append(TOPIC, records("next")) == [3 * durable]


def test_what_was_durable_before_a_kill_at_any_moment_is_there(path: Path) -> None:
    """Twelve writers one after the other, each killed somewhere: every append that returned stands.

    Each tells through a pipe what was durable; nothing is lost, halved or written between.
    """
    told: list[str] = []
    for number in range(12):
        reads, writes = os.pipe()

        def story(number: int = number, writes: int = writes) -> None:
            mine = Embedded(path)
            for i in range(1000):
                name = f"{number}/{i}"
                mine.append(TOPIC, records(f"{name}/a", f"{name}/b", size=2000))
                os.write(writes, f"{name}\n".encode())

        pid = elsewhere(story)
        os.close(writes)
        said = b""
        while said.count(b"\n") < 1 + 3 * number:
            said += os.read(reads, 64)
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        with os.fdopen(reads, "rb") as rest:
            told += (said + rest.read()).decode().splitlines()

    with closing(Embedded(path)) as found:
        there = keys(found)
    firsts, seconds = there[::2], there[1::2]
    assert [key.removesuffix("/a") for key in firsts] == [key.removesuffix("/b") for key in seconds]
    assert [key for key in firsts if key.removesuffix("/a") in told] == [f"{key}/a" for key in told]
    assert len(firsts) - len(told) <= 12  # one each may have been durable and not told any more


def test_a_trim_that_is_killed_between_two_pieces_is_taken_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the third piece: two are gone, the rest is whole, and trimming goes on."""
    monkeypatch.setattr(embedded, "TRIM_BYTES", 2000)

    def story() -> None:
        mine = Embedded(path, killer("trim", 3))
        mine.append(TOPIC, records(*"abcdefgh", size=1000))
        mine.trim(TOPIC, 7)

    assert ended(elsewhere(story)) == -signal.SIGKILL

    with closing(Embedded(path)) as found:
        assert (found.first(TOPIC), keys(found)) == (4, list("efgh"))
        found.trim(TOPIC, 7)
        assert (found.first(TOPIC), keys(found)) == (7, ["h"])


# --- a full disk ----------------------------------------------------------------------------------


def test_a_full_disk_is_told_in_one_line_with_a_remedy(path: Path, log: Embedded) -> None:
    """A limit of pages stands in for the disk: what was there stands, and trimming needs no more.

    With room again the same holder of the log goes on.
    """
    log.append(TOPIC, records("a", "b"))
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull) as told:
        log.append(TOPIC, records("c", size=200_000))
    assert keys(log) == ["a", "b"]
    log.trim(TOPIC, 1)

    log._connection.execute("PRAGMA max_page_count = 100000")
    log.append(TOPIC, records("c", size=200_000))

    assert keys(log) == ["b", "c"]
    assert str(told.value) == (
        f"{path}: database or disk is full. What was written stands: make room, then resume"
    )


# --- bytes that are gone --------------------------------------------------------------------------


def stands_in(path: Path) -> list[str]:
    """The files beside the log, itself included, in which the pixels can still be found."""
    return [each.name for each in sorted(path.parent.iterdir()) if PIXELS in each.read_bytes()]


def with_pixels(log: Embedded) -> None:
    """A stream and a twin's memory with pixels in them, among records without."""
    for i in range(40):
        log.append(TOPIC, records(f"before/{i}", size=5000))
        log.append(TOPIC, [Record(f"batch/{i}", PIXELS * 700)])
        log.append(STATE, [Record(f"image/{i}", PIXELS), *records(f"state/{i}")])


def let_all_go(log: Embedded) -> None:
    """Trim the stream and forget the exemplars."""
    log.trim(TOPIC, log.end(TOPIC))
    log.forget(STATE, *(f"image/{i}" for i in range(40)))


def test_pixels_that_were_let_go_stand_in_no_file(path: Path, log: Embedded) -> None:
    """Trimmed and forgotten by a run that goes on: neither the log nor its journal shows them."""
    with_pixels(log)
    assert stands_in(path)

    let_all_go(log)

    assert stands_in(path) == []
    assert keys(log, STATE) == [f"state/{i}" for i in range(40)]


def test_pixels_that_somebody_reads_meanwhile_go_when_the_log_is_closed(path: Path) -> None:
    """A person looks at the file while it is trimmed, and their view holds the journal.

    When the run ends they have looked enough, but not closed the file: the journal is emptied.
    """
    log = Embedded(path)
    with_pixels(log)
    with closing(sqlite3.connect(path, isolation_level=None)) as person:
        person.execute("BEGIN")
        person.execute("SELECT count(*) FROM records").fetchone()
        let_all_go(log)
        assert stands_in(path)
        person.execute("ROLLBACK")

        log.close()

        assert stands_in(path) == []


def test_pixels_go_though_the_trimming_process_was_killed(path: Path) -> None:
    """Killed before the last step of a trim: whoever opens the log next and closes it, ends it."""

    def story() -> None:
        mine = Embedded(path, killer("trim", 1))
        with_pixels(mine)
        mine.forget(STATE, *(f"image/{i}" for i in range(40)))
        mine.trim(TOPIC, mine.end(TOPIC))

    assert ended(elsewhere(story)) == -signal.SIGKILL
    assert stands_in(path)

    with closing(Embedded(path)) as found:
        found.trim(TOPIC, found.end(TOPIC))

    assert stands_in(path) == []


def test_the_file_shrinks_with_what_is_let_go(path: Path, log: Embedded) -> None:
    """Twenty megabytes flowed and one record is left: the file is as small as it was at first."""
    log.append(TOPIC, records("first"))
    log.trim(TOPIC, 1)
    small = path.stat().st_size
    for i in range(20):
        log.append(TOPIC, records(str(i), size=1_000_000))
    log.append(TOPIC, records("last"))

    log.trim(TOPIC, log.end(TOPIC) - 1)

    assert keys(log) == ["last"]
    assert path.stat().st_size <= small + 16384
    assert path.with_name("run.sqlite-wal").stat().st_size == 0


def test_a_trim_lets_go_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five records of 1000 bytes, and pieces of 2000: three pieces, between which others write."""
    monkeypatch.setattr(embedded, "TRIM_BYTES", 2000)
    starts: list[int] = []

    def hook(point: str) -> None:
        if point == "trim":
            with closing(Embedded(path)) as other:
                starts.append(other.first(TOPIC))
                other.append(STATE, records(f"between/{len(starts)}"))

    with closing(Embedded(path, hook)) as trimming:
        trimming.append(TOPIC, records(*"abcde", size=1000))
        trimming.trim(TOPIC, 5)

        assert starts == [0, 2, 4]
        assert keys(trimming) == []
        assert keys(trimming, STATE) == ["between/1", "between/2", "between/3"]


# --- files that are no log ------------------------------------------------------------------------


def no_database(path: Path) -> None:
    """Some text."""
    path.write_text("version,sha256\n" * 100)


def newer_version(path: Path) -> None:
    """A log as a later program may write it."""
    Embedded(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 7")


def other_program(path: Path) -> None:
    """Another program's database, which has a version of its own."""
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE bookmarks (address TEXT)")
        theirs.execute("PRAGMA user_version = 1")


def half_a_file(path: Path) -> None:
    """A copy that was cut off."""
    with closing(Embedded(path)) as log:
        log.append(TOPIC, records(*map(str, range(100)), size=5000))
    path.write_bytes(path.read_bytes()[:300_000])


def folder_in_its_place(path: Path) -> None:
    """A folder of that name."""
    path.mkdir()


def test_a_mistake_of_our_own_is_not_told_as_a_broken_file(path: Path) -> None:
    """Who goes on with a log that was closed is told just that."""
    log = Embedded(path)
    log.close()

    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        log.append(TOPIC, records("a"))


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (no_database, "cannot be read as a log (file is not a database): restore it from a copy"),
        (newer_version, "is a log of version 7, this program reads version 1: use the program"),
        (other_program, "is a database, but no log of a run: name another file"),
        (half_a_file, "cannot be read as a log (database disk image is malformed): restore"),
        (folder_in_its_place, "cannot be opened to read and write (unable to open database file)"),
    ],
)
def test_a_file_that_is_no_log_is_refused_in_one_line(
    path: Path, broken: Callable[[Path], None], line: str
) -> None:
    """The line names the file and the remedy, and what was in the file is still in it."""
    broken(path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(DataError) as told, closing(Embedded(path)) as log:
        keys(log)

    assert str(told.value).startswith(f"{path} {line}")
    assert "\n" not in str(told.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


# --- all of it together ---------------------------------------------------------------------------

KEYS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), KEYS),
        st.tuples(st.just("forget"), KEYS),
        st.tuples(st.just("trim"), st.integers(0, 12)),
        st.tuples(st.just("read"), st.integers(0, 12)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_the_log_is_what_a_list_would_be(
    steps: list[tuple[str, list[str] | int]],
) -> None:
    """Appended, forgotten, trimmed and read in any order: it always agrees with a plain list."""
    log = Embedded()
    model: list[tuple[int, str]] = []
    start = written = 0
    for what, content in steps:
        match what, content:
            case "append", list(some):
                offsets = list(range(written, written + len(some)))
                assert log.append(TOPIC, records(*some)) == offsets
                model += [(written + i, key) for i, key in enumerate(some)]
                written += len(some)
            case "forget", list(some):
                log.forget(TOPIC, *some)
                model = [each for each in model if each[1] not in some]
            case "trim", int(before):
                log.trim(TOPIC, before)
                start = max(start, min(before, model[-1][0] + 1 if model else start))
                model = [each for each in model if each[0] >= start]
            case "read", int(place):
                wanted = [each for each in model if each[0] >= place]
                assert told(log, place) == (start if place < start else wanted)

        assert log.first(TOPIC) == start
        assert log.end(TOPIC) == (model[-1][0] + 1 if model else start)
    log.close()


def told(log: Transport, place: int) -> list[tuple[int, str]] | int:
    """What a reader at a place is told: records, or where the topic begins."""
    try:
        return [(each.offset, each.record.key) for each in log.read(TOPIC, place, PLENTY)]
    except Trimmed as trimmed:
        return trimmed.first
