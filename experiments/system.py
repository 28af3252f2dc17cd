"""The whole system in one process: all roles over one log, trainings in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aggregator.aggregator import Aggregator, Opening
from experiments.observer import Observer
from infra.promises import Role, Workers
from infra.serve import Session, Surroundings, System
from infra.shelf import Shelf
from infra.store.base import ModelStore
from infra.transport.base import Transport
from learning.shapes import model_shapes
from producers.entity import Producers
from producers.images import Dataset
from proxy.proxy import Proxy
from schemas.configuration import Configuration
from schemas.messages import DataFacts, GlobalModel, Message, ModelUpdate
from schemas.schedule import class_order, plan
from schemas.topics import Names
from twins.twins import Twins

SITE = "local"
LEAST_BYTES = 32 * 1024 * 1024


@dataclass
class Embedded:
    """A run in one process: the roles that people ask about, and the system that steps them all."""

    system: System
    aggregator: Aggregator
    observer: Observer
    proxy: Proxy
    shelf: Shelf


def opening_of(configuration: Configuration, dataset: Dataset) -> Opening:
    """What RunOpened will say. Raises ValueError for a schedule that the data does not allow."""
    order = class_order(dataset.class_uids, configuration.class_order, configuration.seed)
    schedule = plan(
        configuration.seed,
        class_order=order,
        classes_per_stage=configuration.classes_per_stage,
        stages=configuration.stages,
        iid=configuration.iid,
        clients=configuration.clients,
        new_clients=configuration.new_clients,
        clients_per_round=configuration.clients_per_round,
        rounds_per_stage=configuration.rounds_per_stage,
        transition_fraction=configuration.transition_fraction,
        quirks=configuration.quirks,
        image_share=configuration.image_share,
        assignment=configuration.assignment,
    )
    rows = configuration.encoder_classes
    if rows is not None and rows < len(schedule.classes):
        raise ValueError(
            f"encoder_classes is {rows}, the schedule has {len(schedule.classes)} classes: each"
            " needs a row of the encoder's last layer (docs/method.md 6.1)"
        )
    return Opening(configuration, dataset.facts(order), schedule)


def largest_message(configuration: Configuration, data: DataFacts) -> int:
    """The most bytes that a message of this run may have: four models with every row."""
    classes = configuration.encoder_classes or data.encoder_classes
    shapes = model_shapes(data.channels, configuration.width, max(classes, len(data.classes)))
    numbers = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        numbers += size
    return max(LEAST_BYTES, 16 * numbers)


def embedded(
    opening: Opening,
    dataset: Dataset,
    transport: Transport,
    store: ModelStore,
    workers: Workers,
    *,
    run: str,
    around: Callable[[Surroundings], Surroundings] = lambda same: same,
    copies: int = 1,
    order: Callable[[Sequence[Session]], Sequence[Session]] = lambda sessions: sessions,
) -> Embedded:
    """Put the roles of a recipe together, each `copies` times."""
    names = Names(run)
    max_bytes = largest_message(opening.configuration, opening.data)
    shelf = Shelf(transport, names.federation("models"), max_bytes)
    wire = opening.configuration.wire

    def wire_of(message: Message) -> str:
        return wire if isinstance(message, GlobalModel | ModelUpdate) else "fp32"

    surroundings = around(Surroundings(transport, shelf, max_bytes, wire_of, store))
    observer = Observer(names, SITE, dataset)
    aggregators = [Aggregator(names, [SITE], opening, shelf) for _ in range(copies)]
    proxies = [Proxy(names, [SITE]) for _ in range(copies)]
    roles: list[Role] = [
        *(
            Producers(names, SITE, dataset, opening.configuration.images_per_class)
            for _ in range(copies)
        ),
        *(Twins(names, SITE, shelf) for _ in range(copies)),
        *aggregators,
        *proxies,
        observer,
    ]
    system = System(roles, surroundings, workers, order=order)
    return Embedded(system, aggregators[0], observer, proxies[0], shelf)
