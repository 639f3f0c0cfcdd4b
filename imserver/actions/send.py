"""Sending: everything that can be wrong with a message is found here, before it is in a log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from imserver.actions import mentions
from imserver.actions.groups import check_group_send
from imserver.actions.outgoing import complete, hand_over
from imserver.actions.single_checks import check_single, get_facts
from imserver.constants import NOTIFICATION_BEGIN, NOTIFICATION_END, ContentType, SessionType
from imserver.errors import ArgsError, NoPermission
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.options import force_options
from imserver.webhooks import policy

MAX_CLIENT_MSG_ID_CHARS = 256
MAX_OPTION_CHARS = 64
#: An entry costs more in MongoDB than on the wire.
MAX_MENTIONS = 1000
#: A hundred messages share a document of 16 MiB.
MAX_MSG_BYTES = 120_000

#: The only ones of the notification range that a client may send itself.
_CLIENT_NOTIFICATIONS = (ContentType.OA_NOTIFICATION, ContentType.HAS_READ_RECEIPT)


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
    complete(msg)
    is_modified = await policy.before_send(msg, operation_id)
    if is_modified:
        await check_send(msg, sender_id)
        force_options(msg)
    appended = hand_over(msg, operation_id, entrance=entrance, is_modified=is_modified)
    mentions.follow(msg, operation_id, appended)
    return appended


async def check_send(msg: MsgData, sender_id: str) -> None:
    """Raises ArgsError, NoPermission, RecordNotFound, and what the check of the session type raises."""
    if msg.sendID != sender_id:
        raise NoPermission("sendID is not the connected user") if msg.sendID else ArgsError("sendID is empty")
    if not msg.content:
        raise ArgsError("content is empty")
    if len(msg.clientMsgID) > MAX_CLIENT_MSG_ID_CHARS:
        raise ArgsError(f"clientMsgID is longer than {MAX_CLIENT_MSG_ID_CHARS} characters")
    if (msg.sessionType == SessionType.NOTIFICATION) != (msg.contentType == ContentType.OA_NOTIFICATION):
        raise ArgsError("sessionType 4 goes with contentType 1400, and only with it")
    if len(msg.atUserIDList) > MAX_MENTIONS or "" in msg.atUserIDList:
        raise ArgsError(f"atUserIDList names at most {MAX_MENTIONS} users, none of them empty")
    for option in msg.options:
        if not (option.isascii() and option.isalnum() and len(option) <= MAX_OPTION_CHARS):
            raise ArgsError("option names are letters and digits")
    if msg.ByteSize() > MAX_MSG_BYTES:
        raise ArgsError(f"the message is larger than {MAX_MSG_BYTES} bytes")
    if NOTIFICATION_BEGIN <= msg.contentType <= NOTIFICATION_END and msg.contentType not in _CLIENT_NOTIFICATIONS:
        raise ArgsError(f"contentType {msg.contentType} is the server's to send")
    await _CHECKS.get(msg.sessionType, _check_unknown)(msg)


async def _check_unknown(msg: MsgData) -> None:
    raise ArgsError(f"unknown sessionType {msg.sessionType}; use 1 (single), 3 (group) or 4 (notification)")


_CHECKS: dict[int, Callable[[MsgData], Awaitable[None]]] = {
    SessionType.SINGLE: check_single,
    SessionType.NOTIFICATION: check_single,
    SessionType.GROUP: check_group_send,
}


async def check_user_exists(user_id: str) -> None:
    """Raises RecordNotFound."""
    await get_facts(user_id)
