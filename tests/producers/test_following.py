"""A folder is followed: each image is streamed once, whatever happens to whoever follows it."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from infra.points import FOLLOWS, no_hook
from infra.program import NoWorkers
from infra.serve import Surroundings, System
from infra.shelf import Shelf
from infra.transport.embedded import Embedded
from producers.following import GONE, LOOK, QUIET, Feed, Following
from producers.journal import Journal
from producers.streaming import Streaming
from producers.watching import Folder
from schemas.codec import piece, unpack
from schemas.errors import ConfigurationError, DataError, DiskFull
from schemas.federation import Federation
from schemas.messages import ImageBatch, StreamMarked
from schemas.topics import Names
from tests.memory import in_memory

NAMES, RUN, WARD = Names("spring"), "a" * 64, "north/ward"
TOPIC = NAMES.of_entity("samples", WARD)
ENTITIES = {"ward": {"site": "north", "dataset": "digits", "classes": ["0"]}}
DATA = Federation.model_validate(
    {
        "recipe": "smoke",
        "entities": ENTITIES,
        "keys": {"image_size": 8},
        "classes": ["0", "1", "sick"],
    }
).data()
SETTLE, GIVE_UP = 1.0, 30.0


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where a machine can: a journal waits for its disk before each image."""
    with in_memory(otherwise=tmp_path) as made:
        yield made


class Followed:
    """A folder, a log, and somebody who follows the one into the other."""

    def __init__(
        self,
        place: Path,
        *,
        classes: dict[str, str] | None = None,
        rate: float | None = None,
        hook: Callable[[str], None] = no_hook,
        log: Embedded | None = None,
    ) -> None:
        self.root = place / "images"
        self.root.mkdir(exist_ok=True)
        self.told: list[str] = []
        self.now = 100.0
        self.log = log or Embedded(place / "log.sqlite", hook)
        self._classes, self._rate, self._hook = classes, rate, hook
        self._state = place / "state"
        self.begin()

    def begin(self) -> None:
        """Whoever follows begins, with what is on the disk."""
        folder = Folder(self.root, DATA, self._classes, settle=SETTLE, give_up=GIVE_UP)
        about = {"run": RUN, "entity": WARD}
        self.journal = Journal(self._state / "ward", about, "folder-1", point=self._hook)
        folder.check_labels(self.journal.files)
        sent = Streaming(self.log, NAMES, RUN).count(WARD, self.journal.source)
        feed = Feed(NAMES, WARD)
        self.following = Following(
            feed, folder, self.journal, DATA, RUN, sent=sent, clock=lambda: self.now,
            rate=self._rate, tell=self.told.append,
        )  # fmt: skip
        shelf = Shelf(self.log, NAMES.federation("models"), 2**20)
        self._system = System([feed], Surroundings(self.log, shelf, 2**20), NoWorkers())

    def again(self) -> None:
        """It ended, however, and is started again."""
        self.journal.close()
        self.begin()

    def goes_on(self, seconds: float) -> None:
        """So much time passes."""
        until = self.now + seconds
        while self.now < until:
            for _ in range(4):
                self.following.turn()
                self._system.step()
            self.now += LOOK / 2

    def image(self, name: str, shade: int = 100, size: int = 8) -> Path:
        """A gray image appears."""
        file = self.root / name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((size, size), shade, np.uint8)).save(file, format="PNG")
        return file

    @property
    def stream(self) -> dict[int, tuple[str | None, int | str]]:
        """Number → class, and the image's shade or the reason why there is none; as a twin takes
        them: strictly by number."""
        found: dict[int, tuple[str | None, int | str]] = {}
        for said in self._said():
            if isinstance(said, ImageBatch) and said.first <= len(found):
                shades = iter(said.groups["images"]["images"][:, 0, 0, 0].tolist())
                reasons = iter(said.reasons)
                for number, uid in enumerate(said.classes, said.first):
                    what = next(reasons) if uid is None else next(shades)
                    found.setdefault(number, (uid, what))
        return found

    @property
    def marks(self) -> list[int]:
        """The counts that were marked."""
        return [said.count for said in self._said() if isinstance(said, StreamMarked)]

    def _said(self) -> list[object]:
        found = self.log.read(TOPIC, 0, 2**26)
        return [unpack(piece(each.record.value, 2**26).content, 2**26) for each in found]


