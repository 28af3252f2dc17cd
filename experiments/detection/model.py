"""What a twin alone has learned: some classes in two stages, and others left to be new.

Needs torch. Legend: N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learning.lesson import Lesson
from learning.memory import budget, herded
from learning.nets import features_and_logits, from_weights
from learning.novelty import entropies
from learning.shapes import Weights, first_model, grown
from learning.strategies.choice import chosen
from learning.training import learn
from producers.datasets import load
from producers.images import Dataset, Part
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError, RunFailed
from schemas.seeds import generator
from twins.learner import transform_of
from twins.novelty import REFERENCES, drawn

TWIN = "stream"
"""The entity in the seeds of all that is drawn here."""
HELD_BACK = 5
"""Of a data set that has no part for choices, every fifth training image of each class is one."""


@dataclass(frozen=True)
class Split:
    """Which classes are learned, and which are new."""

    stages: tuple[tuple[str, ...], tuple[str, ...]]
    to_choose: tuple[str, ...]
    """New classes on whose streams numbers are chosen."""
    to_score: tuple[str, ...]
    """New classes on whose streams rules are scored."""

    @property
    def known(self) -> tuple[str, ...]:
        """By row of the model."""
        return self.stages[0] + self.stages[1]

    @property
    def size(self) -> int:
        """Classes of a stage: as many are expected next."""
        return len(self.stages[0])


@dataclass(frozen=True, eq=False)
class Learned:
    """A model, and what its twin still has of that from which it learned."""

    data: Dataset
    split: Split
    weights: Weights
    has: Part
    """Images of the newest classes, and exemplars of those before."""
    seed: int

    def entropies(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Per image, with a virtual row for each class of a stage, in nats (N,)."""
        return entropies(_logits(self.weights, images, self.data), self.split.size)

    def reference(self) -> float:
        """The mean entropy of what the twin has, as it takes it when it judges; in nats."""
        places = drawn(range(len(self.has)), REFERENCES, generator(self.seed, "detect/1", TWIN))
        return float(self.entropies(self.has.images[list(places)]).mean())

    def accuracy(self) -> float:
        """On test images of the classes that were learned, in percent."""
        rows = np.array([self.data.class_uids.index(uid) for uid in self.split.known])
        tested = self.data.test.only(np.isin(self.data.test.labels, rows))
        answers = rows[_logits(self.weights, tested.images, self.data).argmax(axis=1)]
        return 100 * float(np.mean(answers == tested.labels))


def loaded(configuration: Configuration, data_dir: Path) -> Dataset:
    """The recipe's data, of which some training images are kept for choices.

    Raises what `load` raises.
    """
    data = load(
        configuration.dataset,
        data_dir,
        image_size=configuration.image_size,
        organ_hflip=configuration.organ_hflip,
        hold_out=configuration.dataset == "cifar100",
    )
    return data if len(data.validation) else _held_back(data)


def _held_back(data: Dataset) -> Dataset:
    index_N = np.zeros(len(data.train), np.int64)
    for label in np.unique(data.train.labels):
        of_class = np.flatnonzero(data.train.labels == label)
        index_N[of_class] = np.arange(len(of_class))
    back = index_N % HELD_BACK == 0
    return replace(data, train=data.train.only(~back), validation=data.train.only(back))


