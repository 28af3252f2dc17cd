"""Every run and every federation that a Kafka holds: by name, and how far each is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from experiments.history import words
from experiments.outside import Outside
from infra.program import First
from infra.serve import READ_BYTES
from infra.settings import Settings
from infra.transport.base import Transport, Trimmed
from infra.transport.clusters import connect
from schemas.errors import ConfigurationError, FedtwinError, ServiceError
from schemas.topics import NAME, PREFIX, Names

START = 3.0  # seconds in which a broker must answer: folders are listed without it
ROUNDS = "rounds"


@dataclass(frozen=True)
class OnKafka:
    """One of them."""

    run: str
    status: str
    """live, run or over; unopened where nobody has begun it, unreadable where we may not look."""
    why: str | None = None
    """It is unreadable."""
    recipe: str | None = None
    entities: int = 0
    """That take part: of a federation those that are here."""
    stages: int = 0
    rounds: int = 0
    """That closed."""
    model_version: int | None = None
    decisions: int = 0
    """In `rounds`."""
    last_decision: str | None = None
    last_at: float | None = None
    """When it was written, in seconds since 1970."""


@dataclass(frozen=True)
class Listing:
    """What one Kafka holds."""

    kafka: str
    """Its address."""
    away: str | None
    """Why it could not be asked."""
    runs: list[OnKafka]


def listing(settings: Settings) -> Listing:
    """What the federation's Kafka holds. Raises ServiceError where nobody names one."""
    address = str(settings.kafka)
    try:
        with closing(connect(settings, site=False, start_timeout=START)) as transport:
            return Listing(address, None, list(_runs(transport)))
    except (ServiceError, ConfigurationError) as error:
        return Listing(address, str(error), [])


def _runs(transport: Transport) -> Iterator[OnKafka]:
    parts = (topic.split(".") for topic in transport.topics())
    named = {part[1] for part in parts if part[0] == PREFIX and part[2:] == [ROUNDS]}
    for run in sorted(each for each in named if NAME.fullmatch(each)):
        names = Names(run)
        try:
            yield _run(transport, names)
        except ServiceError:
            raise
        except FedtwinError as error:
            yield OnKafka(run, "unreadable", str(error))


def _run(transport: Transport, names: Names) -> OnKafka:
    first = First(transport, names)
    opened = first.look()
    if opened is None:
        return OnKafka(names.run, "unopened")
    standing = Outside(transport, names, opened, first.hash).standing
    line = standing.line
    live = opened.configuration.live
    return OnKafka(
        run=names.run,
        status="live" if live else "over" if line.over else "run",
        recipe=opened.configuration.recipe,
        entities=len(standing.present if live else line.entities),
        stages=len(line.stages),
        rounds=standing.rounds,
        model_version=line.model.version if line.model else None,
        decisions=line.number + 1,
        last_decision=words(line.decisions[line.number]) if line.decisions else None,
        last_at=_last_at(transport, names.federation(ROUNDS)),
    )


def _last_at(transport: Transport, topic: str) -> float | None:
    """When the last record of a topic was written, where the log keeps it."""
    with suppress(Trimmed):
        found = transport.read(topic, max(transport.end(topic) - 1, 0), READ_BYTES)
        return found[-1].at if found else None
    return None
