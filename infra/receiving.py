"""How Kafka's client takes what has arrived at a connection: as the client does, in larger pieces.

The client (3.0.12) takes 4 KiB at a time, and before each wait for more has the system name both
ends of the connection, twice, for a complaint that it drops. A tenth of what its thread takes of
the processor while models arrive is for this (docs/benchmarks.md).
"""

from __future__ import annotations

import logging
import selectors
import ssl
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net import transport

LOG = logging.getLogger(transport.__name__)
"""Where the client complains, and is listened to."""
AT_A_TIME = 64 * 1024  # bytes; for more than a connection holds, room would be taken in vain
NOT_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Selector(selectors.DefaultSelector):
    """Python's own, that is asked by a file's number: of who is not known, it complains briefly."""

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Raises KeyError for who is not registered."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return super().get_key(fileobj if number < 0 else number)  # a closed file has none


def _received(connection: Any) -> tuple[bytes, KafkaConnectionError | None]:
    """All that has arrived, and why no more can."""
    came: list[bytes] = []
    try:
        while data := connection._sock.recv(AT_A_TIME):
            came.append(data)
    except NOT_YET:
        return b"".join(came), None
    except Exception as error:
        LOG.exception("%s: Error receiving network data", connection)
        return b"".join(came), KafkaConnectionError(error)
    LOG.error("%s: socket disconnected", connection)
    return b"".join(came), KafkaConnectionError("socket disconnected")


def register() -> None:
    """From now on for every client of this process."""
    for kind in (transport.KafkaTCPTransport, transport.KafkaSSLTransport):
        kind._sock_recv = _received