def test_images_are_sent_as_they_appear_once_each_and_their_end_is_marked(tmp_path: Path) -> None:
    """Of two classes, in the order of their names, brought to the run's size; five seconds of quiet
    mark what came. A second look sends nothing again."""
    here = Followed(tmp_path, classes={"left": "1", "right": "sick"})
    here.image("right/b.png", 20, size=30)
    here.image("left/a.png", 10)
    here.goes_on(3)

    assert here.stream == {0: ("1", 10), 1: ("sick", 20)}
    assert here.marks == []
    here.goes_on(QUIET)
    assert here.marks == [2]

    here.image("left/c.png", 30)
    here.goes_on(2 * QUIET)
    assert here.stream == {0: ("1", 10), 1: ("sick", 20), 2: ("1", 30)}
    assert here.marks == [2, 3]
    assert here.told == []


def test_a_file_is_waited_for_while_it_is_written(tmp_path: Path) -> None:
    """Half an image, then more of it, then the rest: it is sent when it has not changed for a
    second, whole. One that is renamed into place appears at once."""
    here = Followed(tmp_path)
    whole = here.image("0/a.png", 10, size=64).read_bytes()
    file = here.root / "0" / "a.png"
    for part in (1, 2, 3):
        file.write_bytes(whole[: part * len(whole) // 4])
        here.goes_on(4)
    assert here.stream == {}

    file.write_bytes(whole)
    here.image("0/b.png.part", 20)
    here.goes_on(4)
    assert here.stream == {0: ("0", 10)}

    (here.root / "0" / "b.png.part").rename(here.root / "0" / "b.png")
    here.goes_on(3)
    assert here.stream[1] == ("0", 20)
    assert here.told == []


def dicom(file: Path) -> None:
    """What a scanner writes."""
    file.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)


def deep(file: Path) -> None:
    """Sixteen bits a pixel."""
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file)


@pytest.mark.parametrize(
    ("name", "write", "why", "after"),
    [
        ("scan", dicom, "is a DICOM file; export it as PNG with 8 bits", 3),
        ("deep.png", deep, "has 16 bits", 3),
        ("notes.txt", lambda f: f.write_text("nothing"), "cannot be read as an image", GIVE_UP + 3),
        ("empty.png", lambda f: f.touch(), "cannot be read as an image", GIVE_UP + 3),
    ],
)
def test_what_is_no_image_takes_its_number_and_says_why(
    tmp_path: Path, name: str, write: Callable[[Path], None], why: str, after: float
) -> None:
    """At once where that is sure, else when it has not changed for half a minute; what comes behind
    it does not wait."""
    here = Followed(tmp_path)
    here.image("0/a.png", 10)
    write(here.root / "0" / name)
    here.image("0/z.png", 20)
    here.goes_on(after)

    refused = [(number, what) for number, (uid, what) in here.stream.items() if uid is None]
    ((number, reason),) = refused
    assert why in str(reason)
    assert sorted(here.stream) == [0, 1, 2]
    assert sorted(what for uid, what in here.stream.values() if uid) == [10, 20]
    assert here.told == [f"image {number} is not sent: {reason}"]
    assert name in here.told[0]


def test_what_was_cut_off_is_no_image_when_nobody_goes_on_with_it(tmp_path: Path) -> None:
    """Until then it is not numbered at all."""
    here = Followed(tmp_path)
    file = here.image("0/a.png", 10, size=64)
    file.write_bytes(file.read_bytes()[:-30])
    here.goes_on(GIVE_UP - 2)
    assert here.stream == {}

    here.goes_on(5)
    assert here.stream[0][0] is None
    assert "truncated" in str(here.stream[0][1])


def test_labels_are_the_federations_classes_or_mapped_to_them(tmp_path: Path) -> None:
    """What is not mapped is told at the start, before anything is sent; what appears later takes
    its number without content. A uid that the federation lacks is refused with the nearest."""
    here = Followed(tmp_path, classes={"left": "1"})
    here.image("letf/a.png")
    with pytest.raises(ConfigurationError, match=r"unmapped-label: .*did you mean 'left'"):
        here.again()
    (here.root / "letf").rename(here.root / "left")
    here.again()
    here.goes_on(2)
    here.image("lump/b.png")
    here.goes_on(3)

    assert here.stream[0] == ("1", 100)
    assert here.stream[1][0] is None
    assert str(here.stream[1][1]).startswith("unmapped-label: ")
    assert "'lump'" in here.told[0]
    here.again()  # what has its number stands in nobody's way

    with pytest.raises(ConfigurationError, match=r"left is mapped to 'sik'.*did you mean 'sick'"):
        Followed(tmp_path, classes={"left": "sik"}, log=here.log)


def test_what_lies_beside_the_labels_is_told_once(tmp_path: Path) -> None:
    """A file of nobody's class, but not our own; what systems hide is nothing."""
    here = Followed(tmp_path)
    for name in ("a.png", "classes.yaml", ".DS_Store", "Thumbs.db"):
        (here.root / name).touch()
    os.mkfifo(here.root / "pipe")
    here.image("0/.hidden.png")
    (here.root / "0" / "deeper").mkdir()
    here.goes_on(5)

    assert sorted(here.told) == [
        "'a.png' lies beside the labels; move it into its label's folder",
        "'pipe' lies beside the labels; move it into its label's folder",
    ]
    assert here.stream == {}


