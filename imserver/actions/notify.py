"""Notifications: messages of the server about events. They go through the same log, so their order is the chat's."""

from __future__ import annotations

import secrets

import orjson
from google.protobuf.message import Message

from imserver.actions.send import do_send
from imserver.clock import now_ms
from imserver.constants import ContentType, MsgFrom, Option, SessionType
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.protocol.json_mapping import to_json

_OFF = (
    Option.IS_NOT_NOTIFICATION,
    Option.IS_SEND_MSG,
    Option.HISTORY,
    Option.PERSISTENT,
    Option.OFFLINE_PUSH,
    Option.UNREAD_COUNT,
    Option.CONVERSATION_UPDATE,
    Option.NOT_PRIVATE,
    Option.SENDER_CONVERSATION_UPDATE,
    Option.REACTION_FROM_CACHE,
)


def build_notification(
    content_type: ContentType,
    tips: Message,
    *,
    send_id: str,
    recv_id: str,
    session_type: SessionType,
    is_stored: bool,
) -> MsgData:
    """A notification: its content is JSON that holds the tips as JSON text."""
    options = {Option.SENDER_SYNC: True, **dict.fromkeys(_OFF, False)}
    if is_stored:
        options[Option.HISTORY] = options[Option.PERSISTENT] = True
    now = now_ms()
    return MsgData(
        sendID=send_id,
        recvID=recv_id,
        groupID=recv_id if session_type == SessionType.GROUP else "",
        clientMsgID=secrets.token_hex(16),
        sessionType=session_type,
        msgFrom=MsgFrom.SYSTEM,
        contentType=content_type,
        content=orjson.dumps({"detail": orjson.dumps(to_json(tips)).decode()}),
        createTime=now,
        sendTime=now,
        options=options,
    )


async def send_notification(
    content_type: ContentType,
    tips: Message,
    *,
    send_id: str,
    recv_id: str,
    session_type: SessionType,
    operation_id: str,
    is_stored: bool = False,
) -> None:
    """Append a notification. Raises ServerBusy, StorageUnavailable."""
    msg = build_notification(
        content_type, tips, send_id=send_id, recv_id=recv_id, session_type=session_type, is_stored=is_stored
    )
    await do_send(msg, operation_id, entrance="notification")
