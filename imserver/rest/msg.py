"""/msg: sending from the app server, read state."""

from __future__ import annotations

import orjson

from imserver.actions import pull, read, send
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


@route(Who.ADMIN)
async def send_msg(call: Call) -> Answer:
    """Send a message in a user's name. The body is MsgData, flat, with ``content`` as a JSON object."""
    content = call.body.get("content")
    if not isinstance(content, dict) or not content:
        raise ArgsError("content must be a JSON object")
    msg = Call({**call.body, "content": None}, call.operation_id, call.claims).parse(MsgData)
    if msg.contentType not in REST_CONTENT_TYPES:
        raise ArgsError(f"contentType {msg.contentType} cannot be sent by REST")
    if msg.contentType == ContentType.OA_NOTIFICATION:
        msg.sessionType = SessionType.NOTIFICATION
    msg.content = orjson.dumps(content)
    msg.msgFrom = MsgFrom.SYSTEM
    msg.ClearField("clientMsgID")
    if call.body.get("isOnlineOnly"):
        for option in _ONLINE_ONLY_OFF:
            msg.options[option] = False
    if call.body.get("notOfflinePush"):
        msg.options[Option.OFFLINE_PUSH] = False
    if msg.sendID:
        await send.check_user_exists(msg.sendID)
    future = await send.submit(msg, msg.sendID, call.operation_id, entrance="rest")
    answer = msg_pb2.SendMsgResp.FromString(await future)
    return {"serverMsgID": answer.serverMsgID, "clientMsgID": answer.clientMsgID, "sendTime": answer.sendTime}


@route(Who.ANY)
async def mark_conversation_as_read(call: Call) -> Answer:
    request = call.parse(msg_pb2.MarkConversationAsReadReq)
    call.check_self(request.userID)
    seqs = list(request.seqs)
    await read.check_mark_as_read(request.userID, request.conversationID, request.hasReadSeq, seqs)
    await read.do_mark_as_read(request.userID, request.conversationID, request.hasReadSeq, seqs, call.operation_id)
    return None


@route(Who.ANY)
async def get_conversations_has_read_and_max_seq(call: Call) -> Answer:
    request = call.parse(msg_pb2.GetConversationsHasReadAndMaxSeqReq)
    call.check_self(request.userID)
    return await pull.get_read_and_max_seqs(request.userID, request)
