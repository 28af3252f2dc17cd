"""A wire between two ports of this machine that can be cut, and mended."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from infra.native.programs import HOST

CHUNK = 64 * 1024
LOOK = 0.05  # seconds between two looks whether the wire was cut


class Relay:
    """Forwards what comes to `port` to another one. While it is cut nothing passes, and no
    connection is told of it: as when a cable is pulled."""

    def __init__(self, port: int, to: int) -> None:
        self._to = to
        self.cut = threading.Event()
        self._over = threading.Event()
        self._listening = socket.create_server((HOST, port))
        self._listening.settimeout(LOOK)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No connection any more."""
        self._over.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError, OSError):
                here, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(here,), daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        with (
            here,
            suppress(OSError),
            socket.create_connection((HOST, self._to)) as there,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(here, selectors.EVENT_READ, there)
            ready.register(there, selectors.EVENT_READ, here)
            while not self._over.is_set():
                for key, _ in ready.select(LOOK):
                    while self.cut.is_set() and not self._over.is_set():
                        self._over.wait(LOOK)
                    assert isinstance(key.fileobj, socket.socket)
                    if not (content := key.fileobj.recv(CHUNK)):
                        return
                    key.data.sendall(content)