def test_a_rate_is_kept(tmp_path: Path) -> None:
    """Four images a second, of twenty that are there at once: eight or so in two seconds."""
    here = Followed(tmp_path, rate=4)
    for number in range(20):
        here.image(f"0/{number:02}.png", number)
    here.goes_on(1.5)
    before = len(here.stream)
    here.goes_on(2)
    assert 6 <= len(here.stream) - before <= 10

    here.goes_on(5)
    assert [what for _, what in here.stream.values()] == list(range(20))


def test_one_follows_a_folder_for_an_entity(tmp_path: Path) -> None:
    """Two would give one number twice."""
    here = Followed(tmp_path)
    with pytest.raises(ConfigurationError, match="kept by another process"):
        Followed(tmp_path, log=here.log)


def test_a_number_is_on_the_disk_before_an_image_is_sent_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that goes down forgets what its disk was not asked to keep: each time that the
    journal is synced it holds all numbers given so far, and the stream none that came later."""
    here = Followed(tmp_path, log=Embedded())
    journal, sync = here.journal.path, os.fsync
    synced: list[tuple[list[str], int]] = []

    def fsync(file: int) -> None:
        sync(file)
        if os.path.samestat(os.fstat(file), journal.stat()):
            numbers = [json.loads(line)["file"] for line in journal.read_text().splitlines()[1:]]
            synced.append((numbers, len(here.stream)))

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("0/a.png", "0/b.png"):
        here.image(name)
        here.goes_on(3)

    assert synced == [(["0/a.png"], 0), (["0/a.png", "0/b.png"], 1)]
    assert len(here.stream) == 2


def test_what_a_disk_did_not_keep_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full when it is asked to: whoever follows ends, no image is sent, and the number is
    free again for whoever follows next."""
    here = Followed(tmp_path, log=Embedded())
    here.image("0/a.png", 10)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match="make room"):
            here.goes_on(3)
    assert here.stream == {}

    here.again()
    assert here.journal.count == 0
    here.goes_on(3)
    assert here.stream == {0: ("0", 10)}


# --- killed ---------------------------------------------------------------------------------------

POINTS = (*FOLLOWS, "append:before", "append:written", "append:durable")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("passed", [0, 1])
def test_killed_at_any_point_each_file_is_sent_once(
    tmp_path: Path, point: str, passed: int
) -> None:
    """SIGKILL around a number or a message, the first time or the second; then it is started again.
    Numbers go up from 0 without a gap, and each image has one."""

    def follow() -> None:
        seen = 0

        def hook(reached: str) -> None:
            nonlocal seen
            seen += reached == point
            if seen > passed:
                os.kill(os.getpid(), signal.SIGKILL)

        here = Followed(tmp_path, hook=hook)
        here.goes_on(2)
        for number in range(5, 10):
            here.image(f"1/{number}.png", number)
        here.goes_on(3 * QUIET)

    (tmp_path / "images").mkdir()
    early = Followed(tmp_path, log=Embedded())
    for number in range(5):
        early.image(f"0/{number}.png", number)
    early.journal.close()
    child = os.fork()
    if child == 0:
        follow()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)

    here = Followed(tmp_path)
    for number in range(5, 10):
        here.image(f"1/{number}.png", number)
    here.goes_on(3 * QUIET)

    shades = sorted(what for _, what in here.stream.values() if isinstance(what, int))
    assert sorted(here.stream) == list(range(10))
    assert shades == list(range(10))
    assert here.marks[-1] == 10


def test_a_journal_that_was_cut_off_in_its_last_line_goes_on_before_it(tmp_path: Path) -> None:
    """At any byte of it: that file was not sent, and gets its number anew."""
    here = Followed(tmp_path)
    here.image("0/a.png", 10)
    here.goes_on(2)
    before = len(here.journal.path.read_bytes())
    here.journal.number([("0/b.png", "0", None)])
    whole = here.journal.path.read_bytes()
    here.image("0/b.png", 20)

    for length in range(before, len(whole)):
        here.journal.path.write_bytes(whole[:length])
        here.again()
        assert here.journal.count == 1
    here.goes_on(3)
    assert here.stream == {0: ("0", 10), 1: ("0", 20)}


def test_what_has_a_number_and_is_gone_leaves_that_number_empty(tmp_path: Path) -> None:
    """It was numbered, and before it was sent the machine went down; now somebody has tidied up."""
    here = Followed(tmp_path)
    here.image("0/a.png", 10)
    here.journal.number([("0/gone.png", "0", None), ("0/a.png", "0", None)])
    here.again()
    here.goes_on(3)

    assert here.stream == {0: (None, GONE), 1: ("0", 10)}


