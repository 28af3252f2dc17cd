"""Kafka's consumer, but that it asks for more when nothing that came lies unread, and at once; and
that it waits by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

from kafka import KafkaConsumer, TopicPartition
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
        fetcher.fetch_records = self._fetched
        ask = fetcher._send_fetches_async

        async def ask_when_empty() -> Any:
            """Runs where answers arrive, so none comes in between; who polls waits for it."""
            if fetcher._completed_fetches or fetcher._next_partition_records:
                return []
            return await ask()

        fetcher._send_fetches_async = ask_when_empty
        fetcher._net.run = _without_trace(fetcher._net.run)

    def _fetched(
        self, most: int | None = None, update_offsets: bool = True, timeout_ms: float | None = None
    ) -> tuple[dict[TopicPartition, list[Any]], bool]:
        """The client's `fetch_records`: what has come, and whether there is nothing to wait for.

        There each poll has the thread of the connections ask, also where all brokers are asked
        already, waits until it has, and then has it wait and say that something came. Each such
        turn of two threads costs as much as to read a small message. Here who has something in hand
        does not wait for more to be asked for, and who has nothing waits for the answer itself.
        """
        fetcher = self._fetcher
        records, more = fetcher.fetched_records(most, update_offsets=update_offsets)
        if not more and not self._all_asked():
            if records:
                fetcher._manager.call_soon(fetcher._send_fetches_async)
            else:
                fetcher.send_fetches()
        if records:
            return records, False
        waited_for = list(fetcher._fetch_futures)
        if (reset := fetcher._reset_task) is not None and not reset.is_done:
            waited_for.append(reset)
        if not waited_for:
            return records, True
        came = Event()
        for answer in waited_for:  # one that is there already says so at once
            answer.add_both(lambda _: came.set())
        came.wait(None if timeout_ms is None else timeout_ms / 1000)
        return fetcher.fetched_records(most, update_offsets=update_offsets)[0], False

    def _all_asked(self) -> bool:
        """Whether each broker has a request of ours that it has not answered."""
        brokers = self._fetcher._manager.cluster.brokers()
        return len(self._fetcher._nodes_with_pending_fetch_requests) >= len(brokers)

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
