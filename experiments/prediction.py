"""What a finished model says of images: class, probability, and if it knows anything like them.

Works with model.safetensors alone: its metadata holds all that is needed (`runner.registry`). The
net, and with it torch, is imported when a model is asked. Legend: N images, c channels, C rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from experiments.folder import RunFolder
from learning.novelty import entropies
from schemas.errors import ConfigurationError, DataError
from schemas.messages import DataFacts, Tensors
from schemas.tensors import model_sha256

if TYPE_CHECKING:
    from producers.images import Fitted

KEYS = (
    "classes", "class_names", "data", "family", "virtual_rows", "reference_entropy",
    "entropy_threshold", "version", "sha256",
)  # fmt: skip
"""Metadata without which a model cannot be used."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    uid: str
    name: str
    probability: float
    """Of this class, in [0, 1]: a sigmoid of its own or its part of a soft-max, as the model
    was trained."""
    entropy: float
    """How unsure the model is, room for new classes included, in nats (docs/method.md 3.3)."""
    unlike_anything_known: bool
    """Whether that is more than images of known classes give (docs/method.md 3.4)."""


@dataclass(frozen=True)
class Model:
    """A global model with its registry, as a run leaves it."""

    weights: Tensors
    registry: Mapping[str, str]

    @property
    def classes(self) -> list[str]:
        """Class uid of each row."""
        return [str(uid) for uid in json.loads(self.registry["classes"])]

    @property
    def names(self) -> list[str]:
        """What people call the class of each row."""
        return [str(name) for name in json.loads(self.registry["class_names"])]

    @property
    def data(self) -> DataFacts:
        """Size, channels and preparation of images."""
        return DataFacts.model_validate_json(self.registry["data"])

    @property
    def family(self) -> str:
        """`bce`: each class a sigmoid of its own. `softmax`: one distribution over all."""
        return self.registry["family"]

    @property
    def virtual_rows(self) -> int:
        """Zero logits that stand for classes without a row when entropy is taken."""
        return int(self.registry["virtual_rows"])

    @property
    def limit(self) -> float:
        """The entropy above which an image is unlike anything known, in nats."""
        registry = self.registry
        return float(registry["reference_entropy"]) + float(registry["entropy_threshold"])

    def predictions(self, images_NcHW: NDArray[np.uint8]) -> list[Prediction]:
        """What it says of each image. Raises ConfigurationError for a model without classes."""
        logits_NC = self.logits(images_NcHW)
        rows = logits_NC.argmax(axis=1)
        unsure = entropies(logits_NC, self.virtual_rows)
        chances = probabilities(logits_NC, self.family)[np.arange(len(rows)), rows]
        return [
            Prediction(
                uid=self.classes[row],
                name=self.names[row],
                probability=float(chance),
                entropy=float(entropy),
                unlike_anything_known=bool(entropy > self.limit),
            )
            for row, chance, entropy in zip(rows.tolist(), chances, unsure, strict=True)
        ]

    def logits(self, images_NcHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, C), without augmentation."""
        from learning.nets import features_and_logits, from_weights
        from twins.learner import transform_of

        if not self.classes:
            raise ConfigurationError("this model has no classes yet: it was never trained")
        net = from_weights(self.weights)
        return features_and_logits(net, images_NcHW, transform_of(self.data))[1]


def probabilities(logits_NC: NDArray[np.floating], family: str) -> NDArray[np.float64]:
    """What the logits mean in a family of losses (docs/method.md 5.2)."""
    exact_NC = logits_NC.astype(np.float64)
    if family == "bce":
        return 1 / (1 + np.exp(-exact_NC))
    odds_NC = np.exp(exact_NC - exact_NC.max(axis=1, keepdims=True))
    return odds_NC / odds_NC.sum(axis=1, keepdims=True)


def model_file(run: Path) -> Path:
    """The model of a run folder, or the file itself if that is named. Raises DataError."""
    if run.is_file():
        return run
    folder = RunFolder(run)
    folder.read_manifest()
    if not folder.model.exists():
        raise DataError(f"{run} has no model yet: `fedtwin resume {run}` goes on to its end")
    return folder.model


def read_model(file: Path) -> Model:
    """Read a model.safetensors and check it against its hash. Raises DataError."""
    try:
        with safe_open(file, framework="numpy") as opened:
            registry = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read as safetensors ({error}): restore it") from None
    if missing := [key for key in KEYS if key not in registry]:
        raise DataError(
            f"{file} lacks {', '.join(missing)} in its metadata: name a model.safetensors that"
            " fedtwin wrote"
        )
    if model_sha256(weights) != registry["sha256"]:
        raise DataError(f"{file} is damaged: its tensors are not what its hash says; restore it")
    return Model(weights, registry)


def read_pictures(files: Sequence[Path], data: DataFacts) -> tuple[list[str], Fitted]:
    """Images of PNG, JPEG and npz files at a run's size, and a name for each.

    Raises ConfigurationError for a folder, DataError for what is not there or is no image.
    """
    from producers.folders import read_images
    from producers.images import Fitted, fitted
    from producers.npz import read_images as read_npz_images

    size = (data.channels, data.height, data.width)
    called: list[str] = []
    parts = [fitted(np.empty((0, *size), np.uint8), *size)]
    for file in files:
        _look_at(file)
        if file.suffix.lower() == ".npz":
            parts.append(fitted(read_npz_images(file), *size))
            called += [f"{file}#{number}" for number in range(len(parts[-1].images))]
        else:
            parts.append(read_images([file], *size))
            called.append(str(file))
    images, resized, recoloured = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("images", "resized", "recoloured")
    )
    return called, Fitted(images, resized, recoloured)


def _look_at(file: Path) -> None:
    """What to do where a file is none."""
    if file.is_dir():
        raise ConfigurationError(f"{file} is a folder: name the images in it, such as {file}/*.png")
    if not file.exists():
        raise DataError(f"{file} is not there: check the path, or what the shell made of a *")
