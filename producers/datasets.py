"""The data sets: by name (`DATASETS`), or as a file or folder of one's own (`npz:`, `folder:`).

A data set is read from the data folder, checked, and handed over as a `Dataset`. Nothing here goes
to the network but `fetch`. Numbers in brackets are sections of docs/method.md.
"""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from producers import fetching
from producers.folders import read_folder
from producers.images import SIDES, Dataset, Part, Pixels, digest, held_out, sized
from producers.npz import class_names, read_npz
from schemas.configuration import nearest
from schemas.datasets import KNOWN, ORGANS, in_size, own_data, plain_transforms
from schemas.errors import ConfigurationError, DataError

DIGITS_SPLIT_SEED = 2021
DIGITS_SHA256 = "5640d4e25cd2114b86b1c137b24da02be29ee31cd8ffeb913425d0fc1f554504"
CIFAR100_SHA256 = "15f3c04002bab9226b288e9a30041858b7f4af8716a90d3b5465f148c738977c"
"""What `digest` gives for the official data; anything else is refused."""
HELD_OUT_OF_CIFAR100 = (400, 500)
"""Which training images of each class, by index within the class, serve choices (8)."""
OPEN_CLASSES = 256
"""Rows of the encoder where the number of classes is not known beforehand (6.1)."""
ORGAN_MD5 = {
    "organamnist": {
        "866b832ed4eeba67bfb9edee1d5544e6": 2,
        "68e3f8846a6bd62f0c9bf841c0d9eacc": 3,
    },
    "organcmnist": {
        "0afa5834fb105f7705a7d93372119a21": 2,
        "b9ceb9546e10131b32923c5bbeaea2b1": 3,
    },
    "organsmnist": {
        "e5c39f1af030238290b9557d9503af9d": 2,
        "9ab87b696fb54e2a387ebe992d6ed5f1": 3,
    },
}
"""MD5 of each file and the MedMNIST version that it belongs to; they differ in a few images."""


@dataclass(frozen=True)
class Source:
    """A data set that has a name here."""

    about: str
    """In a line, for lists."""
    file: str | None
    """Its file in the data folder; None if it comes with the installation."""
    read: Callable[[Path], Dataset]
    """Reads it from the data folder."""
    fetch: Callable[[Path], None] | None = None
    """Downloads it to the file given; None if there is nothing to download."""


@dataclass(frozen=True)
class Holding:
    """Whether a data set is here, and what to do if it is not."""

    name: str
    about: str
    present: bool
    where: Path | None
    """Its file (or official folder) in the data folder; None if it comes with the installation."""
    size: int
    """Bytes on disk; 0 if it is missing or comes with the installation."""
    remedy: str
    """What to do when it is missing; empty if it is here."""


def load(
    name: str,
    data_dir: Path,
    *,
    image_size: int | None = None,
    organ_hflip: bool = False,
    hold_out: bool = False,
) -> Dataset:
    """Read a data set: a name in `DATASETS`, `npz:PATH` or `folder:PATH`.

    `image_size` resizes every image to so many pixels a side, None keeps the data set's own.
    `organ_hflip` mirrors organs in training, although left and right are classes there (1.5).
    `hold_out` takes CIFAR-100's training images 400 to 499 of each class out of training and makes
    them the validation part (8). A relative PATH is sought where the program runs, then in the data
    folder. Raises DataError for data that is missing or broken, ConfigurationError for a name or an
    option that does not exist.
    """
    if image_size is not None and image_size not in SIDES:
        raise ConfigurationError(
            f"image_size is {image_size} pixels; it can be {SIDES.start} to {SIDES.stop - 1}"
        )
    dataset = _whole(name, data_dir, image_size)
    dataset = _in_size(dataset, image_size)
    if organ_hflip:
        dataset = _mirrored(dataset)
    return _with_held_out(dataset) if hold_out else dataset


def placed(name: str, data_dir: Path) -> str:
    """The name by which `load` finds the same data from any working directory.

    Data of one's own get their absolute path; a data set that has a name keeps it, for it lies in
    the data folder.
    """
    form, path = own_data(name)
    return f"{form}:{_found(path, data_dir).absolute()}" if path else name


