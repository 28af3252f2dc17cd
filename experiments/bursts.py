"""Images for an injection, from a data set, a folder or a file, at the run's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.numbers import counted
from producers.datasets import load
from producers.folders import read_by_class as of_folder
from producers.images import LONGEST_UID, Dataset, Fitted, fitted
from producers.npz import read_by_class as of_npz
from schemas.configuration import nearest
from schemas.datasets import KNOWN
from schemas.errors import ConfigurationError
from schemas.messages import RunOpened
from schemas.schedule import sorted_uids


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to inject. One of the first three, or the run's own data set."""

    dataset: str | None = None
    folder: Path | None = None
    npz: Path | None = None
    classes: Sequence[str] = ()
    """Only these, by uid; all where there are none, but for a data set."""
    renamed: Sequence[str] = ()
    """Uids in the order of `classes`, or `class=uid`; where there are no `classes`, for all."""
    most: int | None = None
    """Images of each class."""


@dataclass(frozen=True)
class Burst:
    """Images (N, C, H, W) at the run's size, and what the run calls the class of each."""

    images: NDArray[np.uint8]
    uids: tuple[str, ...]
    resized: int
    """Images that had another height or width."""
    recoloured: int
    """Images that were in colour and are gray now, or the other way round."""

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(Counter(self.uids))


def burst(opened: RunOpened, wanted: Wanted, data_dir: Path, own: Callable[[], str]) -> Burst:
    """Read what is wanted for a run. `own` gives the name by which `load` finds its data set.

    Raises ConfigurationError for classes that are not there or names that do not fit, DataError for
    what cannot be read.
    """
    found, uids = _labelled(own, wanted, opened, data_dir)
    chosen = list(wanted.classes) or list(sorted_uids(set(uids)))
    rows = _chosen(uids, chosen, wanted.most)
    names = _names(chosen, wanted.renamed, asked=bool(wanted.classes))
    taken = found.only(rows)
    return Burst(
        taken.images,
        tuple(names[uids[row]] for row in rows),
        int(taken.resized.sum()),
        int(taken.recoloured.sum()),
    )


def _labelled(
    own: Callable[[], str], wanted: Wanted, opened: RunOpened, data_dir: Path
) -> tuple[Fitted, tuple[str, ...]]:
    configuration, data = opened.configuration, opened.data
    size = (data.channels, data.height, data.width)
    places = [each for each in (wanted.dataset, wanted.folder, wanted.npz) if each is not None]
    if len(places) > 1:
        raise ConfigurationError("take one of --dataset, --folder and --npz")
    if wanted.folder is not None:
        return of_folder(wanted.folder, *size)
    if wanted.npz is not None:
        images, uids = of_npz(wanted.npz)
        return fitted(images, *size), uids
    if not wanted.classes:
        raise ConfigurationError("--classes says which classes of the data set, such as 5,6")
    dataset = load(
        wanted.dataset or own(),
        data_dir,
        image_size=configuration.image_size if wanted.dataset is None else None,
        organ_hflip=configuration.organ_hflip and wanted.dataset is None,
    )
    return _of_dataset(dataset, wanted.classes, size)


def _of_dataset(
    dataset: Dataset, classes: Sequence[str], size: tuple[int, int, int]
) -> tuple[Fitted, tuple[str, ...]]:
    """The training images of these classes."""
    for uid in classes:
        if uid not in dataset.class_uids:
            raise ConfigurationError(
                f"{dataset.name} has no class {uid!r}{nearest(uid, list(dataset.class_uids))}; it"
                f" has {len(dataset.class_uids)}, {dataset.class_uids[0]} to"
                f" {dataset.class_uids[-1]}"
            )
    asked = np.array([uid in classes for uid in dataset.class_uids])
    train = dataset.train.only(asked[dataset.train.labels])
    return fitted(train.images, *size), tuple(dataset.class_uids[each] for each in train.labels)


def _chosen(uids: Sequence[str], classes: Sequence[str], most: int | None) -> list[int]:
    """Which images: at most so many of each class, in their order."""
    rows: list[int] = []
    for asked in classes:
        of_class = [row for row, uid in enumerate(uids) if uid == asked]
        if not of_class:
            raise ConfigurationError(
                f"there is no image of class {asked!r}{nearest(asked, sorted(set(uids)))}"
            )
        rows += of_class[:most]
    return sorted(rows)


def _names(classes: Sequence[str], renamed: Sequence[str], *, asked: bool) -> dict[str, str]:
    """Class → what the run calls it.

    Where the classes were asked for one by one, some may keep their names. Where nobody named them
    and only some are renamed, who knows whether the others are wanted: nothing is taken.
    """
    paired = dict(each.split("=", 1) for each in renamed if "=" in each)
    listed = [each for each in renamed if "=" not in each]
    if listed and (paired or len(listed) != len(classes)):
        raise ConfigurationError(
            f"--as gives {counted(len(renamed), 'name')}, and there"
            f" {'is' if len(classes) == 1 else 'are'} {counted(len(classes), 'class', 'classes')}:"
            " name each in the order of --classes, or some as CLASS=UID"
        )
    left = [uid for uid in classes if uid not in paired]
    if paired and left and not asked and not set(paired) - set(classes):
        raise ConfigurationError(
            f"--as names {len(paired)} of {len(classes)} classes, not {', '.join(left[:5])}"
            f"{f' and {len(left) - 5} more' if len(left) > 5 else ''}: --classes"
            f" {','.join(paired)} takes only the named ones, --as {left[0]}={left[0]} keeps a name"
        )
    if strange := set(paired) - set(classes):
        raise ConfigurationError(
            f"--as renames {', '.join(sorted(strange))}, not among the classes"
        )
    names = dict(zip(classes, listed, strict=True)) if listed else {c: c for c in classes} | paired
    if bad := [uid for uid in names.values() if not 1 <= len(uid) <= LONGEST_UID]:
        raise ConfigurationError(
            f"a class uid has 1 to {LONGEST_UID} characters, not {len(bad[0])}"
        )
    return names


def own_data_of(opened: RunOpened) -> str:
    """The name of a run's data set, where one knows the run by its name alone.

    Raises ConfigurationError where that says not which.
    """
    name = opened.data.name
    if name not in KNOWN:
        raise ConfigurationError(
            f"the data of this run are {name}: --dataset, --folder or --npz says which images to"
            " take"
        )
    return name
