"""Brings data sets into the data folder. Only here is anything downloaded.

torchvision and medmnist are imported inside functions: they need seconds and hundreds of MB, and a
run that has its data needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError

CIFAR100_FOLDER = "cifar-100-python"
CIFAR100_FILES = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""The official MD5 of each file in CIFAR-100's folder, as torchvision publishes them."""
PATIENCE = 60.0  # seconds without a byte after which a download is given up


def fetch_medmnist(name: str, target: Path) -> None:
    """Download one MedMNIST file to `target`, whole or not at all.

    Raises DataError if it cannot be had.
    """
    url, md5 = _medmnist_link(name)
    with _beside(target) as folder:
        _download(url, folder, target.name, md5, by_hand=f"put it into {target.parent}")
        os.replace(folder / target.name, target)


def fetch_cifar100(target: Path) -> None:
    """Download CIFAR-100 and keep it at `target` as an npz of MedMNIST's form.

    Raises DataError if it cannot be had.
    """
    with _talking_to_people():
        from torchvision.datasets import CIFAR100
        from torchvision.datasets.utils import extract_archive
    with _beside(target) as folder:
        by_hand = f"unpack it in {target.parent}"
        _download(CIFAR100.url, folder, CIFAR100.filename, CIFAR100.tgz_md5, by_hand=by_hand)
        extract_archive(folder / CIFAR100.filename, folder)
        convert_cifar100(folder, target)


def convert_cifar100(root: Path, target: Path) -> None:
    """Keep CIFAR-100's official folder, which lies in `root`, at `target` as an npz.

    The official files are pickles, which can run code when they are read. Their MD5s are compared
    first, torchvision reads them this once, and every run reads the npz. Raises DataError if a file
    is missing or is not the official one.
    """
    for name, md5 in CIFAR100_FILES.items():
        file = root / CIFAR100_FOLDER / name
        if not file.is_file() or md5_of(file) != md5:
            raise DataError(
                f"{file} is missing or not the official file (MD5 {md5}); remove the folder"
                f" {file.parent} and fetch cifar100 again"
            )
    arrays = _official_cifar100(root)
    with _beside(target) as folder:
        np.savez(
            folder / target.name,
            train_images=arrays["train_images"],
            train_labels=arrays["train_labels"],
            test_images=arrays["test_images"],
            test_labels=arrays["test_labels"],
            class_names=arrays["class_names"],
        )
        os.replace(folder / target.name, target)


def md5_of(file: Path) -> str:
    """MD5 of a file, in hex: how data sets are recognised.

    Raises DataError if the file cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, _md5).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check its rights") from None


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)  # machines in FIPS mode refuse it otherwise


def _medmnist_link(name: str) -> tuple[str, str]:
    """Address and MD5 of a file, as the installed medmnist knows them."""
    with _talking_to_people():
        from medmnist import INFO
    return INFO[name]["url"], INFO[name]["MD5"]


def _official_cifar100(root: Path) -> dict[str, NDArray[Any]]:
    from torchvision.datasets import CIFAR100

    train, test = (CIFAR100(root, train=wanted, download=False) for wanted in (True, False))
    return {
        "train_images": train.data,
        "train_labels": np.array(train.targets, dtype=np.uint8),
        "test_images": test.data,
        "test_labels": np.array(test.targets, dtype=np.uint8),
        "class_names": np.array(train.classes),
    }


def _download(url: str, folder: Path, filename: str, md5: str, *, by_hand: str) -> None:
    from torchvision.datasets.utils import download_url

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision has no timeout of its own
    try:
        with _talking_to_people():
            download_url(url, str(folder), filename, md5)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} could not be downloaded ({error}); try again, or bring {filename} (MD5 {md5})"
            f" from a machine with a network and {by_hand}"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


@contextlib.contextmanager
def _talking_to_people() -> Iterator[None]:
    """Keep what libraries print off stdout, which is for results, and their bars off log files."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is not whole yet, gone afterwards."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise DataError(
            f"{target} could not be written ({error}); make room, or name a data folder that can be"
            " written to"
        ) from None