def moved(place: str, name: str, data_dir: Path) -> str:
    """`place`, or where the same file or folder lies in `data_dir` now.

    `place` is what `placed` made of `name`. Whether it holds the same images is the caller's to
    check.
    """
    form, path = own_data(name)
    if path:
        for there in (data_dir / path, data_dir / Path(path).name):
            if there.is_relative_to(data_dir) and there.exists():
                return f"{form}:{there.absolute()}"
    return place


def fetch(name: str, data_dir: Path) -> Holding:
    """Bring a named data set into the data folder, from the network if need be, and check it.

    Raises DataError if it cannot be had or is not the data set, ConfigurationError for an unknown
    name.
    """
    source = _source(name)
    if source.file and source.fetch and not holding(name, data_dir).present:
        source.fetch(data_dir / source.file)
    source.read(data_dir)
    return holding(name, data_dir)


def holdings(data_dir: Path) -> list[Holding]:
    """Every named data set and whether it is here; nothing is read or checked."""
    return [holding(name, data_dir) for name in DATASETS]


def holding(name: str, data_dir: Path) -> Holding:
    """Whether one named data set is here. Raises ConfigurationError for an unknown name."""
    source = _source(name)
    if source.file is None:
        return Holding(name, source.about, True, None, 0, "")
    where = data_dir / source.file
    unconverted = data_dir / fetching.CIFAR100_FOLDER
    if name == "cifar100" and not where.is_file() and unconverted.is_dir():
        where = unconverted
    size = sum(f.stat().st_size for f in (where, *where.glob("*")) if f.is_file())
    remedy = "" if where.exists() else _remedy(name, data_dir)
    return Holding(name, source.about, where.exists(), where, size, remedy)


def _source(name: str) -> Source:
    if name not in DATASETS:
        raise ConfigurationError(
            f"there is no data set {name!r}{nearest(name, list(DATASETS))}; there are"
            f" {', '.join(DATASETS)}, npz:PATH and folder:PATH"
        )
    return DATASETS[name]


def _remedy(name: str, data_dir: Path) -> str:
    fetched = f"fetch it with `{_fetching(name, data_dir)}`"
    if name == "cifar100":
        return f"{fetched}, or put its official folder {fetching.CIFAR100_FOLDER} into {data_dir}"
    md5s = " or ".join(ORGAN_MD5[name])
    return f"{fetched}, or put {DATASETS[name].file} (MD5 {md5s}) into {data_dir}"


def _fetching(name: str, data_dir: Path) -> str:
    """The command that brings a data set here, wherever that is."""
    return shlex.join(["fedtwin", "data", "fetch", name, "--data-dir", str(data_dir)])


def _whole(name: str, data_dir: Path, image_size: int | None) -> Dataset:
    match own_data(name):
        case ("npz", path):
            return _npz(_found(path, data_dir))
        case ("folder", path):
            return _folder(_found(path, data_dir), image_size)
        case _:
            return _source(name).read(data_dir)


def _found(path: str, data_dir: Path) -> Path:
    own = Path(path).expanduser()
    return own if own.exists() or not (data_dir / own).exists() else data_dir / own


def _in_size(dataset: Dataset, side: int | None) -> Dataset:
    """Resize the images, and the crop's padding with them."""
    train = sized(dataset.name, dataset.train, side)
    if train is dataset.train:
        return dataset
    parts = {
        "train": train,
        "validation": sized(dataset.name, dataset.validation, side),
        "test": sized(dataset.name, dataset.test, side),
    }
    before, after = (part.images.shape[2] for part in (dataset.train, train))
    return replace(
        dataset,
        train=train,
        validation=parts["validation"],
        test=parts["test"],
        transforms=in_size(dataset.transforms, before, after),
        sha256=digest(parts, dataset.class_uids),
    )


