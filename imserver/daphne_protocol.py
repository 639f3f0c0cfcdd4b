"""What Daphne leaves out and our clients need.

Any close code with its reason: Daphne hands close codes to a function that takes only 1000 and 3000 to 4999, so 1009 and
1012 would raise and the socket would stay open. An HTTP answer to a refused upgrade: Daphne sends a bare 403, where one
official client reads the reason as JSON from the body. Back-pressure both ways, and time-outs. An end that finishes requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any

from daphne import http_protocol
from daphne import server as daphne_server
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

from imserver.conf import get_config
from imserver.constants import SLOW_READER_CODE
from imserver.http_pacing import PacedRequest, paced
from imserver.server_limits import KEEP_ALIVE_SECONDS, MAX_HEADER_BYTES

logger = logging.getLogger(__name__)

DENIAL_EXTENSION = "websocket.http.response"
#: Where the scope carries the protocol object on its way to ``with_flow_control``.
PROTOCOL_KEY = "imserver.protocol"
#: Messages that wait for the application when reading stops, and when it goes on.
MOST_UNREAD, FEW_UNREAD = 32, 8
POLL_SECONDS = 0.05


class Request(PacedRequest, http_protocol.WebRequest):  # type: ignore[misc]
    """Its headers must be complete within HANDSHAKE_SECONDS, however slowly they trickle in."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._began = time.monotonic()
        self._has_headers = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        self._has_headers = True
        super().gotLength(length)

    def process(self) -> Any:
        # Nobody is refused for where a page came from; autobahn would refuse what it cannot parse.
        self.requestHeaders.removeHeader(b"origin")
        # What Twisted goes back to when the request is done; the time for headers is looked after below.
        self.channel._savedTimeOut = KEEP_ALIVE_SECONDS
        return super().process()

    def check_timeouts(self) -> None:
        # Without a channel the connection is gone already.
        is_late = not self._has_headers and time.monotonic() - self._began > get_config().handshake_seconds
        if is_late and self.channel is not None:
            logger.info("request not finished in time", extra={"action": "handshake"})
            self.channel.transport.abortConnection()
        elif not is_late:
            super().check_timeouts()


class Protocol(WebSocketProtocol):  # type: ignore[misc]
    maxMessagePayloadSize: int  # noqa: N815  (autobahn's)
    application_queue: asyncio.Queue[dict[str, Any]]
    _denial: dict[str, Any] | None = None
    _is_reading = True
    _writable: asyncio.Event | None = None
    _unsent_pong: bytes | None = None
    _stalled_bytes = -1
    _stalled_at = 0.0

    def connectionMade(self) -> None:  # noqa: N802
        super().connectionMade()
        # The HTTP channel is still the one that hears of a full write buffer; it would stop reading, and not tell us.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)

    # -- reading

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        super().onMessage(payload, isBinary)
        if self._is_reading and self.application_queue.qsize() >= MOST_UNREAD:
            self._is_reading = False
            self.transport.pauseProducing()

    async def receive_paced(self) -> dict[str, Any]:
        event = await self.application_queue.get()
        if not self._is_reading and self.application_queue.qsize() <= FEW_UNREAD:
            self._is_reading = True
            self.transport.resumeProducing()
        return event

    def onPing(self, payload: bytes) -> None:  # noqa: N802
        if self._writable is None:
            super().onPing(payload)
        else:
            # Who pings without reading must not fill our memory with pongs; the protocol asks for the last one only.
            self._unsent_pong = payload

    # -- writing: Twisted calls these when its buffer is full, and when it is empty again

    def pauseProducing(self) -> None:  # noqa: N802
        if self._writable is None:
            self._writable = asyncio.Event()

    def resumeProducing(self) -> None:  # noqa: N802
        if self.transport.disconnecting:
            # A registered producer would keep the connection open.
            self.transport.unregisterProducer()
        self.stopProducing()
        if self._unsent_pong is not None:
            payload, self._unsent_pong = self._unsent_pong, None
            self.sendPong(payload)

    def stopProducing(self) -> None:  # noqa: N802
        waited, self._writable, self._stalled_bytes = self._writable, None, -1
        if waited is not None:
            waited.set()

    async def writable(self) -> None:
        while self._writable is not None:
            await self._writable.wait()

    def check_timeouts(self) -> None:
        if self._writable is None:
            super().check_timeouts()
            return
        # A pong would have to wait behind what the client has yet to read, so there is no ping meanwhile.
        transport, now = self.transport, time.monotonic()
        left = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        if left != self._stalled_bytes:
            self._stalled_bytes, self._stalled_at = left, now
        elif now - self._stalled_at > get_config().send_stall_seconds:
            self.application_queue.put_nowait({"type": "websocket.disconnect", "code": SLOW_READER_CODE})
            self.dropConnection(abort=True)

    def sendMessage(self, *args: Any, **options: Any) -> None:  # noqa: N802
        """The limit is for what clients send; autobahn would apply it to our answers too, and drop the long ones."""
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*args, **options)
        finally:
            self.maxMessagePayloadSize = limit

    # -- closing and refusing

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


class Server(daphne_server.Server):  # type: ignore[misc]
    """Can stop letting people in, and wait until those who are served have got all."""

    connections: dict[Any, dict[str, Any]]
    _ports: tuple[Any, ...] = ()

    def listen_success(self, port: Any) -> None:
        self._ports += (port,)
        super().listen_success(port)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        scope[PROTOCOL_KEY] = protocol
        return super().create_application(protocol, scope)

    async def stop_listening(self) -> None:
        for port in self._ports:
            port.stopListening()

    async def finish_requests(self, seconds: float) -> None:
        """Wait until every HTTP request has its answer and every byte is written, ``seconds`` at most."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (  # noqa: ASYNC110  (Twisted does not say when it has written all)
            self._is_answering() or daphne_server.reactor.getWriters()
        ):
            await asyncio.sleep(POLL_SECONDS)

    def _is_answering(self) -> bool:
        return any(
            isinstance(protocol, Request) and "application_instance" in details and "disconnected" not in details
            for protocol, details in self.connections.items()
        )

    def kill_all_applications(self) -> Any:
        # A request whose headers were not complete has no application, which Daphne does not expect here.
        self.connections = {
            protocol: details for protocol, details in self.connections.items() if "application_instance" in details
        }
        return super().kill_all_applications()


def install() -> None:
    """Make every Daphne server of this process use the protocols above."""
    WebSocketFactory.protocol = Protocol
    http_protocol.WebRequest = Request
    http_protocol.http.HTTPChannel.totalHeadersSize = MAX_HEADER_BYTES


def with_flow_control(application: Any) -> Any:
    """Let a full buffer hold up the application, and a busy application the client. Announces the denial extension, as the
    ASGI specification asks."""

    async def run(scope: dict[str, Any], receive: Any, send: Any) -> None:
        protocol = scope.pop(PROTOCOL_KEY)
        if scope["type"] != "websocket":
            await application(scope, receive, paced(protocol, send))
            return
        scope["extensions"] = {**scope.get("extensions", {}), DENIAL_EXTENSION: {}}

        async def send_paced(event: dict[str, Any]) -> None:
            await protocol.writable()
            await send(event)

        await application(scope, protocol.receive_paced, send_paced)

    return run
