"""The life of one socket: handshake, decode, hand to an action, encode, close. No business rules.

Overrides two costs of Channels' consumer: the hop to a thread before each event (it closes ORM connections, of which
there are none here) and the channel of its own (the node's dispatcher writes to connections directly).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from gateway import close, handlers
from gateway.codecs import gzip_compressor
from gateway.codecs.base import CodecError, Request, Response
from gateway.connections import Connection
from gateway.handshake import (
    Handshake,
    HandshakeRefused,
    accept_handshake,
    check_node_connections,
    check_user_connections,
    result_json,
)
from gateway.node import get_node
from gateway.rates import RequestRate, Verdict
from imserver import metrics
from imserver.actions import presence
from imserver.conf import get_config
from imserver.errors import TooManyRequests
from imserver.server_limits import WRITE_NOW_EXTENSION

logger = logging.getLogger(__name__)


class GatewayConsumer(AsyncConsumer):  # type: ignore[misc]
    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        self.base_send = send
        self.connection: Connection | None = None
        self.session: handlers.Session | None = None
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        finally:
            if self.connection is not None:
                await asyncio.shield(get_node().leave(self.connection))

    async def dispatch(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        try:
            if kind == "websocket.receive":
                if self.connection is not None and self.connection.is_crowded:
                    await self.connection.relief()
                await self.websocket_receive(message)
            elif kind == "websocket.connect":
                await self.websocket_connect()
            elif kind == "websocket.disconnect":
                if self.connection is not None:
                    self.connection.lost(message.get("code"))
                raise StopConsumer
        except StopConsumer:
            raise
        except Exception as error:
            logger.error("connection failed", extra={"action": "connection"}, exc_info=error)
            if self.connection is None:
                await self.base_send({"type": "websocket.close", "code": close.INTERNAL_ERROR.code})
                raise StopConsumer from error
            self.connection.close(close.INTERNAL_ERROR)

    # -- connect

    async def websocket_connect(self) -> None:
        node, config = get_node(), get_config()
        try:
            await node.until_running()
            handshake = await accept_handshake(self.scope, len(node.connections), config.max_connections)
            routes = (await presence.get_connections([handshake.user_id]))[handshake.user_id]
            # Others may have come while the token was looked up. From here to the table there is no waiting.
            check_node_connections(len(node.connections), config.max_connections)
            check_user_connections(
                handshake,
                # This node's table is ahead of the routes: of two that come at once, the second sees the first.
                node.connections.count_of_user(handshake.user_id)
                + sum(1 for route in routes if route.node != node.name),
                config.max_connections_per_user,
            )
        except HandshakeRefused as refused:
            await self._refuse(refused)
            raise StopConsumer from refused
        if node.is_draining or not node.is_running:
            await self.base_send({"type": "websocket.close", "code": close.RESTART.code})
            raise StopConsumer
        connection = Connection(
            self.base_send,
            user_id=handshake.user_id,
            platform_id=handshake.platform_id,
            token=handshake.token,
            codec=handshake.codec,
            is_compressed=handshake.is_compressed,
            queue_frames=config.send_queue_frames,
            queue_bytes=config.send_queue_bytes,
            shows_repeats=handshake.shows_repeats,
            write_now=(self.scope.get("extensions") or {}).get(WRITE_NOW_EXTENSION),
        )
        node.connections.add(connection)
        self.connection = connection
        self.session = handlers.Session(connection)
        self.rate = RequestRate(connection.user_id, config.requests_per_second, config.requests_per_second_per_user)
        if handshake.wants_result:
            connection.send_text(result_json())
        try:
            await self.base_send({"type": "websocket.accept"})
        except OSError as error:  # gone already
            raise StopConsumer from error
        connection.start()
        # A connection lives for days; what it was opened with (headers, query, token) need not.
        self.scope.clear()
        await self._join(connection, handshake)

    async def _join(self, connection: Connection, handshake: Handshake) -> None:
        kicked = await get_node().join(connection, handshake.operation_id)
        logger.info(
            "connected",
            extra={
                "action": "connect",
                "operation_id": handshake.operation_id,
                "user_id": connection.user_id,
                "platform_id": connection.platform_id,
                "codec": connection.codec.name,
                "kicked": kicked,
            },
        )
        if not connection.shows_repeats:
            await get_node().tails.expect_sync(connection, handshake.operation_id)

    async def _refuse(self, refused: HandshakeRefused) -> None:
        """A client that asked for a text frame gets one; the others get the JSON as the upgrade's HTTP answer."""
        error = refused.error
        logger.info("handshake refused", extra={"action": "connect", "code": error.code, "detail": error.detail})
        text = result_json(error)
        if refused.in_frame:
            await self.base_send({"type": "websocket.accept"})
            await self.base_send({"type": "websocket.send", "text": text})
            await self.base_send({"type": "websocket.close", "code": close.HANDSHAKE_REFUSED.code})
        elif "websocket.http.response" in (self.scope.get("extensions") or {}):
            headers = [(b"content-type", b"application/json; charset=utf-8")]
            await self.base_send({"type": "websocket.http.response.start", "status": 200, "headers": headers})
            await self.base_send({"type": "websocket.http.response.body", "body": text.encode()})
        else:
            # A server without the extension answers a bare 403, and a client that reads the body tries for ever.
            await self.base_send({"type": "websocket.close", "code": close.HANDSHAKE_REFUSED.code})

    # -- receive

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        connection, session = self.connection, self.session
        if connection is None or session is None or connection.is_leaving:
            return
        metrics.FRAMES_RECEIVED.inc()
        verdict = await self.rate.ask()
        if verdict is Verdict.CLOSE:
            connection.close(close.TOO_MANY_REQUESTS)
            return
        frame: bytes | None = message.get("bytes")
        if frame is None:
            text: str = message.get("text") or ""
            if self._is_control_text(connection, text, is_answered=verdict is Verdict.ADMIT):
                return
            frame = text.encode()
        if len(frame) > get_config().max_frame_bytes:
            connection.close(close.FRAME_TOO_BIG)
            return
        request = self._decode(connection, frame)
        if request is None:
            return
        if verdict is Verdict.REFUSE:
            connection.answer(_too_many(request))
            return
        connection.is_handling = True
        try:
            await session.handle(request)
        finally:
            connection.handled()

    def _is_control_text(self, connection: Connection, text: str, *, is_answered: bool) -> bool:
        """Text pings, and everything else that is not a request; true when nothing is left to do."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "ping" and not is_answered:
            return True
        if kind == "ping":
            try:
                connection.send_text(orjson.dumps({"type": "pong", "body": value.get("body")}).decode())
            except orjson.JSONEncodeError:  # nested deeper than it writes
                connection.close(close.BAD_FRAME)
            return True
        if kind == "pong":
            return True
        if connection.codec.is_text:
            return False
        connection.close(close.BAD_FRAME)
        return True

    def _decode(self, connection: Connection, frame: bytes) -> Request | None:
        try:
            if connection.is_compressed:
                frame = gzip_compressor.decompress(frame, get_config().max_message_bytes)
            request = connection.codec.decode_request(frame)
        except CodecError as error:
            logger.info(
                "frame not understood", extra={"action": "decode", "user_id": connection.user_id, "error": str(error)}
            )
            connection.close(close.BAD_FRAME)
            return None
        if request.send_id != connection.user_id:
            connection.close(close.WRONG_SENDER)
            return None
        return request


def _too_many(request: Request) -> Response:
    error = TooManyRequests("send more slowly")
    return Response(
        request.req_identifier,
        msg_incr=request.msg_incr,
        operation_id=request.operation_id,
        err_code=error.code,
        err_msg=f"{error.name}: {error.detail}",
    )
