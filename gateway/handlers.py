"""reqIdentifier -> action: one table. A session is what a connection's requests share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from gateway import close
from gateway.codecs.base import Request, Response
from gateway.connections import Connection
from gateway.node import get_node
from gateway.subscriptions import encode_tips
from imserver.actions import device_tokens, pull, send
from imserver.actions.failures import as_im_error
from imserver.constants import ReqIdentifier
from imserver.errors import ArgsError, InternalError, NoPermission
from imserver.protocol.gen import msg_pb2, push_pb2, sdkws_pb2

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

#: Sends of one connection that may be on their way to the log at once; the next is not looked at before one is through.
MOST_SENDS_IN_FLIGHT = 64


class Session:
    """Handles one connection's requests, in order.

    A send is only submitted here; its answer follows when the append is done. So a client that sends many messages at
    once has them appended together. Any other request first waits for the sends before it.
    """

    __slots__ = ("_connection", "_in_flight")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._in_flight: set[asyncio.Future[bytes]] = set()

    async def handle(self, request: Request) -> None:
        if request.req_identifier == ReqIdentifier.SEND_MSG:
            await self._send(request)
            return
        handler = HANDLERS.get(request.req_identifier)
        if handler is None:
            self._connection.close(close.UNKNOWN_REQUEST)
            return
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        try:
            data = await handler(self._connection, request)
        except Exception as error:  # noqa: BLE001  (every request is answered, whatever happened)
            self._connection.answer(self._failure(request, error))
        else:
            self._connection.answer(_answer(request, data))
        if request.req_identifier == ReqIdentifier.LOGOUT:
            self._connection.close(close.LOGGED_OUT)

    async def _send(self, request: Request) -> None:
        if len(self._in_flight) >= MOST_SENDS_IN_FLIGHT:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        connection = self._connection
        try:
            msg = _parse(sdkws_pb2.MsgData, request)
            future = await send.submit(msg, connection.user_id, request.operation_id, entrance="ws")
        except Exception as error:  # noqa: BLE001  (as above: a send is answered too)
            connection.answer(self._failure(request, error))
            return
        connection.expect_answer(request.operation_id)
        self._in_flight.add(future)

        def finish(done: asyncio.Future[bytes]) -> None:
            self._in_flight.discard(done)
            error = done.exception()
            answer = self._failure(request, error) if error is not None else _answer(request, done.result())
            connection.answer(answer, expected=True)

        future.add_done_callback(finish)

    def _failure(self, request: Request, error: BaseException) -> Response:
        known = as_im_error(error)
        level = logging.ERROR if isinstance(known, InternalError) else logging.INFO
        logger.log(
            level,
            "request failed",
            extra={
                "action": "request",
                "operation_id": request.operation_id,
                "user_id": self._connection.user_id,
                "req_identifier": request.req_identifier,
                "code": known.code,
                "detail": known.detail,
            },
            exc_info=error if isinstance(known, InternalError) else None,
        )
        return Response(
            request.req_identifier,
            msg_incr=request.msg_incr,
            operation_id=request.operation_id,
            err_code=known.code,
            err_msg=f"{known.name}: {known.detail}" if known.detail else known.name,
        )


def _answer(request: Request, data: bytes) -> Response:
    return Response(request.req_identifier, msg_incr=request.msg_incr, operation_id=request.operation_id, data=data)


def _parse(message_type: type[M], request: Request) -> M:
    try:
        return message_type.FromString(request.data)
    except DecodeError as error:
        raise ArgsError(f"data is not a {message_type.DESCRIPTOR.name}") from error


def _own(user_id: str, connection: Connection) -> str:
    """The user a request is about: the connection's, which an empty field stands for too."""
    if user_id and user_id != connection.user_id:
        raise NoPermission("userID is not the connected user")
    return connection.user_id


async def _get_newest_seq(connection: Connection, request: Request) -> bytes:
    message = _parse(sdkws_pb2.GetMaxSeqReq, request)
    user_id = _own(message.userID, connection)
    await get_node().tails.note_sync(connection)
    return (await pull.get_max_seqs(user_id)).SerializeToString()


async def _pull_by_range(connection: Connection, request: Request) -> bytes:
    message = _parse(sdkws_pb2.PullMessageBySeqsReq, request)
    return await pull.pull_by_ranges(_own(message.userID, connection), message)


async def _pull_by_seq_list(connection: Connection, request: Request) -> bytes:
    message = _parse(msg_pb2.GetSeqMessageReq, request)
    return await pull.pull_by_seq_lists(_own(message.userID, connection), message)


async def _get_read_and_max_seqs(connection: Connection, request: Request) -> bytes:
    message = _parse(msg_pb2.GetConversationsHasReadAndMaxSeqReq, request)
    return (await pull.get_read_and_max_seqs(_own(message.userID, connection), message)).SerializeToString()


async def _get_last_message(connection: Connection, request: Request) -> bytes:
    message = _parse(msg_pb2.GetLastMessageReq, request)
    return (await pull.get_last_messages(_own(message.userID, connection), message)).SerializeToString()


async def _logout(connection: Connection, request: Request) -> bytes:
    """The platform gets no offline pushes any more. The token stays good: the app may log in with it again."""
    message = _parse(push_pb2.DelUserPushTokenReq, request)
    _own(message.userID, connection)
    await device_tokens.forget_token(connection.user_id, message.platformID or connection.platform_id)
    return b""


async def _set_background(connection: Connection, request: Request) -> bytes:
    message = _parse(sdkws_pb2.SetAppBackgroundStatusReq, request)
    _own(message.userID, connection)
    await get_node().set_background(connection, message.isBackground)
    return b""


async def _subscribe_online_status(connection: Connection, request: Request) -> bytes:
    """Answers how things stand now; changes from then on are pushed."""
    message = _parse(sdkws_pb2.SubUserOnlineStatus, request)
    subscriptions = get_node().subscriptions
    platforms = await subscriptions.change(connection, list(message.subscribeUserID), list(message.unsubscribeUserID))
    return encode_tips(platforms)


Handler = Callable[[Connection, Request], Awaitable[bytes]]

HANDLERS: dict[int, Handler] = {
    ReqIdentifier.GET_NEWEST_SEQ: _get_newest_seq,
    ReqIdentifier.PULL_MSG_BY_RANGE: _pull_by_range,
    ReqIdentifier.PULL_MSG_BY_SEQ_LIST: _pull_by_seq_list,
    ReqIdentifier.GET_CONV_MAX_READ_SEQ: _get_read_and_max_seqs,
    ReqIdentifier.GET_LAST_MESSAGE: _get_last_message,
    ReqIdentifier.LOGOUT: _logout,
    ReqIdentifier.SET_BACKGROUND: _set_background,
    ReqIdentifier.SUB_USER_ONLINE_STATUS: _subscribe_online_status,
}
