"""A connection that is reset while it begins is, for the client of Kafka, one that failed.

Its loop that keeps knowing where topics are takes the client's own errors for failures and tries
again; with any other it ends for ever. When TLS begins on a connection that the other side has just
reset, as a broker does that is ending, the error is the system's own: such a reader would read
nothing from any topic that is new to it, without a word. So the system's become the client's here.
"""

from __future__ import annotations

from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.manager import KafkaConnectionManager

_inner = KafkaConnectionManager._build_transport


async def _build_transport(self: Any, *given: Any, **more: Any) -> Any:
    try:
        return await _inner(self, *given, **more)
    except OSError as error:
        raise KafkaConnectionError(str(error)) from error


def register() -> None:
    """From now on for every client of this process."""
    KafkaConnectionManager._build_transport = _build_transport
