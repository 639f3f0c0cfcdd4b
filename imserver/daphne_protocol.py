"""What Daphne leaves out and our clients need: any close code with its reason, and an HTTP answer to a refused upgrade.

Daphne hands close codes to a function that takes only 1000 and 3000 to 4999, so 1009 and 1012 would raise and the
socket would stay open; and it refuses an upgrade with a bare 403, where one official client reads the reason as JSON
from the answer's body.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

DENIAL_EXTENSION = "websocket.http.response"


class Protocol(WebSocketProtocol):  # type: ignore[misc]
    maxMessagePayloadSize: int  # noqa: N815  (autobahn's)
    _denial: dict[str, Any] | None = None

    def sendMessage(self, *args: Any, **options: Any) -> None:  # noqa: N802
        """The limit is for what clients send; autobahn would apply it to our answers too, and drop the long ones."""
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*args, **options)
        finally:
            self.maxMessagePayloadSize = limit

    def handle_reply(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.close" and self.state == self.STATE_OPEN:
            self.sendCloseFrame(code=message.get("code") or 1000, reasonUtf8=(message.get("reason") or "").encode())
        elif kind == f"{DENIAL_EXTENSION}.start":
            self._denial = message
        elif kind == f"{DENIAL_EXTENSION}.body":
            self._deny(message["body"])
        else:
            super().handle_reply(message)

    def _deny(self, body: bytes) -> None:
        start = self._denial or {"status": 403, "headers": []}
        lines = [f"HTTP/1.1 {start['status']} {HTTPStatus(start['status']).phrase}".encode()]
        lines += [name + b": " + value for name, value in start["headers"]]
        lines += [b"content-length: %d" % len(body), b"connection: close", b"", body]
        self.sendData(b"\r\n".join(lines))
        # Without this the upgrade's own time-out would answer a second time.
        del self.handshake_deferred
        self.server.protocol_disconnected(self)
        self.dropConnection(abort=False)


def install() -> None:
    """Make every Daphne server of this process use the protocol above."""
    WebSocketFactory.protocol = Protocol


def with_denial(application: Any) -> Any:
    """Announce the extension to the application, as the ASGI specification asks."""

    async def announced(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scope["extensions"] = {**scope.get("extensions", {}), DENIAL_EXTENSION: {}}
        await application(scope, receive, send)

    return announced