def divided(data: Dataset, configuration: Configuration, seed: int) -> Split:
    """Two stages of known classes, and of the others some for choices and some for scores.

    Stages have as many classes as the recipe's, or three in ten of all if those are fewer. Raises
    ConfigurationError for data of fewer than four classes.
    """
    planned, classes = configuration.classes_per_stage, len(data.class_uids)
    size = min(planned if isinstance(planned, int) else min(planned), 3 * classes // 10)
    others = min(size, (classes - 2 * size) // 2)
    if not (size and others):
        raise ConfigurationError(
            f"{data.name} has {classes} classes; detection takes at least 4: two to learn, one to"
            " choose by and one to score"
        )
    order = iter(generator(seed, "schedule").permutation(classes).tolist())
    first, second, choose, score = (
        tuple(data.class_uids[next(order)] for _ in range(count))
        for count in (size, size, others, others)
    )
    return Split((first, second), choose, score)


def learned(data: Dataset, configuration: Configuration, seed: int) -> Learned:
    """Learn a stage, and the next with exemplars of the one before.

    By plain training, for as many epochs as a recipe's stage has. Raises what `divided` raises, and
    RunFailed for a model whose answers are not finite.
    """
    split = divided(data, configuration, seed)
    channels = data.train.images.shape[1]
    weights = first_model(channels, configuration.width, generator(seed, "init_model"))
    exemplars = data.train.only(np.zeros(len(data.train), bool))
    for stage, uids in enumerate(split.stages):
        current = _images_of(data, configuration, uids)
        has = Part(
            np.concatenate([current.images, exemplars.images]),
            np.concatenate([current.labels, exemplars.labels]),
        )
        weights = grown(weights, split.size, generator(seed, "init_rows", stage=stage))
        weights = _taught(weights, has, data, split, configuration, stage, seed)
        if not np.isfinite(_logits(weights, current.images, data)).all():
            raise RunFailed(
                f"seed {seed}, stage {stage}: the model's answers are not finite; take a lower"
                f" learning_rate than {configuration.learning_rate:g}"
            )
        exemplars = _exemplars(weights, current, data, configuration.memory)
    return Learned(data, split, weights, has, seed)


def _images_of(data: Dataset, configuration: Configuration, uids: Sequence[str]) -> Part:
    labels = [data.class_uids.index(uid) for uid in uids]
    part = data.train.only(np.isin(data.train.labels, labels))
    return part.within_class(0, configuration.images_per_class or len(part))


def _taught(
    weights: Weights, has: Part, data: Dataset, split: Split, configuration: Configuration,
    stage: int, seed: int,
) -> Weights:  # fmt: skip
    row_of = {data.class_uids.index(uid): row for row, uid in enumerate(split.known)}
    switches = {"family": configuration.family, "reduction": configuration.reduction}
    lesson = Lesson(
        strategy=chosen("fedavg", switches),
        base=weights,
        teacher=None,
        images=has.images,
        rows=np.array([row_of[label] for label in has.labels.tolist()], np.int64),
        stage_of_row=tuple(each for each in range(stage + 1) for _ in split.stages[each]),
        stage=stage,
        learned=split.size * stage,
        new=split.size,
        transform=transform_of(data.facts()),
        generator=lambda purpose, epoch: generator(seed, purpose, TWIN, stage, 0, epoch),
        learning_rate=configuration.learning_rate,
        batch_size=configuration.batch_size,
        epochs=configuration.rounds_per_stage * configuration.local_epochs,
        weight_decay=configuration.weight_decay,
        clip_norm=configuration.clip_norm,
        precision=configuration.precision,
        device=configuration.device,
    )
    return learn(lesson).weights


def _exemplars(weights: Weights, current: Part, data: Dataset, memory: int) -> Part:
    """The images that herding keeps of each class when it becomes old."""
    net, transform = from_weights(weights), transform_of(data.facts())
    labels, kept = np.unique(current.labels), []
    for label in labels:
        of_class = np.flatnonzero(current.labels == label)
        features_NK, _ = features_and_logits(net, current.images[of_class], transform)
        kept.append(of_class[herded(features_NK, budget(memory, len(labels)))])
    places = np.concatenate(kept)
    return Part(current.images[places], current.labels[places])


def _logits(
    weights: Mapping[str, NDArray[np.generic]], images: NDArray[np.uint8], data: Dataset
) -> NDArray[np.float32]:
    return features_and_logits(from_weights(weights), images, transform_of(data.facts()))[1]
