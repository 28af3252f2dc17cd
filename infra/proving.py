"""Asks a broker by ourselves what it wants of who comes: TLS, a user and a password, another one.

The client drops what a broker says in the moment in which it hangs up, and that is when it says no:
two times of three the client knows of a closed connection only. So where it has failed and does not
know why, its own messages are sent once more, one after the other, and each answer is read whole.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from kafka import errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

if TYPE_CHECKING:
    from infra.kafka import KafkaSettings

USER_WANTED = "UserWanted"
"""A reason of our own: the door asks for one, and none came."""
PATIENCE = 2.0  # seconds for an answer
LONGEST = 1 << 16  # bytes of an answer; who says more speaks something else
VERSION = 1  # of both messages; Kafka has known it since 2018
NO_SASL = errors.IllegalSaslStateError.__name__
CORRELATION = 4  # bytes before an answer


def refused(settings: KafkaSettings) -> str:
    """Why a broker does not let us in; empty if it does, or does not say."""
    for server in settings.servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            return _asked(settings, host.strip("[]"), int(port))
        except _Foreign as foreign:
            return str(foreign)
        except (OSError, ValueError):
            continue  # it is away, or what it speaks is not this
    return ""


def _asked(settings: KafkaSettings, host: str, port: int) -> str:
    given = settings.client()
    with ExitStack() as held:
        wire = held.enter_context(socket.create_connection((host, port), timeout=PATIENCE))
        if settings.protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=given.get("ssl_cafile"))
            if "ssl_certfile" in given:
                context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
            wire = held.enter_context(context.wrap_socket(wire, server_hostname=host))
        told = _answer(wire, SaslHandshakeRequest(mechanism=settings.mechanism))
        if not settings.user:  # who asks nobody for one does not know what we are talking about
            return "" if _named(told) == NO_SASL else USER_WANTED
        if told.error_code:
            return _named(told)
        proof = get_sasl_mechanism(settings.mechanism)(host=host, **given)
        while not proof.is_done():
            told = _answer(wire, SaslAuthenticateRequest(proof.auth_bytes()))
            if told.error_code:
                return f"{_named(told)}: {told.error_message}"
            proof.receive(told.auth_bytes)
    return ""


def _answer(wire: socket.socket, request: Any) -> Any:
    """Send a message and read the answer to it."""
    kind = (
        SaslHandshakeResponse
        if isinstance(request, SaslHandshakeRequest)
        else SaslAuthenticateResponse
    )
    request.with_header()
    wire.sendall(request.encode(version=VERSION, header=True, framed=True))
    (length,) = struct.unpack(">i", _read(wire, 4))
    if not CORRELATION <= length <= LONGEST:
        raise _Foreign(f"Invalid frame length: {length}")
    return kind.decode(_read(wire, length)[CORRELATION:], version=VERSION)


class _Foreign(Exception):
    """What answers does not speak Kafka's language; told in the client's words."""


def _read(wire: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        if not (more := wire.recv(count - len(found))):
            raise ConnectionError("the broker hung up")
        found += more
    return found


def _named(told: Any) -> str:
    return str(errors.for_code(told.error_code).__name__)