def _mirrored(dataset: Dataset) -> Dataset:
    if dataset.name not in ORGAN_MD5:
        raise ConfigurationError(f"organ_hflip is for {', '.join(ORGAN_MD5)}, not {dataset.name}")
    mirrored = dataset.transforms.model_copy(update={"horizontal_flip": True})
    return replace(dataset, transforms=mirrored)


def _with_held_out(dataset: Dataset) -> Dataset:
    """Make training images the validation part; `sha256` stays that of the whole data set."""
    if dataset.name != "cifar100":
        raise ConfigurationError(f"hold_out is for cifar100, not {dataset.name}")
    start, stop = HELD_OUT_OF_CIFAR100
    return replace(
        dataset,
        train=dataset.train.within_class(0, start),
        validation=dataset.train.within_class(start, stop),
    )


def _digits(data_dir: Path) -> Dataset:
    """Handwritten digits, 8x8 enlarged to 16x16; they come with scikit-learn."""
    file = _bundled_digits()
    rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # 64 pixels from 0 to 16, then the digit
    whole = Part(_enlarged(rows[:, :64].reshape(-1, 8, 8)), rows[:, 64].astype(np.int64))
    drawn = held_out(whole.labels, np.random.Generator(np.random.PCG64(DIGITS_SPLIT_SEED)))
    parts = {
        "train": whole.only(~drawn),
        "validation": whole.only(np.zeros(len(whole), dtype=bool)),
        "test": whole.only(drawn),
    }
    class_uids = tuple(map(str, range(10)))
    return Dataset(
        name="digits",
        **parts,
        class_uids=class_uids,
        class_names=class_uids,
        transforms=KNOWN["digits"].transforms,
        encoder_classes=10,
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine"
        " Learning Repository, 1998, doi 10.24432/C50P49",
        version="the 1,797 images in scikit-learn, enlarged to 16x16",
        sha256=_official(file, digest(parts, class_uids), DIGITS_SHA256, "reinstall scikit-learn"),
        public=True,
    )


def _bundled_digits() -> Path:
    """scikit-learn's file of digits, found without importing it (which takes seconds)."""
    installed = importlib.util.find_spec("sklearn")
    folder = Path(installed.origin).parent if installed and installed.origin else Path()
    file = folder / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataError(f"scikit-learn's digits are not at {file}; reinstall scikit-learn")
    return file


