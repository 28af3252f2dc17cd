"""The whole system in one process: all roles over one log, trainings in worker processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aggregator.aggregator import Aggregator, Opening
from experiments.numbers import counted
from experiments.observer import Observer
from experiments.pooling import images_per_class, pooled
from infra.program import wire_of
from infra.promises import Role, Workers
from infra.serve import Session, Surroundings, System
from infra.shelf import Shelf
from infra.store.base import ModelStore
from infra.transport.base import Transport
from learning.strategies.choice import chosen
from producers.entity import Producers
from producers.images import Dataset
from proxy.proxy import Proxy
from schemas.configuration import Configuration
from schemas.errors import ConfigurationError
from schemas.limits import largest_message
from schemas.schedule import Schedule, class_order, plan
from schemas.topics import Names
from twins.twins import Twins

SITE = "local"
WRITING = "writing model and report"
"""What a runner does last."""


@dataclass
class Watched:
    """A run as one looks at it, wherever its roles are."""

    system: System
    """Of this process."""
    observer: Observer
    shelf: Shelf
    finishing: str = field(default="", init=False)
    """What its runner does when no role has anything to do any more."""


Watch = Callable[[Watched], None]


@dataclass
class Embedded(Watched):
    """A run in one process: besides, the roles that people ask about."""

    aggregator: Aggregator
    proxy: Proxy


def opening_of(configuration: Configuration, dataset: Dataset) -> Opening:
    """What RunOpened will say.

    Raises ValueError for a schedule that the data does not allow, and ConfigurationError for one
    in whose first stage nobody can ever announce a class.
    """
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
    if chosen(configuration.strategy, {}).pooled:
        schedule = pooled(configuration, schedule, images_per_class(configuration, dataset))
    rows = configuration.encoder_classes
    if rows is not None and rows < len(schedule.classes):
        raise ValueError(
            f"encoder_classes is {rows}, the schedule has {len(schedule.classes)} classes: each"
            " needs a row of the encoder's last layer (docs/method.md 6.1)"
        )
    _can_be_announced(configuration, dataset, schedule)
    return Opening(configuration, dataset.facts(order), schedule)


def _can_be_announced(configuration: Configuration, dataset: Dataset, schedule: Schedule) -> None:
    """Raises ConfigurationError when labels decide and no class of stage 0 is seen often enough."""
    of_class = images_per_class(configuration, dataset)
    most = max(
        (
            of_class[uid] / schedule.share(client.entity, uid).parts
            for client in schedule.stages[0].clients
            for uid in client.classes
        ),
        default=0,
    )
    if configuration.detector != "entropy" and math.ceil(most) < configuration.n_lab:
        raise ConfigurationError(
            f"no class of stage 0 can be announced: n_lab is {configuration.n_lab}, and no entity"
            f" gets more than {counted(math.ceil(most), 'image')} of one (images_per_class is"
            f" {configuration.images_per_class or 'not limited'}, image_share is"
            f" {configuration.image_share}). Take a smaller n_lab, or more images"
        )


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
    """Put the roles of a recipe together, each `copies` times, for the sites of its entities.

    The observer looks at the one site of a recipe's own entities alone.
    Without a data set nobody streams and nothing is scored: the log holds the samples already.
    """
    names = Names(run)
    max_bytes = largest_message(opening.configuration, opening.data)
    shelf = Shelf(transport, names.federation("models"), max_bytes)
    wire = opening.configuration.wire

    surroundings = around(Surroundings(transport, shelf, max_bytes, wire_of(wire), store))
    observer = Observer(names, SITE, dataset)
    sites = opening.all_sites
    aggregators = [Aggregator(names, sites, opening, shelf) for _ in range(copies)]
    proxies = [Proxy(names, sites) for _ in range(copies)]
    most = opening.configuration.images_per_class
    everywhere = [site for site in sites for _ in range(copies)]
    streams = [Producers(names, site, dataset, most) for site in everywhere] if dataset else []
    roles: list[Role] = [
        *streams,
        *(Twins(names, site, shelf) for site in everywhere),
        *aggregators,
        *proxies,
        observer,
    ]
    system = System(roles, surroundings, workers, order=order)
    return Embedded(system, observer, shelf, aggregators[0], proxies[0])
