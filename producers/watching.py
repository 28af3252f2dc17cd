"""A folder in which images appear: DIR/LABEL/*, each looked at until it is whole.

A file is whole when its size and time have not changed between two looks. What cannot be decoded
then may still be on its way over a slow line, so it is given more time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from producers.folders import CLUTTER, Damaged, read_images
from producers.images import Pixels
from producers.journal import Entry
from schemas.configuration import nearest
from schemas.errors import ConfigurationError, DataError
from schemas.messages import DataFacts

BEGUN = (".part", ".partial", ".filepart", ".crdownload", ".tmp", "~")
"""Endings of names that programs give to what they still write."""
CLASSES = "classes.yaml"
"""Beside the labels: what the federation calls them."""
LONGEST_REASON = 500


@dataclass(frozen=True)
class Judged:
    """A file that is whole: its image, or why there is none."""

    file: str
    """Its path in the folder."""
    uid: str | None
    reason: str | None
    image: Pixels | None
    """At the run's size, shape (C, H, W)."""
    state: tuple[int, int] | None = None
    """Of a file without an image: its bytes and time when it was found whole."""


@dataclass(slots=True)
class _Seen:
    """A file that has no number yet."""

    state: tuple[int, int, int]
    """Its size, time and place on the disk."""
    since: float
    """When it was first seen in this state."""


class Folder:
    """A folder as its follower sees it."""

    def __init__(
        self,
        root: Path,
        data: DataFacts,
        classes: Mapping[str, str] | None,
        *,
        settle: float,
        give_up: float,
    ) -> None:
        """`classes` maps labels to the uids of the federation; None for labels that are uids.

        A file is whole after `settle` seconds without a change, and no image after `give_up`.
        Raises ConfigurationError for a folder that is none, or a uid that the federation lacks.
        """
        self.root = root
        self._data = data
        self._settle, self._give_up = settle, max(settle, give_up)
        self._seen: dict[str, _Seen] = {}
        self._strange: set[str] = set()
        self._uids = dict(classes) if classes is not None else {uid: uid for uid in data.classes}
        if not root.is_dir():
            raise ConfigurationError(f"{root} is not a folder; name one that holds LABEL/*.png")
        for label, uid in self._uids.items():
            if uid not in data.classes:
                raise ConfigurationError(
                    f"{CLASSES}: {label} is mapped to {uid!r}, which is none of the federation's"
                    f" {len(data.classes)} classes{nearest(uid, list(data.classes))}"
                )

    def check_labels(self, numbered: Collection[str]) -> None:
        """Raises ConfigurationError where a label that is not mapped has files without a number."""
        for label in self._labels():
            fresh = (file for file in self._files(label) if file not in numbered)
            if label not in self._uids and next(fresh, None) is not None:
                raise ConfigurationError(f"unmapped-label: {self._unmapped(label)}")

    def look(
        self, now: float, numbered: Collection[str], refused: Mapping[str, Entry]
    ) -> list[str]:
        """Files without a number that are whole, in the order of their names' bytes; and those that
        were refused, and are others by now."""
        found: list[str] = []
        there: set[str] = set()
        for label in self._labels():
            for file in self._files(label):
                if file not in numbered or self._is_another(file, refused.get(file)):
                    there.add(file)
                    if self._is_whole(file, now):
                        found.append(file)
        for gone in self._seen.keys() - there:
            del self._seen[gone]
        return sorted(found, key=os.fsencode)

    def judge(self, file: str, now: float) -> Judged | None:
        """What a file holds; None for one that is gone, or given more time."""
        label = file.partition("/")[0]
        if label not in self._uids:
            return self._refused(file, f"unmapped-label: {self._unmapped(label)}")
        try:
            return Judged(file, self._uids[label], None, self.read(file))
        except Damaged as damaged:
            seen = self._seen.get(file)
            if not os.path.lexists(self.root / file):
                return None
            if seen is not None and now < seen.since + self._give_up:
                return None
            return self._refused(file, str(damaged))
        except DataError as error:
            return self._refused(file, str(error))

    def _refused(self, file: str, reason: str) -> Judged:
        """As it was when it was found whole: what came since is another file."""
        seen = self._seen.get(file)
        return Judged(file, None, _told(reason), None, seen.state[:2] if seen else None)

    def read(self, file: str) -> Pixels:
        """A file's image, shape (C, H, W). Raises DataError for what is none."""
        data = self._data
        path = self.root / file
        return read_images([path], data.channels, data.height, data.width).images[0]

    def strangers(self) -> Iterator[str]:
        """What lies beside the labels and is none, each told once."""
        for entry in _entries(self.root):
            if not _is_folder(entry) and entry.name != CLASSES and entry.name not in self._strange:
                self._strange.add(entry.name)
                yield entry.name

    def _is_whole(self, file: str, now: float) -> bool:
        try:
            told = (self.root / file).stat()
        except OSError:
            return False  # it is gone again, or its name leads nowhere yet
        if not stat.S_ISREG(told.st_mode):
            return False  # to read a pipe would wait for ever
        state = (told.st_size, told.st_mtime_ns, told.st_ino)
        seen = self._seen.get(file)
        if seen is None or seen.state != state:
            self._seen[file] = _Seen(state, now)
            return False
        return now >= seen.since + self._settle

    def _is_another(self, file: str, refused: Entry | None) -> bool:
        """Whether another file lies under a name that was refused."""
        if refused is None:
            return False
        try:
            told = (self.root / file).stat()
        except OSError:
            return False
        return (told.st_size, told.st_mtime_ns) != refused.state

    def _labels(self) -> list[str]:
        return [entry.name for entry in _entries(self.root) if _is_folder(entry)]

    def _files(self, label: str) -> Iterator[str]:
        for entry in _entries(self.root / label):
            if not entry.name.lower().endswith(BEGUN) and not _is_folder(entry):
                yield f"{label}/{entry.name}"

    def _unmapped(self, label: str) -> str:
        known = list(self._uids)
        return (
            f"{self.root / label}: {label!r} is none of the {len(known)} labels that are mapped to"
            f" classes of the federation{nearest(label, known)}: name it in {CLASSES}, or move its"
            " images into a label that is"
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, but for what systems and we ourselves hide there."""
    try:
        with os.scandir(folder) as found:
            return [e for e in found if e.name[0] != "." and e.name.lower() not in CLUTTER]
    except OSError:
        return []  # it is gone, or was one of somebody else's: others go on


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads to itself


def _told(reason: str) -> str:
    """As it travels: UTF-8, and not too long."""
    told = reason.encode("utf-8", "backslashreplace").decode()
    return told if len(told) <= LONGEST_REASON else f"{told[: LONGEST_REASON - 3]}..."
