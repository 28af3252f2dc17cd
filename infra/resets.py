"""What the client of Kafka does not survive when a connection is reset while it begins.

When TLS begins on a connection that the other side has just reset, as a broker does that is ending,
the error is the system's own. Callers know the client's errors alone; and its loop that keeps
knowing where topics are ends for ever with any other: such a reader would read nothing from any
topic that is new to it, without a word. So the system's errors become the client's here, and
whatever else that loop may meet, it begins again.
"""

from __future__ import annotations

import logging
from typing import Any

from kafka.cluster import ClusterMetadata
from kafka.errors import KafkaConnectionError
from kafka.net.manager import KafkaConnectionManager

LOG = logging.getLogger(__name__)
REST = 0.5  # seconds before the loop begins again
_connecting = KafkaConnectionManager._build_transport
_looking = ClusterMetadata._refresh_loop


async def _build_transport(self: Any, *given: Any, **more: Any) -> Any:
    try:
        return await _connecting(self, *given, **more)
    except OSError as error:
        raise KafkaConnectionError(str(error)) from error


async def _refresh_loop(self: Any) -> None:
    while not self.closed:
        try:
            await _looking(self)  # until it is closed
        except Exception:
            LOG.exception("Kafka's client stopped looking where topics are; it begins again")
            await self._manager._net.sleep(REST)


def register() -> None:
    """From now on for every client of this process."""
    KafkaConnectionManager._build_transport = _build_transport
    ClusterMetadata._refresh_loop = _refresh_loop
