"""The whole system in one process: all roles over one log, trainings in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aggregator.aggregator import Aggregator, Opening
from experiments.observer import Observer
from infra.program import wire_of
from infra.promises import Role, Workers
from infra.serve import Session, Surroundings, System
from infra.shelf import Shelf
from infra.store.base import ModelStore
from infra.transport.base import Transport
from producers.entity import Producers
from producers.images import Dataset
from proxy.proxy import Proxy
from schemas.configuration import Configuration
from schemas.limits import largest_message
from schemas.schedule import class_order, plan
from schemas.topics import Names
from twins.twins import Twins

SITE = "local"


@dataclass
class Watched:
    """A run as one looks at it, wherever its roles are."""

    system: System
    """Of this process."""
    observer: Observer
    shelf: Shelf


Watch = Callable[[Watched], None]


@dataclass
class Embedded(Watched):
    """A run in one process: besides, the roles that people ask about."""

    aggregator: Aggregator
    proxy: Proxy


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


def embedded(
    opening: Opening,
    dataset: Dataset | None,
    transport: Transport,
    store: ModelStore,
    workers: Workers,
    *,
    run: str,
    around: Callable[[Surroundings], Surroundings] = lambda same: same,
    copies: int = 1,
    order: Callable[[Sequence[Session]], Sequence[Session]] = lambda sessions: sessions,
) -> Embedded:
    """Put the roles of a recipe together, each `copies` times.

    Without a data set nobody streams and nothing is scored: the log holds the samples already.
    """
    names = Names(run)
    max_bytes = largest_message(opening.configuration, opening.data)
    shelf = Shelf(transport, names.federation("models"), max_bytes)
    wire = opening.configuration.wire

    surroundings = around(Surroundings(transport, shelf, max_bytes, wire_of(wire), store))
    observer = Observer(names, SITE, dataset)
    aggregators = [Aggregator(names, [SITE], opening, shelf) for _ in range(copies)]
    proxies = [Proxy(names, [SITE]) for _ in range(copies)]
    most = opening.configuration.images_per_class
    streams = [Producers(names, SITE, dataset, most) for _ in range(copies)] if dataset else []
    roles: list[Role] = [
        *streams,
        *(Twins(names, SITE, shelf) for _ in range(copies)),
        *aggregators,
        *proxies,
        observer,
    ]
    system = System(roles, surroundings, workers, order=order)
    return Embedded(system, observer, shelf, aggregators[0], proxies[0])
