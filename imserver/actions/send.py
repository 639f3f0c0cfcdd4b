"""Sending: everything that can be wrong with a message is found here, before it is in a log."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import cache

from cachetools import TTLCache

from imserver import metrics
from imserver.actions.append import get_appender
from imserver.clock import now_ms
from imserver.constants import NOTIFICATION_BEGIN, NOTIFICATION_END, ContentType, MsgStatus, Option, SessionType
from imserver.errors import ArgsError, NoPermission, RecordNotFound
from imserver.protocol.conversations import conversation_key_of
from imserver.protocol.gen.msg_pb2 import SendMsgResp
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import force_options
from imserver.storage.clients import get_async_mongo
from imserver.storage.logs import Append
from imserver.storage.users import Users

MAX_CLIENT_MSG_ID_CHARS = 256
MAX_OPERATION_ID_CHARS = 256
#: A hundred messages share a document of 16 MiB.
MAX_MSG_BYTES = 120_000

#: The only ones of the notification range that a client may send itself.
_CLIENT_NOTIFICATIONS = (ContentType.OA_NOTIFICATION, ContentType.HAS_READ_RECEIPT)

#: Users that were seen to exist: an existing user does not go away, so only time bounds it.
_KNOWN_USERS = 100_000
_KNOWN_USER_SECONDS = 300


@cache
def _known_users() -> TTLCache[str, bool]:
    return TTLCache(maxsize=_KNOWN_USERS, ttl=_KNOWN_USER_SECONDS)


async def submit(msg: MsgData, sender_id: str, operation_id: str, *, entrance: str) -> asyncio.Future[bytes]:
    """Check a message and put it on its way; the future gives the serialized SendMsgResp.

    Args:
        msg: is changed: server id, send time, status and forced options are filled in.
        sender_id: the authenticated user.
        entrance: for the metrics, ``ws`` or ``rest``.

    Raises:
        IMError: the message is refused, nothing was appended. The future may raise ServerBusy, StorageUnavailable.
    """
    await check_send(msg, sender_id)
    return do_send(msg, operation_id, entrance=entrance)


async def check_send(msg: MsgData, sender_id: str) -> None:
    """Raises ArgsError, NoPermission, RecordNotFound."""
    if msg.sendID != sender_id:
        raise NoPermission("sendID is not the connected user") if msg.sendID else ArgsError("sendID is empty")
    if not msg.content:
        raise ArgsError("content is empty")
    if len(msg.clientMsgID) > MAX_CLIENT_MSG_ID_CHARS:
        raise ArgsError(f"clientMsgID is longer than {MAX_CLIENT_MSG_ID_CHARS} characters")
    if (msg.sessionType == SessionType.NOTIFICATION) != (msg.contentType == ContentType.OA_NOTIFICATION):
        raise ArgsError("sessionType 4 goes with contentType 1400, and only with it")
    if msg.ByteSize() > MAX_MSG_BYTES:
        raise ArgsError(f"the message is larger than {MAX_MSG_BYTES} bytes")
    if NOTIFICATION_BEGIN <= msg.contentType <= NOTIFICATION_END and msg.contentType not in _CLIENT_NOTIFICATIONS:
        raise ArgsError(f"contentType {msg.contentType} is the server's to send")
    await _CHECKS.get(msg.sessionType, _check_unknown)(msg)


async def _check_single(msg: MsgData) -> None:
    if not msg.recvID:
        raise ArgsError("recvID is empty")
    await check_user_exists(msg.recvID)


async def _check_group(msg: MsgData) -> None:
    if not msg.groupID:
        raise ArgsError("groupID is empty")
    raise RecordNotFound(f"group {msg.groupID} does not exist")


async def _check_unknown(msg: MsgData) -> None:
    raise ArgsError(f"unknown sessionType {msg.sessionType}; use 1 (single), 3 (group) or 4 (notification)")


_CHECKS: dict[int, Callable[[MsgData], Awaitable[None]]] = {
    SessionType.SINGLE: _check_single,
    SessionType.NOTIFICATION: _check_single,
    SessionType.GROUP: _check_group,
}


async def check_user_exists(user_id: str) -> None:
    """Raises RecordNotFound. Existing users are remembered for some minutes, unknown ones are not."""
    known = _known_users()
    if user_id in known:
        return
    if not await Users(get_async_mongo()).exists(user_id):
        raise RecordNotFound(f"user {user_id} is not registered")
    known[user_id] = True


def do_send(msg: MsgData, operation_id: str, *, entrance: str) -> asyncio.Future[bytes]:
    """Complete a checked message and append it."""
    msg.serverMsgID = secrets.token_hex(16)
    if msg.sendTime <= 0:
        msg.sendTime = now_ms()
    if not msg.clientMsgID:
        msg.clientMsgID = secrets.token_hex(16)
    if msg.status in (0, MsgStatus.SENDING):
        msg.status = MsgStatus.SUCCESS
    msg.seq = 0
    force_options(msg)
    if msg.contentType == ContentType.HAS_READ_RECEIPT:
        msg.options[Option.IS_NOT_NOTIFICATION] = False
    answer = SendMsgResp(serverMsgID=msg.serverMsgID, clientMsgID=msg.clientMsgID, sendTime=msg.sendTime)
    metrics.APPENDED.labels(entrance).inc()
    return get_appender().submit(
        Append(
            key=conversation_key_of(msg),
            send_id=msg.sendID,
            client_msg_id=msg.clientMsgID,
            msg=msg.SerializeToString(),
            operation_id=operation_id[:MAX_OPERATION_ID_CHARS],
            answer=answer.SerializeToString(),
        )
    )
