"""/msg: sending from the app server, read state, revoking, deleting."""

from __future__ import annotations

from typing import Any

import orjson

from imserver.actions import delete, pull, read, revoke, send
from imserver.constants import ContentType, MsgFrom, Option, SessionType
from imserver.errors import ArgsError
from imserver.protocol.gen import msg_pb2
from imserver.protocol.gen.sdkws_pb2 import MsgData
from imserver.rest.decorators import Answer, Call, Who, route

#: What an app server may send in a user's name.
REST_CONTENT_TYPES = frozenset(
    {
        ContentType.TEXT,
        ContentType.PICTURE,
        ContentType.VOICE,
        ContentType.VIDEO,
        ContentType.FILE,
        ContentType.AT_TEXT,
        ContentType.CUSTOM,
        ContentType.QUOTE,
        ContentType.MARKDOWN_TEXT,
        ContentType.OA_NOTIFICATION,
    }
)
_ONLINE_ONLY_OFF = (Option.HISTORY, Option.PERSISTENT, Option.SENDER_SYNC, Option.CONVERSATION_UPDATE)

#: Fields of MsgData that the app server gives; keys match without regard to case.
_GIVEN = frozenset(
    {
        "sendid",
        "recvid",
        "groupid",
        "sendernickname",
        "senderfaceurl",
        "senderplatformid",
        "sessiontype",
        "contenttype",
        "sendtime",
        "offlinepushinfo",
        "ex",
    }
)


@route(Who.ADMIN)
async def send_msg(call: Call) -> Answer:
    """Send a message in a user's name. The body is MsgData, flat, with ``content`` as a JSON object."""
    body = {key.lower(): value for key, value in call.body.items()}
    content = body.get("content")
    if not isinstance(content, dict) or not content:
        raise ArgsError("content must be a JSON object")
    given = {key: value for key, value in body.items() if key in _GIVEN}
    msg = Call(given, call.operation_id, call.claims).parse(MsgData)
    if not msg.sendID:
        raise ArgsError("sendID is empty")
    if msg.contentType not in REST_CONTENT_TYPES:
        raise ArgsError(f"contentType {msg.contentType} cannot be sent by REST")
    if msg.contentType == ContentType.OA_NOTIFICATION:
        msg.sessionType = SessionType.NOTIFICATION
    msg.content = orjson.dumps(content)
    msg.msgFrom = MsgFrom.SYSTEM
    if _switch(body, "isOnlineOnly"):
        for option in _ONLINE_ONLY_OFF:
            msg.options[option] = False
    if _switch(body, "notOfflinePush"):
        msg.options[Option.OFFLINE_PUSH] = False
    await send.check_user_exists(msg.sendID)
    future = await send.submit(msg, msg.sendID, call.operation_id, entrance="rest")
    answer = msg_pb2.SendMsgResp.FromString(await future)
    return {"serverMsgID": answer.serverMsgID, "clientMsgID": answer.clientMsgID, "sendTime": answer.sendTime}


def _switch(body: dict[str, Any], name: str) -> bool:
    """Raises ArgsError."""
    value = body.get(name.lower())
    if value is not None and not isinstance(value, bool):
        raise ArgsError(f"{name} must be true or false")
    return bool(value)


@route(Who.ANY)
async def mark_conversation_as_read(call: Call) -> Answer:
    request = call.parse(msg_pb2.MarkConversationAsReadReq)
    call.check_self(request.userID)
    seqs = list(request.seqs)
    chat = await read.check_read(request.userID, request.conversationID, [request.hasReadSeq, *seqs])
    await read.do_mark_conversation_as_read(chat, request.hasReadSeq, seqs, call.operation_id)
    return None


@route(Who.ANY)
async def mark_msgs_as_read(call: Call) -> Answer:
    request = call.parse(msg_pb2.MarkMsgsAsReadReq)
    call.check_self(request.userID)
    seqs = list(request.seqs)
    chat = await read.check_mark_msgs_as_read(request.userID, request.conversationID, seqs)
    await read.do_mark_msgs_as_read(chat, seqs, call.operation_id)
    return None


@route(Who.ANY)
async def set_conversation_has_read_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.SetConversationHasReadSeqReq)
    call.check_self(request.userID)
    chat = await read.check_read(request.userID, request.conversationID, [request.hasReadSeq])
    await read.do_set_read_seq(chat, request.hasReadSeq, call.operation_id, is_silent=request.noNotification)
    return None


@route(Who.ANY)
async def get_conversations_has_read_and_max_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.GetConversationsHasReadAndMaxSeqReq)
    call.check_self(request.userID)
    return await pull.get_read_and_max_seqs(request.userID, request)


@route(Who.ANY)
async def revoke_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.RevokeMsgReq)
    call.check_self(request.userID)
    user_id, conversation_id = request.userID, request.conversationID
    msg, role = await revoke.check_revoke(
        user_id, conversation_id, request.seq, call.operation_id, is_admin=call.is_admin
    )
    await revoke.do_revoke(user_id, role, msg, conversation_id, call.operation_id, is_admin=call.is_admin)
    return None


@route(Who.ANY)
async def delete_msgs(call: Call) -> Answer:
    request = call.parse(msg_pb2.DeleteMsgsReq)
    call.check_self(request.userID)
    seqs, option = list(request.seqs), request.deleteSyncOpt
    chat = await delete.check_delete_msgs(request.userID, request.conversationID, seqs, option, is_admin=call.is_admin)
    await delete.do_delete_msgs(chat, seqs, option, call.operation_id)
    return None


@route(Who.ANY)
async def clear_conversation_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.ClearConversationsMsgReq)
    call.check_self(request.userID)
    option = request.deleteSyncOpt
    chats = await delete.check_clear(request.userID, list(request.conversationIDs), option, is_admin=call.is_admin)
    await delete.do_clear(request.userID, chats, option, call.operation_id)
    return None


@route(Who.ANY)
async def user_clear_all_msg(call: Call) -> Answer:
    request = call.parse(msg_pb2.UserClearAllMsgReq)
    call.check_self(request.userID)
    await delete.do_clear_all(request.userID, request.deleteSyncOpt, call.operation_id, is_admin=call.is_admin)
    return None
