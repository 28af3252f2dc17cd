"""Kafka's consumer, but that it asks for more when nothing that came lies unread, and at once."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer


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

    def ask_ahead(self) -> None:
        """Ask for what comes next, so that it comes while that which came is worked on.

        The client does so only where something had come before it was polled; where that was waited
        for, it asks at the next poll, and who polls waits once more.
        """
        self._fetcher.send_fetches()
