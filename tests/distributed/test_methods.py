"""Every method and every form of data: over Kafka and Redis the same model as in one process.

All roles are in this process here; `test_same_bytes` has them in processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from experiments.system import SITE, embedded, opening_of
from experiments.worker import FUNCTIONS
from infra.kafka import KafkaSettings
from infra.store.base import ModelStore
from infra.store.sqlite import SqliteStore
from infra.topics import Administration, plan
from infra.transport.base import Transport
from infra.transport.embedded import Embedded as Log
from infra.transport.kafka import Kafka
from infra.workers import Inline
from learning.repeatable import repeatable
from learning.strategies import STRATEGIES
from producers.images import Dataset, Part
from schemas.configuration import Configuration
from schemas.datasets import KNOWN
from schemas.topics import Names
from tests.distributed.federation import digits, tiny
from tests.services import InRun, have, kafka_address, new_run, swept

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
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
        with closing(Kafka(settings)) as log, closing(SqliteStore()) as store:
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


@cache
def like(name: str) -> Dataset:
    """Noise of a known data set's form: its channels, size and augmentation."""
    known, channels, side = KNOWN[name], *FORMS[name]
    chance = np.random.Generator(np.random.PCG64(side))
    images = chance.integers(0, 256, (240, channels, side, side), np.uint8)
    whole = Part(images, np.tile(np.arange(10), 24))
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
