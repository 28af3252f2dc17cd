"""The rebuilt prototypes of a run that its report shows, kept in the run folder beside it.

The proxy keeps them in memory only, and a run that is resumed has a new one. They are nearly the
images that they come from (docs/method.md 6.7), so where a report does not show them nothing of
them reaches a disk, and what an earlier session kept is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from experiments.folder import PROTOTYPES, RunFolder, as_safetensors, write_whole
from experiments.report import Prototypes
from experiments.system import Embedded
from proxy.proxy import Proxy

Images = list[tuple[str, NDArray[Any]]]
"""Class uid and rebuilt image (C, H, W) in [0, 1]."""
Key = tuple[int, int]
"""Stage, and round where prototypes belong to one (docs/method.md 9); else 0."""


class Gallery:
    """What was rebuilt so far, by this session and by those before it."""

    def __init__(self, folder: RunFolder, *, shown: bool) -> None:
        self._folder = folder.path
        self._shown = shown
        self._images: dict[Key, Images] = {}
        self._seen = (0, False)
        for file in sorted(self._folder.glob(PROTOTYPES)):
            if shown:
                self._images |= _read(file)
            else:
                file.unlink()

    @property
    def prototypes(self) -> Prototypes | None:
        """Stage → images, for the report; None where it shows none."""
        found: dict[int, Images] = {}
        for (stage, _), images in sorted(self._images.items()):
            found.setdefault(stage, []).extend(images)
        return found if self._shown else None

    def look(self, run: Embedded) -> None:
        """Keep what the proxy has rebuilt since the last look; quick, for it is asked every turn.

        What is scored was rebuilt as a whole, so nothing is kept in part; and as scores come before
        the choice, after which nobody would rebuild again, a kill loses nothing. Raises DiskFull.
        """
        scoring = any(id[0] == "score" for id in run.system.in_work)
        now = (len(run.observer.teachers.chosen), scoring)
        if self._shown and now != self._seen:
            self._seen = now
            for key, images in _rebuilt(run.proxy):
                if images and key not in self._images:
                    self._images[key] = images
                    _write(self._folder, key, images)


def _rebuilt(proxy: Proxy) -> Iterator[tuple[Key, Images]]:
    """What this session's proxy has rebuilt, stage by stage or round by round."""
    for stage, images in proxy.prototypes().items():
        rounds = [key for key in sorted(proxy.rebuilt_in) if key[0] == stage]
        if not rounds:
            yield (stage, 0), images
        start = 0
        for key in rounds:
            stop = start + sum(map(len, proxy.rebuilt_in[key].values()))
            yield key, images[start:stop]
            start = stop


def _write(folder: Path, key: Key, images: Images) -> None:
    """A file for each stage or round."""
    file = folder / f"prototypes-{key[0]:03d}-{key[1]:03d}.safetensors"
    facts = {"key": json.dumps(key), "classes": json.dumps([uid for uid, _ in images])}
    write_whole(file, as_safetensors({"images": np.stack([image for _, image in images])}, facts))


def _read(file: Path) -> dict[Key, Images]:
    """What a file keeps; nothing if it is damaged, and then the report says what it lacks."""
    try:
        with safe_open(file, framework="numpy") as opened:
            facts, images = opened.metadata() or {}, opened.get_tensor("images")
        stage, round = json.loads(facts["key"])
        return {
            (int(stage), int(round)): list(zip(json.loads(facts["classes"]), images, strict=True))
        }
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return {}
