"""Kafka's consumer, but that it asks for more when nothing that came lies unread, and at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError


class Consumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer whose fetches leave no topic out.

    The client (3.0.12) looks at what came, then asks for more, without the topics of which
    something has come in between. That fetch the broker holds back for as long as it may, and
    meanwhile whatever comes next in those topics waits; who polls may even wait with what has come
    in hand. As Java's client does since KAFKA-17182, we first give out what is there.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        fetcher = self._fetcher  # the client has no public word for this
        ask = fetcher._send_fetches_async

        async def ask_when_empty() -> Any:
            """Runs where answers arrive, so none comes in between; who polls waits for it."""
            if fetcher._completed_fetches or fetcher._next_partition_records:
                return []
            return await ask()

        fetcher._send_fetches_async = ask_when_empty
        fetcher._net.run = _without_trace(fetcher._net.run)

    def ask_ahead(self) -> None:
        """Ask for what comes next, so that it comes while that which came is worked on.

        The client does so only where something had come before it was polled; where that was waited
        for, it asks at the next poll, and who polls waits once more.
        """
        self._fetcher.send_fetches()


def _without_trace(run: Callable[..., Any]) -> Callable[..., Any]:
    """The client's way to wait, which holds nobody's memory when nothing comes in time.

    Such a wait ends with an error that the client's own thread keeps until its next task. By its
    trace that error holds the frames of all who called, with whatever these had in hand, such as a
    model that was to be published.
    """

    def waited(*words: Any) -> Any:
        try:
            return run(*words)
        except KafkaTimeoutError as error:
            error.__traceback__ = None
            raise KafkaTimeoutError(*error.args) from None  # it is this one that gathers frames

    return waited
