"""Both of a run's clusters as one transport: what belongs to the site stays in the site's.

Which topic lies where says the table of topics, and nothing else. Where site and federation are one
cluster there is one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from infra.kafka import KafkaSettings
from infra.points import Hook, no_hook
from infra.settings import Service, Settings
from infra.transport.base import Absence, Remote, Stored, Transport
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.topics import table_row

WAIT = 0.02  # seconds in which one of two clusters is waited for; then the other has its turn


class Clusters:
    """A transport over two others."""

    def __init__(self, federation: Transport, site: Transport) -> None:
        self._of = {"federation": federation, "site": site}

    def append(self, topic: str, records: Iterable[Record]) -> list[int]:
        return self._at(topic).append(topic, records)

    def last(self, topic: str, records: Sequence[Record], seconds: float) -> bool:
        at = self._at(topic)
        return isinstance(at, Remote) and at.last(topic, records, seconds)

    @property
    def away(self) -> Absence | None:
        found = [each.away for each in self._of.values() if isinstance(each, Remote)]
        return next((each for each in found if each), None)

    def read(self, topic: str, place: int, max_bytes: int) -> list[Stored]:
        return self._at(topic).read(topic, place, max_bytes)

    def first(self, topic: str) -> int:
        return self._at(topic).first(topic)

    def end(self, topic: str) -> int:
        return self._at(topic).end(topic)

    def topics(self) -> list[str]:
        return sorted({topic for each in self._of.values() for topic in each.topics()})

    def forget(self, topic: str, *keys: str) -> None:
        self._at(topic).forget(topic, *keys)

    def trim(self, topic: str, before: int) -> None:
        self._at(topic).trim(topic, before)

    def wait(self, seconds: float) -> None:
        """A little for each: who is told of something new asks all topics anyway."""
        for each in self._of.values():
            each.wait(min(seconds, WAIT))

    def close(self) -> None:
        for each in self._of.values():
            each.close()

    def _at(self, topic: str) -> Transport:
        return self._of[table_row(topic).cluster]


def kafka_settings(service: Service, **more: Any) -> KafkaSettings:
    """How to reach a service that the environment names; `more` are further fields.

    Raises ConfigurationError for what they cannot be.
    """
    return KafkaSettings(
        service.address,
        user=service.user,
        password=service.password,
        password_file=service.password_file,
        encrypted=service.tls,
        ca_file=service.ca_file,
        cert_file=service.cert_file,
        key_file=service.key_file,
        mechanism=service.mechanism,
        **more,
    )


def connect(
    settings: Settings,
    *,
    site: bool,
    stopped: Callable[[], bool] = lambda: False,
    hook: Hook = no_hook,
    **more: Any,
) -> Transport:
    """The transport of a program; with its `site`'s cluster, or the federation's alone.

    `more` are further fields of KafkaSettings, of both. Raises ConfigurationError and ServiceError.
    """
    federation = Kafka(kafka_settings(settings.kafka, **more), stopped=stopped, hook=hook)
    if not site or settings.site_kafka == settings.kafka:
        return federation
    own = kafka_settings(settings.site_kafka, **more)
    return Clusters(federation, Kafka(own, stopped=stopped, hook=hook))
