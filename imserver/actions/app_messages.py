"""What only app servers do with messages: one to many users, business notifications, asking what became of one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import md5

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from imserver.actions import send
from imserver.actions.groups import check_group_send
from imserver.actions.notify import build_notification
from imserver.actions.outgoing import MAX_OPERATION_ID_CHARS, do_send
from imserver.constants import ContentType, MsgStatus, Option, SessionType
from imserver.errors import ArgsError, IMError
from imserver.protocol.gen.msg_pb2 import SendMsgResp
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.storage import keys
from imserver.storage.clients import get_async_mongo, get_async_redis
from imserver.storage.users import Users

logger = logging.getLogger(__name__)

MOST_RECEIVERS = 1000
#: Receivers whose messages are on their way at the same time.
AT_ONCE = 100


# -- one to many


def check_many(msg: MsgData, recv_ids: list[str], *, is_to_all: bool) -> None:
    """Raises ArgsError."""
    if msg.sessionType not in (SessionType.SINGLE, SessionType.NOTIFICATION):
        raise ArgsError("only messages to users (sessionType 1 or 4) are sent to many")
    if not is_to_all and not 1 <= len(recv_ids) <= MOST_RECEIVERS:
        raise ArgsError(f"recvIDs must be 1 to {MOST_RECEIVERS}, or isSendAll true")


async def do_send_many(
    msg: MsgData, recv_ids: list[str], operation_id: str, *, is_to_all: bool
) -> tuple[dict[str, SendMsgResp], list[str]]:
    """The answers by receiver, and the receivers to whom it could not be sent. Nobody gets it twice.

    Args:
        is_to_all: to everybody but the sender who is registered, in place of ``recv_ids``.
    """
    sent: dict[str, SendMsgResp] = {}
    failed: list[str] = []
    async for part in _parts(list(dict.fromkeys(recv_ids)), msg.sendID, is_to_all=is_to_all):
        answers = await asyncio.gather(*(_send_to(msg, recv_id, operation_id) for recv_id in part))
        for recv_id, answer in zip(part, answers, strict=True):
            if answer is None:
                failed.append(recv_id)
            else:
                sent[recv_id] = answer
    return sent, failed


async def _parts(recv_ids: list[str], sender_id: str, *, is_to_all: bool) -> AsyncIterator[list[str]]:
    if not is_to_all:
        for at in range(0, len(recv_ids), AT_ONCE):
            yield recv_ids[at : at + AT_ONCE]
        return
    users = Users(get_async_mongo())
    ids = await users.ids_after("", AT_ONCE)
    while ids:
        yield [user_id for user_id in ids if user_id != sender_id]
        ids = await users.ids_after(ids[-1], AT_ONCE)


async def _send_to(template: MsgData, recv_id: str, operation_id: str) -> SendMsgResp | None:
    """None: it could not be sent."""
    msg = MsgData()
    msg.CopyFrom(template)
    msg.recvID = recv_id
    if template.clientMsgID:
        # A message has one receiver, and an id names one message.
        msg.clientMsgID = md5(f"{template.clientMsgID} {recv_id}".encode(), usedforsecurity=False).hexdigest()
    try:
        return SendMsgResp.FromString(await (await send.submit(msg, msg.sendID, operation_id, entrance="rest")))
    except (IMError, PyMongoError, RedisError) as error:
        facts = {"action": "send_many", "operation_id": operation_id, "error": repr(error)[:300]}
        logger.info("not sent to one of many", extra=facts)
        return None


# -- business notifications


@dataclass(frozen=True, slots=True)
class BusinessNotice:
    """To a user or to a group. ``key`` and ``data`` are the app's own."""

    key: str
    data: str
    send_id: str
    recv_id: str
    group_id: str
    is_stored: bool
    is_send_msg: bool

    def build(self) -> MsgData:
        msg = build_notification(
            ContentType.BUSINESS_NOTIFICATION,
            {"key": self.key, "data": self.data},
            send_id=self.send_id,
            recv_id=self.group_id or self.recv_id,
            session_type=SessionType.GROUP if self.group_id else SessionType.SINGLE,
            is_stored=self.is_stored,
            is_send_msg=self.is_send_msg,
        )
        # The chat's copy is no message that anybody waits for.
        msg.options[Option.UNREAD_COUNT] = False
        return msg


async def check_business_notice(notice: BusinessNotice) -> None:
    """Raises ArgsError, RecordNotFound, GroupDismissed."""
    if not notice.send_id:
        raise ArgsError("sendUserID is empty")
    if bool(notice.recv_id) == bool(notice.group_id):
        raise ArgsError("give recvUserID or recvGroupID, and not both")
    msg = notice.build()
    if msg.ByteSize() > send.MAX_MSG_BYTES:
        raise ArgsError(f"the notification is larger than {send.MAX_MSG_BYTES} bytes")
    await send.check_user_exists(notice.send_id)
    if notice.group_id:
        await check_group_send(msg)
    else:
        await send.check_user_exists(notice.recv_id)


async def do_send_business_notice(notice: BusinessNotice, operation_id: str) -> SendMsgResp:
    """Raises ServerBusy, StorageUnavailable."""
    return SendMsgResp.FromString(await do_send(notice.build(), operation_id, entrance="notification"))


# -- what became of a message


async def note_status(operation_id: str, status: MsgStatus) -> None:
    """Keep what became of a message; the message itself is as it is when that fails."""
    key = keys.send_status(operation_id[:MAX_OPERATION_ID_CHARS])
    try:
        await get_async_redis().set(key, int(status), ex=keys.SEND_STATUS_TTL_SECONDS)
    except RedisError as error:
        facts = {"action": "send_status", "operation_id": operation_id[:MAX_OPERATION_ID_CHARS]}
        logger.warning("status of a message not kept", extra={**facts, "error": type(error).__name__})


async def get_status(operation_id: str) -> int:
    """A MsgStatus, 0 when nothing is known. Raises redis.RedisError."""
    value = await get_async_redis().get(keys.send_status(operation_id[:MAX_OPERATION_ID_CHARS]))
    return int(value or 0)
