"""What Kafka's client is given of a connection: all that has arrived, and why no more comes."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka.net.transport import KafkaTCPTransport

from infra import receiving
from infra.receiving import AT_A_TIME, Selector

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    """A connection's two ends; ours does not wait."""
    receiving.register()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        yield ours, theirs


def arrived(ours: socket.socket) -> tuple[bytes, Exception | None]:
    """What the client takes when the system says that something came."""
    with Selector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        assert selector.select(5)
    found: tuple[bytes, Exception | None] = KafkaTCPTransport(None, ours)._sock_recv()
    return found


def test_all_that_has_arrived_is_taken_and_more_may_come(ends: Pair) -> None:
    """More than one piece; and then nothing, which is no error."""
    ours, theirs = ends
    sent = bytes(range(256)) * (AT_A_TIME // 256 + 1)
    theirs.sendall(sent)
    came = b""
    while len(came) < len(sent):
        data, error = arrived(ours)
        came += data
        assert error is None

    assert came == sent
    assert KafkaTCPTransport(None, ours)._sock_recv() == (b"", None)


def test_what_came_before_the_end_is_given_with_it(
    ends: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The other side says something and hangs up: the client complains where it is listened to."""
    ours, theirs = ends
    theirs.sendall(b"last words")
    theirs.shutdown(socket.SHUT_WR)
    came = b""
    error = None
    while error is None:
        data, error = arrived(ours)
        came += data

    assert came == b"last words"
    assert "socket disconnected" in str(error)
    assert [each.name for each in caplog.records] == ["kafka.net.transport"]


def test_a_reset_is_told_as_what_the_system_says(ends: Pair) -> None:
    """With its number, which tells an engineer more than that the connection has ended."""
    ours, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    came, error = arrived(ours)

    assert came == b""
    assert "reset" in str(error).lower()


def test_a_selector_knows_whom_it_was_told_of(ends: Pair) -> None:
    """By the file or by its number, and a file that was closed since; nobody else."""
    ours, theirs = ends
    with Selector() as selector:
        key = selector.register(theirs, selectors.EVENT_READ, "data")
        assert selector.get_key(theirs) == selector.get_key(theirs.fileno()) == key
        with pytest.raises(KeyError):
            selector.get_key(ours)

        theirs.close()
        assert selector.get_key(theirs) == key
        ours.close()
        with pytest.raises(ValueError, match="Invalid file descriptor"):
            selector.get_key(ours)