def test_a_refused_file_that_is_replaced_is_sent_under_its_name(tmp_path: Path) -> None:
    """It was no image and has its number without content; the good one under its name gets the
    next, also behind a new begin. What was refused and stays as it is gets no other, and neither
    does one that was sent and is replaced."""
    here = Followed(tmp_path)
    here.image("0/sent.png", 10)
    for name in ("0/bad.png", "0/worse.png"):
        (here.root / name).write_bytes(b"no image")
    here.goes_on(GIVE_UP + 5)
    refused = dict(here.stream)
    waits = here.following._feed.waits()
    here.again()
    here.goes_on(GIVE_UP + 5)
    assert here.stream == refused
    here.image("0/bad.png", 20)
    here.image("0/sent.png", 30)
    here.goes_on(GIVE_UP + 5)
    here.again()
    here.goes_on(3)

    assert [(uid, type(what)) for uid, what in refused.values()] == [
        ("0", int), (None, str), (None, str),
    ]  # fmt: skip
    assert here.stream == refused | {3: ("0", 20)}
    assert len(here.told) == 2
    assert waits == ["new files; 2 files were refused, and its log says which and why"]
    assert here.following._feed.waits()[0].startswith("new files; 1 file was refused")


def test_a_refused_file_of_an_older_journal_is_looked_at_once_more(tmp_path: Path) -> None:
    """That did not note how it was then."""
    here = Followed(tmp_path)
    here.image("0/a.png", 10)
    here.journal.number([("0/a.png", None, "it was no image")])
    here.again()
    here.goes_on(3)

    assert here.stream == {0: (None, "it was no image"), 1: ("0", 10)}


def test_a_journal_that_is_older_than_the_stream_is_refused(tmp_path: Path) -> None:
    """Numbers that were given already would be given to other files, which no twin would take."""
    here = Followed(tmp_path)
    here.image("0/a.png", 10)
    here.goes_on(3)
    here.journal.path.unlink()

    with pytest.raises(DataError, match="has given 0 numbers, and 1 images of 'folder-1'"):
        here.again()


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ('{"schema": 2}\n', DataError, "is a journal of schema 2"),
        ("nothing\n", DataError, "is damaged"),
        ("[1]\n", DataError, "is damaged"),
        ('{"schema": 1, "run": "b", "entity": "north/ward", "source": "s"}\n', ConfigurationError,
         "is of another run"),
    ],
)  # fmt: skip
def test_what_is_no_journal_of_ours_is_named(
    tmp_path: Path, text: str, error: type[Exception], why: str
) -> None:
    """And left as it is."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ward").write_text(text)

    with pytest.raises(error, match=why):
        Followed(tmp_path)
    assert (tmp_path / "state" / "ward").read_text() == text


def test_a_gap_in_a_journal_is_damage(tmp_path: Path) -> None:
    """Somebody has edited it."""
    here = Followed(tmp_path)
    here.journal.number([("0/a.png", "0", None), ("0/b.png", "0", None)])
    lines = here.journal.path.read_text().splitlines(keepends=True)
    here.journal.path.write_text(lines[0] + lines[2])

    with pytest.raises(DataError, match="goes from number -1 to 1"):
        here.again()


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60
) | st.binary(min_size=1, max_size=60).map(
    lambda name: os.fsdecode(name.replace(b"/", b"").replace(b"\0", b"") or b"x")
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(found=st.sets(names, max_size=6))
def test_a_file_may_be_called_anything(tmp_path: Path, found: set[str]) -> None:
    """Line ends, quotes, other bytes than UTF-8: each image that is not hidden is sent once, also
    by who begins in between."""
    with in_memory(otherwise=tmp_path) as place:
        here = Followed(place, log=Embedded())
        (here.root / "0").mkdir(exist_ok=True)
        files = [name for name in sorted(found, key=os.fsencode) if len(os.fsencode(name)) < 200]
        for name in {*files} - {".", ".."}:
            here.image(f"0/{name}", 10)
        there = [each.name for each in os.scandir(here.root / "0")]
        here.goes_on(1)
        here.again()
        here.goes_on(3)

        shown = [
            name for name in there
            if name[0] != "." and name.lower() not in ("thumbs.db", "desktop.ini")
            and not name.lower().endswith((".part", ".tmp", "~", ".partial", ".filepart"))
        ]  # fmt: skip
        assert list(here.stream.values()) == [("0", 10)] * len(shown)
        assert here.journal.files == {f"0/{name}" for name in shown}
        here.journal.close()
