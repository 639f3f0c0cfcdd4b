"""An app server for tests: real HTTP on loopback; what it answers is the test's to say."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import orjson

from imserver.devservices.ports import find_free_ports


@dataclass(frozen=True)
class Call:
    """One request it got."""

    command: str
    body: dict[str, Any]
    operation_id: str
    query: dict[str, list[str]]
    connection: Any

    @property
    def text(self) -> str:
        """Text of the message that the call is about."""
        text: str = orjson.loads(self.body["content"])["content"]
        return text


@dataclass(frozen=True)
class Reply:
    """What it answers. ``body`` that is not bytes becomes JSON."""

    status: int = 200
    body: Any = field(
        default_factory=lambda: {"actionCode": 0, "errCode": 0, "errMsg": "", "errDlt": "", "nextCode": 0}
    )


class AppServer:
    """Starts and stops as often as one likes, on the same port. ``calls`` keeps what came, in order."""

    def __init__(self, reply: Callable[[Call], Reply | None] | None = None) -> None:
        (self.port,) = find_free_ports(1)
        #: What is called elsewhere is answered and forgotten: somebody has not heard of a change of address yet.
        self.path = "/hook"
        #: None: hang up without an answer.
        self.reply: Callable[[Call], Reply | None] = reply or (lambda _call: Reply())
        self.calls: list[Call] = []
        self.changed = threading.Condition()
        #: Set when it stops: who lets a caller wait, waits for this.
        self.stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._sockets: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def texts(self, command: str = "", conversation: str = "") -> list[str]:
        """Texts of the calls in order; of one command, and of one sender or group."""
        return [
            call.text
            for call in list(self.calls)
            if command in ("", call.command) and conversation in ("", call.body["sendID"], call.body.get("groupID"))
        ]

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait for something about the calls."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"waited {seconds} s for {what}; came: {self.texts()}"
                self.changed.wait(left)

    def until_change(self, seconds: float) -> None:
        """Wait for the next call, not longer than that."""
        with self.changed:
            self.changed.wait(seconds)

    def handle(self, handler: BaseHTTPRequestHandler) -> Reply | None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        path, _, command = parts.path.rpartition("/")
        call = Call(
            command=command,
            body=orjson.loads(body),
            operation_id=handler.headers["operationID"],
            query=parse_qs(parts.query),
            connection=handler.client_address,
        )
        if path != self.path:
            return Reply()
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()
        return self.reply(call)

    def start(self) -> Self:
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                app._sockets.add(self.connection)

            def finish(self) -> None:
                app._sockets.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                reply = app.handle(self)
                if reply is None:
                    self.close_connection = True
                    return
                body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the caller did not wait for it

            def log_message(self, *_: Any) -> None:
                pass

        self.stopping.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
