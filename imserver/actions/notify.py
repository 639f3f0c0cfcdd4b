"""Notifications: messages of the server about events. They go through the same log, so their order is the chat's."""

from __future__ import annotations

import secrets
from typing import Any

import orjson
from google.protobuf.message import Message

from imserver.actions.outgoing import do_send
from imserver.clock import now_ms
from imserver.constants import ContentType, MsgFrom, Option, SessionType
from imserver.protocol.gen.sdkws_pb2 import ConversationUpdateTips, MsgData
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
    tips: Message | dict[str, Any],
    *,
    send_id: str,
    recv_id: str,
    session_type: SessionType,
    is_stored: bool,
    is_send_msg: bool = False,
    sender_nickname: str = "",
    sender_face_url: str = "",
) -> MsgData:
    """A notification: its content is JSON that holds the tips as JSON text.

    Args:
        recv_id: a user, or the group when the session type says so.
        is_stored: gets a seq in the notification twin; else it is pushed and forgotten.
        is_send_msg: the chat gets a copy too, stored and counted as unread, which clients show as a line.
    """
    options = {Option.SENDER_SYNC: True, **dict.fromkeys(_OFF, False)}
    if is_stored:
        options[Option.HISTORY] = options[Option.PERSISTENT] = True
    if is_send_msg:
        options[Option.IS_SEND_MSG] = options[Option.UNREAD_COUNT] = True
    now = now_ms()
    detail = to_json(tips) if isinstance(tips, Message) else tips
    return MsgData(
        sendID=send_id,
        recvID=recv_id,
        groupID=recv_id if session_type == SessionType.GROUP else "",
        clientMsgID=secrets.token_hex(16),
        senderNickname=sender_nickname,
        senderFaceURL=sender_face_url,
        sessionType=session_type,
        msgFrom=MsgFrom.SYSTEM,
        contentType=content_type,
        content=orjson.dumps({"detail": orjson.dumps(detail).decode()}),
        createTime=now,
        sendTime=now,
        options=options,
    )


async def send_notification(
    content_type: ContentType,
    tips: Message | dict[str, Any],
    *,
    send_id: str,
    recv_id: str,
    session_type: SessionType,
    operation_id: str,
    is_stored: bool = False,
    is_send_msg: bool = False,
    sender_nickname: str = "",
    sender_face_url: str = "",
) -> None:
    """Append a notification; the arguments are ``build_notification``'s. Raises ServerBusy, StorageUnavailable.

    A group's notification goes to its members at the time of the push. Who is no member by then but must hear of it
    (1504, 1508, 1511: the ones who left) is found by the push stage through ``storage.groups.member_ids(...,
    include_leavers=True)``: ``Groups.remove_members`` notes them for a minute before it removes their rows. So remove
    first, then send; nothing of it travels in the message.
    """
    msg = build_notification(
        content_type,
        tips,
        send_id=send_id,
        recv_id=recv_id,
        session_type=session_type,
        is_stored=is_stored,
        is_send_msg=is_send_msg,
        sender_nickname=sender_nickname,
        sender_face_url=sender_face_url,
    )
    await do_send(msg, operation_id, entrance="notification")


async def tell_conversations_changed(owner_user_id: str, conversation_ids: list[str], operation_id: str) -> None:
    """1300: an owner's devices look at what changed in its conversations. Raises ServerBusy, StorageUnavailable."""
    await send_notification(
        ContentType.CONVERSATION_CHANGE,
        ConversationUpdateTips(userID=owner_user_id, conversationIDList=conversation_ids),
        send_id=owner_user_id,
        recv_id=owner_user_id,
        session_type=SessionType.SINGLE,
        operation_id=operation_id,
    )