def _enlarged(images: NDArray[np.uint8]) -> Pixels:
    """Twice the height and width, bilinearly, from 0..16 to 0..255: (N, 8, 8) to (N, 1, 16, 16).

    Each new pixel is 9, 3, 3 and 1 sixteenths of the four nearest, an integer until it is rounded
    once, so that it is the same everywhere.
    """
    tall = _doubled(images.astype(np.int64).transpose(1, 2, 0))
    sixteenths = _doubled(tall.transpose(1, 0, 2)).transpose(2, 1, 0)
    return ((sixteenths * 255 + 128) // 256).astype(np.uint8)[:, np.newaxis]


def _doubled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Four times the rows between which twice as many are drawn, three parts near and one far."""
    edged = np.concatenate([rows[:1], rows, rows[-1:]])
    pairs = np.stack([3 * rows + edged[:-2], 3 * rows + edged[2:]], axis=1)
    return pairs.reshape(-1, *rows.shape[1:])


def _cifar100(data_dir: Path) -> Dataset:
    """CIFAR-100, from its npz; where only the official folder is, that is converted first."""
    file = data_dir / "cifar100.npz"
    if not file.is_file() and (data_dir / fetching.CIFAR100_FOLDER).is_dir():
        fetching.convert_cifar100(data_dir, file)
    _present("cifar100", file)
    parts, class_uids = read_npz(file, classes=100)
    again = f"delete it and fetch it again with `{_fetching('cifar100', data_dir)}`"
    return Dataset(
        name="cifar100",
        **parts,
        class_uids=class_uids,
        class_names=_names(file, class_uids),
        transforms=KNOWN["cifar100"].transforms,
        encoder_classes=100,
        licence="none stated; its author asks to be cited",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical"
        " report, University of Toronto, 2009",
        version="the official python version",
        sha256=_official(file, digest(parts, class_uids), CIFAR100_SHA256, again),
        public=True,
    )


def _organ(name: str, data_dir: Path) -> Dataset:
    """Organs in abdominal CT, one of MedMNIST's three; versions 2 and 3 differ in some images."""
    file = data_dir / f"{name}.npz"
    _present(name, file)
    md5 = fetching.md5_of(file)
    if md5 not in ORGAN_MD5[name]:
        known = " nor ".join(f"version {v} ({m})" for m, v in ORGAN_MD5[name].items())
        raise DataError(
            f"{file} has MD5 {md5}, which is neither {known} of {name}; delete it and fetch it"
            f" again with `{_fetching(name, data_dir)}`, or use it as a file of your own:"
            f" npz:{file}"
        )
    parts, class_uids = read_npz(file, classes=len(ORGANS))
    return Dataset(
        name=name,
        **parts,
        class_uids=class_uids,
        class_names=ORGANS,
        transforms=KNOWN[name].transforms,
        encoder_classes=len(ORGANS),
        licence="CC BY 4.0",
        citation="Yang et al., MedMNIST v2, Scientific Data 10, 41, 2023, doi"
        " 10.1038/s41597-022-01721-8; from Bilic et al., LiTS, Medical Image Analysis 84, 2023",
        version=f"MedMNIST version {ORGAN_MD5[name][md5]}, MD5 {md5}",
        sha256=digest(parts, class_uids),
        public=True,
    )


def _npz(file: Path) -> Dataset:
    """A file of one's own, in MedMNIST's form."""
    parts, class_uids = read_npz(file)
    return _own(f"npz:{file.name}", parts, class_uids, _names(file, class_uids), len(class_uids))


def _folder(root: Path, side: int | None) -> Dataset:
    """A folder of one's own; classes may be added to it later."""
    parts, class_uids = read_folder(root, side)
    rows = max(OPEN_CLASSES, len(class_uids))
    return _own(f"folder:{root.resolve().name}", parts, class_uids, class_uids, rows)


def _own(
    name: str,
    parts: dict[str, Part],
    class_uids: tuple[str, ...],
    names: tuple[str, ...],
    encoder_classes: int,
) -> Dataset:
    return Dataset(
        name=name,
        **parts,
        class_uids=class_uids,
        class_names=names,
        transforms=plain_transforms(*parts["train"].images.shape[1:]),
        encoder_classes=encoder_classes,
        licence="not known; ask the owner of the data",
        citation="not known; ask the owner of the data",
        version="data of your own",
        sha256=digest(parts, class_uids),
        public=False,
    )


def _present(name: str, file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{name} is not in {file.parent}; {_remedy(name, file.parent)}")


def _names(file: Path, class_uids: tuple[str, ...]) -> tuple[str, ...]:
    names = class_names(file) or class_uids
    if len(names) != len(class_uids):
        raise DataError(f"{file} names {len(names)} classes and has {len(class_uids)}")
    return names


def _official(file: Path, found: str, expected: str, remedy: str) -> str:
    """The hash found, if it is the one that this data set has had since it was first read."""
    if found != expected:
        raise DataError(
            f"{file} does not hold the official images (SHA-256 {found}, expected {expected});"
            f" {remedy}"
        )
    return found


DATASETS: dict[str, Source] = {
    "digits": Source("1,797 handwritten digits, 10 classes, 16x16 gray", None, _digits),
    "cifar100": Source(
        "60,000 photographs, 100 classes, 32x32 colour",
        "cifar100.npz",
        _cifar100,
        fetching.fetch_cifar100,
    ),
    **{
        name: Source(
            f"{images} CT images of abdominal organs, {view}, 11 classes, 28x28 gray",
            f"{name}.npz",
            partial(_organ, name),
            partial(fetching.fetch_medmnist, name),
        )
        for name, images, view in (
            ("organamnist", "58,830", "axial"),
            ("organcmnist", "23,583", "coronal"),
            ("organsmnist", "25,211", "sagittal"),
        )
    },
}
