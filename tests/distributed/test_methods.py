"""Every method and every form of data: over Kafka and Redis the same model as in one process.

All roles are in this process here; `test_same_bytes` has them in processes of their own. Images are
noise of the data's form: named sets need no file here, a file and a folder of one's own are written
and read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.system import SITE, embedded, opening_of
from experiments.worker import FUNCTIONS
from infra.kafka import KafkaSettings
from infra.store.base import ModelStore
from infra.store.redis import RedisStore
from infra.store.sqlite import SqliteStore
from infra.topics import Administration, plan
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.transport.kafka import Kafka
from infra.workers import Inline
from learning.repeatable import repeatable
from learning.strategies import STRATEGIES
from producers.datasets import load
from producers.images import Dataset, Part
from schemas.configuration import Configuration
from schemas.datasets import KNOWN
from schemas.topics import Names
from tests.distributed.federation import digits, tiny
from tests.services import InRun, have, kafka_address, new_run, some_redis, swept

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
RUN = "alone"


def short(**overrides: object) -> Configuration:
    """Two stages of two rounds in which little is trained."""
    few = {"images_per_class": 12, "recon_steps": 5, "width": 4, "memory": 20}
    return tiny(**few, **overrides)


def seen_through(
    configuration: Configuration, data: Dataset, log: Transport, store: ModelStore
) -> str:
    """The last model's hash."""
    repeatable(1)
    opening = opening_of(configuration, data)
    run = embedded(opening, data, log, store, Inline(FUNCTIONS), run=RUN)
    while not run.system.over:
        if not run.system.step():
            log.wait(0.2)
    assert run.aggregator.line.model is not None
    return run.aggregator.line.model.sha256


def in_one_process(configuration: Configuration, data: Dataset) -> str:
    with closing(Log()) as log, closing(SqliteStore()) as store:
        return seen_through(configuration, data, log, store)


@pytest.fixture(scope="module")
def settings() -> KafkaSettings:
    return KafkaSettings(have(kafka_address))


@pytest.fixture(scope="module")
def administration(settings: KafkaSettings) -> Iterator[Administration]:
    with closing(have(lambda: Administration(settings))) as made:
        yield made


def over_kafka(
    configuration: Configuration,
    data: Dataset,
    settings: KafkaSettings,
    administration: Administration,
) -> str:
    names, entities = Names(new_run()), opening_of(configuration, data).schedule.entities
    for cluster in ("federation", "site"):
        administration.apply(plan(names, cluster, [SITE], entities, settings))
    try:
        with (
            closing(Kafka(settings)) as log,
            closing(RedisStore(have(some_redis), names.run, prefix=names.prefix)) as store,
        ):
            return seen_through(configuration, data, InRun(log, names.run, called=RUN), store)
    finally:
        swept(settings, names)


@pytest.mark.parametrize("method", STRATEGIES)
def test_a_method_comes_to_the_same(
    settings: KafkaSettings, administration: Administration, method: str
) -> None:
    """Real trainings on digits, with what each method sends and keeps."""
    configuration = short(strategy=method)

    alone = in_one_process(configuration, digits())

    assert over_kafka(configuration, digits(), settings, administration) == alone


def noise(channels: int, side: int) -> Part:
    """24 images of each of ten classes."""
    chance = np.random.Generator(np.random.PCG64(side))
    images = chance.integers(0, 256, (240, channels, side, side), np.uint8)
    return Part(images, np.tile(np.arange(10), 24))


@cache
def like(name: str) -> Dataset:
    """Noise of a known data set's form: its channels, size and augmentation."""
    known, whole = KNOWN[name], noise(*FORMS[name])
    none = whole.within_class(0, 0)
    its = replace(digits(), name=name, transforms=known.transforms)
    return replace(its, train=whole, validation=none, test=whole)


FORMS = {
    "cifar100": (3, 32),
    "organamnist": (1, 28),
    "organcmnist": (1, 28),
    "organsmnist": (1, 28),
}


@pytest.mark.parametrize("name", FORMS)
def test_data_of_any_form_come_to_the_same(
    settings: KafkaSettings, administration: Administration, name: str
) -> None:
    """FedKA on gray and colour, mirrored and not, cropped and not; digits are above."""
    configuration = short(image_size=FORMS[name][1], rounds_per_stage=1)

    alone = in_one_process(configuration, like(name))

    assert over_kafka(configuration, like(name), settings, administration) == alone


def a_file(place: Path) -> str:
    """Of MedMNIST's form: gray, 28 pixels a side."""
    part = noise(1, 28)
    images, labels = part.images[:, 0], part.labels[:, np.newaxis]
    file = place / "own.npz"
    np.savez(file, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return f"npz:{file}"


def a_folder(place: Path) -> str:
    """Of PNGs, a folder for each class: colour, 20 pixels a side, a part of them for the test."""
    part = noise(3, 20)
    for i, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
        file = place / "own" / f"kind-{label}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(file)
    return f"folder:{place / 'own'}"


@pytest.mark.parametrize("made", [a_file, a_folder])
def test_data_of_ones_own_come_to_the_same(
    settings: KafkaSettings,
    administration: Administration,
    tmp_path: Path,
    made: Callable[[Path], str],
) -> None:
    """FedKA on what was read from a file, and from a folder of images."""
    place = made(tmp_path)
    data = load(place, tmp_path, image_size=16)
    configuration = short(image_size=16, rounds_per_stage=1, dataset=place)

    alone = in_one_process(configuration, data)

    assert over_kafka(configuration, data, settings, administration) == alone
