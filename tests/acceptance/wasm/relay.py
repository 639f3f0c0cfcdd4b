"""A load balancer for tests: takes a connection at once and keeps it until the server behind accepts it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

RETRY_SECONDS = 0.02
CHUNK_BYTES = 1 << 16


class HoldingRelay:
    """Passes bytes on; where the server ends a connection, so does the relay."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_closing = False
        self._clients: list[socket.socket] = []
        self._may_pass = threading.Event()
        self._may_pass.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._may_pass.set()
        # A close alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def absence(self) -> Iterator[None]:
        """Ends the connections there are; who connects meanwhile is kept waiting."""
        self._may_pass.clear()
        while self._clients:
            # Only told to end: its own thread closes it.
            with contextlib.suppress(OSError):
                self._clients.pop().shutdown(socket.SHUT_RDWR)
        yield
        self._may_pass.set()

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        self._may_pass.wait()
        self._clients.append(client)
        server = self._connect()
        if server is None:
            client.close()
            return
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()
        client.close()
        server.close()

    def _connect(self) -> socket.socket | None:
        while not self._is_closing:
            try:
                return socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                time.sleep(RETRY_SECONDS)
        return None


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until either side ends; then both do."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
